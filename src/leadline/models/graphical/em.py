r"""Expectation maximisation of a mixture, from several starts: the loop that every mixture shares.

A trial mixture takes the steps. The model itself is the best trial so far over all starts, so that its
objective never falls from sweep to sweep.

Source:
    Dempster, Laird and Rubin (1977), Maximum likelihood from incomplete data via the EM algorithm.

Departs from the source:
    A component that explains less than a thousandth of a sample is put on a random sample with the spread
    of all data; only then may the objective of a start fall. After K such moves it stays empty.
"""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from leadline.core import DataError

__all__ = ["EM", "checked_options", "checked_prior"]


class EM(nn.Module, ABC):
    """A mixture of `components`, learned from `restarts` starts.

    A concrete mixture has the modules `best` and `trial` of one kind, and the four methods below.

    Args:
        components: Number K of components.
        restarts: How many starts to learn from; the best is kept.
        tolerance: A start is done when a step gains less than this, in nats per sample.
        max_sweeps: Most steps from one start.
    """

    objectives: Tensor
    progress: Tensor
    best: nn.Module
    trial: nn.Module

    def __init__(self, components: int, restarts: int, tolerance: float, max_sweeps: int) -> None:
        super().__init__()
        self.components = components
        self.restarts = restarts
        self.tolerance = tolerance
        self.max_sweeps = max_sweeps
        # of the best mixture and of the last step of the trial; each a sum of two, for a double's precision
        self.register_buffer("objectives", torch.tensor([[-math.inf, 0.0], [-math.inf, 0.0]]))
        # starts finished, steps taken from this start, empty components moved since this start
        self.register_buffer("progress", torch.zeros(3, dtype=torch.int64))

    def sweep(self, x: Tensor) -> float:
        """Take one EM step on all samples (n, *shape); return the best mean log-likelihood so far, in nats.

        What is returned is `log_prob(x).mean()` of the model as it now stands, and an n-th of the log of its
        prior where it has one.

        Raises:
            DataError: If there are fewer samples than components.
            ShapeError: If a value is not of the domain.
        """
        best, last = self.objectives.double().sum(1).tolist()
        if self.converged:
            return best
        restart, step, moved = self.progress.tolist()
        if step == 0:
            if x.shape[0] < self.components:
                raise DataError(
                    f"a mixture needs at least as many samples as components ({self.components}), "
                    f"got {x.shape[0]}"
                )
            self._begin(x)
        total, moments = self._expect(x)
        objective = sum(_halves(total / x.shape[0]))
        if objective > best:
            self.best.load_state_dict(self.trial.state_dict())
            best = objective
        if step > 0 and (objective - last < self.tolerance or step + 1 >= self.max_sweeps):
            self._remember(best, -math.inf, restart + 1, 0, 0)
            return best
        empty = self._maximise(moments)
        if moved < self.components and bool(empty.any()):
            self._reseed(x, empty, moments)
            moved += int(empty.sum())
            objective = -math.inf
        self._remember(best, objective, restart, step + 1, moved)
        return best

    @property
    def converged(self) -> bool:
        """Return whether every restart has settled."""
        return int(self.progress[0]) >= self.restarts

    @property
    def free_parameters(self) -> int:
        """Return the number of free parameters of the model, without those of the trial."""
        count: int = self.best.free_parameters  # type: ignore[assignment]
        return count

    @property
    def last_objective(self) -> float:
        """Return the objective of the last step of the trial; minus infinity just after a start or a move."""
        return float(self.objectives[1].double().sum())

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """Return the responsibilities p(k | x): (n, *shape) -> (n, K)."""

    def assign(self, x: Tensor) -> Tensor:
        """Return the most probable component of each row: (n, *shape) -> (n,)."""
        return self.encode(x).argmax(1)

    @abstractmethod
    def _begin(self, x: Tensor) -> None:
        """Put the trial mixture somewhere on the samples."""

    @abstractmethod
    def _expect(self, x: Tensor) -> tuple[float, Tensor]:
        """Return the summed log-likelihood and log-prior of the trial, and its expected moments (K, f)."""

    @abstractmethod
    def _maximise(self, moments: Tensor) -> Tensor:
        """Let the trial become the best mixture of its moments; return which components are empty (K,)."""

    @abstractmethod
    def _reseed(self, x: Tensor, empty: Tensor, moments: Tensor) -> None:
        """Put the empty components of the trial on random samples, with the spread of all data."""

    def _remember(self, best: float, last: float, *progress: int) -> None:
        """Write down both objectives and the progress."""
        self.objectives.copy_(torch.tensor([_halves(best), _halves(last)], dtype=torch.float64))
        self.progress.copy_(torch.tensor(progress))


def checked_options(components: int, restarts: int, floor: float, max_sweeps: int) -> None:
    """Check the options that all mixtures share.

    Raises:
        ValueError: If one is out of range.
    """
    for name, value in (("components", components), ("restarts", restarts), ("max_sweeps", max_sweeps)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if not (floor > 0 and math.isfinite(floor)):
        raise ValueError(f"floor must be positive, got {floor}")


def checked_prior(prior: float | None, usual: float) -> float:
    """Return a number of pseudo-samples, the usual one if none is given.

    Raises:
        ValueError: If it is negative or not finite.
    """
    if prior is None:
        return usual
    if not (prior >= 0 and math.isfinite(prior)):
        raise ValueError(f"prior must be at least 0, got {prior}")
    return float(prior)


def _halves(value: float) -> tuple[float, float]:
    """Return two float32 numbers whose sum is `value` to 48 bits: not every device has float64."""
    first = float(torch.tensor(value, dtype=torch.float32))
    return first, float(torch.tensor(value - first, dtype=torch.float32)) if math.isfinite(value) else 0.0
