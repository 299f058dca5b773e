r"""Places for the variables of a directed graph, so that it can be read from top to bottom.

Every variable lies a layer below its lowest parent; an edge over several layers gets a bend in each one it
crosses. Variables and bends of a layer are ordered by the mean place of what they are joined to, sweep by
sweep, and the order with the fewest crossings is kept.

Source:
    Sugiyama, Tagawa and Toda (1981), Methods for visual understanding of hierarchical system structures,
    IEEE Transactions on Systems, Man and Cybernetics 11.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from leadline.inference.graphs import topological_order

__all__ = ["Layout", "layered"]

_SWEEPS = 12
Node = tuple[int, ...]  # (variable,), or (parent, child, layer) for a bend


@dataclass(frozen=True)
class Layout:
    """Where things are, in units of one place across and one layer down.

    Args:
        places: (x, y) of each variable; y grows downwards.
        routes: For each edge (parent, child) the points of its way, ends included.
        width: Number of places of the widest layer.
        height: Number of layers.
    """

    places: list[tuple[float, float]]
    routes: dict[tuple[int, int], list[tuple[float, float]]]
    width: float
    height: int


def layered(parents: Sequence[Sequence[int]], bend: float = 0.35) -> Layout:
    """Return a layout of a directed acyclic graph.

    Args:
        parents: Parents of each variable.
        bend: Width of a bend, in places.

    Raises:
        DataError: If the graph has a cycle.
    """
    depth = _depths(parents)
    chains = {
        (parent, child): [
            (parent,),
            *((parent, child, y) for y in range(depth[parent] + 1, depth[child])),
            (child,),
        ]
        for child, above in enumerate(parents)
        for parent in above
    }
    rows: list[list[Node]] = [[] for _ in range(max(depth, default=-1) + 1)]
    for v, y in enumerate(depth):
        rows[y].append((v,))
    links: dict[Node, list[Node]] = {(v,): [] for v in range(len(parents))}
    for chain in chains.values():
        for node in chain[1:-1]:
            rows[node[2]].append(node)
        for upper, lower in pairwise(chain):
            links.setdefault(upper, []).append(lower)
            links.setdefault(lower, []).append(upper)
    across = _across(_ordered(rows, links), links, bend)
    spots = {node: (x, float(y)) for y, row in enumerate(rows) for node, x in ((n, across[n]) for n in row)}
    return Layout(
        [spots[v,] for v in range(len(parents))],
        {edge: [spots[node] for node in chain] for edge, chain in chains.items()},
        max(across.values(), default=0.0) + 1,
        len(rows),
    )


def _depths(parents: Sequence[Sequence[int]]) -> list[int]:
    depth = [0] * len(parents)
    order = topological_order(parents)
    for v in order:
        depth[v] = 1 + max((depth[a] for a in parents[v]), default=-1)
    children: list[list[int]] = [[] for _ in parents]
    for child, above in enumerate(parents):
        for a in above:
            children[a].append(child)
    for v in reversed(order):  # a root may sink to just above its first child
        if not parents[v] and children[v]:
            depth[v] = min(depth[c] for c in children[v]) - 1
    return depth


def _ordered(rows: list[list[Node]], links: dict[Node, list[Node]]) -> list[list[Node]]:
    """Return the rows in the best order that the sweeps come to."""
    best, fewest = [list(row) for row in rows], _crossings(rows, links)
    for sweep in range(_SWEEPS):
        downwards = sweep % 2 == 0
        steps = range(1, len(rows)) if downwards else range(len(rows) - 2, -1, -1)
        for y in steps:
            fixed = {node: i for i, node in enumerate(rows[y - 1 if downwards else y + 1])}
            own = {node: i for i, node in enumerate(rows[y])}
            means = {}
            for node in rows[y]:
                near = [fixed[other] for other in links[node] if other in fixed]
                means[node] = sum(near) / len(near) if near else own[node]
            rows[y].sort(key=lambda node, means=means: means[node])  # type: ignore[misc]
        count = _crossings(rows, links)
        if count < fewest:
            best, fewest = [list(row) for row in rows], count
    for row, good in zip(rows, best, strict=True):
        row[:] = good
    return rows


def _crossings(rows: list[list[Node]], links: dict[Node, list[Node]]) -> int:
    total = 0
    for upper, lower in pairwise(rows):
        place = {node: i for i, node in enumerate(lower)}
        ends = [sorted(place[other] for other in links[node] if other in place) for node in upper]
        seen: list[int] = []
        for row in ends:
            total += sum(sum(earlier > end for earlier in seen) for end in row)
            seen.extend(row)
    return total


def _across(rows: list[list[Node]], links: dict[Node, list[Node]], bend: float) -> dict[Node, float]:
    """Return x of each node: its order kept, drawn towards what it is joined to."""
    widths = [[1.0 if len(node) == 1 else bend for node in row] for row in rows]
    most = max((sum(row) for row in widths), default=1.0)
    across: dict[Node, float] = {}
    for row, wide in zip(rows, widths, strict=True):
        x = (most - sum(wide)) / 2
        for node, width in zip(row, wide, strict=True):
            across[node] = x + width / 2 - 0.5
            x += width
    for _ in range(20):
        for row, wide in zip(rows, widths, strict=True):
            wish = [
                sum(across[other] for other in links[node]) / len(links[node])
                if links[node]
                else across[node]
                for node in row
            ]
            across.update(zip(row, _spaced(wish, wide, most), strict=True))
    return across


def _spaced(wish: list[float], widths: list[float], most: float) -> list[float]:
    """Return places near the wished ones that keep order and distance, inside [0, most]."""
    left: list[float] = []
    edge = -0.5
    for x, width in zip(wish, widths, strict=True):
        left.append(max(x, edge + width / 2))
        edge = left[-1] + width / 2
    right: list[float] = []
    edge = most - 0.5
    for x, width in zip(reversed(wish), reversed(widths), strict=True):
        right.append(min(x, edge - width / 2))
        edge = right[-1] - width / 2
    both = [(a + b) / 2 for a, b in zip(left, reversed(right), strict=True)]
    edge = -0.5
    for i, width in enumerate(widths):  # the mean keeps distances too, but for rounding
        both[i] = max(both[i], edge + width / 2)
        edge = both[i] + width / 2
    return both
