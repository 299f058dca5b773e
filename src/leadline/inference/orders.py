r"""Orders in which to eliminate variables, and the cliques that an order leads to.

Eliminating v joins all its neighbours; the clique of v is v with the neighbours it has at that moment. Greedy
orders take the variable whose elimination adds the fewest edges (min-fill) or makes the smallest table
(min-weight). A clique inside another one is absorbed, and the rest form a forest in which the separator
between a clique and its parent is what is left of the clique once its own variables are gone.

Symbols:
    d variables, c cliques, position the place of a variable in the order.

Source:
    Koller and Friedman (2009), Probabilistic Graphical Models, section 9.4.3 (greedy orders) and 10.1;
    Kjaerulff (1990), Triangulation of graphs: algorithms giving small total state space.

Departs from the source:
    Ties of one score are broken by the other, and where the tables would be large the order is searched for
    again with some chance in the scores: the smallest total number of table entries wins.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from leadline.core.errors import ResourceError
from leadline.inference.compiled import compiled
from leadline.inference.factors import FactorGraph, Floats, Ints

__all__ = ["Cliques", "Order", "cliques_of", "eliminated", "find_cliques"]

Bits = NDArray[np.uint8]
Order = Literal["min_fill", "min_weight"]
_MOST_VARIABLES = 20_000
_LARGE, _HUGE = 1e6, 5e7  # table entries beyond which a better order is worth looking for, and long
_TRIES, _MANY_TRIES = 12, 200


@dataclass(frozen=True, eq=False)
class Cliques:
    """A forest of cliques, children before parents.

    Args:
        order: The variables in the order of elimination (d,).
        position: The place of each variable in the order (d,).
        starts: Where the variables of each clique start in `members` (c + 1,).
        members: Variables of all cliques, each clique's in the order of elimination.
        own: Number of variables of each clique that no clique nearer to the root holds (c,); they come first.
        parent: Parent of each clique, or -1 (c,).
        home: The clique whose own each variable is (d,).
        states: Table entries of all cliques and separators together.
        width: Variables of the largest clique, less one.
    """

    order: Ints
    position: Ints
    starts: Ints
    members: Ints
    own: Ints
    parent: Ints
    home: Ints
    states: float
    width: int

    def of(self, clique: int) -> tuple[int, ...]:
        """Return the variables of a clique."""
        return tuple(int(v) for v in self.members[self.starts[clique] : self.starts[clique + 1]])


def find_cliques(graph: FactorGraph, order: Order | Sequence[int] | Cliques = "min_fill") -> Cliques:
    """Return the forest of cliques of a graph.

    Args:
        graph: The factors; variables with one state left take part in nothing.
        order: "min_fill", "min_weight", the variables in the order in which to eliminate them, or the
            cliques of a graph of the same sizes and scopes.

    Raises:
        ResourceError: If there are more than 20,000 variables.
    """
    if isinstance(order, Cliques):
        return order
    count = len(graph.sizes)
    if count > _MOST_VARIABLES:
        raise ResourceError(f"{count} variables are too many to eliminate one by one; use method='loopy'")
    sizes = np.array(graph.sizes, dtype=np.int64)
    starts, scopes = _packed([factor.scope for factor in graph.factors])
    if not isinstance(order, str):
        return cliques_of(_follow(starts, scopes, sizes, np.array(order, dtype=np.int64)), sizes)
    found = cliques_of(_greedy(starts, scopes, sizes, order == "min_fill", 0.0, 0), sizes)
    if found.states > _LARGE:
        for attempt in range(_TRIES if found.states < _HUGE else _MANY_TRIES):
            by_fill, chance = attempt % 2 == 1, 0.3 if attempt else 0.0
            other = cliques_of(_greedy(starts, scopes, sizes, by_fill, chance, attempt), sizes)
            found = min(found, other, key=lambda one: one.states)
    return found


def eliminated(graph: FactorGraph, order: Order = "min_fill") -> list[int]:
    """Return the variables of a graph in an order in which to eliminate them."""
    return [int(v) for v in find_cliques(graph, order).order]


def cliques_of(elimination: tuple[Ints, Ints, Ints], sizes: Ints) -> Cliques:
    """Return the forest that an elimination leads to: order, and the later neighbours of each variable."""
    order, starts, later = elimination
    position, first, members, own, parent, home = _forest(order, starts, later)
    logs = np.log(sizes)
    states, width = 0.0, 0
    if len(own):
        cells = np.add.reduceat(logs[members], first[:-1])
        inner = np.concatenate([[0.0], logs[members].cumsum()])
        separators = inner[first[1:]] - inner[first[:-1] + own]
        states = float(np.exp(np.minimum(cells, 700)).sum() + np.exp(np.minimum(separators, 700)).sum())
        width = int(np.diff(first).max()) - 1
    return Cliques(order, position, first, members, own, parent, home, states, width)


def _packed(lists: Sequence[Sequence[int]]) -> tuple[Ints, Ints]:
    """Return lists one after another, and where each starts."""
    starts = np.zeros(len(lists) + 1, dtype=np.int64)
    np.cumsum([len(one) for one in lists], out=starts[1:])
    return starts, np.array([v for one in lists for v in one], dtype=np.int64)


@compiled
def _joined(near: Ints, degree: Ints, bits: Bits, a: int, b: int) -> None:
    """Add the edge a - b."""
    near[a, degree[a]], near[b, degree[b]] = b, a
    degree[a] += 1
    degree[b] += 1
    bits[a, b >> 3] |= np.uint8(1 << (b & 7))
    bits[b, a >> 3] |= np.uint8(1 << (a & 7))


@compiled
def _is_joined(bits: Bits, a: int, b: int) -> bool:
    return (bits[a, b >> 3] >> (b & 7)) & 1 != 0


@compiled
def _start(starts: Ints, scopes: Ints, sizes: Ints) -> tuple[Ints, Ints, Bits]:
    """Return neighbours (d, room), degrees (d,) and adjacency bits of the graph of the scopes."""
    d = len(sizes)
    bits = np.zeros((d, (d + 7) // 8), dtype=np.uint8)
    degree = np.zeros(d, dtype=np.int64)
    for f in range(len(starts) - 1):
        for i in range(starts[f], starts[f + 1]):
            degree[scopes[i]] += starts[f + 1] - starts[f]
    near = np.empty((d, min(d, degree.max() + 16) if d else 1), dtype=np.int64)
    degree[:] = 0
    for f in range(len(starts) - 1):
        for i in range(starts[f], starts[f + 1]):
            for j in range(i + 1, starts[f + 1]):
                a, b = scopes[i], scopes[j]
                if sizes[a] > 1 and sizes[b] > 1 and not _is_joined(bits, a, b):
                    _joined(near, degree, bits, a, b)
    return near, degree, bits


@compiled
def _score(v: int, near: Ints, degree: Ints, bits: Bits, logs: Floats, by_fill: bool) -> float:  # noqa: FBT001
    """Return how bad it is to eliminate v now."""
    weight = logs[v]
    for i in range(degree[v]):
        weight += logs[near[v, i]]
    fill = 0
    for i in range(degree[v]):
        for j in range(i + 1, degree[v]):
            if not _is_joined(bits, near[v, i], near[v, j]):
                fill += 1
    return 1000.0 * fill + weight if by_fill else 1000.0 * weight + fill


@compiled
def _drop(v: int, near: Ints, degree: Ints) -> None:
    """Take v out of the lists of its neighbours."""
    for i in range(degree[v]):
        u = near[v, i]
        for j in range(degree[u]):
            if near[u, j] == v:
                near[u, j] = near[u, degree[u] - 1]
                break
        degree[u] -= 1


@compiled
def _fill_in(v: int, near: Ints, degree: Ints, bits: Bits) -> bool:
    """Join all neighbours of v; return whether an edge was added."""
    added = False
    for i in range(degree[v]):
        for j in range(i + 1, degree[v]):
            a, b = near[v, i], near[v, j]
            if not _is_joined(bits, a, b):
                _joined(near, degree, bits, a, b)
                added = True
    return added


@compiled
def _roomy(near: Ints, degree: Ints, v: int) -> Ints:
    """Return `near` with room for the edges that eliminating v may add."""
    need = 0
    for i in range(degree[v]):
        need = max(need, degree[near[v, i]] + degree[v])
    if need <= near.shape[1]:
        return near
    larger = np.empty((near.shape[0], min(near.shape[0], 2 * need)), dtype=np.int64)
    larger[:, : near.shape[1]] = near
    return larger


@compiled
def _noted(v: int, near: Ints, degree: Ints, later: Ints, end: int) -> Ints:
    """Return `later` with the neighbours of v written at `end`."""
    if end + degree[v] > len(later):
        longer = np.empty(2 * (end + degree[v]), dtype=np.int64)
        longer[:end] = later[:end]
        later = longer
    later[end : end + degree[v]] = near[v, : degree[v]]
    return later


@compiled
def _refreshed(
    v: int,
    near: Ints,
    degree: Ints,
    bits: Bits,
    logs: Floats,
    by_fill: bool,  # noqa: FBT001
    scores: Floats,
    wide: bool,  # noqa: FBT001
) -> None:
    """Bring the scores of the neighbours of v up to date, and of theirs if edges were added."""
    stale = np.zeros(len(scores), dtype=np.bool_)
    for i in range(degree[v]):
        u = near[v, i]
        stale[u] = True
        if wide:
            for j in range(degree[u]):
                stale[near[u, j]] = True
    for u in range(len(scores)):
        if stale[u]:
            scores[u] = _score(u, near, degree, bits, logs, by_fill)


@compiled
def _greedy(
    starts: Ints,
    scopes: Ints,
    sizes: Ints,
    by_fill: bool,  # noqa: FBT001
    chance: float,
    seed: int,
) -> tuple[Ints, Ints, Ints]:
    """Return the greedy order, and the later neighbours of each variable in that order."""
    d = len(sizes)
    np.random.seed(seed)  # noqa: NPY002 - a compiled function's own stream
    logs = np.log(sizes.astype(np.float64))
    near, degree, bits = _start(starts, scopes, sizes)
    scores = np.empty(d)
    for v in range(d):
        scores[v] = _score(v, near, degree, bits, logs, by_fill)
    order, first, later = (
        np.empty(d, dtype=np.int64),
        np.zeros(d + 1, dtype=np.int64),
        np.empty(4 * d + 16, dtype=np.int64),
    )
    for step in range(d):
        best, v = np.inf, -1
        for u in range(d):
            if scores[u] <= best:
                score = scores[u] * (1.0 + chance * np.random.random()) if chance > 0 else scores[u]  # noqa: NPY002
                if score < best:
                    best, v = score, u
        later = _noted(v, near, degree, later, first[step])
        first[step + 1] = first[step] + degree[v]
        order[step] = v
        _drop(v, near, degree)
        near = _roomy(near, degree, v)
        wide = _fill_in(v, near, degree, bits)
        _refreshed(v, near, degree, bits, logs, by_fill, scores, wide)
        scores[v] = np.inf
    return order, first, later[: first[d]]


@compiled
def _follow(starts: Ints, scopes: Ints, sizes: Ints, order: Ints) -> tuple[Ints, Ints, Ints]:
    """Return a given order, and the later neighbours of each variable in that order."""
    d = len(sizes)
    near, degree, bits = _start(starts, scopes, sizes)
    first, later = np.zeros(d + 1, dtype=np.int64), np.empty(4 * d + 16, dtype=np.int64)
    for step in range(d):
        v = order[step]
        later = _noted(v, near, degree, later, first[step])
        first[step + 1] = first[step] + degree[v]
        _drop(v, near, degree)
        near = _roomy(near, degree, v)
        _fill_in(v, near, degree, bits)
    return order, first, later[: first[d]]


@compiled
def _forest(order: Ints, first: Ints, later: Ints) -> tuple[Ints, Ints, Ints, Ints, Ints, Ints]:
    """Return position, starts, members, own, parent, home of the cliques, children before parents."""
    d = len(order)
    position = np.empty(d, dtype=np.int64)
    for place in range(d):
        position[order[place]] = place
    # all in places of the order from here on, until the members are written
    up = np.full(d, -1)  # the first later neighbour
    maker, last = (
        np.full(d, -1),
        np.full(d, -1),
    )  # of each place: the place whose clique it is in; its last own
    for place in range(d):
        for i in range(first[place], first[place + 1]):
            there = position[later[i]]
            if up[place] < 0 or there < up[place]:
                up[place] = there
        if maker[place] < 0:
            maker[place] = place
        last[maker[place]] = place
        u = up[place]
        if u >= 0 and maker[u] < 0 and first[u + 1] - first[u] == first[place + 1] - first[place] - 1:
            maker[u] = maker[place]
    return _written(order, first, later, position, maker, last, up)


@compiled
def _written(
    order: Ints, first: Ints, later: Ints, position: Ints, maker: Ints, last: Ints, up: Ints
) -> tuple[Ints, Ints, Ints, Ints, Ints, Ints]:
    """Return the cliques in the order of their last own variable."""
    d = len(order)
    number = np.full(d, -1)  # of the clique that a place made
    count, room = 0, 0
    for place in range(d):
        if last[maker[place]] == place:
            number[maker[place]] = count
            count += 1
            room += first[maker[place] + 1] - first[maker[place]] + 1
    starts, members = np.zeros(count + 1, dtype=np.int64), np.empty(room, dtype=np.int64)
    own, parent = np.zeros(count, dtype=np.int64), np.full(count, -1)
    home = np.empty(d, dtype=np.int64)
    for place in range(d):
        c = number[maker[place]]
        home[order[place]] = c
        own[c] += 1
        if last[maker[place]] == place:
            parent[c] = number[maker[up[place]]] if up[place] >= 0 else -1
            seed = maker[place]
            places = np.empty(first[seed + 1] - first[seed] + 1, dtype=np.int64)
            places[0] = seed
            for i in range(first[seed], first[seed + 1]):
                places[i - first[seed] + 1] = position[later[i]]
            starts[c + 1] = starts[c] + len(places)
            members[starts[c] : starts[c + 1]] = order[np.sort(places)]
    return position, starts, members, own, parent, home
