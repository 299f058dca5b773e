"""Figures that studies share, drawn without any global state."""

from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from leadline.core import Domain
from leadline.studies.landscape_pictures import heading

if TYPE_CHECKING:
    from leadline.studies.finding import Finding

__all__ = ["bars_figure", "pairs_figure"]


def pairs_figure(finding: "Finding") -> Figure:
    """Return the nearest pairs of samples, one above the other: pictures as pictures, others as text."""
    pairs, domain = finding.details["pairs"], finding.details["domain"]
    figure = Figure(figsize=(1.6 * max(len(pairs), 1), 3.8), layout="constrained")
    figure.suptitle(heading(finding), fontsize=9)
    axes = figure.subplots(2, max(len(pairs), 1), squeeze=False)
    for column, (left, right, distance) in enumerate(pairs):
        for axis, sample in zip(axes[:, column], (left, right), strict=True):
            _show(axis, sample, domain)
        axes[0, column].set_title(f"distance {distance:.3g}", fontsize=8)
    return figure


def bars_figure(finding: "Finding") -> Figure:
    """Return train and test accuracy of each setting, a dot a seed."""
    table = finding.table
    figure = Figure(figsize=(7.0, 3.6), layout="constrained")
    axis = figure.subplots()
    settings = list(dict.fromkeys(table["setting"]))
    for column, shift, colour in (("train accuracy", -0.12, "#1b6ca8"), ("test accuracy", 0.12, "#d1495b")):
        places = [settings.index(setting) + shift for setting in table["setting"]]
        axis.plot(places, table[column], "o", color=colour, alpha=0.7, label=column)
    axis.axhline(finding.details["chance"], color="0.5", linewidth=1, linestyle="--", label="chance")
    axis.set_xticks(range(len(settings)), settings)
    axis.set_ylabel("accuracy")
    axis.set_title(heading(finding), fontsize=9)
    axis.legend(fontsize=8)
    return figure


def _show(axis: Axes, sample: Tensor, domain: Domain) -> None:
    """Draw one raw sample."""
    axis.set_axis_off()
    planes = domain.planes
    if planes is not None and planes[0] in (1, 3):
        top = max((domain.cardinalities or (2,))[0] - 1, 1)
        axis.imshow(sample.movedim(0, -1).squeeze(-1).float().numpy() / top, cmap="gray", vmin=0, vmax=1)
    else:
        text = domain.show(sample).replace(", ", "\n")
        axis.text(0.5, 0.5, text[:120], ha="center", va="center", fontsize=6)
