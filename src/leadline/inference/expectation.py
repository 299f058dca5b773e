r"""Rows with missing values: their likelihood, and the expected counts that EM divides.

    p(x_seen) = sum over x_missing of p(x),    E n_f[s] = sum over rows of p(x_scope(f) = s | x_seen)

Rows that are alike are asked about once. Missing variables that share no factor are independent given what is
known, so a row falls into parts, and each is summed over state by state with all rows that miss the same; the
junction tree is asked where a part has too many states.

Symbols:
    n rows, d variables, x (n, d) states with -1 where missing, f factor.

Source:
    Lauritzen (1995), The EM algorithm for graphical association models with missing data, Computational
    Statistics and Data Analysis 19.
"""

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

from leadline.core.errors import DataError
from leadline.inference.factors import FactorGraph, Floats, Ints
from leadline.inference.junction_tree import JunctionTree

__all__ = ["expected_counts", "log_evidence"]

_MOST = 4096  # states of a part that are summed over one by one
_BLOCK = 1 << 20  # entries of an array of rows and such states


def log_evidence(tree: JunctionTree, x: Ints) -> Floats:
    """Return the log of the weight of what is known of each row, in nats: (n, d) -> (n,).

    A row that the factors rule out has -inf.
    """
    rows, back = np.unique(x, axis=0, return_inverse=True)
    found = np.zeros(len(rows))
    parts = _Parts(tree.graph, rows)
    for _, which, cells in parts.known():
        found[which] += cells.logs
    for which, touching in parts.open():
        found[which] += logsumexp(sum(cells.logs for _, cells in touching), axis=1)
    for i in parts.wide:
        try:
            found[i] = tree.log_partition(_seen(rows[i]))
        except DataError:
            found[i] = -np.inf
    return found[back.reshape(-1)]


def expected_counts(tree: JunctionTree, x: Ints) -> tuple[list[Floats], float]:
    """Return the expected number of rows in each state of each factor, and the sum of the log-weights.

    Args:
        tree: A junction tree of the factors.
        x: States (n, d), -1 where missing.

    Raises:
        DataError: If what is known of a row has probability zero; the message names its values.
    """
    counts = [np.zeros(factor.table.size) for factor in tree.graph.factors]
    rows, times = np.unique(x, axis=0, return_counts=True)
    found = np.zeros(len(rows))
    parts = _Parts(tree.graph, rows)
    for factor, which, cells in parts.known():
        np.add.at(counts[factor], cells.places, times[which].astype(float))
        found[which] += cells.logs
    for which, touching in parts.open():
        weights = sum(cells.logs for _, cells in touching)  # (rows, states of what is missing)
        whole = logsumexp(weights, axis=1)
        found[which] += whole
        if np.isneginf(whole).any():
            continue
        shares = np.exp(weights - whole[:, None]) * times[which][:, None]
        for factor, cells in touching:
            places, share = np.broadcast_arrays(cells.places, shares)
            np.add.at(counts[factor], places.ravel(), share.ravel())
    if np.isneginf(found).any():
        raise _impossible(rows[np.isneginf(found)][0])
    for i in parts.wide:
        try:
            found[i], beliefs = tree.beliefs(_seen(rows[i]))
        except DataError:
            raise _impossible(rows[i]) from None
        for count, belief in zip(counts, beliefs, strict=True):
            np.add(count, times[i] * belief.ravel(), out=count)
    shapes = [factor.table.shape for factor in tree.graph.factors]
    return [count.reshape(shape) for count, shape in zip(counts, shapes, strict=True)], float(times @ found)


class _Cells(NamedTuple):
    """Entries of a table, one a row, or one a row and state of what is missing: their places and logs."""

    places: Ints
    logs: Floats


class _Parts:
    """Rows taken apart: what is known, and missing variables that share a factor, together.

    Given what is known, each such part of a row is independent of the others, so rows that agree around a
    part are summed over at once. Rows with a part of more than `_MOST` states are left to the tree.
    """

    def __init__(self, graph: FactorGraph, rows: Ints) -> None:
        self.graph, self.rows = graph, rows
        with np.errstate(divide="ignore"):
            self.logs = [np.log(factor.table) for factor in graph.factors]
        self.at: dict[tuple[int, ...], list[Ints]] = {}
        wide: list[Ints] = []
        masks, back = np.unique(rows < 0, axis=0, return_inverse=True)
        order = np.argsort(back.reshape(-1), kind="stable")
        ends = np.cumsum(np.bincount(back.reshape(-1), minlength=len(masks)))
        for mask, which in zip(masks, np.split(order, ends[:-1]), strict=True):
            parts = _connected(graph, np.flatnonzero(mask).tolist())
            if any(math.prod(graph.sizes[v] for v in part) > _MOST for part in parts):
                wide.append(which)
                continue
            for part in parts:
                self.at.setdefault(part, []).append(which)
        self.wide = np.concatenate(wide) if wide else np.zeros(0, dtype=np.int64)

    def known(self) -> Iterator[tuple[int, Ints, _Cells]]:
        """Return each factor with the rows that know all its variables."""
        narrow = np.ones(len(self.rows), dtype=bool)
        narrow[self.wide] = False
        for number, factor in enumerate(self.graph.factors):
            which = np.flatnonzero((self.rows[:, list(factor.scope)] >= 0).all(1) & narrow)
            states = (self.rows[which, v] for v in factor.scope)
            yield number, which, self._cells(number, np.zeros_like(which), states)

    def open(self) -> Iterator[tuple[Ints, list[tuple[int, _Cells]]]]:
        """Return rows that miss the same variables of one part, with all factors of these."""
        for part, found in self.at.items():
            states = np.indices([self.graph.sizes[v] for v in part]).reshape(len(part), 1, -1)
            axes = dict(zip(part, states, strict=True))
            touching = sorted({i for v in part for i in self.graph.factors_of[v]})
            every, step = np.concatenate(found), max(1, _BLOCK // states.shape[2])
            for which in (every[i : i + step] for i in range(0, len(every), step)):
                yield which, [(i, self._around(i, which, axes)) for i in touching]

    def _around(self, number: int, which: Ints, axes: dict[int, Ints]) -> _Cells:
        """Return the entries of a factor's table in some rows, at each state of what is missing."""
        scope = self.graph.factors[number].scope
        states = (axes[v] if v in axes else self.rows[which, v, None] for v in scope)
        return self._cells(number, np.zeros((len(which), 1), dtype=np.int64), states)

    def _cells(self, number: int, first: Ints, states: Iterable[Ints]) -> _Cells:
        """Return the entries of a factor's table at the states of its variables; `first` is 0 in each."""
        logs, places = self.logs[number], first
        for size, state in zip(logs.shape, states, strict=True):
            places = places * size + state
        return _Cells(places, logs.ravel()[places])


def _connected(graph: FactorGraph, missing: list[int]) -> list[tuple[int, ...]]:
    """Return the missing variables in parts that share no factor."""
    parts, left = [], set(missing)
    while left:
        part = [left.pop()]
        for v in part:
            near = left & set(graph.neighbours[v])
            left -= near
            part += sorted(near)
        parts.append(tuple(sorted(part)))
    return parts


def _seen(row: Ints) -> dict[int, int]:
    return {v: int(state) for v, state in enumerate(row) if state >= 0}


def _impossible(row: Ints) -> DataError:
    return DataError(
        f"the states {row.tolist()} (-1 is missing) have probability zero: give smoothing above 0, "
        "or take that row out"
    )
