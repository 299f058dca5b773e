"""Evidence and names of variables as they stand on the command line."""

import csv
from pathlib import Path
from typing import Any

from leadline.core import OptionError
from leadline.data.uai import read_evidence

__all__ = ["evidence_of", "names_in"]


def evidence_of(model: Any, text: str | None, path: Path | None) -> dict[Any, Any]:
    """Return evidence from the command line, a .evid file, or both.

    Raises:
        OptionError: If a pair is not VARIABLE=STATE.
        DataError: If the file does not hold evidence on the model.
    """
    found: dict[Any, Any] = {}
    if path is not None:
        found.update(read_evidence(path, model.domain.sizes))
    for pair in names_in(text) or ():
        name, sign, state = pair.rpartition("=")
        if not sign:
            raise OptionError(f"--evidence {pair}: give VARIABLE=STATE, e.g. --evidence CVP=LOW,BP=HIGH")
        found[name.strip()] = state.strip()
    return found


def names_in(text: str | None) -> list[str] | None:
    """Return what stands between commas; a name in double quotes may hold one."""
    if text is None:
        return None
    return [name.strip() for name in next(csv.reader([text], skipinitialspace=True), []) if name.strip()]
