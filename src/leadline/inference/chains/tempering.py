r"""Parallel tempering: copies of each chain at higher temperatures, that trade places.

Copy t moves under f^b_t, with 1 = b_1 > ... > b_T; neighbours swap with probability
min(1, exp((b_t - b_u) (log f(x_u) - log f(x_t)))), even pairs and odd pairs in turn.

Symbols:
    c chains, T copies, b (T,) inverse temperatures.

Source:
    Geyer (1991), Markov chain Monte Carlo maximum likelihood, Computing Science and Statistics 23.
    Even and odd pairs in turn: Syed, Bouchard-Côté, Deligiannidis and Doucet (2022), Non-reversible parallel
    tempering, JRSS-B 84(2).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from leadline.core.errors import OptionError
from leadline.core.randomness import uniform
from leadline.inference.chains.kernel import (
    Information,
    LogDensity,
    State,
    WithGradient,
    along,
    start_at,
    value_and_gradient,
)
from leadline.inference.chains.moves import Metropolis, Move, RandomWalk

__all__ = ["Tempered", "Tempering", "swapped"]


@dataclass(frozen=True)
class Tempered:
    """Where all copies stand.

    Args:
        state: Positions (c T, *shape), copy after copy of each chain; log_density is that of f itself.
        copies: Number T.
        swaps: Mean probability of the last swaps of each pair (T - 1,), NaN for pairs that had no turn.
        turn: Which pairs swap next, 0 (even) or 1 (odd).
    """

    state: State
    copies: int
    swaps: Tensor
    turn: int = 0

    @property
    def position(self) -> Tensor:
        """Return the points of the copies that follow f itself, (c, *shape)."""
        return self.state.position.unflatten(0, (-1, self.copies))[:, 0]


@dataclass(frozen=True)
class Tempering:
    """Parallel tempering of a target.

    Args:
        log_density: x (c, *shape) -> unnormalised log f (c,), in nats.
        temperatures: Powers b of f, from 1 down, each > 0.
        move: The proposal of a copy; its step grows as b^-1/2 where it has one. A random walk if None.

    Raises:
        OptionError: If the temperatures do not fall from 1.

    Example:
        >>> two = lambda x: torch.logaddexp(-(x - 5).square().sum(1), -(x + 5).square().sum(1))
        >>> kernel = Tempering(two, (1.0, 0.3, 0.1, 0.03))
        >>> kernel.step(kernel.init(torch.zeros(6, 1)))[0].position.shape
        torch.Size([6, 1])
    """

    log_density: LogDensity
    temperatures: Sequence[float]
    move: Move = RandomWalk()  # noqa: RUF009 - frozen

    def __post_init__(self) -> None:
        b = list(self.temperatures)
        falls = all(high > low > 0 for high, low in pairwise(b))
        if len(b) < 2 or b[0] != 1 or not falls:
            raise OptionError(f"temperatures must fall from 1 and stay above 0, got {b}")

    def init(self, position: Tensor) -> Tempered:
        """Return the state of chains whose copies all start at `position` (c, *shape)."""
        T = len(self.temperatures)
        start = start_at(self.log_density, position, gradient=self.move.needs_gradient)
        parts = (start.position, start.log_density, start.gradient)
        copies = [None if part is None else part.repeat_interleave(T, 0) for part in parts]
        unknown = start.log_density.new_full((T - 1,), torch.nan)
        return Tempered(State(*copies), T, unknown)  # type: ignore[arg-type]

    def step(self, state: Tempered, generator: torch.Generator | None = None) -> tuple[Tempered, Information]:
        """Return the next state; acceptance is that of the copies that follow f itself."""
        T, inner = state.copies, state.state
        b = torch.tensor(self.temperatures, dtype=inner.log_density.dtype, device=inner.log_density.device)
        every = b.repeat(len(inner.log_density) // T)
        # Where the target is flatter, steps are longer.
        move = self.move
        if inner.position.is_floating_point():
            move = move.longer(along(every, inner.position).to(inner.position) ** -0.5)
        target = _powered(self.log_density, every, gradient=move.needs_gradient)
        moved, told = Metropolis(target, move).step(_times(inner, every), generator)
        after, swaps = swapped(_times(moved, 1 / every), b, state.turn, generator)
        cold = [part.view(-1, T)[:, 0] for part in (told.acceptance, told.divergent, told.steps)]
        return Tempered(after, T, swaps, 1 - state.turn), Information(cold[0], cold[1], T * cold[2])


def _powered(log_density: LogDensity, every: Tensor, *, gradient: bool) -> LogDensity:
    """Return b log f, with b of each row (c T,)."""
    if not gradient:
        return lambda x: every * log_density(x)
    slope = value_and_gradient(log_density)

    def both(x: Tensor) -> tuple[Tensor, Tensor]:
        value, g = slope(x)
        return every * value, along(every, g) * g

    return WithGradient(both)


def _times(state: State, factor: Tensor) -> State:
    """Return the state of a density raised to a power (c T,)."""
    g = state.gradient
    return State(state.position, factor * state.log_density, None if g is None else along(factor, g) * g)


def swapped(state: State, b: Tensor, turn: int, generator: torch.Generator | None) -> tuple[State, Tensor]:
    """Return the state after even (0) or odd (1) neighbours may have swapped, and how likely it was.

    Args:
        state: All copies, copy after copy of each chain (c T, ...); log_density is that of f itself.
        b: Inverse temperatures (T,).
        turn: Which pairs may swap.
        generator: Where chance comes from.
    """
    T = len(b)
    energy = state.log_density.view(-1, T)
    low = torch.arange(turn, T - 1, 2, device=b.device)
    chance = (
        ((b[low] - b[low + 1]) * (energy[:, low + 1] - energy[:, low])).clamp(max=0.0).exp()
    )  # (c, pairs)
    take = uniform(tuple(chance.shape), chance, generator) < chance
    order = torch.arange(T, device=b.device).repeat(len(energy), 1)
    order[:, low], order[:, low + 1] = torch.where(take, low + 1, low), torch.where(take, low, low + 1)
    rows = (order + T * torch.arange(len(energy), device=b.device)[:, None]).flatten()
    swaps = b.new_full((T - 1,), torch.nan)
    swaps[low] = chance.mean(0)
    gradient = None if state.gradient is None else state.gradient[rows]
    return State(state.position[rows], state.log_density[rows], gradient), swaps
