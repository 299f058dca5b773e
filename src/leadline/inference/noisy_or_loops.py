r"""The compiled loop of mean field under noisy-OR findings: a sample a thread, its positive findings alone.

A term of the series is kept as a product. Taking a cause out divides by its factor 1 - mu_k lit, putting it
back multiplies: no exponential is taken after the tables are made.

Symbols:
    n samples, P positive findings of all samples, d findings, K causes, J nodes m of the series,
    lit = 1 - exp(-m w) (d, K, J), mu (n, K) means.
"""

import numba
import numpy as np
from numpy.typing import NDArray

from leadline.inference.compiled import kept

__all__ = ["ascend", "moments"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@kept(parallel=True, error_model="numpy", fastmath={"reassoc", "contract"})
def ascend(  # noqa: PLR0913
    starts: Ints,
    columns: Ints,
    lit: Floats,
    base: Floats,
    log_odds: Floats,
    mean: Floats,
    bound: Floats,
    terms: Floats,
    limits: tuple[int, float, float],
) -> None:
    """Raise the bound of each sample, one cause after the other, until a step gains nothing.

    Args:
        starts: Where the positive findings of each sample begin, (n + 1,).
        columns: Which findings they are (P,).
        lit: Table of 1 - exp(-m w) (d, K, J).
        base: Weight of each term without any cause (d, J).
        log_odds: Log odds of each cause by the prior and the negative findings (n, K).
        mean: Means to begin with, and after the call those found (n, K).
        bound: Receives E log p of the positive findings plus the entropy and E log_odds (n,).
        terms: Receives each term of the series (P, J).
        limits: Most steps, the relative gain that ends them, the least distance of a mean from 0 and 1.
    """
    steps, close, edge = limits
    causes, nodes = lit.shape[1:]
    for i in numba.prange(len(starts) - 1):
        first, end = starts[i], starts[i + 1]
        term = terms[first:end].reshape(-1)  # (P_i, J) in one line, as the table of its findings (K, P_i J)
        near = np.empty((causes, len(term)))
        for p in range(first, end):
            at = (p - first) * nodes
            term[at : at + nodes] = base[columns[p]]
            for k in range(causes):
                near[k, at : at + nodes] = lit[columns[p], k]
        for k in range(causes):
            _times(term, near[k], mean[i, k])
        last = -np.inf
        for _ in range(steps):
            for k in range(causes):
                rise = _without(term, near[k], mean[i, k])
                new = 1 / (1 + np.exp(-log_odds[i, k] - rise))
                mean[i, k] = min(max(new, edge), 1 - edge)
                _times(term, near[k], mean[i, k])
            value = -term.sum()
            for k in range(causes):
                mu = mean[i, k]
                value += mu * (log_odds[i, k] - np.log(mu)) - (1 - mu) * np.log1p(-mu)
            bound[i] = value
            if value - last < close * (1 + abs(value)):
                break
            last = value


@kept(error_model="numpy", fastmath={"reassoc", "contract"})
def _times(term: Floats, lit: Floats, mean: float) -> None:
    """Put the factor of a cause into the terms."""
    for j in range(len(term)):
        term[j] *= 1 - mean * lit[j]


@kept(error_model="numpy", fastmath={"reassoc", "contract"})
def _without(term: Floats, lit: Floats, mean: float) -> float:
    """Take the factor of a cause out of the terms, and return what they lose when the cause is on."""
    loss = 0.0
    for j in range(len(term)):
        term[j] /= 1 - mean * lit[j]
        loss += term[j] * lit[j]
    return loss


@kept(parallel=True, error_model="numpy", fastmath={"reassoc", "contract"})
def moments(
    starts: Ints, columns: Ints, lit: Floats, m: Floats, mean: Floats, terms: Floats, shown: Floats
) -> None:
    """Write E[z_k / p] for each cause and E[1 / p] last, p that of the finding, (P, K + 1).

    By 1 / p = 1 + sum_{m >= 1} exp(-m a); arguments as of `ascend`, and the nodes `m` (J,).
    """
    causes, nodes = lit.shape[1:]
    for i in numba.prange(len(starts) - 1):
        for p in range(starts[i], starts[i + 1]):
            total = 1.0
            for j in range(nodes):
                terms[p, j] *= m[j]
                total += terms[p, j]
            shown[p, causes] = total
            for k in range(causes):
                own, mu, total = lit[columns[p], k], mean[i, k], 1.0
                for j in range(nodes):
                    total += terms[p, j] / (1 - mu * own[j]) * (1 - own[j])
                shown[p, k] = mu * total
