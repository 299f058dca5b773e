"""The five verbs, the three ways to learn, and what passes between a model and the rest.

A model is a `torch.nn.Module` that has some of the verbs; nothing else about it matters.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any, Literal, Protocol, TypeVar, cast, runtime_checkable

import torch
from torch import Tensor, nn

from leadline.core.domains import Domain
from leadline.core.errors import OptionError, VerbError
from leadline.core.labels import Labels

__all__ = [
    "VERBS",
    "Batch",
    "Decodes",
    "Described",
    "Encodes",
    "Player",
    "Predicts",
    "Recipe",
    "Samples",
    "Scores",
    "Signature",
    "Way",
    "counted",
    "has_verb",
    "require_verb",
    "swept",
    "verbs_of",
    "way_of",
]

VERBS = ("predict", "sample", "log_prob", "encode", "decode")
Way = Literal["descend", "sweep", "stack"]
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Batch:
    """What a loss sees.

    Args:
        x: Raw samples (n, *shape).
        y: Labels: (n,) class numbers with -1 for unknown, (n, D) targets with NaN, or None.
        label_smoothing: Weight moved from the given class to all classes, in [0, 1).
        progress: Fraction of the training done, in [0, 1].
        complete: Whether every label is known to be known, which saves looking.
    """

    x: Tensor
    y: Tensor | None = None
    label_smoothing: float = 0.0
    progress: float = 0.0
    complete: bool = False


@runtime_checkable
class Described(Protocol):
    """What `for_data` may read of a data set: what its samples and its labels are."""

    @property
    def domain(self) -> Domain:
        """Return what one sample is."""
        ...

    @property
    def labels(self) -> Labels | None:
        """Return what a label is, or None."""
        ...


@dataclass(frozen=True)
class Signature:
    """A domain and labels without any samples: enough to build a model again."""

    domain: Domain
    labels: Labels | None = None


@dataclass(frozen=True)
class Recipe:
    """What built a model; `catalog.build` leaves it as `model.recipe`.

    Args:
        name: Catalog name.
        options: Options that build it again.
        origin: Where its first weights came from, if from a file.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    origin: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Player:
    """One of several learners that take turns on their own parameters.

    Args:
        name: What messages and metrics call it.
        parameters: The parameters that it alone moves.
        loss: Its loss on a batch, shape ().
        steps: How many steps it takes in a turn.
    """

    name: str
    parameters: Sequence[nn.Parameter]
    loss: Callable[[Batch], Tensor]
    steps: int = 1


@runtime_checkable
class Predicts(Protocol):
    """(n, *x) -> (n, K) class log-probabilities, or (n, D) regression means."""

    def predict(self, x: Tensor) -> Tensor:
        """Return class log-probabilities or regression means."""
        ...


@runtime_checkable
class Samples(Protocol):
    """n -> (n, *x) raw values of the domain."""

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Return independent draws."""
        ...


@runtime_checkable
class Scores(Protocol):
    """(n, *x) -> (n,) nats per sample."""

    def log_prob(self, x: Tensor) -> Tensor:
        """Return the log-likelihood of each row."""
        ...


@runtime_checkable
class Encodes(Protocol):
    """(n, *x) -> (n, D) codes."""

    def encode(self, x: Tensor) -> Tensor:
        """Return the code of each row."""
        ...


@runtime_checkable
class Decodes(Protocol):
    """(n, D) -> (n, *x) raw values of the domain."""

    def decode(self, z: Tensor) -> Tensor:
        """Return the sample that each code stands for."""
        ...


def counted(sample: F) -> F:
    """Return a method `sample` that refuses a number of samples that is none.

    Raises:
        OptionError: When the method is called, if the number is not a whole number of at least 1.
    """

    @functools.wraps(sample)
    def checked(self: Any, n: Any, *args: Any, **options: Any) -> Any:
        if isinstance(n, bool) or not isinstance(n, Integral) or n < 1:
            raise OptionError(f"the number of samples must be a whole number of at least 1, got {n!r}")
        return sample(self, int(n), *args, **options)

    return cast(F, checked)


def has_verb(model: object, verb: str) -> bool:
    """Return whether `model` speaks `verb`: it has a callable of that name."""
    return callable(getattr(model, verb, None))


def verbs_of(model: object) -> tuple[str, ...]:
    """Return the verbs that `model` speaks, in their fixed order."""
    return tuple(verb for verb in VERBS if has_verb(model, verb))


def require_verb(model: object, verb: str) -> None:
    """Check that `model` speaks `verb`.

    Raises:
        VerbError: If it does not; the message names the verbs that it has.
    """
    if not has_verb(model, verb):
        known = ", ".join(verbs_of(model)) or "no verb"
        raise VerbError(f"{type(model).__name__} has no {verb}; it has {known}")


def way_of(model: object) -> Way:
    """Return how `model` learns: "stack" if it has stages, else "sweep", else "descend".

    Raises:
        VerbError: If it has none of `loss`, `players`, `sweep`, `stages`.
    """
    if _stages(model):
        return "stack"
    if has_verb(model, "sweep"):
        return "sweep"
    if has_verb(model, "loss") or has_verb(model, "players"):
        return "descend"
    raise VerbError(
        f"{type(model).__name__} cannot learn: give it loss(batch), players(), sweep(x) or stages()"
    )


def swept(model: object, x: Tensor, y: Tensor | None = None) -> float:
    """Let `model` take one full improvement step, and return its objective.

    `sweep(x)` sees the samples alone; a model that learns from labels has `sweep(x, y)`.
    """
    step: Callable[..., Any] = model.sweep  # type: ignore[attr-defined]
    labelled = "y" in inspect.signature(step).parameters
    return float(step(x, y) if labelled else step(x))


def _stages(model: object) -> bool:
    """Return whether the model has stages to learn now; a model may have the method and none."""
    stages = getattr(model, "stages", None)
    return callable(stages) and len(stages()) > 0
