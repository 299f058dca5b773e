"""The figures of a report: each takes plain numbers and returns a matplotlib figure; none uses pyplot.

Symbols:
    n samples, K classes, d numbers of a code.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from leadline.reports.drawing import INK, PALETTE, figure_of, styled

__all__ = [
    "calibration",
    "code_map",
    "confusion",
    "label_efficiency",
    "learning_curves",
    "predicted_against_true",
    "principal_axes",
    "score_histogram",
    "small_multiples",
]

_MOST_NAMES, _MOST_WRITTEN = 30, 16
_SIDE_BY_SIDE = ("step", "epoch", "seconds", "phase", "lr", "player", "samples", "time")
_NAMES = {"loss": "training loss", "valid": "validation loss", "objective": "objective (higher is better)"}


@styled
def learning_curves(metrics: Sequence[Mapping[str, Any]]) -> Figure:
    """Return loss and validation figure by step in one plot, every other figure in a plot of its own."""
    phases = list(dict.fromkeys(str(record.get("phase", "")) for record in metrics))
    main = [key for key in ("loss", "valid") if _curve(metrics, key)[0]]
    others = [key for key in _keys(metrics) if key not in main]
    longer = [key for key in others if len(_curve(metrics, key)[0]) > 1]
    others = (longer if main or longer else others)[:5]  # one number of a stage is no curve
    groups = ([main] if main else []) + [[key] for key in others]
    if not groups:
        raise ValueError("the run recorded no figures")
    columns = min(3, len(groups))
    rows = math.ceil(len(groups) / columns)
    figure, axes = figure_of(3.4 * columns + 0.4, 2.5 * rows, rows, columns)
    for place, keys in zip(axes, groups, strict=False):
        for number, key in enumerate(keys):
            x, y = _curve(metrics, key)
            marker = "o" if len(x) < 3 else None
            place.plot(x, y, color=PALETTE[number], marker=marker, label=_NAMES.get(key, key))
        place.set_xlabel("step")
        place.set_title(" and ".join(_NAMES.get(key, key) for key in keys), loc="left")
        place.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        _mark_phases(place, metrics, phases)
        if len(keys) > 1:
            place.legend()
    for place in axes[len(groups) :]:
        place.set_axis_off()
    return figure


def _keys(metrics: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of the figures that were recorded, in the order of their first record."""
    found: dict[str, None] = {}
    for record in metrics:
        found.update(
            (key, None)
            for key, value in record.items()
            if isinstance(value, float) and key not in _SIDE_BY_SIDE and math.isfinite(value)
        )
    return list(found)


def _curve(metrics: Sequence[Mapping[str, Any]], key: str) -> tuple[list[float], list[float]]:
    pairs = [
        (float(record.get("step", number)), float(record[key]))
        for number, record in enumerate(metrics)
        if isinstance(record.get(key), (int, float)) and math.isfinite(record[key])
    ]
    return [x for x, _ in pairs], [y for _, y in pairs]


def _mark_phases(place: Any, metrics: Sequence[Mapping[str, Any]], phases: Sequence[str]) -> None:
    """Draw a line where a stage of the training ends and the next begins."""
    for phase in phases[1:]:
        first = min(float(r.get("step", 0)) for r in metrics if str(r.get("phase", "")) == phase)
        place.axvline(first, color=INK, linestyle=":", linewidth=0.8)


