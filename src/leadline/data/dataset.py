"""A data set: train, valid and test splits of raw samples with one domain.

Symbols:
    n samples, d dimensions of a sample.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from leadline.core import Bits, Categories, Domain, DomainError, Images, Labels, OptionError, Table, Vectors

__all__ = ["Dataset", "Split", "Stream"]


class Stream(ABC):
    """Raw samples that are decoded when they are asked for."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of samples."""

    @abstractmethod
    def __getitem__(self, index: Tensor) -> Tensor:
        """Return the raw samples at `index` (k,) -> (k, *shape)."""

    @abstractmethod
    def digest(self) -> bytes:
        """Return a hash of what the samples are, without decoding them all."""


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
        return self.source.digest()


@dataclass(frozen=True)
class Split:
    """Some samples of a data set.

    Args:
        x: Raw samples: a tensor (n, *shape), or a stream that decodes them on demand.
        y: Labels (n,) int64 with -1 for unknown, (n, D) float32 with NaN for unknown, or None.
    """

    x: Tensor | Stream
    y: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

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

    @cached_property
    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that change when any sample or label changes."""
        digest = hashlib.sha256(repr(self.domain.to_json()).encode())
        for split in (self.train, self.valid, self.test):
            if isinstance(split.x, Stream):
                digest.update(split.x.digest())
            else:
                digest.update(split.x.contiguous().cpu().numpy().tobytes())
            if split.y is not None:
                digest.update(split.y.contiguous().cpu().numpy().tobytes())
        return digest.hexdigest()[:16]

    def binarize(self, threshold: float | None = None) -> "Dataset":
        """Return the data as Bits: whether each value is above `threshold`, the middle by default.

        Raises:
            DomainError: If the values have no order.
        """
        if isinstance(self.domain, Bits):
            return self
        if not isinstance(self.domain, (Images, Vectors)):
            raise DomainError(f"binarize needs Images or Vectors, but the data are {self.domain}")
        if isinstance(self.domain, Images):
            middle = Tensor([(self.domain.levels - 1) / 2 if threshold is None else threshold])
        else:
            middle = Tensor(self.domain.mean) if threshold is None else Tensor([threshold])
        if not bool(torch.isfinite(middle).all()):
            raise OptionError(f"threshold must be a finite number, got {threshold}")

        def above(x: Tensor) -> Tensor:
            return (x > middle).to(torch.uint8)

        return self._converted(Bits(self.domain.shape), above, {"binarize": threshold or float(middle[0])})

    def vectors(self) -> "Dataset":
        """Return the data as real Vectors: pixels as columns, categories one-hot."""
        if isinstance(self.domain, Vectors):
            return self
        if not isinstance(self.domain, (Images, Bits, Categories, Table)):
            raise DomainError(f"vectors() needs pictures, bits or a table, but the data are {self.domain}")
        plain = _one_hot_columns(self.domain) if isinstance(self.domain, (Categories, Table)) else _flat
        sample = plain(self.train.head(10_000).x)  # type: ignore[arg-type]
        mean, scale = sample.mean(0), sample.std(0)
        scale = torch.where(scale > 0, scale, torch.ones(()))
        names = tuple(f"x{i}" for i in range(sample.shape[1]))
        domain = Vectors(names, tuple(mean.tolist()), tuple(scale.tolist()))
        return self._converted(domain, plain, {"vectors": True})

    def _converted(
        self, domain: Domain, function: Callable[[Tensor], Tensor], options: dict[str, Any]
    ) -> "Dataset":
        """Return the data with another domain, every sample passed through `function`."""
        return replace(
            self,
            domain=domain,
            train=self.train.mapped(function),
            valid=self.valid.mapped(function),
            test=self.test.mapped(function),
            options={**self.options, **options},
        )


def _flat(x: Tensor) -> Tensor:
    """Return samples as rows of float32."""
    return x.flatten(1).to(torch.float32)


def _one_hot_columns(domain: Categories | Table) -> Callable[[Tensor], Tensor]:
    """Return the function that keeps real columns raw and makes categories one-hot."""
    if isinstance(domain, Categories):
        return domain.features
    reals = domain.reals.dims

    def spread(x: Tensor) -> Tensor:
        return torch.cat([x[:, :reals], domain.features(x)[:, reals:]], -1)

    return spread
