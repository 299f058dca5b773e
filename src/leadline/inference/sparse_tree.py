r"""A junction tree over states of positive weight alone: exact where tables are mostly zeros.

Deterministic relations (genes handed down, logic, codes) leave few of a clique's states possible. Messages
to the parent keep the rows that are possible, as tries; the table of a clique is never stored, but walked
through twice, once up and once down, where derivatives of Z become probabilities:

    up    m_c(s) = sum_y prod_f f(s, y) prod_i m_i(s, y)          i the children of c
    down  P(s, y) = prod_f f(s, y) prod_i m_i(s, y) * P(s) / m_c(s)

How much there is to store is not known before; an upper bound is: the states of each separator that no single
factor rules out.

Symbols:
    d variables, c cliques, n rows, s states of a clique's separator, y of its other variables, m message.

Source:
    Larkin and Dechter (2003), Bayesian inference in the presence of determinism, AISTATS;
    Darwiche (2003), A differential approach to inference in Bayesian networks, JACM 50(3).
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from leadline.core.errors import DataError, ResourceError
from leadline.inference.elimination import eliminate
from leadline.inference.factors import Factor, FactorGraph, Floats, Ints
from leadline.inference.junction_tree import OTHERWISE, Calibrated, available_memory, told_need, told_size
from leadline.inference.orders import Cliques, Order, find_cliques
from leadline.inference.sparse_layout import Layout, slots_of
from leadline.inference.sparse_loops import Walks, climb, descend, pick

__all__ = ["MOST_STATES", "SparseTree"]

MOST_STATES = 1e11

_FEW = 1e4  # states of a scope that are not worth counting
_COUNTED = 1e6  # bytes of tables that counting may take
_NUMBERED = 2**31 - 1  # rows that a slot can number
_SLOT, _VALUE = 4, 16  # bytes of a slot; of a value with its mass


class SparseTree:
    """A junction tree over the possible states of a factor graph.

    Args:
        graph: The factors, evidence and impossible states taken out (`pruned`).
        order: The order of elimination, or the cliques.
        limit: Most bytes that messages may take; half the free memory by default.
        most_states: Most states of all cliques to walk through; ten million take about a second.

    Raises:
        ResourceError: If the bounds of what they take are more; nothing has been allocated then.
        DataError: If every state has weight zero.

    Example:
        >>> same = Factor((0, 1), np.eye(2))
        >>> tree = SparseTree(FactorGraph((2, 2), (same, Factor((1,), np.array([0.5, 1.5])))))
        >>> tree.calibrate().marginals[0].tolist(), round(math.exp(tree.log_partition()), 3)
        ([0.25, 0.75], 2.0)
    """

    def __init__(
        self,
        graph: FactorGraph,
        order: Order | Sequence[int] | Cliques = "min_fill",
        limit: float | None = None,
        most_states: float = MOST_STATES,
    ) -> None:
        self.graph = graph
        self.cliques = find_cliques(graph, order)
        self._levels = [self.cliques.of(c)[::-1] for c in range(len(self.cliques.own))]
        self._separators = [
            levels[: len(levels) - int(own)]
            for levels, own in zip(self._levels, self.cliques.own, strict=True)
        ]
        self._rows = [self._possible(scope) for scope in self._separators]
        self.memory = _bytes(self._rows, [[graph.sizes[v] for v in scope] for scope in self._separators])
        self.states = sum(self._possible(scope) for scope in self._levels)
        most = available_memory() if limit is None else limit
        if self.memory > most:
            need = told_need(self.cliques, self.memory)
            raise ResourceError(f"{need}, more than the limit of {told_size(most)}; {OTHERWISE}")
        if self.states > most_states or max(self._rows, default=0) > _NUMBERED:
            raise ResourceError(
                f"{told_need(self.cliques)}, or a walk through {self.states:.2g} states; {OTHERWISE}"
            )
        self._offset = 0.0  # log of what the factors were divided by
        self._walks = self._laid_out()
        self._made = [1] * len(self._levels)  # rows of each message
        self._scales = np.ones(len(self._levels))  # what each was divided by

    def calibrate(self, wanted: Iterable[int] | None = None) -> Calibrated:
        """Return log Z in nats, and the distribution of each of the `wanted` variables (all by default)."""
        log_partition = self.log_partition()
        sizes = self.graph.sizes
        asked = range(len(sizes)) if wanted is None else list(wanted)
        if not asked:
            return Calibrated(log_partition, {})
        offsets = np.concatenate([[0], np.cumsum(sizes)])
        flat = np.zeros(int(offsets[-1]))
        walks, masses = self._walks, np.zeros(len(self._values))
        for c in range(len(self._levels) - 1, -1, -1):
            at, count = int(walks.message_at[c]), self._made[c]
            weights, own = self._values[at : at + count] * self._scales[c], masses[at : at + count]
            if not self._separators[c]:
                own.fill(1.0)
            np.divide(own, weights, out=own, where=weights > 0)
            descend(walks, c, self._slots, self._values, masses, flat, offsets)
        return Calibrated(log_partition, {v: flat[offsets[v] : offsets[v + 1]] for v in asked})

    def log_partition(self) -> float:
        """Return log Z in nats."""
        return self._up(maxima=False)

    def maximise(self) -> tuple[Ints, float]:
        """Return the state of all variables (d,) of the largest weight, and its log weight in nats."""
        log_weight = self._up(maxima=True)
        return self._picked(1, None)[0], log_weight

    def sample(self, uniforms: Floats) -> Ints:
        """Return independent draws, (n, c) from U[0, 1) -> (n, d)."""
        self._up(maxima=False)
        return self._picked(len(uniforms), uniforms)

    def _picked(self, n: int, uniforms: Floats | None) -> Ints:
        """Return draws, or the likeliest state, chosen from the roots down."""
        x = np.zeros((n, len(self.graph.sizes)), dtype=np.int64)
        for c in range(len(self._levels) - 1, -1, -1):
            u = np.empty(0) if uniforms is None else np.ascontiguousarray(uniforms[:, c])
            keys = [*x[:, list(self._separators[c])].T]
            order = np.arange(n) if uniforms is None else np.lexsort((u, *keys))
            pick(self._walks, c, self._slots, self._values, u, order, x)
        return x

    def _up(self, *, maxima: bool) -> float:
        """Send all messages to the roots and return the log of the total, or largest, weight."""
        walks = self._walks
        total = self._offset
        for c in range(len(self._levels)):
            self._made[c], largest = climb(walks, c, self._slots, self._values, maxima)
            if largest <= 0:
                raise DataError("the evidence has probability zero")
            at = int(walks.message_at[c])
            self._values[at : at + self._made[c]] /= largest
            self._scales[c] = largest
            total += math.log(largest)
        return total

    def _possible(self, scope: Sequence[int]) -> float:
        """Return how many states of a scope no factor rules out, or a larger number."""
        whole = math.prod(float(self.graph.sizes[v]) for v in scope)
        if whole <= _FEW:
            return whole
        place = {v: i for i, v in enumerate(scope)}
        supports = [
            Factor(tuple(place[v] for v in support.scope), support.table)
            for support in self._supports(scope).values()
        ]
        part = FactorGraph(tuple(self.graph.sizes[v] for v in scope), tuple(supports))
        try:
            return min(whole, math.exp(eliminate(part, limit=_COUNTED).log_partition) * (1 + 1e-9))
        except ResourceError:
            return whole

    def _supports(self, scope: Sequence[int]) -> dict[int, Factor]:
        """Return what each factor, by its number, leaves possible in a scope: ones and some zeros."""
        inside, found = set(scope), {}
        for number in {f for v in scope for f in self.graph.factors_of[v]}:
            factor = self.graph.factors[number]
            beyond = [v for v in factor.scope if v not in inside]
            support = Factor(factor.scope, (factor.table > 0).astype(float)).maximised(beyond)
            if not support.table.all():
                found[number] = support
        return found

    def _laid_out(self) -> Walks:
        """Return what the walks follow; make the pools, the factors' tries in them."""
        sizes = self.graph.sizes
        layout = Layout(self._levels, [len(scope) for scope in self._separators], sizes)
        holders = []
        for factor in self.graph.factors:
            largest = float(factor.table.max())
            if largest <= 0:
                raise DataError("the evidence has probability zero")
            self._offset += math.log(largest)
            unit = self._in_order(Factor(factor.scope, factor.table / largest))
            holders.append(int(self.cliques.home[unit.scope[-1]]) if unit.scope else -1)
            if unit.scope:
                layout.add_factor(holders[-1], unit)
        below = self._below()
        for c, levels in enumerate(self._levels):
            if math.prod(float(sizes[v]) for v in levels) > _FEW:
                for number, support in self._supports(levels).items():
                    if holders[number] not in below[c]:  # no message tells of it
                        layout.add_factor(c, self._in_order(support))
        for c, rows in enumerate(self._rows):
            layout.add_message(c, int(self.cliques.parent[c]), rows)
        self._slots, self._values = layout.pools()
        return layout.walks()

    def _in_order(self, factor: Factor) -> Factor:
        """Return a factor without variables of one state, the others in the order of the walk."""
        free = [v for v in factor.scope if self.graph.sizes[v] > 1]
        return factor.onto(sorted(free, key=lambda v: -self.cliques.position[v]))

    def _below(self) -> list[set[int]]:
        """Return the cliques of the subtree of each."""
        found = [{c} for c in range(len(self._levels))]
        for c, parent in enumerate(self.cliques.parent):
            if parent >= 0:
                found[parent] |= found[c]
        return found


def _bytes(rows: Sequence[float], sizes: Sequence[Sequence[int]]) -> float:
    """Return the bytes of messages of some rows over variables of some sizes."""
    return sum(
        count * _VALUE + sum(slots_of(each, count)) * _SLOT for count, each in zip(rows, sizes, strict=True)
    )
