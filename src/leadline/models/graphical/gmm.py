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
    A prior of a few pseudo-samples keeps covariances of few samples sane (`leadline.inference.gaussians`):
    what never falls is then the log-likelihood with the log of the prior.
    Pixels may go through their own histograms to unit normals before anything else (`nets.marginals`).
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from leadline.core import Bits, Density, Described, Domain, Images, Vectors, counted
from leadline.core.errors import checked_codes
from leadline.core.randomness import categorical, normal, uniform_of_rows
from leadline.inference.gaussians import COVARIANCES, Covariance, Gaussians, widened
from leadline.models.graphical.em import EM, checked_options, checked_prior
from leadline.nets.marginals import Marginals, usual_pixels

__all__ = ["GMM"]

# Draws of the noise inside a cell: scores on the noise that was fitted would be no lower bound.
_LEARNED, _SCORED = 0, 1
_CHUNK = 1 << 16  # statistics held at a time: half a megabyte in float64, which stays in cache
_START_ROWS = 20_000


class GMM(EM):
    """Mixture of `components` Gaussians over the real coordinates of a domain.

    Each sweep is one EM step; see `leadline.models.graphical.em`.

    Verbs:
        sample, log_prob, encode, decode

    Args:
        domain: What one sample is: Vectors (exact densities), Images or Bits (dequantised, a lower bound).
        components: Number K of Gaussians, at least 1.
        covariance: "full", "tied" (one for all), "diagonal" or "spherical".
        pixels: "gaussianised" takes each pixel of a picture through its own histogram of the training split
            to a unit normal; "standard" divides levels by their number. None gaussianises grey pictures.
        prior: Pseudo-samples that pull each covariance to a share of the spread of all samples, 0 for maximum
            likelihood; None for 1 with columns, and a quarter of the dimensions with pictures and bits.
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

    best: Gaussians
    trial: Gaussians

    def __init__(  # noqa: PLR0913
        self,
        domain: Domain,
        components: int = 8,
        covariance: Covariance = "full",
        *,
        pixels: str | None = None,
        prior: float | None = None,
        restarts: int = 1,
        floor: float = 1e-6,
        tolerance: float = 1e-4,
        max_sweeps: int = 200,
    ) -> None:
        super().__init__(components, restarts, tolerance, max_sweeps)
        checked_options(components, restarts, floor, max_sweeps)
        if covariance not in COVARIANCES:
            raise ValueError(f"covariance must be one of {', '.join(COVARIANCES)}, got {covariance!r}")
        self.domain = domain.require(Vectors, Images, Bits)
        levels = domain.levels if isinstance(domain, Images) else 0
        self.marginals = Marginals(domain.dims, levels, pixels or usual_pixels(domain.planes))
        pull = checked_prior(prior, 1.0 if isinstance(domain, Vectors) else max(1.0, domain.dims / 4))
        self.best, self.trial = (
            Gaussians(components, domain.dims, covariance, floor, pull) for _ in range(2)
        )

    @classmethod
    def for_data(  # noqa: PLR0913
        cls,
        data: Described,
        *,
        components: int = 8,
        covariance: Covariance = "full",
        pixels: str | None = None,
        prior: float | None = None,
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
            pixels=pixels,
            prior=prior,
            restarts=restarts,
            floor=floor,
            tolerance=tolerance,
            max_sweeps=max_sweeps,
        )

    @counted
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Return `n` independent draws of raw samples (n, *shape)."""
        mixture = self.best
        which = categorical(mixture.log_weights.expand(n, -1), generator)
        u = normal((n, self.domain.dims), mixture.means, generator)
        for k in range(self.components):
            rows = which == k
            u[rows] = mixture.spread(u[rows], k) + mixture.means[k]
        return self._raw(u)

    def log_prob(self, x: Tensor) -> Tensor:
        """Return log p(x) of each row, in nats: (n, *shape) -> (n,); see `density` for its kind."""
        natural = self.best.natural()
        rows = [
            torch.logsumexp(t @ natural, 1) + volume
            for t, volume in self._statistics(x, self.best, draw=_SCORED)
        ]
        return torch.cat(rows).to(self.best.means.dtype)

    def encode(self, x: Tensor) -> Tensor:
        """Return the responsibilities p(k | x): (n, *shape) -> (n, K)."""
        natural = self.best.natural()
        rows = [torch.softmax(t @ natural, 1) for t, _ in self._statistics(x, self.best, draw=None)]
        return (
            torch.cat(rows).to(self.best.means.dtype)
            if rows
            else self.best.means.new_zeros(0, len(natural.T))
        )

    def decode(self, z: Tensor) -> Tensor:
        """Return the means weighted by the code: (n, K) -> (n, *shape) raw."""
        return self._raw(checked_codes(z, self.components).to(self.best.means) @ self.best.means)

    @property
    def density(self) -> Density:
        """Return the kind of `log_prob`: exact for Vectors, else a lower bound."""
        if isinstance(self.domain, Vectors):
            return Density()
        return Density("lower bound", "uniform dequantisation, one draw a sample")

    def bic(self, x: Tensor) -> float:
        """Return the Bayesian information criterion on `x`, in nats; the lower the better."""
        return self.best.free_parameters * math.log(x.shape[0]) - 2 * float(self.log_prob(x).double().sum())

    def aic(self, x: Tensor) -> float:
        """Return Akaike's information criterion on `x`, in nats; the lower the better."""
        return 2 * self.best.free_parameters - 2 * float(self.log_prob(x).double().sum())

    def start_from(self, log_weights: Tensor, means: Tensor, covariances: Tensor) -> None:
        """Let the model be the mixture of these, in its real coordinates, and the next sweep go on.

        No start of its own has then measured the spread of the samples: there is no prior.

        Args:
            log_weights: Logs of the weights (K,).
            means: Means (K, d).
            covariances: (K, d, d) full, (d, d) tied, (K, d) diagonal, (K,) spherical.
        """
        self.trial.place(log_weights, means, covariances)
        self.best.load_state_dict(self.trial.state_dict())
        self._remember(-math.inf, -math.inf, 0, 1, 0)

    def _begin(self, x: Tensor) -> None:
        """Put the trial mixture on k-means++ centres of at most 20,000 rows, with their shared covariance."""
        self.domain.validated(x)
        if self.marginals.gaussianised and not int(self.progress[0]):
            self.marginals.sweep(x)
        rows = torch.randperm(x.shape[0], device="cpu")[:_START_ROWS].to(x.device)
        self.trial.begin(self._coordinates(x[rows]))

    def _maximise(self, moments: Tensor) -> Tensor:
        """Let the trial become the best mixture of its moments; return which components are empty (K,)."""
        return self.trial.maximise(moments)

    def _reseed(self, x: Tensor, empty: Tensor, moments: Tensor) -> None:
        """Put empty components on random samples with the covariance of all data."""
        rows = torch.randint(x.shape[0], (int(empty.sum()),), device="cpu").to(x.device)
        self.trial.revive(empty, self._coordinates(x[rows]), moments)

    def _expect(self, x: Tensor) -> tuple[float, Tensor]:
        """Return the summed log-likelihood and log-prior, and the moments r^T t(u), shape (K, f)."""
        volume = 0.0

        def parts() -> Iterator[Tensor]:
            nonlocal volume
            for t, own in self._statistics(x, self.trial):
                volume += float(own.sum())
                yield t

        total, moments = self.trial.expect(parts())
        return total + volume + self.trial.log_prior(), moments

    def _statistics(
        self, x: Tensor, mixture: "Gaussians", *, draw: int | None = _LEARNED
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Return t(u) of the samples, some rows at a time, and log |du / dx| (rows,)."""
        for rows in self.domain.checked(x).split(max(16, _CHUNK // mixture.width)):
            u = self._coordinates(rows, draw=draw)
            if self.marginals.gaussianised:
                volume = self.marginals.log_slope(rows, u)
            else:
                volume = u.new_full((len(u),), self.domain.log_volume)
            yield mixture.statistics(u), volume

    def _coordinates(self, x: Tensor, *, draw: int | None = _LEARNED) -> Tensor:
        """Return real coordinates as float64, with a draw of noise or at mid-cell: (n, *shape) -> (n, d)."""
        noise, x = None, self.domain.checked(x)
        if draw is not None and not isinstance(self.domain, Vectors):
            noise = (
                uniform_of_rows(x, self.domain.dims, draw + 1)[draw].view(x.shape).to(self.best.means.device)
            )
        if self.marginals.gaussianised:
            return widened(self.marginals.of_levels(x, noise))
        return widened(self.domain.continuous(x, noise, self.best.means).flatten(1))

    def _raw(self, u: Tensor) -> Tensor:
        """Return raw values of real coordinates: (n, d) -> (n, *shape)."""
        if self.marginals.gaussianised:
            return self.marginals.levels_of(u).view(-1, *self.domain.shape).to(self.domain.dtype)
        return self.domain.quantize(u.view(-1, *self.domain.shape))
