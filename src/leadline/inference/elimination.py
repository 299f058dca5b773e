r"""Variable elimination: one question, one pass.

    sum_{x_v} prod_f f = (prod_{f without v} f) * sum_{x_v} prod_{f with v} f

Before any table is touched, a question leaves out what cannot matter: a child nobody asked about, that is not
observed and has no children left, sums to one (a barren variable).

Symbols:
    d variables, v the one eliminated, f factor, Z weight of the evidence.

Source:
    Koller and Friedman (2009), Probabilistic Graphical Models, section 9.3. Barren: Shachter (1986).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from leadline.core.errors import DataError
from leadline.inference.budget import checked_memory
from leadline.inference.factors import Factor, FactorGraph, multiplied
from leadline.inference.orders import Order, find_cliques

__all__ = ["Eliminated", "Path", "eliminate", "elimination_path", "relevant"]

_FEW = 100


@dataclass(frozen=True, eq=False)
class Eliminated:
    """What is left when all other variables are gone.

    Args:
        factor: p(kept | evidence) over the kept variables.
        log_partition: Log of the weight of the evidence in nats.
    """

    factor: Factor
    log_partition: float


def relevant(graph: FactorGraph, kept: Iterable[int], evidence: Iterable[int] = ()) -> FactorGraph:
    """Return the graph without what cannot matter to the kept variables or to the weight of the evidence.

    Variables that are left out have one state.
    """
    needed = {*kept, *evidence}
    uses = [len(numbers) for numbers in graph.factors_of]
    owner = {factor.child: number for number, factor in enumerate(graph.factors) if factor.child is not None}
    barren = [v for v in owner if v not in needed and uses[v] == 1]
    gone: set[int] = set()
    while barren:
        number = owner[barren.pop()]
        gone.add(number)
        for v in graph.factors[number].scope:
            uses[v] -= 1
            if uses[v] == 1 and v not in needed and v in owner and owner[v] not in gone:
                barren.append(v)
    dropped = {graph.factors[number].child for number in gone}
    sizes = tuple(1 if v in dropped else size for v, size in enumerate(graph.sizes))
    return FactorGraph(sizes, tuple(f for number, f in enumerate(graph.factors) if number not in gone))


def eliminate(
    graph: FactorGraph,
    kept: Sequence[int] = (),
    evidence: Mapping[int, int] | None = None,
    *,
    order: Order = "min_fill",
    limit: float | None = None,
) -> Eliminated:
    """Return the joint distribution of the kept variables given evidence, all others summed out.

    Args:
        graph: The factors.
        kept: Variables to keep; the axes of the answer come in this order.
        evidence: Observed states by variable; none of them kept.
        order: The order of elimination.
        limit: Most bytes of all tables; half the free memory by default.

    Raises:
        ResourceError: If the tables would take more than `limit`.
        DataError: If the evidence has probability zero.
    """
    seen = relevant(graph, kept, evidence or {}).given(evidence or {})
    held = FactorGraph(seen.sizes, (*seen.factors, _ones(kept, seen.sizes)))
    path = elimination_path(held, order)
    checked_memory(path, limit)
    factors, log_scale = list(seen.factors), 0.0
    free = sum(
        math.log(seen.sizes[v]) for v in range(len(seen.sizes)) if not seen.factors_of[v] and v not in kept
    )
    for v in path.order:
        if v in kept:
            continue
        bucket = [factor for factor in factors if v in factor.scope]
        factors = [factor for factor in factors if v not in factor.scope]
        if not bucket:
            continue
        left = multiplied(bucket).summed([v])
        scale = float(left.table.max())
        if scale == 0.0:
            raise DataError("the evidence has probability zero")
        log_scale += math.log(scale)
        factors.append(Factor(left.scope, left.table / scale))
    answer = multiplied([*factors, _ones(kept, seen.sizes)]).onto(tuple(kept))
    total = float(answer.table.sum())
    if total == 0.0:
        raise DataError("the evidence has probability zero")
    return Eliminated(answer.normalised(), math.log(total) + log_scale + free)


@dataclass(frozen=True, eq=False)
class Path:
    """An order of elimination, with what its tables take."""

    order: list[int]
    states: float
    width: int


def elimination_path(graph: FactorGraph, order: Order) -> Path:
    """Return an order: of few variables by sets, which asks nothing of a compiler, else by `orders`."""
    if sum(size > 1 for size in graph.sizes) > _FEW:
        cliques = find_cliques(graph, order)
        return Path([int(v) for v in cliques.order], cliques.states, cliques.width)
    logs = [math.log(size) for size in graph.sizes]
    near = {
        v: {u for u in graph.neighbours[v] if logs[u] > 0} if logs[v] > 0 else set() for v in range(len(logs))
    }

    def score(v: int) -> tuple[float, float]:
        fill = sum(len(near[v] - near[u]) - 1 for u in near[v]) / 2
        weight = logs[v] + sum(logs[u] for u in near[v])
        return (fill, weight) if order == "min_fill" else (weight, fill)

    scores = {v: score(v) for v in near}
    taken, states, width = [], 0.0, 0
    while near:
        v = min(scores, key=lambda u: scores[u])
        beside = near.pop(v)
        del scores[v]
        taken.append(v)
        states += math.exp(min(700.0, logs[v] + sum(logs[u] for u in beside)))
        width = max(width, len(beside))
        for u in beside:
            near[u] |= beside
            near[u] -= {u, v}
        for u in beside.union(*(near[u] for u in beside)):
            scores[u] = score(u)
    return Path(taken, states, width)


def _ones(variables: Sequence[int], sizes: Sequence[int]) -> Factor:
    return Factor(tuple(variables), np.ones([sizes[v] for v in variables]))
