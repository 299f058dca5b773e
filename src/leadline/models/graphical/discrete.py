r"""Weighted tables of probabilities: bits, categories and words as one exponential family.

    log w_k p_k(x) = log w_k + sum_f t_f(x) log p_kf

where t holds one-hot columns, one group a dimension (Bernoulli, categorical), or counts of words, all one
group (multinomial). So one EM step is two products with t, which may be sparse.

Symbols:
    n samples, f columns of t, K components, w (K,) weights, p (K, f) probabilities, e (f,) their floor.

Source:
    Bishop (2006), Pattern Recognition and Machine Learning, section 9.3.3.

Departs from the source:
    No probability falls below `floor` times that of a uniform table. Among such tables this is the exact
    M-step (columns below are held at the floor, the others share the rest): the likelihood still never falls.
"""

import math

import torch
from torch import Tensor, nn

from leadline.core.randomness import categorical

__all__ = ["Discrete", "one_hot"]

_EMPTY = 1e-3
_TINY = 1e-300


class Discrete(nn.Module):
    """`components` weighted tables over groups of columns, held in buffers.

    Args:
        components: Number K of components.
        owners: The group of each column (f,), from 0, increasing.
        floor: Least probability, in units of that of a uniform table, in (0, 1).

    Raises:
        ValueError: If `floor` is out of range.
    """

    log_weights: Tensor
    log_p: Tensor
    owners: Tensor
    least: Tensor

    def __init__(self, components: int, owners: Tensor, floor: float) -> None:
        super().__init__()
        if not 0 < floor < 1:
            raise ValueError(f"floor must be in (0, 1), got {floor}")
        self.groups = int(owners.max()) + 1
        sizes = torch.bincount(owners, minlength=self.groups)
        self.register_buffer("owners", owners, persistent=False)
        self.register_buffer("least", (floor / sizes[owners]).double(), persistent=False)
        self.register_buffer("log_weights", torch.full((components,), -math.log(components)))
        start = torch.rand(components, len(owners)).double() + 0.5
        self.register_buffer("log_p", self._floored(start).log().float())

    @property
    def width(self) -> int:
        """Return the number f of columns."""
        return len(self.owners)

    def scores(self, t: Tensor) -> Tensor:
        """Return log w_k p_k of each row, in nats: (n, f) -> (n, K), in the type of t."""
        return t @ self.log_p.to(t.dtype).T + self.log_weights.to(t.dtype)

    def moments(self, t: Tensor, share: Tensor) -> Tensor:
        """Return counts and expected columns under responsibilities: (n, f), (n, K) -> (K, 1 + f)."""
        return torch.cat([share.sum(0)[:, None], (t.T @ share).T], 1)

    def maximise(self, moments: Tensor) -> Tensor:
        """Become the most likely mixture of these moments; return which components are empty (K,)."""
        counts = moments[:, 0]
        empty = counts < _EMPTY
        table = self._floored(moments[:, 1:].double()).log().to(self.log_p)
        self.log_weights.copy_((counts / counts.sum()).clamp(min=_TINY).log())
        self.log_p.copy_(torch.where(empty[:, None], self.log_p, table))
        return empty

    def place(self, rows: Tensor, every: Tensor) -> None:
        """Become tables half way between those of single rows (K, f) and that of all rows (f,)."""
        self.log_p.copy_(self._floored(self._shares(rows) + self._shares(every[None])).log())
        self.log_weights.fill_(-math.log(len(rows)))

    def revive(self, empty: Tensor, rows: Tensor, moments: Tensor) -> None:
        """Put empty components on `rows`, with an even share of weight."""
        near = self._shares(rows) + self._shares(moments[:, 1:].sum(0)[None])
        self.log_p[empty] = self._floored(near).log().to(self.log_p)
        self.log_weights[empty] = -math.log(len(empty))
        self.log_weights.copy_(torch.log_softmax(self.log_weights, 0))

    def tables(self, which: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return the table of the component of each row: (n,) -> (n, f)."""
        return self.log_p[which].exp()

    def draw(self, which: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return a value of each group for the component of each row: (n,) -> (n, groups)."""
        values = []
        for start, size in self._spans():
            values.append(categorical(self.log_p[which][:, start : start + size], generator))
        return torch.stack(values, 1)

    @property
    def free_parameters(self) -> int:
        """Return the number of free parameters: weights and tables."""
        k, f = self.log_p.shape
        return k - 1 + k * (f - self.groups)

    def _spans(self) -> list[tuple[int, int]]:
        """Return where each group begins, and its number of columns."""
        sizes = torch.bincount(self.owners, minlength=self.groups)
        starts = sizes.cumsum(0) - sizes
        return list(zip(starts.tolist(), sizes.tolist(), strict=True))

    def _total(self, values: Tensor) -> Tensor:
        """Return the sum over the group of each column: (K, f) -> (K, f)."""
        sums = values.new_zeros(len(values), self.groups).index_add_(1, self.owners, values)
        return sums[:, self.owners]

    def _shares(self, sums: Tensor) -> Tensor:
        """Return sums as shares of their groups, even where a group has none."""
        held = sums.double() + _TINY
        return held / self._total(held)

    def _floored(self, sums: Tensor) -> Tensor:
        """Return the most likely tables of expected columns (K, f) of which none is below the floor."""
        held = sums.clamp(min=0) + _TINY
        low = torch.zeros_like(held, dtype=torch.bool)
        while True:
            room = 1 - self._total(torch.where(low, self.least, 0.0))
            free = self._total(torch.where(low, 0.0, held)).clamp(min=_TINY)
            p = torch.where(low, self.least, held * room / free)
            more = ~low & (p < self.least * (1 - 1e-12))
            if not bool(more.any()):
                return p
            low |= more


def one_hot(x: Tensor, sizes: Tensor, like: Tensor) -> Tensor:
    """Return one-hot columns side by side: (n, d) whole numbers -> (n, sum of sizes)."""
    starts = sizes.cumsum(0) - sizes
    out = torch.zeros(len(x), int(sizes.sum()), dtype=like.dtype, device=like.device)
    return out.scatter_(1, x.long() + starts, 1.0)
