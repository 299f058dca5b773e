"""Paths over contours, still and moving."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from leadline.core import OptionError
from leadline.studies.landscape_pictures import COLOURS, heading

if TYPE_CHECKING:
    from leadline.studies.finding import Finding

__all__ = ["animated", "edge_figure", "paths_figure"]

PLACES, LEVELS = 161, 24
MARKS = ("o", "s", "^", "v", "D", "P", "X")


def paths_figure(finding: "Finding") -> Figure:
    """Return the paths over contours, the values along them, and the steps against kappa."""
    details = finding.details
    figure = Figure(figsize=(13.0, 4.2), layout="constrained")
    figure.suptitle(heading(finding), fontsize=10)
    ground, falls, law = figure.subplots(1, 3, width_ratios=(1.25, 1, 0.9))
    _contours(ground, details["function"])
    function = details["function"]
    floor = function.least
    for (name, path), colour, mark in zip(details["paths"].items(), COLOURS, MARKS, strict=False):
        x, y = path.T
        ground.plot(x, y, "-", color=colour, linewidth=1.4, label=name)
        ground.plot(x[-1], y[-1], mark, color=colour, markersize=6, markeredgecolor="white")
        values = function.value(path)
        falls.plot(values if floor is None else (values - floor).clamp(min=1e-16), color=colour, label=name)
    ground.plot(*function.start, "*", color="black", markersize=11, label="start")
    ground.set_title(f"{details['name']}: {function.formula}", fontsize=8)
    ground.legend(fontsize=7, loc="best", ncols=2)
    if floor is None:
        falls.set_yscale("symlog", linthresh=1e-3)
    else:
        falls.set_yscale("log")
    falls.set_xlabel("step")
    falls.set_ylabel("value" if floor is None else "value above the least")
    for (method, counts), colour in zip(details["counts"].items(), COLOURS, strict=False):
        law.loglog(details["kappas"], counts, "o-", color=colour, label=method)
    law.set_xlabel("condition number kappa")
    law.set_ylabel("steps to a millionth of the distance")
    law.legend(fontsize=8)
    return figure


def animated(finding: "Finding", kind: str = ".gif", frames: int = 40) -> bytes:
    """Return the paths as a moving picture: a GIF, or an HTML page that needs no network.

    Args:
        finding: What `optimizer_paths` returned.
        kind: ".gif" or ".html".
        frames: Most pictures, at least 2.

    Raises:
        OptionError: If the kind is another, or there are too few frames.
    """
    if kind not in (".gif", ".html") or frames < 2:
        raise OptionError(
            f"a moving picture is .gif or .html with at least 2 frames, got {kind} and {frames}"
        )
    details = finding.details
    figure = Figure(figsize=(5.6, 4.6), dpi=80)
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    _contours(axis, details["function"])
    axis.set_title(f"{details['name']}: {details['function'].formula}", fontsize=8)
    artists = []
    for (name, places), colour in zip(details["paths"].items(), COLOURS, strict=False):
        (line,) = axis.plot([], [], "-", color=colour, linewidth=1.6, label=name)
        (head,) = axis.plot([], [], "o", color=colour, markeredgecolor="white")
        artists.append((places, line, head))
    axis.legend(fontsize=7, ncols=2, loc="upper right")
    longest = max(len(places) for places, _, _ in artists)
    # Early steps are long and late ones short: frames lie evenly on the root of the step.
    times = np.unique((np.linspace(0, 1, frames) ** 2 * (longest - 1)).round().astype(int))

    def show(time: int) -> list[Any]:
        for places, line, head in artists:
            x, y = places[: time + 1].T
            line.set_data(x, y)
            head.set_data(x[-1:], y[-1:])
        return [artist for _, line, head in artists for artist in (line, head)]

    film = FuncAnimation(figure, show, frames=times, blit=False)
    if kind == ".html":
        return film.to_jshtml(fps=12).encode()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "paths.gif"
        film.save(path, writer=PillowWriter(fps=12))
        return path.read_bytes()


def _contours(axis: Axes, function: Any) -> None:
    """Draw a function's heights over its box, the levels by rank, so that valleys show as well as walls."""
    left, right, bottom, top = function.box
    x, y = np.linspace(left, right, PLACES), np.linspace(bottom, top, PLACES)
    grid = torch.from_numpy(np.stack(np.meshgrid(x, y), -1))
    heights = function.value(grid).numpy()
    levels = np.unique(np.quantile(heights, np.linspace(0, 1, LEVELS)))
    if len(levels) > 2:
        axis.contourf(x, y, heights, levels, cmap="Greys", alpha=0.55)
        axis.contour(x, y, heights, levels, colors="0.45", linewidths=0.4)
    axis.set_xlim(left, right)
    axis.set_ylim(bottom, top)
    axis.set_xlabel("x")
    axis.set_ylabel("y")


def edge_figure(finding: "Finding") -> Figure:
    """Return lambda lr / 2 along each training, a colour a learning rate (a fraction of the stable one)."""
    details = finding.details
    figure = Figure(figsize=(8.4, 3.8), layout="constrained")
    figure.suptitle(heading(finding), fontsize=9)
    axis = figure.subplots()
    rates = list(dict.fromkeys(rate for rate, _ in details["curves"]))
    for rate, curve in details["curves"]:
        steps = np.linspace(0, details["steps"], len(curve), endpoint=False)
        first = rate not in {line.get_gid() for line in axis.lines}
        (line,) = axis.plot(
            steps, curve, color=COLOURS[rates.index(rate) % len(COLOURS)], linewidth=1.2,
            label=f"{rate:g}" if first else None,
        )  # fmt: skip
        line.set_gid(rate)
    axis.axhline(1.0, color="0.3", linewidth=1, linestyle="--", label="edge")
    axis.set_xlabel("step")
    axis.set_ylabel("lambda lr / 2")
    figure.legend(
        loc="outside right center", fontsize=8, title="lr over the largest\nstable at the start",
        title_fontsize=8,
    )  # fmt: skip
    return figure
