"""Figures and pictures as parts of a page: inline SVG that follows the page's colours, PNG in the text."""

import base64
import functools
import io
import re
from collections.abc import Callable
from typing import Any, ParamSpec

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

__all__ = ["INK", "PALETTE", "PIXELS", "figure_of", "image", "png_bytes", "styled", "svg", "svg_bytes"]

P = ParamSpec("P")

# Okabe and Ito (2008), the order changed so that neighbours differ in lightness; readable on white and black.
PALETTE = ("#1F83C6", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C8C00", "#7F7F7F")
PIXELS = 96  # of the page in an inch
INK = "#010203"  # stands for the page's own text colour until a figure becomes SVG

_STYLE: Any = {
    "font.size": 9, "axes.titlesize": 10, "axes.labelsize": 9, "legend.fontsize": 8,
    "axes.spines.top": False, "axes.spines.right": False, "svg.fonttype": "none",
    "font.family": "sans-serif", "legend.frameon": False, "axes.axisbelow": True,
    "lines.linewidth": 1.6, "axes.grid": True, "grid.alpha": 0.25, "grid.linewidth": 0.6,
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "grid.color"), INK
    ),
}  # fmt: skip


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Return a function that draws in the page's style."""

    @functools.wraps(draw)
    def inside(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with rc_context(_STYLE):
            return draw(*args, **kwargs)

    return inside


def figure_of(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, list[Any]]:
    """Return a figure of that many inches and its axes, row after row."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="none")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for one in axes:
        one.set_facecolor("none")
    return figure, axes


def svg(figure: Figure, description: str) -> Markup:
    """Return a figure as inline SVG without any outside address, with a description for screen readers."""
    buffer = io.StringIO()
    salt: Any = {"svg.hashsalt": description, "svg.fonttype": "none"}
    with rc_context(_STYLE | salt):
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True, dpi=150)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text)
    text = re.sub(r'\sid="[a-zA-Z]+[a-zA-Z0-9]*_\d+"', "", text).replace("xlink:href", "href")
    text = text.replace(INK, "currentColor").replace("DejaVu Sans", "sans-serif")
    label = Markup('<svg role="img" aria-label="{}"').format(description)
    width = figure.get_figwidth() * PIXELS
    sized = re.sub(
        r"<svg[^>]*?(viewBox=\"[^\"]*\")[^>]*>", rf'{label} \1 width="{width:.0f}">', text, count=1
    )
    return Markup(sized)


def png_bytes(figure: Figure, dpi: int = 150) -> bytes:
    """Return a figure as PNG on white, for a file beside the page."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png", dpi=dpi, facecolor="white")
    return buffer.getvalue()


def svg_bytes(figure: Figure) -> bytes:
    """Return a figure as an SVG file on white, for a file beside the page."""
    buffer = io.BytesIO()
    with rc_context(_STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None}, facecolor="white")
    return buffer.getvalue()


def image(data: bytes, description: str, width: int) -> Markup:
    """Return a PNG or JPEG as an image inside the text of the page, at most `width` pixels wide."""
    kind = "png" if data[:4] == b"\x89PNG" else "jpeg"
    code = base64.b64encode(data).decode("ascii")
    return Markup('<img alt="{}" style="width:{}px" src="data:image/{};base64,{}">').format(
        description, width, kind, code
    )
