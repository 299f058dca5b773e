"""Numbers that say what they are: value, kind, unit, protocol, uncertainty."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

__all__ = ["Density", "Kind", "Quantity", "bootstrap_interval", "mean_quantity"]

Kind = Literal["exact", "lower bound", "upper bound", "estimate"]


@dataclass(frozen=True)
class Density:
    """What a model's `log_prob` is: its kind, how it was found, and the error all rows share.

    A model says so by an attribute `density`; without one its `log_prob` is taken as exact.

    Args:
        kind: What log_prob is of the true log-likelihood.
        protocol: How it was found, in a few words, e.g. "importance-weighted, 64 samples".
        stderr: Standard error in nats that all rows share (an estimated log-partition), or 0.
    """

    kind: Kind = "exact"
    protocol: str = ""
    stderr: float = 0.0


@dataclass(frozen=True)
class Quantity:
    """A measured number with everything needed to read it.

    Args:
        value: The number.
        unit: Its unit, e.g. "bits/dim", "nats", "" for a ratio.
        kind: Exact, a bound, or an estimate.
        stderr: One standard error, or None where none applies.
        interval: A 95 % interval (low, high), or None.
        samples: The number of rows, draws or seeds behind it.
        protocol: How it was measured, in a few words.
    """

    value: float
    unit: str = ""
    kind: Kind = "exact"
    stderr: float | None = None
    interval: tuple[float, float] | None = None
    samples: int = 0
    protocol: str = ""

    def scaled(self, factor: float, unit: str) -> "Quantity":
        """Return the same quantity times `factor` in another unit; a negative factor swaps bounds."""
        kind: Kind = self.kind
        if factor < 0 and kind in ("lower bound", "upper bound"):
            kind = "upper bound" if kind == "lower bound" else "lower bound"
        ends = None if self.interval is None else sorted(factor * end for end in self.interval)
        return Quantity(
            value=factor * self.value,
            unit=unit,
            kind=kind,
            stderr=None if self.stderr is None else abs(factor) * self.stderr,
            interval=None if ends is None else (ends[0], ends[1]),
            samples=self.samples,
            protocol=self.protocol,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain values; a number that is not finite becomes None."""
        fields = asdict(self)
        for key in ("value", "stderr"):
            fields[key] = _told(fields[key])
        if self.interval is not None:
            fields["interval"] = tuple(_told(end) for end in self.interval)
        return fields

    def __str__(self) -> str:
        spread = "" if self.stderr is None else f" ± {self.stderr:.2g}"
        sign = {"exact": "", "lower bound": "≥ ", "upper bound": "≤ ", "estimate": "≈ "}[self.kind]
        return f"{sign}{self.value:.4g}{spread} {self.unit}".rstrip()


def _told(number: float | None) -> float | None:
    """Return a number as JSON can hold it: None where it is not finite."""
    return None if number is None or not math.isfinite(number) else number


def mean_quantity(
    values: Tensor | Sequence[float],
    *,
    unit: str = "",
    kind: Kind = "exact",
    shared_stderr: float = 0.0,
    protocol: str = "",
) -> Quantity:
    """Return the mean of `values` with its standard error and normal 95 % interval.

    Args:
        values: One number a row, shape (n,).
        unit: Unit of the values.
        kind: Kind of the values.
        shared_stderr: An error that all rows share; added in quadrature.
        protocol: How they were measured.
    """
    rows = torch.as_tensor(values, dtype=torch.float64).flatten()
    count = rows.numel()
    mean = float(rows.mean()) if count else math.nan
    own = float(rows.std()) / math.sqrt(count) if count > 1 else math.inf
    stderr = math.hypot(own, shared_stderr)
    interval = (mean - 1.96 * stderr, mean + 1.96 * stderr)
    return Quantity(mean, unit, kind, stderr, interval, count, protocol)


def bootstrap_interval(
    values: Tensor | Sequence[float], *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the mean of `values` (n,).

    Source:
        Efron and Tibshirani (1993), An Introduction to the Bootstrap, section 13.3.
    """
    rows = torch.as_tensor(values, dtype=torch.float64).flatten()
    generator = torch.Generator().manual_seed(seed)
    picks = torch.randint(rows.numel(), (resamples, rows.numel()), generator=generator)
    ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    low, high = torch.quantile(rows[picks].mean(1), ends).tolist()
    return low, high
