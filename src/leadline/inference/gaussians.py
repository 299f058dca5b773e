r"""Weighted Gaussians as one exponential family: what an EM step needs, in a few matrix products.

Log-densities are linear in statistics t(u) of a point, so that all components score all points in one
product, and all moments are another. With a = (1, u):

    full, tied             t(u) = a a^T, flattened: f = (d + 1)^2
    diagonal, spherical    t(u) = (1, u, u^2):      f = 1 + 2 d

Statistics are float64 (float32 on devices without it): a squared distance becomes a difference of large
terms, of which float32 would lose up to 7 digits at a condition number of 10^6.

Symbols:
    n points, d dimensions, K components, f statistics, u (n, d) points, t (n, f) statistics,
    w (K,) weights, m (K, d) means, S covariances, P precisions, L Cholesky factors,
    c pseudo-points of the prior, T (d,) their variances.

A prior adds c points of covariance T = diag(variances of all points) K^(-2/d) to those of each covariance, as
if the cloud were cut into K equal parts: log prior = -c sum_k KL(N(0, T) | N(0, S_k)), at most zero, and

    S_k = (n_k S_k of the moments + c T) / (n_k + c).

Source:
    Bishop (2006), Pattern Recognition and Machine Learning, sections 2.4 and 9.2. Prior: Fraley and Raftery
    (2007), Bayesian regularization for normal mixture estimation and model-based clustering, Journal of
    Classification 24, whose scale T is; here its points are counted, and means have no prior.
"""

import math
from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn

from leadline.core.randomness import categorical

__all__ = ["COVARIANCES", "Covariance", "Gaussians", "widened"]

Covariance = Literal["full", "tied", "diagonal", "spherical"]
COVARIANCES = ("full", "tied", "diagonal", "spherical")
_LOG_2PI = math.log(2 * math.pi)
_EMPTY = 1e-3  # a component that explains less of a sample than this has nothing to learn from
_TINY = 1e-300


