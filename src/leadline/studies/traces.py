"""Figures of Markov chains, drawn without any global state, and the interval of readings over seeds."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from leadline.core import ShapeError
from leadline.inference import chains

if TYPE_CHECKING:
    from leadline.studies.finding import Finding

__all__ = ["bias_figure", "convergence_figure", "seed_interval", "trace_figure"]

_COLOURS = ("#1b6ca8", "#d1495b", "#2a9d5c", "#b8860b", "#6a4c93", "#444444")
_MOST_ENTRIES = 8


def trace_figure(draws: Tensor, names: Sequence[str] | None = None) -> Figure:
    """Return traces of chains with their ESS and R-hat, and how their draws are spread, a row an entry.

    Of many entries the eight with the largest R-hat are shown, of many chains six; the title says so.

    Args:
        draws: (chain, draw) or (chain, draw, *shape).
        names: Name of each entry.

    Raises:
        ShapeError: If there are fewer than four draws, or not as many names as entries.
    """
    if draws.dim() < 2 or draws.shape[1] < 4:
        raise ShapeError(f"draws must be (chain, draw >= 4, *shape), got {tuple(draws.shape)}")
    x = draws.detach().double().cpu().reshape(draws.shape[0], draws.shape[1], -1)
    known = [f"x[{i}]" for i in range(x.shape[2])] if names is None else list(names)
    if len(known) != x.shape[2]:
        raise ShapeError(f"{x.shape[2]} entries need as many names, got {len(known)}")
    shown = list(range(x.shape[2]))
    if len(shown) > _MOST_ENTRIES:
        worst = chains.r_hat(x).nan_to_num(torch.inf).argsort(descending=True)
        shown = sorted(worst[:_MOST_ENTRIES].tolist())
    rows = len(shown)
    figure = Figure(figsize=(7.6, 0.5 + 1.7 * rows), layout="constrained")
    figure.suptitle(_left_out(x, rows), fontsize=8, x=0.01, ha="left")
    axes = figure.subplots(rows, 2, squeeze=False, width_ratios=(3.2, 1))
    for row, entry in enumerate(shown):
        _trace(axes[row, 0], x[..., entry], known[entry])
        _spread(axes[row, 1], x[..., entry])
    axes[rows - 1, 0].set_xlabel("draw")
    axes[rows - 1, 1].set_xlabel("share of draws")
    return figure


def _left_out(x: Tensor, rows: int) -> str:
    """Return what a figure of `rows` entries shows of draws (chain, draw, entry); empty if all."""
    told = []
    if rows < x.shape[2]:
        told.append(f"{rows} of {x.shape[2]} entries, those with the largest R-hat")
    if len(_COLOURS) < len(x):
        told.append(f"{len(_COLOURS)} of {len(x)} chains; ESS and R-hat are of all")
    return "; ".join(told)


def convergence_figure(finding: "Finding") -> Figure:
    """Return total variation against sweeps, and traces of a warm and a cold lattice."""
    figure = Figure(figsize=(8.4, 3.9), layout="constrained")
    figure.suptitle(f"{finding.claim} {finding.verdict.capitalize()}.", fontsize=9)
    grid = figure.add_gridspec(2, 2, width_ratios=(1.15, 1))
    left = figure.add_subplot(grid[:, 0])
    table = finding.table
    for colour, (coupling, far) in zip(_COLOURS, finding.details["exact"].items(), strict=False):
        rows = table[(table["coupling"] == coupling) & table["ratio"].notna()]
        kept, t = 1 - float(rows["gap"].iloc[0]), torch.arange(len(far)).double()
        shown = far > 1e-4
        left.semilogy(t[shown], far[shown], color=colour, linewidth=1.6, label=f"J = {coupling:g}, exact")
        late = int(shown.sum()) - 1
        line = far[late] * kept ** (t - late)
        left.semilogy(t[shown], line[shown], color="black", linewidth=1.1, linestyle=":")
    left.set(xlabel="sweeps", ylabel="total variation to the target, worst start", ylim=(1e-4, 1.5))
    left.set_title("dotted: slope that the spectral gap predicts", fontsize=8, loc="left")
    left.legend(fontsize=8, frameon=False)
    for place, name in enumerate(("warm", "cold")):
        _trace(figure.add_subplot(grid[place, 1]), finding.details[name], f"magnetisation, {name}")
    figure.axes[-1].set_xlabel("sweep")
    return figure


def bias_figure(finding: "Finding") -> Figure:
    """Return the bias against the step, a plot a target, a dot a seed."""
    table = finding.table
    targets = list(dict.fromkeys(table["target"]))
    figure = Figure(figsize=(3.9 * len(targets), 3.4), layout="constrained")
    figure.suptitle(f"{finding.claim} {finding.verdict.capitalize()}.", fontsize=9)
    axes = figure.subplots(1, len(targets), squeeze=False)
    for axis, target in zip(axes[0], targets, strict=True):
        for colour, kernel in zip(_COLOURS[1::-1], dict.fromkeys(table["kernel"]), strict=True):
            mine = table[(table["target"] == target) & (table["kernel"] == kernel)]
            mean = mine.groupby("step")["bias"].mean()
            axis.plot(mine["step"], mine["bias"], "o", color=colour, alpha=0.5, markersize=4)
            axis.plot(mean.index, mean, color=colour, label=kernel)
        if target == "normal":
            e = torch.linspace(0, float(table["step"].max()), 50)
            axis.plot(e, 1 / (1 - e / 2) - 1, color="0.4", linestyle=":", label="1 / (1 - e / 2) - 1")
        axis.axhline(0, color="0.7", linewidth=0.8)
        axis.set(xlabel="step size e", ylabel="relative bias of E[x²]")
        axis.set_title(f"{target} target", fontsize=9, loc="left")
        axis.legend(fontsize=8, frameon=False)
    return figure


def seed_interval(values: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """Return mean and 95 % t-interval of readings over seeds; the whole line for one seed."""
    from scipy.stats import t

    x = torch.tensor(list(values), dtype=torch.float64)
    mean = float(x.mean())
    if len(x) < 2:
        return mean, (-math.inf, math.inf)
    half = float(t.ppf(0.975, len(x) - 1)) * float(x.std()) / math.sqrt(len(x))
    return mean, (mean - half, mean + half)


def _trace(axis: Axes, x: Tensor, name: str) -> None:
    """Draw the traces of some chains (m, n), and over them what all chains say."""
    for colour, chain in zip(_COLOURS, x, strict=False):
        axis.plot(chain, color=colour, linewidth=0.7, alpha=0.8)
    shrink = float(chains.r_hat(x))
    told = f"{name}: ESS {float(chains.ess(x)):,.0f}, R-hat {shrink:.3f}"
    trusted = shrink <= 1.01
    axis.set_title(
        told + ("" if trusted else " (chains disagree)"), fontsize=8, loc="left",
        color="black" if trusted else "#b00020",
    )  # fmt: skip
    axis.tick_params(labelsize=7)
    axis.margins(x=0.01)


def _spread(axis: Axes, x: Tensor) -> None:
    """Draw the histogram of each chain, on its side."""
    low, high = float(x.min()), float(x.max())
    bins: Any = torch.linspace(low, high if high > low else low + 1, 25).tolist()
    for colour, chain in zip(_COLOURS, x, strict=False):
        weights = torch.full_like(chain, 1 / len(chain))
        axis.hist(
            chain.numpy(), bins=bins, weights=weights.numpy(), histtype="step", color=colour,
            orientation="horizontal",
        )  # fmt: skip
    axis.tick_params(labelsize=7)
