r"""From raw samples to visible units and back.

Bits are binary units. Real columns are standardised. Levels of a picture get uniform noise, u = (x + e) / q,
so that log p(x) >= E log p(u). Then either u in [0, 1) is stretched to unit variance ("standard"), or each
pixel goes through its own histogram H of the training split ("gaussianised"):

    v = Phi^-1(C),        C = sum_{k < x} H(k) + e H(x),        log |dv / dx| = log H(x) - log phi(v)

so that under independent histograms the units are unit normals exactly, whatever walls and spikes the pixel
has, and a machine that is N(0, I) has the likelihood of the histograms: learning adds what pixels say of
each other. Every level is counted once more than it was seen.

Symbols:
    n samples, D visible units v (n, D), u real coordinates, e noise in [0, 1), q levels, H (D, q) histograms,
    Phi and phi the distribution and density of a unit normal, S draws of noise.

Source:
    Theis, van den Oord and Bethge (2016), A note on the evaluation of generative models, section 3.1.
    The marginal map: Chen and Gopinath (2000), Gaussianization, NIPS, section 3.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from leadline.core import Bits, Domain, DomainError, Images, OptionError, Vectors
from leadline.core.errors import unknown_name
from leadline.core.randomness import uniform, uniform_of_rows
from leadline.nets.boltzmann import BernoulliLayer, BoltzmannLayer, GaussianLayer

__all__ = ["PIXELS", "SCALES", "Visible"]

PIXELS = ("gaussianised", "standard")
SCALES = ("learned", "unit")
Score = Callable[[Tensor], Tensor]
_SPREAD = 12**-0.5  # standard deviation of the uniform distribution on [0, 1)
_COUNTED_AT_ONCE = 1000
_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
_LEAST = 1e-12  # least distance of C from 0 and 1: seven standard deviations


class Visible(nn.Module):
    """How samples of a domain become visible units.

    Args:
        domain: Bits, Images or Vectors.
        pixels: "gaussianised" or "standard"; of no meaning for bits and columns.

    Raises:
        OptionError: If `pixels` is not one of `PIXELS`.
    """

    converged = True  # one sweep is all
    enough = 20_000  # samples to count
    cumulative: Tensor | None

    def __init__(self, domain: Domain, pixels: str = "gaussianised") -> None:
        super().__init__()
        self.domain = domain.require(Bits, Images, Vectors)
        if pixels not in PIXELS:
            raise unknown_name("pixels", pixels, PIXELS)
        # for each pixel the number of samples below each level, one added to each: (D, q + 1)
        counted = isinstance(domain, Images) and pixels == "gaussianised"
        blank = torch.arange(domain.levels + 1, dtype=torch.int32) if isinstance(domain, Images) else None
        self.register_buffer(
            "cumulative", blank.repeat(domain.dims, 1) if counted and blank is not None else None
        )

    def make_room(self, shapes: dict[str, tuple[int, ...]]) -> None:
        """Be "standard" if no histograms were saved, given shapes by name."""
        if "cumulative" not in shapes:
            self.cumulative = None

    def stages(self) -> list[nn.Module]:
        """Return what is to be learned before all else: itself, where pixels have histograms."""
        return [self] if self.gaussianised else []

    def sweep(self, x: Tensor) -> float:
        """Count the levels of each pixel, and return the mean log-likelihood of samples (n, *shape), in nats.

        Raises:
            DomainError: If the units are not gaussianised pixels.
        """
        if self.cumulative is None:
            raise DomainError(f"only gaussianised pixels have histograms to learn, not {self.domain}")
        D, q = self.domain.dims, self.cumulative.shape[1] - 1
        counts = torch.ones(D * q, dtype=torch.int64, device=x.device)
        first = torch.arange(D, device=x.device) * q
        for rows in x.flatten(1).split(_COUNTED_AT_ONCE):
            counts += torch.bincount((rows.long() + first).flatten(), minlength=D * q)
        held = counts.view(D, q)
        self.cumulative[:, 1:] = held.cumsum(1).to(self.cumulative)
        return float(((held - 1) * (held / held.sum(1, keepdim=True)).log()).sum()) / max(len(x), 1)

    def encode(self, x: Tensor) -> Tensor:
        """Return the samples as they are: the layers above draw their own noise."""
        return x

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
    def gaussianised(self) -> bool:
        """Return whether the units went through the histograms of their pixels."""
        return self.cumulative is not None

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
        if self.cumulative is not None:
            below, mass = self._cell(rows, self.cumulative)
            place = 0.5 if noise is None else noise.flatten(1).to(mass)
            return torch.special.ndtri((below + place * mass).clamp(_LEAST, 1 - _LEAST)).to(like)
        within = None if noise is None or not self.noisy else noise.reshape(-1, *self.domain.shape)
        u = self.domain.continuous(rows, within, like).flatten(1)
        return (u - 0.5) / _SPREAD if self.noisy else u

    def log_volume(self, x: Tensor, v: Tensor) -> Tensor:
        """Return what log p(v) of the visible units v (n, D) of x lacks to log p(x), in nats: -> (n,)."""
        if self.cumulative is not None:
            _, mass = self._cell(self.domain.checked(x), self.cumulative)
            log_normal = -0.5 * v.double().square() - _HALF_LOG_2PI
            return (mass.log() - log_normal).sum(1).to(v)
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
        if self.cumulative is None:
            shaped = v.view(-1, *self.domain.shape)
            return self.domain.quantize(shaped * _SPREAD + 0.5 if self.noisy else shaped)
        total = self.cumulative[0, -1]
        place = torch.special.ndtr(v.double()).T.contiguous() * total  # (D, n)
        level = torch.searchsorted(self.cumulative[:, 1:-1].double().contiguous(), place, right=True)
        return level.T.reshape(-1, *self.domain.shape).to(self.domain.dtype)

    def _cell(self, x: Tensor, ladder: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mass of the levels below x and of x itself: (n, *shape) -> (n, D), (n, D)."""
        level = x.flatten(1).to(ladder.device, torch.int64).T  # (D, n)
        below, top = ladder.gather(1, level).T.double(), ladder.gather(1, level + 1).T.double()
        total = ladder[0, -1]
        return below / total, (top - below) / total
