"""Splits by what is known of a sample beside its class: a speaker, a session, a number.

A split by group keeps every group whole, so that what is judged was said by nobody who was learned from.

Symbols:
    n samples.
"""

import re
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from leadline.core import DataError, OptionError
from leadline.core.errors import unknown_name
from leadline.core.randomness import generator_for
from leadline.data.found import Part

__all__ = ["arranged", "names_in"]

_HELD_OUT = 0.1
_BELOW = re.compile(r"(\w+)\s*<\s*(\d+)")


def names_in(held: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return names with commas between, or a list of them, as a tuple."""
    parts = held.split(",") if isinstance(held, str) else [str(name) for name in held or ()]
    return tuple(part.strip() for part in parts if part.strip())


def arranged(
    part: Part,
    fields: Mapping[str, Sequence[str]],
    split: str | None,
    held: str | Sequence[str] | None,
    seed: int,
) -> dict[str, Part]:
    """Return the parts that `split` makes of one part; "train" alone where the split is random.

    Args:
        part: All samples.
        fields: What is known of each sample, by name of the field, n values each.
        split: "random"; a field, whose groups stay whole; or "FIELD<NUMBER", which is the test split.
        held: Groups of the field that are the test split; a tenth of them by default.
        seed: What the choice of groups is a pure function of.

    Raises:
        OptionError: If a field or a group is unknown, or the options do not go together.
        DataError: If a part would be empty.
    """
    below = _BELOW.fullmatch(split or "")
    name = below[1] if below else split
    if name in (None, "random"):
        if names_in(held):
            raise OptionError(f"held={held!r} needs split=FIELD, such as split=speaker")
        return {"train": part}
    if not fields:
        raise OptionError(
            f'split={split} needs names that tell the {name}, label="{{label}}_{{speaker}}.wav"'
        )
    if name not in fields:
        raise unknown_name("field to split by", str(name), [*fields, "random"])
    values = [str(value) for value in fields[str(name)]]
    if below:
        if names_in(held):
            raise OptionError(f"held={held!r} needs split=FIELD, such as split=speaker, not split={split}")
        return _parts(part, {"test": torch.tensor([_number(v, name) < int(below[2]) for v in values])}, split)
    return _parts(part, _chosen(str(name), values, names_in(held), seed), split)


def _chosen(name: str, values: list[str], held: tuple[str, ...], seed: int) -> dict[str, Tensor]:
    """Return which samples are judged by and, where a third group is left, which are chosen by."""
    groups = sorted(set(values))
    for group in held:
        if group not in groups:
            raise unknown_name(name, group, groups)
    if len(groups) < 2:
        raise DataError(f'split={name}: there is only one {name}, "{groups[0]}"; use split=random')
    count = max(1, round(_HELD_OUT * len(groups)))
    order = torch.randperm(len(groups), generator=generator_for(seed, "groups", name)).tolist()
    test = set(held) or {groups[i] for i in order[:count]}
    rest = [groups[i] for i in order if groups[i] not in test]
    valid = set(rest[:count]) if len(rest) > count else set()
    sides = {"test": test} | ({"valid": valid} if valid else {})
    return {side: torch.tensor([value in mine for value in values]) for side, mine in sides.items()}


def _parts(part: Part, masks: dict[str, Tensor], split: str | None) -> dict[str, Part]:
    """Return the samples of each mask as a part, and all others as the training part."""
    taken = torch.stack(list(masks.values())).any(0)
    found = {}
    for side, mask in {"train": ~taken, **masks}.items():
        rows = mask.nonzero().flatten()
        if not len(rows):
            raise DataError(f"split={split}: no sample is left for the {side} split")
        found[side] = Part(part.data.select(rows), _placed(part, rows.tolist()))
    return found


def _placed(part: Part, rows: list[int]) -> Callable[[int], str]:
    return lambda i: part.place(rows[i])


def _number(value: str, name: str | None) -> int:
    try:
        return int(value)
    except ValueError:
        raise OptionError(f"split={name}<...: {value!r} is no whole number") from None
