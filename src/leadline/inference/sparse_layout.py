r"""Where everything of a sparse tree lies: tries of its factors, room for its messages, and the walks.

A trie over variables 1..m has, for each of its nodes of depth i < m, one slot a state of variable i + 1,
which holds the number of the node that follows, or -1; the nodes of depth m number the values. All slots lie
in one pool and all values in another. A system hands out memory when it is written to, so that room for more
rows than a message turns out to have costs an address and nothing else.

Source:
    See `sparse_loops`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from leadline.inference.factors import Factor, Floats, Ints
from leadline.inference.sparse_loops import Slots, Walks

__all__ = ["Layout", "slots_of"]


@dataclass(frozen=True)
class _Table:
    """A trie in the pools.

    Args:
        scope: Its variables in the order in which they are walked.
        slot_at: Where the slots of each depth start.
        value_at: Where its values start.
    """

    scope: tuple[int, ...]
    slot_at: list[int]
    value_at: int

    def step(self, v: int) -> tuple[int, int, int]:
        """Return the depth of a variable, where the slots of that depth start, and the values if it ends."""
        depth = self.scope.index(v)
        return depth, self.slot_at[depth], self.value_at if depth == len(self.scope) - 1 else -1


@dataclass
class Layout:
    """The pools and what lies where.

    Args:
        levels: The variables of each clique in the order in which they are walked, the separator's first.
        separators: How many are the separator's.
        sizes: States of each variable.
    """

    levels: list[tuple[int, ...]]
    separators: list[int]
    sizes: Sequence[int]
    _slots: int = 0
    _values: int = 0
    _filled: list[tuple[_Table, list[Slots], Floats]] = field(default_factory=list)
    _messages: list[_Table] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._factors: list[list[_Table]] = [[] for _ in self.levels]
        self._inward: list[list[_Table]] = [[] for _ in self.levels]

    def add_factor(self, clique: int, factor: Factor) -> None:
        """Let a clique follow a factor whose variables come in the order in which they are walked."""
        slots, values = _trie(factor.table)
        table = self._table(factor.scope, [len(part.ravel()) for part in slots], len(values))
        self._filled.append((table, slots, values))
        self._factors[clique].append(table)

    def add_message(self, clique: int, parent: int, rows: float) -> None:
        """Make room for the next clique's message of at most `rows` rows, which its parent follows."""
        scope = self.levels[clique][: self.separators[clique]]
        table = self._table(scope, slots_of([self.sizes[v] for v in scope], rows), math.ceil(rows))
        self._messages.append(table)
        if scope:
            self._inward[parent].append(table)

    def pools(self) -> tuple[Slots, Floats]:
        """Return the pools of slots and values, the factors' tries in place."""
        slots = np.empty(self._slots, dtype=np.int32)
        values = np.empty(self._values)
        for table, parts, numbers in self._filled:
            values[table.value_at : table.value_at + len(numbers)] = numbers
            for at, part in zip(table.slot_at, parts, strict=True):
                slots[at : at + part.size] = part.ravel()
        return slots, values

    def walks(self) -> Walks:
        """Return what the walks follow."""
        steps: list[tuple[int, int, int, int]] = []
        step_at, outward = [0], list[int]()
        for levels, factors, inward, own in self._by_clique():
            for v in levels:
                steps += [
                    (number, *one.step(v)) for number, one in enumerate((*factors, *inward)) if v in one.scope
                ]
                step_at.append(len(steps))
            outward += own.slot_at + [0] * (len(levels) - len(own.slot_at))
        arrivals = [
            (len(factors) + i, len(one.scope), one.value_at)
            for _, factors, inward, _ in self._by_clique()
            for i, one in enumerate(inward)
        ]
        table, depth, slot_at, value_at = _columns(steps, 4)
        in_table, in_depth, in_value_at = _columns(arrivals, 3)
        variables = _whole([v for levels in self.levels for v in levels])
        return Walks(
            _whole(np.cumsum([0, *map(len, self.levels)])),
            variables,
            _whole(self.sizes)[variables],
            _whole(self.separators),
            _whole(step_at),
            table,
            depth,
            slot_at,
            value_at,
            _whole(outward),
            _whole([one.value_at for one in self._messages]),
            _whole(np.cumsum([0, *map(len, self._inward)])),
            in_table,
            in_depth,
            in_value_at,
            1 + int(table.max(initial=-1)),
            1 + int(depth.max(initial=-1)),
        )

    def _by_clique(self) -> list[tuple[tuple[int, ...], list[_Table], list[_Table], _Table]]:
        """Return the levels of each clique, the factors and messages it follows, and its own message."""
        return list(zip(self.levels, self._factors, self._inward, self._messages, strict=True))

    def _table(self, scope: tuple[int, ...], slots: Sequence[float], values: int) -> _Table:
        """Take room for a trie."""
        starts = []
        for count in slots:
            starts.append(self._slots)
            self._slots += math.ceil(count)
        table = _Table(scope, starts, self._values)
        self._values += values
        return table


def slots_of(sizes: Sequence[int], rows: float) -> list[float]:
    """Return how many slots each depth of a trie of at most `rows` rows has at most."""
    nodes, counts = 1.0, []
    for size in sizes:
        counts.append(min(nodes, rows) * size)
        nodes *= size
    return counts


def _trie(array: Floats) -> tuple[list[Slots], Floats]:
    """Return the slots of each depth (nodes, states) of an array's positive entries, and these in order."""
    positive = array > 0
    nodes = np.zeros(1, dtype=np.int64)
    parts = []
    for depth, size in enumerate(array.shape):
        goes_on = positive.any(axis=tuple(range(depth + 1, array.ndim))).ravel()
        numbers = np.where(goes_on, np.cumsum(goes_on) - 1, -1).reshape(-1, size)
        parts.append(numbers[nodes].astype(np.int32))
        nodes = np.flatnonzero(goes_on)
    return parts, array.ravel()[nodes]


def _columns(rows: Sequence[tuple[int, ...]], count: int) -> list[Ints]:
    """Return the columns of rows."""
    return [_whole([row[i] for row in rows]) for i in range(count)]


def _whole(numbers: Sequence[int] | Ints) -> Ints:
    return np.array(numbers, dtype=np.int64)
