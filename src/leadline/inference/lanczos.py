r"""Extreme eigenpairs of a symmetric operator that is known by its products alone, each with an error.

Lanczos' process builds an orthonormal basis V of the Krylov space of a start vector, with T = V H V^T.
An eigenpair (t, s) of T gives the Ritz pair (t, s V), whose residual |H q - t q| = |b s_m| costs no
product. Some eigenvalue of H lies within the residual of t (Weyl); where t stands apart from the others,
t is nearer still: within residual^2 / gap (Kato and Temple).

The basis is orthogonalised in full, twice, so that no eigenvalue appears two times; when it is full it is
restarted from the Ritz vectors of both ends ("thick restart"), so that memory stays bounded.

Symbols:
    d size of the operator, m size of the basis, H (d, d), V (m, d), T (m, m), t Ritz values,
    s (m,) eigenvectors of T, b the norm of what is left of H v_m.

Source:
    Wu and Simon (2000), Thick-restart Lanczos method for large symmetric eigenvalue problems, SIAM J.
    Matrix Anal. Appl. 22(2). Errors: Parlett (1998), The Symmetric Eigenvalue Problem, sections 4.5, 11.7.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from leadline.core.errors import DivergenceError, OptionError

__all__ = ["Eigenpairs", "Krylov", "eigenpairs"]

Product = Callable[[Tensor], Tensor]
EXTRA = 40  # vectors of the basis beyond those wanted, where memory does not matter
LOST = {torch.float32: 1e-6, torch.float64: 1e-11}  # relative remainder below which a space is invariant


@dataclass(frozen=True)
class Eigenpairs:
    """Eigenpairs from the largest to the smallest; for both ends, first the largest ones.

    Args:
        values: Ritz values (k,), float64.
        vectors: Unit Ritz vectors (k, d).
        residuals: |H q - t q| (k,): an eigenvalue lies within that of each value.
        errors: Estimated error of each value (k,), by the gap where there is one, never above the residual;
            both hold the rounding of the products, seen where they are not symmetric.
        products: Products with H that were spent.
        converged: Whether every error is within the tolerance.
        space: The Krylov space, for those who go on with it.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    errors: Tensor
    products: int
    converged: bool
    space: "Krylov"


