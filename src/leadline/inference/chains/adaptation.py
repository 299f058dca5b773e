r"""Warm-up: the step size by dual averaging, the metric from windows that double.

All chains share one step size and one metric, and pool what they saw: a hundred chains learn a covariance
from a handful of steps each.

Symbols:
    e step size, a mean acceptance of a step, d its target, m number of updates.

    h_m = (1 - 1 / (m + t0)) h_{m-1} + (d - a) / (m + t0),  log e_m = mu - m^(1/2) h_m / gamma

Source:
    Hoffman and Gelman (2014), The No-U-Turn Sampler, JMLR 15, section 3.2, algorithms 4 and 5.
    Windows: Stan Reference Manual, "HMC algorithm parameters": 75, 25 doubled, 50 of 1,000.

Departs from the source:
    While updates are few, the step size is drawn to the one at which they began.
"""

import math
from dataclasses import replace
from typing import Any, Literal, TypeVar

import torch

from leadline.core.errors import OptionError
from leadline.inference.chains.kernel import Information, Placed
from leadline.inference.chains.metric import Metric, Moments

__all__ = ["DualAveraging", "Warmup", "tuned", "windows"]

MetricWord = Literal["unit", "diagonal", "dense"]
K = TypeVar("K")
_SETTLED = 20  # updates after which an average of steps stands for itself


class DualAveraging:
    """The step size that makes the mean acceptance equal its target.

    Args:
        step_size: Where it starts, > 0.
        target: Mean acceptance wanted, in (0, 1).
    """

    gamma, delay, kappa = 0.05, 10.0, 0.75

    def __init__(self, step_size: float, target: float) -> None:
        self.target = target
        self.restart(step_size)

    def restart(self, step_size: float) -> None:
        """Forget everything and begin at `step_size`."""
        self.mu = math.log(10 * step_size)
        self._began = math.log(step_size)
        self.step_size = step_size
        self._count, self._error, self._average = 0, 0.0, 0.0

    def update(self, acceptance: float) -> None:
        """Take in the mean acceptance of a step."""
        self._count += 1
        m = self._count
        weight = 1 / (m + self.delay)
        error = self.target - (acceptance if math.isfinite(acceptance) else 0.0)
        self._error = (1 - weight) * self._error + weight * error
        log_step = self.mu - math.sqrt(m) * self._error / self.gamma
        share = m**-self.kappa
        self._average = share * log_step + (1 - share) * self._average
        self.step_size = math.exp(min(max(log_step, -60.0), 60.0))

    @property
    def final(self) -> float:
        """Return the averaged step size, drawn to the one it began at while the updates are few.

        The first updates overshoot tenfold: an average of three of them would freeze the chains.
        """
        share = min(self._count / _SETTLED, 1.0)
        log_step = share * self._average + (1 - share) * self._began
        return math.exp(min(max(log_step, -60.0), 60.0))


def windows(steps: int) -> list[int]:
    """Return after which steps of a warm-up of `steps` the metric is learned anew.

    Example:
        >>> windows(1000)
        [100, 150, 250, 450, 950]
    """
    # The first steps of dual averaging are wild: a short warm-up keeps more of them than Stan's share.
    first, last = round(0.075 * steps), max(round(0.05 * steps), min(15, steps // 4))
    size, at, ends = max(round(0.025 * steps), 1), first, []
    while at + size < steps - last:
        # A window that leaves no room for one of twice its size takes the rest.
        end = at + size if at + 3 * size <= steps - last else steps - last
        ends.append(end)
        at, size = end, 2 * size
    return ends


class Warmup:
    """Tunes a kernel that has a step size (and a metric) while its chains run.

    Args:
        kernel: A kernel, or one whose `move` has the step size.
        steps: Number of warm-up steps.
        metric: What is learned of the target's covariance: nothing ("unit"), its diagonal, or all of it.
        target_acceptance: Mean acceptance wanted; the kernel's own if None.
    """

    def __init__(
        self, kernel: Any, steps: int, metric: MetricWord = "diagonal", target_acceptance: float | None = None
    ) -> None:
        if metric not in ("unit", "diagonal", "dense"):
            raise OptionError(f'metric must be "unit", "diagonal" or "dense", got "{metric}"')
        self.kernel = kernel
        part = _tunable(kernel)
        target = None if part is None else part.target_acceptance
        self._target = target if target_acceptance is None else target_acceptance
        self._metric = metric
        self._ends = [] if metric == "unit" else windows(steps)
        self._at, self._begin = 0, round(0.075 * steps)
        self._moments = Moments(dense=metric == "dense")
        self._steps: DualAveraging | None = None

    def begin(self, state: Placed, generator: torch.Generator | None) -> None:
        """Find a step size of the right order at `state`."""
        if self._target is not None:
            self._steps = DualAveraging(self._found(state, generator), self._target)
            self.kernel = tuned(self.kernel, self._steps.step_size)

    def learn(self, state: Placed, information: Information, generator: torch.Generator | None) -> None:
        """Take in a step."""
        if self._steps is None:
            return
        self._at += 1
        self._steps.update(float(information.acceptance.nan_to_num(0.0).mean()))
        metric = None
        if self._ends and self._at > self._begin and self._at <= self._ends[-1]:
            self._moments.add(state.position)
            if self._at in self._ends:
                metric = self._moments.metric(state.position)
                self._moments = Moments(dense=self._metric == "dense")
        self.kernel = tuned(self.kernel, self._steps.step_size, metric)
        if metric is not None:
            self._steps.restart(self._found(state, generator))
            self.kernel = tuned(self.kernel, self._steps.step_size)

    def end(self) -> Any:
        """Return the tuned kernel."""
        return self.kernel if self._steps is None else tuned(self.kernel, self._steps.final)

    def _found(self, state: Placed, generator: torch.Generator | None) -> float:
        """Return the step size, by doubling or halving, at which one step crosses its target acceptance."""
        kernel = _short(self.kernel)
        size = float(_tunable(kernel).step_size)
        upwards: bool | None = None
        for _ in range(40):
            _, told = tuned(kernel, size).step(state, generator)
            high = float(told.acceptance.nan_to_num(0.0).mean()) > (self._target or 0.8)
            if upwards is not None and high != upwards:
                break
            upwards = high
            size = size * 2 if high else size / 2
        return size


def tuned(kernel: K, step_size: float, metric: Metric | None = None) -> K:
    """Return a kernel like `kernel` with that step size, and that metric unless it is None."""
    part = _tunable(kernel)
    changes: dict[str, Any] = {"step_size": step_size} if metric is None else {
        "step_size": step_size, "metric": metric}  # fmt: skip
    changed = replace(part, **changes)
    whole: Any = kernel
    return changed if part is whole else replace(whole, move=changed)


def _tunable(kernel: Any) -> Any:
    """Return the part of a kernel that has a step size, or None."""
    if not getattr(kernel, "refuses", True):  # what accepts all has no acceptance to tune by
        return None
    inner = getattr(kernel, "move", kernel)
    size = getattr(inner, "step_size", None)
    return inner if isinstance(size, float) and hasattr(inner, "target_acceptance") else None


def _short(kernel: Any) -> Any:
    """Return the kernel with trajectories of one step."""
    part = _tunable(kernel)
    if hasattr(part, "max_depth"):
        return replace(kernel, max_depth=1)
    return replace(kernel, move=replace(part, leapfrogs=1)) if hasattr(part, "leapfrogs") else kernel
