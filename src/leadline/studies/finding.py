"""What a study found: a claim, whether it holds, the number behind it, and how it was measured."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from leadline.core import Quantity

__all__ = ["Finding", "told"]

_MOST_PRINTED = 60


@dataclass(frozen=True)
class Finding:
    """The outcome of a study.

    Args:
        study: Name of the study.
        claim: One sentence that can be true or false.
        holds: True, False, or None where the evidence does not decide.
        value: The number that decides it, with its interval.
        controls: What the controls gave, by name; all of them passed, or there would be no finding.
        table: A row a reading.
        protocol: How it was measured, at what scale, and the thresholds fixed before.
        draw: Draws the figure from the finding.
        details: What the figure needs beyond the table.
        animate: Returns the bytes of a moving picture, ".gif" or ".html", where the study has one.
    """

    study: str
    claim: str
    holds: bool | None
    value: Quantity
    controls: dict[str, float]
    table: pd.DataFrame
    protocol: str
    draw: Callable[["Finding"], Figure] = field(repr=False)
    details: dict[str, Any] = field(default_factory=dict, repr=False)
    animate: "Callable[[Finding, str], bytes] | None" = field(default=None, repr=False)

    @cached_property
    def figure(self) -> Figure:
        """Return the figure, drawn when it is first asked for."""
        return self.draw(self)

    @property
    def verdict(self) -> str:
        """Return "true", "false" or "undecided"."""
        return "undecided" if self.holds is None else str(self.holds).lower()

    def to_json(self) -> dict[str, Any]:
        """Return everything but the figure as plain values; what is not finite is None."""
        return {
            "study": self.study,
            "claim": self.claim,
            "holds": self.holds,
            "value": _finite(self.value.to_json()),
            "controls": _finite(self.controls),
            "table": _finite(self.table.to_dict(orient="records")),
            "protocol": self.protocol,
        }

    def __str__(self) -> str:
        lines = [f"{self.claim} {self.verdict.capitalize()}.", f"  {told(self.value)}", f"  {self.protocol}"]
        lines += [f"  control: {name}: {value:.4g}" for name, value in self.controls.items()]
        rows = self.table.head(_MOST_PRINTED)
        left = len(self.table) - len(rows)
        more = [f"... and {left} rows more: finding.table, --json, or --out NAME.csv"] if left else []
        return "\n".join([*lines, rows.to_string(index=False), *more])


def told(quantity: Quantity) -> str:
    """Return a number with its 95 % interval, where it has one."""
    if quantity.interval is None:
        return str(quantity)
    low, high = quantity.interval
    return f"{quantity}, 95 % interval [{low:.4g}, {high:.4g}]"


def _finite(value: Any) -> Any:
    """Return plain values with None for numbers that are not finite."""
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value
