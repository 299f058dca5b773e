"""The result of a comparison: tables, runs, failures; as text, as JSON, and back."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from leadline.comparison.plan import table_name
from leadline.comparison.printing import printed
from leadline.comparison.ranking import over_seeds, ranks
from leadline.core import RunError
from leadline.measures import TASKS, Reading
from leadline.training.files import read_json, write_json

__all__ = ["Comparison"]

FORMAT = 1


@dataclass
class Comparison:
    """Many models on one data set.

    Args:
        data: Name, domain, sizes, source and fingerprint of the data.
        settings: What the trainings shared: tasks, budget, epochs, steps, seeds, options.
        records: What each training gave, as workers report it.
        controls: The lines that need no training, as workers report them.
        left_out: Why a model could not hold the data as they are, by model.
        left_tasks: The tasks that such a model would have stood in.
        notes: Lines to be read beside the tables.
        path: Folder of the comparison, or None.
    """

    data: dict[str, Any]
    settings: dict[str, Any]
    records: list[dict[str, Any]] = field(default_factory=list)
    controls: list[dict[str, Any]] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    left_tasks: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    path: Path | None = None

    @cached_property
    def readings(self) -> dict[str, dict[str, list[Reading]]]:
        """Return the readings of every table by model, one a seed."""
        found: dict[str, dict[str, list[Reading]]] = {}
        for record in self.records:
            for task, reading in record["readings"].items():
                table = found.setdefault(table_name(task, record["conversion"]), {})
                table.setdefault(record["model"], []).append(Reading.from_json(reading))
        return found

    @cached_property
    def references(self) -> dict[str, dict[str, Reading]]:
        """Return the readings of the lines that need no training, by table."""
        return {
            table_name(record["task"], record["conversion"]): {
                name: Reading.from_json(reading) for name, reading in record["readings"].items()
            }
            for record in self.controls
        }

    @property
    def runs(self) -> dict[str, Path]:
        """Return the run directories by "model-seed"; empty where nothing was written."""
        home = self.path or Path()
        return {record["name"]: home / record["path"] for record in self.records if record["path"]}

    @property
    def failures(self) -> dict[str, str]:
        """Return why a training or a measurement failed, by "model-seed: what"."""
        return {
            f"{record['name']}: {what}": reason
            for record in (*self.records, *self.controls)
            for what, reason in record["failures"].items()
        }

    @cached_property
    def tables(self) -> dict[str, pd.DataFrame]:
        """Return a table for each task, sorted by its headline; see `leadline.comparison.ranking` for ranks.

        Columns: rank (missing for reference lines and failures), model, the headline, low and high ends of
        its 95 % interval, kind, unit, the other figures, seconds of training, parameters, note.
        """
        names = [table_name(task) for task in self.settings["tasks"]]
        names += [name for name in self.references if name not in names]
        return {name: self._table(name) for name in names}

    def _table(self, name: str) -> pd.DataFrame:
        readings = self.readings.get(name, {})
        models = list(readings)
        order, found = ranks([readings[model] for model in models])
        rows = [
            line
            for i, rank in zip(order, found, strict=True)
            for line in (
                self._row(name, models[i], readings[models[i]], rank),
                *self._members(name, models[i]),
            )
        ]
        rows += [_line(None, label, [reading]) for label, reading in self.references.get(name, {}).items()]
        rows += [{"rank": None, "model": model, "note": why} for model, why in self._absent(name, readings)]
        frame = pd.DataFrame(rows)
        last = [column for column in ("seconds", "parameters", "note") if column in frame]
        frame = frame[[column for column in frame if column not in last] + last]
        return frame.astype({"rank": "Int64"}) if len(frame) else frame

    def _row(self, name: str, model: str, readings: Sequence[Reading], rank: int | None) -> dict[str, Any]:
        """Return the row of a model, with what its training cost and what failed."""
        mine = [record for record in self.records if self._stands_in(record, name, model)]
        row = _line(rank, model, readings)
        row["seconds"] = over_seeds([record["seconds"] for record in mine if record["seconds"] is not None])[
            0
        ]
        row["parameters"] = next((record["parameters"] for record in mine), None)
        failed = [reason for _, reason in _reasons(mine, name)]
        if failed:
            text = f"{len(failed)} of {len(mine)} seeds failed: {failed[0]}"
            row["note"] = "; ".join(part for part in (row["note"], text) if part)
        return row

    def _members(self, name: str, model: str) -> list[dict[str, Any]]:
        """Return a line without a rank for each model that a model is made of, over its seeds."""
        found: dict[str, list[Reading]] = {}
        for record in self.records:
            if record["model"] == model:
                for task, members in record.get("members", {}).items():
                    if table_name(task, record["conversion"]) == name:
                        for member, reading in members.items():
                            found.setdefault(f"{model}: {member}", []).append(Reading.from_json(reading))
        return [_line(None, label, readings) for label, readings in found.items()]

    def _absent(self, name: str, readings: dict[str, list[Reading]]) -> list[tuple[str, str]]:
        """Return the models that belong in a table and have no figure there, with the reason."""
        rows = {
            model: why
            for model, why in self.left_out.items()
            if any(table_name(task) == name for task in self.left_tasks.get(model, []))
        }
        for record in self.records:
            if record["model"] not in readings and self._stands_in(record, name, record["model"]):
                rows.update(_reasons([record], name)[:1])
        return list(rows.items())

    @staticmethod
    def _stands_in(record: dict[str, Any], name: str, model: str) -> bool:
        tables = [table_name(task, record["conversion"]) for task in record["tasks"]]
        return record["model"] == model and name in tables

    def to_json(self) -> dict[str, Any]:
        """Return plain values that `from_json` reads back, tables included."""
        return {
            "format": FORMAT,
            "data": self.data,
            "settings": self.settings,
            "tables": {name: _records(table) for name, table in self.tables.items()},
            "left_out": self.left_out,
            "left_tasks": self.left_tasks,
            "notes": self.notes,
            "records": self.records,
            "controls": self.controls,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any], path: Path | None = None) -> "Comparison":
        """Return the comparison that `to_json` described."""
        keys = ("data", "settings", "records", "controls", "left_out", "left_tasks", "notes")
        return cls(**{key: values[key] for key in keys}, path=path)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the comparison as JSON, whole, and return where.

        Raises:
            RunError: If it cannot be written.
        """
        write_json(Path(path), self.to_json())
        return Path(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Comparison":
        """Return the comparison in a folder, or in a file.

        Raises:
            RunError: If there is none, or it is damaged.
        """
        place = Path(path)
        place = place / "compare.json" if place.is_dir() else place
        values = read_json(place)
        try:
            if values["format"] != FORMAT:
                raise RunError(f"{place} has format {values['format']}; this version reads {FORMAT}")
            return cls.from_json(values, place.parent)
        except (KeyError, TypeError) as error:
            raise RunError(f"{place} is not a comparison: {error}") from error

    def __str__(self) -> str:
        sizes = f"{self.data['train']} train, {self.data['test']} test"
        head = f"{self.data['name']}: {self.data['domain']}, {sizes}"
        parts = [
            printed(name, table[~table["note"].isin(self.left_out.values())], self._shown(name))
            for name, table in self.tables.items()
            if len(table)
        ]
        ends = [*(f"{model}: {why}" for model, why in self.left_out.items()), *self.notes]
        return "\n\n".join([head, *parts, *(["\n".join(ends)] if ends else [])])

    def _shown(self, name: str) -> tuple[str, ...]:
        return TASKS[name.partition(" ")[0]].shown


def _line(rank: int | None, label: str, readings: Sequence[Reading]) -> dict[str, Any]:
    """Return the figures of one line: of one reading, or their means over seeds."""
    first = readings[0]
    value, interval = over_seeds([reading.value.value for reading in readings])
    interval = interval if len(readings) > 1 else first.value.interval
    low, high = interval or (math.nan, math.nan)
    others = [name for name in first.quantities if name != first.headline]
    return {
        "rank": rank,
        "model": label,
        first.headline: value,
        "low": low,
        "high": high,
        "kind": first.value.kind,
        "unit": first.value.unit,
        **{name: _mean_of(readings, name) for name in others},
        "note": "; ".join(dict.fromkeys(note for reading in readings for note in reading.notes)),
    }


def _mean_of(readings: Sequence[Reading], name: str) -> float:
    return over_seeds([reading.quantities[name].value for reading in readings if name in reading.quantities])[
        0
    ]


def _reasons(records: Sequence[dict[str, Any]], table: str) -> list[tuple[str, str]]:
    """Return what failed of these trainings in a table: model and reason."""
    found = []
    for record in records:
        for what, reason in record["failures"].items():
            if what == "training" or table_name(what, record["conversion"]) == table:
                found.append((record["model"], reason))
    return found


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table without what is missing or not finite."""
    return [
        {str(key): value for key, value in row.items() if _present(value)}
        for row in table.astype(object).to_dict("records")
    ]


def _present(value: object) -> bool:
    if value is None or value is pd.NA:
        return False
    return not isinstance(value, float) or math.isfinite(value)
