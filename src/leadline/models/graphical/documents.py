"""Counts of words as the loops over documents read them, from dense or sparse tensors."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from leadline.core import DataError
from leadline.core.memory import available
from leadline.core.randomness import uniform_of_rows
from leadline.data.memory import spoken
from leadline.models.graphical.lengths import checked_counts

__all__ = ["Documents", "documents_of", "seeds_of"]

_BYTES_OF_TOKEN = 12  # its word, its topic, and a copy of that while it is written


@dataclass(frozen=True)
class Documents:
    """Documents in compressed rows.

    Args:
        starts: Where each document begins (n + 1,) int64.
        words: Word numbers (z,) int64.
        counts: How often each occurs (z,) int64.
        tokens: Number of tokens of each document (n,) int64.
    """

    starts: NDArray[Any]
    words: NDArray[Any]
    counts: NDArray[Any]
    tokens: NDArray[Any]

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def token_starts(self) -> NDArray[Any]:
        """Return where the tokens of each document begin among all tokens, (n + 1,) int64."""
        return np.concatenate([[0], self.tokens.cumsum()])

    def words_of_tokens(self) -> NDArray[Any]:
        """Return the word of each token, document after document, (t,) int32.

        Raises:
            DataError: If they take more than half of the memory that can be had.
        """
        total = int(self.tokens.sum())
        need = _BYTES_OF_TOKEN * total
        if need > available() // 2:
            raise DataError(
                f"{total:,} tokens take {spoken(need)}, too much to hold one by one (the largest count is "
                f'{self.counts.max():,}); method="variational" reads counts alone'
            )
        return np.repeat(self.words.astype(np.int32), self.counts)


def documents_of(x: Tensor) -> Documents:
    """Return the documents in counts (n, V), dense or sparse.

    Raises:
        ShapeError: If a value is no count.
    """
    x = checked_counts(x).cpu()
    if x.is_sparse:
        rows, words = x.coalesce().indices().numpy()
        counts = x.coalesce().values().long().numpy()
    else:
        where = x.nonzero(as_tuple=True)
        rows, words, counts = where[0].numpy(), where[1].numpy(), x[where].long().numpy()
    starts = np.searchsorted(rows, np.arange(x.shape[0] + 1)).astype(np.int64)
    total = np.concatenate([[0], counts.cumsum()])
    return Documents(starts, words.astype(np.int64), counts, total[starts[1:]] - total[starts[:-1]])


def seeds_of(x: Tensor, generator: torch.Generator | None) -> NDArray[Any]:
    """Return a seed of each document, from its words and from the generator if there is one: (n,) uint64."""
    own = uniform_of_rows(x, 2)[0].double()  # (n, 2), 23 bits each
    bits = (own * (1 << 24)).long()
    seeds = (bits[:, 0] << 24) ^ bits[:, 1]
    if generator is not None:
        draw = torch.randint(1 << 62, (), generator=generator, device=generator.device)
        seeds = seeds.cpu() ^ draw.cpu()
    return seeds.cpu().numpy().astype(np.uint64)
