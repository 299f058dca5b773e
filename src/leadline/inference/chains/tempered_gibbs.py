r"""Parallel tempering of Gibbs sampling: for factor graphs so cold that plain chains freeze.

Copy t draws each variable anew under f^b_t, with 1 = b_1 > ... > b_T > 0; then neighbours may trade places
(`tempering`). How many copies there are, and where, follows from trial runs: b is spaced so that each pair of
neighbours refuses as many swaps, with two copies for each refusal that they have together.

Symbols:
    c chains, d variables, T copies, b (T,) inverse temperatures.

Source:
    Syed, Bouchard-Côté, Deligiannidis and Doucet (2022), Non-reversible parallel tempering, JRSS-B 84(2),
    sections 4 and 5.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from leadline.core.errors import OptionError
from leadline.inference.chains.gibbs import Gibbs
from leadline.inference.chains.kernel import Information, State
from leadline.inference.chains.tempering import Tempered, swapped
from leadline.inference.factors import FactorGraph

__all__ = ["TemperedGibbs", "spaced"]

_PILOTS, _ROUNDS, _SKIPPED = 3, 60, 20
_FEWEST, _MOST = 4, 32  # copies
_HOTTEST = 1e-6


@dataclass(frozen=True)
class TemperedGibbs:
    """Parallel tempering of a factor graph, all variables of a copy drawn anew between two rounds of swaps.

    Args:
        graph: The factors; states of weight zero stay impossible in every copy.
        temperatures: Powers b of the factors, from 1 down, above 0.
        rounds: Sweeps and swaps in a step, >= 1.

    Raises:
        OptionError: If the temperatures do not fall from 1.

    Example:
        >>> from leadline.inference.factors import Factor
        >>> pair = FactorGraph((2, 2), (Factor((0, 1), np.array([[99.0, 1.0], [1.0, 99.0]])),))
        >>> kernel = TemperedGibbs(pair, (1.0, 0.5, 0.1))
        >>> kernel.step(kernel.init(kernel.start(10)))[0].position.shape
        torch.Size([10, 2])
    """

    graph: FactorGraph
    temperatures: Sequence[float]
    rounds: int = 1

    def __post_init__(self) -> None:
        b = list(self.temperatures)
        if len(b) < 2 or b[0] != 1 or b[-1] <= 0 or any(high <= low for high, low in pairwise(b)):
            raise OptionError(f"temperatures must fall from 1 to above 0, got {b}")

    def start(self, chains: int, generator: torch.Generator | None = None) -> Tensor:
        """Return states of positive weight (c, d), as `Gibbs.start` does."""
        return self._gibbs.start(chains, generator)

    def init(self, position: Tensor) -> Tempered:
        """Return the state of chains whose copies all start at `position` (c, d)."""
        state, T = self._gibbs.init(position), len(self.temperatures)
        copies = State(state.position.repeat_interleave(T, 0), state.log_density.repeat_interleave(T, 0))
        return Tempered(copies, T, state.log_density.new_full((T - 1,), torch.nan))

    def step(self, state: Tempered, generator: torch.Generator | None = None) -> tuple[Tempered, Information]:
        """Return the next state, and that no draw is refused."""
        for _ in range(self.rounds):
            state = self._round(state, generator)
        one = torch.ones(len(state.position))
        return state, Information(one, torch.zeros_like(one).bool(), self.rounds * state.copies * one)

    def _round(self, state: Tempered, generator: torch.Generator | None) -> Tempered:
        """Return the state after a sweep of every copy and one turn of swaps."""
        x, b = state.state.position.clone(), torch.tensor(self.temperatures, dtype=torch.float64)
        log_density = self._gibbs.powered(x, b.repeat(len(x) // len(b)), generator)
        after, swaps = swapped(State(x, log_density), b, state.turn, generator)
        return Tempered(after, len(b), swaps, 1 - state.turn)

    @cached_property
    def _gibbs(self) -> Gibbs:
        """Return the sampler that draws all copies anew, each to its power."""
        return Gibbs(self.graph)


def spaced(graph: FactorGraph, chains: int, generator: torch.Generator | None = None) -> list[float]:
    """Return temperatures whose neighbours refuse to swap about as often, from trial runs of some chains."""
    b = np.linspace(1.0, _HOTTEST, _MOST // 2)
    for _ in range(_PILOTS):
        kernel = TemperedGibbs(graph, b.tolist())
        state, told = kernel.init(kernel.start(chains, generator)), []
        for _ in range(_ROUNDS):
            state, _ = kernel.step(state, generator)
            told.append(state.swaps)
        refused = 1 - torch.stack(told[_SKIPPED:]).nanmean(0).numpy()
        barrier = np.concatenate([[0.0], np.cumsum(refused + 1e-3)])  # rises wherever b falls
        count = min(max(math.ceil(2 * barrier[-1]) + 1, _FEWEST), _MOST)
        b = np.interp(np.linspace(0, barrier[-1], count), barrier, b)
    return b.tolist()
