r"""Critical points of a function, of any index, by damped Newton steps that lower the norm of the gradient.

    step = -(H^2 + m I)^-1 H g,  m small where steps succeed (Newton) and large where they fail

The step descends on |g|^2 / 2, whose gradient is H g, so it goes to saddles as readily as to minima. It can
end where H g = 0 but g is not: such a place is no critical point, and is told by its gradient.

Symbols:
    p (n, d) points that move independently, g (n, d) gradients, H (n, d, d) Hessians, m (n,) damping.

Source:
    Levenberg (1944), A method for the solution of certain non-linear problems in least squares, Quarterly of
    Applied Mathematics 2. Places that are no critical points: Frye et al. (2021), Critical point-finding
    methods reveal gradient-flat regions of deep network losses, Neural Computation 33(6).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import grad, jacrev, vmap

__all__ = ["Critical", "critical_points", "index_of"]

CLEAR = 1e-6  # an eigenvalue nearer to zero, relative to the largest in magnitude, has no sign
EASIER, HARDER, LEAST = 0.2, 5.0, 1e-14


@dataclass(frozen=True)
class Critical:
    """Where the steps ended.

    Args:
        points: p (n, d).
        values: Value of the function (n,).
        norms: |g| (n,).
        spectra: Eigenvalues of H, ascending (n, d).
    """

    points: Tensor
    values: Tensor
    norms: Tensor
    spectra: Tensor

    @property
    def index(self) -> Tensor:
        """Return the share of negative eigenvalues of each (n,)."""
        return index_of(self.spectra)


def index_of(spectra: Tensor) -> Tensor:
    """Return the share of eigenvalues that lie below zero, clear of rounding: (n, d) -> (n,)."""
    zero = CLEAR * spectra.abs().amax(1, keepdim=True)
    return (spectra < -zero).double().mean(1)


def critical_points(
    function: Callable[[Tensor], Tensor], start: Tensor, *, steps: int, near: float = 1e-9
) -> Critical:
    """Return where damped Newton steps on the norm of the gradient lead.

    Args:
        function: p (d,) -> (), twice differentiable.
        start: First points (n, d), float64.
        steps: Most steps of each.
        near: Norm of the gradient at which a point is left alone.
    """
    slopes, curvatures = vmap(grad(function)), vmap(jacrev(grad(function)))
    p, g = start.clone(), slopes(start)
    damping = torch.full((len(p),), 1e-3, dtype=p.dtype)
    values, vectors = torch.linalg.eigh(curvatures(p))
    for _ in range(steps):
        norms = g.norm(dim=1)
        if bool((norms <= near).all()):
            break
        along = torch.einsum("ndk,nd->nk", vectors, g)  # g in the basis of eigenvectors
        weights = values / (values.square() + (damping * values.square().amax(1))[:, None])
        trial = p - torch.einsum("ndk,nk->nd", vectors, weights * along)
        slope = slopes(trial)
        better = (slope.norm(dim=1) < norms) & (norms > near)
        p, g = torch.where(better[:, None], trial, p), torch.where(better[:, None], slope, g)
        damping = torch.where(better, damping * EASIER, damping * HARDER).clamp(min=LEAST)
        if bool(better.any()):
            values[better], vectors[better] = torch.linalg.eigh(curvatures(p[better]))
    return Critical(p, vmap(function)(p), g.norm(dim=1), values)
