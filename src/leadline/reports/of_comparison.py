"""The page of a comparison: a table a task, and what the models make of the same data, side by side."""

import math
import shlex
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from markupsafe import Markup
from torch import Tensor

from leadline.comparison import Comparison
from leadline.comparison.printing import notes_of
from leadline.core import DataError, LeadlineError, has_verb
from leadline.data import Split
from leadline.measures import TASKS
from leadline.measures.answers import answers, codes, draw
from leadline.reports import figures
from leadline.reports.drawing import PALETTE
from leadline.reports.parts import Block, Card, Section, attempt, figure_block, number, samples_block
from leadline.training import Run, open_run
from leadline.training.run import read_metrics

__all__ = ["card_of", "command_of", "interval_mark", "sections_of"]

_SIGNS = {"lower bound": "≥ ", "upper bound": "≤ ", "estimate": "≈ "}
_SHOWN, _PAIRS, _MARK = 36, 9, (190, 16)
_RANKS = (
    "Models share a rank where the test samples (or the seeds) cannot tell them apart. "
    "Rows without a rank need no training; they are there to compare with."
)


def command_of(result: Comparison) -> str:
    """Return the command that repeats the comparison."""
    held = result.settings
    words = ["leadline", "compare", str(result.data.get("source") or result.data["name"])]
    for name, value in result.data.get("options", {}).items():
        words += ["--data", f"{name}={','.join(map(str, value)) if isinstance(value, list) else value}"]
    words += ["--task", ",".join(held["tasks"])] if set(held["tasks"]) != set(TASKS) else []
    words += ["--models", ",".join(dict.fromkeys(record["model"] for record in result.records))]
    words += ["--budget", f"{held['budget']:g}s"] if held.get("budget") else []
    for name in ("epochs", "steps"):
        words += [f"--{name}", str(held[name])] if held.get(name) else []
    words += ["--seeds", str(held["seeds"])] if held.get("seeds", 1) != 1 else []
    for model, options in held.get("options", {}).items():
        words += [word for name, value in options.items() for word in ("--set", f"{model}.{name}={value}")]
    return shlex.join(words)


def card_of(result: Comparison) -> Card:
    """Return what was compared on what, and under which terms."""
    data, held = result.data, result.settings
    models = list(dict.fromkeys(record["model"] for record in result.records))
    terms = [f"{held['budget']:g} s of training each" if held.get("budget") else ""]
    terms += [f"at most {held[name]} {name}" for name in ("epochs", "steps") if held.get(name)]
    seeds = held.get("seeds", 1)
    facts = [
        ("Data", f"{data['name']} ({data.get('source') or 'made in memory'})"),
        ("One sample", data["domain"]),
        ("Samples", f"{data['train']:,} train, {data['valid']:,} valid, {data['test']:,} test"),
        ("Fingerprint", data["fingerprint"]),
        ("Models", ", ".join(models)),
        ("Tasks", ", ".join(held["tasks"])),
        ("Terms", ", ".join(term for term in terms if term)),
        ("Seeds", f"{seeds}; intervals are over {'seeds' if seeds > 1 else 'test samples'}"),
        ("Took", f"{sum(record['seconds'] or 0 for record in result.records):.0f} s of training in all"),
        ("Versions", _versions(result)),
    ]
    return Card(
        f"{len(models)} models on {data['name']}",
        f"Each was trained under the same terms and measured in every task it has the verbs for. {_RANKS}",
        tuple((word, value) for word, value in facts if value),
        command_of(result),
    )


def _versions(result: Comparison) -> str:
    from leadline.training.record import versions

    return ", ".join(f"{name} {version}" for name, version in versions().items())


def sections_of(result: Comparison) -> list[Section]:
    """Return the sections of the page of a comparison."""
    tables = [_table_section(result, name, table) for name, table in result.tables.items() if len(table)]
    trained = _first_runs(result)
    sections = [
        *tables,
        _label_efficiency(result),
        _best_classifier(result),
        _samples(result, trained),
        _reconstructions(trained),
        _learning(trained),
        _left_out(result),
    ]
    return [section for section in sections if section is not None and section.blocks]


def _table_section(result: Comparison, name: str, table: pd.DataFrame) -> Section:
    task = name.partition(" ")[0]
    better = _better(result, name)
    lead = f"{TASKS[task].question} {better}"
    return Section(name.capitalize(), lead, attempt(name, lambda: _table(table, task)))


def _better(result: Comparison, name: str) -> str:
    for readings in result.readings.get(name, {}).values():
        which = "more" if readings[0].higher_is_better else "less"
        return f"Sorted by {readings[0].headline.replace('_', ' ')}: {which} is better."
    return ""


