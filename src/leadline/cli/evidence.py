"""Evidence and names of variables as they stand on the command line."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from leadline.core import OptionError
from leadline.data.uai import read_evidence

__all__ = ["evidence_of", "names_in"]


def evidence_of(model: Any, texts: Sequence[str] | None, path: Path | None) -> dict[str, str]:
    """Return evidence from the command line, a .evid file, or both, by names of variables and states.

    Raises:
        OptionError: If a pair is not VARIABLE=STATE, or one variable is in two states.
        DataError: If the file does not hold evidence on the model.
    """
    found: dict[str, str] = {}
    if path is not None:
        numbers = read_evidence(path, model.variables.sizes)
        found.update((model.variable_name(v), model.state_name(v, s)) for v, s in numbers.items())
    for pair in (pair for text in texts or () for pair in names_in(text) or ()):
        name, state = _parted(model, pair)
        if not name or not state:
            raise OptionError(f"--evidence {pair}: give VARIABLE=STATE, e.g. --evidence CVP=LOW,BP=HIGH")
        if found.setdefault(name, state) != state:
            raise OptionError(f"--evidence {pair}: {name} is observed twice, as {found[name]} and as {state}")
    return found


def names_in(text: str | None) -> list[str] | None:
    """Return what stands between commas; a name in double quotes may hold one.

    Raises:
        OptionError: If there is no name.
    """
    if text is None:
        return None
    names = [name.strip() for name in next(csv.reader([text], skipinitialspace=True), []) if name.strip()]
    if not names:
        raise OptionError(f"{text!r} names nothing; give names with commas between, or leave the option out")
    return names


def _parted(model: Any, pair: str) -> tuple[str, str]:
    """Return the variable and the state of VARIABLE=STATE; either may hold the sign, as in Age=<=30."""
    known = [model.variable_name(v) for v in range(len(model.variables.sizes))]
    places = [place for place, sign in enumerate(pair) if sign == "="]
    place = next((place for place in places if pair[:place].strip() in known), pair.rfind("="))
    return pair[: max(place, 0)].strip(), pair[place + 1 :].strip()
