r"""log Z between two bounds: annealed importance sampling there and back.

Forward, from exact draws of the start of a path, the mean log-weight lies below log Z in expectation.
Backward, from draws of the machine itself, it lies above, if these draws are exact. Where they are the ends
of long chains instead, what is found backward is an estimate of that bound: a chain that misses a mode
makes it too low.

Symbols:
    m particles, T temperatures, w (m,) weights.

Source:
    Neal (2001), Annealed Importance Sampling, Statistics and Computing 11.
    Grosse, Ghahramani and Adams (2015), Sandwiching the marginal likelihood using bidirectional Monte Carlo,
    section 3.

Departs from the source:
    The number of temperatures is doubled until the effective sample size is a fifth of the particles and the
    bounds meet. Weights that agree prove nothing alone: particles that all miss a mode agree as well, and
    only the run backward, from where the machine's own chains stand, tells.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from leadline.core import OptionError, Quantity
from leadline.core.errors import unknown_name
from leadline.inference.annealed import AISResult, LogDensity, Transition, annealed_importance

__all__ = ["Annealing", "Method", "Path", "annealing", "checked_method", "resampled"]

Method = Literal["auto", "exact", "ais", "lower", "upper"]

_ENOUGH = 0.2  # effective sample size, as a share of the particles, at which temperatures suffice
_TRUSTED = 0.1  # below this share the error of the mean weight says little
_APART = 1.0  # distance of the bounds, in nats beyond four standard errors, from which on they do not meet
_NORMAL = 1.96


@dataclass(frozen=True)
class Path:
    """A path of densities to a machine, and draws at both of its ends.

    Args:
        log_density: (v (m, D), t) -> unnormalised log f_t (m,), in nats.
        transition: (v (m, D), t, generator) -> v after a kernel that leaves f_t unchanged.
        log_start: log of the normaliser at t = 0, in nats.
        start: Exact draws at t = 0 (m, D).
        end: Given where the particles of the forward run ended, with their weights: draws at t = 1 (m, D).
        exact: Whether these draws are exact.
        origin: How they were made, in a few words.
        temperatures: Least and greatest number of temperatures to choose from, at least 2.
    """

    log_density: LogDensity
    transition: Transition
    log_start: float
    start: Tensor
    end: Callable[[AISResult], Tensor]
    exact: bool
    origin: str
    temperatures: tuple[int, int]


@dataclass(frozen=True)
class Annealing:
    """What both runs along a path found.

    Args:
        path: The path.
        forward: The run from its start.
        backward: The run from its end.
        temperatures: Number T of temperatures.
    """

    path: Path
    forward: AISResult
    backward: AISResult
    temperatures: int

    @property
    def lower(self) -> Quantity:
        """Return the mean log-weight of the forward run: in expectation a lower bound on log Z, in nats."""
        value = self.path.log_start + self.forward.log_bound
        return self._quantity(value, self.forward, "lower bound", f"forward {self._how}")

    @property
    def upper(self) -> Quantity:
        """Return what the backward run finds: in expectation an upper bound, if its start is exact."""
        value = self.path.log_start - self.backward.log_bound
        kind: Literal["upper bound", "estimate"] = "upper bound" if self.path.exact else "estimate"
        said = "" if self.path.exact else "an upper bound but for its start, "
        return self._quantity(value, self.backward, kind, f"{said}backward {self._how} {self._from}")

    @property
    def estimate(self) -> Quantity:
        """Return the log of the mean weight of the forward run, in nats.

        Its error is that of the mean weight; where the effective sample size is too small, or the bounds too
        far apart, for that to be trusted, it is at least half their distance, and the protocol says so.
        """
        value, error, low, high = (
            self.path.log_start + self.forward.log_ratio, self.forward.stderr, self.lower, self.upper
        )  # fmt: skip
        ess, m = self.forward.effective_sample_size, len(self.forward.log_weights)
        said = "" if ess >= _TRUSTED * m else ", too small to be trusted"
        said += "" if self.apart <= 0 else ", bounds too far apart for it to be trusted"
        if said:
            error = max(error, abs(high.value - low.value) / 2)
        bounds = f"{low.value:.2f} ± {low.stderr:.2g} and {high.value:.2f} ± {high.stderr:.2g} {self._from}"
        protocol = f"{self._how}, effective sample size {ess:.0f}{said}; between {bounds}"
        interval = (value - _NORMAL * error, value + _NORMAL * error)
        return Quantity(value, "nats", "estimate", error, interval, m, protocol)

    @property
    def apart(self) -> float:
        """Return by how much the distance of the bounds is more than noise and a nat, in nats."""
        noise = math.hypot(self.forward.bound_stderr, self.backward.bound_stderr)
        width = -self.backward.log_bound - self.forward.log_bound
        # a lone particle has no standard error
        return abs(width) - _APART - 4 * noise if math.isfinite(noise) else -math.inf

    @property
    def settled(self) -> bool:
        """Return whether more temperatures are not called for."""
        ess, m = self.forward.effective_sample_size, len(self.forward.log_weights)
        return ess >= _ENOUGH * m and self.apart <= 0

    def found(self, method: Method) -> Quantity:
        """Return the bound that `method` names, or the estimate."""
        return {"lower": self.lower, "upper": self.upper}.get(method, self.estimate)

    @property
    def _how(self) -> str:
        m = len(self.forward.log_weights)
        return f"annealed importance sampling, {m} chains, {self.temperatures} temperatures"

    @property
    def _from(self) -> str:
        return f"(begun at {self.path.origin})"

    def _quantity(
        self, value: float, run: AISResult, kind: Literal["lower bound", "upper bound", "estimate"], how: str
    ) -> Quantity:
        """Return a mean log-weight with its error."""
        spread, ess = run.bound_stderr, run.effective_sample_size
        interval = (value - _NORMAL * spread, value + _NORMAL * spread)
        protocol = f"{how}, effective sample size {ess:.0f}; in expectation"
        return Quantity(value, "nats", kind, spread, interval, len(run.log_weights), protocol)


def checked_method(method: Method, chains: int) -> Method:
    """Return how log Z is to be found, if there is such a way and a particle.

    Raises:
        OptionError: If not.
    """
    if method not in get_args(Method):
        raise unknown_name("method", method, get_args(Method))
    if chains < 1:
        raise OptionError(f"chains must be at least 1, got {chains}")
    return method


def annealing(path: Path, temperatures: int | None, generator: torch.Generator) -> Annealing:
    """Return both runs along a path.

    Args:
        path: The path.
        temperatures: Number of temperatures, at least 2; if None, doubled from the least number until the
            effective sample size is a fifth of the particles and the bounds meet, or the greatest number is
            reached.
        generator: Source of the kernels' randomness.

    Raises:
        OptionError: If there are fewer than 2 temperatures.
    """
    if temperatures is not None and temperatures < 2:
        raise OptionError(f"temperatures must be at least 2, got {temperatures}")
    count, most = path.temperatures if temperatures is None else (temperatures, temperatures)

    def run(start: Tensor, first: float, last: float) -> AISResult:
        ladder = torch.linspace(first, last, count)
        return annealed_importance(path.log_density, path.transition, start, ladder, generator)

    with torch.no_grad():
        while True:
            forward = run(path.start, 0, 1)
            found = Annealing(path, forward, run(path.end(forward), 1, 0), count)
            if count >= most or found.settled:
                return found
            count = min(2 * count, most)


def resampled(result: AISResult, generator: torch.Generator) -> Tensor:
    """Return as many particles as there were, drawn by their weights: (m, D)."""
    weights = (result.log_weights - result.log_weights.max()).exp()
    cumulative = weights.cumsum(0)
    m, device = len(weights), result.particles.device
    chance = torch.rand(m, dtype=torch.float64, device=device, generator=generator).cpu()
    place = torch.searchsorted(cumulative, chance * cumulative[-1], right=True).clamp_(max=m - 1)
    return result.particles[place.to(device)]
