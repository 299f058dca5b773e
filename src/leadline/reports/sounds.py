"""Clips of sound as pictures: the waveform, and below it the log-mel energies over time.

Symbols:
    n clips, F frames of a clip, M mel bands.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpecFromSubplotSpec
from torch import Tensor

from leadline.core import Audio, OptionError, Ragged
from leadline.nets.spectra import LogMel, mel
from leadline.reports.drawing import PALETTE, styled

__all__ = ["MOST_CLIPS", "clips"]

MOST_CLIPS = 12
_COLUMNS, _POINTS, _BANDS, _RANGE = 4, 160, (40, 20, 10, 5), 9.0


@styled
def clips(domain: Audio, x: Tensor, titles: Sequence[str] = ()) -> Figure:
    """Return at most 12 clips (n, length_i), each a waveform over its log-mel energies.

    Args:
        domain: What a clip is.
        x: Raw clips.
        titles: What stands above each, if anything.
    """
    waves = domain.waves(x)[:MOST_CLIPS]
    if not isinstance(waves, Ragged) or not len(waves):
        raise ValueError("there are no clips to show")
    energies = _energies(domain.rate, waves)
    columns = min(_COLUMNS, len(waves))
    rows = math.ceil(len(waves) / columns)
    figure = Figure(figsize=(2.3 * columns + 0.3, 2.0 * rows), layout="constrained", facecolor="none")
    grid = figure.add_gridspec(rows, columns)
    for number, (wave, frames) in enumerate(zip(waves, energies, strict=True)):
        cell = GridSpecFromSubplotSpec(2, 1, grid[number // columns, number % columns], height_ratios=(1, 2))
        above, below = figure.add_subplot(cell[0]), figure.add_subplot(cell[1])
        _waveform(above, wave, domain.rate)
        _picture(below, frames, len(wave) / domain.rate, domain.rate)
        if number < len(titles):
            above.set_title(titles[number], fontsize=8, loc="left")
        if number % columns:
            below.set_yticklabels([])
        if number // columns == rows - 1 or number + columns >= len(waves):
            below.set_xlabel("seconds")
    return figure


def _energies(rate: int, waves: Ragged) -> Ragged:
    """Return log-mel energies with as many bands as the rate allows: (n, length_i) -> (n, F_i, M)."""
    for bands in _BANDS:
        try:
            found: Ragged = LogMel(rate, bands)(waves.float())
        except OptionError:
            continue
        return found
    raise ValueError(f"{rate} samples a second are too few for a picture of the spectrum")


def _waveform(place: Any, wave: Tensor, rate: int) -> None:
    """Draw the range of the samples in each of some cells of time."""
    pieces = wave.double().tensor_split(min(_POINTS, len(wave)))
    low, high = ([float(end(piece)) for piece in pieces] for end in (torch.min, torch.max))
    seconds = len(wave) / rate
    at = [(i + 0.5) * seconds / len(pieces) for i in range(len(pieces))]
    place.fill_between(at, low, high, color=PALETTE[0], linewidth=0.6)
    most = max(float(wave.abs().max()), 1e-3)
    place.set(xlim=(0, seconds), ylim=(-1.05 * most, 1.05 * most), xticks=[], yticks=[])
    place.grid(visible=False)
    for side in ("left", "bottom"):
        place.spines[side].set_visible(False)


def _picture(place: Any, frames: Tensor, seconds: float, rate: int) -> None:
    """Draw energies (F, M), low bands below, the loudest 39 decibels of the clip."""
    top = float(frames.max())
    place.imshow(
        frames.T.numpy(), origin="lower", aspect="auto", cmap="cividis", vmin=top - _RANGE, vmax=top,
        extent=(0, seconds, 0, 1), interpolation="nearest",
    )  # fmt: skip
    ends = mel(torch.tensor([20.0, rate / 2]))
    shown = [f for f in (250, 500, 1000, 2000, 4000, 8000) if 20 < f < 0.95 * rate / 2][-3:]
    at = [float((mel(torch.tensor(float(f))) - ends[0]) / (ends[1] - ends[0])) for f in shown]
    place.set_yticks(at, [f"{f / 1000:g} kHz" if f >= 1000 else f"{f} Hz" for f in shown], fontsize=7)
    place.tick_params(axis="x", labelsize=7)
    place.locator_params(axis="x", nbins=4)
    place.grid(visible=False)
