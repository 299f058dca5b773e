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

Departs from the source:
    r counts both ends by half (the trapezoidal rule), so that C r is nearly the distance between the ends,
    and a trajectory on independent normals does not resonate.
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
from leadline.inference.chains.metric import Metric
from leadline.inference.chains.moves import DIVERGENT

__all__ = ["NUTS"]


@dataclass(frozen=True)
class NUTS:
    """The no-U-turn sampler.

    Args:
        log_density: x (c, *shape) -> unnormalised log f (c,), in nats; best with a gradient.
        step_size: Step e of the integrator, > 0.
        metric: C, the inverse mass; a unit one if None.
        max_depth: Most doublings, in [1, 20]: at most 2^max_depth - 1 gradients a draw.

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
        c = len(state.log_density)
        draw, rows = state, torch.arange(c, device=state.position.device)
        acceptance, steps = torch.zeros_like(tree.log_weight), torch.zeros_like(tree.log_weight)
        divergent = torch.zeros(c, dtype=torch.bool, device=rows.device)
        for depth in range(self.max_depth):
            tree, grown, done = _doubled(tree, walk, depth, generator)
            acceptance[rows] += grown.acceptance
            steps[rows] += grown.steps
            divergent[rows] |= grown.divergent
            if bool(done.all()):
                break
            if bool(done.any()):
                draw = _put(draw, rows[done], tree.draw, done)
                rows, tree = rows[~done], tree.only(~done)
        draw = _put(draw, rows, tree.draw, torch.ones_like(rows, dtype=torch.bool))
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
    energy = 0.5 * _dot(p, v) - state.log_density
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
    start = _End(
        torch.where(wide, tree.right.x, tree.left.x),
        torch.where(wide, tree.right.p, -tree.left.p),
        tree.left.v,
        torch.where(wide, tree.right.g, tree.left.g),
    )
    log_uniform = uniform((1 << depth, len(like)), like, generator).log_()
    half = _grown(start, tree, walk, log_uniform)
    end = _End(half.end.x, sign * half.end.p, sign * half.end.v, half.end.g)
    left, right = _picked(~wide, end, tree.left), _picked(wide, end, tree.right)
    # The new half is taken with min(1, its weight / the old weight): a draw prefers to move away.
    take = half.good & (u[1].log() < half.log_weight - tree.log_weight)
    r = tree.r + sign * half.r
    new = _Tree(
        left, right, chosen(take, half.draw, tree.draw), r,
        torch.logaddexp(tree.log_weight, half.log_weight), tree.energy,
    )  # fmt: skip
    return new, half, ~half.good | _turns(left.p, left.v, right.p, right.v, r)


def _grown(start: _End, tree: _Tree, walk: _Walk, log_uniform: Tensor) -> _Half:
    """Return the new half from the end `start` of the old: a step a row of `log_uniform` (2^depth, c)."""
    e, slope, metric = walk.step_size, value_and_gradient(walk.log_density), walk.metric
    x, p, g = start.x.clone(), start.p.clone(), start.g
    r = torch.zeros_like(p)
    log_weight = torch.full_like(tree.energy, -torch.inf)
    good, divergent = torch.ones_like(tree.energy).bool(), torch.zeros_like(tree.energy).bool()
    acceptance, steps = torch.zeros_like(tree.energy), torch.zeros_like(tree.energy)
    draw, v, marks = tree.draw, start.v, _Marks()
    for leaf in range(len(log_uniform)):
        p.add_(g, alpha=e / 2)
        x = x.add(metric.velocity(p), alpha=e)
        value, g = slope(x)
        p.add_(g, alpha=e / 2)
        v = metric.velocity(p)
        # Log-weight of the point: the energy at the start less its own.
        gain = (tree.energy + value).sub_(_dot(p, v), alpha=0.5).nan_to_num_(nan=-torch.inf)
        acceptance.add_(gain.clamp(max=0.0).exp_().mul_(good))
        steps.add_(good)
        log_weight = torch.logaddexp(log_weight, gain)
        here = State(x, value, g)
        draw = here if leaf == 0 else chosen(log_uniform[leaf] < gain - log_weight, here, draw)
        turned = marks.turned(leaf, p, v, r)
        r.add_(p)
        lost = gain < -DIVERGENT
        divergent |= lost & good
        good = good & ~(lost if turned is None else lost | turned)
        if leaf % 4 == 3 and not bool(good.any()):
            break
    return _Half(_End(x, p, v, g), draw, r, log_weight, good, divergent, acceptance, steps)


class _Marks:
    """Momenta at the left ends of the binary subtrees that are still open."""

    def __init__(self) -> None:
        self._kept: list[tuple[Tensor, Tensor, Tensor] | None] = [None] * 21

    def turned(self, leaf: int, p: Tensor, v: Tensor, r: Tensor) -> Tensor | None:
        """Return whether a subtree that ends at `leaf` turns back (c,); None if none ends there.

        Args:
            leaf: Number of the point in its half.
            p: Its momentum (c, *shape).
            v: Its velocity (c, *shape).
            r: Sum of the momenta before it (c, *shape).
        """
        place = (leaf >> 1).bit_count()
        if leaf % 2 == 0:
            self._kept[place] = (p.clone(), v, r.clone())
            return None
        ones = ((leaf + 1) & -(leaf + 1)).bit_length() - 1  # trailing ones: the subtrees that end here
        found: Tensor | None = None
        upto = r + p
        for k in range(place, place - ones, -1):
            mark = self._kept[k]
            if mark is not None:
                turns = _turns(mark[0], mark[1], p, v, upto - mark[2])
                found = turns if found is None else found | turns
        return found


def _turns(p: Tensor, v: Tensor, p_end: Tensor, v_end: Tensor, r: Tensor) -> Tensor:
    """Return whether a trajectory turns back at one of its ends: its momenta sum to r (c, *shape) -> (c,)."""
    inner = r - 0.5 * (p + p_end)
    return torch.minimum(_dot(v, inner), _dot(v_end, inner)) <= 0


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Return the inner product of each chain: (c, *shape) -> (c,)."""
    return torch.linalg.vecdot(a.flatten(1), b.flatten(1))


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
