r"""From raw samples to visible units and back.

Bits are binary units. Real columns are standardised. Levels of a picture get uniform noise, u = (x + e) / q,
so that log p(x) >= E log p(u). Then either u in [0, 1) is stretched to unit variance ("standard"), or each
pixel goes through its own histogram to a unit normal ("gaussianised", see `leadline.nets.marginals`).

Symbols:
    n samples, D visible units v (n, D), u real coordinates, e noise in [0, 1), q levels, S draws of noise.

Source:
    Theis, van den Oord and Bethge (2016), A note on the evaluation of generative models, section 3.1.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from leadline.core import Bits, Domain, DomainError, Images, OptionError, Vectors
from leadline.core.errors import unknown_name
from leadline.core.randomness import uniform, uniform_of_rows
from leadline.nets.boltzmann import BernoulliLayer, BoltzmannLayer, GaussianLayer
from leadline.nets.marginals import Marginals

__all__ = ["SCALES", "Visible"]

SCALES = ("learned", "unit")
Score = Callable[[Tensor], Tensor]
_SPREAD = 12**-0.5  # standard deviation of the uniform distribution on [0, 1)


class Visible(Marginals):
    """How samples of a domain become visible units.

    Args:
        domain: Bits, Images or Vectors.
        pixels: "gaussianised" or "standard"; of no meaning for bits and columns.

    Raises:
        OptionError: If `pixels` is not one of `PIXELS`.
    """

    def __init__(self, domain: Domain, pixels: str = "gaussianised") -> None:
        domain.require(Bits, Images, Vectors)
        super().__init__(domain.dims, domain.levels if isinstance(domain, Images) else 0, pixels)
        self.domain = domain

    def sweep(self, x: Tensor) -> float:
        """Count the levels of each pixel, and return the mean log-likelihood of samples (n, *shape), in nats.

        Raises:
            DomainError: If the units are not gaussianised pixels.
        """
        if not self.gaussianised:
            raise DomainError(f"only gaussianised pixels have histograms to learn, not {self.domain}")
        return super().sweep(x)

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
        rows = self.domain.checked(x)
        if self.binary:
            return rows.flatten(1).to(like)
        if self.gaussianised:
            return self.of_levels(rows, noise).to(like)
        within = None if noise is None or not self.noisy else noise.reshape(-1, *self.domain.shape)
        u = self.domain.continuous(rows, within, like).flatten(1)
        return (u - 0.5) / _SPREAD if self.noisy else u

    def log_volume(self, x: Tensor, v: Tensor) -> Tensor:
        """Return what log p(v) of the visible units v (n, D) of x lacks to log p(x), in nats: -> (n,)."""
        if self.gaussianised:
            return self.log_slope(self.domain.checked(x), v)
        if self.binary:
            return v.new_zeros(len(v))
        stretch = math.log(_SPREAD) * self.domain.dims if self.noisy else 0.0
        return v.new_full((len(v),), self.domain.log_volume - stretch)

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

        def scored(noise: Tensor | None) -> Tensor:
            v = self.units(x, like, noise)
            return score(v) + self.log_volume(x, v)

        if not self.noisy:
            return scored(None)
        if generator is None:
            noise = self.noise_of(x, 0, samples).to(like)
        else:
            noise = uniform((samples, len(x), self.domain.dims), like, generator)
        return torch.stack([scored(one) for one in noise]).logsumexp(0) - math.log(samples)

    def raw(self, v: Tensor) -> Tensor:
        """Return raw samples of visible units: (n, D) -> (n, *shape)."""
        if self.gaussianised:
            return self.levels_of(v).reshape(-1, *self.domain.shape).to(self.domain.dtype)
        shaped = v.view(-1, *self.domain.shape)
        return self.domain.quantize(shaped * _SPREAD + 0.5 if self.noisy else shaped)
