"""Domains whose samples are levels on a grid: pictures and bits."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from leadline.core.domain import Domain, float_like
from leadline.core.errors import OptionError
from leadline.core.likelihoods import Bernoulli, Categorical, DiscretizedLogistic, Likelihood

__all__ = ["Bits", "Images"]

_MOST_CATEGORICAL_OUTPUTS = 1 << 14


@dataclass(frozen=True)
class Images(Domain):
    """Pictures of integer levels, raw x (n, channels, height, width) uint8.

    Args:
        channels: 1 for grey, 3 for colour.
        height: Rows of pixels.
        width: Columns of pixels.
        levels: Number of levels of a pixel, 2 to 256; values are 0 to levels - 1.
    """

    channels: int
    height: int
    width: int
    levels: int = 256
    kind: ClassVar[str] = "images"
    heads: ClassVar[tuple[str, ...]] = ("categorical", "discretized_logistic")
    convert: ClassVar[str] = "data.binarize(threshold) gives Bits"

    def __str__(self) -> str:
        return f"Images({self.channels}x{self.height}x{self.width}, {self.levels} levels)"

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (channels, height, width)."""
        return (self.channels, self.height, self.width)

    @property
    def dtype(self) -> torch.dtype:
        """Return uint8."""
        return torch.uint8

    @property
    def cardinalities(self) -> tuple[int, ...] | None:
        """Return the number of levels, once a pixel."""
        return (self.levels,) * self.dims

    @property
    def planes(self) -> tuple[int, int, int] | None:
        """Return (channels, height, width)."""
        return (self.channels, self.height, self.width)

    @property
    def feature_owners(self) -> Tensor:
        """Return one feature a pixel."""
        return torch.arange(self.dims)

    def column(self, dim: int) -> "Images":
        """Return the domain of one pixel."""
        return Images(1, 1, 1, self.levels)

    def shrunken(self) -> "Images":
        """Return 2 x 2 pixels of one channel and at most 4 levels."""
        return Images(1, 2, 2, min(self.levels, 4))

    def _default_head(self) -> str:
        few = self.dims * self.levels <= _MOST_CATEGORICAL_OUTPUTS
        return "categorical" if few else "discretized_logistic"

    def _make_head(self, name: str) -> Likelihood:
        if name == "categorical":
            return Categorical(self.shape, (self.levels,) * self.dims, torch.uint8, ordered=True)
        return DiscretizedLogistic(self.shape, self.levels)

    def _features(self, x: Tensor, like: Tensor) -> Tensor:
        return _affine(x, 2 / (self.levels - 1), like)

    def continuous(self, x: Tensor, noise: Tensor | None = None, like: Tensor | None = None) -> Tensor:
        """Return u = (x + noise) / levels in [0, 1), shape of x; see `Domain.continuous`."""
        target = float_like(x, like)
        value = self.checked(x).to(target.device, target.dtype)
        return (value + (0.5 if noise is None else noise)) / self.levels

    def quantize(self, u: Tensor) -> Tensor:
        """Return floor(levels * u) inside the range, as uint8."""
        return (u * self.levels).floor().clamp(0, self.levels - 1).to(torch.uint8)

    @property
    def log_volume(self) -> float:
        """Return -d log(levels), in nats."""
        return -self.dims * math.log(self.levels)

    def show(self, sample: Tensor) -> str:
        """Return the size and the range of levels of one picture."""
        return f"{self.width}x{self.height} picture, levels {int(sample.min())} to {int(sample.max())}"


@dataclass(frozen=True)
class Bits(Domain):
    """Binary samples of any shape, raw x uint8 in {0, 1}.

    Args:
        size: Shape of one sample; (channels, height, width) makes it a picture.
        columns: What each bit is called, in flat order, such as the word whose presence it tells; or nothing.

    Raises:
        OptionError: If there are names, but not one a bit.
    """

    size: tuple[int, ...]
    columns: tuple[str, ...] = ()
    kind: ClassVar[str] = "bits"
    heads: ClassVar[tuple[str, ...]] = ("bernoulli",)

    def __post_init__(self) -> None:
        if self.columns and len(self.columns) != self.dims:
            raise OptionError(f"{self} has {self.dims} bits, but {len(self.columns)} names")

    def __str__(self) -> str:
        return f"Bits({'x'.join(str(side) for side in self.size)})"

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of one sample."""
        return self.size

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the bits, if they have any."""
        return self.columns

    @property
    def dtype(self) -> torch.dtype:
        """Return uint8."""
        return torch.uint8

    @property
    def cardinalities(self) -> tuple[int, ...] | None:
        """Return 2, once a bit."""
        return (2,) * self.dims

    @property
    def planes(self) -> tuple[int, int, int] | None:
        """Return the shape if it is (channels, height, width)."""
        return (self.size[0], self.size[1], self.size[2]) if len(self.size) == 3 else None

    @property
    def feature_owners(self) -> Tensor:
        """Return one feature a bit."""
        return torch.arange(self.dims)

    def column(self, dim: int) -> "Bits":
        """Return the domain of one bit."""
        return Bits((1,) * len(self.size), self.columns[dim : dim + 1])

    def shrunken(self) -> "Bits":
        """Return eight bits, as a 2 x 4 picture if this is a picture."""
        return Bits((1, 2, 4) if self.planes else (8,))

    def _make_head(self, name: str) -> Likelihood:
        return Bernoulli(self.shape)

    def _features(self, x: Tensor, like: Tensor) -> Tensor:
        return _affine(x, 2.0, like)

    def continuous(self, x: Tensor, noise: Tensor | None = None, like: Tensor | None = None) -> Tensor:
        """Return u = (x + noise) / 2 in [0, 1), shape of x; see `Domain.continuous`."""
        target = float_like(x, like)
        value = self.checked(x).to(target.device, target.dtype)
        return (value + (0.5 if noise is None else noise)) / 2

    def quantize(self, u: Tensor) -> Tensor:
        """Return whether u is at least one half, as uint8."""
        return (u >= 0.5).to(torch.uint8)

    @property
    def log_volume(self) -> float:
        """Return -d log 2, in nats."""
        return -self.dims * math.log(2)

    def to_json(self) -> dict[str, Any]:
        """Return a plain description that `domain_from_json` reads back; names only where there are some."""
        return {key: value for key, value in super().to_json().items() if key != "columns" or value}

    def show(self, sample: Tensor) -> str:
        """Return the bits of one sample, or the names of those that are 1."""
        if self.columns:
            return ", ".join(self.columns[i] for i in sample.flatten().nonzero().flatten().tolist()) or "none"
        return "".join(str(int(bit)) for bit in sample.flatten()[:64])


def _affine(x: Tensor, slope: float, like: Tensor) -> Tensor:
    """Return slope * x - 1 as rows of floats in one pass over the levels: (n, *shape) -> (n, f)."""
    rows = x.flatten(1).to(like.device)
    levels = rows.to(like.dtype) if rows.is_floating_point() else rows
    return torch.add(_minus_one(like), levels, alpha=slope)


_MINUS_ONE: dict[tuple[torch.device, torch.dtype], Tensor] = {}


def _minus_one(like: Tensor) -> Tensor:
    """Return -1 with the type and device of `like`, made once."""
    key = (like.device, like.dtype)
    if key not in _MINUS_ONE:
        _MINUS_ONE[key] = torch.full((), -1.0, dtype=like.dtype, device=like.device)
    return _MINUS_ONE[key]
