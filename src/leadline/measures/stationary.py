r"""What kind of stationary point a point is, with points nearby that prove it.

Hessian: eigenvalues that stand clear of zero by more than their error decide between minimum, maximum and
saddle. Where they do not, points decide: on spheres around p, ever smaller ones, the lowest and the highest
point are sought, along any curve and not along lines alone. A point lower than p on every sphere refutes a
minimum, one higher refutes a maximum; both make a saddle. Floating point can refute a minimum in this way;
it cannot prove one where the Hessian is singular.

What is left of the gradient is taken out, L(q) - g . (q - p), after it has been found too small to matter:
over the largest sphere it must change L by less than a thousandth of what L changes.

Symbols:
    p (d,) the point, q (d,) a point nearby, L the function, g (d,) its gradient, H (d, d) its Hessian.

Source:
    Second-order conditions: Nocedal and Wright (2006), Numerical Optimization, section 2.1.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from leadline.core import OptionError
from leadline.core.randomness import generator_for
from leadline.inference.lanczos import Eigenpairs
from leadline.measures.curvature import extremes
from leadline.measures.surface import Surface

__all__ = ["Kind", "Nature", "nature_of"]

Kind = Literal[
    "minimum",
    "maximum",
    "saddle",
    "not stationary",
    "minimum not refuted",
    "maximum not refuted",
    "undecided",
]
LINEAR = 1e-3  # largest share of the change over the reach that the gradient may make
CLEAR = 1e-6  # an eigenvalue below this, relative to the largest in magnitude, is zero
MARGIN = 20.0  # a difference below this many roundings is none
RADII = 4  # spheres, each a quarter of the last
STARTS, ITERATIONS = 6, 60


@dataclass(frozen=True)
class Nature:
    """What is known about a point.

    Args:
        kind: What it is; "... not refuted" where all points nearby agree but the Hessian is singular.
        gradient_norm: |g|.
        linear: Share of the change over the largest sphere that the gradient makes; stationary below 0.001.
        eigenpairs: The largest and the smallest eigenpair of H.
        radii: Radius of each sphere, falling.
        lowest: L(q) - L(p) at the lowest point of each.
        highest: L(q) - L(p) at the highest point of each.
        rounding: What differences on each sphere are worth nothing.
        low: The lowest point of the largest sphere that is lower than p, as a move q - p, or None.
        high: The highest point, likewise.
    """

    kind: Kind
    gradient_norm: float
    linear: float
    eigenpairs: Eigenpairs
    radii: tuple[float, ...]
    lowest: tuple[float, ...]
    highest: tuple[float, ...]
    rounding: tuple[float, ...]
    low: Tensor | None
    high: Tensor | None


def nature_of(surface: Surface, *, reach: float = 0.01, starts: int = STARTS, seed: int = 0) -> Nature:
    """Return what kind of stationary point the point of a surface is.

    Args:
        surface: A function at a point; float64 sees far more than float32.
        reach: Radius of the largest sphere, relative to max(1, |p|), above 0.
        starts: Random directions from which the lowest and highest points are sought.
        seed: Seed of the directions.

    Raises:
        OptionError: If `reach` or `starts` is out of range.
        DivergenceError: If the Hessian is not finite.
    """
    if not 0 < reach < float("inf") or starts < 1:
        raise OptionError(f"reach must be above 0 and starts at least 1, got {reach} and {starts}")
    near = _Nearby(surface, seed)
    radius = reach * max(1.0, float(near.point.norm()))
    linear = near.linear_share(radius)
    by_hessian = _by_hessian(near.pairs)
    if linear > LINEAR:
        low, high = (near.downhill(sign * radius) for sign in (-1, 1))
        spheres = [_Sphere(radius, near.rise(low, raw=True), near.rise(high, raw=True), 0.0, low, high)]
        return _nature("not stationary", near, linear, spheres)
    spheres = []
    for step in range(RADII):
        before = spheres[-1] if spheres else None
        spheres.append(near.sphere(radius / 4**step, 0 if by_hessian else starts, before))
    return _nature(by_hessian or _by_points(spheres), near, linear, spheres)


@dataclass(frozen=True)
class _Sphere:
    """The lowest and the highest point that were found at one distance, as moves q - p."""

    radius: float
    lowest: float
    highest: float
    rounding: float
    low: Tensor
    high: Tensor


def _evidence(changes: list[float], roundings: list[float]) -> bool | None:
    """Return whether a change is above rounding on each sphere where it could be; False if on none.

    A change that is there on the two largest spheres at least may be lost in rounding on smaller ones, if
    the power of the radius by which it falls says so.
    """
    found = [change > MARGIN * rounding for change, rounding in zip(changes, roundings, strict=True)]
    count = found.index(False) if False in found else len(found)
    if count == len(found):
        return True
    if not any(found):
        return False
    if count < 2 or any(found[count:]):
        return None
    expected = changes[count - 1] ** 2 / changes[count - 2]
    return True if expected <= 2 * MARGIN * roundings[count] else None


def _by_hessian(pairs: Eigenpairs) -> Kind | None:
    """Return what the eigenvalues decide, or None."""
    top, bottom = (float(pairs.values[place]) for place in (0, -1))
    zero = CLEAR * max(abs(top), abs(bottom)) + float(pairs.errors.max())
    if bottom > zero:
        return "minimum"
    if top < -zero:
        return "maximum"
    return "saddle" if bottom < -zero and top > zero else None


def _by_points(spheres: list[_Sphere]) -> Kind:
    """Return what the points on the spheres decide."""
    roundings = [sphere.rounding for sphere in spheres]
    falls = _evidence([-sphere.lowest for sphere in spheres], roundings)
    rises = _evidence([sphere.highest for sphere in spheres], roundings)
    if falls and rises:
        return "saddle"
    if rises and falls is False:
        return "minimum not refuted"
    return "maximum not refuted" if falls and rises is False else "undecided"


def _nature(kind: Kind, near: "_Nearby", linear: float, spheres: list[_Sphere]) -> Nature:
    first = spheres[0]
    return Nature(
        kind=kind,
        gradient_norm=float(near.gradient.norm()),
        linear=linear,
        eigenpairs=near.pairs,
        radii=tuple(sphere.radius for sphere in spheres),
        lowest=tuple(sphere.lowest for sphere in spheres),
        highest=tuple(sphere.highest for sphere in spheres),
        rounding=tuple(sphere.rounding for sphere in spheres),
        low=first.low if first.lowest < -MARGIN * first.rounding else None,
        high=first.high if first.highest > MARGIN * first.rounding else None,
    )


class _Nearby:
    """A function around a point, with the gradient there taken out."""

    def __init__(self, surface: Surface, seed: int) -> None:
        self.surface = surface
        self.point = surface.point.detach()
        self.here, self.gradient = surface.slope()
        smallest = min(1, surface.size - 1)
        self.pairs = extremes(surface, smallest=smallest, tolerance=1e-4, most=400, seed=seed)
        self.generator = generator_for(seed, "directions", device=self.point.device)
        self.eps = torch.finfo(self.point.dtype).eps

    def rise(self, move: Tensor, *, raw: bool = False) -> float:
        """Return L(p + move) - L(p), without what the gradient makes of it unless `raw`."""
        change = self.surface.value(self.point + move) - self.here
        return change if raw else change - float(self.gradient @ move)

    def linear_share(self, radius: float) -> float:
        """Return how much of the change over a radius the gradient makes."""
        norm = float(self.gradient.norm())
        if norm == 0:
            return 0.0
        ways = [self.gradient / norm, *self.pairs.vectors, self._direction()]
        change = max(abs(self.rise(sign * radius * way, raw=True)) for way in ways for sign in (-1, 1))
        return norm * radius / change if change > 0 else 0.0

    def downhill(self, step: float) -> Tensor:
        """Return a move along the gradient, up for a positive step, that is short enough to go that way."""
        move = step * self.gradient / self.gradient.norm()
        for _ in range(30):
            if self.rise(move, raw=True) * step > 0:
                break
            move = move / 2
        return move

    def sphere(self, radius: float, starts: int, before: _Sphere | None) -> _Sphere:
        """Return the lowest and highest points at a distance; without `starts`, along eigenvectors alone."""
        ends = []
        for sign, vector in ((1.0, self.pairs.vectors[-1]), (-1.0, self.pairs.vectors[0])):
            ways = [vector, -vector, *(self._direction() for _ in range(starts))]
            if before is not None:
                ways.append((before.low if sign > 0 else before.high) / before.radius)
            heights = [sign * self.rise(radius * way) for way in ways]
            scale = max(abs(height) for height in heights)
            if starts and scale > 0:
                ways += [self._followed(way, radius, sign / scale) for way in ways]
                heights += [sign * self.rise(radius * way) for way in ways[len(heights) :]]
            best = min(range(len(ways)), key=lambda place: heights[place])
            ends.append((sign * heights[best], radius * ways[best]))
        (lowest, low), (highest, high) = ends
        rounding = max(self._rounding(low), self._rounding(high))
        return _Sphere(radius, lowest, highest, rounding, low, high)

    def _followed(self, way: Tensor, radius: float, scale: float) -> Tensor:
        """Return the unit vector to which descent of `scale` times the rise leads on the sphere."""
        free = way.clone().requires_grad_()
        optimizer = torch.optim.LBFGS(
            [free],
            max_iter=ITERATIONS,
            line_search_fn="strong_wolfe",
            tolerance_grad=1e-9,
            tolerance_change=0,
        )

        def closure() -> Tensor:
            norm = free.detach().norm()
            unit = free.detach() / norm
            value, gradient = self.surface.slope(self.point + radius * unit)
            pull = radius * scale * (gradient - self.gradient)
            free.grad = (pull - unit * (unit @ pull)) / norm
            rise = value - self.here - radius * float(self.gradient @ unit)
            return torch.as_tensor(scale * rise, dtype=free.dtype)

        optimizer.step(closure)
        found = F.normalize(free.detach(), dim=0)
        return found if bool(torch.isfinite(found).all()) else way

    def _rounding(self, move: Tensor) -> float:
        """Return how much a value trembles when its argument does in the last digits."""
        place = self.point + move
        value, floor = self.surface.value(place), self.eps * abs(self.here)
        tremble = 0.0
        for _ in range(3):
            signs = torch.empty_like(place).bernoulli_(0.5, generator=self.generator).mul_(2).sub_(1)
            tremble = max(tremble, abs(self.surface.value(place * (1 + self.eps * signs)) - value))
        return tremble + floor

    def _direction(self) -> Tensor:
        return F.normalize(self.surface.direction(self.generator), dim=0)
