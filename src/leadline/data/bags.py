"""Bags of words held sparsely: a row of counts is written out when it is asked for.

Symbols:
    n documents, z counts that are not zero, k documents asked for.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from leadline.core import DataError
from leadline.data.dataset import Stream
from leadline.data.meaning import Array

__all__ = ["Bags", "counts_of"]


@dataclass(frozen=True, eq=False)
class Bags(Stream):
    """Counts of words in documents, in compressed rows.

    Args:
        starts: Where each document begins among the counts (n + 1,) int64.
        words: Word numbers (z,) int64, increasing within a document.
        counts: How often each occurs (z,) int64, positive.
        size: Number of words of the vocabulary.
    """

    starts: Array
    words: Array
    counts: Array
    size: int

    @classmethod
    def of(cls, matrix: csr_matrix) -> "Bags":
        """Return the bags of a matrix of whole numbers (documents, words); equal places are added."""
        rows = csr_matrix(matrix, dtype=np.int64, copy=True)
        rows.sum_duplicates()
        rows.eliminate_zeros()
        return cls(
            rows.indptr.astype(np.int64),
            rows.indices.astype(np.int64),
            rows.data,
            int(rows.shape[1]),
        )

    @property
    def matrix(self) -> csr_matrix:
        """Return the counts as a scipy matrix (n, words)."""
        return csr_matrix((self.counts, self.words, self.starts), shape=(len(self), self.size))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: Tensor) -> Tensor:
        return torch.from_numpy(self.select(index).matrix.toarray())

    def select(self, index: Tensor) -> "Bags":
        """Return the bags at `index` (k,)."""
        return Bags.of(self.matrix[index.cpu().numpy()])

    def sparse(self) -> Tensor:
        """Return all counts as one sparse tensor (n, words) int64, coalesced."""
        rows = np.repeat(np.arange(len(self)), np.diff(self.starts))
        places = torch.from_numpy(np.stack([rows, self.words]))
        values = torch.from_numpy(np.require(self.counts, requirements="W"))  # a memory map is copied
        return torch.sparse_coo_tensor(
            places, values, (len(self), self.size), is_coalesced=True, check_invariants=False
        )

    def only(self, columns: Array) -> "Bags":
        """Return the bags of some words alone, in the order of `columns`."""
        return Bags.of(self.matrix[:, columns])

    def digest(self) -> bytes:
        """Return a hash of all counts."""
        total = hashlib.sha256(f"{self.size}".encode())
        for part in (self.starts, self.words, self.counts):
            total.update(np.ascontiguousarray(part).data)
        return total.digest()

    @property
    def bytes(self) -> int:
        """Return how many bytes the counts take."""
        return int(self.starts.nbytes + self.words.nbytes + self.counts.nbytes)


def counts_of(values: Array, place: Callable[[int], str]) -> Array:
    """Return values (z,) as whole numbers; `place` says where value i stands.

    Raises:
        DataError: If one is negative or not whole; it is named.
    """
    if values.dtype.kind not in "biuf":
        raise DataError(f"{place(0)}: values of type {values.dtype} are no counts")
    with np.errstate(invalid="ignore"):
        bad = ~((values >= 0) & (values == np.floor(values)) & (values < 1 << 53))
    if bad.any():
        first = int(bad.argmax())
        raise DataError(
            f"{place(first)}: {values[first]} is no count of words; counts are whole numbers from 0"
        )
    return values.astype(np.int64)
