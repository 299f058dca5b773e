r"""From raw samples to visible units and back.

Bits are binary units. Real columns are standardised. Levels of a picture get uniform noise, u = (x + e) / q,
so that log p(x) >= E log p(u), and u in [0, 1) is stretched to unit variance.

Symbols:
    n samples, D visible units v (n, D), u real coordinates, e noise in [0, 1), q levels, S draws of noise.

Source:
    Theis, van den Oord and Bethge (2016), A note on the evaluation of generative models, section 3.1.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from leadline.core import Bits, Domain, Images, OptionError, Vectors
from leadline.core.errors import unknown_name
from leadline.core.randomness import uniform, uniform_of_rows
from leadline.nets.boltzmann import BernoulliLayer, BoltzmannLayer, GaussianLayer

__all__ = ["SCALES", "Visible"]

SCALES = ("learned", "unit")
Score = Callable[[Tensor], Tensor]
_SPREAD = 12**-0.5  # standard deviation of the uniform distribution on [0, 1)


@dataclass(frozen=True)
class Visible:
    """How samples of a domain become visible units.

    Args:
        domain: Bits, Images or Vectors.
    """

    domain: Domain

    def __post_init__(self) -> None:
        self.domain.require(Bits, Images, Vectors)

    @property
    def binary(self) -> bool:
        """Return whether the units are binary."""
        return isinstance(self.domain, Bits)

    @property
    def columns(self) -> bool:
        """Return whether the units are real columns, whose clusters may be too far apart for a chain."""
        return isinstance(self.domain, Vectors)

    @property
    def noisy(self) -> bool:
        """Return whether the units of a sample depend on noise."""
        return isinstance(self.domain, Images)

    @property
    def log_volume(self) -> float:
        """Return what the log-density of visible units lacks to that of raw samples, in nats."""
        if self.binary:
            return 0.0
        stretch = math.log(_SPREAD) * self.domain.dims if self.noisy else 0.0
        return self.domain.log_volume - stretch

    def layer(
        self, hidden: int, chains: int = 0, scale: str = "learned", *, centred: bool = False
    ) -> BoltzmannLayer:
        """Return visible units of the kind that fits, and hidden ones.

        Raises:
            OptionError: If `scale` is not one of `SCALES`.
        """
        if scale not in SCALES:
            raise unknown_name("scale", scale, SCALES)
        if self.binary:
            return BernoulliLayer(self.domain.dims, hidden, chains, centred=centred)
        return GaussianLayer(self.domain.dims, hidden, chains, learned=scale == "learned", centred=centred)

    def units(self, x: Tensor, like: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return visible units of the middle of the cell, or of noise in it: (n, *shape) -> (n, D)."""
        if self.binary:
            return self.domain.checked(x).flatten(1).to(like)
        within = None if noise is None or not self.noisy else noise.reshape(-1, *self.domain.shape)
        u = self.domain.continuous(self.domain.checked(x), within, like).flatten(1)
        return (u - 0.5) / _SPREAD if self.noisy else u

    def drawn(self, x: Tensor, like: Tensor) -> Tensor:
        """Return visible units with noise drawn anew: (n, *shape) -> (n, D)."""
        return self.units(x, like, uniform(tuple(x.shape), like) if self.noisy else None)

    def noise_of(self, x: Tensor, width: int, samples: int) -> Tensor:
        """Return noise in (0, 1) for `width` more units beside the visible ones: (S, n, noise + width).

        It is a pure function of each row, so that an estimate scores each row alone.
        """
        own = self.domain.dims if self.noisy else 0
        return uniform_of_rows(self.domain.checked(x), own + width, samples)

    def averaged(
        self, x: Tensor, like: Tensor, score: Score, samples: int, generator: torch.Generator | None
    ) -> Tensor:
        """Return log p(x) of raw samples, or its bound, in nats: (n, *shape) -> (n,).

        Args:
            x: Raw samples.
            like: Tensor whose type and device visible units take.
            score: Log-density of visible units, (n, D) -> (n,).
            samples: Number S of draws of noise a row, at least 1, where units are noisy.
            generator: Source of the noise; each row's own fixed noise if None.

        Raises:
            OptionError: If `samples` is below 1.
        """
        if samples < 1:
            raise OptionError(f"samples must be at least 1, got {samples}")
        if not self.noisy:
            return score(self.units(x, like)) + self.log_volume
        if generator is None:
            noise = self.noise_of(x, 0, samples).to(like)
        else:
            noise = uniform((samples, len(x), self.domain.dims), like, generator)
        each = torch.stack([score(self.units(x, like, one)) for one in noise])
        return each.logsumexp(0) - math.log(samples) + self.log_volume

    def raw(self, v: Tensor) -> Tensor:
        """Return raw samples of visible units: (n, D) -> (n, *shape)."""
        shaped = v.view(-1, *self.domain.shape)
        return self.domain.quantize(shaped * _SPREAD + 0.5 if self.noisy else shaped)
