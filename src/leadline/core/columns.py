"""Domains whose samples are rows of a table: real columns, categories, both."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from leadline.core.domain import Domain
from leadline.core.likelihoods import Categorical, Likelihood, Normal, Product

__all__ = ["Categories", "Table", "Vectors"]


@dataclass(frozen=True)
class Vectors(Domain):
    """Rows of real numbers, raw x (n, d) float32.

    Args:
        columns: Names of the columns.
        mean: Mean of each column over the training split.
        scale: Standard deviation of each column over the training split, positive.
    """

    columns: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    kind: ClassVar[str] = "vectors"
    heads: ClassVar[tuple[str, ...]] = ("normal",)
    convert: ClassVar[str] = "data.binarize(threshold) gives Bits"

    @classmethod
    def standard(cls, size: int) -> "Vectors":
        """Return `size` unnamed columns of mean 0 and scale 1."""
        return cls(tuple(f"x{i}" for i in range(size)), (0.0,) * size, (1.0,) * size)

    def __post_init__(self) -> None:
        _ = self._moments  # made now, not while somebody traces a graph

    @cached_property
    def _moments(self) -> tuple[Tensor, Tensor]:
        """Return mean and scale as tensors: making them anew would cost more than a small batch."""
        return torch.tensor(self.mean, dtype=torch.float64), torch.tensor(self.scale, dtype=torch.float64)

    def __str__(self) -> str:
        return f"Vectors({len(self.columns)} columns)"

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (d,)."""
        return (len(self.columns),)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the columns."""
        return self.columns

    @property
    def dtype(self) -> torch.dtype:
        """Return float32."""
        return torch.float32

    @property
    def feature_owners(self) -> Tensor:
        """Return one feature a column."""
        return torch.arange(self.dims)

    def column(self, dim: int) -> "Vectors":
        """Return the domain of one column."""
        return Vectors((self.columns[dim],), (self.mean[dim],), (self.scale[dim],))

    def shrunken(self) -> "Vectors":
        """Return at most two columns of mean 0 and scale 1."""
        return Vectors.standard(min(2, self.dims))

    def _make_head(self, name: str) -> Likelihood:
        return Normal(self.mean, self.scale)

    def _features(self, x: Tensor, like: Tensor) -> Tensor:
        mean, scale = (part.to(like.device, like.dtype) for part in self._moments)
        return (x.to(like.device, like.dtype) - mean) / scale

    def continuous(self, x: Tensor, noise: Tensor | None = None, like: Tensor | None = None) -> Tensor:
        """Return the standardised columns; `noise` is not used. See `Domain.continuous`."""
        return self.features(x, like)

    def quantize(self, u: Tensor) -> Tensor:
        """Return raw columns of standardised ones."""
        return u * u.new_tensor(self.scale) + u.new_tensor(self.mean)

    @property
    def log_volume(self) -> float:
        """Return minus the sum of the logs of the scales, in nats."""
        return -sum(math.log(scale) for scale in self.scale)

    def show(self, sample: Tensor) -> str:
        """Return the named values of one row."""
        pairs = zip(self.columns, sample.tolist(), strict=True)
        return ", ".join(f"{name}={value:.4g}" for name, value in pairs)


@dataclass(frozen=True)
class Categories(Domain):
    """Rows of unordered categories, raw x (n, d) int64.

    Args:
        sizes: Number of values of each column, at least 1.
        columns: Names of the columns.
        values: Names of the values of each column.
        missing: Whether a value may be -1, which stands for one that is not known.
    """

    sizes: tuple[int, ...]
    columns: tuple[str, ...] = ()
    values: tuple[tuple[str, ...], ...] = ()
    missing: bool = False
    kind: ClassVar[str] = "categories"
    heads: ClassVar[tuple[str, ...]] = ("categorical",)
    convert: ClassVar[str] = "data.vectors() gives one-hot Vectors"

    def __str__(self) -> str:
        gaps = ", some missing" if self.missing else ""
        return f"Categories({len(self.sizes)} columns, {min(self.sizes)} to {max(self.sizes)} values{gaps})"

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (d,)."""
        return (len(self.sizes),)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the columns, if they have any."""
        return self.columns

    @property
    def dtype(self) -> torch.dtype:
        """Return int64."""
        return torch.int64

    @property
    def cardinalities(self) -> tuple[int, ...] | None:
        """Return the number of values of each column."""
        return self.sizes

    @property
    def feature_owners(self) -> Tensor:
        """Return one feature a value of each column (one-hot)."""
        return torch.repeat_interleave(torch.arange(self.dims), torch.tensor(self.sizes))

    def column(self, dim: int) -> "Categories":
        """Return the domain of one column."""
        return Categories((self.sizes[dim],), self.columns[dim : dim + 1], self.values[dim : dim + 1])

    def shrunken(self) -> "Categories":
        """Return at most five columns of at most three values."""
        return Categories(tuple(min(size, 3) for size in self.sizes[:5]))

    def _make_head(self, name: str) -> Likelihood:
        return Categorical(self.shape, self.sizes)

    def _features(self, x: Tensor, like: Tensor) -> Tensor:
        return _one_hot(x, self.sizes, like)

    def validated(self, x: Tensor) -> Tensor:
        """Return `x` if shape and every value belong to the domain, -1 where values may be missing."""
        known = x.clamp(min=0) if self.missing and isinstance(x, Tensor) and bool((x >= -1).all()) else x
        super().validated(known)
        return x

    def show(self, sample: Tensor) -> str:
        """Return the named values of one row."""
        return ", ".join(self._name(dim, int(value)) for dim, value in enumerate(sample))

    def _name(self, dim: int, value: int) -> str:
        column = self.columns[dim] if self.columns else f"x{dim}"
        if value < 0:
            return f"{column}=?"
        return f"{column}={self.values[dim][value] if self.values else value}"


@dataclass(frozen=True)
class Table(Domain):
    """Rows of real columns followed by category columns, raw x (n, d) float32 (categories as numbers).

    Args:
        reals: The real columns, which come first.
        categories: The category columns, which follow.
    """

    reals: Vectors
    categories: Categories
    kind: ClassVar[str] = "table"
    heads: ClassVar[tuple[str, ...]] = ("normal+categorical",)
    convert: ClassVar[str] = "data.vectors() gives one-hot Vectors"

    def __str__(self) -> str:
        return f"Table({self.reals.dims} real, {self.categories.dims} category columns)"

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (d,)."""
        return (self.reals.dims + self.categories.dims,)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the columns, real ones first."""
        return self.reals.names + self.categories.names

    @property
    def dtype(self) -> torch.dtype:
        """Return float32."""
        return torch.float32

    @property
    def feature_owners(self) -> Tensor:
        """Return one feature a real column, then one a value of each category column."""
        return torch.cat([self.reals.feature_owners, self.reals.dims + self.categories.feature_owners])

    def column(self, dim: int) -> Domain:
        """Return the domain of one column."""
        real = dim < self.reals.dims
        return self.reals.column(dim) if real else self.categories.column(dim - self.reals.dims)

    def shrunken(self) -> "Table":
        """Return one real column beside at most two category columns."""
        small = self.categories.shrunken()
        return Table(Vectors.standard(1), Categories(small.sizes[:2]))

    def _make_head(self, name: str) -> Likelihood:
        return Product([self.reals.likelihood(), self.categories.likelihood()])

    def _features(self, x: Tensor, like: Tensor) -> Tensor:
        reals, values = x.split([self.reals.dims, self.categories.dims], -1)
        parts = [self.reals.features(reals, like), _one_hot(values, self.categories.sizes, like)]
        return torch.cat(parts, -1)

    def show(self, sample: Tensor) -> str:
        """Return the named values of one row."""
        split = self.reals.dims
        return f"{self.reals.show(sample[:split])}, {self.categories.show(sample[split:])}"


def _one_hot(x: Tensor, sizes: Sequence[int], like: Tensor) -> Tensor:
    """Return one-hot columns side by side: (n, d) -> (n, sum(sizes))."""
    starts = torch.tensor([0, *sizes], device=like.device).cumsum(0)[:-1]
    out = torch.zeros(x.shape[0], sum(sizes), dtype=like.dtype, device=like.device)
    codes = x.to(like.device).long()
    known = (codes >= 0).to(out)  # a missing value has no column that is 1
    return out.scatter_(1, codes.clamp(min=0) + starts, known)
