r"""Answers of Gibbs chains: marginals with standard errors and R-hat, draws given evidence.

A table with zeros may cut the states into islands between which no chain can walk. So variables in such
tables are summed out first, as long as the new tables stay small, until the states that every table allows
are all combinations of some states of each variable: a chain reaches them all (collapsed Gibbs). What was
summed out is then drawn given the others, last one first. Where that fails, chains are refused.

Symbols:
    c chains, n draws of each, d variables, k states, s = c n.

Source:
    Geman and Geman (1984), Stochastic Relaxation, IEEE PAMI 6(6); Liu (1994), The collapsed Gibbs sampler,
    JASA 89; errors and R-hat: Vehtari, Gelman, Simpson, Carpenter and Bürkner (2021), Rank-normalization,
    folding, and localization, Bayesian Analysis 16(2).
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from leadline.core.errors import OptionError
from leadline.inference.chains.diagnostics import ess, r_hat
from leadline.inference.chains.gibbs import Gibbs
from leadline.inference.chains.tempered_gibbs import TemperedGibbs, spaced
from leadline.inference.elimination import relevant
from leadline.inference.factors import Factor, FactorGraph, Floats, Ints, multiplied
from leadline.inference.pruning import pruned
from leadline.inference.weighting import share_errors

__all__ = ["IslandsError", "Walked", "gibbs_draws", "gibbs_marginals"]

_CHAINS, _DRAWS, _BURN_IN, _THIN = 40, 500, 200, 2
_FEWEST, _MOST = 20, 10**8  # draws a chain, and states of variables that are kept in memory
_UPDATES = 3 * 10**8  # of single variables that chains with copies may take: about a minute
_CAP = 1 << 14  # entries of a table that summing out may make


class IslandsError(OptionError):
    """Zeros in tables may cut a chain off from part of the states.

    Args:
        scope: The variables of one such table.
        names: What to call each; its number by default.
    """

    def __init__(self, scope: Iterable[int], names: Iterable[str] | None = None) -> None:
        self.scope = tuple(scope)
        told = ", ".join(names or (f"variable {v}" for v in self.scope))
        super().__init__(
            f"Gibbs chains could be cut off from part of the states: the table over {told} holds zeros that "
            "cannot be summed out; use method='exact', 'weighting' or 'loopy'"
        )


@dataclass(frozen=True, eq=False)
class Walked:
    """What Gibbs chains say.

    Args:
        marginals: Share of the draws in each state, of the variables that were asked for.
        stderr: Monte Carlo standard error of each share.
        r_hat: The largest split R-hat of a variable; 1 where none moves.
        effective: The smallest effective sample size of a state's share.
        chains: Number of chains.
        draws: Number of draws of each.
        copies: Number of copies of each at other temperatures, itself included.
    """

    marginals: dict[int, Floats]
    stderr: dict[int, Floats]
    r_hat: float
    effective: float
    chains: int
    draws: int
    copies: int = 1

    @property
    def settled(self) -> bool:
        """Return whether the chains agree: R-hat at most 1.01."""
        return self.r_hat <= 1.01


def gibbs_marginals(
    graph: FactorGraph,
    evidence: Mapping[int, int] | None = None,
    wanted: Iterable[int] | None = None,
    *,
    chains: int = _CHAINS,
    draws: int = _DRAWS,
    thin: int = _THIN,
    tempered: bool = False,
    seed: int = 0,
) -> Walked:
    """Return estimates of the distributions of the `wanted` variables, all by default.

    Args:
        graph: The factors.
        evidence: Observed states by variable.
        wanted: The variables asked for.
        chains: Number c of chains, each from a start of its own.
        draws: Number n of draws of each, after 200 sweeps or more; fewer of very many variables.
        thin: Sweeps between two draws; fewer of very many variables with copies.
        tempered: Whether each chain has copies at higher temperatures, which pass through where it is stuck.
        seed: Seed of starts and moves.

    Raises:
        IslandsError: If zeros of a table could cut a chain off.
        DataError: If the evidence has probability zero.
    """
    seen = dict(evidence or {})
    asked = list(range(len(graph.sizes)) if wanted is None else wanted)
    walk = _Walk(relevant(graph, asked, seen), seen, thin=thin, tempered=tempered)
    generator = torch.Generator().manual_seed(seed)
    draws = min(draws, max(_FEWEST, _MOST // (chains * len(graph.sizes))))
    x = walk.draws(chains, draws, generator)  # (c, n, d)
    marginals, errors, worst, least = {}, {}, 1.0, float(chains * draws)
    for v in asked:
        size, here = graph.sizes[v], x[..., v].long()
        shares = torch.bincount(here.flatten(), minlength=size) / here.numel()
        effective = torch.full((size,), float(chains))  # of a state that never came, or always: one a chain
        if int((shares > 0).sum()) > 1:
            worst = max(worst, float(r_hat(here.double())))
            states = (shares > 0).nonzero()[:, 0]
            held = ess((here[..., None] == states).double(), "mean")
            effective[states] = torch.where(held.isnan(), effective[states], held.float())
            least = min(least, float(effective[states].min()))
        marginals[v] = shares.double().numpy()
        errors[v] = share_errors(marginals[v], walk.possible[v], effective.double().numpy())
    return Walked(marginals, errors, worst, least, chains, draws, walk.copies)


def gibbs_draws(
    graph: FactorGraph,
    n: int,
    evidence: Mapping[int, int] | None = None,
    generator: torch.Generator | None = None,
    *,
    burn_in: int = 1000,
) -> Tensor:
    """Return the ends of `n` Gibbs chains of `burn_in` sweeps, given evidence: (n, d) int64.

    Raises:
        IslandsError: If zeros of a table could cut a chain off.
        DataError: If the evidence has probability zero.
    """
    return _Walk(graph, dict(evidence or {}), burn_in).draws(n, 1, generator)[:, 0].long()


class _Walk:
    """Chains over what is left of a graph when its zeros are summed out, and the way back.

    Args:
        graph: The factors.
        seen: Observed states by variable.
        burn_in: Sweeps before the first draw.
        thin: Sweeps between two draws.
        tempered: Whether each chain has copies at higher temperatures.
    """

    def __init__(
        self,
        graph: FactorGraph,
        seen: dict[int, int],
        burn_in: int = _BURN_IN,
        *,
        thin: int = _THIN,
        tempered: bool = False,
    ) -> None:
        small = pruned(graph.given(seen))
        self.seen, self.states, self.burn_in, self.tempered = seen, small.states, burn_in, tempered
        self.thin, self.copies = thin, 1
        self.possible = small.possible(graph.sizes)
        self.graph, self.gone = _positive(small.graph)

    def draws(self, chains: int, draws: int, generator: torch.Generator | None) -> Tensor:
        """Return draws of all variables: (c, n, d) int16."""
        first, again = self._kernels(chains, draws, generator)
        state, _ = first.step(first.init(first.start(chains, generator)), generator)
        kept = [state.position.to(torch.int16)]
        for _ in range(draws - 1):
            state, _ = again.step(state, generator)
            kept.append(state.position.to(torch.int16))
        x = torch.stack(kept, 1).flatten(0, 1).numpy()  # (s, d)
        for v, bucket in reversed(self.gone):
            rows = _conditional(v, bucket, x)
            u = torch.rand(len(x), 1, dtype=torch.float64, generator=generator).numpy()
            cumulative = rows.cumsum(-1)
            x[:, v] = (cumulative <= u * cumulative[:, -1:]).sum(-1).clip(max=rows.shape[1] - 1)
        for v, states in enumerate(self.states):
            x[:, v] = self.seen[v] if v in self.seen else states[x[:, v]]
        return torch.from_numpy(x).view(chains, draws, -1)

    def _kernels(self, chains: int, draws: int, generator: torch.Generator | None) -> tuple[Any, Any]:
        """Return what takes chains to their first draw, and what from each draw to the next."""
        if not self.tempered:
            return Gibbs(self.graph, "colours", self.burn_in), Gibbs(self.graph, "colours", self.thin)
        b = spaced(self.graph, chains, generator)
        self.copies = len(b)
        free = sum(size > 1 for size in self.graph.sizes)
        most = _UPDATES // max(1, chains * draws * self.copies * free)
        thin = max(1, min(self.thin, most))
        burn_in = max(self.burn_in, draws * thin // 4)
        return TemperedGibbs(self.graph, b, burn_in), TemperedGibbs(self.graph, b, thin)


def _conditional(v: int, bucket: Factor, x: Ints) -> Floats:
    """Return the weights of the states of v at the other variables of each row: (s, d) -> (s, k)."""
    table = np.moveaxis(bucket.table, bucket.scope.index(v), -1)
    rows = table[tuple(x[:, u] for u in bucket.scope if u != v)]
    return np.broadcast_to(rows, (len(x), table.shape[-1]))


def _positive(graph: FactorGraph) -> tuple[FactorGraph, list[tuple[int, Factor]]]:
    """Return a graph over whose states chains can walk, and the buckets of what was summed out."""
    factors, gone, sizes = list(graph.factors), list[tuple[int, Factor]](), list(graph.sizes)
    near = [set(others) | {v} for v, others in enumerate(graph.neighbours)]
    bad = [factor for factor in factors if not _is_block(factor.table > 0)]
    while bad:
        costs = {v: math.prod(sizes[u] for u in near[v]) for factor in bad for v in factor.scope}
        v = min(costs, key=lambda u: (costs[u], u))
        if costs[v] > _CAP:
            raise IslandsError(min(bad, key=lambda factor: len(factor.scope)).scope)
        bucket = multiplied([factor for factor in factors if v in factor.scope])
        summed = bucket.summed([v])
        left = Factor(summed.scope, summed.table / summed.table.max())
        factors = [*(factor for factor in factors if v not in factor.scope), left]
        bad = [factor for factor in bad if v not in factor.scope]
        if not _is_block(left.table > 0):
            bad.append(left)
        gone.append((v, bucket))
        sizes[v] = 1
        for u in near[v]:
            near[u] = (near[u] | near[v]) - {v}
    return FactorGraph(tuple(sizes), tuple(factors)), gone


def _is_block(support: NDArray[np.bool_]) -> bool:
    """Return whether the possible states of several variables are all combinations of some of each.

    Over such tables a chain reaches every possible state one variable at a time.
    """
    sides = (support.any(tuple(i for i in range(support.ndim) if i != axis)) for axis in range(support.ndim))
    return int(support.sum()) == math.prod(int(side.sum()) for side in sides)
