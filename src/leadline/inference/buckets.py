r"""Weighted mini-buckets: sound bounds on log Z, and through them on every marginal, at any width.

A bucket holds all factors with the variable v. Where their product would be larger than a cap, it is split
into mini-buckets f_1 ... f_R that are summed apart. By the inequality of Hölder, and its reverse,

    sum_v prod_r f_r <= prod_r (sum_v f_r^(1/w_r))^w_r        w_r > 0,             sum_r w_r = 1
    sum_v prod_r f_r >= prod_r (sum_v f_r^(1/w_r))^w_r        w_1 > 0, others < 0,  sum_r w_r = 1

so what is left when every variable is gone is at least, or at most, Z. Before it is summed a split bucket is
shared out anew, its product unchanged, so that the mini-buckets agree on v (moment matching). With the weight
of each state of v bounded, Z_s, the marginal lies in

    L_s / (L_s + sum of the other U)  <=  p(v = s)  <=  U_s / (U_s + sum of the other L).

Symbols:
    v variable, s its state, R mini-buckets of a bucket, w (R,) weights, U, L bounds on Z_s.

Source:
    Dechter and Rish (2003), Mini-buckets: a general scheme for bounded inference, JACM 50(2); Liu and Ihler
    (2011), Bounding the partition function using Hölder's inequality, ICML; matching: Ihler, Flerova, Dechter
    and Otten (2012), Join-graph based cost-shifting schemes, UAI.

Departs from the source:
    The weights of a bucket are not optimised: equal ones above, and the best of three spreads below.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from leadline.core.errors import DataError
from leadline.inference.elimination import elimination_path
from leadline.inference.factors import FactorGraph, Floats

__all__ = ["CAP", "BucketBounds", "bound_marginals", "bound_partition"]

CAP = 1 << 16  # entries of a table
_SPREADS = (0.1, 0.5, 2.0)  # how much weight the mini-buckets below zero take together, for a lower bound
Table = tuple[tuple[int, ...], Floats]  # variables in the order of elimination, and logs


@dataclass(frozen=True, eq=False)
class BucketBounds:
    """Bounds on log Z and on single marginals.

    Args:
        lower: No more than log Z, in nats; minus infinity where nothing is known.
        upper: No less than log Z.
        exact: Whether no bucket was split, so that both are log Z.
        low: Lower bounds of the marginals of those that were asked for.
        high: Upper bounds of them.
        guess: A distribution between both.
    """

    lower: float
    upper: float
    exact: bool
    low: dict[int, Floats]
    high: dict[int, Floats]
    guess: dict[int, Floats]


def bound_partition(
    graph: FactorGraph, evidence: Mapping[int, int] | None = None, *, cap: int = CAP
) -> tuple[float, float]:
    """Return a lower and an upper bound of the log weight of the evidence, in nats.

    Args:
        graph: The factors.
        evidence: Observed states by variable.
        cap: Most entries of a table; a single factor may be larger.

    Raises:
        DataError: If the evidence has probability zero, as far as the bound sees.
        ResourceError: If there are too many variables to order.
    """
    found = bound_marginals(graph, evidence, (), cap=cap)
    return found.lower, found.upper


def bound_marginals(
    graph: FactorGraph,
    evidence: Mapping[int, int] | None = None,
    wanted: Iterable[int] | None = None,
    *,
    cap: int = CAP,
) -> BucketBounds:
    """Return bounds on log Z and on the distributions of the `wanted` variables (all by default).

    Each variable costs a pass over the graph of its own. Arguments and errors as of `bound_partition`.
    """
    seen = graph.given(evidence or {})
    asked = list(range(len(graph.sizes)) if wanted is None else wanted)
    whole = _Buckets(seen, cap)
    upper, lower = whole.bounds(None)
    low, high, guess = {}, {}, {}
    for v in asked:
        if evidence and v in evidence:
            low[v] = high[v] = guess[v] = np.eye(graph.sizes[v])[evidence[v]]
            continue
        above, below = whole.bounds(v)
        upper, lower = min(upper, _log_sum(above, 0)), max(lower, _log_sum(below, 0))
        low[v], high[v], guess[v] = _shares(above, below)
    if upper == -math.inf:
        raise DataError("the evidence has probability zero")
    return BucketBounds(float(lower), float(upper), whole.exact, low, high, guess)


class _Buckets:
    """Passes over one graph that end with the log-weight of each state of a variable, or of all.

    Args:
        graph: The factors; observed variables have one state.
        cap: Most entries of a table.
    """

    def __init__(self, graph: FactorGraph, cap: int) -> None:
        self.sizes, self.cap, self.exact = graph.sizes, cap, True
        self.order = elimination_path(graph, "min_fill").order
        self.tables: list[Table] = []
        self.rank = {v: place for place, v in enumerate(self.order)}
        with np.errstate(divide="ignore"):
            for factor in graph.factors:
                axes = sorted(range(len(factor.scope)), key=lambda axis: self.rank[factor.scope[axis]])
                scope = tuple(factor.scope[axis] for axis in axes)
                self.tables.append((scope, np.log(factor.table.transpose(axes))))
        self.constant = sum((logs for scope, logs in self.tables if not scope), np.zeros(()))
        self.tables = [table for table in self.tables if table[0]]

    def bounds(self, kept: int | None) -> tuple[Floats, Floats]:
        """Return upper and lower bounds of the log-weight of each state of `kept`; of all without it."""
        above, split = self._pass(kept, 0.0)
        if not split:
            return above, above
        self.exact = False
        below = [self._pass(kept, spread)[0] for spread in _SPREADS]
        return above, np.maximum.reduce(below)

    def _pass(self, kept: int | None, spread: float) -> tuple[Floats, bool]:
        """Return a bound of the log-weight of each state of `kept`, and whether a bucket was split."""
        waiting: dict[int, list[Table]] = {v: [] for v in self.order if v != kept}
        total, split = self.constant + np.zeros(() if kept is None else self.sizes[kept]), False
        for scope, logs in self.tables:
            if scope == (kept,):
                total = total + logs
                continue
            held = _last(scope, logs, kept)
            waiting[held[0][0]].append(held)
        for v in waiting:
            if not waiting[v]:
                total = total + math.log(self.sizes[v])
                continue
            groups = self._groups(waiting[v], kept)
            split = split or len(groups) > 1
            for scope, logs in _summed(groups, spread):
                if scope and scope[0] != kept:
                    waiting[scope[0]].append((scope, logs))
                else:
                    total = total + logs
        return total, split

    def _groups(self, bucket: list[Table], kept: int | None) -> list[Table]:
        """Return the products of a bucket's mini-buckets, the largest factors placed first."""
        groups: list[tuple[set[int], list[Table]]] = []
        for table in sorted(bucket, key=lambda table: -table[1].size):
            for variables, group in groups:
                if math.prod(self.sizes[u] for u in variables.union(table[0])) <= self.cap:
                    variables.update(table[0])
                    group.append(table)
                    break
            else:
                groups.append((set(table[0]), [table]))
        return [self._product(variables, group, kept) for variables, group in groups]

    def _product(self, variables: set[int], group: list[Table], kept: int | None) -> Table:
        """Return the product of tables, the variables in the order of elimination, the kept one last."""
        scope = tuple(sorted(variables, key=lambda v: (v == kept, self.rank[v])))
        total = np.zeros([self.sizes[v] for v in scope])
        for held, logs in group:
            total += logs.reshape([self.sizes[v] if v in held else 1 for v in scope])
        return scope, total


