r"""Mean field on factor graphs, and the variational principle that it climbs.

For any distribution q over the states (the Gibbs variational principle),

    log Z >= E_q[log prod_f f] + H(q),    with a gap of KL(q || p).

Mean field takes q = prod_B q_B over blocks of variables: single ones (naive), or any that the junction tree
can handle (structured). All other blocks fixed, the best q_B is proportional to exp E_others[log prod_f f], a
factor graph over B alone; so each step raises the bound, and each start ends in a maximum of its own.

Symbols:
    f factor, q_B distribution of block B, H entropy, Z partition function.

Source:
    Wainwright and Jordan (2008), Graphical Models, Exponential Families, and Variational Inference, ch. 5.
    Structured: Saul and Jordan (1996), Exploiting tractable substructures in intractable networks.

Departs from the source:
    A zero counts as e^-50 of the factor's largest entry while blocks move, so that a start on forbidden
    states finds a way out; a last round moves them off. The bound returned is that of the true factors.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from leadline.core.errors import DataError
from leadline.inference.factors import Factor, FactorGraph, Floats
from leadline.inference.junction_tree import JunctionTree

__all__ = ["MeanField", "elbo", "entropy", "expected_log", "mean_field", "variational_bound"]

_FLOOR = 50.0  # nats below a factor's largest entry that a zero counts as while blocks move
_FORBIDDEN = 1e5
_SLACK = 1e-6  # how far the sum of a distribution may be from one


@dataclass(frozen=True, eq=False)
class MeanField:
    """What mean field ended with.

    Args:
        marginals: Distribution of each variable under q.
        bound: Lower bound of log Z in nats.
        bounds: The bound after each round, of factors whose zeros count as e^-50; it never falls.
        blocks: The blocks that q is a product over.
        joints: For each block the distribution q_B if it is small enough to list, else None.
    """

    marginals: list[Floats]
    bound: float
    bounds: list[float]
    blocks: tuple[tuple[int, ...], ...]
    joints: list[Factor | None]


def entropy(table: Floats) -> float:
    """Return the entropy of a table of probabilities, in nats."""
    positive = table[table > 0]
    return float(-(positive * np.log(positive)).sum())


def expected_log(graph: FactorGraph, q: Factor) -> float:
    """Return E_q[log prod_f f] in nats for a joint distribution of all variables; -inf if it is forbidden."""
    total = 0.0
    for factor in graph.factors:
        part = q.onto(factor.scope).table
        with np.errstate(divide="ignore", invalid="ignore"):
            total += float(np.where(part > 0, part * np.log(factor.table), 0.0).sum())
    return total


def variational_bound(graph: FactorGraph, q: Factor) -> float:
    """Return E_q[log prod_f f] + H(q) in nats: at most log Z, by KL(q || p).

    Args:
        graph: The factors.
        q: Any joint distribution over all variables.

    Raises:
        DataError: If q is no distribution over the variables of the graph: what is bounded then is not log Z.

    Example:
        >>> graph = FactorGraph((2,), (Factor((0,), np.array([1.0, 3.0])),))
        >>> round(variational_bound(graph, Factor((0,), np.array([0.25, 0.75]))), 6)  # p itself: ln 4
        1.386294
    """
    want = tuple(graph.sizes[v] for v in q.scope if v < len(graph.sizes))
    if sorted(q.scope) != list(range(len(graph.sizes))) or q.table.shape != want:
        raise DataError(
            f"q is over {q.scope} with the shape {q.table.shape}; the graph is over {graph.sizes}"
        )
    _check_sum(q.table, "q")
    return expected_log(graph, q) + entropy(q.table)


def elbo(graph: FactorGraph, marginals: Sequence[Floats]) -> float:
    """Return the bound E_q[log prod_f f] + H(q) in nats of independent variables: at most log Z.

    Raises:
        DataError: If there is not a distribution for each variable.
    """
    if tuple(p.shape for p in marginals) != tuple((size,) for size in graph.sizes):
        raise DataError(
            f"marginals of the shapes {[p.shape for p in marginals]}; the graph is over {graph.sizes}"
        )
    for v, p in enumerate(marginals):
        _check_sum(p, f"the marginal of variable {v}")
    total = sum(entropy(p) for p in marginals)
    for factor in graph.factors:
        part = _outer([marginals[v] for v in factor.scope])
        with np.errstate(divide="ignore", invalid="ignore"):
            total += float(np.where(part > 0, part * np.log(factor.table), 0.0).sum())
    return total


def _check_sum(table: Floats, what: str) -> None:
    """Refuse what is no distribution."""
    total = float(table.sum())
    if not (table >= 0).all() or abs(total - 1) > _SLACK:
        raise DataError(f"{what} is no distribution: it has negative entries or sums to {total:.6g}, not 1")


def mean_field(
    graph: FactorGraph,
    evidence: Mapping[int, int] | None = None,
    *,
    blocks: Iterable[Sequence[int]] | None = None,
    start: Sequence[Floats] | None = None,
    rounds: int = 200,
    tolerance: float = 1e-9,
) -> MeanField:
    """Return a product of block distributions that is a local maximum of the bound.

    Args:
        graph: The factors.
        evidence: Observed states by variable.
        blocks: Blocks of variables; variables of no block stand alone, all of them by default (naive).
        start: Distribution of each variable to start from; uniform by default. Symmetric models need another.
        rounds: Most rounds over all blocks.
        tolerance: Done when a round gains less than this, relative to the bound.

    Raises:
        DataError: If a variable is in two blocks, or a block gives every state weight zero.
        ResourceError: If a block is too wide for its junction tree.
    """
    seen = graph.given(evidence or {})
    climb = _Climb(seen, _partition(blocks, len(graph.sizes)), start)
    bounds = [climb.bound()]
    for _ in range(rounds):
        for number in range(len(climb.blocks)):
            climb.move(number)
        bounds.append(climb.bound())
        if bounds[-1] - bounds[-2] < tolerance * (1 + abs(bounds[-1])):
            break
    climb.forbid()
    marginals = [
        np.eye(size)[(evidence or {})[v]] if v in (evidence or {}) else climb.marginals[v]
        for v, size in enumerate(graph.sizes)
    ]
    return MeanField(marginals, climb.bound(exact=True), bounds, climb.blocks, climb.joints())


def _partition(blocks: Iterable[Sequence[int]] | None, count: int) -> tuple[tuple[int, ...], ...]:
    """Return blocks with the variables of none as blocks of one."""
    given = [tuple(block) for block in blocks or ()]
    taken = [v for block in given for v in block]
    if len(set(taken)) != len(taken) or not all(0 <= v < count for v in taken):
        raise DataError(f"blocks must hold variables 0..{count - 1}, each at most once")
    return (*given, *((v,) for v in range(count) if v not in set(taken)))


def _outer(tables: Sequence[Floats]) -> Floats:
    """Return the product table of independent distributions."""
    out = np.ones(())
    for table in tables:
        out = out[..., None] * table
    return out


class _Climb:
    """Coordinate ascent on the bound over the distributions of blocks."""

    def __init__(
        self, graph: FactorGraph, blocks: tuple[tuple[int, ...], ...], start: Sequence[Floats] | None
    ) -> None:
        self.graph, self.blocks = graph, blocks
        self.marginals = [np.full(size, 1 / size) for size in graph.sizes]
        if start is not None:
            self.marginals = [
                np.asarray(p, dtype=np.float64) if len(p) == size else np.ones(1)
                for p, size in zip(start, graph.sizes, strict=True)
            ]
        self.block_of = {v: number for number, block in enumerate(blocks) for v in block}
        with np.errstate(divide="ignore"):
            exact = [np.log(factor.table) for factor in graph.factors]
        self.exact = exact
        self.logs = [np.maximum(log, _lowest(log, _FLOOR)) for log in exact]
        self.touching = [sorted({f for v in block for f in graph.factors_of[v]}) for block in blocks]
        # of each block: log-normaliser, factors' own expectation E_q[log of the effective factors]
        self.trees: list[tuple[JunctionTree, float] | None] = [None] * len(blocks)

    def move(self, number: int) -> None:
        """Set one block to its best distribution, all others fixed."""
        block = self.blocks[number]
        effective = [self._effective(f, number, self.logs[f]) for f in self.touching[number]]
        if len(block) == 1:
            total = sum((e.table for e in effective), start=np.zeros(self.graph.sizes[block[0]]))
            weights = np.exp(total - total.max())
            self.marginals[block[0]] = weights / weights.sum()
            return
        place = {v: i for i, v in enumerate(block)}
        factors = tuple(
            Factor(tuple(place[v] for v in e.scope), np.exp(e.table - e.table.max()))
            for e in effective
            if e.scope
        )
        known = self.trees[number]
        inner = FactorGraph(tuple(self.graph.sizes[v] for v in block), factors)
        tree = JunctionTree(inner, known[0].cliques if known else "min_fill")
        answer = tree.calibrate()
        for v in block:
            self.marginals[v] = answer.marginals[place[v]].copy()
        _, beliefs = tree.beliefs()
        energy = sum(
            float((belief * np.log(np.maximum(factor.table, 1e-300))).sum())
            for factor, belief in zip(factors, beliefs, strict=True)
        )
        self.trees[number] = tree, answer.log_partition - energy  # the entropy of q_B

    def forbid(self) -> None:
        """Move every block once more with zeros as good as zero, if there are any."""
        if any(np.isneginf(log).any() for log in self.exact):
            self.logs = [np.maximum(log, _lowest(log, _FORBIDDEN)) for log in self.exact]
            for number in range(len(self.blocks)):
                self.move(number)

    def bound(self, *, exact: bool = False) -> float:
        """Return E_q[log prod f] + H(q), of the true factors or of those whose zeros are lifted."""
        total = 0.0
        for number, block in enumerate(self.blocks):
            known = self.trees[number]
            total += known[1] if known else sum(entropy(self.marginals[v]) for v in block)
        logs = self.exact if exact else self.logs
        for f, factor in enumerate(self.graph.factors):
            total += self._expectation(f, factor.scope, logs[f])
        return total

    def joints(self) -> list[Factor | None]:
        """Return the distribution of each block that is small enough to list."""
        found: list[Factor | None] = []
        for number, block in enumerate(self.blocks):
            known, states = self.trees[number], math.prod(self.graph.sizes[v] for v in block)
            if known is None:
                found.append(Factor(block, _outer([self.marginals[v] for v in block])))
            elif states <= 1 << 16:
                joint = Factor((), np.ones(()))
                for factor in known[0].graph.factors:
                    joint = joint.product(factor)
                everything = joint.product(Factor(tuple(range(len(block))), np.ones(known[0].graph.sizes)))
                table = everything.onto(range(len(block))).normalised().table
                found.append(Factor(block, table))
            else:
                found.append(None)
        return found

    def _effective(self, f: int, number: int, log: Floats) -> Factor:
        """Return E[log f] over the other blocks, as a table over this block's part of the scope."""
        scope = self.graph.factors[f].scope
        others: dict[int, list[int]] = {}
        for v in scope:
            if self.block_of[v] != number:
                others.setdefault(self.block_of[v], []).append(v)
        table, kept = log, list(scope)
        for block, variables in others.items():
            weight = self._joint(block, tuple(variables))
            axes = [kept.index(v) for v in variables]
            with np.errstate(invalid="ignore"):
                table = np.tensordot(table, weight, axes=(axes, list(range(len(axes)))))
            kept = [v for v in kept if v not in variables]
        return Factor(tuple(kept), np.asarray(table))

    def _expectation(self, f: int, scope: tuple[int, ...], log: Floats) -> float:
        """Return E_q[log f]; -inf where q allows a forbidden state."""
        blocks: dict[int, list[int]] = {}
        for v in scope:
            blocks.setdefault(self.block_of[v], []).append(v)
        weight = Factor((), np.ones(()))
        for block, variables in blocks.items():
            weight = weight.product(Factor(tuple(variables), self._joint(block, tuple(variables))))
        part = weight.onto(scope).table
        with np.errstate(invalid="ignore"):
            return float(np.where(part > 0, part * log, 0.0).sum())

    def _joint(self, block: int, variables: tuple[int, ...]) -> Floats:
        """Return q's joint distribution of variables of one block."""
        known = self.trees[block]
        if known is None or len(variables) == 1:
            return _outer([self.marginals[v] for v in variables])
        tree, members = known[0], self.blocks[block]
        return tree.joint([members.index(v) for v in variables])


def _lowest(log: Floats, below: float) -> float:
    """Return what a zero counts as: so far below the largest entry."""
    finite = log[np.isfinite(log)]
    return float(finite.max()) - below if finite.size else -below
