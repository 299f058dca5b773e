r"""A layer of hidden causes under noisy-OR findings: exact posteriors, bounds on both sides, a Gibbs sampler.

    z_k ~ Bernoulli(prior_k),    p(x_i = 0 | z) = exp(-a_i),   a_i = leak_i + sum_k w_ik z_k,   w, leak >= 0

A negative finding factorises over the causes; a positive one, log(1 - exp(-a)), does not. With few causes
all their states are summed; with few positive findings the sum runs over their subsets. Else it is bounded:

    below    E log(1 - exp(-a)) = -sum_{m >= 1} E exp(-m a) / m,     E exp(-m a) = exp(-m leak) prod_k (...)
    above    log(1 - exp(-a)) <= l a + l log l - (l + 1) log(l + 1),  l > 0 (its conjugate)

Under a factorised posterior each term of the series is a product, and multilinear in the means. The terms are
convex in m, so that the trapezoid between nodes m_j that grow geometrically is above their sum, and the
bound stays a bound.

Symbols:
    n samples, d findings, K causes, x (n, d) bits, w (d, K) weights, leak (d,), prior (K,) in (0, 1),
    mu (n, K) posterior means, P positive findings of all samples, J nodes m of the series, l (n, d) slopes.

Source:
    Heckerman (1989), A tractable inference algorithm for diagnosing multiple diseases, UAI (quickscore);
    Jaakkola and Jordan (1999), Variational probabilistic inference and the QMR-DT network, JAIR 10,
    section 3 (upper bound).

Departs from the source:
    The lower bound is the full mean-field bound by its series, not Jensen's with one share a cause, which is
    much looser where causes overlap.
"""

import math
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from leadline.core.randomness import bernoulli
from leadline.inference.noisy_or_loops import ascend, moments
from leadline.inference.words import share_threads

__all__ = [
    "Field",
    "Net",
    "field_moments",
    "gibbs_marginals",
    "joint_table",
    "mean_field",
    "quickscore",
    "series",
    "upper_bound",
]

_STEPS, _CLOSE, _EDGE = 200, 1e-8, 1e-9
_EACH, _GROWTH, _LAST = 8, 1.35, 1 << 17  # nodes: one by one, then in steps that grow, up to the last


@dataclass(frozen=True)
class Net:
    """The parameters of a layer of causes.

    Args:
        weights: Minus the log-probability that a cause alone does not show (d, K), not negative.
        leak: The same without any cause (d,), positive.
        prior: Probability of each cause (K,), in (0, 1).
    """

    weights: Tensor
    leak: Tensor
    prior: Tensor

    @property
    def causes(self) -> int:
        """Return the number K of causes."""
        return len(self.prior)

    def states(self) -> Tensor:
        """Return every state of the causes, (2^K, K)."""
        rows = list(product((0.0, 1.0), repeat=self.causes))
        return torch.tensor(rows, dtype=self.prior.dtype, device=self.prior.device)


@dataclass(frozen=True)
class Field:
    """A factorised posterior with its bound.

    Args:
        bound: Lower bound on log p(x) of each sample, in nats (n,).
        mean: Probability of each cause (n, K).
    """

    bound: Tensor
    mean: Tensor


def _log_f(a: Tensor) -> Tensor:
    """Return log(1 - exp(-a)) for a > 0."""
    return torch.log(-torch.expm1(-a))


def joint_table(x: Tensor, net: Net) -> Tensor:
    """Return log p(x, z) for every state z of the causes, in nats: (n, d) -> (n, 2^K)."""
    z = net.states()
    a = net.leak + z @ net.weights.T  # (2^K, d)
    log_prior = z @ torch.logit(net.prior) + torch.log1p(-net.prior).sum()
    return x.to(a) @ (_log_f(a) + a).T - a.sum(1) + log_prior


def quickscore(x: Tensor, net: Net) -> tuple[Tensor, Tensor]:
    """Return log p(x) and the probability of each cause for one sample: (d,) -> (), (K,).

    By inclusion and exclusion: 2^positives terms, one a subset of the positive findings, of either sign.
    """
    positive = x.bool()
    w, leak, prior = net.weights.double(), net.leak.double(), net.prior.double()
    base, count = w[~positive].sum(0), int(positive.sum())
    chosen = torch.tensor(list(product((0.0, 1.0), repeat=count)), dtype=torch.float64, device=x.device)
    chosen = chosen.view(1 << count, count)
    cost = base + chosen @ w[positive]  # (subsets, K)
    off = -(leak[~positive].sum() + chosen @ leak[positive])
    sign = 1 - 2 * (chosen.sum(1) % 2)
    on = prior * torch.exp(-cost)
    each = torch.log((1 - prior) + on)
    terms = sign * torch.exp(off + each.sum(1))
    total = terms.sum()
    # a cause that is on: its factor is replaced by its part that is on
    marginal = (terms[:, None] * (on.log() - each).exp()).sum(0) / total
    return total.log(), marginal.clamp(0, 1)


def series(leak: Tensor) -> tuple[Tensor, Tensor]:
    """Return nodes m (J,) and weights (d, J) by which sum_{m >= 1} h(m) <= sum_j weight_j h(m_j).

    For every h that is convex and falls at least as fast as exp(-m leak); equal but for the trapezoids.
    """
    nodes = list(range(1, _EACH + 1))
    while nodes[-1] < _LAST:
        nodes.append(math.ceil(nodes[-1] * _GROWTH))
    m = torch.tensor(nodes, dtype=leak.dtype, device=leak.device)
    length = m.diff(prepend=m.new_zeros(1))
    weights = (length + 1) / 2
    weights[:-1] += (length[1:] - 1) / 2
    weights = weights.expand(len(leak), -1).clone()
    weights[:, -1] += 1 / torch.expm1(leak)  # a geometric tail beyond the last node
    return m, weights


