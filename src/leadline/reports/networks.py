"""Figures of graphs of variables: a network with its marginals as bars, two networks compared, factors.

Symbols:
    d variables, a -> b an edge.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations, pairwise
from typing import Any

import networkx as nx
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Wedge
from matplotlib.path import Path
from matplotlib.patheffects import withStroke
from scipy.spatial import cKDTree

from leadline.reports.drawing import INK, PALETTE, styled
from leadline.reports.layered import Layout, layered

__all__ = ["compared_networks", "factor_graph", "network"]

_WIDE, _HIGH, _GAP = 1.5, 0.19, 0.55  # inches: a box, one of its lines, the way between two layers
_MOST_STATES = 5
_NEAR, _FAR, _SMALL = 0.75, 0.42, 30  # inches between neighbours of a factor graph: of few variables, of many
_LETTERS, _PAGE = 14, 30.0  # of a name in a factor graph; most inches of a connected part of it
_MANY = 2.6  # factors a variable beyond which squares are small
_PUSHES = 200  # most rounds in which variables that touch are moved apart
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
    evidence: Mapping[int, int] | None = None,
) -> Figure:
    """Return a factor graph: a circle a variable, a square a factor; a marginal is a ring of its shares.

    Observed variables are marked, and squares are small where factors are many.
    """
    step = _NEAR if len(names) <= _SMALL else _FAR
    square = (11 if len(scopes) <= _MANY * len(names) else 6) * step
    spots, wide, high = _spots(len(names), scopes, step)
    figure, place = _sheet(wide, high, step)
    for scope, (x, y) in zip(scopes, _squares(spots, scopes, step), strict=True):
        for v in scope:
            place.plot([x, spots[v, 0]], [y, spots[v, 1]], color=INK, linewidth=0.8, zorder=1)
        place.plot([x], [y], marker="s", markersize=square, color=INK, zorder=2)
    for v, (x, y) in enumerate(spots.tolist()):
        _ring(place, x, y, 0.3 * step, [1.0] if marginals is None else list(marginals[v]))
        if v in (evidence or {}):
            place.add_patch(Circle((x, y), 0.3 * step, fill=False, edgecolor=_EXTRA, linewidth=1.6, zorder=3))
        _name(place, x, y - 0.3 * step, names[v])
    if states is not None and marginals is not None:
        few = {tuple(s) for s in states}
        shown = few.pop() if len(few) == 1 else [f"state {i}" for i in range(max(map(len, states)))]
        for i, state in enumerate(shown[: len(PALETTE)]):
            place.plot([], [], marker="o", linestyle="", color=PALETTE[i], label=str(state))
        place.legend(loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=len(PALETTE))
    return figure


def _sheet(wide: float, high: float, step: float) -> tuple[Figure, Any]:
    """Return a figure in which one unit of the axes is one inch, with room around for names and a legend."""
    figure = Figure(figsize=(wide + 2 * step, high + 2 * step + 0.35), layout="constrained", facecolor="none")
    place = _bare(figure)
    place.set_xlim(-step, wide + step)
    place.set_ylim(-step, high + step)
    return figure, place


def _name(place: Any, x: float, y: float, text: str) -> None:
    """Write a name under a point, in front of the edges that pass there."""
    place.annotate(
        text if len(text) <= _LETTERS else f"{text[: _LETTERS - 1]}…",
        (x, y), (0, -1.5), textcoords="offset points", ha="center", va="top", fontsize=6.5, zorder=3,
        path_effects=[withStroke(linewidth=1.8, foreground="white")], color="black",
    )  # fmt: skip


def _spots(count: int, scopes: Sequence[Sequence[int]], step: float) -> tuple[Any, float, float]:
    """Return the places of the variables (d, 2), most of them 2 `step` from neighbours; width and height.

    In inches. Connected parts lie side by side in rows, the highest first.
    """
    graph = nx.Graph()
    graph.add_nodes_from(range(count))
    graph.add_edges_from(pair for scope in scopes for pair in combinations(scope, 2))
    parts = [_spread(graph.subgraph(part), 2 * step) for part in nx.connected_components(graph)]
    parts.sort(key=lambda part: -float(np.ptp(part[1][:, 1])))
    area = sum(float(np.prod(np.ptp(xy, axis=0) + 2 * step)) for _, xy in parts)
    full = max([1.25 * area**0.5, *(float(np.ptp(xy[:, 0])) for _, xy in parts)])
    spots = np.zeros((count, 2))
    left = bottom = wide = high = 0.0
    for nodes, xy in parts:
        across, up = np.ptp(xy, axis=0).tolist()
        if left > 0 and left + across > full:
            left, bottom = 0.0, high + 2 * step
        spots[nodes] = xy + np.array((left, bottom))
        wide, high = max(wide, left + across), max(high, bottom + up)
        left += across + 2 * step
    return spots, wide, high


def _spread(graph: Any, step: float) -> tuple[list[int], Any]:
    """Return the nodes of a connected graph and their places (m, 2), in inches from the lower left corner."""
    nodes = list(graph)
    if len(nodes) == 1:
        return nodes, np.zeros((1, 2))
    raw = nx.kamada_kawai_layout(graph) if len(nodes) < 300 else nx.spring_layout(graph, seed=0)
    xy = np.array([raw[node] for node in nodes])
    xy = xy - xy.mean(0)
    xy = xy @ np.linalg.svd(xy, full_matrices=False)[2].T  # the long side lies
    lengths = [float(np.hypot(*(np.array(raw[a]) - raw[b]))) for a, b in graph.edges]
    scale = min(step / float(np.median(lengths)), _PAGE / float(np.ptp(xy, axis=0).max()))
    return nodes, _apart(scale * (xy - xy.min(0)), 0.55 * step)


def _apart(xy: Any, least: float) -> Any:
    """Return places (m, 2) near the given ones, hardly any two of them nearer than `least`, from the corner.

    Two that are too near part by half of what is missing, each round; in a crowd the rounds may run out.
    """
    for _ in range(_PUSHES):
        a, b = cKDTree(xy).query_pairs(least, output_type="ndarray").T
        way = xy[a] - xy[b]
        lengths = np.hypot(way[:, 0], way[:, 1])
        missing = least - lengths
        if missing.max(initial=0) < 0.02 * least:
            break
        push = 0.5 * way * (missing / np.maximum(lengths, 1e-9))[:, None]
        xy = xy.copy()
        np.add.at(xy, a, push)
        np.subtract.at(xy, b, push)
    return xy - xy.min(0)


def _squares(spots: Any, scopes: Sequence[Sequence[int]], step: float) -> list[tuple[float, float]]:
    """Return the place of each factor: amid its variables; of one variable, on its free side."""
    around: dict[int, list[int]] = {}
    for scope in scopes:
        for v in scope:
            around.setdefault(v, []).extend(u for u in scope if u != v)
    places: list[tuple[float, float]] = []
    taken: dict[tuple[int, ...], int] = {}
    for scope in scopes:
        before = taken[tuple(sorted(scope))] = taken.get(tuple(sorted(scope)), -1) + 1
        middle = spots[list(scope)].mean(0) if scope else np.array([-0.5 * step, -0.5 * step])
        if len(scope) == 1:
            angle = _free_angle(spots[around[scope[0]]] - middle) + 0.6 * before
            middle = middle + 0.75 * step * np.array([np.cos(angle), np.sin(angle)])
        else:
            middle = middle + 0.25 * step * before  # several over the same variables stand side by side
        places.append((float(middle[0]), float(middle[1])))
    return places


def _free_angle(ways: Any) -> float:
    """Return the middle of the widest angle between directions (m, 2); up without any."""
    if not len(ways):
        return float(np.pi / 2)
    angles = np.sort(np.arctan2(ways[:, 1], ways[:, 0]))
    gaps = np.diff(angles, append=angles[0] + 2 * np.pi)
    return float(angles[gaps.argmax()] + gaps.max() / 2)


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
                _percent(share),
                ha="left",
                va="center",
                fontsize=6,
                zorder=3,
                color="black",
            )


def _percent(share: float) -> str:
    """Return a share in whole percent that calls only what is certain 0% or 100%."""
    if 0 < share < 0.005:
        return "<1%"
    return ">99%" if 0.995 <= share < 1 else f"{100 * share:.0f}%"
