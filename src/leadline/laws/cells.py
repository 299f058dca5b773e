"""A small domain cut into cells, so that a density can be summed and samples counted.

Finite dimensions are listed. A real column x is integrated by the midpoint rule in t, with
x = mean + scale t / (1 - t^2), which maps (-1, 1) to the whole line; counts are listed up to a limit.

Symbols:
    m points, r real columns, k cells, d dimensions.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from leadline.core import Audio, Counts, Domain, Table, Vectors

__all__ = ["MOST_POINTS", "Cells", "cells_of", "random_rows"]

MOST_POINTS = 1 << 17
# Points of one axis and cells of one axis, by the number of real columns: the first is 3 x odd x the second.
_AXES = {1: (729, 81), 2: (243, 27)}
_MOST_COUNT = 40


@dataclass(frozen=True)
class Cells:
    """Points that stand for a whole domain.

    Args:
        domain: The domain.
        points: Raw samples (m, *shape).
        log_weight: Log of the volume that each point stands for (m,), in nats.
        group: The cell that each point lies in (m,).
        count: Number k of cells.
        coarse: Which points make the grid of a third the resolution (m,), or None if nothing is rounded.
        edge: Which points lie at the border of what is listed (m,).
        how: How the points were found, in a few words.
    """

    domain: Domain
    points: Tensor
    log_weight: Tensor
    group: Tensor
    count: int
    coarse: Tensor | None
    edge: Tensor
    how: str

    def cell(self, x: Tensor) -> Tensor:
        """Return the cell of each raw sample, -1 outside what is listed: (n, *shape) -> (n,)."""
        reals, sizes = _parts(self.domain)
        flat = x.flatten(1).cpu().double()
        column = len(reals.columns)
        cells = _real_cell(flat[:, :column], reals)
        top = torch.tensor(sizes, dtype=torch.float64)
        rest = flat[:, column:]
        outside = ((rest < 0) | (rest >= top)).any(1)
        for size, values in zip(sizes, rest.T, strict=True):
            cells = cells * size + values.long().clamp(0, size - 1)
        return torch.where(outside, -1, cells)


def cells_of(domain: Domain, most: int = MOST_POINTS) -> Cells | None:
    """Return the cells of a domain, or None if it would take more than `most` points."""
    found = _sized(domain, most)
    if found is None:
        return None
    reals, sizes = found
    points, log_weight, group, coarse, edge = _real_grid(reals)
    states = _listed(sizes)
    m, s = len(points), len(states)
    x = torch.cat([points.repeat_interleave(s, 0), states.repeat(m, 1).double()], 1)
    last = torch.tensor(sizes) - 1
    counted = isinstance(domain, Counts)
    border = (states == last).any(1) if counted else torch.zeros(s, dtype=torch.bool)
    return Cells(
        domain=domain,
        points=x.to(domain.dtype).view(-1, *domain.shape),
        log_weight=log_weight.repeat_interleave(s),
        group=(group[:, None] * s + torch.arange(s)).flatten(),
        count=(int(group.max()) + 1) * s,
        coarse=coarse.repeat_interleave(s) if reals.columns else None,
        edge=edge.repeat_interleave(s) | border.repeat(m),
        how=_how(reals, s, m),
    )


def random_rows(domain: Domain, n: int, generator: torch.Generator) -> Tensor:
    """Return `n` raw samples of independent dimensions, for a domain that comes without any data."""
    if isinstance(domain, Audio):
        return domain.noise(n, generator)
    if isinstance(domain, Counts):
        rates = torch.full((n, domain.dims), 2.0)
        return torch.poisson(rates, generator).to(domain.dtype)
    reals, sizes = _parts(domain)
    noise = torch.randn(n, len(reals.columns), generator=generator)
    real = noise * torch.tensor(reals.scale) + torch.tensor(reals.mean)
    finite = (torch.rand(n, len(sizes), generator=generator) * torch.tensor(sizes)).floor()
    return torch.cat([real, finite], 1).to(domain.dtype).view(n, *domain.shape)


def _parts(domain: Domain) -> tuple[Vectors, tuple[int, ...]]:
    """Return the real columns and the number of values of each finite dimension."""
    if isinstance(domain, Vectors):
        return domain, ()
    if isinstance(domain, Table):
        return domain.reals, domain.categories.sizes
    if isinstance(domain, Counts):
        return Vectors((), (), ()), (_MOST_COUNT + 1,) * domain.dims
    return Vectors((), (), ()), domain.cardinalities or ()


def _sized(domain: Domain, most: int) -> tuple[Vectors, tuple[int, ...]] | None:
    """Return the parts of a domain that is small enough to sum over, else None."""
    reals, sizes = _parts(domain)
    r = len(reals.columns)
    if r > max(_AXES) or (r == 0 and not sizes):
        return None
    total = math.prod(sizes) * (_AXES[r][0] ** r if r else 1)
    return (reals, sizes) if total <= most else None


def _listed(sizes: tuple[int, ...]) -> Tensor:
    """Return every row of whole numbers below `sizes`, the last column fastest: (s, d)."""
    if not sizes:
        return torch.zeros(1, 0, dtype=torch.long)
    return torch.cartesian_prod(*(torch.arange(size) for size in sizes)).view(-1, len(sizes))


def _real_grid(reals: Vectors) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return points (m, r), log-weights, cells, the coarse sub-grid and the border, each (m,)."""
    r = len(reals.columns)
    if r == 0:
        whole = torch.zeros(1, dtype=torch.bool)
        return torch.zeros(1, 0).double(), torch.zeros(1).double(), torch.zeros(1).long(), whole, whole
    per_axis, cells_per_axis = _AXES[r]
    place = _listed((per_axis,) * r)  # (m, r)
    t = (2 * place.double() + 1) / per_axis - 1
    mean, scale = (torch.tensor(value, dtype=torch.float64) for value in (reals.mean, reals.scale))
    x = mean + scale * t / (1 - t.square())
    stretch = scale * (1 + t.square()) / (1 - t.square()).square()  # dx / dt
    log_weight = (stretch * 2 / per_axis).log().sum(1)
    inner = place * cells_per_axis // per_axis
    group = (inner * cells_per_axis ** torch.arange(r - 1, -1, -1)).sum(1)
    coarse = (place % 3 == 1).all(1)
    edge = ((place == 0) | (place == per_axis - 1)).any(1)
    return x, log_weight, group, coarse, edge


def _real_cell(x: Tensor, reals: Vectors) -> Tensor:
    """Return the cell of real columns: (n, r) -> (n,)."""
    r = len(reals.columns)
    if r == 0:
        return torch.zeros(len(x), dtype=torch.long)
    cells = _AXES[r][1]
    mean, scale = (torch.tensor(value, dtype=torch.float64) for value in (reals.mean, reals.scale))
    s = (x - mean) / scale
    t = 2 * s / (1 + (1 + 4 * s.square()).sqrt())  # the inverse of t / (1 - t^2)
    inner = ((t + 1) / 2 * cells).floor().long().clamp(0, cells - 1)
    return (inner * cells ** torch.arange(r - 1, -1, -1)).sum(1)


def _how(reals: Vectors, states: int, points: int) -> str:
    """Return how the points were found, in a few words."""
    parts = [f"a grid of {points:,} points"] if reals.columns else []
    parts += [f"all {states:,} states"] if states > 1 or not reals.columns else []
    return " x ".join(parts)
