r"""k-means clustering.

    minimise  sum_i min_k |u_i - c_k|^2
by turns: every sample goes to its nearest centre, every centre to the mean of its samples.

Symbols:
    x (n, *shape) raw samples, u (n, d) their real coordinates, c (K, d) centres, R number of restarts.

Source:
    Lloyd (1982), Least squares quantization in PCM, IEEE Transactions on Information Theory 28(2).
    Start: Arthur and Vassilvitskii (2007), k-means++: The Advantages of Careful Seeding.
"""

import warnings

import numpy as np
import torch
from sklearn.cluster import KMeans as SklearnKMeans
from sklearn.cluster import kmeans_plusplus
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor, nn

from leadline.core import Bits, Classes, DataError, Described, Domain, Images, OptionError, Vectors
from leadline.core.errors import checked_codes

__all__ = ["KMeans"]

_STILL = 1e-8  # centres that move by less than this part of the mean variance have come to rest


class KMeans(nn.Module):
    """Clusters around centres, several restarts side by side; the best one answers.

    Distances are between real coordinates: levels divided by their number, columns standardised.

    Verbs:
        encode, decode

    Args:
        domain: What one sample is: `Images`, `Bits` or `Vectors`.
        clusters: Number K of clusters, at least 1.
        restarts: Number R of independent starts by k-means++, at least 1.

    Raises:
        OptionError: If an option is out of range.

    Example:
        >>> model = KMeans(Vectors.standard(1), clusters=2)
        >>> x = torch.tensor([[0.0], [0.2], [5.0], [5.2]])
        >>> while not model.converged:
        ...     _ = model.sweep(x)
        >>> model.decode(model.encode(x)).flatten()
        tensor([0.1000, 0.1000, 5.1000, 5.1000])
    """

    centres: Tensor
    inertia: Tensor
    shift: Tensor

    def __init__(self, domain: Domain, clusters: int = 10, restarts: int = 4) -> None:
        super().__init__()
        self.domain = domain.require(Images, Bits, Vectors)
        if clusters < 1 or restarts < 1:
            raise OptionError(f"clusters and restarts must be at least 1, got {clusters} and {restarts}")
        self.register_buffer("centres", torch.zeros(restarts, clusters, domain.dims))
        self.register_buffer("inertia", torch.full((restarts,), float("inf")))
        # How far the centres moved in the last sweep, as a part of the mean variance; infinite before any.
        self.register_buffer("shift", torch.full((restarts,), float("inf")))

    @classmethod
    def for_data(cls, data: Described, *, clusters: int | None = None, restarts: int = 4) -> "KMeans":
        """Return a model with as many clusters as there are classes, or 10, unless told otherwise."""
        if clusters is None:
            clusters = data.labels.outputs if isinstance(data.labels, Classes) else 10
        return cls(data.domain, clusters, restarts)

    @property
    def converged(self) -> bool:
        """Return whether the centres of every restart have come to rest."""
        return bool((self.shift <= _STILL).all())

    def sweep(self, x: Tensor) -> float:
        """Take one step of Lloyd's in every restart; return minus the best mean squared distance.

        The first sweep draws the starts from torch's global generator.

        Raises:
            DataError: If there are fewer samples than clusters.
        """
        clusters = self.centres.shape[1]
        if x.shape[0] < clusters:
            raise DataError(f"kmeans with clusters={clusters} needs as many samples, got {x.shape[0]}")
        u = self._coordinates(x)
        if bool(self.inertia.isinf().all()):
            self.centres.copy_(torch.stack([_start(u, clusters) for _ in self.centres]))
        spread = u.var(0, correction=0).mean().clamp(min=torch.finfo(u.dtype).tiny)
        for centres, inertia, shift in zip(self.centres, self.inertia, self.shift, strict=True):
            found, cost = _lloyd(u, centres)
            shift.copy_((found - centres).square().sum() / spread)
            centres.copy_(found)
            inertia.fill_(cost / u.shape[0])
        return -float(self.inertia.min())

    def encode(self, x: Tensor) -> Tensor:
        """Return minus the distance to each centre, largest at the nearest: (n, *x) -> (n, K)."""
        return -torch.cdist(self._coordinates(x), self._best, compute_mode="donot_use_mm_for_euclid_dist")

    def decode(self, z: Tensor) -> Tensor:
        """Return the centre where the code is largest, as a raw sample: (n, K) -> (n, *x)."""
        nearest = self._best[checked_codes(z, len(self._best)).to(self.centres.device).argmax(1)]
        return self.domain.quantize(nearest.unflatten(1, self.domain.shape))

    def assign(self, x: Tensor) -> Tensor:
        """Return the number of the nearest centre: (n, *x) -> (n,)."""
        return self.encode(x).argmax(1)

    @property
    def _best(self) -> Tensor:
        """Return the centres of the best restart, (K, d)."""
        return self.centres[self.inertia.argmin()]

    def _coordinates(self, x: Tensor) -> Tensor:
        """Return real coordinates as rows: (n, *x) -> (n, d)."""
        return self.domain.continuous(x, None, self.centres).flatten(1)


def _start(u: Tensor, clusters: int) -> Tensor:
    """Return samples far from each other, by k-means++: (n, d) -> (K, d)."""
    seed = int(torch.randint(1 << 31, ()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        centres, _ = kmeans_plusplus(_array(u), clusters, random_state=seed)
    return torch.from_numpy(centres).to(u)


def _lloyd(u: Tensor, centres: Tensor) -> tuple[Tensor, float]:
    """Return the centres after one step, and the sum of squared distances to them."""
    step = SklearnKMeans(len(centres), init=_array(centres), n_init=1, max_iter=1, tol=0)
    with warnings.catch_warnings():
        # Equal samples can leave clusters empty; that is no fault.
        warnings.simplefilter("ignore", ConvergenceWarning)
        step.fit(_array(u))
    return torch.from_numpy(step.cluster_centers_).to(u), float(step.inertia_)


def _array(u: Tensor) -> np.ndarray:
    """Return a tensor as scikit-learn takes it, in single or double precision."""
    return u.cpu().to(torch.promote_types(u.dtype, torch.float32)).numpy()
