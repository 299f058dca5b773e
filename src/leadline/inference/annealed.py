r"""Annealed importance sampling: the ratio of two normalising constants.

Particles start as exact draws of one end of a path of unnormalised densities f_t, and move along it
by Markov kernels that leave each f_t unchanged. The weight

    w = prod_t f_{t+1}(x_t) / f_t(x_t)

has mean Z_end / Z_start. By Jensen's inequality the mean of log w lies below log(Z_end / Z_start); a
path walked backwards from exact draws of the far end bounds it from above ("sandwich").

Symbols:
    m particles, T temperatures, f_t density at temperature t, w (m,) weights.

Source:
    Neal (2001), Annealed Importance Sampling, Statistics and Computing 11.
    Sandwich: Grosse, Ghahramani and Adams (2015), Sandwiching the marginal likelihood using
    bidirectional Monte Carlo, section 3.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["AISResult", "annealed_importance"]

LogDensity = Callable[[Tensor, float], Tensor]
Transition = Callable[[Tensor, float, torch.Generator | None], Tensor]


@dataclass(frozen=True)
class AISResult:
    """What a run of annealed importance sampling found.

    Args:
        log_ratio: Estimate of log(Z_end / Z_start), the log of the mean weight, in nats.
        stderr: Its standard error by the delta method, in nats; infinite for one particle.
        effective_sample_size: (sum w)^2 / sum w^2, between 1 and the number of particles; near 1 the
            standard error cannot be trusted.
        log_weights: Log of each particle's weight (m,), float64.
        particles: Where the particles ended; with `log_weights` they are a weighted sample of the end.
    """

    log_ratio: float
    stderr: float
    effective_sample_size: float
    log_weights: Tensor
    particles: Tensor

    @property
    def log_bound(self) -> float:
        """Return the mean log-weight: in expectation at most log(Z_end / Z_start), in nats."""
        return float(self.log_weights.mean())


def annealed_importance(
    log_density: LogDensity,
    transition: Transition,
    start: Tensor,
    temperatures: Tensor,
    generator: torch.Generator | None = None,
) -> AISResult:
    """Return the ratio of the normalising constants at the last and the first temperature.

    For the backward half of a sandwich give exact draws of the far end and falling temperatures: its
    `-log_bound` is in expectation at least log(Z_end / Z_start) of the forward run.

    Args:
        log_density: (x (m, *), temperature) -> unnormalised log f (m,), in nats.
        transition: (x (m, *), temperature, generator) -> x after a kernel that leaves f unchanged.
        start: Exact draws of the first temperature (m, *).
        temperatures: The path (T,), T >= 2, commonly from 0 to 1.
        generator: Source of the kernels' randomness.

    Raises:
        ValueError: If there are fewer than two temperatures or no particle.
    """
    if temperatures.numel() < 2 or start.shape[0] < 1:
        raise ValueError(
            f"needs two temperatures and a particle, got {temperatures.numel()} and {start.shape[0]}"
        )
    path = temperatures.tolist()
    x = start
    log_weights = torch.zeros(start.shape[0], dtype=torch.float64)
    for before, after in itertools.pairwise(path):
        log_weights += (log_density(x, after) - log_density(x, before)).cpu().double()
        x = transition(x, after, generator)
    return _summary(log_weights, x)


def _summary(log_weights: Tensor, particles: Tensor) -> AISResult:
    """Return the estimate, its error and the effective sample size of log-weights (m,)."""
    m = log_weights.numel()
    log_ratio = float(torch.logsumexp(log_weights, 0)) - math.log(m)
    weights = (log_weights - log_ratio).exp()  # of mean 1
    stderr = float(weights.std()) / math.sqrt(m) if m > 1 else math.inf
    return AISResult(
        log_ratio, stderr, float(weights.sum() ** 2 / weights.square().sum()), log_weights, particles
    )