@styled
def small_multiples(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Return the validation (or training) figure of each run over its seconds, a small plot each."""
    drawn = {}
    for name, metrics in runs.items():
        for key in ("valid", "objective", "loss", *_keys(metrics)):
            x, y = _over_time(metrics, key)
            if x:
                drawn[name] = (key, x, y)
                break
    if not drawn:
        raise ValueError("no run recorded a figure")
    columns = min(4, len(drawn))
    rows = math.ceil(len(drawn) / columns)
    figure, axes = figure_of(2.5 * columns, 1.9 * rows + 0.1, rows, columns)
    for place, (name, (key, x, y)) in zip(axes, drawn.items(), strict=False):
        place.plot(x, y, color=PALETTE[0], marker="o" if len(x) < 3 else None)
        place.set_title(f"{name}: {_NAMES.get(key, key)}", loc="left", fontsize=8)
        place.set_xlabel("seconds")
        place.xaxis.set_major_locator(MaxNLocator(4))
        place.yaxis.set_major_locator(MaxNLocator(4))
    for place in axes[len(drawn) :]:
        place.set_axis_off()
    return figure


def _over_time(metrics: Sequence[Mapping[str, Any]], key: str) -> tuple[list[float], list[float]]:
    pairs = [
        (float(record["seconds"]), float(record[key]))
        for record in metrics
        if isinstance(record.get(key), (int, float)) and "seconds" in record and math.isfinite(record[key])
    ]
    return [x for x, _ in pairs], [y for _, y in pairs]


@styled
def confusion(counts: Tensor, names: Sequence[str]) -> Figure:
    """Return the confusion matrix (K, K), rows the true classes; shades are shares of the row."""
    k = len(names)
    side = min(6.2, 1.9 + 0.26 * k)
    figure, axes = figure_of(side + 0.9, side)
    place = axes[0]
    share = counts.double() / counts.sum(1, keepdim=True).clamp(min=1)
    shown = place.imshow(share.numpy(), cmap="cividis", vmin=0, vmax=1, interpolation="nearest")
    if k <= _MOST_WRITTEN:
        for row in range(k):
            for column in range(k):
                count, dark = int(counts[row, column]), float(share[row, column]) < 0.55
                if count:
                    place.text(
                        column, row, str(count), ha="center", va="center", fontsize=7,
                        color="white" if dark else "black",
                    )  # fmt: skip
    if k <= _MOST_NAMES:
        short = [name if len(name) <= 14 else name[:13] + "…" for name in names]
        long = max(len(name) for name in short) > 3
        place.set_xticks(range(k), short, rotation=60 if long else 0, ha="right" if long else "center")
        place.set_yticks(range(k), short)
    place.set(xlabel="predicted class", ylabel="true class")
    place.grid(visible=False)
    bar = figure.colorbar(shown, ax=place, shrink=0.8, label="share of the true class")
    bar.outline.set_visible(False)
    return figure


@styled
def calibration(table: pd.DataFrame) -> Figure:
    """Return accuracy against confidence, a point a cell, larger where it holds more samples."""
    figure, axes = figure_of(3.6, 3.4)
    place = axes[0]
    place.plot([0, 1], [0, 1], color=INK, linestyle=":", linewidth=1, label="calibrated")
    sizes = 12 + 160 * table["count"] / table["count"].sum()
    place.plot(table["confidence"], table["accuracy"], color=PALETTE[0], linewidth=1)
    place.scatter(
        table["confidence"], table["accuracy"], s=sizes, color=PALETTE[0], label="cell (size: samples)"
    )
    place.set(xlabel="mean confidence", ylabel="accuracy", xlim=(-0.03, 1.05), ylim=(-0.03, 1.05))
    place.legend(loc="upper left", handlelength=1.2)
    return figure


@styled
def predicted_against_true(predicted: Tensor, truth: Tensor, names: Sequence[str]) -> Figure:
    """Return predictions (n, D) against targets (n, D), a plot a target, at most four."""
    count = min(4, truth.shape[1])
    figure, axes = figure_of(3.2 * count + 0.2, 3.1, 1, count)
    for number, place in enumerate(axes):
        _against(place, predicted[:, number], truth[:, number], names[number])
    return figure


def _against(place: Any, predicted: Tensor, truth: Tensor, name: str) -> None:
    finite = torch.isfinite(predicted)
    both = torch.cat([truth, predicted[finite]])
    ends = [float(both.min()), float(both.max())]
    place.plot(ends, ends, color=INK, linestyle=":", linewidth=1)
    place.scatter(
        truth[finite], predicted[finite], s=8, alpha=0.5, color=PALETTE[0], linewidths=0, rasterized=True
    )
    place.set(xlabel=f"true {name}", ylabel=f"predicted {name}")


def principal_axes(codes: Tensor) -> tuple[Tensor, tuple[float, float]]:
    """Return the first two principal components of codes, (n, d) -> (n, 2), and their shares of variance."""
    centred = codes.double() - codes.double().mean(0)
    if centred.shape[1] == 1:
        return torch.cat([centred, torch.zeros_like(centred)], 1), (1.0, 0.0)
    _, spread, axes = torch.linalg.svd(centred, full_matrices=False)
    power = spread.square() / spread.square().sum().clamp(min=1e-300)
    signs = torch.where(axes[:2].sum(1) < 0, -1.0, 1.0)
    second = float(power[1]) if len(power) > 1 else 0.0
    flat = centred @ (axes[:2] * signs[:, None]).T
    return (flat if flat.shape[1] == 2 else torch.cat([flat, torch.zeros_like(flat)], 1)), (
        float(power[0]),
        second,
    )


@styled
def code_map(codes: Tensor, y: Tensor | None, names: Sequence[str] | None) -> Figure:
    """Return a map of codes (n, d) by their first two principal components.

    Args:
        codes: Codes of the samples.
        y: Class numbers (n,) with -1 for unknown, one real target (n,), or None.
        names: Names of the classes, or None where y is real.
    """
    flat, shares = principal_axes(codes)
    figure, axes = figure_of(4.9, 3.7)
    place = axes[0]
    options = {"s": 11, "linewidths": 0, "alpha": 0.75, "rasterized": True}
    if y is None:
        place.scatter(flat[:, 0], flat[:, 1], color=PALETTE[0], **options)
    elif names is None or len(names) > len(PALETTE) + 4:
        shown = place.scatter(flat[:, 0], flat[:, 1], c=y.double().numpy(), cmap="viridis", **options)
        figure.colorbar(shown, ax=place, label="target" if names is None else "class number")
    else:
        _by_class(place, flat, y, names, options)
    place.set_xlabel(f"first principal component ({shares[0]:.0%} of the variance)")
    place.set_ylabel(f"second ({shares[1]:.0%})")
    return figure


def _by_class(place: Any, flat: Tensor, y: Tensor, names: Sequence[str], options: Mapping[str, Any]) -> None:
    """Draw each class in its colour; a second round of the palette takes another marker."""
    for number, name in enumerate(names):
        mine = y == number
        if bool(mine.any()):
            place.scatter(
                flat[mine, 0], flat[mine, 1], color=PALETTE[number % len(PALETTE)],
                marker="o" if number < len(PALETTE) else "^", label=name, **options,
            )  # fmt: skip
    unknown = y < 0
    if bool(unknown.any()):
        place.scatter(
            flat[unknown, 0],
            flat[unknown, 1],
            color="#9a9a9a",
            marker="x",
            label="unknown",
            **{**options, "linewidths": 0.8},
        )
    place.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), markerscale=1.6, handletextpad=0.2)


@styled
def label_efficiency(
    curves: Mapping[str, pd.DataFrame], controls: Sequence[str] = (), *, wide: bool = False
) -> Figure:
    """Return accuracy against labels a class, a curve a model with its interval; controls are dashed."""
    figure, axes = figure_of(8.4 if wide else 4.9, 4.4 if wide else 3.5)
    place = axes[0]
    colour = 0
    for name, curve in curves.items():
        if name in controls:
            place.plot(curve["labels_per_class"], curve["accuracy"], color=INK, alpha=0.7, label=name,
                       linestyle=("--", ":", "-.")[list(controls).index(name) % 3])  # fmt: skip
            continue
        paint, dash = PALETTE[colour % len(PALETTE)], "-" if colour < len(PALETTE) else "-."
        place.plot(
            curve["labels_per_class"], curve["accuracy"], color=paint, linestyle=dash, marker=".", label=name
        )
        place.fill_between(
            curve["labels_per_class"], curve["low"], curve["high"], color=paint, alpha=0.15, linewidth=0
        )
        colour += 1
    place.set_xscale("log")
    ticks = sorted({round(float(x), 1) for curve in curves.values() for x in curve["labels_per_class"]})
    place.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    place.minorticks_off()
    place.set(xlabel="labels per class", ylabel="test accuracy of a linear probe")
    place.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


@styled
def score_histogram(groups: Mapping[str, Tensor], unit: str) -> Figure:
    """Return the distribution of log-likelihoods, a group of samples a colour."""
    figure, axes = figure_of(5.2, 2.6)
    place = axes[0]
    finite = {name: rows[torch.isfinite(rows)].double() for name, rows in groups.items()}
    every = torch.cat(list(finite.values()))
    if not len(every):
        raise ValueError("no score is finite")
    low, high = torch.quantile(every, torch.tensor([0.005, 0.995]).double()).tolist()
    edges = torch.linspace(low, high if high > low else low + 1, 31).tolist()
    for number, (name, rows) in enumerate(finite.items()):
        told = {"bins": edges, "density": True, "color": PALETTE[number]}
        inside = rows.clamp(edges[0], edges[-1]).numpy()
        place.hist(inside, histtype="step", linewidth=1.6, label=f"{name} (n = {len(rows)})", **told)
        place.hist(inside, alpha=0.15, **told)
    place.set(xlabel=f"log-likelihood of a sample ({unit})", ylabel="density")
    place.legend()
    return figure
