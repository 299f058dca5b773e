"""The metric of a target: the scale, or scale and correlation, by which proposals and momenta are drawn.

Symbols:
    c chains, d dimensions, M mass matrix (d, d), C = M^-1 an estimate of the target's covariance.
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from leadline.core.errors import OptionError
from leadline.core.randomness import normal

__all__ = ["Metric", "Moments", "inner", "rows"]


def rows(x: Tensor) -> Tensor:
    """Return each chain as a row: (c, *shape) -> (c, d), where it can be without a copy."""
    return x.reshape(len(x), -1)


def inner(a: Tensor, b: Tensor) -> Tensor:
    """Return the inner product of each chain: (c, *shape) -> (c,)."""
    return torch.linalg.vecdot(rows(a), rows(b))


@dataclass(frozen=True)
class Metric:
    """The inverse mass C: one number, a variance a dimension (d,), or a covariance matrix (d, d).

    Args:
        covariance: C; its inverse root is taken once.

    Raises:
        OptionError: If C is not positive (definite), or not of those shapes.
    """

    covariance: Tensor
    _inverse_root: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        C = self.covariance
        if C.dim() > 2 or (C.dim() == 2 and C.shape[0] != C.shape[1]):
            raise OptionError(f"a metric has shape (), (d,) or (d, d), got {tuple(C.shape)}")
        if C.dim() < 2:
            good, inverse = bool((C > 0).all()), C.rsqrt()
        else:
            # C = L L^T, so that rows z L^-1 have covariance L^-T L^-1 = C^-1 = M.
            root, fault = torch.linalg.cholesky_ex(C)
            good = int(fault) == 0
            unit = torch.eye(len(C), dtype=C.dtype, device=C.device)
            inverse = torch.linalg.solve_triangular(root, unit, upper=False) if good else root
        if not good or not bool(torch.isfinite(inverse).all()):
            raise OptionError("the covariance of a metric must be positive definite and finite")
        object.__setattr__(self, "_inverse_root", inverse)

    @classmethod
    def unit(cls, like: Tensor) -> "Metric":
        """Return the metric that scales nothing, with the dtype and device of `like`."""
        one = torch.ones((), dtype=like.dtype, device=like.device)
        metric = object.__new__(cls)  # nothing to check, and so no wait for a GPU at every step
        object.__setattr__(metric, "covariance", one)
        object.__setattr__(metric, "_inverse_root", one)
        return metric

    def velocity(self, p: Tensor) -> Tensor:
        """Return C p of each chain: (c, *shape) -> (c, *shape)."""
        return _acted(p, self.covariance)

    def drift(self, x: Tensor, p: Tensor, step_size: float | Tensor) -> None:
        """Add step_size * C p to x (c, *shape), which must be contiguous, in place."""
        C = self.covariance
        if isinstance(step_size, Tensor):
            x.addcmul_(step_size, self.velocity(p))
        elif C.dim() == 2:
            rows(x).addmm_(rows(p), C, alpha=step_size)
        else:
            rows(x).addcmul_(rows(p), C, value=step_size)

    def kinetic(self, p: Tensor) -> Tensor:
        """Return p^T C p / 2 of each chain: (c, *shape) -> (c,)."""
        return 0.5 * inner(p, self.velocity(p))

    def momentum(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return draws from N(0, M) of the shape of `like` (c, *shape)."""
        return _acted(normal(tuple(like.shape), like, generator), self._inverse_root)

    def kicked(self, like: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Return draws from N(0, M) of the shape of `like` (c, *shape), and their kinetic energy (c,)."""
        z = normal(tuple(like.shape), like, generator)
        return _acted(z, self._inverse_root), 0.5 * inner(z, z)

    def noise(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return draws from N(0, C) of the shape of `like` (c, *shape)."""
        return self.velocity(self.momentum(like, generator))


def _acted(x: Tensor, by: Tensor) -> Tensor:
    """Return x times a number, a number a dimension (d,), or a matrix (d, d): (c, *shape) -> (c, *shape)."""
    if by.dim() == 0:
        return x * by
    return (rows(x) * by if by.dim() == 1 else rows(x) @ by).view_as(x)


class Moments:
    """Mean and covariance of all the points that chains visit in a window, chains pooled.

    Args:
        dense: Keep all of the covariance; its diagonal otherwise.

    Source:
        Chan, Golub and LeVeque (1983), Algorithms for computing the sample variance, The American
        Statistician 37, equation 2.1b. Shrinkage towards 10^-3: Stan Reference Manual, "HMC algorithm
        parameters".
    """

    def __init__(self, *, dense: bool) -> None:
        self.dense = dense
        self.count = 0
        self._mean: Tensor | None = None
        self._scatter: Tensor | None = None

    def add(self, x: Tensor) -> None:
        """Take in points (c, *shape); those that are not finite count for nothing."""
        flat = rows(x.detach()).double()
        mean = flat.mean(0)
        if not bool(torch.isfinite(mean).all()):
            flat = flat[torch.isfinite(flat).all(1)]
            if not len(flat):
                return
            mean = flat.mean(0)
        gap = flat - mean
        scatter = gap.T @ gap if self.dense else gap.square().sum(0)
        if self._mean is None or self._scatter is None:
            self._mean, self._scatter, self.count = mean, scatter, len(flat)
            return
        total = self.count + len(flat)
        step = mean - self._mean
        between = torch.outer(step, step) if self.dense else step.square()
        self._scatter = self._scatter + scatter + between * (self.count * len(flat) / total)
        self._mean = self._mean + step * (len(flat) / total)
        self.count = total

    def metric(self, like: Tensor) -> Metric:
        """Return the metric of what was seen, shrunk as Stan does, with dtype and device of `like`."""
        if self._scatter is None or self.count < 2:
            return Metric.unit(like)
        n = self.count
        covariance = self._scatter / (n - 1) * (n / (n + 5.0))
        floor = torch.full_like(
            covariance if not self.dense else covariance.diagonal(), 1e-3 * 5.0 / (n + 5.0)
        )
        covariance = covariance + (floor.diag() if self.dense else floor)
        scale = float(covariance.abs().max())
        if not math.isfinite(scale):
            return Metric.unit(like)
        return Metric(covariance.to(like))
