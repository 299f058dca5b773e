r"""Pixels whose gaussianised units are normal: the mass of a level is that of its cell.

    p(x = k) = Phi((b_k+1 - m) / s) - Phi((b_k - m) / s),        b_k = Phi^-1(sum_{j < k} H(j))

With m = 0 and s = 1 it is the histogram H of the pixel; no noise is needed, and nothing is bounded.

Symbols:
    n samples, d pixels x (n, *shape), q levels, m means and s scales (n, d), b (d, q + 1) ends of cells, H as
    in `leadline.nets.marginals`.

Source:
    Chen and Gopinath (2000), Gaussianization, NIPS, section 3.
    Cells: Salimans et al. (2017), PixelCNN++, section 2.1.
"""

import torch
from torch import Tensor

from leadline.core import Images
from leadline.core.likelihoods import Likelihood
from leadline.core.randomness import normal
from leadline.nets.marginals import Marginals

__all__ = ["CellNormal"]

_LEAST_GAP = 1e-7  # of two log-masses, where their difference drowns in rounding
_FARTHEST = 1000.0  # standard deviations, behind which slopes of log Phi overflow


class CellNormal(Likelihood):
    """Independent normals over the units of pixels; mean and log-scale of each.

    Args:
        domain: Pictures.
        marginals: The map of its pixels, which may still be learned.
    """

    def __init__(self, domain: Images, marginals: Marginals) -> None:
        super().__init__(domain.shape, [2] * domain.dims, domain.dtype)
        self.domain, self.marginals = domain, marginals

    def column(self, dim: int) -> "CellNormal":
        """Return the head of pixel `dim` alone."""
        return CellNormal(self.domain.column(dim), self.marginals.column(dim))

    def log_prob_each(self, params: Tensor, x: Tensor) -> Tensor:
        """Return log p of each pixel in nats: (..., n, P), (n, *shape) -> (..., n, d)."""
        centre, inverse = self._moments(params)
        low, high = (end.to(params) for end in self.marginals.ends_of(x))
        below, above = (((end - centre) * inverse).clamp(-_FARTHEST, _FARTHEST) for end in (low, high))
        # a cell right of the mean is mirrored to its left, where log Phi keeps its digits
        mirrored = below + above > 0
        least = torch.special.log_ndtr(torch.where(mirrored, -above, below))
        most = torch.special.log_ndtr(torch.where(mirrored, -below, above))
        return most + torch.log(-torch.expm1((least - most).clamp(max=-_LEAST_GAP)))

    def mean(self, params: Tensor) -> Tensor:
        """Return the expected level: (n, P) -> (n, *shape)."""
        centre, inverse = self._moments(params)
        inner = self.marginals.ends()[:, 1:-1].to(params)  # (d, q - 1)
        above = torch.special.ndtr((centre[..., None] - inner) * inverse[..., None])
        return above.sum(-1).unflatten(-1, self.shape)

    def point(self, params: Tensor) -> Tensor:
        """Return the level of the mean unit, which is the median: (n, P) -> (n, *shape)."""
        return self._levels(self._moments(params)[0])

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return one raw draw a row: (n, P) -> (n, *shape)."""
        centre, inverse = self._moments(params)
        return self._levels(centre + normal(tuple(centre.shape), centre, generator) / inverse)

    def _moments(self, params: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and inverse scale of each unit: (..., P) -> two of (..., d)."""
        centre, log_scale = self._split(params).unbind(-1)
        return centre, torch.exp(-log_scale.clamp(-4.0, 4.0))

    def _levels(self, v: Tensor) -> Tensor:
        return self.marginals.levels_of(v).to(self.dtype).unflatten(-1, self.shape)
