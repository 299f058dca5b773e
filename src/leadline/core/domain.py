"""What one sample is, in general: its shape, its raw values, and what follows from them.

Every model takes and gives raw values of a domain. What a network needs instead stands here once:
`features` (standardised, one-hot), `continuous` (dequantised, with the exact change of density) and
`likelihood` (a head over raw values).

Symbols:
    n samples, d dimensions of a sample, f features.
"""

import itertools
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from leadline.core.errors import DomainError, OptionError, ShapeError
from leadline.core.likelihoods import Likelihood

__all__ = ["Domain", "float_like"]

D = TypeVar("D", bound="Domain")
MOST_STATES = 1 << 16


@dataclass(frozen=True)
class Domain(ABC):
    """What one raw sample is. Concrete domains are frozen and compare by value."""

    kind: ClassVar[str]
    heads: ClassVar[tuple[str, ...]]
    convert: ClassVar[str] = ""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Return the shape of one sample."""

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """Return the type of raw samples."""

    @property
    def dims(self) -> int:
        """Return the number d of dimensions, the divisor of bits per dimension."""
        return math.prod(self.shape)

    @property
    def cardinalities(self) -> tuple[int, ...] | None:
        """Return the number of values of each dimension in flat order, or None if not finite."""
        return None

    @property
    def names(self) -> tuple[str, ...]:
        """Return what the dimensions are called, in flat order; nothing if they have no names."""
        return ()

    @property
    def planes(self) -> tuple[int, int, int] | None:
        """Return (channels, height, width) if a sample is a picture, else None."""
        return None

    @property
    @abstractmethod
    def feature_owners(self) -> Tensor:
        """Return the dimension that each feature is computed from, shape (f,)."""

    @property
    def feature_count(self) -> int:
        """Return the number f of features."""
        return len(self.feature_owners)

    @abstractmethod
    def column(self, dim: int) -> "Domain":
        """Return the domain of dimension `dim` alone, with shape (1,) or (1, 1, 1)."""

    @abstractmethod
    def shrunken(self) -> "Domain":
        """Return a small domain of the same kind, to be enumerated or integrated over."""

    def likelihood(self, head: str | None = None) -> Likelihood:
        """Return a head over raw samples; `head` is one of `heads`, the first that fits by default.

        Raises:
            OptionError: If the domain has no such head.
        """
        name = head or self._default_head()
        if name not in self.heads:
            raise OptionError(f"{self} has no likelihood {name!r}; it has {', '.join(self.heads)}")
        return self._make_head(name)

    def _default_head(self) -> str:
        return self.heads[0]

    @abstractmethod
    def _make_head(self, name: str) -> Likelihood: ...

    def features(self, x: Tensor, like: Tensor | None = None) -> Tensor:
        """Return what a network reads, of unit size: (n, *shape) -> (n, f), type and device of `like`."""
        return self._features(self.checked(x), float_like(x, like))

    @abstractmethod
    def _features(self, x: Tensor, like: Tensor) -> Tensor: ...

    def continuous(self, x: Tensor, noise: Tensor | None = None, like: Tensor | None = None) -> Tensor:
        """Return real coordinates u of unit size, so that log p(x) >= E log p(u) + `log_volume`.

        Discrete values v of q levels become (v + noise) / q in [0, 1), and the inequality is that of
        uniform dequantisation (Theis et al. 2016, section 3.1); real values are standardised, with
        equality.

        Args:
            x: Raw samples (n, *shape).
            noise: Draws from U[0, 1) that broadcast with x; the middle of the cell if None.
            like: Tensor whose type and device the result takes.

        Raises:
            DomainError: If values have no order (categories, words).
        """
        raise DomainError(f"{self} has no real coordinates; {self.convert or 'use another model'}")

    def quantize(self, u: Tensor) -> Tensor:
        """Return the raw samples of real coordinates, outside ones moved to the nearest value."""
        raise DomainError(f"{self} has no real coordinates; {self.convert or 'use another model'}")

    @property
    def log_volume(self) -> float:
        """Return the log of the volume of u in one unit of x: what log p(u) lacks to log p(x), in nats."""
        raise DomainError(f"{self} has no real coordinates; {self.convert or 'use another model'}")

    @abstractmethod
    def show(self, sample: Tensor) -> str:
        """Return one raw sample as a line of text."""

    def checked(self, x: Tensor) -> Tensor:
        """Return `x` if its samples have this domain's shape.

        Raises:
            ShapeError: If they do not.
        """
        if not isinstance(x, Tensor):
            raise ShapeError(f"expected a tensor of samples, got {type(x).__name__}")
        if x.dim() == 0 or tuple(x.shape[1:]) != self.shape:
            want = ", ".join(str(size) for size in self.shape)
            raise ShapeError(f"{self} needs samples of shape (n, {want}), got {tuple(x.shape)}")
        return x

    def validated(self, x: Tensor) -> Tensor:
        """Return `x` if shape and every value belong to the domain.

        Raises:
            ShapeError: If a value does not; the message names the first such sample.
        """
        flat = self.checked(x).flatten(1)
        bad = ~torch.isfinite(flat) if flat.is_floating_point() else torch.zeros_like(flat, dtype=torch.bool)
        if self.cardinalities is not None:
            top = torch.tensor(self.cardinalities, device=x.device)
            bad = (
                bad | (flat < 0) | (flat >= top) | (flat != flat.floor() if flat.is_floating_point() else bad)
            )
        if bool(bad.any()):
            row, place = (int(i) for i in bad.nonzero()[0])
            raise ShapeError(
                f"sample {row}, dimension {place}: {flat[row, place].item()} is not a value of {self}"
            )
        return x

    def states(self) -> Tensor:
        """Return every raw sample of a small discrete domain: (states, *shape).

        Raises:
            DomainError: If the domain is not finite or has more than 65,536 states.
        """
        sizes = self.cardinalities
        if sizes is None or math.prod(sizes) > MOST_STATES:
            raise DomainError(f"{self} has too many states to list")
        rows = list(itertools.product(*(range(size) for size in sizes)))
        return torch.tensor(rows, dtype=self.dtype).view(len(rows), *self.shape)

    def require(self, *kinds: type[D]) -> D:
        """Return this domain if it is of one of `kinds`.

        Raises:
            DomainError: If not; the message names the kinds that fit and the conversion to use.
        """
        if isinstance(self, kinds):
            return self
        names = " or ".join(kind.__name__ for kind in kinds)
        hints = "; ".join(hint for hint in (self._hint_to(kind) for kind in kinds) if hint)
        raise DomainError(f"needs {names}, but the data are {self}" + (f"; {hints}" if hints else ""))

    def _hint_to(self, kind: type["Domain"]) -> str:
        """Return the conversion that leads from this domain to `kind`, or an empty string."""
        if kind.kind == "bits" and self.kind in ("images", "vectors", "counts"):
            return "data.binarize(threshold) gives Bits (--data binarize=THRESHOLD)"
        if kind.kind == "vectors" and self.kind in ("images", "bits", "categories", "table"):
            return "data.vectors() gives Vectors (--data vectors=true)"
        if kind.kind == "categories" and self.kind in ("vectors", "table"):
            return "load(..., categorical='*') reads columns as categories (--data 'categorical=*')"
        return ""

    def to_json(self) -> dict[str, Any]:
        """Return a plain description that `domain_from_json` reads back."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        plain = {
            key: value.to_json() if isinstance(value, Domain) else value for key, value in values.items()
        }
        return {"kind": self.kind, **plain}


def float_like(x: Tensor, like: Tensor | None) -> Tensor:
    """Return a floating tensor that tells the type and device of a result."""
    if like is not None:
        return like
    return x if x.is_floating_point() else torch.empty(0, device=x.device)
