r"""Counts of states in rows of categories: of all pairs at once, and of one family at a time.

Symbols:
    n rows, d variables, S sum of all numbers of states, q parent configurations, r child states.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from leadline.core.errors import DataError

__all__ = ["Table"]

_CHUNK = 4096
_DENSE = 4  # a table of counts with more cells than this many times the rows is kept to what was seen


class Table:
    """Complete rows of categories, ready to be counted.

    Args:
        x: States (n, d), each in [0, size of its variable).
        sizes: Number of states of each variable.

    Raises:
        DataError: If there is no row, or a state is out of range (a missing value is one).
    """

    def __init__(self, x: NDArray[np.integer], sizes: Sequence[int]) -> None:
        if x.ndim != 2 or x.shape[1] != len(sizes):
            raise DataError(f"rows of {len(sizes)} categories are wanted, got the shape {x.shape}")
        if len(x) == 0:
            raise DataError("there is no row to learn a graph from")
        if (x < 0).any() or (x >= np.asarray(sizes)).any():
            row, column = np.argwhere((x < 0) | (x >= np.asarray(sizes)))[0]
            raise DataError(f"row {row}, column {column}: {x[row, column]} is no state of {sizes[column]}")
        self.sizes = tuple(int(size) for size in sizes)
        self.columns = np.ascontiguousarray(x.T, dtype=np.int64)  # (d, n)

    def __len__(self) -> int:
        return self.columns.shape[1]

    def pairs(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Return the counts of all pairs of states of all pairs of variables: (S, S), and starts (d + 1,)."""
        starts = np.concatenate([[0], np.cumsum(self.sizes)])
        total = np.zeros((starts[-1], starts[-1]))
        for begin in range(0, len(self), _CHUNK):
            part = self.columns[:, begin : begin + _CHUNK] + starts[:-1, None]
            hot = np.zeros((part.shape[1], starts[-1]), dtype=np.float32)
            np.put_along_axis(hot, part.T, 1.0, axis=1)
            total += hot.T @ hot  # exact: whole numbers below 2^24
        return total, starts

    def codes(self, variables: Sequence[int]) -> tuple[NDArray[np.int64], int]:
        """Return one number a row for the joint state of `variables`, and how many numbers there can be."""
        code = np.zeros(len(self), dtype=np.int64)
        most = math.prod(self.sizes[v] for v in variables)
        if most >= 1 << 62:
            return self._compressed(variables)
        for v in variables:
            code = code * self.sizes[v] + self.columns[v]
        return (code, most) if most <= _DENSE * len(self) else _ranked(code)

    def family(self, child: int, parents: Sequence[int]) -> NDArray[np.int64]:
        """Return counts (q, r) of the child's states in each parent configuration; unseen ones may lack."""
        code, most = self.codes(parents)
        r = self.sizes[child]
        return np.bincount(code * r + self.columns[child], minlength=most * r).reshape(most, r)

    def cube(self, a: int, b: int, given: Sequence[int]) -> NDArray[np.int64]:
        """Return counts (q, states of a, states of b) in each configuration of `given`."""
        code, most = self.codes(given)
        shape = (most, self.sizes[a], self.sizes[b])
        code = (code * shape[1] + self.columns[a]) * shape[2] + self.columns[b]
        return np.bincount(code, minlength=math.prod(shape)).reshape(shape)

    def _compressed(self, variables: Sequence[int]) -> tuple[NDArray[np.int64], int]:
        """Return codes made rank by rank, for more joint states than a number can hold."""
        code, most = np.zeros(len(self), dtype=np.int64), 1
        for v in variables:
            code, most = _ranked(code * self.sizes[v] + self.columns[v])
        return code, most


def _ranked(code: NDArray[np.int64]) -> tuple[NDArray[np.int64], int]:
    """Return codes replaced by their rank among those that occur, and the number of those."""
    seen, rank = np.unique(code, return_inverse=True)
    return rank, len(seen)
