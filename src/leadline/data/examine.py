"""What is odd about samples that can all be read: each a line, and no reason to stop.

Symbols:
    n samples, d dimensions.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from leadline.core import Categories, Domain, Ragged
from leadline.data.dataset import Split
from leadline.data.found import Found, Part

__all__ = ["examined"]

FEW_OF_A_CLASS = 10
FEW_VALUES = 10
MOST_NAMED = 5


def examined(found: Found, parts: dict[str, Part], splits: dict[str, Split], domain: Domain) -> list[str]:
    """Return a line for each oddity of the samples of `parts`, which became `splits`."""
    lines = [*_classes(found, parts)]
    if any(part.data.streamed for part in parts.values()):
        return lines
    if isinstance(domain, Categories):  # rows of few categories repeat by chance
        return [*lines, *_single(domain)]
    keys = {name: _keys(part.data.x) for name, part in parts.items()}
    lines += _repeated(parts, keys)
    given = "test" in parts
    train, test = (keys["train"], keys["test"]) if given else (_keys(splits[s].x) for s in ("train", "test"))
    seen = set(train)
    shared = [i for i, key in enumerate(test) if key in seen]
    if shared:
        where = f" (first: {parts['test'].place(shared[0])})" if given else ""
        lines.append(f"{len(shared)} of {len(test)} test samples are also in train{where}")
    x = splits["train"].x
    if isinstance(x, Tensor) and x.is_floating_point() and x.dim() == 2:
        lines += _columns(x, domain)
    return lines


def _keys(x: object) -> list[int]:
    """Return a number for each sample; equal samples have equal numbers."""
    if not isinstance(x, Tensor):
        return []
    rows = [row.numpy() for row in x] if isinstance(x, Ragged) else x.contiguous().flatten(1).numpy()
    return [hash(row.tobytes()) for row in rows]


def _repeated(parts: dict[str, Part], keys: dict[str, list[int]]) -> Iterator[str]:
    """Give the number of samples that occur before in the same part, and the first such pair."""
    for name, part in parts.items():
        first: dict[int, int] = {}
        again = [(i, first[key]) for i, key in enumerate(keys[name]) if first.setdefault(key, i) != i]
        if again:
            late, early = (part.place(i) for i in again[0])
            yield f"{late}: repeats {early}; {len(again)} of {len(part.data)} samples repeat an earlier one"


def _classes(found: Found, parts: dict[str, Part]) -> Iterator[str]:
    """Tell of classes with few samples, and of a single class."""
    labels = [part.data.y for part in parts.values() if part.data.y is not None]
    if found.classes is None or not labels:
        return
    y = torch.cat(labels)
    counts = y[y >= 0].bincount(minlength=len(found.classes)).tolist()
    few = [
        f"{name} ({count})"
        for name, count in zip(found.classes, counts, strict=True)
        if count < FEW_OF_A_CLASS
    ]
    if len(found.classes) == 1:
        yield f'there is only one class, "{found.classes[0]}": nothing to tell apart'
    if few:
        yield f"classes of fewer than {FEW_OF_A_CLASS} samples: {_some(few)}"
    if "train" in parts and parts["train"].data.y is not None:
        seen = set(parts["train"].data.y.tolist())
        absent = [name for i, name in enumerate(found.classes) if i not in seen and counts[i]]
        if absent:
            yield f"classes without a training sample: {_some(absent)}"


def _columns(x: Tensor, domain: Domain) -> Iterator[str]:
    """Tell of real columns that are constant or take few values."""
    names = getattr(getattr(domain, "reals", domain), "columns", ())
    distinct = [len(x[:, i].unique()) for i in range(len(names))]
    constant = [name for name, count in zip(names, distinct, strict=True) if count == 1]
    few = [
        f"{name} ({count})"
        for name, count in zip(names, distinct, strict=True)
        if 1 < count <= FEW_VALUES < len(x)
    ]
    if constant:
        yield f"columns that are constant over the training split: {_some(constant)}"
    if few:
        yield (
            f"real columns of at most {FEW_VALUES} values: {_some(few)}; "
            "a density of them can grow without bound"
        )


def _single(domain: Categories) -> Iterator[str]:
    """Tell of columns of one category."""
    names = domain.columns or tuple(f"x{v}" for v in range(len(domain.sizes)))
    alone = [name for name, size in zip(names, domain.sizes, strict=True) if size == 1]
    if alone:
        yield f"columns of a single category: {_some(alone)}"


def _some(names: list[str]) -> str:
    """Return the first names, and that there are more."""
    return ", ".join(names[:MOST_NAMED]) + (
        f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    )
