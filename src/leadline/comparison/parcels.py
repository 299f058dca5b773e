"""A data set in a form that travels to another process: arrays and plain descriptions, no tensors.

A tensor is pickled through `torch.load`; an array is not, and joblib maps large ones into memory once for
all workers. Streams travel as they are: they hold paths, not samples.
"""

from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor

from leadline.core import Ragged, domain_from_json, labels_from_json
from leadline.data import Dataset, Split, Stream

__all__ = ["CONVERSIONS", "Parcel", "converted", "packed"]

CONVERSIONS = ("binarized", "vectors")
Array = np.ndarray[Any, Any]
Packed = Array | tuple[Array, Array] | Stream

_opened: dict[tuple[str, str], Dataset] = {}
_MOST_OPEN = 4
_opening = Lock()  # workers may be threads


@dataclass(frozen=True)
class Parcel:
    """A packed data set.

    Args:
        name: Name of the data set.
        fingerprint: Its fingerprint.
        domain: Description of its domain.
        labels: Description of its labels, or None.
        splits: Samples and labels of train, valid and test.
        source: What `load` was given.
        options: The options that `load` was given.
    """

    name: str
    fingerprint: str
    domain: dict[str, Any]
    labels: dict[str, Any] | None
    splits: tuple[tuple[Packed, Array | None], ...]
    source: str
    options: dict[str, Any]

    def opened(self, conversion: str = "") -> Dataset:
        """Return the data set, converted where asked; a process keeps the last four it opened."""
        key = (self.fingerprint, conversion)
        with _opening:
            if key not in _opened:
                while len(_opened) >= _MOST_OPEN:
                    _opened.pop(next(iter(_opened)))
                _opened[key] = converted(self._plain(), conversion)
            return _opened[key]

    def _plain(self) -> Dataset:
        train, valid, test = (Split(_samples(x), None if y is None else _tensor(y)) for x, y in self.splits)
        return Dataset(
            name=self.name,
            domain=domain_from_json(self.domain),
            labels=labels_from_json(self.labels),
            train=train,
            valid=valid,
            test=test,
            source=self.source,
            options=self.options,
        )


def packed(data: Dataset) -> Parcel:
    """Return the parcel of a data set."""
    splits = (data.train, data.valid, data.test)
    return Parcel(
        name=data.name,
        fingerprint=data.fingerprint,
        domain=data.domain.to_json(),
        labels=None if data.labels is None else data.labels.to_json(),
        splits=tuple((_plain(split.x), None if split.y is None else split.y.numpy()) for split in splits),
        source=data.source,
        options=data.options,
    )


def converted(data: Dataset, conversion: str) -> Dataset:
    """Return the data as they are (""), as Bits ("binarized") or as real columns ("vectors").

    Raises:
        DomainError: If the data have no such form.
    """
    if conversion == "binarized":
        return data.binarize()
    return data.vectors() if conversion == "vectors" else data


def _plain(x: Tensor | Stream) -> Packed:
    """Return samples as an array, or two where their lengths differ: values and offsets."""
    if isinstance(x, Ragged):
        return x.flat.cpu().numpy(), x.offsets.numpy()
    return x if isinstance(x, Stream) else x.cpu().numpy()


def _samples(x: Packed) -> Tensor | Stream:
    if isinstance(x, tuple):
        return Ragged(*(_tensor(array) for array in x))
    return x if isinstance(x, Stream) else _tensor(x)


def _tensor(array: Array) -> Tensor:
    """Return a tensor of an array; one that a worker may only read is copied."""
    return torch.from_numpy(array if array.flags.writeable else np.array(array))
