r"""Principal component analysis, and the density that belongs to it.

The covariance of the samples is S = U diag(l) U^T, its eigenvalues in falling order. The code is the
projection on the first k eigenvectors; the density is that of probabilistic PCA at its maximum likelihood,
    u ~ N(mean, U_k diag(l_k) U_k^T + s^2 (I - U_k U_k^T)),    s^2 = mean of the other d - k eigenvalues,
which is the model  u = W z + mean + s e  with  W = U_k (diag(l_k) - s^2 I)^(1/2).

Symbols:
    x (n, *shape) raw samples, u (n, d) their real coordinates, z (n, k) codes, U (k, d) components as rows,
    l (k,) variances, s^2 () noise.

Source:
    Pearson (1901), On lines and planes of closest fit to systems of points in space.
    Tipping and Bishop (1999), Probabilistic Principal Component Analysis, JRSS-B 61(3), equations 7 and 8.

Departs from the source:
    Codes are orthogonal projections, not posterior means, so that decoding gives the closest point of the
    subspace. Levels are taken as uniform over their cells, which adds the cell's variance to every
    eigenvalue. The noise is at least a millionth of the mean variance, so that low rank has a density.
"""

import math
import warnings

import torch
from sklearn import decomposition
from torch import Tensor, nn

from leadline.core import (
    Bits,
    DataError,
    Density,
    Described,
    Domain,
    Images,
    OptionError,
    Vectors,
    counted,
)
from leadline.core.errors import checked_codes, unknown_name
from leadline.core.randomness import normal, uniform_of_rows

__all__ = ["PCA"]

_SOLVERS = ("auto", "full", "randomized")
_NOISE_FLOOR = 1e-6


