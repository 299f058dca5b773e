r"""Where everything of a sparse tree lies: tries of its factors, what its messages start with, and the walks.

A trie over variables 1..m has, for each beginning of a possible state of i < m variables, one slot for each
state of variable i + 1. The slot holds how far on the slots of the longer beginning start, the number of the
value where the state is whole, or -1. All slots lie in one pool and all values in another, those of factors
first; messages are added behind as they come.

Source:
    See `sparse_loops`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from leadline.inference.factors import Factor, Floats, Ints
from leadline.inference.sparse_loops import Slots, Walks

__all__ = ["Layout", "slots_of"]


@dataclass(frozen=True)
class _Table:
    """A trie that a clique follows: its variables in the order of the walk, and where it lies.

    Where a message lies is known when it is made.
    """

    scope: tuple[int, ...]
    root: int = 0
    base: int = 0


@dataclass
class Layout:
    """What lies where.

    Args:
        levels: The variables of each clique in the order in which they are walked, the separator's first.
        separators: How many are the separator's.
        parent: Parent of each clique, or -1.
        sizes: States of each variable.
    """

    levels: list[tuple[int, ...]]
    separators: list[int]
    parent: Sequence[int]
    sizes: Sequence[int]
    _slots: list[Slots] = field(default_factory=list)
    _values: list[Floats] = field(default_factory=list)
    slots: int = 0  # of all factors together
    values: int = 0

    def __post_init__(self) -> None:
        self._factors: list[list[_Table]] = [[] for _ in self.levels]

    def add_factor(self, clique: int, factor: Factor) -> None:
        """Let a clique follow a factor whose variables come in the order in which they are walked."""
        slots, values = _trie(factor.table)
        self._factors[clique].append(_Table(factor.scope, self.slots, self.values))
        self._slots.append(slots)
        self._values.append(values)
        self.slots += len(slots)
        self.values += len(values)

    def pools(self, slots: int, values: int) -> tuple[Slots, Floats]:
        """Return pools with the factors' tries in place, and room for so many slots and values of messages.

        A system hands out memory when it is written to: room that is never used costs an address alone.
        """
        all_slots = np.empty(self.slots + slots, dtype=np.int32)
        all_values = np.empty(self.values + values)
        np.concatenate([np.empty(0, np.int32), *self._slots], out=all_slots[: self.slots])
        np.concatenate([np.empty(0), *self._values], out=all_values[: self.values])
        return all_slots, all_values

    def walks(self) -> Walks:
        """Return what the walks follow."""
        children: list[list[int]] = [[] for _ in self.levels]
        for c, parent in enumerate(self.parent):
            if self.separators[c]:
                children[parent].append(c)
        followed, table_at, inward_at = list[_Table](), [0], list[int]()
        message = np.zeros(len(self.levels), dtype=np.int64)
        steps: list[tuple[int, int, bool]] = []
        step_at = [0]
        for levels, factors, sent in zip(self.levels, self._factors, children, strict=True):
            inward_at.append(len(followed) + len(factors))
            message[sent] = inward_at[-1] + np.arange(len(sent))
            tables = [*factors, *(_Table(self.levels[c][: self.separators[c]]) for c in sent)]
            followed += tables
            table_at.append(len(followed))
            for v in levels:
                steps += _followed(v, tables)
                step_at.append(len(steps))
        for c, size in enumerate(self.separators):
            if not size:  # a root's message, which nobody follows
                message[c] = len(followed)
                followed.append(_Table(()))
        variables = _whole([v for levels in self.levels for v in levels])
        table, depth, ends = (_whole([step[i] for step in steps]) for i in range(3))
        return Walks(
            _whole(np.cumsum([0, *map(len, self.levels)])),
            variables,
            _whole(self.sizes)[variables],
            _whole(self.separators),
            _whole(step_at),
            table,
            depth,
            ends,
            _whole(table_at),
            _whole(inward_at),
            _whole([len(table.scope) for table in followed]),
            _whole([table.root for table in followed]),
            _whole([table.base for table in followed]),
            message,
            max([0, *(len(table.scope) for table in followed)]),
        )


def slots_of(sizes: Sequence[int], rows: float) -> float:
    """Return how many slots a trie of at most `rows` rows has at most."""
    nodes, count = 1.0, 0.0
    for size in sizes:
        count += min(nodes, rows) * size
        nodes *= size
    return count


def _followed(v: int, tables: Sequence[_Table]) -> list[tuple[int, int, bool]]:
    """Return which tables are followed at a variable, how many of theirs come before, and whether it ends."""
    return [
        (number, table.scope.index(v), table.scope[-1] == v)
        for number, table in enumerate(tables)
        if v in table.scope
    ]


def _trie(array: Floats) -> tuple[Slots, Floats]:
    """Return the slots of an array's positive entries, those of each depth together, and these in order."""
    positive = array > 0
    nodes = np.zeros(1, dtype=np.int64)
    parts, start = [np.empty(0, dtype=np.int64)], 0
    for depth, size in enumerate(array.shape):
        goes_on = positive.any(axis=tuple(range(depth + 1, array.ndim))).ravel()
        numbers = np.where(goes_on, np.cumsum(goes_on) - 1, -1).reshape(-1, size)[nodes]  # (nodes, states)
        if depth + 1 < array.ndim:
            here = start + size * np.arange(len(nodes))[:, None]
            start += size * len(nodes)
            numbers = np.where(numbers < 0, -1, start + array.shape[depth + 1] * numbers - here)
        parts.append(numbers.ravel())
        nodes = np.flatnonzero(goes_on)
    return np.concatenate(parts).astype(np.int32), array.ravel()[nodes]


def _whole(numbers: Sequence[int] | Sequence[bool] | Ints) -> Ints:
    return np.array(numbers, dtype=np.int64)
