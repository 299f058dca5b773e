"""A factor graph: variables as boxes with bars, or where there are many as circles with shares; factors.

Symbols:
    d variables, m nodes of a graph.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

import networkx as nx
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Wedge
from matplotlib.patheffects import withStroke
from scipy.spatial import cKDTree

from leadline.reports.boxes import MARKED, Box, Shape, bare, cut
from leadline.reports.drawing import INK, PALETTE, styled

__all__ = ["factor_graph"]

_BOXED = 30  # most variables that are drawn as boxes with bars
_NEAR, _FAR, _SMALL = 0.75, 0.42, 30  # inches between neighbours of a factor graph: of few variables, of many
_LETTERS, _PAGE = 14, 30.0  # of a name under a circle; most inches of a connected part
_MANY = 2.6  # factors a variable beyond which squares are small
_PUSHES = 200  # most rounds in which variables that touch are moved apart
_SQUARE, _ROOM = 0.15, 0.32  # inches: side of a factor between boxes, least way between two things


@styled
def factor_graph(
    names: Sequence[str],
    scopes: Sequence[Sequence[int]],
    states: Sequence[Sequence[str]] | None = None,
    marginals: Sequence[Sequence[float]] | None = None,
    evidence: Mapping[int, int] | None = None,
) -> Figure:
    """Return a factor graph: a square a factor; a box a variable, its marginal as bars.

    More than 30 variables, or such as have no marginal, are circles with their shares, and squares are small
    where factors are many. Observed variables are marked.
    """
    if marginals is not None and states is not None and len(names) <= _BOXED:
        return _boxed(names, scopes, states, marginals, evidence or {})
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
            place.add_patch(Circle((x, y), 0.3 * step, fill=False, edgecolor=MARKED, linewidth=1.6, zorder=3))
        _name(place, x, y - 0.3 * step, names[v])
    if states is not None and marginals is not None:
        few = {tuple(s) for s in states}
        shown = few.pop() if len(few) == 1 else [f"state {i}" for i in range(max(map(len, states)))]
        for i, state in enumerate(shown[: len(PALETTE)]):
            place.plot([], [], marker="o", linestyle="", color=PALETTE[i], label=str(state))
        place.legend(loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=len(PALETTE))
    return figure


def _boxed(
    names: Sequence[str],
    scopes: Sequence[Sequence[int]],
    states: Sequence[Sequence[str]],
    marginals: Sequence[Sequence[float]],
    evidence: Mapping[int, int],
) -> Figure:
    """Return a factor graph of few variables, a box each."""
    shape, d = Shape.of(names, states), len(names)
    high = shape.above + shape.below
    halves = np.full((d + len(scopes), 2), _SQUARE / 2)
    halves[:d] = shape.wide / 2, high / 2
    graph = nx.Graph()
    graph.add_nodes_from(range(len(halves)))
    graph.add_edges_from((v, d + number) for number, scope in enumerate(scopes) for v in scope)
    parts = []
    for nodes in map(sorted, nx.connected_components(graph)):
        raw = _shape_of(graph.subgraph(nodes), nodes) * (shape.wide + _SQUARE + _ROOM) / 1.6
        xy = _clear(raw, halves[nodes] + _ROOM / 2)
        parts.append((nodes, xy - xy.min(0)))
    spots, width, height = _packed(len(halves), parts, shape.wide + _ROOM)
    edge = np.array((shape.wide, high)) / 2 + 0.1
    figure = Figure(
        figsize=(width + 2 * edge[0], height + 2 * edge[1]), layout="constrained", facecolor="none"
    )
    place = bare(figure)
    place.set_xlim(-edge[0], width + edge[0])
    place.set_ylim(-edge[1], height + edge[1])
    for number, scope in enumerate(scopes):
        x, y = spots[d + number]
        for v in scope:
            place.plot([x, spots[v, 0]], [y, spots[v, 1]], color=INK, linewidth=0.8, zorder=1)
        place.plot([x], [y], marker="s", markersize=72 * _SQUARE, color=INK, zorder=2)
    for v, (x, y) in enumerate(spots[:d].tolist()):
        box = Box(place, x, y + (shape.below - shape.above) / 2, shape, marked=v in evidence)
        box.title(names[v])
        box.bars(states[v], marginals[v], evidence.get(v))
    return figure


def _shape_of(graph: Any, nodes: Sequence[int]) -> Any:
    """Return places (m, 2) of a connected graph whose edges are about one long, its long side lying."""
    if len(nodes) == 1:
        return np.zeros((1, 2))
    raw = nx.kamada_kawai_layout(graph)
    xy = np.array([raw[node] for node in nodes])
    xy = (xy - xy.mean(0)) @ np.linalg.svd(xy - xy.mean(0), full_matrices=False)[2].T
    lengths = [float(np.hypot(*(raw[a] - raw[b]))) for a, b in graph.edges]
    return xy / float(np.median(lengths))


def _clear(xy: Any, halves: Any) -> Any:
    """Return places (m, 2) near the given ones where boxes of half sides `halves` do not overlap.

    Two that do part along the side where they overlap less, each round; in a crowd the rounds may run out.
    """
    xy = xy + 1e-6 * np.arange(2 * len(xy)).reshape(-1, 2)  # no two in one place
    least = halves[:, None] + halves[None]
    for _ in range(5 * _PUSHES):
        way = xy[:, None] - xy[None]  # (m, m, 2)
        over = least - np.abs(way)
        touching = (over > 1e-3).all(2) & ~np.eye(len(xy), dtype=bool)
        if not touching.any():
            break
        side = over.argmin(2)  # (m, m)
        push = np.zeros_like(way)
        np.put_along_axis(push, side[..., None], 1.0, 2)
        xy = xy + 0.35 * (push * over * np.sign(way) * touching[..., None]).sum(1)
    return xy


def _sheet(wide: float, high: float, step: float) -> tuple[Figure, Any]:
    """Return a figure in which one unit of the axes is one inch, with room around for names and a legend."""
    figure = Figure(figsize=(wide + 2 * step, high + 2 * step + 0.35), layout="constrained", facecolor="none")
    place = bare(figure)
    place.set_xlim(-step, wide + step)
    place.set_ylim(-step, high + step)
    return figure, place


def _name(place: Any, x: float, y: float, text: str) -> None:
    """Write a name under a point, in front of the edges that pass there."""
    place.annotate(
        cut(text, _LETTERS),
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
    return _packed(count, parts, 2 * step)


def _packed(count: int, parts: Iterable[tuple[list[int], Any]], gap: float) -> tuple[Any, float, float]:
    """Return places (count, 2) of parts side by side in rows, the highest first; width and height."""
    parts = sorted(parts, key=lambda part: -float(np.ptp(part[1][:, 1])))
    area = sum(float(np.prod(np.ptp(xy, axis=0) + gap)) for _, xy in parts)
    full = max([1.25 * area**0.5, *(float(np.ptp(xy[:, 0])) for _, xy in parts)])
    spots = np.zeros((count, 2))
    left = bottom = wide = high = 0.0
    for nodes, xy in parts:
        across, up = np.ptp(xy, axis=0).tolist()
        if left > 0 and left + across > full:
            left, bottom = 0.0, high + gap
        spots[nodes] = xy + np.array((left, bottom))
        wide, high = max(wide, left + across), max(high, bottom + up)
        left += across + gap
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
