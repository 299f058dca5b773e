r"""Distances between two sets of feature rows: Fréchet distance, precision and recall, inception-type score.

    d^2 = |mu_1 - mu_2|^2 + tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2))

Symbols:
    n, m rows, f features, mu mean, S covariance, k neighbours, K classes.

Source:
    Heusel et al. (2017), GANs Trained by a Two Time-Scale Update Rule, equation 6;
    Kynkäänniemi et al. (2019), Improved Precision and Recall Metric, equations 1 and 2;
    Salimans et al. (2016), Improved Techniques for Training GANs, section 4.

Departs from the source:
    The root is found as that of the symmetric matrix S_1^(1/2) S_2 S_1^(1/2), which has the same
    eigenvalues, so that nothing turns complex. The features are those of a named classifier of the
    data, not of Inception-v3.
"""

import torch
from torch import Tensor

__all__ = ["frechet_distance", "inception_score", "nearest_distances", "precision_recall"]

BLOCK = 256
WIDE = 512


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Return the squared Fréchet distance of normals fitted to rows a (n, f) and b (m, f); n, m >= 2."""
    a, b = a.double(), b.double()
    first, second = _covariance(a), _covariance(b)
    root = _psd_root(first)
    eigenvalues = torch.linalg.eigvalsh(root @ second @ root).clamp(min=0)
    trace = torch.trace(first) + torch.trace(second) - 2 * eigenvalues.sqrt().sum()
    return max(0.0, float((a.mean(0) - b.mean(0)).square().sum() + trace))


def _covariance(rows: Tensor) -> Tensor:
    centred = rows - rows.mean(0)
    return centred.T @ centred / (len(rows) - 1)


def _psd_root(matrix: Tensor) -> Tensor:
    """Return the symmetric root of a positive semi-definite matrix; eigenvalues below 0 are rounding."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def precision_recall(real: Tensor, made: Tensor, k: int = 3) -> tuple[float, float]:
    """Return the share of `made` in the k-neighbour balls of `real`, and of `real` in those of `made`.

    Args:
        real: Feature rows of real samples (n, f), n > k.
        made: Feature rows of generated samples (n, f), of equal number.
        k: Neighbours that give the radius of a ball.
    """
    real, made = real.double(), made.double()
    return _inside(made, real, k), _inside(real, made, k)


def _inside(points: Tensor, centres: Tensor, k: int) -> float:
    """Return the share of points within at least one centre's distance to its k-th neighbour."""
    # the nearest of the k + 1 smallest distances is that of a centre to itself
    radius = torch.cat(
        [_distances(block, centres).kthvalue(k + 1, 1).values for block in centres.split(BLOCK)]
    )
    inside = [(_distances(block, centres) <= radius).any(1) for block in points.split(BLOCK)]
    return float(torch.cat(inside).double().mean())


def inception_score(logp: Tensor) -> float:
    """Return exp E KL(p(y | x) || p(y)) of class log-probabilities (n, K): between 1 and K."""
    logp = logp.double()
    share = logp.exp()
    marginal = share.mean(0)
    each = torch.special.entr(share).sum(1)
    return float((torch.special.entr(marginal).sum() - each.mean()).exp())


def nearest_distances(rows: Tensor, to: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distance to, and the place of, the nearest row of `to` (m, f) for each of (n, f)."""
    found = [_distances(block, to).min(1) for block in rows.double().split(BLOCK)]
    return torch.cat([pair.values for pair in found]), torch.cat([pair.indices for pair in found])


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """Return Euclidean distances, (n, f), (m, f) -> (n, m); those of equal rows are zero.

    Wide rows go through the squared form, in float64, whose cancellation near zero is cut off.
    """
    b = b.to(a)
    if a.shape[1] <= WIDE:
        return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
    sizes = a.square().sum(1)[:, None] + b.square().sum(1)
    squares = torch.addmm(sizes, a, b.T, alpha=-2)
    return torch.where(squares > 1e-12 * sizes, squares, 0.0).clamp_(min=0).sqrt_()