class Gaussians(nn.Module):
    """`components` weighted Gaussians in `dims` dimensions, held in buffers.

    Args:
        components: Number K of Gaussians.
        dims: Number d of dimensions.
        covariance: Form of the covariances, one of `COVARIANCES`.
        floor: Least variance in any direction.
        prior: Number c of pseudo-points that pull each covariance, 0 for maximum likelihood; they take
            effect after `begin`, which measures their variances.
    """

    log_weights: Tensor
    means: Tensor
    scale: Tensor
    target: Tensor | None

    def __init__(
        self, components: int, dims: int, covariance: Covariance, floor: float, prior: float = 0.0
    ) -> None:
        super().__init__()
        self.covariance = covariance
        self.floor = floor
        self.prior = prior
        self.dense = covariance in ("full", "tied")
        self.register_buffer("log_weights", torch.full((components,), -math.log(components)))
        self.register_buffer("means", torch.randn(components, dims))
        # Cholesky factors of full and tied covariances, standard deviations of the others
        self.register_buffer("scale", self.shaped(torch.eye(dims)).clone())
        # variances T that the prior pulls to, zeros until they are known
        self.register_buffer("target", torch.zeros(dims) if prior else None)

    def make_room(self, shapes: dict[str, tuple[int, ...]]) -> None:
        """Have no prior if none was saved, given shapes by name: mixtures of before there was one."""
        if "target" not in shapes:
            self.target, self.prior = None, 0.0

    @property
    def pull(self) -> float:
        """Return how many pseudo-points pull each covariance: none before their variances are known."""
        return self.prior if self.target is not None and bool(self.target.any()) else 0.0

    def log_prior(self) -> float:
        """Return the log-density of the covariances under the prior, in nats; zero where they are T."""
        if self.target is None or not self.pull:
            return 0.0
        T, scale, d = _small(self.target), _small(self.scale), self.means.shape[1]
        if self.dense:
            P = torch.cholesky_inverse(scale).diagonal(dim1=-2, dim2=-1)  # (K, d), or (d,) tied
            log_det = 2 * scale.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        else:
            variances = scale.square() if scale.dim() == 2 else scale.square()[:, None].expand(-1, d)
            P, log_det = variances.reciprocal(), variances.log().sum(-1)
        divergence = ((P * T).sum(-1) - d + log_det - T.log().sum()) / 2
        return -self.pull * float(divergence.sum())

    @property
    def width(self) -> int:
        """Return the number f of statistics of a point."""
        d = self.means.shape[1]
        return (d + 1) ** 2 if self.dense else 1 + 2 * d

    @property
    def free_parameters(self) -> int:
        """Return the number of free parameters: weights, means and covariances."""
        k, d = self.means.shape
        triangle = d * (d + 1) // 2
        spread = {"full": k * triangle, "tied": triangle, "diagonal": k * d, "spherical": k}
        return k - 1 + k * d + spread[self.covariance]

    def statistics(self, u: Tensor) -> Tensor:
        """Return t(u) of points: (n, d) -> (n, f)."""
        one = u.new_ones(u.shape[0], 1)
        if not self.dense:
            return torch.cat([one, u, u * u], 1)
        a = torch.cat([one, u], 1)
        return (a[:, :, None] * a[:, None, :]).flatten(1)

    def natural(self) -> Tensor:
        """Return the matrix (f, K) for which t(u) @ natural = log w_k N(u; m_k, S_k)."""
        k, d = self.means.shape
        m, scale = _small(self.means), _small(self.scale)
        if self.dense:
            P = torch.cholesky_inverse(scale).expand(k, d, d)
            log_det = scale.diagonal(dim1=-2, dim2=-1).log().sum(-1)
            linear = (P @ m[:, :, None]).squeeze(-1)
        else:
            P = (scale if scale.dim() == 2 else scale[:, None]).square().reciprocal().expand(k, d)
            log_det = P.log().sum(-1) / -2
            linear = P * m
        constant = _small(self.log_weights) - d / 2 * _LOG_2PI - log_det - (m * linear).sum(-1) / 2
        if self.dense:
            block = P.new_empty(k, d + 1, d + 1)
            block[:, 0, 0] = constant
            block[:, 0, 1:] = block[:, 1:, 0] = linear / 2
            block[:, 1:, 1:] = P / -2
            rows = block.flatten(1)
        else:
            rows = torch.cat([constant[:, None], linear, P / -2], 1)
        return rows.T.to(device=self.means.device, dtype=widened(self.means).dtype)

    def expect(self, statistics: Iterable[Tensor]) -> tuple[float, Tensor]:
        """Return the summed log-likelihood of points and the moments r^T t(u), shape (K, f).

        Args:
            statistics: t(u) of the points, some rows at a time.
        """
        natural = self.natural()
        total, moments = natural.new_zeros(()), torch.zeros_like(natural).T
        for t in statistics:
            joint = t @ natural  # (rows, K)
            evidence = torch.logsumexp(joint, 1, keepdim=True)
            total = total + evidence.sum()
            moments = torch.addmm(moments, joint.sub_(evidence).exp_().T, t)
        return float(total), moments

    def begin(self, u: Tensor) -> None:
        """Stand on k-means++ centres of points (n, d), with their shared covariance.

        The centres are drawn from torch's global generator.
        """
        components = self.log_weights.shape[0]
        nearest = _nearest(u, _plus_plus(u, components))
        counts = torch.bincount(nearest, minlength=components).to(u)
        means = u.new_zeros(components, u.shape[1]).index_add_(0, nearest, u) / counts.clamp(min=1)[:, None]
        inside = u - means[nearest]
        shared = inside.T @ inside / u.shape[0]  # (d, d)
        weights = counts.clamp(min=0.5) / counts.clamp(min=0.5).sum()
        if self.target is not None:
            whole = (u - u.mean(0)).square().mean(0).clamp(min=self.floor)
            self.target.copy_(whole * components ** (-2 / u.shape[1]))
        self.place(weights.log(), means, self.shaped(shared))

    def maximise(self, moments: Tensor, stretch: Tensor | None = None) -> Tensor:
        """Become the most likely mixture of these moments (K, f); return which components are empty (K,).

        With a prior the most probable one. An empty component keeps its mean and its own covariance.

        Args:
            moments: Sums of the statistics of the points of each component.
            stretch: What the covariance of the points is multiplied by first (K,).
        """
        counts, means, spread = self._centred(moments)
        if stretch is not None:
            spread = spread * _like_rows(_small(stretch), spread)
        weights = counts / counts.sum()
        scale = self._factor(self._pulled(counts, self._constrained(spread, weights))).to(self.scale)
        empty = (counts < _EMPTY).to(self.means.device)
        if self.covariance != "tied":
            scale = torch.where(_like_rows(empty, scale), self.scale, scale)
        self.log_weights.copy_(weights.clamp(min=_TINY).log())
        self.means.copy_(torch.where(empty[:, None], self.means, means.to(self.means)))
        self.scale.copy_(scale)
        return empty

    def revive(self, empty: Tensor, rows: Tensor, moments: Tensor) -> None:
        """Put empty components on `rows`, with an even share of weight and the covariance of all moments."""
        _, _, spread = self._centred(moments.sum(0, keepdim=True))
        covariance = self._constrained(spread, spread.new_ones(1))
        self.means[empty] = rows.to(self.means)
        if self.covariance != "tied":
            self.scale[empty] = self._factor(covariance).to(self.scale)
        self.log_weights[empty] = -math.log(len(empty))
        self.log_weights.copy_(torch.log_softmax(self.log_weights, 0))

    def place(self, log_weights: Tensor, means: Tensor, covariance: Tensor) -> None:
        """Become the mixture of these; covariances in the form of `covariance`, raised to the floor."""
        self.log_weights.copy_(log_weights)
        self.means.copy_(means)
        self.scale.copy_(self._factor(_small(covariance)))

    def shaped(self, shared: Tensor) -> Tensor:
        """Return one covariance (d, d) given to every component, in the form of `covariance`."""
        k = self.log_weights.shape[0]
        if self.dense:
            return shared if self.covariance == "tied" else shared.expand(k, *shared.shape)
        own = shared.diagonal().expand(k, -1)
        return own if self.covariance == "diagonal" else own.mean(1)

    def spread(self, noise: Tensor, component: int) -> Tensor:
        """Return noise N(0, I) with the covariance of one component: (n, d) -> (n, d)."""
        if not self.dense:
            return noise * self.scale[component]
        return noise @ (self.scale if self.covariance == "tied" else self.scale[component]).T

    def _centred(self, moments: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return counts (K,), means (K, d), and covariances (K, d, d) or variances (K, d)."""
        d = self.means.shape[1]
        moments = _small(moments)
        counts = moments[:, 0]
        share = moments / counts.clamp(min=_TINY)[:, None]
        means = share[:, 1 : d + 1]
        if not self.dense:
            return counts, means, share[:, d + 1 :] - means.square()
        second = share.unflatten(1, (d + 1, d + 1))[:, 1:, 1:]
        return counts, means, second - means[:, :, None] * means[:, None, :]

    def _constrained(self, spread: Tensor, weights: Tensor) -> Tensor:
        """Return the best covariances of the chosen form: the average over what is shared."""
        if self.covariance == "tied":
            return torch.tensordot(weights, spread, 1)
        return spread.mean(-1) if self.covariance == "spherical" else spread

    def _pulled(self, counts: Tensor, covariance: Tensor) -> Tensor:
        """Return covariances of `counts` points (K,) in their form, with those of the prior added."""
        c = self.pull
        if self.target is None or not c:
            return covariance
        T = _small(self.target)
        own = {"full": T.diag(), "tied": T.diag(), "diagonal": T, "spherical": T.mean()}[self.covariance]
        n = counts.sum() if self.covariance == "tied" else _like_rows(counts, covariance)
        return (n * covariance + c * own) / (n + c)

    def _factor(self, covariance: Tensor) -> Tensor:
        """Return the scale of covariances whose eigenvalues are raised to the floor."""
        if not self.dense:
            return covariance.clamp(min=self.floor).sqrt()
        flat = covariance.reshape(-1, *covariance.shape[-2:]).clone()
        eye = torch.eye(flat.shape[-1], dtype=flat.dtype)
        low = torch.linalg.cholesky_ex(flat - self.floor * eye).info > 0  # an eigenvalue is below the floor
        if bool(low.any()):
            values, vectors = torch.linalg.eigh(flat[low])
            flat[low] = (vectors * values.clamp(min=self.floor)[:, None, :]) @ vectors.mT
        return torch.linalg.cholesky(flat).view_as(covariance)


def widened(x: Tensor) -> Tensor:
    """Return `x` in float64, or in float32 where the device has no float64."""
    return x.to(torch.float32 if x.device.type == "mps" else torch.float64)


def _plus_plus(u: Tensor, count: int) -> Tensor:
    """Return `count` rows of `u` (n, d), each drawn in proportion to its squared distance to those before."""
    first = torch.randint(u.shape[0], (), device="cpu").to(u.device)
    centres = [u[first]]
    distance = (u - centres[0]).square().sum(1)
    for _ in range(count - 1):
        # When every row lies on a centre all distances are zero and any row will do.
        pick = categorical(distance.clamp(min=1e-300).log())
        centres.append(u[pick])
        distance = torch.minimum(distance, (u - u[pick]).square().sum(1))
    return torch.stack(centres)


def _nearest(u: Tensor, centres: Tensor) -> Tensor:
    """Return the number of the nearest centre of each row: (n, d), (K, d) -> (n,)."""
    return torch.cdist(u, centres, compute_mode="donot_use_mm_for_euclid_dist").argmin(1)


def _small(x: Tensor) -> Tensor:
    """Return the parameters of K components where all of linear algebra exists: float64 on the CPU."""
    return x.cpu().double()


def _like_rows(mask: Tensor, x: Tensor) -> Tensor:
    """Return a mask (K,) that broadcasts over the rows of `x` (K, ...)."""
    return mask.view(-1, *[1] * (x.dim() - 1))
