r"""Weighted multivariate Student's t distributions: Gaussians whose tails forgive outliers.

    x | k ~ t_v(m, S):  x | u ~ N(m, S / u),  u ~ Gamma(v/2, v/2),   E[u | x] = (v + d) / (v + delta)

delta, the squared Mahalanobis distance, is linear in the statistics t(u) = a a^T of a Gaussian, a = (1, u).

Symbols:
    n points, d dimensions, K components, v (K,) degrees of freedom, m means, S shapes, u weight of a point.

Source:
    Peel and McLachlan (2000), Robust mixture modelling using the t distribution, Statistics and Computing
    10, sections 3 and 4. Shapes are divided by the sum of weights instead of the count, which is EM of a
    wider model with the same likelihood: Liu, Rubin and Wu (1998), Parameter expansion to accelerate EM,
    Biometrika 85, section 4.
"""

import math

import torch
from torch import Tensor, nn

from leadline.core.randomness import normal
from leadline.inference.gaussians import Gaussians

__all__ = ["Students"]

_LEAST, _MOST, _HALVINGS = 0.5, 500.0, 60


class Students(nn.Module):
    """`components` weighted t distributions with full shapes, held in buffers.

    Args:
        components: Number K of components.
        dims: Number d of dimensions.
        degrees: Degrees of freedom of all components, or None to learn one each from 30 on.
        floor: Least eigenvalue of a shape.
        prior: Pseudo-points that pull each shape, see `Gaussians`. With them shapes are divided by counts, as
            in the first source: the wider model has no such prior.

    Raises:
        ValueError: If `degrees` is not positive.
    """

    degrees: Tensor

    def __init__(
        self, components: int, dims: int, degrees: float | None, floor: float, prior: float = 0.0
    ) -> None:
        super().__init__()
        if degrees is not None and not (degrees > 0 and math.isfinite(degrees)):
            raise ValueError(f"degrees must be positive, got {degrees}")
        self.learned = degrees is None
        self.gaussians = Gaussians(components, dims, "full", floor, prior)
        self.register_buffer("degrees", torch.full((components,), 30.0 if degrees is None else degrees))

    @property
    def log_weights(self) -> Tensor:
        """Return the logs of the weights (K,)."""
        return self.gaussians.log_weights

    @property
    def width(self) -> int:
        """Return the number of statistics of a point."""
        return self.gaussians.width

    @property
    def free_parameters(self) -> int:
        """Return the number of free parameters."""
        return self.gaussians.free_parameters + (len(self.degrees) if self.learned else 0)

    def scores(self, t: Tensor) -> Tensor:
        """Return log w_k t_k of each row of statistics, in nats: (n, f) -> (n, K)."""
        d, v = self.gaussians.means.shape[1], self.degrees.to(t)
        delta, log_det = self._distances(t)
        constant = torch.lgamma((v + d) / 2) - torch.lgamma(v / 2) - d / 2 * torch.log(v * math.pi) - log_det
        return self.log_weights.to(t) + constant - (v + d) / 2 * torch.log1p(delta / v)

    def moments(self, t: Tensor, share: Tensor) -> Tensor:
        """Return weighted moments, counts and E[log u - u]: (n, f), (n, K) -> (K, f + 2)."""
        d, v = self.gaussians.means.shape[1], self.degrees.to(t)
        u = (v + d) / (v + self._distances(t)[0])
        spread = torch.digamma((v + d) / 2) - torch.log((v + d) / 2)
        tails = (share * (u.log() - u)).sum(0) + share.sum(0) * spread
        return torch.cat([(share * u).T @ t, share.sum(0)[:, None], tails[:, None]], 1)

    def maximise(self, moments: Tensor) -> Tensor:
        """Become the most likely mixture of these moments; return which components are empty (K,)."""
        weighted, counts, tails = moments[:, :-2], moments[:, -2], moments[:, -1]
        share = counts / weighted[:, 0].clamp(min=1e-300)
        stretch = 1 / share.clamp(min=1e-300) if self.gaussians.pull else None
        empty = self.gaussians.maximise(weighted * share[:, None], stretch)
        if self.learned:
            found = _degrees(tails / counts.clamp(min=1e-300))
            self.degrees.copy_(torch.where(empty, self.degrees, found.to(self.degrees)))
        return empty

    def revive(self, empty: Tensor, rows: Tensor, moments: Tensor) -> None:
        """Put empty components on points (rows, d), with the spread of all data."""
        self.gaussians.revive(empty, rows, moments[:, :-2])

    def draw(self, which: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return a point for the component of each row: (n,) -> (n, d)."""
        means, v = self.gaussians.means, self.degrees[which]
        x = normal((len(which), means.shape[1]), means, generator)
        for k in range(len(means)):
            x[which == k] = self.gaussians.spread(x[which == k], k)
        u = torch._standard_gamma(v / 2, generator=generator) / (v / 2)
        return means[which] + x / u.clamp(min=1e-30).sqrt()[:, None]

    def _distances(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return squared Mahalanobis distances (n, K), and the log of the root of each determinant (K,)."""
        d = self.gaussians.means.shape[1]
        scale = self.gaussians.scale.to(t)
        log_det = scale.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        # log N = log w - d/2 log 2 pi - log_det - delta / 2
        natural = self.gaussians.natural().to(t)
        constant = self.log_weights.to(t) - d / 2 * math.log(2 * math.pi) - log_det
        return (-2 * (t @ natural - constant)).clamp(min=0), log_det


def _degrees(tails: Tensor) -> Tensor:
    """Return v that solves log(v/2) - digamma(v/2) + 1 + tails = 0, by bisection of its logarithm: (K,)."""
    low = torch.full_like(tails, math.log(_LEAST))
    high = torch.full_like(tails, math.log(_MOST))
    for _ in range(_HALVINGS):
        half = ((low + high) / 2).exp() / 2
        above = torch.log(half) - torch.digamma(half) + 1 + tails > 0
        middle = (low + high) / 2
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    return low.exp()