def _last(scope: tuple[int, ...], logs: Floats, kept: int | None) -> Table:
    """Return a table with the axis of the variable that is never summed at the end."""
    if kept is None or kept not in scope:
        return scope, logs
    axis = scope.index(kept)
    return (*scope[:axis], *scope[axis + 1 :], kept), np.moveaxis(logs, axis, -1)


def _summed(groups: Sequence[Table], spread: float) -> list[Table]:
    """Return the mini-buckets with their first variable summed out, each by the power of its weight.

    With a `spread` of zero the product of the answers is no less than the sum, else no more.
    """
    if len(groups) == 1:
        return [(groups[0][0][1:], _log_sum(groups[0][1], 0))]
    count = len(groups)
    below = [1 + spread, *[-spread / (count - 1)] * (count - 1)]
    weights = below if spread else [1 / count] * count
    matched = _matched([logs for _, logs in groups], weights)
    if matched is None:
        return [((), np.array(-math.inf))]
    pairs = zip(groups, matched, weights, strict=True)
    return [(scope[1:], w * _log_sum(logs / w, 0)) for (scope, _), logs, w in pairs]


def _matched(logs: Sequence[Floats], weights: Sequence[float]) -> list[Floats] | None:
    """Return mini-buckets of the same product whose powered sums over all but the first axis agree.

    A state that one of them forbids is left out of all; None if no state is left.
    """
    pairs = list(zip(logs, weights, strict=True))
    gone = np.any([table.reshape(len(table), -1).max(1) == -math.inf for table in logs], axis=0)
    if gone.all():
        return None
    sums = np.array([w * _log_sum((table / w).reshape(len(table), -1), 1) for table, w in pairs])  # (R, k)
    able = np.isfinite(sums).all(0) & ~gone
    sums = np.where(able, sums, 0.0)
    shifts = np.multiply.outer(weights, sums.sum(0)) - sums  # they add to nothing
    out = []
    for (table, w), shift in zip(pairs, shifts, strict=True):
        moved = table + shift.reshape(-1, *[1] * (table.ndim - 1))
        moved[gone] = -math.copysign(math.inf, w)  # its power is nothing
        out.append(moved)
    return out


def _log_sum(logs: Floats, axis: int) -> Floats:
    """Return the log of the sum of exponentials along an axis, infinities kept."""
    top = np.asarray(logs.max(axis, keepdims=True))
    with np.errstate(invalid="ignore", divide="ignore", over="ignore", under="ignore"):
        total = np.log(np.exp(logs - np.where(np.isfinite(top), top, 0.0)).sum(axis))
    flat = top.squeeze(axis)
    return np.where(np.isfinite(flat), total + np.where(np.isfinite(flat), flat, 0.0), flat)


def _shares(above: Floats, below: Floats) -> tuple[Floats, Floats, Floats]:
    """Return lower and upper bounds of a distribution, and one between, from bounds of its log-weights."""
    top = above.max()
    if top == -math.inf:
        raise DataError("the evidence has probability zero")
    U, L = np.exp(above - top), np.exp(np.minimum(below, above) - top)
    others_above, others_below = U.sum() - U, L.sum() - L
    low = np.divide(L, L + others_above, out=np.zeros_like(L), where=L > 0)
    high = np.divide(U, U + others_below, out=np.zeros_like(U), where=U > 0)
    return np.minimum(low, 1.0), np.minimum(high, 1.0), U / U.sum()
