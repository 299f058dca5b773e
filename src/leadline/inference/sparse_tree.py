r"""A junction tree over states of positive weight alone: exact where tables are mostly zeros.

Deterministic relations (genes handed down, logic, codes) leave few of a clique's states possible. Messages
to the parent keep the rows that are possible, as tries; the table of a clique is never stored, but walked
through twice, once up and once down, where derivatives of Z become probabilities:

    up    m_c(s) = sum_y prod_f f(s, y) prod_i m_i(s, y)          i the children of c
    down  P(s, y) = prod_f f(s, y) prod_i m_i(s, y) * P(s) / m_c(s)

How much there is to store is not known before. An upper bound is: the states of each separator that no single
factor rules out. Where it fits, nothing can go wrong; where it does not, factors together may still leave
little, and messages grow row by row until they are whole or the budget is spent. Random ways down a walk
guess its size, so that what is hopeless ends early.

Symbols:
    d variables, c cliques, n rows, s states of a clique's separator, y of its other variables, m message.

Source:
    Larkin and Dechter (2003), Bayesian inference in the presence of determinism, AISTATS;
    Darwiche (2003), A differential approach to inference in Bayesian networks, JACM 50(3); guesses: Knuth
    (1975), Estimating the efficiency of backtrack programs, Mathematics of Computation 29(129).
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from leadline.core.errors import DataError, ResourceError
from leadline.inference.budget import OTHERWISE, Budget, told_need, told_size
from leadline.inference.elimination import eliminate
from leadline.inference.factors import Factor, FactorGraph, Floats, Ints
from leadline.inference.junction_tree import Calibrated
from leadline.inference.orders import Cliques, Order, find_cliques
from leadline.inference.sparse_layout import Layout, slots_of
from leadline.inference.sparse_loops import DONE, FULL, Climb, begun, climb, descend, pick, probe

__all__ = ["SparseTree"]

_FEW = 1e4  # states of a scope that are not worth counting
_COUNTED = 1e6  # bytes of tables that counting may take
_NUMBERED = 2**31 - 1  # slots and rows of one message that a slot can number
_SLOT, _VALUE = 4, 16  # bytes of a slot; of a value with its mass
_SOME = 4096  # slots, or values, that are made room for at least
_PAUSE = 1 << 26  # nodes of a walk between two looks at the clock and at Ctrl-C
_GROUPS, _PROBES = 5, 20
_TOO_MUCH = 10.0  # a guess that exceeds what is left so many times is believed


class SparseTree:
    """A junction tree over the possible states of a factor graph.

    Args:
        graph: The factors, evidence and impossible states taken out (`pruned`).
        order: The order of elimination, or the cliques.
        budget: What messages and walks may take.

    Raises:
        ResourceError: If they would take more for certain; nothing has been allocated then. Where `certain`
            is false, every question may raise it, once the budget is spent.
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
        budget: Budget | None = None,
    ) -> None:
        self.graph, self.budget = graph, budget or Budget()
        self.cliques = find_cliques(graph, order)
        self._levels = [self.cliques.of(c)[::-1] for c in range(len(self.cliques.own))]
        self._separators = [
            levels[: len(levels) - int(own)]
            for levels, own in zip(self._levels, self.cliques.own, strict=True)
        ]
        self._most = self.budget.bytes
        self._rows = [self._possible(scope) for scope in self._separators]
        self.memory = self._bytes(self._rows)
        self.states = sum(self._possible(scope) for scope in self._levels)
        fits = self.memory <= self._most and max(self._rows, default=0) <= _NUMBERED
        self.certain = fits and self.states <= self.budget.states
        if not self.certain:
            self._check_least()
        self._offset = 0.0  # log of what the factors were divided by
        self._layout = self._laid_out()
        self._walks = self._layout.walks()
        self._slots, self._values = self._layout.pools(*self._room())
        self._made = [1] * len(self._levels)  # rows of each message
        self._scales = np.ones(len(self._levels))  # what each was divided by
        self._left = 0.0  # nodes of walks that the budget still allows

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
            at, count = int(walks.bases[walks.message[c]]), self._made[c]
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
        walks, total = self._walks, self._offset
        top, base = self._layout.slots, self._layout.values
        self._left = self.budget.states if self.certain else self.budget.unsure
        for c in range(len(self._levels)):
            walks.roots[walks.message[c]], walks.bases[walks.message[c]] = top, base
            way = self._sent(c, top, maxima=maxima)
            top, self._made[c] = int(way.counts[0]), int(way.counts[1])
            made = self._values[base : base + self._made[c]]
            largest = float(made.max(initial=0.0))
            if largest <= 0:
                raise DataError("the evidence has probability zero")
            made /= largest
            base += self._made[c]
            self._scales[c] = largest
            total += math.log(largest)
        return total

    def _sent(self, c: int, top: int, *, maxima: bool) -> Climb:
        """Write the message of a clique, whose slots start at `top`, and return what it took."""
        if self.budget.probed and not self.certain:
            self._probe(c, top)
        way = begun(self._walks, c, top)
        ended = FULL
        while ended != DONE:
            ended = climb(self._walks, c, self._slots, self._values, maxima, way, _PAUSE)
            self._left -= _PAUSE - int(way.walker.at[2])
            if ended == FULL:
                self._grow(c, way)
            elif self._left < 0:
                raise self._spent(c, "a walk through more states than allowed")
        return way

    def _grow(self, c: int, way: Climb) -> None:
        """Make room in the pools for more rows of a clique's message."""
        root, base = (int(one[self._walks.message[c]]) for one in (self._walks.roots, self._walks.bases))
        wide = sum(self.graph.sizes[v] for v in self._separators[c])
        most = self._most + self._layout.slots * _SLOT + self._layout.values * _VALUE
        for pool, unit, start, need in (
            (self._slots, _SLOT, root, int(way.counts[0]) + wide),
            (self._values, _VALUE, base, base + int(way.counts[1]) + 1),
        ):
            if need > len(pool):
                left = most - len(self._slots) * _SLOT - len(self._values) * _VALUE
                size = min(max(need, len(pool) + max(_SOME, len(pool) // 8)), len(pool) + int(left / unit))
                if size < need or need - start > _NUMBERED:
                    raise self._spent(c, f"more than the limit of {told_size(self._most)}")
                pool.resize(size, refcheck=False)

    def _probe(self, c: int, top: int) -> None:
        """Check that neither the walk through a clique nor its message seems far beyond what is left."""
        whole = math.prod(float(self.graph.sizes[v]) for v in self._levels[c])
        if whole * _VALUE <= min(self._left, self._most):
            return
        uniforms = np.random.default_rng(c).random((_GROUPS * _PROBES, len(self._levels[c])))
        found = probe(self._walks, c, self._slots, self._values, uniforms)
        nodes, rows = np.median(found.reshape(_GROUPS, _PROBES, 2).mean(1), 0)
        if nodes > self._left * _TOO_MUCH or rows * _VALUE > self._most * _TOO_MUCH:
            raise self._spent(
                c, f"by a guess {told_size(rows * _VALUE)} and a walk through {nodes:.2g} states"
            )

    def _spent(self, c: int, what: str) -> ResourceError:
        """Return the error of a budget that does not suffice, met at the message of a clique."""
        where = f"at message {c + 1} of {len(self._levels)}"
        return ResourceError(
            f"{told_need(self.cliques)}, and without impossible states {what}, {where}; {OTHERWISE}"
        )

    def _check_least(self) -> None:
        """Check that messages which no zero touches, and so are whole, fit.

        Raises:
            ResourceError: If they do not.
        """
        touched = {v for f in self.graph.factors if not f.table.all() for v in f.scope}
        whole = [touched.isdisjoint(levels) for levels in self._levels]
        for c, parent in enumerate(self.cliques.parent):
            if parent >= 0 and not whole[c]:
                whole[parent] = False
        least = self._bytes([rows if sure else 0.0 for rows, sure in zip(self._rows, whole, strict=True)])
        states = sum(self._possible(levels) for levels, sure in zip(self._levels, whole, strict=True) if sure)
        if least > self._most:
            need = told_need(self.cliques, self.memory)
            raise ResourceError(f"{need}, more than the limit of {told_size(self._most)}; {OTHERWISE}")
        if states > self.budget.unsure:
            raise ResourceError(
                f"{told_need(self.cliques)}, or a walk through {states:.2g} states; {OTHERWISE}"
            )

    def _room(self) -> tuple[int, int]:
        """Return the slots and values of messages to make room for at once."""
        if not self.certain:
            return 0, 0
        slots = sum(self._slots_of(c, rows) for c, rows in enumerate(self._rows))
        return math.ceil(slots), sum(map(math.ceil, self._rows))

    def _slots_of(self, c: int, rows: float) -> float:
        """Return the most slots of a clique's message of so many rows."""
        return slots_of([self.graph.sizes[v] for v in self._separators[c]], rows)

    def _bytes(self, rows: Sequence[float]) -> float:
        """Return the most bytes of messages of so many rows each."""
        return sum(count * _VALUE + self._slots_of(c, count) * _SLOT for c, count in enumerate(rows))

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

    def _laid_out(self) -> Layout:
        """Return what lies where."""
        sizes = self.graph.sizes
        separators = [len(scope) for scope in self._separators]
        layout = Layout(self._levels, separators, self.cliques.parent.tolist(), sizes)
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
        return layout

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
