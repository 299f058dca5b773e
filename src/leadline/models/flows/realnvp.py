r"""RealNVP: an invertible network of affine couplings, hence an exact density of real coordinates.

    log p(u) = log N(f(u); 0, I) + log |det df/du|

Real vectors are scored exactly. Levels of pictures and bits are spread over their cell by uniform noise e
and then pass a logit, or pixels go through their own histograms to unit normals (`nets.marginals`). That
gives a bound on the probability of raw values that tightens with the number of draws:

    u = logit(alpha + (1 - 2 alpha) (x + e) / levels)
    log p(x) >= E log (1/S) sum_s p((x + e_s) / levels) - d log(levels)

Symbols:
    x (n, *shape) raw data, u (n, *shape) real coordinates, z (n, d) code, e noise, S number of draws,
    f the flow.

Source:
    Dinh, Sohl-Dickstein and Bengio (2017), Density Estimation using Real NVP, ICLR.
    Theis, van den Oord and Bethge (2016), A Note on the Evaluation of Generative Models, ICLR, section 3.1
    (uniform dequantisation).

Departs from the source:
    See `nets.coupling`; small pictures get dense couplings between the fields of a checkerboard.
    The logit is symmetric, (1 - 2 alpha) in place of (1 - alpha): both ends of the range are kept off
    infinity.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from leadline.core import Batch, Bits, Density, Described, Domain, Images, OptionError, Vectors, counted
from leadline.core.errors import checked_codes
from leadline.core.randomness import normal, uniform, uniform_of_rows
from leadline.nets.architecture import is_convolutional
from leadline.nets.coupling import DenseFlow, PictureFlow
from leadline.nets.marginals import Marginals, usual_pixels

__all__ = ["RealNVP"]

_ALPHA = 0.05
_DRAWS = 8
_NUMBERS_AT_ONCE = 1 << 21
_LOG_2PI = math.log(2 * math.pi)


class RealNVP(nn.Module):
    """Flow of affine couplings over vectors, pictures or bits.

    Verbs:
        sample, log_prob (exact for vectors, else a lower bound), encode (the code of the middle of the
        cell), decode (its inverse)

    Args:
        domain: What one sample is.
        flow: Invertible network with `forward` (n, *) -> codes (n, d) and log |det| (n,), and `inverse`.
            It takes (n, c, h, w) if it is a `PictureFlow`, else (n, d).
        pixels: "gaussianised" takes each pixel of a picture through its own histogram of the training split
            to a unit normal; "standard" is the logit. None gaussianises grey pictures.

    Raises:
        DomainError: If the values have no real coordinates.
        OptionError: If `pixels` is neither.

    Example:
        >>> from leadline.core import Signature, Vectors
        >>> model = RealNVP.for_data(Signature(Vectors.standard(3)))
        >>> x = model.sample(5)
        >>> model.log_prob(x).shape, model.encode(x).shape
        (torch.Size([5]), torch.Size([5, 3]))
    """

    invertible = True

    def __init__(self, domain: Domain, flow: DenseFlow | PictureFlow, *, pixels: str | None = None) -> None:
        super().__init__()
        self.domain = domain.require(Vectors, Images, Bits)
        levels = domain.levels if isinstance(domain, Images) else 0
        self.marginals = Marginals(domain.dims, levels, pixels or usual_pixels(domain.planes))
        self.flow = flow

    @classmethod
    def for_data(
        cls,
        data: Described,
        *,
        couplings: int = 8,
        hidden: tuple[int, ...] = (128, 128),
        architecture: str = "auto",
        scales: int | None = None,
        channels: int = 32,
        blocks: int = 1,
        pixels: str | None = None,
    ) -> "RealNVP":
        """Return a model for vectors, pictures or bits.

        Args:
            data: A data set, or anything with a domain.
            couplings: Number of couplings, of each scale if convolutional.
            hidden: Widths of the hidden layers of dense couplings.
            architecture: "dense", "conv" (pictures with even sides only), or "auto": convolutional for
                pictures whose sides are even and have at least 16 pixels.
            scales: Number of scales of a convolutional flow, as many as the sides allow if None.
            channels: Channels of the networks of a convolutional flow.
            blocks: Residual blocks of these networks.
            pixels: "gaussianised" or "standard"; None gaussianises grey pictures.
        """
        domain = data.domain.require(Vectors, Images, Bits)
        if min(couplings, channels, *hidden) < 1 or blocks < 0 or (scales is not None and scales < 1):
            raise OptionError("couplings, hidden, channels and scales must be at least 1, blocks at least 0")
        planes = domain.planes
        if planes is not None and is_convolutional(_feasible(architecture, planes), planes):
            return cls(domain, PictureFlow(planes, scales, couplings, channels, blocks), pixels=pixels)
        is_convolutional(architecture, planes)  # refuses what the domain cannot have
        return cls(domain, DenseFlow(_fields(domain.shape), couplings, hidden), pixels=pixels)

    @property
    def density(self) -> Density:
        """Return exact for vectors, else a lower bound."""
        if isinstance(self.domain, Vectors):
            return Density()
        return Density("lower bound", f"importance-weighted uniform dequantisation, {_DRAWS} draws")

    def stages(self) -> list[nn.Module]:
        """Return what is learned before the flow: the histograms of pixels, if it reads them."""
        return self.marginals.stages()

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean of minus the bound on log p(x) with one draw of noise a row, in nats, shape ()."""
        like = next(self.parameters())
        noise = None if self._real else torch.rand(batch.x.shape, dtype=like.dtype, device=like.device)
        return -self._density_at(batch.x, noise).mean()

    @counted
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Return `n` independent draws of x, shape (n, *shape)."""
        return self.decode(normal((n, self.domain.dims), next(self.parameters()), generator))

    def log_prob(self, x: Tensor, samples: int = _DRAWS, generator: torch.Generator | None = None) -> Tensor:
        """Return log p(x) of each row, or its bound, in nats: (n, *shape) -> (n,).

        Args:
            x: Raw samples.
            samples: Number S of draws of noise a row, at least 1; the bound tightens as it grows.
                Vectors need none.
            generator: Source of the noise; each row's own fixed noise if None.
        """
        if samples < 1:
            raise OptionError(f"samples must be at least 1, got {samples}")
        rows = max(1, _NUMBERS_AT_ONCE // (self.domain.dims * (1 if self._real else samples)))
        parts = self.domain.checked(x).split(rows)
        return torch.cat([self._scored(part, samples, generator) for part in parts])

    def encode(self, x: Tensor) -> Tensor:
        """Return the code of the middle of each cell: (n, *shape) -> (n, d)."""
        return self._codes(self._coordinates(x, None)[0])[0]

    def decode(self, z: Tensor) -> Tensor:
        """Return the raw sample of each code: (n, d) -> (n, *shape)."""
        y = self.flow.inverse(checked_codes(z, self.domain.dims)).view(-1, *self.domain.shape)
        if self.marginals.gaussianised:
            return self.marginals.levels_of(y.flatten(1)).view_as(y).to(self.domain.dtype)
        return self.domain.quantize(y if self._real else (y.sigmoid() - _ALPHA) / (1 - 2 * _ALPHA))

    @property
    def _real(self) -> bool:
        return isinstance(self.domain, Vectors)

    def _scored(self, x: Tensor, samples: int, generator: torch.Generator | None) -> Tensor:
        """Return log p(x) or its bound: (n, *shape) -> (n,)."""
        like = next(self.parameters())
        if self._real:
            return self._density_at(x, None)
        shape = (samples, len(x), self.domain.dims)
        noise = (
            uniform_of_rows(x, shape[2], samples) if generator is None else uniform(shape, like, generator)
        )
        noise = noise.to(like).view(-1, *self.domain.shape)
        # (S, n, *shape) -> (S n, *shape) and back
        repeated = x.repeat(samples, *(1,) * (x.dim() - 1))
        return self._density_at(repeated, noise).view(samples, -1).logsumexp(0) - math.log(samples)

    def _density_at(self, x: Tensor, noise: Tensor | None) -> Tensor:
        """Return log p of raw values at a place in their cell, in nats: two of (n, *shape) -> (n,)."""
        u, log_slope = self._coordinates(x, noise)
        z, log_det = self._codes(u)
        return log_det + log_slope - 0.5 * z.square().sum(1) - 0.5 * z.shape[1] * _LOG_2PI

    def _coordinates(self, x: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return real coordinates u and log |du/dx|, of cell middles without noise: -> (n, *shape), (n,)."""
        like, rows = next(self.parameters()), self.domain.checked(x)
        if self.marginals.gaussianised:
            v = self.marginals.of_levels(rows, noise).to(like)
            return v.view(-1, *self.domain.shape), self.marginals.log_slope(rows, v)
        u = self.domain.continuous(rows, noise, like)
        return u, u.new_full((len(u),), self.domain.log_volume)

    def _codes(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return codes and log |det dz/du|: (n, *shape) -> (n, d), (n,)."""
        if self._real:
            return self.flow(u)
        picture = isinstance(self.flow, PictureFlow)
        if self.marginals.gaussianised:
            return self.flow(u if picture else u.flatten(1))
        inside = (_ALPHA + (1 - 2 * _ALPHA) * u).flatten(1)
        y = inside.logit()
        # d logit(p) / dp = 1 / (p (1 - p)) = exp(softplus(y) + softplus(-y))
        log_det = (F.softplus(y) + F.softplus(-y)).sum(1) + self.domain.dims * math.log(1 - 2 * _ALPHA)
        z, more = self.flow(y.view_as(u) if picture else y)
        return z, log_det + more


def _feasible(architecture: str, planes: tuple[int, int, int]) -> str:
    """Return "dense" in place of "auto" for sides that cannot be halved."""
    return "dense" if architecture == "auto" and (planes[1] % 2 or planes[2] % 2) else architecture


def _fields(shape: tuple[int, ...]) -> Tensor:
    """Return whether each dimension is a white field: every second one, a checkerboard of a picture."""
    steps = torch.meshgrid(*(torch.arange(side) for side in shape), indexing="ij")
    return sum(steps, torch.zeros((), dtype=torch.long)).flatten() % 2 == 0
