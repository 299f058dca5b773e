"""Figures of graphs of variables: a network with its marginals as bars, two networks compared.

Symbols:
    d variables, a -> b an edge.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch
from matplotlib.path import Path

from leadline.inference.graphs import topological_order
from leadline.reports.boxes import Box, Shape, bare
from leadline.reports.drawing import INK, PALETTE, styled
from leadline.reports.layered import Layout, layered

__all__ = ["compared_networks", "network"]

_GAP, _BETWEEN = 0.55, 0.2  # inches between two layers, and between two boxes of a layer
_HIT, _MISSED, _EXTRA, _TURNED = PALETTE[2], "#999999", PALETTE[5], PALETTE[1]


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
    page = _Page(layout, Shape.of(names, () if marginals is None else states))
    for (parent, child), route in layout.routes.items():
        page.edge(route, INK, observed=parent in (evidence or {}) and child in (evidence or {}))
    for v, (x, y) in enumerate(layout.places):
        seen = (evidence or {}).get(v)
        box = page.box(x, y, names[v], marked=seen is not None)
        if marginals is not None:
            box.bars(states[v], marginals[v], seen)
    return page.figure


@styled
def compared_networks(
    names: Sequence[str], learned: Sequence[Sequence[int]], given: Sequence[Sequence[int]]
) -> Figure:
    """Return a learned network over a given one: edges found, turned, missed, and those that are extra."""
    mine = {(a, c) for c, above in enumerate(learned) for a in above}
    true = {(a, c) for c, above in enumerate(given) for a in above}
    layout = layered(_joined(given, mine))
    page = _Page(layout, Shape.of(names))
    page.figure.set_figheight(page.figure.get_figheight() + 0.8)  # for the title and the legend
    page.figure.set_figwidth(max(page.figure.get_figwidth(), 6.0))
    kinds = {
        "found": (mine & true, _HIT, "-"),
        "turned": ({(c, a) for a, c in true - mine if (c, a) in mine}, _TURNED, "-"),
        "missed": ({(a, c) for a, c in true - mine if (c, a) not in mine}, _MISSED, ":"),
        "extra": ({(a, c) for a, c in mine - true if (c, a) not in true}, _EXTRA, "--"),
    }
    for label, (edges, colour, style) in kinds.items():
        for a, c in sorted(edges):
            route = layout.routes[a, c] if (a, c) in layout.routes else layout.routes[c, a][::-1]
            page.edge(route, colour, style=style)
        page.place.plot([], [], color=colour, linestyle=style, label=f"{label} ({len(edges)})")
    for v, (x, y) in enumerate(layout.places):
        page.box(x, y, names[v])
    page.place.legend(loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=4)
    return page.figure


def _joined(given: Sequence[Sequence[int]], edges: set[tuple[int, int]]) -> list[tuple[int, ...]]:
    """Return a graph with further edges, turned where they would make a cycle, so that each has its way."""
    place = {v: i for i, v in enumerate(topological_order(given))}
    above = [set(parents) for parents in given]
    for a, c in edges:
        first, last = sorted((a, c), key=place.__getitem__)
        above[last].add(first)
    return [tuple(sorted(parents)) for parents in above]


class _Page:
    """A figure in which one unit of the axes is one inch."""

    def __init__(self, layout: Layout, shape: Shape) -> None:
        self.shape = shape
        self.across, self.down = shape.wide + _BETWEEN, shape.above + shape.below + _GAP
        width = layout.width * self.across + 0.2
        height = max(layout.height, 1) * self.down - _GAP + 0.2
        self.figure = Figure(figsize=(width, height), layout="constrained", facecolor="none")
        self.place = bare(self.figure)
        self.place.set_xlim(-shape.wide / 2 - 0.1, width - shape.wide / 2 - 0.1)
        self.place.set_ylim(shape.above + 0.1 - height, shape.above + 0.1)

    def box(self, x: float, y: float, name: str, *, marked: bool = False) -> Box:
        """Draw the box of a variable at a place of the layout."""
        box = Box(self.place, x * self.across, -y * self.down, self.shape, marked=marked)
        box.title(name)
        return box

    def edge(
        self, route: Sequence[tuple[float, float]], colour: str, *, style: str = "-", observed: bool = False
    ) -> None:
        """Draw an edge through the points of its way, from edge to edge of the boxes at its ends."""
        points = [(x * self.across, -y * self.down) for x, y in route]
        up = points[-1][1] > points[0][1]
        above, below = self.shape.above, self.shape.below
        stops: list[tuple[float, float]] = []
        for x, y in points:  # a layer is crossed straight; the way bends between two layers
            stops += [(x, y - below), (x, y + above)] if up else [(x, y + above), (x, y - below)]
        stops = stops[1:-1]
        path, codes = [stops[0]], [Path.MOVETO]
        for number, ((x0, y0), (x1, y1)) in enumerate(pairwise(stops)):
            middle = (y0 + y1) / 2
            path += [(x0, middle), (x1, middle), (x1, y1)] if number % 2 == 0 else [(x1, y1)]
            codes += [Path.CURVE4] * 3 if number % 2 == 0 else [Path.LINETO]
        self.place.add_patch(
            FancyArrowPatch(
                path=Path(path, codes), arrowstyle="-|>", mutation_scale=8, color=colour, linestyle=style,
                linewidth=1.0, alpha=0.35 if observed else 0.75, fill=False, zorder=1,
            )
        )  # fmt: skip
