"""A table of a comparison as aligned text."""

import math
from typing import Any

import pandas as pd

__all__ = ["notes_of", "printed"]

_SIGNS = {"lower bound": "≥ ", "upper bound": "≤ ", "estimate": "≈ "}
_ALWAYS = ("rank", "model", "low", "high", "kind", "unit", "seconds", "parameters", "note")


def printed(name: str, table: pd.DataFrame, shown: tuple[str, ...]) -> str:
    """Return a table as text: rank, model, headline with interval, some other figures, cost; notes below.

    Args:
        name: Name of the table.
        table: The table.
        shown: The other figures to print, where the table has them.
    """
    headline = next((str(column) for column in table if column not in _ALWAYS), "")
    others = [column for column in shown if column in table and column != headline]
    rows = table.to_dict("records")
    measured = [row for row in rows if headline and _number(row.get("low")) + _number(row.get(headline))]
    unit = next((row["unit"] for row in measured if row.get("unit")), "")
    said = not unit or unit.replace("/", "_per_") == headline
    heads = ["rank", "model", headline if said else f"{headline} [{unit}]", *others, "seconds", "parameters"]
    cells = [heads] + [_cells(row, headline, others) for row in rows if row in measured]
    return "\n".join([name, *_aligned(cells), *(f"  {note}" for note in notes_of(table))])


def notes_of(table: pd.DataFrame) -> list[str]:
    """Return what is noted of the rows, once for all of one note; a member's only where it is its own."""
    models: dict[str, list[str]] = {}
    for row in table.to_dict("records"):
        if _text(row.get("note")):
            named = models.setdefault(row["note"], [])
            if str(row["model"]).partition(": ")[0] not in named:
                named.append(str(row["model"]))
    return [f"{', '.join(named)}: {note}" for note, named in models.items()]


def _cells(row: dict[Any, Any], headline: str, others: list[str]) -> list[str]:
    rank = "" if row["rank"] is None or pd.isna(row["rank"]) else str(row["rank"])
    value = _SIGNS.get(str(row.get("kind")), "") + _figure(row.get(headline))
    if _number(row.get("low")):
        value += f" ({_figure(row['low'])} to {_figure(row['high'])})"
    cost = [_figure(row.get("seconds"), "{:.1f}"), _figure(row.get("parameters"), "{:,.0f}")]
    return [rank, str(row["model"]), value, *(_figure(row.get(name)) for name in others), *cost]


def _figure(value: object, form: str = "{:.4g}") -> str:
    if not isinstance(value, (int, float)) or math.isnan(value):
        return ""
    return form.format(value)


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not math.isnan(value)


def _text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _aligned(cells: list[list[str]]) -> list[str]:
    """Return lines with columns two spaces apart, words to the left and figures to the right."""
    widths = [max(len(row[place]) for row in cells) for place in range(len(cells[0]))]
    left = {1, 2}
    return [
        "  "
        + "  ".join(
            text.ljust(width) if place in left else text.rjust(width)
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