class PCA(nn.Module):
    """Principal components, with codes, reconstructions, a density and samples.

    The density is exact for `Vectors`, and a lower bound (uniform dequantisation) for `Images` and `Bits`.
    It learns in one sweep.

    Verbs:
        sample, log_prob, encode, decode

    Args:
        domain: What one sample is: `Images`, `Bits` or `Vectors`.
        latent: Number k of components, 1 <= k <= d; half the dimensions, at most 16, by default.
        whiten: Whether codes are divided by their standard deviations.
        solver: "full", "randomized" (faster where k is far below d), or "auto".

    Raises:
        OptionError: If an option is unknown or out of range.

    Example:
        >>> model = PCA(Vectors.standard(3), latent=1)
        >>> x = torch.tensor([[1.0, 2.0, 0.0], [2.0, 4.0, 0.1], [3.0, 6.0, 0.0], [0.0, 0.0, 0.1]])
        >>> _ = model.sweep(x)
        >>> model.encode(x).shape, (model.decode(model.encode(x)) - x).abs().max() < 0.1
        (torch.Size([4, 1]), tensor(True))
    """

    mean: Tensor
    components: Tensor
    variances: Tensor
    noise: Tensor
    learned: Tensor

    def __init__(
        self, domain: Domain, latent: int | None = None, *, whiten: bool = False, solver: str = "auto"
    ) -> None:
        super().__init__()
        self.domain = domain.require(Images, Bits, Vectors)
        d = domain.dims
        k = min(16, (d + 1) // 2) if latent is None else latent
        if not 1 <= k <= d:
            raise OptionError(f"latent must be in [1, {d}], the number of dimensions, got {latent}")
        if solver not in _SOLVERS:
            raise unknown_name("solver", solver, _SOLVERS)
        self.whiten = whiten
        self.solver = solver
        self.register_buffer("mean", torch.zeros(d))
        self.register_buffer("components", torch.eye(k, d))
        self.register_buffer("variances", torch.ones(k))
        self.register_buffer("noise", torch.ones(()))
        self.register_buffer("learned", torch.zeros((), dtype=torch.bool))

    @classmethod
    def for_data(
        cls, data: Described, *, latent: int | None = None, whiten: bool = False, solver: str = "auto"
    ) -> "PCA":
        """Return a model for pictures, bits or vectors."""
        return cls(data.domain, latent, whiten=whiten, solver=solver)

    @property
    def density(self) -> Density:
        """Return that `log_prob` is exact for real columns, and a lower bound for levels."""
        if isinstance(self.domain, Vectors):
            return Density("exact", "closed form")
        return Density("lower bound", "uniform dequantisation, one draw a sample")

    @property
    def converged(self) -> bool:
        """Return whether the one sweep is done."""
        return bool(self.learned)

    def sweep(self, x: Tensor) -> float:
        """Set every quantity to its closed form on `x` (n, *shape); return the mean log-likelihood in nats.

        Raises:
            DataError: If there are fewer samples than components.
        """
        k, d = self.components.shape
        if x.shape[0] < max(k, 2):
            raise DataError(f"pca with latent={k} needs at least {max(k, 2)} samples, got {x.shape[0]}")
        u = self._coordinates(x, torch.empty(0, dtype=torch.float64))
        found = decomposition.PCA(k, svd_solver=self.solver, random_state=int(torch.randint(1 << 31, ())))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "invalid value encountered", RuntimeWarning)  # all rows equal
            found.fit(u.numpy())
        # scikit-learn divides by n - 1, maximum likelihood by n.
        variances = torch.from_numpy(found.explained_variance_) * (1 - 1 / x.shape[0]) + self._cell_variance
        total = float(u.var(0, correction=0).sum()) + d * self._cell_variance
        rest = (total - float(variances.sum())) / (d - k) if k < d else float(variances[-1])
        floor = _NOISE_FLOOR * (total / d or 1.0)
        self.mean.copy_(torch.from_numpy(found.mean_))
        self.components.copy_(torch.from_numpy(found.components_))
        self.noise.fill_(max(rest, floor))
        self.variances.copy_(variances).clamp_(min=float(self.noise))
        self.learned.fill_(True)  # noqa: FBT003
        return float(self.log_prob(x).mean())

    @counted
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Return `n` independent draws of x, (n, *x)."""
        k, d = self.components.shape
        along = normal((n, k), self.mean, generator) * (self.variances - self.noise).sqrt()
        every = normal((n, d), self.mean, generator) * self.noise.sqrt()
        return self._raw(along @ self.components + every)

    def log_prob(self, x: Tensor) -> Tensor:
        """Return log p(x) of each row in nats, or its lower bound: (n, *x) -> (n,)."""
        k, d = self.components.shape
        noise = None if isinstance(self.domain, Vectors) else self._cell_noise(self.domain.checked(x))
        centred = self._coordinates(x, self.mean, noise) - self.mean
        along = centred @ self.components.T  # (n, k)
        across = centred - along @ self.components  # (n, d), what the components do not reach
        distance = (along.square() / self.variances).sum(1) + across.square().sum(1) / self.noise
        log_volume = self.variances.log().sum() + (d - k) * self.noise.log() + d * math.log(2 * math.pi)
        return -0.5 * (distance + log_volume) + self.domain.log_volume

    def encode(self, x: Tensor) -> Tensor:
        """Return the projections on the components: (n, *x) -> (n, latent)."""
        codes = (self._coordinates(x, self.mean) - self.mean) @ self.components.T
        return codes / self.variances.sqrt() if self.whiten else codes

    def decode(self, z: Tensor) -> Tensor:
        """Return the point of the subspace that a code stands for: (n, latent) -> (n, *x)."""
        codes = checked_codes(z, len(self.components)).to(self.mean)
        return self._raw((codes * self.variances.sqrt() if self.whiten else codes) @ self.components)

    def _coordinates(self, x: Tensor, like: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return real coordinates as rows: (n, *x) -> (n, d)."""
        return self.domain.continuous(x, noise, like).flatten(1)

    def _raw(self, offset: Tensor) -> Tensor:
        """Return the raw samples at an offset from the mean: (n, d) -> (n, *x)."""
        return self.domain.quantize((self.mean + offset).unflatten(1, self.domain.shape))

    def _cell_noise(self, x: Tensor) -> Tensor:
        """Return the place of each value inside its cell, a function of its row: (n, *x)."""
        return uniform_of_rows(x, self.domain.dims)[0].view(x.shape).to(self.mean)

    @property
    def _cell_variance(self) -> float:
        """Return the variance of a uniform draw from one cell of levels, 0 for real columns."""
        sizes = self.domain.cardinalities
        return 0.0 if sizes is None else 1 / (12 * sizes[0] ** 2)