def _table(table: pd.DataFrame, task: str) -> Block:
    """Return a table with its headline drawn as dots on lines, a row a model."""
    fixed = ("rank", "model", "low", "high", "kind", "unit", "seconds", "parameters", "note")
    figures_of = [str(column) for column in table.columns if column not in fixed]
    headline = figures_of[0] if figures_of else ""
    others = [name for name in TASKS[task].shown if name in figures_of[1:]]
    shown = table[figures_of[:1]].map(_is_number).any(axis=1)
    rows = table[shown].to_dict("records")
    if not rows:
        return Block(failed="no model could be measured; the reasons are below")
    ends = [row[key] for row in rows for key in (headline, "low", "high") if _is_number(row.get(key))]
    span = (min(ends), max(ends))
    unit = next((str(row["unit"]) for row in rows if row.get("unit")), "")
    head = ("rank", "model", headline.replace("_", " ") + (f" ({unit})" if unit else ""), "95 % interval")
    columns = (*head, *(name.replace("_", " ") for name in others), "seconds", "parameters")
    return Block(
        columns=columns,
        rows=tuple(_row(row, headline, others, span) for row in rows),
        notes=tuple(notes_of(table[shown])),
        folded=tuple(notes_of(table[~shown])),
        caption="≤ and ≥ mark bounds, ≈ an estimate. Lines are 95 % intervals, all on one scale "
        f"from {number(span[0])} to {number(span[1])}.",
    )


def _row(row: dict[Any, Any], headline: str, others: list[str], span: tuple[float, float]) -> tuple[Any, ...]:
    """Return the cells of one row."""
    ranked = _is_number(row.get("rank"))
    value = float(row[headline])
    low, high = (float(row[key]) if _is_number(row.get(key)) else value for key in ("low", "high"))
    return (
        str(int(row["rank"])) if ranked else "",
        str(row["model"]),
        _SIGNS.get(str(row.get("kind")), "") + number(value),
        interval_mark(value, low, high, span, trained=ranked),
        *(number(float(row[name])) if _is_number(row.get(name)) else "" for name in others),
        f"{row['seconds']:.1f}" if _is_number(row.get("seconds")) else "",
        f"{int(row['parameters']):,}" if _is_number(row.get("parameters")) else "",
    )


def interval_mark(
    value: float, low: float, high: float, span: tuple[float, float], *, trained: bool = True
) -> Markup:
    """Return a dot on its interval as a small drawing; hollow for a line that needs no training."""
    width, height = _MARK
    scale = (width - 12) / ((span[1] - span[0]) or 1.0)
    x, left, right = (6 + (end - span[0]) * scale for end in (value, low, high))
    middle = height / 2
    colour = PALETTE[0] if trained else "currentColor"
    return Markup(
        '<svg role="img" aria-label="{}" width="{}" height="{}">'
        '<line x1="6" x2="{}" y1="{}" y2="{}" stroke="currentColor" stroke-opacity=".15"/>'
        '<line x1="{:.1f}" x2="{:.1f}" y1="{}" y2="{}" stroke="{}" stroke-width="2"/>'
        '<circle cx="{:.1f}" cy="{}" r="4" fill="{}" stroke="{}" stroke-width="1.5"/></svg>'
    ).format(
        f"{number(low)} to {number(high)}", width, height, width - 6, middle, middle, left, right, middle,
        middle, colour, x, middle, colour if trained else "none", colour,
    )  # fmt: skip


def _is_number(value: object) -> bool:
    if value is None or value is pd.NA or isinstance(value, (str, bool)):
        return False
    return math.isfinite(float(value))  # type: ignore[arg-type]


def _label_efficiency(result: Comparison) -> Section | None:
    blocks: list[Block] = []
    for name, readings in result.readings.items():
        if name.partition(" ")[0] != "representation":
            continue
        curves = {model: each[0].details.get("curve") for model, each in readings.items()}
        references = {
            model: one.details.get("curve") for model, one in result.references.get(name, {}).items()
        }
        held = {model: curve for model, curve in {**curves, **references}.items() if curve is not None}
        if held:
            blocks += attempt(name, partial(_curves, name, held, tuple(references)))
    lead = "How well a linear probe reads the label off the codes, as labels grow."
    return Section("Label efficiency", lead, tuple(blocks)) if blocks else None


