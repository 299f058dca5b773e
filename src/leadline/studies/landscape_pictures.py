"""Figures of functions, paths on them, and their curvature."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from leadline.studies.finding import Finding

__all__ = ["COLOURS", "heading", "sharpness_figure", "spectrum_figure", "stationary_figure"]

APART = 1000.0  # ratio of reaches beyond which heights are drawn on a logarithmic scale
COLOURS = ("#1b6ca8", "#d1495b", "#3a7d44", "#edae49", "#7b4b94", "#2b9eb3", "#8d5524", "#444444")


def heading(finding: "Finding") -> str:
    """Return the claim with its verdict, over two lines where it is long."""
    text = f"{finding.claim} {finding.verdict.capitalize()}."
    if len(text) <= 90:
        return text
    cut = text.rfind(" ", 0, len(text) // 2 + 15)
    return f"{text[:cut]}\n{text[cut + 1 :]}"


def stationary_figure(finding: "Finding") -> Figure:
    """Return the function along lines through the point, and its heights around it."""
    details = finding.details
    around = details.get("around")
    figure = Figure(figsize=(9.6 if around is not None else 5.6, 3.9), layout="constrained")
    figure.suptitle(f"{heading(finding)} {details['kind'].capitalize()}.", fontsize=9)
    axes = figure.subplots(1, 1 if around is None else 2, squeeze=False)[0]
    for (name, heights), look in zip(details["lines"].items(), ("-", "-", ":", "--"), strict=False):
        colour = COLOURS[list(details["lines"]).index(name)]
        axes[0].plot(details["places"], heights, look, color=colour, label=name, linewidth=2)
    axes[0].axhline(0, color="0.6", linewidth=0.8)
    axes[0].axvline(0, color="0.6", linewidth=0.8)
    axes[0].set_xlabel("distance from the point, along a line")
    axes[0].set_ylabel("change of the function")
    _spread(axes[0], [float(np.abs(heights).max()) for heights in details["lines"].values()])
    axes[0].legend(fontsize=7, title="direction of", title_fontsize=7)
    if around is not None:
        _around(axes[1], details, around)
    return figure


def _spread(axis: Axes, reaches: list[float]) -> None:
    """Draw heights on a logarithmic scale of both signs, where else the lower lines would lie on zero."""
    most, least = max(reaches), min((reach for reach in reaches if reach > 0), default=0.0)
    if not 0 < APART * least < most:
        return
    axis.set_yscale("symlog", linthresh=least)
    low, high = axis.get_ylim()
    powers = np.unique(np.linspace(np.ceil(np.log10(least)) + 1, np.floor(np.log10(most)), 4).round())
    ticks = np.concatenate([-(10.0 ** powers[::-1]), [0.0], 10.0**powers])
    axis.set_yticks(ticks[(ticks >= low) & (ticks <= high)])
    axis.minorticks_off()
    axis.set_ylim(low, high)


def _around(axis: Axes, details: dict[str, Any], around: Any) -> None:
    """Draw where the function is lower and where it is higher than at the point."""
    top = float(np.abs(around).max()) or 1.0
    places = details["places"]
    # A signed root spreads heights that differ by powers of ten.
    axis.contourf(
        places, places, np.sign(around) * np.abs(around / top) ** 0.25, 20, cmap="RdBu_r", vmin=-1, vmax=1
    )
    axis.contour(places, places, around, [0.0], colors="black", linewidths=0.8)
    nature = details["nature"]
    for move, mark, label in ((nature.low, "v", "lower"), (nature.high, "^", "higher")):
        if move is not None:
            axis.plot(*move.tolist(), mark, color="black", markersize=8, label=label)
    axis.plot(0, 0, "o", color="white", markeredgecolor="black")
    axis.set_aspect("equal")
    axis.locator_params(nbins=5)
    axis.set_title("lower (blue) and higher (red) than the point", fontsize=8)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=7, loc="upper right")


def sharpness_figure(finding: "Finding") -> Figure:
    """Return each measure before and after rescaling, as a ratio to before."""
    table = finding.table
    figure = Figure(figsize=(7.4, 3.8), layout="constrained")
    figure.suptitle(heading(finding), fontsize=9)
    axis = figure.subplots()
    names = ["eigenvalue", "keskar 1e-3", "keskar 5e-4", "adaptive rise", "adaptive eigenvalue"]
    for place, (_, row) in enumerate(table.iterrows()):
        bars = [abs(float(row[name])) for name in names]
        spots = np.arange(len(names)) + 0.4 * place
        axis.bar(spots, bars, 0.36, color=COLOURS[place], label=str(row["weights"]))
        for spot, name in zip(spots, names, strict=True):
            axis.annotate(
                f"{float(row[name]):.3g}", (spot, abs(float(row[name]))), ha="center", va="bottom", fontsize=7
            )
    axis.set_yscale("log")
    axis.margins(y=0.12)
    axis.set_xticks(np.arange(len(names)) + 0.2 * (len(table) - 1), names, fontsize=8)
    axis.legend(fontsize=8)
    return figure


def spectrum_figure(finding: "Finding") -> Figure:
    """Return the density of eigenvalues on a logarithmic scale, with the extreme ones as ticks."""
    density, values = finding.details["density"], finding.details["eigenvalues"]
    low = min(float(density.nodes.min()), float(values.min()))
    high = max(float(density.nodes.max()), float(values.max()))
    width = 0.01 * (high - low) or 1.0
    grid = torch.linspace(low - 6 * width, high + 6 * width, 800, dtype=torch.float64)
    curve, error = density.curve(grid, width)
    figure = Figure(figsize=(7.4, 3.6), layout="constrained")
    figure.suptitle(heading(finding), fontsize=9)
    axis = figure.subplots()
    floor = 0.1 / (density.size * width)
    axis.fill_between(
        grid, (curve - 2 * error).clamp(min=floor), curve + 2 * error, color=COLOURS[0], alpha=0.25
    )
    shown = torch.where(curve > floor, curve, torch.nan)
    axis.semilogy(grid, shown, color=COLOURS[0], label="density, with two standard errors")
    axis.plot(
        values, np.full(len(values), floor), "|", color=COLOURS[1], markersize=18, label="extreme eigenvalues"
    )
    axis.set_ylim(bottom=floor)
    axis.set_xlabel("eigenvalue of the Hessian")
    axis.set_ylabel("density")
    axis.legend(fontsize=8, markerscale=0.5)
    return figure
