r"""The no-U-turn sampler, many chains at once, without recursion.

A trajectory doubles, forwards or backwards in time, until it turns back on itself; the draw is one of its
points, taken in proportion to exp(-H). All chains of a doubling walk in step, chains that are done fall out
of the next, and a backward chain walks forwards from a mirrored momentum. A turn inside the new half is seen
by momenta kept at the left ends of its binary subtrees: O(log) memory instead of recursion.

Symbols:
    c chains, x position, p momentum, v = C p velocity, g gradient, H energy, r sum of momenta, e step size.

Source:
    Hoffman and Gelman (2014), The No-U-Turn Sampler, JMLR 15. Multinomial draws, the criterion p# . r > 0 and
    biased progressive sampling: Betancourt (2017), A Conceptual Introduction to Hamiltonian Monte Carlo,
    appendix A.3 and A.4. Iteration: Phan, Pradhan and Jankowiak (2019), Composable Effects for Flexible and
    Accelerated Probabilistic Programming in NumPyro, section 3, algorithm 2.

    The joints of two halves are checked with the first point beyond, lest a full period pass for none: Stan
    2.21, base_nuts.

Departs from the source:
    r counts both ends by half (the trapezoidal rule), so that C r is nearly the distance between the ends.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from leadline.core.errors import OptionError
from leadline.core.randomness import uniform
from leadline.inference.chains.kernel import (
    Information,
    LogDensity,
    State,
    along,
    chosen,
    start_at,
    value_and_gradient,
)
from leadline.inference.chains.metric import Metric, inner
from leadline.inference.chains.moves import DIVERGENT

__all__ = ["NUTS"]


Point = tuple[Tensor, Tensor]  # momentum and velocity
Stretch = tuple[Point, Point, Tensor]  # its two ends and the sum of its momenta


@dataclass(frozen=True)
class NUTS:
    """The no-U-turn sampler.

    Args:
        log_density: x (c, *shape) -> unnormalised log f (c,), in nats; best with a gradient.
        step_size: Step e of the integrator, > 0.
        metric: C, the inverse mass; a unit one if None.
        max_depth: Most doublings, in [1, 20]: at most 2^max_depth - 1 gradients a draw.
        target_acceptance: Mean acceptance along a trajectory that a warm-up tunes the step to.
        per_chain: Whether chains have different targets, so that log_density must always see all of them;
            otherwise it is asked for those alone whose trajectory still grows.

    Raises:
        OptionError: If an argument is out of range.

    Example:
        >>> kernel = NUTS(lambda x: -0.5 * x.square().sum(1), step_size=0.5)
        >>> state, information = kernel.step(kernel.init(torch.zeros(4, 2)))
        >>> state.position.shape, bool((information.steps >= 1).all())
        (torch.Size([4, 2]), True)
    """

    log_density: LogDensity
    step_size: float = 0.1
    metric: Metric | None = None
    max_depth: int = 10
    target_acceptance: float = 0.8
    per_chain: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.max_depth <= 20 or not self.step_size > 0:
            raise OptionError(
                f"needs step_size > 0 and max_depth in [1, 20], got {self.step_size} and {self.max_depth}"
            )

    def init(self, position: Tensor) -> State:
        """Return the state of chains that start at `position` (c, *shape)."""
        return start_at(self.log_density, position, gradient=True)

    def step(self, state: State, generator: torch.Generator | None = None) -> tuple[State, Information]:
        """Return the next state, and what the step tells."""
        metric = Metric.unit(state.position) if self.metric is None else self.metric
        walk = _Walk(self.log_density, metric, self.step_size)
        tree = _root(state, metric.momentum(state.position, generator), metric)
        draw, rows = state, torch.arange(len(state.log_density), device=state.position.device)
        acceptance, steps = torch.zeros_like(tree.log_weight), torch.zeros_like(tree.log_weight)
        divergent, live = torch.zeros_like(rows).bool(), torch.ones_like(rows).bool()
        for depth in range(self.max_depth):
            tree, half, done = _doubled(tree, walk, depth, generator)
            acceptance[rows] += half.acceptance * live
            steps[rows] += half.steps * live
            divergent[rows] |= half.divergent & live
            ended = live & done if depth < self.max_depth - 1 else live
            draw = _put(draw, rows[ended], tree.draw, ended)
            live = live & ~ended
            if not bool(live.any()):
                break
            if not self.per_chain and bool(ended.any()):
                rows, tree = rows[live], tree.only(live)
                live = torch.ones_like(rows).bool()
        return draw, Information(acceptance / steps, divergent, steps)


@dataclass(frozen=True)
class _End:
    """An end of a trajectory: position, momentum, velocity and gradient (c, *shape)."""

    x: Tensor
    p: Tensor
    v: Tensor
    g: Tensor


@dataclass(frozen=True)
class _Tree:
    """A trajectory of each chain: ends in time, draw, r (c, *shape), log of its weight, H at its start."""

    left: _End
    right: _End
    draw: State
    r: Tensor
    log_weight: Tensor
    energy: Tensor

    def only(self, keep: Tensor) -> "_Tree":
        """Return the trajectories of the chains in `keep` (c,)."""
        ends = [
            _End(*(part[keep] for part in (end.x, end.p, end.v, end.g))) for end in (self.left, self.right)
        ]
        gradient = None if self.draw.gradient is None else self.draw.gradient[keep]
        draw = State(self.draw.position[keep], self.draw.log_density[keep], gradient)
        return _Tree(ends[0], ends[1], draw, self.r[keep], self.log_weight[keep], self.energy[keep])


@dataclass(frozen=True)
class _Half:
    """The new half of a trajectory, walked forwards."""

    end: _End
    first: Point
    draw: State
    r: Tensor
    log_weight: Tensor
    good: Tensor
    divergent: Tensor
    acceptance: Tensor
    steps: Tensor


@dataclass(frozen=True)
class _Walk:
    """What a leapfrog step needs."""

    log_density: LogDensity
    metric: Metric
    step_size: float


def _root(state: State, p: Tensor, metric: Metric) -> _Tree:
    """Return the trajectory of one point."""
    g = state.gradient if state.gradient is not None else torch.zeros_like(p)
    v = metric.velocity(p)
    end = _End(state.position, p, v, g)
    energy = 0.5 * inner(p, v) - state.log_density
    return _Tree(end, end, state, p, torch.zeros_like(energy), energy)


def _doubled(
    tree: _Tree, walk: _Walk, depth: int, generator: torch.Generator | None
) -> tuple[_Tree, _Half, Tensor]:
    """Return the trajectory of twice the length, its new half, and which chains are done (c,)."""
    like = tree.log_weight
    u = uniform((2, len(like)), like, generator)
    forward = u[0] < 0.5
    wide = along(forward, tree.r)
    sign = torch.where(wide, 1.0, -1.0).to(tree.r)
    far, near = _picked(wide, tree.left, tree.right), _picked(wide, tree.right, tree.left)
    start = _End(near.x, sign * near.p, sign * near.v, near.g)
    log_uniform = uniform((1 << depth, len(like)), like, generator).log_()
    half = _grown(start, tree, walk, log_uniform)
    end = _End(half.end.x, sign * half.end.p, sign * half.end.v, half.end.g)
    # The new half is taken with min(1, its weight / the old weight): a draw prefers to move away.
    take = half.good & (u[1].log() < half.log_weight - tree.log_weight)
    new = _Tree(
        _picked(wide, tree.left, end), _picked(wide, end, tree.right), chosen(take, half.draw, tree.draw),
        tree.r + sign * half.r, torch.logaddexp(tree.log_weight, half.log_weight), tree.energy,
    )  # fmt: skip
    old = (sign * far.p, sign * far.v), (start.p, start.v), sign * tree.r
    turned = _turned(old, (half.first, (half.end.p, half.end.v), half.r))
    return new, half, ~half.good | turned


def _grown(start: _End, tree: _Tree, walk: _Walk, log_uniform: Tensor) -> _Half:
    """Return the new half from the end `start` of the old: a step a row of `log_uniform` (2^depth, c)."""
    e, slope, metric = walk.step_size, value_and_gradient(walk.log_density), walk.metric
    x, p, g = start.x, start.p, start.g
    log_weight = torch.full_like(tree.energy, -torch.inf)
    good, divergent = torch.ones_like(tree.energy).bool(), torch.zeros_like(tree.energy).bool()
    acceptance, steps = torch.zeros_like(tree.energy), torch.zeros_like(tree.energy)
    draw, r, v, marks = tree.draw, torch.zeros_like(p), start.v, _Marks()
    first: Point = (p, v)
    for leaf in range(len(log_uniform)):
        middle = p.add(g, alpha=e / 2)
        x = x.add(metric.velocity(middle), alpha=e)
        value, g = slope(x)
        p = middle.add_(g, alpha=e / 2)
        v = metric.velocity(p)
        # Log-weight of the point: the energy at the start less its own.
        gain = (tree.energy + value).sub_(inner(p, v), alpha=0.5).nan_to_num_(nan=-torch.inf)
        acceptance.add_(gain.clamp(max=0.0).exp_().mul_(good))
        steps.add_(good)
        log_weight = torch.logaddexp(log_weight, gain)
        here = State(x, value, g)
        draw = here if leaf == 0 else chosen(log_uniform[leaf] < gain - log_weight, here, draw)
        first = (p, v) if leaf == 0 else first
        r = r + p
        turned = marks.turned(leaf, (p, v), r)
        lost = gain < -DIVERGENT
        divergent |= lost & good
        good = good & ~(lost if turned is None else lost | turned)
        if leaf % 4 == 3 and not bool(good.any()):
            break
    return _Half(_End(x, p, v, g), first, draw, r, log_weight, good, divergent, acceptance, steps)


class _Marks:
    """The points at the left ends of the binary subtrees that are still open, and the points before them."""

    def __init__(self) -> None:
        self._kept: list[tuple[Point, Point, Tensor]] = []
        self._last: tuple[Point, Tensor] | None = None

    def turned(self, leaf: int, point: Point, r: Tensor) -> Tensor | None:
        """Return whether a subtree that ends at `leaf` turns back (c,); None if none ends there.

        Args:
            leaf: Number of the point in its half.
            point: Its momentum and velocity (c, *shape).
            r: Sum of the momenta up to it (c, *shape).
        """
        last, self._last = self._last, (point, r)
        if leaf % 2 == 0:
            before, sum_before = last if last is not None else (point, torch.zeros_like(r))
            self._kept.append((point, before, sum_before))
            return None
        found = torch.zeros(len(r), dtype=torch.bool, device=r.device)
        joint: tuple[Point, Point, Tensor] | None = None
        for _ in range(((leaf + 1) & -(leaf + 1)).bit_length() - 1):  # the subtrees that end here
            start, before, sum_before = self._kept.pop()
            if joint is None:
                found |= _turns(start, point, r - sum_before)
            else:
                # Its right half begins at the mark that was popped before.
                first, near, sum_near = joint
                old = (start, near, sum_near - sum_before)
                found |= _turned(old, (first, point, r - sum_near))
            joint = (start, before, sum_before)
        if joint is not None:
            self._kept.append(joint)
        return found


def _turned(old: Stretch, new: Stretch) -> Tensor:
    """Return whether two stretches in a row turn back: as a whole, or one with the point beyond the joint."""
    (far, near, r_old), (first, end, r_new) = old, new
    whole = _turns(far, end, r_old + r_new)
    return whole | _turns(far, first, r_old + first[0]) | _turns(near, end, near[0] + r_new)


def _turns(one: Point, other: Point, r: Tensor) -> Tensor:
    """Return whether a stretch turns back at an end: its momenta sum to r (c, *shape) -> (c,)."""
    within = r - 0.5 * (one[0] + other[0])
    return torch.minimum(inner(one[1], within), inner(other[1], within)) <= 0


def _picked(wide: Tensor, new: _End, old: _End) -> _End:
    """Return the end that is `new` where `wide` holds."""
    pairs = ((new.x, old.x), (new.p, old.p), (new.v, old.v), (new.g, old.g))
    return _End(*(torch.where(wide, a, b) for a, b in pairs))


def _put(whole: State, rows: Tensor, part: State, keep: Tensor) -> State:
    """Return the state of all chains in which those of `rows` are the kept ones of `part`."""
    gradient = whole.gradient
    if gradient is not None and part.gradient is not None:
        gradient = gradient.index_copy(0, rows, part.gradient[keep])
    return State(
        whole.position.index_copy(0, rows, part.position[keep]),
        whole.log_density.index_copy(0, rows, part.log_density[keep]),
        gradient,
    )
