"""A data set: train, valid and test splits of raw samples with one domain.

In-memory samples are one tensor: (n, *shape) where all are alike, a `Ragged` where they differ in length.
Both are selected from, cut into batches, moved and counted in the same words, so whoever passes samples on
need not know which it is.

Symbols:
    n samples, d dimensions of a sample.
"""

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from leadline.core import (
    Bits,
    Categories,
    Counts,
    Domain,
    DomainError,
    Images,
    Labels,
    OptionError,
    Ragged,
    Table,
    Vectors,
)

__all__ = ["Dataset", "Split", "Stream", "moments"]

MOST_MEASURED = 10_000


class Stream(ABC):
    """Raw samples that are decoded when they are asked for."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of samples."""

    @abstractmethod
    def __getitem__(self, index: Tensor) -> Tensor:
        """Return the raw samples at `index` (k,) -> (k, *shape)."""

    def sparse(self) -> Tensor | None:
        """Return all samples as one sparse tensor (n, *shape) if they are held so, else None."""
        return None

    @abstractmethod
    def digest(self) -> bytes:
        """Return a hash of what the samples are, without decoding them all."""

    @property
    def lengths(self) -> Tensor | None:
        """Return the length of each sample, (n,), or None where all have one shape."""
        return None

    def select(self, index: Tensor) -> "Stream":
        """Return the stream of the samples at `index` (k,)."""
        return _Selected(self, index)


@dataclass(frozen=True)
class _Selected(Stream):
    """Some samples of another stream."""

    source: Stream
    index: Tensor

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: Tensor) -> Tensor:
        return self.source[self.index[index]]

    @property
    def lengths(self) -> Tensor | None:
        return None if self.source.lengths is None else self.source.lengths[self.index]

    def digest(self) -> bytes:
        return hashlib.sha256(self.source.digest() + self.index.numpy().tobytes()).digest()


@dataclass(frozen=True)
class _Mapped(Stream):
    """A stream whose samples go through a function, batch by batch."""

    source: Stream
    function: Callable[[Tensor], Tensor]

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: Tensor) -> Tensor:
        return self.function(self.source[index])

    def digest(self) -> bytes:
        return hashlib.sha256(self.source.digest() + repr(self.function).encode()).digest()

    def select(self, index: Tensor) -> Stream:
        return _Mapped(self.source.select(index), self.function)


