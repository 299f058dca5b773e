"""Figures of graphs of variables: a network with its marginals as bars, two networks compared, factors.

Symbols:
    d variables, a -> b an edge.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import networkx as nx
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Wedge
from matplotlib.path import Path

from leadline.reports.drawing import INK, PALETTE, styled
from leadline.reports.layered import Layout, layered

__all__ = ["compared_networks", "factor_graph", "network"]

_WIDE, _HIGH, _GAP = 1.5, 0.19, 0.55  # inches: a box, one of its lines, the way between two layers
_MOST_STATES = 5
_GIVEN, _HIT, _MISSED, _EXTRA, _TURNED = "#555555", PALETTE[2], "#999999", PALETTE[5], PALETTE[1]


@styled
def network(
    names: Sequence[str],
    parents: Sequence[Sequence[int]],
    states: Sequence[Sequence[str]],
    marginals: Sequence[Sequence[float]] | None = None,
    evidence: Mapping[int, int] | None = None,
) -> Figure:
    """Return a directed network, a box a variable with its marginal as bars; observed ones are marked.

    Args:
        names: Name of each variable.
        parents: Parents of each variable.
        states: Names of the states of each variable; of many only the likeliest are shown.
        marginals: Probability of each state, or None for names alone.
        evidence: Observed state of some variables.
    """
    layout = layered(parents)
    lines = 0 if marginals is None else min(_MOST_STATES, max(len(s) for s in states))
    figure, place = _canvas(layout, lines)
    for (parent, child), route in layout.routes.items():
        _edge(place, route, lines, INK, observed=parent in (evidence or {}) and child in (evidence or {}))
    for v, (x, y) in enumerate(layout.places):
        seen = (evidence or {}).get(v)
        box = _Box(place, x * (_WIDE + 0.2), -y * _pitch(lines), lines, marked=seen is not None)
        box.title(names[v])
        if marginals is not None:
            box.bars(states[v], marginals[v], seen)
    return figure


@styled
def compared_networks(
    names: Sequence[str], learned: Sequence[Sequence[int]], given: Sequence[Sequence[int]]
) -> Figure:
    """Return a learned network over a given one: edges found, turned, missed, and those that are extra."""
    mine = {(a, c) for c, above in enumerate(learned) for a in above}
    true = {(a, c) for c, above in enumerate(given) for a in above}
    layout = layered(given)
    figure, place = _canvas(layout, 0)
    figure.set_figheight(figure.get_figheight() + 0.8)  # for the title and the legend
    figure.set_figwidth(max(figure.get_figwidth(), 6.0))
    kinds = {
        "found": (mine & true, _HIT, "-"),
        "turned": ({(a, c) for a, c in true - mine if (c, a) in mine}, _TURNED, "-"),
        "missed": ({(a, c) for a, c in true - mine if (c, a) not in mine}, _MISSED, ":"),
        "extra": ({(a, c) for a, c in mine - true if (c, a) not in true}, _EXTRA, "--"),
    }
    for label, (edges, colour, style) in kinds.items():
        for a, c in sorted(edges):
            straight = [layout.places[a], layout.places[c]]
            route = layout.routes.get((a, c), straight)
            _edge(place, route[::-1] if label == "turned" else route, 0, colour, style=style)
        place.plot([], [], color=colour, linestyle=style, label=f"{label} ({len(edges)})")
    for v, (x, y) in enumerate(layout.places):
        _Box(place, x * (_WIDE + 0.2), -y * _pitch(0), 0).title(names[v])
    place.legend(loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=4)
    return figure


@styled
def factor_graph(
    names: Sequence[str],
    scopes: Sequence[Sequence[int]],
    states: Sequence[Sequence[str]] | None = None,
    marginals: Sequence[Sequence[float]] | None = None,
) -> Figure:
    """Return a factor graph: a circle a variable, a square a factor; a marginal is a ring of its shares."""
    graph = nx.Graph()
    graph.add_nodes_from(("v", v) for v in range(len(names)))
    graph.add_nodes_from(("f", f) for f in range(len(scopes)))
    graph.add_edges_from((("f", f), ("v", v)) for f, scope in enumerate(scopes) for v in scope)
    spots = _spots(graph)
    side = min(14.0, max(4.0, 1.5 * len(names) ** 0.5))
    figure = Figure(figsize=(side, side), layout="constrained", facecolor="none")
    place = _bare(figure)
    for a, b in graph.edges:
        place.plot(*zip(spots[a], spots[b], strict=True), color=INK, linewidth=0.8, zorder=1)
    size = 0.32 / max(1.0, len(names) ** 0.5 / 3)
    for kind, number in graph.nodes:
        x, y = spots[kind, number]
        if kind == "f":
            place.plot([x], [y], marker="s", markersize=5, color=INK, zorder=2)
        else:
            shares = [1.0] if marginals is None else list(marginals[number])
            _ring(place, x, y, size, shares)
            place.annotate(
                names[number],
                (x, y - size),
                (0, -2),
                textcoords="offset points",
                ha="center",
                va="top",
                fontsize=7,
            )
    if states is not None and marginals is not None:
        few = {tuple(s) for s in states}
        shown = few.pop() if len(few) == 1 else [f"state {i}" for i in range(max(map(len, states)))]
        for i, state in enumerate(shown[: len(PALETTE)]):
            place.plot([], [], marker="o", linestyle="", color=PALETTE[i], label=str(state))
        place.legend(loc="lower right")
    place.margins(0.08)
    return figure


def _spots(graph: Any) -> dict[Any, tuple[float, float]]:
    """Return a place of each node, spread so that neighbours lie near each other."""
    found: dict[Any, tuple[float, float]] = {}
    left = 0.0
    for part in sorted(nx.connected_components(graph), key=len, reverse=True):
        inside = graph.subgraph(part)
        raw = nx.kamada_kawai_layout(inside) if len(part) < 300 else nx.spring_layout(inside, seed=0)
        span = max(1.0, len(part) ** 0.5)
        for node, (x, y) in raw.items():
            found[node] = (left + span * (x + 1) / 2, span * (y + 1) / 2)
        left += span + 0.6
    return found


def _ring(place: Any, x: float, y: float, size: float, shares: Sequence[float]) -> None:
    start = 90.0
    ends = start - 360.0 * np.cumsum(shares)
    for i, end in enumerate(ends):
        colour = PALETTE[i % len(PALETTE)] if len(shares) > 1 else "white"
        place.add_patch(
            Wedge((x, y), size, end, start, facecolor=colour, edgecolor=INK, linewidth=0.6, zorder=2)
        )
        start = end


def _pitch(lines: int) -> float:
    return _HIGH * (1.3 + lines) + _GAP


def _bare(figure: Figure) -> Any:
    place = figure.subplots()
    place.set_facecolor("none")
    place.set_aspect("equal")
    place.set_axis_off()
    return place


def _canvas(layout: Layout, lines: int) -> tuple[Figure, Any]:
    """Return a figure in which one unit of the axes is one inch, and its axes."""
    width = layout.width * (_WIDE + 0.2) + 0.2
    height = layout.height * _pitch(lines) + 0.2
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="none")
    place = _bare(figure)
    place.set_xlim(-_WIDE / 2 - 0.1, width - _WIDE / 2 - 0.1)
    place.set_ylim(-height + _HIGH + 0.1, _HIGH)
    return figure, place


def _edge(
    place: Any,
    route: Sequence[tuple[float, float]],
    lines: int,
    colour: str,
    *,
    style: str = "-",
    observed: bool = False,
) -> None:
    """Draw an edge through the points of its way, from under the upper box to over the lower one."""
    points = [(x * (_WIDE + 0.2), -y * _pitch(lines)) for x, y in route]
    up = points[-1][1] > points[0][1]
    below, above = _HIGH * (0.65 + lines), _HIGH * 0.65
    stops: list[tuple[float, float]] = []
    for x, y in points:  # a layer is crossed straight; the way bends between two layers
        stops += [(x, y - below), (x, y + above)] if up else [(x, y + above), (x, y - below)]
    stops = stops[1:-1]
    path, codes = [stops[0]], [Path.MOVETO]
    for number, ((x0, y0), (x1, y1)) in enumerate(pairwise(stops)):
        middle = (y0 + y1) / 2
        path += [(x0, middle), (x1, middle), (x1, y1)] if number % 2 == 0 else [(x1, y1)]
        codes += [Path.CURVE4] * 3 if number % 2 == 0 else [Path.LINETO]
    place.add_patch(
        FancyArrowPatch(
            path=Path(path, codes), arrowstyle="-|>", mutation_scale=8, color=colour, linestyle=style,
            linewidth=1.0, alpha=0.35 if observed else 0.75, fill=False, zorder=1,
        )
    )  # fmt: skip


class _Box:
    """A variable on the page."""

    def __init__(self, place: Any, x: float, y: float, lines: int, *, marked: bool = False) -> None:
        self.place, self.x, self.y = place, x, y
        place.add_patch(
            FancyBboxPatch(
                (x - _WIDE / 2, y - _HIGH * (0.65 + lines)), _WIDE, _HIGH * (1.3 + lines),
                boxstyle="round,pad=0,rounding_size=0.05", facecolor="white",
                edgecolor=_EXTRA if marked else INK, linewidth=1.6 if marked else 0.8, zorder=2,
            )
        )  # fmt: skip

    def title(self, text: str) -> None:
        """Write the name, smaller if it is long."""
        size = min(8.0, 8.0 * 20 / max(len(text), 1))
        self.place.text(
            self.x,
            self.y,
            text,
            ha="center",
            va="center",
            fontsize=size,
            weight="bold",
            zorder=3,
            color="black",
        )

    def bars(self, states: Sequence[str], shares: Sequence[float], seen: int | None) -> None:
        """Draw a bar a state; where there are many, the likeliest and the sum of the rest."""
        order = list(range(len(states)))
        rows = [(str(states[i]), float(shares[i]), i == seen) for i in order]
        if len(rows) > _MOST_STATES:
            rows = sorted(rows, key=lambda row: -row[1])
            rest = rows[_MOST_STATES - 1 :]
            rows = [*rows[: _MOST_STATES - 1], (f"{len(rest)} others", sum(row[1] for row in rest), False)]
        left, room = self.x - _WIDE / 2 + 0.06, 0.55
        start = left + room + 0.04
        full = _WIDE - room - 0.16 - 0.27
        for line, (name, share, marked) in enumerate(rows):
            y = self.y - _HIGH * (line + 1)
            text = name if len(name) <= 9 else name[:8] + "…"
            self.place.text(left, y, text, ha="left", va="center", fontsize=6.5, zorder=3, color="black")
            for wide, colour in ((full, "#E8E8E8"), (full * share, _EXTRA if marked else PALETTE[0])):
                self.place.fill_between(
                    [start, start + wide], y - 0.06, y + 0.06, color=colour, linewidth=0, zorder=3
                )
            self.place.text(
                start + full + 0.03,
                y,
                f"{100 * share:.0f}%",
                ha="left",
                va="center",
                fontsize=6,
                zorder=3,
                color="black",
            )
