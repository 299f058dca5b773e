"""What a measure returns: named quantities, one of them the headline, and what lies behind them."""

import math
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from leadline.core import LeadlineError, Quantity

__all__ = ["MeasureError", "Reading"]

_MOST_STORED = 20_000


class MeasureError(LeadlineError, ValueError):
    """A model cannot be measured on the data: the message says what is missing or not finite."""


@dataclass(frozen=True)
class Reading:
    """The figures of one model (or of a reference line) in one task.

    Args:
        task: Name of the task.
        headline: Key in `quantities` that a comparison sorts by.
        higher_is_better: Whether more of the headline is better.
        quantities: Every figure by name.
        rows: What the headline averages on each test sample (n,), for paired comparison: more is
            better exactly if more of the headline is. The square where the headline is a root.
            None where it is no average over samples.
        details: What pictures are drawn from: tensors, tables, plain values. `notes` holds lines to
            be read beside the figures, `shared_stderr` the error of the headline that all rows share.
    """

    task: str
    headline: str
    higher_is_better: bool
    quantities: dict[str, Quantity]
    rows: Tensor | None = None
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def value(self) -> Quantity:
        """Return the headline."""
        return self.quantities[self.headline]

    @property
    def notes(self) -> tuple[str, ...]:
        """Return the lines to be read beside the figures."""
        return tuple(self.details.get("notes", ()))

    @property
    def shared_stderr(self) -> float:
        """Return the standard error of the headline that all rows share."""
        return float(self.details.get("shared_stderr", 0.0))

    def to_json(self) -> dict[str, Any]:
        """Return plain values that `from_json` reads back; tensors above 20,000 numbers are left out."""
        return {
            "task": self.task,
            "headline": self.headline,
            "higher_is_better": self.higher_is_better,
            "quantities": {name: _plain(vars(value)) for name, value in self.quantities.items()},
            "rows": None if self.rows is None else _plain(self.rows.tolist()),
            "details": {name: _packed(value) for name, value in self.details.items() if _fits(value)},
        }

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Reading":
        """Return the reading that `to_json` described."""
        rows = fields["rows"]
        return cls(
            task=fields["task"],
            headline=fields["headline"],
            higher_is_better=fields["higher_is_better"],
            quantities={name: _quantity(value) for name, value in fields["quantities"].items()},
            rows=None if rows is None else torch.tensor(_number(rows), dtype=torch.float64),
            details={name: _unpacked(value) for name, value in fields["details"].items()},
        )

    def __str__(self) -> str:
        lines = [f"{name}: {value}" for name, value in self.quantities.items()]
        return "\n".join([self.task, *(f"  {line}" for line in (*lines, *self.notes))])


def _plain(value: Any) -> Any:
    """Return JSON values; numbers that are not finite become the words "nan", "inf", "-inf"."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _number(value: Any) -> Any:
    """Return what `_plain` was given, words of numbers included."""
    if isinstance(value, list):
        return [_number(item) for item in value]
    return float(value) if value in ("nan", "inf", "-inf") else value


def _quantity(fields: dict[str, Any]) -> Quantity:
    """Return a quantity of its plain fields."""
    values = {name: _number(value) for name, value in fields.items()}
    interval = values.pop("interval")
    return Quantity(**values, interval=None if interval is None else (interval[0], interval[1]))


def _fits(value: Any) -> bool:
    """Return whether a detail is small enough to be stored as text."""
    return not isinstance(value, Tensor) or value.numel() <= _MOST_STORED


def _packed(value: Any) -> Any:
    """Return a tensor or a table as a marked plain value."""
    if isinstance(value, Tensor):
        return {"tensor": _plain(value.tolist()), "dtype": str(value.dtype).removeprefix("torch.")}
    if isinstance(value, pd.DataFrame):
        return {"table": _plain(value.to_dict(orient="list"))}
    return _plain(value)


def _unpacked(value: Any) -> Any:
    """Return the tensor or table of a marked plain value."""
    if isinstance(value, dict) and "tensor" in value:
        return torch.tensor(_number(value["tensor"]), dtype=getattr(torch, value["dtype"]))
    if isinstance(value, dict) and "table" in value:
        return pd.DataFrame({name: _number(column) for name, column in value["table"].items()})
    return _number(value)
