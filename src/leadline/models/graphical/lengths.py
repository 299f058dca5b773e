r"""How long documents are: negative binomial numbers of tokens, and bags of a given length.

    N ~ Poisson(g m / r), g ~ Gamma(r):    p(N) = G(N + r) / (G(r) N!) (r / (r + m))^r (m / (r + m))^N

A model of words alone says nothing of their number; with it, p(bag) = p(N) N! / prod_w x_w! prod_w p_w^{x_w}
is a distribution over bags that can be compared with any other.

Symbols:
    n documents, N tokens of a document, m mean and r shape of N (Poisson as r grows), x (n, words) counts.

Source:
    Bishop, Fienberg and Holland (1975), Discrete Multivariate Analysis, chapter 13.
"""

import torch
from torch import Tensor, nn

from leadline.core.errors import ShapeError

__all__ = ["Lengths", "bags_of", "checked_counts", "log_orders"]

_MOST_SHAPE, _LEAST_MEAN, _ROWS = 1e6, 1e-3, 256


class Lengths(nn.Module):
    """The number of tokens of a document, held in a buffer of mean and shape."""

    moments: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("moments", torch.tensor([10.0, 10.0]))

    def learn(self, tokens: Tensor) -> None:
        """Take mean and variance from numbers of tokens (n,)."""
        values = tokens.double()
        mean = max(float(values.mean()), _LEAST_MEAN)
        excess = float(values.var(unbiased=False)) - mean
        shape = min(mean**2 / excess, _MOST_SHAPE) if excess > 0 else _MOST_SHAPE
        self.moments.copy_(torch.tensor([mean, max(shape, _LEAST_MEAN)]))

    @property
    def mean(self) -> float:
        """Return the mean number of tokens."""
        return float(self.moments[0])

    def log_prob(self, tokens: Tensor) -> Tensor:
        """Return log p(N) in nats, in float64: (n,) -> (n,)."""
        m, r = self.moments.double().unbind()
        N = tokens.double()
        ways = torch.lgamma(N + r) - torch.lgamma(r) - torch.lgamma(N + 1)
        return ways - r * torch.log1p(m / r) - N * torch.log1p(r / m)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Return `n` numbers of tokens, int64."""
        m, r = self.moments.unbind()
        rate = torch._standard_gamma(r.expand(n).contiguous(), generator=generator) * m / r
        return torch.poisson(rate, generator).long()


def bags_of(p: Tensor, tokens: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Return a bag of `tokens` words (n,) for each row of probabilities: (n, words) -> (n, words) int64."""
    parts = [torch.zeros(0, p.shape[1], dtype=torch.int64, device=p.device)]
    for own, share in zip(tokens.split(_ROWS), p.split(_ROWS), strict=True):
        cumulative = share.double().cumsum(1)
        draws = torch.rand(len(own), max(int(own.max()), 1), generator=generator, device=p.device).double()
        words = torch.searchsorted(cumulative, draws * cumulative[:, -1:], right=True)
        there = (torch.arange(draws.shape[1], device=p.device) < own[:, None]).long()
        bags = torch.zeros(share.shape, dtype=torch.int64, device=p.device)
        parts.append(bags.scatter_add_(1, words.clamp(max=p.shape[1] - 1), there))
    return torch.cat(parts)


def log_orders(x: Tensor) -> Tensor:
    """Return the log of the number of orders of each bag's tokens, N! / prod x!: (n, words) -> (n,)."""
    counts = x.double()
    return torch.lgamma(counts.sum(1) + 1) - torch.lgamma(counts + 1).sum(1)


def checked_counts(x: Tensor) -> Tensor:
    """Return counts (n, words) if none is negative or broken.

    Raises:
        ShapeError: If one is; it is named.
    """
    values = x.coalesce().values() if x.is_sparse else x
    bad = ~(values >= 0) if not values.is_floating_point() else ~((values >= 0) & (values == values.floor()))
    if bool(bad.any()):
        place = bad.nonzero()[0].tolist()
        row, word = x.coalesce().indices()[:, place[0]].tolist() if x.is_sparse else place
        raise ShapeError(
            f"sample {row}, dimension {word}: {values[tuple(place)].item()} is no count of a word"
        )
    return x
