"""What bare arrays mean: which domain their shape and type stand for, and which kind of label.

Symbols:
    n samples, c channels, h height, w width, d columns, K classes, D targets.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from leadline.core import Bits, Categories, Counts, DataError, Domain, Images, OptionError, Tokens

__all__ = ["Array", "Kind", "Meaning", "labels_of", "meaning_of"]

Array = NDArray[Any]
Kind = str
KINDS = ("images", "bits", "vectors", "categories", "counts", "tokens")
PICTURE_CHANNELS = (1, 3)
LEVELS = 256
MOST_ONE_HOT = 1000


@dataclass(frozen=True)
class Meaning:
    """What arrays stand for.

    Args:
        kind: The kind of domain.
        layout: Order of the axes of pictures: "NCHW", "NHWC", "NHW", or "CxHxW" of flat rows.
        levels: Number of levels of pictures.
        note: What is worth telling about the choice.
    """

    kind: Kind
    layout: str = ""
    levels: int = LEVELS
    note: str = ""

    def tensor(self, x: Array) -> Tensor:
        """Return raw samples of the domain.

        Raises:
            DataError: If a value is not of the domain; the sample is named.
        """
        if self.kind in ("images", "bits"):
            x = _picture(x, self.layout) if self.layout else x
            return torch.from_numpy(np.ascontiguousarray(_levels(x, self.levels, self.kind)))
        if self.kind == "as it is":
            return torch.from_numpy(np.ascontiguousarray(x))
        rows = np.ascontiguousarray(x).reshape(len(x), -1)
        if self.kind == "vectors":
            return torch.from_numpy(rows.astype(np.float32))
        bad = (rows < 0) | (rows != np.floor(rows))
        if bad.any():
            row = int(bad.any(1).argmax())
            raise DataError(f"sample {row}: {rows[row][bad[row]][0]} is no number of {self.kind}, 0 or more")
        return torch.from_numpy(rows.astype(np.int64))

    def domain(self, parts: list[Tensor]) -> Domain:
        """Return the domain of samples (n, *shape); the numbers of categories follow from all parts."""
        shape = tuple(parts[0].shape[1:])
        if self.kind == "images":
            return Images(shape[0], shape[1], shape[2], self.levels)
        if self.kind == "bits":
            return Bits(shape)
        if self.kind == "counts":
            return Counts(tuple(str(i) for i in range(shape[0])))
        top = torch.stack([part.amax(0) for part in parts]).amax(0)
        if self.kind == "categories":
            return Categories(tuple(int(value) + 1 for value in top))
        return Tokens(tuple(str(i) for i in range(int(top.max()) + 1)), shape[0], " ")


def meaning_of(
    x: Array, name: str, kind: Kind | None = None, layout: str | None = None, levels: int | None = None
) -> Meaning:
    """Return what an array of samples stands for.

    Without `kind`: 0/1 integers are Bits; integers of three or four axes are Images; real numbers,
    and other integers of two axes, are Vectors.

    Raises:
        DataError: If an array of its type or shape stands for nothing here.
        OptionError: If `kind` or `layout` is unknown.
    """
    if kind is not None and kind not in KINDS:
        raise OptionError(f"kind={kind!r} is none of {', '.join(KINDS)}")
    if x.dtype.kind not in "biuf":
        raise DataError(f"{name}: x is of type {x.dtype}; store integers or real numbers")
    if x.ndim == 0 or 0 in x.shape:
        raise DataError(f"{name}: x has the shape {x.shape}: there are no samples")
    whole = x.dtype.kind in "biu"
    if layout or kind == "images":
        kind = kind or ("bits" if whole and _binary(x) else "images")
        found, note = (layout, "") if layout else _layout(x.shape, name)
        return Meaning(kind, found, levels or LEVELS, note)
    if kind is None and whole and _binary(x):
        found, note = _layout(x.shape, name) if x.ndim in (3, 4) and x.dtype == np.uint8 else ("", "")
        return Meaning("bits", found, 2, note)
    if kind is None and whole and x.ndim in (3, 4):
        found, note = _layout(x.shape, name)
        return Meaning("images", found, levels or LEVELS, note)
    flat = x.ndim > 2 and kind in (None, "vectors")
    note = f'{name}: real numbers of shape {x.shape[1:]} became columns; kind="images" makes pictures'
    return Meaning(kind or "vectors", note=note if flat else "")


def _binary(x: Array) -> bool:
    """Return whether all values are 0 or 1."""
    return x.dtype == np.bool_ or bool((x[: 1 << 8] <= 1).all() and (x <= 1).all() and (x >= 0).all())


def _layout(shape: tuple[int, ...], name: str) -> tuple[str, str]:
    """Return the order of axes, and a note if it had to be guessed.

    Three axes are NHW. Of four, the last is channels if it has 1 or 3 places; else the second.
    """
    if len(shape) == 3:
        return "NHW", ""
    if len(shape) != 4:
        raise DataError(f'{name}: pictures have 3 or 4 axes, x has the shape {shape}; say layout="1x28x28"')
    first, last = shape[1] in PICTURE_CHANNELS, shape[3] in PICTURE_CHANNELS
    if not first and not last:
        raise DataError(
            f'{name}: no axis of x {shape} has 1 or 3 channels; say layout="NHWC", "NCHW" or kind="vectors"'
        )
    note = f'{name}: x {shape} was read as NHWC; layout="NCHW" reads it otherwise' if first and last else ""
    return ("NHWC" if last else "NCHW"), note


def _picture(x: Array, layout: str) -> Array:
    """Return pictures (n, c, h, w).

    Raises:
        OptionError: If the layout is unknown or does not fit.
    """
    sides = re.fullmatch(r"(\d+)x(\d+)x(\d+)", layout)
    if sides:
        c, h, w = (int(side) for side in sides.groups())
        if x[0].size == c * h * w:
            return x.reshape(len(x), c, h, w)
    elif layout == "NHW" and x.ndim == 3:
        return x[:, None]
    elif layout == "NCHW" and x.ndim == 4:
        return x
    elif layout == "NHWC" and x.ndim == 4:
        return x.transpose(0, 3, 1, 2)
    raise OptionError(
        f'layout={layout!r} does not fit x {x.shape}; there are "NCHW", "NHWC", "NHW", "1x28x28" (CxHxW)'
    )


def _levels(x: Array, levels: int, kind: Kind) -> Array:
    """Return values as uint8 levels; real numbers in [0, 1] are spread over all levels.

    Raises:
        DataError: If a value is no level; the first such sample is named.
    """
    top = 1 if kind == "bits" else levels - 1
    if x.dtype == np.uint8 and top == LEVELS - 1:
        return x
    if x.dtype.kind == "f" and kind == "images" and np.nanmin(x) >= 0 and np.nanmax(x) <= 1:
        return np.rint(x * top).astype(np.uint8)
    bad = ~((x >= 0) & (x <= top) & (x == np.floor(x)))
    if bad.any():
        row = int(bad.reshape(len(x), -1).any(1).argmax())
        value = x[row][bad[row]].flat[0]
        raise DataError(f"sample {row}: {value} is no level from 0 to {top}")
    return x.astype(np.uint8)


def labels_of(
    y: Array, name: str, classes: Sequence[str] | None = None, task: str | None = None
) -> tuple[Array, tuple[str, ...] | None, tuple[str, ...] | None]:
    """Return labels, class names, target names: integers and texts are classes, real numbers targets.

    Classes become int64 numbers (n,), -1 where unknown; targets float32 (n, D), NaN where unknown.

    Raises:
        DataError: If a label cannot be read.
        OptionError: If `task` is unknown.
    """
    if task not in (None, "classification", "regression"):
        raise OptionError(f'task={task!r}: give "classification" or "regression"')
    if y.dtype.kind not in "biufUS" or y.ndim == 0:
        raise DataError(
            f"{name}: y is of type {y.dtype}, shape {y.shape}; store integers, real numbers or texts"
        )
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if task == "regression" or (task is None and y.dtype.kind == "f"):
        return _targets(y, name)
    if y.ndim == 2 and y.dtype.kind in "biu" and 1 < y.shape[1] <= MOST_ONE_HOT and (y.sum(1) == 1).all():
        y = y.argmax(1)  # one-hot rows
    if y.ndim != 1:
        raise DataError(
            f'{name}: y has the shape {y.shape}; one class a sample is (n,), or say task="regression"'
        )
    return (*_classes(y, name, classes), None)


def _targets(y: Array, name: str) -> tuple[Array, None, tuple[str, ...]]:
    """Return real targets (n, D) and their names."""
    if y.dtype.kind not in "biuf" or y.ndim > 2:
        raise DataError(f"{name}: targets must be real numbers (n,) or (n, D), got {y.dtype} {y.shape}")
    values = y.astype(np.float32).reshape(len(y), -1)
    if np.isinf(values).any():
        raise DataError(f"{name}, sample {int(np.isinf(values).any(1).argmax())}: the target is not finite")
    return values, None, ("y",) if values.shape[1] == 1 else tuple(f"y{i}" for i in range(values.shape[1]))


def _classes(y: Array, name: str, classes: Sequence[str] | None) -> tuple[Array, tuple[str, ...]]:
    """Return class numbers (n,) and class names."""
    if y.dtype.kind == "f":
        y = np.where(np.isnan(y), -1, y)
        if (y != np.floor(y)).any():
            raise DataError(
                f'{name}: y has real numbers such as {y[y != np.floor(y)][0]}; say task="regression"'
            )
        y = y.astype(np.int64)
    if y.dtype.kind in "iu" and classes is not None:
        outside = (y < -1) | (y.astype(np.int64) >= len(classes))
        if outside.any():
            row = int(outside.argmax())
            raise DataError(f"{name}, sample {row}: label {y[row]}, but there are {len(classes)} class names")
        return y.astype(np.int64), tuple(str(item) for item in classes)
    known = y != -1 if y.dtype.kind in "iu" else np.ones(len(y), dtype=bool)
    values, numbers = np.unique(y[known], return_inverse=True)
    out = np.full(len(y), -1, dtype=np.int64)
    out[known] = numbers
    names = tuple(
        value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) for value in values
    )
    return out, names
