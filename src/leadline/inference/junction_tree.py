r"""The junction tree: calibrated once, it answers every single question exactly.

Cliques of an elimination order form a forest (`orders`). Messages run from the leaves to the roots and back
(`sweeps`); then each clique holds the joint distribution of its variables given the evidence. The forest is
found without evidence and serves all of it: an observed variable keeps one state, so evidence makes tables
smaller, and new evidence costs one pass up and, for what is asked, one pass down.

Where a factor is known to be the distribution of a child given its parents, a subtree without evidence that
holds exactly the distributions of its own variables sends a constant, which is not computed.

Symbols:
    d variables, c cliques, n rows, Z weight of the evidence.

Source:
    Lauritzen and Spiegelhalter (1988), Local computations with probabilities on graphical structures,
    JRSS-B 50(2); Jensen, Lauritzen and Olesen (1990); Koller and Friedman (2009), chapter 10.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from leadline.core.errors import DataError
from leadline.inference.budget import checked_memory
from leadline.inference.factors import Factor, FactorGraph, Floats, Ints
from leadline.inference.orders import Cliques, Order, find_cliques
from leadline.inference.sweeps import (
    Content,
    Forest,
    Shape,
    entries_of,
    gathered,
    layout,
    made_room,
    pass_down,
    pass_up,
    plain_cliques,
)
from leadline.inference.tracing import trace

__all__ = ["Calibrated", "JunctionTree"]

_BYTES = 8


@dataclass(frozen=True, eq=False)
class Calibrated:
    """What the tree holds for one evidence.

    Args:
        log_partition: Log of the weight of the evidence, in nats (log Z without evidence).
        marginals: Distribution of each variable that was asked for; observed ones are certain.
    """

    log_partition: float
    marginals: dict[int, Floats]


class JunctionTree:
    """A junction tree over a factor graph.

    Args:
        graph: The factors.
        order: "min_fill", "min_weight", all variables in the order in which to eliminate them, or the cliques
            of a tree over the same scopes.
        limit: Most bytes that the tables may take; half the free memory by default.

    Raises:
        ResourceError: If the tables would take more; nothing has been allocated then.

    Example:
        >>> rain = Factor((0,), np.array([0.75, 0.25]), child=0)
        >>> wet = Factor((0, 1), np.array([[1.0, 0.0], [0.5, 0.5]]), child=1)
        >>> tree = JunctionTree(FactorGraph((2, 2), (rain, wet)))
        >>> answer = tree.calibrate({1: 0})
        >>> answer.marginals[0].round(3).tolist(), round(math.exp(answer.log_partition), 3)
        ([0.857, 0.143], 0.875)
    """

    def __init__(
        self,
        graph: FactorGraph,
        order: Order | Sequence[int] | Cliques = "min_fill",
        limit: float | None = None,
    ) -> None:
        self.graph = graph
        self.cliques = find_cliques(graph, order)
        checked_memory(self.cliques, limit)
        tree = self.cliques
        self._forest = Forest(tree.starts, tree.members, tree.own, tree.parent, tree.home)
        self._sizes = np.array(graph.sizes, dtype=np.int64)
        self._offset = 0.0  # log of what the tables were divided by
        self._content = self._packed()
        largest = max([1, *(factor.table.size for factor in graph.factors)])
        self._room = made_room(0, 0, len(tree.own), largest)

    @property
    def width(self) -> int:
        """Return the number of variables of the largest clique, less one: no less than the treewidth."""
        return self.cliques.width

    @property
    def memory(self) -> float:
        """Return the bytes that the tables take without evidence."""
        return self.cliques.states * _BYTES

    def calibrate(
        self, evidence: Mapping[int, int] | None = None, wanted: Iterable[int] | None = None
    ) -> Calibrated:
        """Return the weight of the evidence and the distributions given it.

        Args:
            evidence: Observed states by variable.
            wanted: The variables asked for, all by default; fewer cost less.

        Raises:
            DataError: If the evidence has probability zero.
        """
        observed, sizes, shape = self._observe(evidence or {})
        log_partition = self._up(observed, sizes, shape, self._content, maxima=False) + self._offset
        asked = range(len(sizes)) if wanted is None else list(wanted)
        offsets = np.zeros(len(sizes) + 1, dtype=np.int64)
        np.cumsum(sizes, out=offsets[1:])
        flat = np.empty(int(offsets[-1]))
        chosen = self._ancestry(asked) if wanted is not None else np.ones(len(shape.rows), dtype=np.int64)
        pass_down(self._forest, shape, sizes, chosen, self._room, flat, offsets)
        marginals = {}
        for v in asked:
            if observed[v] >= 0:
                marginals[v] = np.zeros(self.graph.sizes[v])
                marginals[v][observed[v]] = 1.0
            else:
                marginals[v] = flat[offsets[v] : offsets[v + 1]]
        return Calibrated(log_partition, marginals)

    def log_partition(self, evidence: Mapping[int, int] | None = None) -> float:
        """Return the log of the weight of the evidence, in nats.

        Raises:
            DataError: If the evidence has probability zero.
        """
        return self._up(*self._observe(evidence or {}), self._content, maxima=False) + self._offset

    def beliefs(self, evidence: Mapping[int, int] | None = None) -> tuple[float, list[Floats]]:
        """Return log Z and the distribution of each factor's scope given the evidence, shaped as its table.

        These are the expected counts of EM and the gradient of log Z in the logs of the tables.

        Raises:
            DataError: If the evidence has probability zero.
        """
        log_partition, flat = self.entries(evidence)
        at = self._content.value_at
        return log_partition, [
            flat[at[f] : at[f + 1]].reshape(factor.table.shape) for f, factor in enumerate(self.graph.factors)
        ]

    def entries(
        self, evidence: Mapping[int, int] | None = None, logs: Floats | None = None
    ) -> tuple[float, Floats]:
        """Return log Z and the probability of each entry of each table, one after another.

        Args:
            evidence: Observed states by variable.
            logs: Logs of other tables of the same scopes, one after another, for this answer alone.

        Raises:
            DataError: If the evidence has probability zero.
        """
        content, offset = (self._content, self._offset) if logs is None else self._reweighted(logs)
        observed, sizes, shape = self._observe(evidence or {})
        log_partition = self._up(observed, sizes, shape, content, maxima=False) + offset
        every, flat = np.ones(len(shape.rows), dtype=np.int64), np.zeros(len(content.values))
        marginal_at = np.concatenate([[0], np.cumsum(sizes)])
        pass_down(self._forest, shape, sizes, every, self._room, np.empty(int(marginal_at[-1])), marginal_at)
        entries_of(self._forest, shape, sizes, observed, content, self._room, flat)
        return log_partition, flat

    def joint(self, variables: Sequence[int]) -> Floats:
        """Return the joint distribution that the last calibration without evidence gave to some variables.

        Args:
            variables: Some that share a clique, as those of one factor do; the axes come in their order.
        """
        place = self.cliques.position
        part = np.array(sorted(variables, key=lambda v: place[v]), dtype=np.int64)
        free = [v for v in part if self._sizes[v] > 1]
        c = int(self.cliques.home[(free or list(part))[0]])
        shape = layout(self._forest, self._sizes)
        kept = self._gathered(c, part, self._sizes, shape)
        return kept.transpose([list(part).index(v) for v in variables])

    def maximise(self, evidence: Mapping[int, int] | None = None) -> tuple[Ints, float]:
        """Return the state of all variables of the largest weight given the evidence, and its log weight.

        Raises:
            DataError: If the evidence has probability zero.
        """
        observed, sizes, shape = self._observe(evidence or {})
        log_weight = self._up(observed, sizes, shape, self._content, maxima=True) + self._offset
        x = np.zeros((1, len(sizes)), dtype=np.int64)
        trace(self._forest, shape, sizes, self._room.tables, np.empty((0, 0)), x)
        return np.where(observed >= 0, observed, x[0]), log_weight

    def sample(self, uniforms: Floats, evidence: Mapping[int, int] | None = None) -> Ints:
        """Return independent draws from the distribution given the evidence: (n, c) -> (n, d).

        Args:
            uniforms: Draws from U[0, 1), a column a clique.
            evidence: Observed states by variable.

        Raises:
            DataError: If the evidence has probability zero.
        """
        observed, sizes, shape = self._observe(evidence or {})
        self._up(observed, sizes, shape, self._content, maxima=False)
        x = np.zeros((len(uniforms), len(sizes)), dtype=np.int64)
        trace(self._forest, shape, sizes, self._room.tables, uniforms, x)
        return np.where(observed >= 0, observed, x)

    def _packed(self) -> Content:
        """Return the factors one after another, each held by the clique of its first eliminated variable."""
        factors, tree = self.graph.factors, self.cliques
        starts, scopes, strides, holders = [0], list[int](), list[int](), list[int]()
        for factor in factors:
            axes = sorted(range(len(factor.scope)), key=lambda axis: tree.position[factor.scope[axis]])
            steps = _strides(factor.table.shape)
            scope = [factor.scope[axis] for axis in axes]
            scopes += scope
            strides += [steps[axis] for axis in axes]
            starts.append(len(scopes))
            free = [v for v in scope if self.graph.sizes[v] > 1]  # variables of one state join nothing
            holders.append(int(tree.home[(free or scope or [0])[0]]))
        holder = np.array(holders, dtype=np.int64)
        held = np.zeros(len(tree.own) + 1, dtype=np.int64)
        np.cumsum(np.bincount(holder, minlength=len(tree.own)), out=held[1:])
        value_at = np.cumsum([0, *(factor.table.size for factor in factors)])
        known = _acyclic(self.graph)
        child = [f.child if known and f.child is not None else -1 for f in factors]
        return Content(
            np.array(starts, dtype=np.int64),
            np.array(scopes, dtype=np.int64),
            np.array(strides, dtype=np.int64),
            value_at.astype(np.int64),
            np.concatenate([np.empty(0), *(self._unit(factor).ravel() for factor in factors)]),
            np.array(child, dtype=np.int64),
            held,
            np.argsort(holder, kind="stable"),
        )

    def _unit(self, factor: Factor) -> Floats:
        """Return a table with a largest entry of one; distributions stay as they are."""
        largest = float(factor.table.max()) if factor.child is None else 1.0
        if largest in (0.0, 1.0):
            return factor.table
        self._offset += math.log(largest)
        return factor.table / largest

    def _observe(self, evidence: Mapping[int, int]) -> tuple[Ints, Ints, Shape]:
        """Return observed states (-1 where none), states left, and the layout of the tables for them."""
        self.graph.check_evidence(evidence)
        observed = np.full(len(self._sizes), -1)
        if evidence:
            observed[list(evidence)] = list(evidence.values())
        sizes = np.where(observed >= 0, 1, self._sizes)
        shape = layout(self._forest, sizes)
        cells, entries = int(shape.table_at[-1]), int(shape.message_at[-1])
        if len(self._room.tables) < cells or len(self._room.messages) < entries:
            self._room = made_room(cells, entries, len(shape.rows), len(self._room.scratch))
        return observed, sizes, shape

    def _reweighted(self, logs: Floats) -> tuple[Content, float]:
        """Return the factors with other logs, and the log of what they were divided by."""
        at = self._content.value_at
        if not len(logs):
            return self._content, 0.0
        tops = np.maximum.reduceat(logs, at[:-1])
        tops[tops == -np.inf] = 0.0
        units = np.exp(logs - tops.repeat(np.diff(at)))
        return self._content._replace(values=units, child=np.full(len(tops), -1)), float(tops.sum())

    def _up(self, observed: Ints, sizes: Ints, shape: Shape, content: Content, *, maxima: bool) -> float:
        """Pass messages to the roots and return the log of the total, or largest, weight of the tables."""
        if maxima:
            plain = np.zeros(len(shape.rows), dtype=np.int64)
        else:
            plain = plain_cliques(self._forest, content, observed)
        total = pass_up(self._forest, shape, sizes, observed, content, plain, self._room, maxima)
        if total == -math.inf:
            seen = bool((observed >= 0).any())
            raise DataError("the evidence has probability zero" if seen else "every state has weight zero")
        return float(total)

    def _ancestry(self, variables: Iterable[int]) -> Ints:
        """Return which cliques lie between a root and the clique of one of the variables."""
        chosen = np.zeros(len(self.cliques.own), dtype=np.int64)
        for v in variables:
            c = int(self.cliques.home[v])
            while c >= 0 and not chosen[c]:
                chosen[c] = 1
                c = int(self.cliques.parent[c])
        return chosen

    def _gathered(self, c: int, part: Ints, sizes: Ints, shape: Shape) -> Floats:
        """Return a clique's table summed onto some of its variables, in the order of elimination."""
        whole = self.cliques.members[self.cliques.starts[c] : self.cliques.starts[c + 1]]
        kept = np.empty(int(sizes[part].prod()))
        table = self._room.tables[shape.table_at[c] : shape.table_at[c + 1]]
        gathered(table, whole, part, sizes, self._room, kept)
        return kept.reshape(sizes[part])


def _strides(shape: Sequence[int]) -> list[int]:
    """Return the stride of each axis of a table, in entries."""
    steps = [1] * len(shape)
    for axis in range(len(shape) - 2, -1, -1):
        steps[axis] = steps[axis + 1] * shape[axis + 1]
    return steps


def _acyclic(graph: FactorGraph) -> bool:
    """Return whether each variable is the child of at most one factor and nobody is their own ancestor."""
    parents: dict[int, tuple[int, ...]] = {}
    for factor in graph.factors:
        if factor.child is not None:
            if factor.child in parents:
                return False
            parents[factor.child] = factor.scope
    below: dict[int, list[int]] = {}
    waiting: dict[int, int] = {}
    for child, scope in parents.items():
        waiting[child] = len(scope) - 1
        for v in scope:
            below.setdefault(v, []).append(child)
    ready = [v for v in below if v not in parents] + [v for v, count in waiting.items() if count == 0]
    done = 0
    while ready:
        v = ready.pop()
        done += v in parents
        for child in below.get(v, ()):
            if child != v:
                waiting[child] -= 1
                if waiting[child] == 0:
                    ready.append(child)
    return done == len(parents)
