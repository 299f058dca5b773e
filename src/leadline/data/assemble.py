"""From what a reader found to a data set: limited, split, labelled, examined, converted."""

from dataclasses import replace

import torch
from torch import Tensor

from leadline.core import Classes, DataError, Labels, OptionError, Targets
from leadline.data.dataset import Dataset, Split, moments
from leadline.data.examine import examined
from leadline.data.found import Ask, Found, Part
from leadline.data.splits import divided, hidden, stratified_order

__all__ = ["assembled", "converted", "kept"]


def assembled(found: Found, ask: Ask, labels: str | None = None) -> Dataset:
    """Return the data set of what was found.

    Args:
        found: Samples, and what they are.
        ask: Seed, limit, and where faults were told.
        labels: "5 per class" or "10%" hides the other training labels; "none" drops all labels.

    Raises:
        DataError: If there are too few samples.
        OptionError: If labels are to be hidden and there are none.
    """
    parts = _limited(found.parts, ask)
    splits = _divided(found.name, parts, ask.seed)
    domain = found.domain(splits["train"])
    problems = [*ask.faults.lines, *examined(found, parts, splits, domain)]
    if labels == "none" or all(split.y is None for split in splits.values()):
        if labels not in (None, "none"):
            raise OptionError(f"labels={labels!r}, but {found.name} has no labels to hide")
        splits = {name: replace(split, y=None) for name, split in splits.items()}
    elif labels is not None:
        y = splits["train"].y
        splits["train"] = replace(splits["train"], y=None if y is None else hidden(y, labels, ask.seed))
    return Dataset(
        name=found.name,
        domain=domain,
        labels=_labels(found, splits["train"].y),
        problems=tuple(problems),
        skipped=ask.faults.skipped,
        train=splits["train"],
        valid=splits["valid"],
        test=splits["test"],
    )


def _limited(parts: dict[str, Part], ask: Ask) -> dict[str, Part]:
    """Return at most `ask.limit` samples in all, every given split and class in proportion."""
    sizes = {name: len(part.data) for name, part in parts.items()}
    if ask.limit is None or sum(sizes.values()) <= ask.limit:
        return parts
    labels = {name: part.data.y for name, part in parts.items() if part.data.y is not None}
    return {name: _part(parts[name], index) for name, index in kept(sizes, labels, ask).items()}


def kept(sizes: dict[str, int], labels: dict[str, Tensor], ask: Ask) -> dict[str, Tensor]:
    """Return the sorted numbers of the samples of each part that `ask.limit` leaves."""
    total = sum(sizes.values())
    if ask.limit is None or total <= ask.limit:
        return {name: torch.arange(n) for name, n in sizes.items()}
    index = {}
    for name, n in sizes.items():
        order = stratified_order(labels.get(name), n, ask.seed, "limit")
        index[name] = order[: max(1, n * ask.limit // total)].sort().values
    return index


def _part(part: Part, index: Tensor) -> Part:
    """Return some samples of a part, still called by their places in the file."""
    rows = index.tolist()
    return Part(part.data.select(index), lambda i: part.place(rows[i]))


def _divided(name: str, parts: dict[str, Part], seed: int) -> dict[str, Split]:
    """Return train, valid and test: given ones as they are, the others taken from train."""
    missing = [split for split in ("valid", "test") if split not in parts]
    given = {split: part.data for split, part in parts.items()}
    train = given["train"]
    try:
        pieces = divided(train.y, len(train), seed, len(missing))
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    if not missing:
        return given
    given["train"] = train.select(pieces[0])
    return given | {split: train.select(piece) for split, piece in zip(missing, pieces[1:], strict=True)}


def _labels(found: Found, y: Tensor | None) -> Labels | None:
    """Return what a label is; the moments of targets are those of the training split."""
    if y is None:
        return None
    if found.classes is not None:
        return Classes(found.classes)
    return Targets(found.targets or tuple(f"y{i}" for i in range(y.shape[1])), *moments(y))


def converted(data: Dataset, convert: list[str]) -> Dataset:
    """Return the data after some steps.

    Args:
        data: What is to be converted.
        convert: Steps "vectors", "binarize" or "binarize:THRESHOLD", in their order.

    Raises:
        OptionError: If a step is none of these.
    """
    for step in convert:
        name, _, value = step.partition(":")
        if step == "vectors":
            data = data.vectors()
        elif name == "binarize":
            data = data.binarize(_number(step, value) if value else None)
        else:
            raise OptionError(f'convert={step!r}: a step is "vectors", "binarize" or "binarize:THRESHOLD"')
    return data


def _number(step: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise OptionError(f"convert={step!r}: {value!r} is not a number") from None
