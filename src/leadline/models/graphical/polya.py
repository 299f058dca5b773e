r"""Weighted Polya (Dirichlet-multinomial) distributions over bags: a word that occurred will occur again.

    log p_k(tokens) = log G(A_k) - log G(A_k + N) + sum_w [log G(a_kw + x_w) - log G(a_kw)]

A multinomial draws every token alike; here a document draws its own table from a Dirichlet first, so that
words come in bursts. As a_k grows it becomes the multinomial of the shares a_k / A_k. Words that a bag does
not hold take no part: a step costs z K terms.

Symbols:
    n documents, V words, K components, N tokens of a document, x (n, V) counts, z counts that are not zero,
    a (K, V) strengths, A (K,) their sums, r (n, K) responsibilities.

Source:
    Madsen, Kauchak and Elkan (2005), Modeling word burstiness using the Dirichlet distribution, ICML;
    the step: Minka (2000, revised 2012), Estimating a Dirichlet distribution, section 3, equation 55.

Departs from the source:
    One step of the fixed point an EM step, which raises the bound though it does not reach its top.
    No strength falls below `least`: the step maximises a sum of terms of one strength each, so that the
    step cut off there is the best one above it, and the likelihood still never falls.
"""

import math

import torch
from torch import Tensor, nn

from leadline.inference.dirichlet import dirichlet

__all__ = ["Polya"]

_EMPTY, _TINY = 1e-3, 1e-300


class Polya(nn.Module):
    """`components` weighted Polya distributions over bags of `words`, held in buffers.

    Args:
        components: Number K of components.
        words: Number V of words.
        floor: Least strength, in units of that of a uniform table whose strengths sum to a mean document's
            tokens, in (0, 1).

    Raises:
        ValueError: If `floor` is out of range.
    """

    log_weights: Tensor
    strength: Tensor
    least: Tensor

    def __init__(self, components: int, words: int, floor: float) -> None:
        super().__init__()
        if not 0 < floor < 1:
            raise ValueError(f"floor must be in (0, 1), got {floor}")
        self.floor = floor
        self.register_buffer("log_weights", torch.full((components,), -math.log(components)))
        self.register_buffer("strength", 1 + torch.rand(components, words))
        self.register_buffer("least", torch.tensor(floor))

    @property
    def width(self) -> int:
        """Return the number V of words."""
        return self.strength.shape[1]

    @property
    def log_p(self) -> Tensor:
        """Return the log of the mean probability of each word in each component, (K, V)."""
        return (self.strength / self.strength.sum(1, keepdim=True)).log()

    @property
    def free_parameters(self) -> int:
        """Return the number of free parameters: weights and strengths."""
        return len(self.log_weights) - 1 + self.strength.numel()

    def scores(self, t: Tensor) -> Tensor:
        """Return log w_k p_k(tokens) of each bag, in nats: (n, V) -> (n, K), in the type of t."""
        rows, words, x = _held(t)
        N, told = _tokens(t), []
        for a in self.strength.to(t.dtype):
            own = a[words]
            terms = torch.lgamma(own + x) - torch.lgamma(own)
            A = a.sum()
            told.append(
                x.new_zeros(t.shape[0]).index_add_(0, rows, terms) + torch.lgamma(A) - torch.lgamma(A + N)
            )
        return torch.stack(told, 1) + self.log_weights.to(t.dtype)

    def moments(self, t: Tensor, share: Tensor) -> Tensor:
        """Return what the step needs: (n, V), (n, K) -> (K, V + 2).

        That is the sum of r for each component, the sum of r [psi(a + x) - psi(a)] of each word, and last
        that of r [psi(A + N) - psi(A)].
        """
        rows, words, x = _held(t)
        N, told = _tokens(t), []
        for a, r in zip(self.strength.to(t.dtype), share.T, strict=True):
            own, A = a[words], a.sum()
            terms = r[rows] * (torch.digamma(own + x) - torch.digamma(own))
            above = x.new_zeros(t.shape[1]).index_add_(0, words, terms)
            below = (r * (torch.digamma(A + N) - torch.digamma(A))).sum()
            told.append(torch.cat([r.sum()[None], above, below[None]]))
        return torch.stack(told)

    def maximise(self, moments: Tensor) -> Tensor:
        """Take one step up on these moments; return which components are empty (K,)."""
        counts, above, below = moments[:, 0], moments[:, 1:-1], moments[:, -1:]
        empty = counts < _EMPTY
        moved = self.strength.to(above) * above / below.clamp(min=_TINY)
        kept = empty | (below[:, 0] <= 0)
        moved = torch.where(kept[:, None], self.strength.to(above), moved)
        self.log_weights.copy_((counts / counts.sum()).clamp(min=_TINY).log())
        self.strength.copy_(torch.maximum(moved, self.least.to(moved)))
        return empty

    def place(self, rows: Tensor, every: Tensor) -> None:
        """Stand half way between single bags (K, V) and the sum of all bags (V,)."""
        tokens = float(rows.sum(1).mean().clamp(min=1))
        self.least.fill_(self.floor * tokens / self.width)
        self.strength.copy_(self._near(rows, every[None], tokens))
        self.log_weights.fill_(-math.log(len(rows)))

    def revive(self, empty: Tensor, rows: Tensor, moments: Tensor) -> None:
        """Put empty components on `rows`, with an even share of weight."""
        every = self.strength.double().mean(0, keepdim=True)
        near = self._near(rows.double(), every, float(self.strength.sum(1).mean()))
        self.strength[empty] = near.to(self.strength)
        self.log_weights[empty] = -math.log(len(empty))
        self.log_weights.copy_(torch.log_softmax(self.log_weights, 0))

    def tables(self, which: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return a table of words drawn for the component of each row: (n,) -> (n, V)."""
        return dirichlet(self.strength[which], generator)

    def _near(self, rows: Tensor, every: Tensor, total: float) -> Tensor:
        """Return strengths that sum to about `total`, of shares between those of bags and of all."""
        shares = [part / part.sum(1, keepdim=True).clamp(min=_TINY) for part in (rows, every)]
        return (total / 2 * (shares[0] + shares[1])).clamp(min=float(self.least))


def _held(t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return rows, words and values of the counts that are not zero, each (z,)."""
    if t.is_sparse:
        t = t.coalesce()
        return t.indices()[0], t.indices()[1], t.values()
    rows, words = t.nonzero(as_tuple=True)
    return rows, words, t[rows, words]


def _tokens(t: Tensor) -> Tensor:
    """Return the number of tokens of each bag, (n,)."""
    return torch.sparse.sum(t, 1).to_dense() if t.is_sparse else t.sum(1)