class Krylov:
    """An orthonormal basis V of at most `most` vectors, with T = V H V^T.

    Args:
        product: v (d,) -> H v (d,), H symmetric.
        start: First vector (d,), not zero.
        most: Largest number of vectors, at least 2 where d is.
        generator: Source of the vectors with which an invariant space is left.

    Raises:
        OptionError: If the start is zero or not a vector.
    """

    def __init__(
        self, product: Product, start: Tensor, most: int, generator: torch.Generator | None = None
    ) -> None:
        norm = float(start.norm()) if start.dim() == 1 and start.numel() else 0.0
        if not 0 < norm < float("inf"):
            raise OptionError("the start of a Krylov space must be one vector, finite and not zero")
        self.product, self.generator = product, generator
        self.most = min(most, start.numel())
        self.vectors = start.new_zeros(self.most + 1, start.numel())
        self.vectors[0] = start / norm
        self.matrix = torch.zeros(self.most, self.most, dtype=torch.float64)
        self.size = 0
        self.left = 0.0  # b, the norm of what the space does not hold of H v_m
        self.rounding = 0.0  # how far products were from symmetric
        self.expected = torch.zeros(0, dtype=torch.float64)  # V H v for the v that comes next
        self.products = 0

    @property
    def basis(self) -> Tensor:
        """Return V, shape (m, d)."""
        return self.vectors[: self.size]

    @property
    def projected(self) -> Tensor:
        """Return T = V H V^T, shape (m, m), float64."""
        return self.matrix[: self.size, : self.size]

    @property
    def full(self) -> bool:
        """Return whether the basis has no room for another vector."""
        return self.size == self.most

    @property
    def complete(self) -> bool:
        """Return whether the basis spans the whole space, so that every Ritz pair is exact."""
        return self.size == self.vectors.shape[1]

    def grow(self) -> None:
        """Take one more vector into the basis, at the cost of one product.

        Raises:
            DivergenceError: If the product is not finite.
        """
        row = self.size
        w = self.product(self.vectors[row])
        scale = float(w.norm())
        if not scale < float("inf"):
            raise DivergenceError("a product with the Hessian is not finite; the loss is not smooth here")
        self.size, self.products = row + 1, self.products + 1
        w, along = self._orthogonal(w)
        if row:
            self.rounding = max(self.rounding, float((along[:row] - self.expected).abs().max()))
        self.matrix[row, : self.size] = self.matrix[: self.size, row] = along
        self.left = float(w.norm())
        if self.left <= LOST[w.dtype] * max(scale, float(self.projected.abs().max())):
            self.left = 0.0  # an invariant space: go on outside of it
            w, _ = self._orthogonal(torch.empty_like(w).normal_(generator=self.generator))
        self.vectors[self.size] = w / w.norm() if not self.complete else 0.0
        self.expected = torch.zeros(self.size, dtype=torch.float64)
        self.expected[row] = self.left

    def ritz(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return Ritz values (m,) in ascending order, their residuals (m,) and coefficients (m, m)."""
        values, coefficients = torch.linalg.eigh(self.projected)
        residuals = torch.zeros_like(values) if self.complete else self.left * coefficients[-1].abs()
        return values, residuals, coefficients

    def restart(self, kept: Tensor, coefficients: Tensor) -> None:
        """Go on from the Ritz vectors numbered `kept`, and the vector that would have come next."""
        chosen = coefficients[:, kept]
        values = torch.linalg.eigvalsh(self.projected)[kept]
        count = len(kept)
        following = self.vectors[self.size].clone()
        self.vectors[:count] = chosen.T.to(self.vectors) @ self.basis
        self.vectors[count] = following
        self.matrix.zero_()
        self.matrix[range(count), range(count)] = values
        self.size = count
        self.expected = self.left * coefficients[-1, kept]

    def _orthogonal(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """Return what V does not hold of w, and V w (m,): Gram and Schmidt, twice."""
        total = torch.zeros(self.size, dtype=torch.float64)
        for _ in range(2):
            along = self.basis @ w
            w = w - along @ self.basis
            total += along.double().cpu()
        return w, total


def eigenpairs(
    product: Product,
    start: Tensor,
    *,
    largest: int = 1,
    smallest: int = 0,
    tolerance: float = 1e-3,
    most: int = 300,
    basis: int | None = None,
    generator: torch.Generator | None = None,
) -> Eigenpairs:
    """Return the largest and the smallest (most negative) eigenpairs of H, each to a tolerance.

    A residual proves that an eigenvalue is there; that none lies beyond it holds with probability one
    for a random start, but for eigenvalues that are nearly equal: of a cluster one may stand for several.

    Args:
        product: v (d,) -> H v (d,), H symmetric.
        start: A random vector (d,), whose type and device the work has.
        largest: How many from the upper end.
        smallest: How many from the lower end.
        tolerance: Largest error of each, relative to the eigenvalue of largest magnitude, above 0.
        most: Products after which to stop, converged or not.
        basis: Most vectors kept at a time; at least `largest + smallest + 2`.
        generator: Source of the vectors with which an invariant space is left.

    Raises:
        OptionError: If a number is out of range.
        DivergenceError: If a product is not finite.
    """
    wanted = largest + smallest
    if min(largest, smallest) < 0 or not 1 <= wanted <= start.numel():
        raise OptionError(f"between 1 and {start.numel()} eigenpairs can be asked for, got {wanted}")
    if not tolerance > 0 or most < 1:
        raise OptionError(f"tolerance must be above 0 and most at least 1, got {tolerance} and {most}")
    room = max(wanted + 2, wanted + EXTRA if basis is None else basis)
    space = Krylov(product, start, room, generator)
    settled: Tensor | None = None
    while True:
        space.grow()
        values, residuals, coefficients = space.ritz()
        if space.size < wanted:
            continue
        ends = [*range(space.size - 1, space.size - 1 - largest, -1), *range(smallest)]
        scale = float(values.abs().max())
        errors = _errors(values, residuals, exact=space.complete) + space.rounding
        near = errors[ends] <= tolerance * scale
        done = bool(near.all()) and _decided(space, values[ends], settled, tolerance * scale, wanted)
        if done or space.complete or space.products >= most:
            break
        if space.left == 0:
            settled = values[ends]
        if space.full:
            space.restart(_kept(values, largest, smallest, space.most), coefficients)
    vectors = coefficients[:, ends].T.to(space.basis) @ space.basis
    residuals = residuals + space.rounding
    return Eigenpairs(values[ends], vectors, residuals[ends], errors[ends], space.products, done, space)


def _decided(space: Krylov, values: Tensor, settled: Tensor | None, near: float, wanted: int) -> bool:
    """Return whether the space tells enough of H to judge by.

    An invariant space says nothing of what is outside; if another start, orthogonal to it, leads to an
    invariant space too and changes nothing, then what is outside lies between.
    """
    if space.complete:
        return True
    if space.left == 0:
        return settled is not None and bool(((values - settled).abs() <= near).all())
    return space.size > wanted  # a space no larger has no neighbour to judge a gap by


def _kept(values: Tensor, largest: int, smallest: int, room: int) -> Tensor:
    """Return which Ritz vectors outlive a restart: those wanted and as many of their neighbours as help."""
    more = (room - largest - smallest - 1) // 2
    above = largest + (more if smallest == 0 else more // 2) if largest else 0
    below = smallest + (more if largest == 0 else more // 2) if smallest else 0
    count = len(values)
    above, below = min(above, count - 1), min(below, max(count - 1 - above, 0))
    return torch.tensor([*range(below), *range(count - above, count)])


def _errors(values: Tensor, residuals: Tensor, *, exact: bool) -> Tensor:
    """Return min(residual, residual^2 / gap) of each value; a neighbour may be as near as its residual."""
    if exact or len(values) == 1:
        return residuals
    reach = torch.full((1,), float("inf"), dtype=values.dtype)
    gaps = values.diff()
    to_next = torch.cat([gaps - residuals[1:], reach])
    to_last = torch.cat([reach, gaps - residuals[:-1]])
    gap = torch.minimum(to_next, to_last)
    return torch.where(gap > residuals, residuals.square() / gap, residuals)
