r"""Mixture of Gaussians, learned by expectation maximisation.

    p(u) = sum_k w_k N(u; m_k, S_k)

The mixture and its data are an exponential family: with statistics t(u), log w_k N(u; m_k, S_k) is linear
in t(u). So one EM step is two matrix products. For full covariances t(u) = a a^T with a = (1, u):

    E-step:  r = softmax(t(u) @ natural),        M-step:  moments = r^T t(u).

Symbols:
    n samples, d dimensions, K components, u (n, d) real coordinates of raw samples x,
    r (n, K) responsibilities, t (n, f) statistics, w (K,) weights, m (K, d) means, S covariances.

Source:
    Dempster, Laird and Rubin (1977), Maximum likelihood from incomplete data via the EM algorithm;
    Bishop (2006), Pattern Recognition and Machine Learning, section 9.2.
    Start: Arthur and Vassilvitskii (2007), k-means++.

Departs from the source:
    Eigenvalues of a covariance are raised to `floor` where they are smaller. Among covariances with no
    smaller eigenvalue this is the exact M-step, so the likelihood still never falls.
    A component that explains less than a thousandth of a sample is put on a random sample with the
    covariance of all data; only then may the likelihood of a restart fall. After K such moves it stays empty.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from leadline.core import Bits, DataError, Density, Described, Domain, Images, Vectors
from leadline.core.errors import checked_codes
from leadline.core.randomness import categorical, normal, uniform_of_rows
from leadline.inference.gaussians import COVARIANCES, Covariance, Gaussians, widened

__all__ = ["GMM"]

# Draws of the noise inside a cell: scores on the noise that was fitted would be no lower bound.
_LEARNED, _SCORED = 0, 1
_CHUNK = 1 << 16  # statistics held at a time: half a megabyte in float64, which stays in cache
_START_ROWS = 20_000


class GMM(nn.Module):
    """Mixture of `components` Gaussians over the real coordinates of a domain.

    Each sweep is one EM step of a trial mixture. The model itself is the best trial so far over all
    restarts, so its likelihood of the training data never falls from sweep to sweep.

    Verbs:
        sample, log_prob, encode, decode

    Args:
        domain: What one sample is: Vectors (exact densities), Images or Bits (dequantised, a lower bound).
        components: Number K of Gaussians, at least 1.
        covariance: "full", "tied" (one for all), "diagonal" or "spherical".
        restarts: How many starts to learn from; the best is kept.
        floor: Least variance in any direction, in units of the domain's real coordinates.
        tolerance: A start is done when a step gains less than this, in nats per sample.
        max_sweeps: Most steps from one start.

    Raises:
        ValueError: If an option is out of range.
        DomainError: If the domain has no real coordinates.

    Example:
        >>> model = GMM(Vectors.standard(2), components=3)
        >>> x = model.sample(5)
        >>> model.log_prob(x).shape, model.encode(x).shape
        (torch.Size([5]), torch.Size([5, 3]))
    """

    objectives: Tensor
    progress: Tensor

    def __init__(
        self,
        domain: Domain,
        components: int = 8,
        covariance: Covariance = "full",
        *,
        restarts: int = 1,
        floor: float = 1e-6,
        tolerance: float = 1e-4,
        max_sweeps: int = 200,
    ) -> None:
        super().__init__()
        _check(components, covariance, restarts, floor, max_sweeps)
        self.domain = domain.require(Vectors, Images, Bits)
        self.components = components
        self.restarts = restarts
        self.tolerance = tolerance
        self.max_sweeps = max_sweeps
        self.best = Gaussians(components, domain.dims, covariance, floor)
        self.trial = Gaussians(components, domain.dims, covariance, floor)
        # of the best mixture and of the last step of the trial; each a sum of two, for a double's precision
        self.register_buffer("objectives", torch.tensor([[-math.inf, 0.0], [-math.inf, 0.0]]))
        # starts finished, steps taken from this start, empty components moved since this start
        self.register_buffer("progress", torch.zeros(3, dtype=torch.int64))

    @classmethod
    def for_data(
        cls,
        data: Described,
        *,
        components: int = 8,
        covariance: Covariance = "full",
        restarts: int = 1,
        floor: float = 1e-6,
        tolerance: float = 1e-4,
        max_sweeps: int = 200,
    ) -> "GMM":
        """Return a mixture over the samples of `data`, which must have real coordinates."""
        return cls(
            data.domain,
            components,
            covariance,
            restarts=restarts,
            floor=floor,
            tolerance=tolerance,
            max_sweeps=max_sweeps,
        )

    def sweep(self, x: Tensor) -> float:
        """Take one EM step on all samples (n, *shape); return the best mean log-likelihood so far, in nats.

        What is returned is `log_prob(x).mean()` of the model as it now stands.

        Raises:
            DataError: If there are fewer samples than components.
            ShapeError: If a value is not of the domain.
        """
        best, last = self.objectives.double().sum(1).tolist()
        if self.converged:
            return best
        restart, step, moved = self.progress.tolist()
        if step == 0:
            self._begin(x)
        total, moments = self.trial.expect(self._statistics(x, self.trial))
        objective = sum(_halves(total / x.shape[0] + self.domain.log_volume))
        if objective > best:
            self.best.load_state_dict(self.trial.state_dict())
            best = objective
        if step > 0 and (objective - last < self.tolerance or step + 1 >= self.max_sweeps):
            self._remember(best, -math.inf, restart + 1, 0, 0)
            return best
        empty = self.trial.maximise(moments)
        if moved < self.components and bool(empty.any()):
            moved += self._reseed(x, empty, moments)
            objective = -math.inf
        self._remember(best, objective, restart, step + 1, moved)
        return best

    @property
    def converged(self) -> bool:
        """Return whether every restart has settled."""
        return int(self.progress[0]) >= self.restarts

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Return `n` independent draws of raw samples (n, *shape)."""
        mixture = self.best
        which = categorical(mixture.log_weights.expand(n, -1), generator)
        u = normal((n, self.domain.dims), mixture.means, generator)
        for k in range(self.components):
            rows = which == k
            u[rows] = mixture.spread(u[rows], k) + mixture.means[k]
        return self.domain.quantize(u.view(n, *self.domain.shape))

    def log_prob(self, x: Tensor) -> Tensor:
        """Return log p(x) of each row, in nats: (n, *shape) -> (n,); see `density` for its kind."""
        natural = self.best.natural()
        rows = [torch.logsumexp(t @ natural, 1) for t in self._statistics(x, self.best, draw=_SCORED)]
        joined = torch.cat(rows) if rows else x.new_zeros(0)
        return joined.to(self.best.means.dtype) + self.domain.log_volume

    def encode(self, x: Tensor) -> Tensor:
        """Return the responsibilities p(k | x): (n, *shape) -> (n, K)."""
        natural = self.best.natural()
        rows = [torch.softmax(t @ natural, 1) for t in self._statistics(x, self.best, draw=None)]
        return (
            torch.cat(rows).to(self.best.means.dtype)
            if rows
            else self.best.means.new_zeros(0, len(natural.T))
        )

    def decode(self, z: Tensor) -> Tensor:
        """Return the means weighted by the code: (n, K) -> (n, *shape) raw."""
        return self.domain.quantize(
            (checked_codes(z, self.components) @ self.best.means).unflatten(-1, self.domain.shape)
        )

    @property
    def density(self) -> Density:
        """Return the kind of `log_prob`: exact for Vectors, else a lower bound."""
        if isinstance(self.domain, Vectors):
            return Density()
        return Density("lower bound", "uniform dequantisation, one draw a sample")

    def assign(self, x: Tensor) -> Tensor:
        """Return the most probable component of each row: (n, *shape) -> (n,)."""
        return self.encode(x).argmax(1)

    def bic(self, x: Tensor) -> float:
        """Return the Bayesian information criterion on `x`, in nats; the lower the better."""
        return self.best.free_parameters * math.log(x.shape[0]) - 2 * float(self.log_prob(x).double().sum())

    def aic(self, x: Tensor) -> float:
        """Return Akaike's information criterion on `x`, in nats; the lower the better."""
        return 2 * self.best.free_parameters - 2 * float(self.log_prob(x).double().sum())

    def start_from(self, log_weights: Tensor, means: Tensor, covariances: Tensor) -> None:
        """Let the model be the mixture of these, in the domain's real coordinates, and the next sweep go on.

        Args:
            log_weights: Logs of the weights (K,).
            means: Means (K, d).
            covariances: (K, d, d) full, (d, d) tied, (K, d) diagonal, (K,) spherical.
        """
        self.trial.place(log_weights, means, covariances)
        self.best.load_state_dict(self.trial.state_dict())
        self._remember(-math.inf, -math.inf, 0, 1, 0)

    def _remember(self, best: float, last: float, *progress: int) -> None:
        """Write down both objectives and the progress."""
        self.objectives.copy_(torch.tensor([_halves(best), _halves(last)], dtype=torch.float64))
        self.progress.copy_(torch.tensor(progress))

    def _begin(self, x: Tensor) -> None:
        """Put the trial mixture on k-means++ centres of at most 20,000 rows, with their shared covariance."""
        self.domain.validated(x)
        if x.shape[0] < self.components:
            raise DataError(
                f"gmm needs at least as many samples as components ({self.components}), got {x.shape[0]}"
            )
        rows = torch.randperm(x.shape[0], device="cpu")[:_START_ROWS].to(x.device)
        self.trial.begin(self._coordinates(x[rows]))

    def _reseed(self, x: Tensor, empty: Tensor, moments: Tensor) -> int:
        """Put empty components on random samples with the covariance of all data; return how many."""
        count = int(empty.sum())
        rows = torch.randint(x.shape[0], (count,), device="cpu").to(x.device)
        self.trial.revive(empty, self._coordinates(x[rows]), moments)
        return count

    def _statistics(
        self, x: Tensor, mixture: "Gaussians", *, draw: int | None = _LEARNED
    ) -> Iterator[Tensor]:
        """Return t(u) of the samples, some rows at a time."""
        for rows in x.split(max(16, _CHUNK // mixture.width)):
            yield mixture.statistics(self._coordinates(rows, draw=draw))

    def _coordinates(self, x: Tensor, *, draw: int | None = _LEARNED) -> Tensor:
        """Return real coordinates as float64, with a draw of noise or at mid-cell: (n, *shape) -> (n, d)."""
        noise, x = None, self.domain.checked(x)
        if draw is not None and not isinstance(self.domain, Vectors):
            noise = (
                uniform_of_rows(x, self.domain.dims, draw + 1)[draw].view(x.shape).to(self.best.means.device)
            )
        return widened(self.domain.continuous(x, noise, self.best.means).flatten(1))


def _check(components: int, covariance: str, restarts: int, floor: float, max_sweeps: int) -> None:
    """Check the options of a mixture.

    Raises:
        ValueError: If one is out of range.
    """
    if covariance not in COVARIANCES:
        raise ValueError(f"covariance must be one of {', '.join(COVARIANCES)}, got {covariance!r}")
    for name, value in (("components", components), ("restarts", restarts), ("max_sweeps", max_sweeps)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if not (floor > 0 and math.isfinite(floor)):
        raise ValueError(f"floor must be positive, got {floor}")


def _halves(value: float) -> tuple[float, float]:
    """Return two float32 numbers whose sum is `value` to 48 bits: not every device has float64."""
    first = float(torch.tensor(value, dtype=torch.float32))
    return first, float(torch.tensor(value - first, dtype=torch.float32)) if math.isfinite(value) else 0.0