def mean_field(x: Tensor, net: Net) -> Field:
    """Return the factorised posterior of the causes and its lower bound; each step raises the bound.

    It is found on the CPU, in time proportional to the positive findings.

    Args:
        x: Findings (n, d).
        net: The layer.
    """
    return _Ascent(x, net).field


def field_moments(x: Tensor, net: Net) -> tuple[Field, Tensor]:
    """Return the factorised posterior, and sum_n x E[z_k / p], last sum_n x E[1 / p]: (n, d) -> (K + 1, d).

    Here p = p(x_i = 1 | z), and 1 / p = sum_{m >= 0} exp(-m a), each term a product.
    """
    ascent = _Ascent(x, net)
    return ascent.field, ascent.moments()


class _Ascent:
    """The posterior of samples with what the compiled loops hold: see `noisy_or_loops` for the symbols."""

    def __init__(self, x: Tensor, net: Net) -> None:
        self.like = net.prior
        on = x.cpu() > 0
        rows, columns = on.nonzero(as_tuple=True)
        self.starts = _searched(rows, len(x))
        self.columns = columns.numpy()
        w, leak, prior = (part.detach().cpu().double() for part in (net.weights, net.leak, net.prior))
        m, weights = series(leak)
        self.m, self.shape = m.numpy(), (net.causes, len(leak))
        self.lit = -torch.expm1(-w[:, :, None] * m).numpy()  # (d, K, J)
        base = (weights / m * torch.exp(-leak[:, None] * m)).numpy()
        away = (~on).double()  # negative findings are linear in the causes
        log_odds = torch.logit(prior) - away @ w
        mean, bound = prior.expand(len(x), -1).clone().numpy(), np.zeros(len(x))
        self.terms = np.empty((len(columns), len(m)))
        share_threads()
        ascend(
            self.starts, self.columns, self.lit, base, log_odds.numpy(), mean, bound, self.terms,
            (_STEPS, _CLOSE, _EDGE),
        )  # fmt: skip
        self.mean = mean
        total = torch.from_numpy(bound) + torch.log1p(-prior).sum() - away @ leak
        self.field = Field(total.to(self.like), torch.from_numpy(mean).to(self.like))

    def moments(self) -> Tensor:
        """Return the sums of the M-step (K + 1, d); the terms are used up."""
        shown = np.empty((len(self.columns), self.shape[0] + 1))
        share_threads()
        moments(self.starts, self.columns, self.lit, self.m, self.mean, self.terms, shown)
        total = torch.zeros(self.shape[1], self.shape[0] + 1, dtype=torch.float64)
        return total.index_add_(0, torch.from_numpy(self.columns), torch.from_numpy(shown)).T.to(self.like)


def upper_bound(x: Tensor, net: Net, steps: int = 200) -> Tensor:
    """Return an upper bound on log p(x) of each sample, in nats: (n, d) -> (n,).

    Every slope gives a bound; they are moved towards l = 1 / (exp(E a) - 1), half way each step, and the
    least bound that was seen is kept.
    """
    positive = x.to(net.weights)
    w, leak = net.weights, net.leak
    slopes = positive / torch.expm1(leak + w @ net.prior)
    best = torch.full((len(x),), torch.inf, dtype=w.dtype, device=w.device)
    for _ in range(steps):
        pull = slopes - (1 - positive)  # what multiplies a_i in the exponent
        log_on = torch.log(net.prior) + pull @ w
        log_off = torch.log1p(-net.prior)
        conjugate = torch.xlogy(slopes, slopes) - (slopes + 1) * torch.log1p(slopes)
        bound = (positive * conjugate).sum(1) + pull @ leak + torch.logaddexp(log_on, log_off).sum(1)
        best = torch.minimum(best, bound.clamp(max=0) if bool((bound < torch.inf).all()) else bound)
        on = torch.sigmoid(log_on - log_off)
        target = positive / torch.expm1(leak + on @ w.T)
        slopes = torch.where(
            positive > 0, (slopes.clamp(min=1e-30).log() + target.clamp(min=1e-30).log()) / 2, 0.0
        )
        slopes = torch.where(positive > 0, slopes.exp(), 0.0)
    return best


def gibbs_marginals(
    x: Tensor, net: Net, sweeps: int, burn: int, generator: torch.Generator | None = None
) -> Tensor:
    """Return the mean conditional probability of each cause along a chain for each sample: (n, d) -> (n, K).

    The mean of conditionals varies less than that of states, and is as unbiased (Rao-Blackwell).
    """
    positive = x.to(net.weights)
    z = bernoulli(net.prior.expand(len(x), -1).contiguous(), generator)
    a = net.leak + z @ net.weights.T  # (n, d)
    total = torch.zeros_like(z)
    for sweep in range(burn + sweeps):
        for k in range(net.causes):
            w = net.weights[:, k]
            off = (a - z[:, k : k + 1] * w).clamp(min=1e-12)
            on = off + w
            odds = positive * (_log_f(on) - _log_f(off)) - (1 - positive) * w
            chance = torch.sigmoid(torch.logit(net.prior[k]) + odds.sum(1))
            z[:, k] = bernoulli(chance, generator)
            a = torch.where(z[:, k : k + 1] > 0, on, off)
            if sweep >= burn:
                total[:, k] += chance
    return total / sweeps


def _searched(rows: Tensor, n: int) -> NDArray[np.int64]:
    """Return where each of n samples begins among sorted row numbers (P,) -> (n + 1,)."""
    return torch.searchsorted(rows, torch.arange(n + 1)).numpy()
