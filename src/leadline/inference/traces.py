r"""Trace, Frobenius norm and spectral density of a symmetric operator, from products with random signs.

    tr H = E v^T H v,  |H|_F^2 = E |H v|^2,  v uniform on {-1, 1}^d

What an orthonormal basis V with known T = V H V^T already holds is taken exactly, and only the rest is
sampled, with P = I - V^T V: tr H = tr T + E (P v)^T H (P v). No product is spent on that, and where few large
eigenvalues make the variance, the basis of the extreme eigenpairs removes it.

Density: m steps of Lanczos from v give Gauss's quadrature of the spectral measure of v, nodes t_i with
weights s_i1^2; its mean over v is the density of eigenvalues.

Symbols:
    d size, H (d, d), v (d,) probe, V (m, d), T (m, m), t (m,) nodes, s (m, m) eigenvectors of T.

Source:
    Hutchinson (1990), A stochastic estimator of the trace of the influence matrix, Comm. Stat. 19(2).
    Deflation: Meyer, Musco, Musco and Woodruff (2021), Hutch++, SOSA; with Krylov spaces: Chen and Hallman
    (2023), Krylov-aware stochastic trace estimation, SIAM J. Matrix Anal. Appl. 44(3).
    Density: Ubaru, Chen and Saad (2017), Fast estimation of tr(f(A)) via stochastic Lanczos quadrature, same
    journal 38(4). Bounds on its cumulative form: Golub and Meurant (2010), Matrices, Moments and Quadrature.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from leadline.core.errors import OptionError
from leadline.inference.lanczos import Krylov

__all__ = ["SpectralDensity", "Trace", "spectral_density", "trace"]

Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Trace:
    """The trace of H and of H^2, each with its standard error.

    Args:
        value: tr H.
        stderr: Its standard error, 0 where it is exact.
        square: tr H^2, the square of the Frobenius norm.
        square_stderr: Its standard error.
        probes: Number of probes.
        products: Products with H that were spent.
        converged: Whether the standard error of the trace is within the tolerance.
    """

    value: float
    stderr: float
    square: float
    square_stderr: float
    probes: int
    products: int
    converged: bool


@dataclass(frozen=True)
class SpectralDensity:
    """Nodes and weights of the spectral measure of each probe; weights of a probe add up to one.

    Args:
        nodes: Ritz values (probes, m), float64, ascending.
        weights: Weights (probes, m).
        size: Number d of eigenvalues.
    """

    nodes: Tensor
    weights: Tensor
    size: int

    def moment(self, power: int) -> tuple[float, float]:
        """Return tr H^power with its standard error over the probes."""
        each = self.size * (self.weights * self.nodes**power).sum(1)
        return _mean(each)

    def curve(self, grid: Tensor, width: float) -> tuple[Tensor, Tensor]:
        """Return the density, smoothed by a normal of `width`, and its standard error at each grid value."""
        gaps = (grid[:, None, None] - self.nodes) / width  # (values, probes, m)
        bumps = torch.exp(-0.5 * gaps.square()) / (width * math.sqrt(2 * math.pi))
        each = (self.weights * bumps).sum(2)
        spread = each.std(1) / math.sqrt(each.shape[1]) if each.shape[1] > 1 else each.new_full((), math.inf)
        return each.mean(1), spread.expand(len(grid))

    def share(self, low: float, high: float) -> tuple[Tensor, Tensor]:
        """Return lower and upper bounds of the share of eigenvalues in (low, high), for each probe.

        The share is that of the probe's spectral measure, whose mean over probes is that of eigenvalues;
        m nodes bound the measure on both sides of a value by the weights of the nodes around it.
        """
        below, above = self._cumulative(low), self._cumulative(high)
        return (above[0] - below[1]).clamp(min=0.0), (above[1] - below[0]).clamp(0.0, 1.0)

    def _cumulative(self, value: float) -> tuple[Tensor, Tensor]:
        """Return bounds (probes,) of the measure of (-infinity, value]."""
        total = torch.nn.functional.pad(self.weights.cumsum(1), (1, 0))  # (probes, m + 1): of the first k
        count = (self.nodes <= value).sum(1, keepdim=True)
        lower = total.gather(1, (count - 1).clamp(min=0))
        upper = total.gather(1, (count + 1).clamp(max=total.shape[1] - 1))
        return lower.squeeze(1), upper.squeeze(1)


def trace(
    product: Product,
    like: Tensor,
    *,
    space: Krylov | None = None,
    tolerance: float = 0.05,
    least: int = 10,
    most: int = 100,
    generator: torch.Generator | None = None,
) -> Trace:
    """Return the traces of H and H^2: exact where d products are allowed, else estimated to a tolerance.

    Args:
        product: v (d,) -> H v (d,), H symmetric.
        like: A vector (d,) whose type and device the work has.
        space: A Krylov space of H, whose part is taken exactly.
        tolerance: Standard error of the trace, relative to it, at which to stop.
        least: Fewest probes, at least 2; fewer give no standard error to stop by.
        most: Most probes.
        generator: Source of the probes.

    Raises:
        OptionError: If a number is out of range.
    """
    if not 2 <= least <= most or not tolerance > 0:
        raise OptionError(
            f"2 <= least <= most and tolerance > 0 are needed, got {least}, {most}, {tolerance}"
        )
    if like.numel() <= most:
        columns = torch.stack([product(unit) for unit in torch.eye(like.numel()).to(like)]).double()
        square = float(columns.square().sum())
        return Trace(float(columns.trace()), 0.0, square, 0.0, 0, like.numel(), converged=True)
    held = 0.0 if space is None else float(space.projected.trace())
    held_square = 0.0 if space is None else float(space.projected.square().sum()) + space.left**2
    values: list[float] = []
    squares: list[float] = []
    done = False
    while not done and len(values) < most:
        v = torch.empty_like(like).bernoulli_(0.5, generator=generator).mul_(2).sub_(1)
        first, second = _rest(v, product(v), space)
        values.append(first)
        squares.append(second)
        if len(values) >= least:
            mean, stderr = _mean(torch.tensor(values, dtype=torch.float64))
            done = stderr <= tolerance * abs(held + mean)
    mean, stderr = _mean(torch.tensor(values, dtype=torch.float64))
    square, square_stderr = _mean(torch.tensor(squares, dtype=torch.float64))
    count = len(values)
    return Trace(held + mean, stderr, held_square + square, square_stderr, count, count, converged=done)


def _rest(v: Tensor, image: Tensor, space: Krylov | None) -> tuple[float, float]:
    """Return (P v)^T H (P v) and |H P v|^2, from v and H v alone."""
    if space is None:
        return float(v.double() @ image.double()), float(image.double().square().sum())
    along = space.basis @ v  # (m,), the part of v in the space
    held = space.projected.to(v) @ along
    rest = image - held @ space.basis - space.left * along[-1] * space.vectors[space.size]
    outside = v - along @ space.basis
    return float(outside.double() @ rest.double()), float(rest.double().square().sum())


def spectral_density(
    product: Product,
    like: Tensor,
    *,
    probes: int = 8,
    steps: int = 40,
    generator: torch.Generator | None = None,
) -> SpectralDensity:
    """Return nodes and weights of the density of eigenvalues, at the cost of `probes * steps` products.

    Args:
        product: v (d,) -> H v (d,), H symmetric.
        like: A vector (d,) whose type and device the work has.
        probes: Number of probes, at least 1; two or more give a standard error.
        steps: Nodes of each, at least 2; never more than d.
        generator: Source of the probes.

    Raises:
        OptionError: If a number is out of range.
    """
    if probes < 1 or steps < 2:
        raise OptionError(f"probes must be at least 1 and steps at least 2, got {probes} and {steps}")
    steps = min(steps, like.numel())
    nodes = torch.zeros(probes, steps, dtype=torch.float64)
    weights = torch.zeros(probes, steps, dtype=torch.float64)
    for row in range(probes):
        v = torch.empty_like(like).bernoulli_(0.5, generator=generator).mul_(2).sub_(1)
        space = Krylov(product, v, steps, generator)
        for _ in range(steps):
            space.grow()
        values, _, coefficients = space.ritz()
        nodes[row], weights[row] = values, coefficients[0].square()
    return SpectralDensity(nodes, weights, like.numel())


def _mean(values: Tensor) -> tuple[float, float]:
    """Return the mean and its standard error, infinite for one value."""
    spread = float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else math.inf
    return float(values.mean()), spread
