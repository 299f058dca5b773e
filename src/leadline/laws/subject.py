"""What the laws look at: a model, rows to try it on, and a copy of it that is small enough to sum over."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor, nn

from leadline.core import Categories, Counts, Density, Domain, Labels, Signature, Table, Vectors, has_verb
from leadline.core.randomness import generator_for
from leadline.laws.cells import MOST_POINTS, Cells, cells_of, random_rows
from leadline.laws.verdicts import NotApplicable

__all__ = ["Small", "Subject", "density_of"]

_ROWS, _SWEEPS, _MOVE, _WIDE_MOVE = 64, 3, 0.1, 1.0
_MOST_NOISY = 2187
# A copy is narrow to be quick, and an importance-weighted bound is close only over few latent variables.
_SMALL = {"latent": 2, "hidden": 32}
_NARROW = {"latent": 2, "hidden": 4}
Verb = Callable[..., Tensor]


@dataclass(frozen=True)
class Small:
    """A model on a domain that can be summed over.

    Args:
        model: The model itself, or a copy of it over a small domain.
        cells: The domain, cut into cells.
        where: " on a copy over ..." if it is a copy, else "".
    """

    model: nn.Module
    cells: Cells
    where: str


@dataclass(frozen=True)
class Subject:
    """A model in evaluation mode, what its samples and labels are, and some rows.

    Args:
        model: The model.
        domain: What one sample is.
        labels: What a label is, or None.
        x: Raw samples (n, *shape) to try the verbs on.
        seed: Seed of everything random.
        draws: Number of samples that a statistical law draws.
    """

    model: nn.Module
    domain: Domain
    labels: Labels | None
    x: Tensor
    seed: int
    draws: int

    def verb(self, name: str) -> Verb:
        """Return the model's method of that name."""
        return cast(Verb, getattr(self.model, name))

    def generator(self, *keys: object) -> torch.Generator:
        """Return a generator on the model's device; its stream follows from the seed and `keys`."""
        return generator_for(self.seed, *keys, device=self.x.device)

    @cached_property
    def codes(self) -> Tensor:
        """Return codes (n, D) to decode: those of the rows, or normal ones of the size `model.latent`.

        Raises:
            NotApplicable: If nothing says how large a code is.
        """
        if has_verb(self.model, "encode"):
            return self.verb("encode")(self.x)
        size = getattr(self.model, "latent", None)
        if not isinstance(size, int):
            raise NotApplicable(
                "the size of a code is unknown: the model has no encode and no number `latent`"
            )
        like = next(self.model.parameters(), torch.empty(0))
        return torch.randn(len(self.x), size, generator=generator_for(self.seed, "codes")).to(like)

    @cached_property
    def small(self) -> Small:
        """Return the model where it can be summed over: itself, or a copy over the shrunken domain.

        Raises:
            NotApplicable: If there is no way to make a small copy.
        """
        for domain in (self.domain, self.domain.shrunken(), _smallest(self.domain)):
            cells = cells_of(domain, MOST_POINTS)
            if cells is None:  # before the density is asked what it is, which may cost an estimate of log Z
                continue
            own = domain is self.domain
            model = self.model if own else self._copy_over(domain)
            # A density that draws its own noise is asked many times, so it is summed over fewer points.
            if density_of(model).kind != "exact":
                cells = cells_of(domain, _MOST_NOISY)
            if cells is not None:
                return Small(model, cells, "" if own else f" on a copy over {domain}")
        raise NotApplicable(f"{self.domain} and its small version are too large to sum over")

    @cached_property
    def narrow(self) -> Small:
        """Return a copy over the small domain whose hidden layers are narrow enough to be listed as well.

        So few units need large weights for a fault of their chain to show.
        """
        cells = self.small.cells
        model = self._copy_over(cells.domain, _NARROW, _WIDE_MOVE)
        return Small(model, cells, f" on a copy over {cells.domain} with {_NARROW['hidden']} hidden units")

    def _copy_over(
        self, domain: Domain, largest: Mapping[str, int] = _SMALL, move: float = _MOVE
    ) -> nn.Module:
        """Return a new model of the same class and options over `domain`, moved off its start."""
        maker = getattr(type(self.model), "for_data", None)
        if maker is None:
            name = type(self.model).__name__
            raise NotApplicable(
                f"{self.domain} is too large to sum over, and {name} has no for_data(data) "
                "to make a small copy with"
            )
        options = _options(self.model, maker)
        options |= {name: _capped(options[name], most) for name, most in largest.items() if name in options}
        model = _fitting(maker, Signature(domain, self.labels), options)
        like = next(self.model.parameters(), self.x)
        model = model.to(like.device, like.dtype) if like.is_floating_point() else model.to(like.device)
        source = generator_for(self.seed, "moved")
        with torch.no_grad():
            for parameter in model.parameters():
                step = torch.randn(parameter.shape, generator=source)
                parameter.add_((move * step).to(parameter))
        self._swept(model, domain)
        return model.eval()

    def _swept(self, model: nn.Module, domain: Domain) -> None:
        """Let a model that learns by sweeps learn a little, so that its state is a state at all."""
        if has_verb(model, "sweep"):
            rows = random_rows(domain, _ROWS, generator_for(self.seed, "rows")).to(self.x.device)
            for _ in range(_SWEEPS):
                cast(Verb, model.sweep)(rows)


def density_of(model: nn.Module) -> Density:
    """Return what the model says its log_prob is; exact if it says nothing."""
    found = getattr(model, "density", None)
    return found if isinstance(found, Density) else Density()


def _smallest(domain: Domain) -> Domain:
    """Return a domain of the same kind with as few columns as make sense."""
    if isinstance(domain, Vectors):
        return Vectors.standard(1)
    if isinstance(domain, Table):
        return Table(Vectors.standard(1), Categories((min(domain.categories.sizes[0], 3),)))
    return Counts(domain.vocabulary[:2]) if isinstance(domain, Counts) else domain.shrunken()


def _options(model: nn.Module, maker: Callable[..., nn.Module]) -> dict[str, Any]:
    """Return the options of `for_data`: their defaults, and over them what the model was built with."""
    parameters = list(inspect.signature(maker).parameters.values())[1:]
    defaults = {item.name: item.default for item in parameters if item.default is not item.empty}
    return {**defaults, **getattr(getattr(model, "recipe", None), "options", {})}


def _fitting(maker: Callable[..., nn.Module], signature: Signature, options: dict[str, Any]) -> nn.Module:
    """Return a model over a small domain; whole numbers are halved until they fit into it."""
    while True:
        try:
            return maker(signature, **options)
        except Exception as error:  # whatever a user's own for_data may raise
            smaller = {key: _halved(value) for key, value in options.items()}
            if smaller == options:
                raise NotApplicable(f"no small copy can be made over {signature.domain}: {error}") from error
            options = smaller


def _capped(value: Any, most: int) -> Any:
    """Return whole numbers of at most `most`, in tuples too; anything else as it is."""
    if isinstance(value, tuple):
        return tuple(_capped(item, most) for item in value)
    return min(value, most) if isinstance(value, int) else value


def _halved(value: Any) -> Any:
    """Return whole numbers above 1 halved, in tuples too; anything else as it is."""
    if isinstance(value, tuple):
        return tuple(_halved(item) for item in value)
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value // 2 if whole and value > 1 else value