@dataclass(frozen=True)
class Split:
    """Some samples of a data set.

    Args:
        x: Raw samples: a tensor (n, *shape), a `Ragged` of unequal lengths, or a stream that decodes
            them on demand and gives either.
        y: Labels (n,) int64 with -1 for unknown, (n, D) float32 with NaN for unknown, or None.
    """

    x: Tensor | Stream
    y: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        if isinstance(self.x, (Stream, Ragged)):
            return f"Split({len(self)} samples, {'stream' if self.streamed else self.x})"
        return f"Split({len(self)} samples, {self.x.dtype} {tuple(self.x.shape)})"

    @property
    def streamed(self) -> bool:
        """Return whether samples are decoded on demand."""
        return isinstance(self.x, Stream)

    def rows(self, index: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the samples and labels at `index` (k,)."""
        return self.x[index], None if self.y is None else self.y[index]

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Return samples and labels in their order, `size` at a time."""
        for start in range(0, len(self), size):
            yield self.rows(torch.arange(start, min(start + size, len(self))))

    def select(self, index: Tensor) -> "Split":
        """Return the samples at `index` (k,); a stream stays one."""
        x = self.x.select(index) if isinstance(self.x, Stream) else self.x[index]
        return Split(x, None if self.y is None else self.y[index])

    def head(self, most: int) -> "Split":
        """Return at most `most` samples in memory, spread evenly over the split."""
        if most >= len(self) and not self.streamed:
            return self
        count = min(most, len(self))
        index = torch.arange(count) * len(self) // max(count, 1)
        return Split(*self.rows(index))

    def mapped(self, function: Callable[[Tensor], Tensor]) -> "Split":
        """Return the split with every batch of samples passed through `function`."""
        if isinstance(self.x, Stream):
            return replace(self, x=_Mapped(self.x, function))
        return replace(self, x=function(self.x))


@dataclass(frozen=True)
class Dataset:
    """Train, valid and test splits of raw samples with one domain.

    Args:
        name: Short name, used for run directories.
        domain: What one sample is.
        labels: What a label is, or None.
        train: Samples to learn from.
        valid: Samples to choose by.
        test: Samples to judge by.
        source: What `load` was given, so that a run can load it again; empty if made in memory.
        options: The options that `load` was given.
        problems: What was found wrong, a line each (file, row, what).
        skipped: Number of samples left out because they were bad.
    """

    name: str
    domain: Domain
    labels: Labels | None
    train: Split
    valid: Split
    test: Split
    source: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    skipped: int = 0

    def __repr__(self) -> str:
        sizes = f"train {len(self.train)}, valid {len(self.valid)}, test {len(self.test)}"
        return f"Dataset({self.name}: {self.domain}, {sizes})"

    @cached_property
    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that change when any sample or label changes."""
        digest = hashlib.sha256(repr((self.domain.to_json(), self.labels)).encode())
        for split in (self.train, self.valid, self.test):
            digest.update(f"{len(split)} {split.y is not None}".encode())
            if isinstance(split.x, Stream):
                digest.update(split.x.digest())
            else:
                for held in (split.x.offsets, split.x.flat) if isinstance(split.x, Ragged) else (split.x,):
                    digest.update(_bytes(held))
            if split.y is not None:
                digest.update(_bytes(split.y))
        return digest.hexdigest()[:16]

    def binarize(self, threshold: float | None = None) -> "Dataset":
        """Return the data as Bits: whether each value is above `threshold`.

        By default that is the middle of the levels, the mean of a column, or zero for counts: whether
        a word occurs.

        Raises:
            DomainError: If the values have no order.
        """
        if isinstance(self.domain, Bits):
            return self
        if not isinstance(self.domain, (Images, Vectors, Counts)):
            raise DomainError(f"binarize needs Images, Vectors or Counts, but the data are {self.domain}")
        if threshold is not None and not math.isfinite(threshold):
            raise OptionError(f"threshold must be a finite number, got {threshold}")
        step = "binarize" if threshold is None else f"binarize:{float(threshold)!r}"
        return self._converted(
            Bits(self.domain.shape, self.domain.names), _Above(_middle(self.domain, threshold)), step
        )

    def vectors(self) -> "Dataset":
        """Return the data as real Vectors: pixels as columns, categories one-hot."""
        if isinstance(self.domain, Vectors):
            return self
        if not isinstance(self.domain, (Images, Bits, Categories, Table)):
            raise DomainError(f"vectors() needs pictures, bits or a table, but the data are {self.domain}")
        plain = _Plain(self.domain)
        sample = plain(self.train.head(MOST_MEASURED).x)  # type: ignore[arg-type]
        mean, scale = moments(sample)
        own = self.domain.names if isinstance(self.domain, Bits) else ()
        names = own or tuple(f"x{i}" for i in range(sample.shape[1]))
        return self._converted(Vectors(names, mean, scale), plain, "vectors")

    def _converted(self, domain: Domain, function: Callable[[Tensor], Tensor], step: str) -> "Dataset":
        """Return the data with another domain, every sample passed through `function`."""
        return replace(
            self,
            domain=domain,
            train=self.train.mapped(function),
            valid=self.valid.mapped(function),
            test=self.test.mapped(function),
            options={**self.options, "convert": [*self.options.get("convert", []), step]},
        )


def moments(x: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of the known values of each column: (n, d) -> d, d.

    A column that is constant up to rounding, or has no known value, has the scale 1.
    """
    known = ~torch.isnan(x)
    count = known.sum(0).clamp(min=1)
    mean = torch.where(known, x, 0.0).double().sum(0) / count
    spread = torch.where(known, x.double() - mean, 0.0).square().sum(0).div(count).sqrt()
    varies = spread > 1e-6 * mean.abs()
    return tuple(mean.tolist()), tuple(torch.where(varies, spread, 1.0).tolist())


def _bytes(x: Tensor) -> Any:
    """Return the bytes of a tensor, without a copy where it is contiguous on the CPU."""
    return x.contiguous().cpu().flatten().view(torch.uint8).numpy().data


def _middle(domain: Images | Vectors | Counts, threshold: float | None) -> tuple[float, ...]:
    """Return what a value must exceed to be a 1: one number, or one a column."""
    if threshold is not None:
        return (float(threshold),)
    if isinstance(domain, Counts):
        return (0.0,)
    return ((domain.levels - 1) / 2,) if isinstance(domain, Images) else domain.mean


@dataclass(frozen=True)
class _Above:
    """Whether each value is above a threshold."""

    middle: tuple[float, ...]

    def __call__(self, x: Tensor) -> Tensor:
        """Return bits (n, *shape) uint8."""
        return (x > torch.tensor(self.middle)).to(torch.uint8)


@dataclass(frozen=True)
class _Plain:
    """Samples as rows of float32: pixels as columns, real columns raw, categories one-hot."""

    domain: Images | Bits | Categories | Table

    def __call__(self, x: Tensor) -> Tensor:
        """Return rows (n, d)."""
        if isinstance(self.domain, Categories):
            return self.domain.features(x)
        if isinstance(self.domain, Table):
            reals = self.domain.reals.dims
            return torch.cat([x[:, :reals], self.domain.features(x)[:, reals:]], -1)
        return x.flatten(1).to(torch.float32)
