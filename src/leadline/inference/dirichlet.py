r"""Dirichlet distributions: the most likely parameter, and special functions fast enough for inner loops.

    log D(theta; a) = log G(sum a) - sum log G(a_k) + sum (a_k - 1) log theta_k

Symbols:
    n rows, K dimensions, a (K,) parameter, A their sum, theta (n, K) proportions.

Source:
    Minka (2000, revised 2012), Estimating a Dirichlet distribution, sections 1 and 2: Newton's method with
    a Hessian that is diagonal plus a constant, and the fixed-point iteration for counts.
    Special functions: Abramowitz and Stegun (1964), 6.3.5, 6.3.18 and 6.1.41.
"""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import polygamma, psi
from torch import Tensor

from leadline.inference.compiled import kept

__all__ = ["Floats", "digamma", "dirichlet", "log_gamma", "most_likely_dirichlet", "polya_step"]

Floats = NDArray[Any]
_LEAST, _MOST = 1e-6, 1e6
_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


@kept(inline="always")
def digamma(x: float) -> float:
    """Return the derivative of log gamma at x > 0, to about 1e-11."""
    y = x + 6.0
    r = 1.0 / (y * y)
    tail = r * (1 / 12 - r * (1 / 120 - r * (1 / 252 - r * (1 / 240 - r * (5 / 660 - r * 691 / 32760)))))
    shift = (
        (2 * x + 1) / (x * (x + 1)) + (2 * x + 5) / ((x + 2) * (x + 3)) + (2 * x + 9) / ((x + 4) * (x + 5))
    )
    return math.log(y) - 0.5 / y - tail - shift


@kept(inline="always")
def log_gamma(x: float) -> float:
    """Return log gamma at x > 0, to about 1e-11."""
    y = x + 6.0
    r = 1.0 / (y * y)
    tail = (1 / 12 - r * (1 / 360 - r * (1 / 1260 - r * (1 / 1680 - r / 1188)))) / y
    product = x * (x + 1) * (x + 2) * (x + 3) * (x + 4) * (x + 5)
    return (y - 0.5) * math.log(y) - y + _HALF_LOG_2PI + tail - math.log(product)


def dirichlet(a: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Return draws from Dirichlet distributions, small parameters included: (n, K) -> (n, K)."""
    # Gamma(a) = Gamma(a + 1) U^(1 / a) in logarithms, where a small gamma would be zero
    big = torch._standard_gamma(a.contiguous() + 1, generator=generator).log()
    u = torch.empty_like(big).uniform_(generator=generator).clamp(min=1e-30)
    return torch.softmax(big + u.log() / a, 1)


def most_likely_dirichlet(mean_log: Floats, start: Floats, steps: int = 50) -> Floats:
    """Return the parameter under which `mean_log` (K,), a mean of log proportions, is most likely.

    Every step raises the likelihood, or is halved until it does.
    """
    a = np.asarray(start, np.float64).copy()
    value = _likelihood(a, mean_log)
    for _ in range(steps):
        slope = psi(a.sum()) - psi(a) + mean_log
        curve, shared = -polygamma(1, a), polygamma(1, a.sum())
        b = (slope / curve).sum() / (1 / shared + (1 / curve).sum())
        step = (slope - b) / curve
        size = 1.0
        while size > 1e-6:
            moved = np.clip(a - size * step, _LEAST, _MOST)
            better = _likelihood(moved, mean_log)
            if np.all(a - size * step > 0) and better >= value:
                break
            size /= 2
        else:
            return a
        gain, a, value = better - value, moved, better
        if gain < 1e-10 * (1 + abs(value)):
            break
    return a


def _likelihood(a: Floats, mean_log: Floats) -> float:
    """Return the mean log-density of proportions, up to a constant."""
    from scipy.special import gammaln

    return float(gammaln(a.sum()) - gammaln(a).sum() + ((a - 1) * mean_log).sum())


def polya_step(counts: Floats, a: Floats) -> Floats:
    """Return the parameter after one fixed-point step on counts (n, K) of draws from Dirichlet-multinomials.

    The likelihood of the counts does not fall.
    """
    above = psi(counts + a).sum(0) - len(counts) * psi(a)
    below = (psi(counts.sum(1) + a.sum()) - psi(a.sum())).sum()
    return a if below <= 0 else np.clip(a * above / below, _LEAST, _MOST)
