"""The settings of one training: what `fit` was asked for, checked and kept with the run."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

from leadline.core import OptionError
from leadline.core.errors import unknown_name
from leadline.training.augment import AUGMENTATIONS
from leadline.training.optimizers import OPTIMIZERS, SCHEDULES, takes_all

__all__ = ["Settings"]

# A run may be resumed with other values of these: they do not change the steps already taken.
_CHOSEN = (("precision", "auto"), ("channels_last", "auto"))  # these go on as chosen at the start
FREE_ON_RESUME = ("epochs", "steps", "budget", "checkpoint_every", "device", "patience")
MENDING = ("lr", "lr_groups", "clip", "warmup", "schedule", "precision")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
DEVICES = ("auto", "cpu", "cuda", "mps")


@dataclass(frozen=True)
class Settings:
    """Everything that decides how a model is trained; see `fit` for the meaning of each."""

    epochs: int | None = None
    steps: int | None = None
    budget: float | None = None
    batch_size: int = 128
    optimizer: str = "adam"
    lr: float | None = None
    lr_groups: dict[str, float] | None = None
    optimizer_options: dict[str, Any] | None = None
    freeze: tuple[str, ...] = ()
    schedule: str = "constant"
    warmup: int = 0
    weight_decay: float = 0.0
    clip: float | None = None
    accumulate: int = 1
    label_smoothing: float = 0.0
    patience: int | None = None
    select: str = "best"
    tolerance: float = 1e-4
    validate_every: int = 1
    seed: int = 0
    device: str = "auto"
    precision: str = "fp32"
    channels_last: bool | str = False
    compile: bool = False
    augment: str | None = None
    threads: int | None = None
    sharding: str | None = None
    checkpoint_every: float = 30.0

    def __post_init__(self) -> None:
        for name, known in _CHOICES.items():
            value = getattr(self, name)
            if value not in known:
                raise unknown_name(name, str(value), [str(choice) for choice in known if choice is not None])
        for part in (self.augment or "").split("+") if self.augment else ():
            if part not in AUGMENTATIONS:
                raise unknown_name("augmentation", part, AUGMENTATIONS)
        for name, (fits, rule) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not (_is_number(value) and fits(value)):
                raise OptionError(f"{name} must be {rule}, got {value!r}")
        for prefix, rate in (self.lr_groups or {}).items():
            if not (_is_number(rate) and rate > 0):
                raise OptionError(f'lr_groups: the rate of "{prefix}" must be above 0, got {rate!r}')
        if self.accumulate > 1 and takes_all(self.optimizer, self.optimizer_options):
            raise OptionError("gd takes all samples in parts of batch_size already: leave accumulate away")

    def to_json(self) -> dict[str, Any]:
        """Return the settings as plain values."""
        return asdict(self)

    def resumed_from(self, saved: dict[str, Any], *, after_failure: bool = False) -> "Settings":
        """Return these settings for going on with a run that was started with `saved`.

        After a failure the settings that may mend it can change too.

        Raises:
            OptionError: If a setting differs that decided the steps already taken.
        """
        kept: dict[str, Any] = {}
        free = FREE_ON_RESUME + (MENDING if after_failure else ())
        for item in fields(self):
            mine, old = getattr(self, item.name), saved.get(item.name, item.default)
            if item.name in free or _plain(mine) == _plain(old):
                kept[item.name] = mine
            elif (item.name, mine) in (("threads", None), *_CHOSEN):
                kept[item.name] = old
            else:
                raise OptionError(
                    f"cannot resume: {item.name} was {old!r} and is now {mine!r}; "
                    f"use the old value, or start a new run in another directory"
                )
        return Settings(**kept)


def _plain(value: Any) -> Any:
    """Return tuples as lists, inner ones too, as JSON keeps them."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _whole_from(low: int) -> tuple[Callable[[float], bool], str]:
    return (lambda value: isinstance(value, int) and value >= low), f"a whole number of at least {low}"


def _real(
    low: float, *, open_end: bool = False, high: float = math.inf
) -> tuple[Callable[[float], bool], str]:
    text = f"a number {'above' if open_end else 'of at least'} {low:g}"
    text += f" and below {high:g}" if high < math.inf else ""
    return (lambda value: (value > low if open_end else value >= low) and value < high), text


_CHOICES: dict[str, tuple[str | bool | None, ...]] = {
    "optimizer": tuple(OPTIMIZERS),
    "schedule": tuple(SCHEDULES),
    "select": ("best", "last"),
    "device": DEVICES,
    "precision": PRECISIONS,
    "channels_last": (True, False, "auto"),
    "sharding": (None, "full"),
}
_RANGES: dict[str, tuple[Callable[[float], bool], str]] = {
    "epochs": _whole_from(1),
    "steps": _whole_from(1),
    "budget": _real(0, open_end=True),
    "batch_size": _whole_from(1),
    "lr": _real(0, open_end=True),
    "warmup": _whole_from(0),
    "weight_decay": _real(0),
    "clip": _real(0, open_end=True),
    "accumulate": _whole_from(1),
    "label_smoothing": _real(0, high=1),
    "patience": _whole_from(1),
    "tolerance": _real(0),
    "validate_every": _whole_from(1),
    "seed": _whole_from(0),
    "threads": _whole_from(1),
    "checkpoint_every": _real(0),
}
