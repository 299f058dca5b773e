"""The form of a study: controls first, then readings over seeds, then a verdict by a fixed rule."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import joblib
import pandas as pd

from leadline.core import LeadlineError, OptionError, Quantity, bootstrap_interval

__all__ = [
    "Control",
    "Seeds",
    "StudyError",
    "all_of",
    "named_seeds",
    "over_seeds",
    "passed",
    "readings",
    "side",
]

Seeds = int | tuple[int, ...]  # how many, from 0 on; or the seeds themselves


class StudyError(LeadlineError, RuntimeError):
    """A control of a study failed, so that its readings would mean nothing."""


@dataclass(frozen=True)
class Control:
    """A measurement whose outcome is known beforehand.

    Args:
        measure: Returns the number.
        passes: Whether that number is as it must be.
        must: What it must be, in words.
    """

    measure: Callable[[], float]
    passes: Callable[[float], bool]
    must: str


def passed(controls: Mapping[str, Control]) -> dict[str, float]:
    """Return what each control measured.

    Raises:
        StudyError: If one fails.
    """
    values: dict[str, float] = {}
    for name, control in controls.items():
        values[name] = control.measure()
        if not control.passes(values[name]):
            raise StudyError(f'control "{name}" failed: {values[name]:.6g}, but it must {control.must}')
    return values


def readings(
    measure: Callable[..., dict[str, Any]],
    settings: Sequence[tuple[Any, ...]],
    *,
    seeds: Seeds,
    jobs: int = 1,
) -> pd.DataFrame:
    """Return a row for each setting and seed, `measure(*setting, seed)`, by joblib's current backend.

    Raises:
        OptionError: If `seeds` is below 1, or names none or one twice.
    """
    chosen = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
    if not chosen or len(set(chosen)) < len(chosen):
        raise OptionError(f"seeds must be at least 1, or different numbers, got {seeds}")
    tasks = [(*setting, seed) for seed in chosen for setting in settings]
    rows = joblib.Parallel(n_jobs=jobs)(joblib.delayed(measure)(*task) for task in tasks)
    return pd.DataFrame(list(rows))


def named_seeds(seeds: Seeds) -> str:
    """Return "5 seeds", or which they are where they were chosen."""
    return f"{seeds} seeds" if isinstance(seeds, int) else f"seeds {', '.join(map(str, seeds))}"


def over_seeds(values: Iterable[float], unit: str, protocol: str = "") -> Quantity:
    """Return the mean of a value a seed, with its bootstrap interval.

    There is no interval over one seed, or where a seed has no finite value.
    """
    rows = [float(value) for value in values]
    mean = sum(rows) / len(rows)
    interval = bootstrap_interval(rows) if len(rows) > 1 and math.isfinite(mean) else None
    return Quantity(mean, unit, "estimate", None, interval, len(rows), protocol)


def side(interval: tuple[float, float] | None, threshold: float, *, above: bool) -> bool | None:
    """Return whether a whole interval lies on the claimed side of a threshold; None if across it, or none."""
    if interval is None:
        return None
    low, high = interval
    if low > threshold:
        return above
    return not above if high < threshold else None


def all_of(parts: Sequence[bool | None]) -> bool | None:
    """Return the verdict on a claim of several parts: false if one is, undecided if one is, else true."""
    if any(part is False for part in parts):
        return False
    return None if any(part is None for part in parts) else True
