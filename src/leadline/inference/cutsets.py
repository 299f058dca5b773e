r"""A sound lower bound on log Z where others see only zeros: the weight of the states that agree on a cutset.

    Z  =  sum_c sum_y prod_f f(c, y)  >=  sum_y prod_f f(c*, y)        for any states c* of any variables

Variables are fixed one after the other, each the one that the largest tables share, at the state that a few
rounds of belief propagation believe in most; states that cannot be any longer are taken out. When the rest
fits, it is summed exactly. A state that leaves nothing possible is taken back.

Symbols:
    c fixed variables, y the rest, f factor.

Source:
    Pearl (1988), Probabilistic Reasoning in Intelligent Systems, section 4.4.2 (cutset conditioning).

Departs from the source:
    One state of the cutset is weighed, not all of them: a bound in place of the sum.
"""

import math
from dataclasses import dataclass

import numpy as np

from leadline.core.errors import DataError
from leadline.inference.belief_propagation import propagate
from leadline.inference.factors import FactorGraph
from leadline.inference.junction_tree import JunctionTree
from leadline.inference.orders import Cliques, find_cliques
from leadline.inference.pruning import pruned

__all__ = ["Agreeing", "weigh_agreeing"]

_ENTRIES = 1 << 22  # of all tables of the rest
_TRIES = 400  # states fixed before the search is given up
_ROUNDS = 10


@dataclass(frozen=True)
class Agreeing:
    """The weight of some states.

    Args:
        log_weight: Log of their weight in nats, no more than log Z; minus infinity where none was found.
        fixed: How many variables they agree on.
    """

    log_weight: float
    fixed: int


def weigh_agreeing(graph: FactorGraph, *, entries: int = _ENTRIES) -> Agreeing:
    """Return the weight of all states that agree on as many variables as makes it easy to sum.

    Args:
        graph: The factors.
        entries: Most entries of the tables of what is summed.
    """
    open_ends: list[tuple[FactorGraph, int, list[int]]] = []  # a graph, its variable to fix, states untried
    try:
        rest: FactorGraph | None = pruned(graph).graph
    except DataError:
        return Agreeing(-math.inf, 0)
    for _ in range(_TRIES):
        if rest is not None:
            cliques = find_cliques(rest)
            if cliques.states <= entries or max(rest.sizes) < 2:
                log_weight = _summed(rest, cliques)
                if log_weight > -math.inf:
                    return Agreeing(log_weight, len(open_ends))
            else:
                open_ends.append((rest, *_choice(rest, cliques)))
        while open_ends and not open_ends[-1][2]:
            open_ends.pop()
        if not open_ends:
            break
        above, v, states = open_ends[-1]
        rest = _fixed(above, v, states.pop())
    return Agreeing(-math.inf, 0)


def _summed(graph: FactorGraph, cliques: Cliques) -> float:
    """Return log Z, minus infinity where no state is possible."""
    try:
        return JunctionTree(graph, cliques).log_partition()
    except DataError:
        return -math.inf


def _choice(graph: FactorGraph, cliques: Cliques) -> tuple[int, list[int]]:
    """Return the variable whose tables are largest together, and its states, the likeliest last."""
    load = np.zeros(len(graph.sizes))
    for number in range(len(cliques.own)):
        scope = cliques.of(number)
        load[list(scope)] += math.prod(graph.sizes[v] for v in scope)
    v = int(load.argmax())
    believed = propagate(graph, damping=0.3, rounds=_ROUNDS).marginals[v]
    return v, np.argsort(believed, kind="stable").tolist()


def _fixed(graph: FactorGraph, v: int, state: int) -> FactorGraph | None:
    """Return the graph with a variable at a state and what cannot be taken out; None if nothing is left."""
    try:
        return pruned(graph.given({v: state})).graph
    except DataError:
        return None
