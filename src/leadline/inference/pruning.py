r"""States that cannot be: left out before cliques are sought, so that tables are smaller.

A state of a variable is impossible if some factor is zero at it for every possible state of its other
variables. Taking such states out may make others impossible; the search ends when none is left to take
(generalised arc consistency). Factors over fewer states are smaller, those over one are gone.

Source:
    Mackworth (1977), Consistency in networks of relations, Artificial Intelligence 8.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from leadline.core.errors import DataError
from leadline.inference.factors import Factor, FactorGraph, Floats, Ints

__all__ = ["Pruned", "pruned"]


@dataclass(frozen=True, eq=False)
class Pruned:
    """A graph over possible states only.

    Args:
        graph: The smaller graph.
        states: The states of each variable that are left.
    """

    graph: FactorGraph
    states: list[Ints]

    def widened(self, v: int, p: Floats, size: int) -> Floats:
        """Return a distribution over all `size` states of v, of one over those that are left."""
        out = np.zeros(size)
        out[self.states[v]] = p
        return out

    def possible(self, sizes: Sequence[int]) -> list[NDArray[np.bool_]]:
        """Return which of the states of each variable, `sizes` at first, are left."""
        return [np.isin(np.arange(size), left) for size, left in zip(sizes, self.states, strict=True)]


def pruned(graph: FactorGraph) -> Pruned:
    """Return the graph without the states that cannot be.

    Raises:
        DataError: If a factor has no possible state.
    """
    possible = [np.ones(size, dtype=bool) for size in graph.sizes]
    support = [factor.table > 0 for factor in graph.factors]
    waiting = [number for number, table in enumerate(support) if not table.all()]
    queued = set(waiting)
    while waiting:
        number = waiting.pop()
        queued.discard(number)
        scope, table = graph.factors[number].scope, support[number]
        if not table.any():
            raise DataError("the evidence has probability zero")
        for axis, v in enumerate(scope):
            here = np.asarray(table.any(axis=tuple(i for i in range(len(scope)) if i != axis)))
            if (here == possible[v]).all():
                continue
            possible[v] = here
            for other in graph.factors_of[v]:
                place = graph.factors[other].scope.index(v)
                support[other] = support[other] & here.reshape(
                    [-1 if i == place else 1 for i in range(support[other].ndim)]
                )
                if other not in queued:
                    waiting.append(other)
                    queued.add(other)
    return _smaller(graph, [np.flatnonzero(here) for here in possible])


def _smaller(graph: FactorGraph, states: list[Ints]) -> Pruned:
    """Return the graph over the states that are left."""
    sizes = tuple(len(left) for left in states)
    if sizes == graph.sizes:
        return Pruned(graph, states)
    factors = []
    for factor in graph.factors:
        if all(sizes[v] == graph.sizes[v] for v in factor.scope):
            factors.append(factor)
            continue
        table = factor.table[np.ix_(*(states[v] for v in factor.scope))]
        factors.append(Factor(factor.scope, table, factor.child if _is_conditional(factor, table) else None))
    return Pruned(FactorGraph(sizes, tuple(factors)), states)


def _is_conditional(factor: Factor, table: Floats) -> bool:
    """Return whether a table over fewer states still sums to one over the factor's child."""
    if factor.child is None:
        return False
    return bool(np.abs(table.sum(factor.scope.index(factor.child)) - 1).max() < 1e-12)
