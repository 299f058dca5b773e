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

from leadline.core.errors import ShapeError
from leadline.core.telling import each_told

__all__ = ["AISResult", "Sandwich", "annealed_importance", "sandwich"]

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

    @property
    def bound_stderr(self) -> float:
        """Return the standard error of the bound, in nats; infinite for one particle."""
        m = self.log_weights.numel()
        return float(self.log_weights.std()) / math.sqrt(m) if m > 1 else math.inf


@dataclass(frozen=True)
class Sandwich:
    """A ratio of normalising constants between two bounds.

    Args:
        forward: The run from the start of the path to its end.
        backward: The run from the end back to the start.
    """

    forward: AISResult
    backward: AISResult

    @property
    def lower(self) -> float:
        """Return the lower bound on log(Z_end / Z_start), which holds in expectation, in nats."""
        return self.forward.log_bound

    @property
    def upper(self) -> float:
        """Return the upper bound on log(Z_end / Z_start), which holds in expectation, in nats."""
        return -self.backward.log_bound

    @property
    def effective_sample_size(self) -> float:
        """Return the smaller of the effective sample sizes of the two runs."""
        return min(self.forward.effective_sample_size, self.backward.effective_sample_size)

    def __str__(self) -> str:
        low, high = self.forward, self.backward
        return (
            f"log Z ratio between {self.lower:.4f} (+-{low.bound_stderr:.2g}) and {self.upper:.4f} "
            f"(+-{high.bound_stderr:.2g}) nats; effective sample sizes {low.effective_sample_size:.1f} "
            f"and {high.effective_sample_size:.1f} of {low.log_weights.numel()}"
        )


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
        ShapeError: If log_density does not give a number a particle.
    """
    temperatures = torch.as_tensor(temperatures)
    if temperatures.numel() < 2 or start.shape[0] < 1:
        raise ValueError(
            f"needs two temperatures and a particle, got {temperatures.numel()} and {start.shape[0]}"
        )
    path = temperatures.tolist()
    x = start
    told = log_density(x, path[0])
    if not isinstance(told, Tensor) or told.shape != start.shape[:1]:
        shape = tuple(told.shape) if isinstance(told, Tensor) else type(told).__name__
        raise ShapeError(f"log_density must give a number a particle, shape ({len(start)},), got {shape}")
    log_weights = torch.zeros(start.shape[0], dtype=torch.float64)
    for before, after in each_told("annealing", list(itertools.pairwise(path))):
        log_weights += (log_density(x, after) - log_density(x, before)).cpu().double()
        x = transition(x, after, generator)
    return _summary(log_weights, x)


def sandwich(
    log_density: LogDensity,
    transition: Transition,
    start: Tensor,
    end: Tensor,
    temperatures: Tensor,
    generator: torch.Generator | None = None,
) -> Sandwich:
    """Return log(Z_end / Z_start) between the bounds of a forward and a backward run.

    The upper bound holds where the draws of the far end are exact; draws of a chain make it an estimate.

    Args:
        log_density: (x (m, *), temperature) -> unnormalised log f (m,), in nats.
        transition: (x (m, *), temperature, generator) -> x after a kernel that leaves f unchanged.
        start: Exact draws of the first temperature (m, *).
        end: Exact draws of the last temperature (m', *).
        temperatures: The path (T,), T >= 2.
        generator: Source of the kernels' randomness.

    Raises:
        ValueError: If there are fewer than two temperatures or no particle.
    """
    temperatures = torch.as_tensor(temperatures)
    forward = annealed_importance(log_density, transition, start, temperatures, generator)
    backward = annealed_importance(log_density, transition, end, temperatures.flip(0), generator)
    return Sandwich(forward, backward)


def _summary(log_weights: Tensor, particles: Tensor) -> AISResult:
    """Return the estimate, its error and the effective sample size of log-weights (m,)."""
    m = log_weights.numel()
    log_ratio = float(torch.logsumexp(log_weights, 0)) - math.log(m)
    weights = (log_weights - log_ratio).exp()  # of mean 1
    stderr = float(weights.std()) / math.sqrt(m) if m > 1 else math.inf
    return AISResult(
        log_ratio, stderr, float(weights.sum() ** 2 / weights.square().sum()), log_weights, particles
    )