def _curves(name: str, curves: dict[str, pd.DataFrame], controls: tuple[str, ...]) -> Block:
    drawn = figures.label_efficiency(curves, controls, wide=True)
    return figure_block(
        name.capitalize(),
        "Bands are intervals over draws of the labels; dashed lines need no training.",
        drawn,
    )


def _best_classifier(result: Comparison) -> Section | None:
    table = result.tables.get("classification")
    if table is None or not len(table) or not _is_number(table.iloc[0].get("rank")):
        return None
    model = str(table.iloc[0]["model"])
    details = result.readings["classification"][model][0].details
    if "confusion" not in details:
        return None

    def confusion() -> Block:
        names = [str(name) for name in details["per_class"]["class"]]
        return figure_block(
            "Confusion",
            "Test samples by true and predicted class.",
            figures.confusion(details["confusion"], names),
        )

    def calibration() -> Block:
        return figure_block(
            "Calibration",
            "Below the dotted line it is surer than it is right.",
            figures.calibration(details["reliability"]),
        )

    blocks = (*attempt("Confusion", confusion), *attempt("Calibration", calibration))
    return Section("The first classifier", f"Where {model}, first in the table, goes wrong.", blocks)


def _first_runs(result: Comparison) -> dict[str, Path]:
    """Return the run directory of the first training of each model."""
    found: dict[str, Path] = {}
    for record in result.records:
        if record["name"] in result.runs:
            found.setdefault(record["model"], result.runs[record["name"]])
    return found


def _opened(paths: dict[str, Path], *verbs: str) -> Iterator[tuple[str, Run]]:
    """Return the runs that open and have the verbs."""
    for model, path in paths.items():
        try:
            run = open_run(path)
        except LeadlineError:
            continue
        if all(has_verb(run.model, verb) for verb in verbs):
            yield model, run


def _samples(result: Comparison, paths: dict[str, Path]) -> Section | None:
    blocks: list[Block] = []
    for model, run in _opened(paths, "sample"):
        if not blocks:
            blocks += attempt("Data", partial(_real, run))
        blocks += attempt(model, partial(_drawn, model, run))
    lead = "Drawn with a fixed seed, not chosen."
    if not blocks and any(name.startswith("generation") for name in result.tables):
        blocks = [Block("Samples", failed="the trained models were not kept; compare with out= keeps them")]
    return Section("Samples", lead, tuple(blocks)) if blocks else None


def _real(run: Run) -> Block:
    return samples_block("Data", "Test samples.", run.domain, _test(run, _SHOWN), columns=6, tile=32)


def _drawn(model: str, run: Run) -> Block:
    return samples_block(model, "", run.domain, draw(run.model, _SHOWN, "report"), columns=6, tile=32)


def _test(run: Run, count: int) -> Tensor:
    """Return the first test samples of the data a run learned from."""
    x = run.load_data().test.head(count).x
    return x[torch.arange(len(x))]


def _reconstructions(paths: dict[str, Path]) -> Section | None:
    blocks: list[Block] = []
    for model, run in _opened(paths, "encode", "decode"):
        blocks += attempt(model, partial(_back, model, run))
    lead = "The same test samples (rows one and three), and what each model brings back from its codes."
    return Section("Reconstructions", lead, tuple(blocks)) if blocks else None


def _back(model: str, run: Run) -> Block:
    x = _test(run, 2 * _PAIRS)
    if run.domain.planes is None:
        raise DataError("shown for pictures only")
    z = codes(run.model, Split(x)).float()
    again = answers(run.model, "decode", Split(z)).to(x.dtype)
    rows = torch.cat([x[:_PAIRS], again[:_PAIRS], x[_PAIRS:], again[_PAIRS:]])
    return samples_block(model, f"{z.shape[1]} numbers a code.", run.domain, rows, columns=_PAIRS, tile=32)


def _learning(paths: dict[str, Path]) -> Section | None:
    histories = {model: read_metrics(path / "metrics.jsonl") for model, path in paths.items()}
    histories = {model: metrics for model, metrics in histories.items() if metrics}
    if not histories:
        return None

    def curves() -> Block:
        caption = "Validation figure where there is one; each plot has its own scale. A dot: one record."
        return figure_block("", caption, figures.small_multiples(histories))

    return Section("How they learned", "", attempt("Learning curves", curves))


def _left_out(result: Comparison) -> Section:
    rows = [(model, why) for model, why in result.left_out.items()]
    rows += [(what, why) for what, why in result.failures.items()]
    blocks = [Block(columns=("what", "why"), rows=tuple(rows))] if rows else []
    if result.notes:
        blocks.append(Block(notes=tuple(result.notes)))
    return Section("Left out, and why", "", tuple(blocks))
