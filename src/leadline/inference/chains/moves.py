r"""Proposals, and the Metropolis-Hastings kernel that accepts or refuses them.

A move returns where the chains would go and log q(x | x') - log q(x' | x); the accept step stands once.

Symbols:
    c chains, x position, x' proposal, e step size, C metric (inverse mass), g gradient of log f, p momentum,
    xi standard normal.

    random walk    x' = x + e C^(1/2) xi
    Langevin       x' = x + e C g + (2 e)^(1/2) C^(1/2) xi
    Hamiltonian    L leapfrog steps of size e from p ~ N(0, C^-1)

Source:
    Hastings (1970), Biometrika 57. Langevin: Roberts and Tweedie (1996), Exponential convergence of Langevin
    distributions and their discrete approximations, Bernoulli 2(4). Hamiltonian: Neal (2011), MCMC using
    Hamiltonian dynamics, Handbook of Markov Chain Monte Carlo, section 5.3.

Departs from the source:
    The step size of the Hamiltonian move is drawn anew for each trajectory, so that no period resonates.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from leadline.core.errors import OptionError, ShapeError
from leadline.core.randomness import uniform
from leadline.inference.chains.kernel import (
    Information,
    LogDensity,
    State,
    accepted,
    start_at,
    value_and_gradient,
)
from leadline.inference.chains.metric import Metric

__all__ = [
    "Hamiltonian",
    "Langevin",
    "Metropolis",
    "Move",
    "Proposed",
    "RandomWalk",
    "Unadjusted",
    "leapfrog",
]

DIVERGENT = 1000.0  # an energy error in nats beyond which a trajectory has left the target
Step = float | Tensor


class Move(Protocol):
    """A proposal of many chains at once."""

    needs_gradient: ClassVar[bool]

    def propose(
        self, log_density: LogDensity, state: State, generator: torch.Generator | None
    ) -> tuple[State, Tensor, int]:
        """Return the proposed state, log q(x | x') - log q(x' | x) (c,), and evaluations a chain."""
        ...

    def longer(self, by: Tensor) -> "Move":
        """Return a move whose steps are `by` times as long, a factor a chain (c, 1, ...)."""
        ...


def _placed(log_density: LogDensity, position: Tensor) -> State:
    with torch.no_grad():
        return State(position, log_density(position))


def _metric(metric: Metric | None, like: Tensor) -> Metric:
    return Metric.unit(like) if metric is None else metric


@dataclass(frozen=True)
class RandomWalk:
    """A symmetric normal step.

    Args:
        step_size: Its length e, > 0.
        metric: Its shape; a unit one if None.
    """

    step_size: Step = 1.0
    metric: Metric | None = None
    target_acceptance: float = 0.3
    needs_gradient: ClassVar[bool] = False

    def propose(
        self, log_density: LogDensity, state: State, generator: torch.Generator | None
    ) -> tuple[State, Tensor, int]:
        """Return the proposed state; the ratio of a symmetric proposal is 1."""
        x = state.position
        noise = _metric(self.metric, x).noise(x, generator)
        return _placed(log_density, x + self.step_size * noise), torch.zeros_like(state.log_density), 1

    def longer(self, by: Tensor) -> "RandomWalk":
        """Return the walk with steps `by` times as long, a factor a chain (c, 1, ...)."""
        return replace(self, step_size=self.step_size * by)


@dataclass(frozen=True)
class Proposed:
    """A user's own proposal.

    Args:
        function: (x (c, *shape), generator) -> x' (c, *shape), log q(x | x') - log q(x' | x) (c,).
    """

    function: Callable[[Tensor, torch.Generator | None], tuple[Tensor, Tensor]]
    target_acceptance: float = 0.3
    needs_gradient: ClassVar[bool] = False

    def propose(
        self, log_density: LogDensity, state: State, generator: torch.Generator | None
    ) -> tuple[State, Tensor, int]:
        """Return the proposed state and the ratio that the function gives.

        Raises:
            ShapeError: If it gives other shapes.
        """
        x, log_ratio = self.function(state.position, generator)
        if x.shape != state.position.shape or log_ratio.shape != state.log_density.shape:
            raise ShapeError(
                f"a proposal gives x' {tuple(state.position.shape)} and a log ratio "
                f"{tuple(state.log_density.shape)}, got {tuple(x.shape)} and {tuple(log_ratio.shape)}"
            )
        return _placed(log_density, x), log_ratio, 1

    def longer(self, by: Tensor) -> "Proposed":
        """Return the same proposal: how long its steps are is the function's affair."""
        return self


@dataclass(frozen=True)
class Langevin:
    """A step along the gradient, with the noise of a diffusion.

    Args:
        step_size: e > 0; the noise has variance 2 e.
        metric: C; a unit one if None.
    """

    step_size: Step = 0.1
    metric: Metric | None = None
    target_acceptance: float = 0.574
    needs_gradient: ClassVar[bool] = True

    def propose(
        self, log_density: LogDensity, state: State, generator: torch.Generator | None
    ) -> tuple[State, Tensor, int]:
        """Return the proposed state and the ratio of the two normal densities."""
        # One leapfrog step of size (2 e)^1/2: the noise that leads back is the momentum at its end.
        metric = _metric(self.metric, state.position)
        p, before = metric.kicked(state.position, generator)
        proposed, end = leapfrog(log_density, metric, state, p, (2 * self.step_size) ** 0.5, 1)
        return proposed, before - metric.kinetic(end), 1

    def longer(self, by: Tensor) -> "Langevin":
        """Return the move with steps `by` times as long, a factor a chain (c, 1, ...)."""
        return replace(self, step_size=self.step_size * by**2)


@dataclass(frozen=True)
class Hamiltonian:
    """A trajectory of Hamiltonian dynamics.

    Args:
        step_size: e > 0, one for all chains or one a chain (c, 1, ...).
        metric: C; a unit one if None.
        leapfrogs: Number L of steps, >= 1.
        jitter: Share by which the step size of each trajectory varies, in [0, 1).
    """

    step_size: Step = 0.1
    metric: Metric | None = None
    leapfrogs: int = 10
    jitter: float = 0.2
    target_acceptance: float = 0.8
    needs_gradient: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.leapfrogs < 1 or not 0 <= self.jitter < 1:
            raise OptionError(
                f"needs leapfrogs >= 1 and jitter in [0, 1), got {self.leapfrogs} and {self.jitter}"
            )

    def propose(
        self, log_density: LogDensity, state: State, generator: torch.Generator | None
    ) -> tuple[State, Tensor, int]:
        """Return the end of the trajectory, and the kinetic energy it lost, which is the ratio."""
        x, metric = state.position, _metric(self.metric, state.position)
        p, before = metric.kicked(x, generator)
        e = self.step_size
        if self.jitter:
            e = e * float(1 + self.jitter * (2 * uniform((1,), x, generator) - 1))
        proposed, end = leapfrog(log_density, metric, state, p, e, self.leapfrogs)
        return proposed, before - metric.kinetic(end), self.leapfrogs

    def longer(self, by: Tensor) -> "Hamiltonian":
        """Return the move with steps `by` times as long, a factor a chain (c, 1, ...)."""
        return replace(self, step_size=self.step_size * by)


def leapfrog(
    log_density: LogDensity, metric: Metric, state: State, momentum: Tensor, step_size: Step, count: int
) -> tuple[State, Tensor]:
    """Return state and momentum (c, *shape) after `count` leapfrog steps, which keep volume and reverse."""
    slope = value_and_gradient(log_density)
    x = state.position.clone(memory_format=torch.contiguous_format)
    p, g, value = momentum.clone(), state.gradient, state.log_density
    if g is None:
        value, g = slope(x)
    _add(p, step_size / 2, g)
    for left in range(count - 1, -1, -1):
        metric.drift(x, p, step_size)
        value, g = slope(x)
        # The half kicks of two steps in a row are one.
        _add(p, step_size if left else step_size / 2, g)
    return State(x, value, g), p


def _add(x: Tensor, scale: Step, y: Tensor) -> None:
    """Add scale * y to x in place, without a temporary where the scale is one number."""
    if isinstance(scale, Tensor):
        x.addcmul_(scale, y)
    else:
        x.add_(y, alpha=scale)


@dataclass(frozen=True)
class Metropolis:
    """Metropolis-Hastings: propose a move, accept it or stay.

    Args:
        log_density: x (c, *shape) -> unnormalised log f (c,), in nats.
        move: The proposal.

    Example:
        >>> kernel = Metropolis(lambda x: -0.5 * x.square().sum(1), RandomWalk(step_size=1.0))
        >>> state, information = kernel.step(kernel.init(torch.zeros(4, 2)))
        >>> state.position.shape, information.acceptance.shape
        (torch.Size([4, 2]), torch.Size([4]))
    """

    log_density: LogDensity
    move: Move

    def init(self, position: Tensor) -> State:
        """Return the state of chains that start at `position` (c, *shape)."""
        return start_at(self.log_density, position, gradient=self.move.needs_gradient)

    def step(self, state: State, generator: torch.Generator | None = None) -> tuple[State, Information]:
        """Return the next state, and what the step tells."""
        proposed, correction, evaluations = self.move.propose(self.log_density, state, generator)
        log_ratio = proposed.log_density - state.log_density + correction
        after, chance = accepted(state, proposed, log_ratio, generator)
        divergent = ~(log_ratio > -DIVERGENT) if self.move.needs_gradient else torch.zeros_like(chance).bool()
        return after, Information(chance, divergent, torch.full_like(chance, evaluations))


@dataclass(frozen=True)
class Unadjusted:
    """A move that is never refused: with `Langevin` the unadjusted Langevin algorithm, which is biased.

    A warm-up leaves its step as it is: without refusals there is nothing to tune it by.

    Args:
        log_density: x (c, *shape) -> unnormalised log f (c,), in nats.
        move: The proposal.
    """

    log_density: LogDensity
    move: Move
    refuses: ClassVar[bool] = False

    def init(self, position: Tensor) -> State:
        """Return the state of chains that start at `position` (c, *shape)."""
        return start_at(self.log_density, position, gradient=self.move.needs_gradient)

    def step(self, state: State, generator: torch.Generator | None = None) -> tuple[State, Information]:
        """Return the next state, and what the step tells; a chain that has left the target is divergent."""
        proposed, _, evaluations = self.move.propose(self.log_density, state, generator)
        lost = ~torch.isfinite(proposed.log_density)
        one = torch.ones_like(state.log_density)
        return proposed, Information(one, lost, evaluations * one)
