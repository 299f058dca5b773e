r"""Graphs of variables: order, separation, cliques, and what a directed graph says about independence.

A directed graph is a tuple of parents, an undirected one a tuple of neighbours, a number a variable. A
directed acyclic graph states that every variable is independent of its non-descendants given its parents;
all that follows is read off by d-separation. Two such graphs state the same independences exactly if they
have the same skeleton and the same v-structures; the pattern they share is their essential graph.

Symbols:
    d variables, a -> b an edge.

Source:
    Koller and Friedman (2009), Probabilistic Graphical Models, sections 3.3 (algorithm 3.1) and 3.4.
    Essential graphs: Meek (1995), Causal inference and causal explanation with background knowledge, UAI.
    Consistent extension: Dor and Tarsi (1992), technical report R-185, UCLA.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import networkx as nx

from leadline.core.errors import DataError

__all__ = [
    "Parents",
    "Pattern",
    "acyclic",
    "children_of",
    "d_separated",
    "essential_graph",
    "extension",
    "maximal_cliques",
    "moral_graph",
    "oriented",
    "separated",
    "topological_order",
]

Parents = tuple[tuple[int, ...], ...]
Neighbours = Sequence[Iterable[int]]


def children_of(parents: Sequence[Iterable[int]]) -> list[list[int]]:
    """Return the children of each variable."""
    children: list[list[int]] = [[] for _ in parents]
    for child, above in enumerate(parents):
        for parent in above:
            children[parent].append(child)
    return children


def topological_order(parents: Sequence[Iterable[int]], names: Sequence[str] | None = None) -> list[int]:
    """Return the variables with every parent before its children.

    Args:
        parents: Parents of each variable.
        names: What an error calls the variables; their numbers by default.

    Raises:
        DataError: If there is a cycle; the message goes round it.

    Example:
        >>> topological_order([(1,), (2,), ()])
        [2, 1, 0]
    """
    waiting = [len(set(above)) for above in parents]
    children = [sorted(set(below)) for below in children_of(parents)]
    order = [v for v, count in enumerate(waiting) if count == 0]
    for v in order:
        for child in children[v]:
            waiting[child] -= 1
            if waiting[child] == 0:
                order.append(child)
    if len(order) < len(waiting):
        called = [str(v) if names is None else names[v] for v in _cycle(parents, waiting)]
        raise DataError(f"the graph has a cycle: {' -> '.join(called)}; take one of its edges out")
    return order


def acyclic(parents: Sequence[Iterable[int]]) -> bool:
    """Return whether the graph has no directed cycle."""
    try:
        topological_order(parents)
    except DataError:
        return False
    return True


def _cycle(parents: Sequence[Iterable[int]], waiting: Sequence[int]) -> list[int]:
    """Return a cycle, its first variable again at its end, among variables that still wait for a parent."""
    path = [next(v for v, count in enumerate(waiting) if count > 0)]
    while True:  # every waiting variable has a waiting parent: going up must come round
        above = next(v for v in parents[path[-1]] if waiting[v] > 0)
        if above in path:
            return [above, *reversed(path[path.index(above) :])]
        path.append(above)


def moral_graph(parents: Sequence[Iterable[int]]) -> list[set[int]]:
    """Return neighbours in the undirected graph with all parents of a child married."""
    neighbours: list[set[int]] = [set() for _ in parents]
    for child, above in enumerate(parents):
        family = {child, *above}
        for v in family:
            neighbours[v] |= family - {v}
    return neighbours


def maximal_cliques(neighbours: Neighbours) -> list[tuple[int, ...]]:
    """Return the maximal cliques of an undirected graph, each sorted, in order.

    Example:
        >>> maximal_cliques([{1, 2}, {0, 2}, {0, 1, 3}, {2}])
        [(0, 1, 2), (2, 3)]
    """
    graph = nx.Graph()
    graph.add_nodes_from(range(len(neighbours)))
    graph.add_edges_from((a, b) for a, beside in enumerate(neighbours) for b in beside if a != b)
    return sorted(tuple(sorted(clique)) for clique in nx.find_cliques(graph))


def separated(neighbours: Neighbours, a: Iterable[int], b: Iterable[int], given: Iterable[int] = ()) -> bool:
    """Return whether every path from `a` to `b` in an undirected graph goes through `given`."""
    closed, targets = set(given), set(b)
    reached = set(a) - closed
    stack = list(reached)
    while stack:
        v = stack.pop()
        if v in targets:
            return False
        fresh = set(neighbours[v]) - closed - reached
        reached |= fresh
        stack.extend(fresh)
    return True


def d_separated(
    parents: Sequence[Iterable[int]], a: Iterable[int], b: Iterable[int], given: Iterable[int] = ()
) -> bool:
    """Return whether `a` and `b` are d-separated by `given`: the graph states their independence.

    Variables of `a` or `b` that are given count as separated. Linear in the size of the graph.

    Example:
        >>> rain_or_sprinkler = [(), (), (0, 1)]
        >>> d_separated(rain_or_sprinkler, [0], [1]), d_separated(rain_or_sprinkler, [0], [1], [2])
        (True, False)
    """
    observed, targets = set(given), set(b)
    children = children_of(parents)
    above = _ancestors(parents, observed)  # an observed descendant opens a collider
    stack = [(v, "up") for v in set(a) - observed]
    seen: set[tuple[int, str]] = set()
    while stack:
        v, way = stack.pop()
        if (v, way) in seen:
            continue
        seen.add((v, way))
        if v in targets and v not in observed:
            return False
        if v not in observed:  # a chain or a fork that is not blocked
            stack.extend((child, "down") for child in children[v])
        if (way == "up" and v not in observed) or (way == "down" and v in above):
            stack.extend((parent, "up") for parent in parents[v])
    return True


def _ancestors(parents: Sequence[Iterable[int]], variables: Iterable[int]) -> set[int]:
    """Return the variables and all their ancestors."""
    found, stack = set(variables), list(variables)
    while stack:
        fresh = set(parents[stack.pop()]) - found
        found |= fresh
        stack.extend(fresh)
    return found


@dataclass(frozen=True)
class Pattern:
    """A graph with directed and undirected edges: what equivalent directed graphs share.

    Args:
        size: Number of variables.
        arrows: Pairs (a, b) for a -> b.
        lines: Pairs (a, b), a < b, for a - b.
    """

    size: int
    arrows: frozenset[tuple[int, int]]
    lines: frozenset[tuple[int, int]]

    @property
    def skeleton(self) -> frozenset[tuple[int, int]]:
        """Return all edges without their directions, pairs (a, b) with a < b."""
        return self.lines | {(min(edge), max(edge)) for edge in self.arrows}

    def distance(self, other: "Pattern") -> int:
        """Return the number of pairs that are joined, or directed, otherwise in the two patterns.

        Source:
            Tsamardinos, Brown and Aliferis (2006), The max-min hill-climbing Bayesian network structure
            learning algorithm, Machine Learning 65, figure 4.
        """
        pairs = self.skeleton | other.skeleton
        return sum(self._mark(a, b) != other._mark(a, b) for a, b in pairs)

    def _mark(self, a: int, b: int) -> str:
        for mark, edge, edges in (
            (">", (a, b), self.arrows),
            ("<", (b, a), self.arrows),
            ("-", (a, b), self.lines),
        ):
            if edge in edges:
                return mark
        return ""


def essential_graph(parents: Sequence[Iterable[int]]) -> Pattern:
    """Return the essential graph: the edges that all equivalent graphs direct alike, and the rest as lines.

    Example:
        >>> essential_graph([(), (0,), (1,)]).arrows, essential_graph([(), (2, 0), ()]).arrows
        (frozenset(), frozenset({(0, 1), (2, 1)}))
    """
    joined = [set(above) | set(below) for above, below in zip(parents, children_of(parents), strict=True)]
    arrows = {
        (a, child)
        for child, above in enumerate(parents)
        for a in above
        if any(b != a and b not in joined[a] for b in above)
    }
    edges = {(min(a, child), max(a, child)) for child, above in enumerate(parents) for a in above}
    return oriented(len(joined), edges, arrows)


def oriented(size: int, edges: Iterable[tuple[int, int]], arrows: Iterable[tuple[int, int]]) -> Pattern:
    """Return the pattern whose arrows are closed under Meek's rules 1 to 3.

    Args:
        size: Number of variables.
        edges: All edges without directions.
        arrows: Those whose direction is known.
    """
    directed = set(arrows)
    lines = {(min(e), max(e)) for e in edges} - {(min(e), max(e)) for e in directed}
    beside: list[set[int]] = [set() for _ in range(size)]
    for a, b in [*lines, *directed]:
        beside[a].add(b)
        beside[b].add(a)
    moved = True
    while moved:
        moved = False
        for a, b in sorted(lines):
            for tail, head in ((a, b), (b, a)):
                if (a, b) in lines and _must_point(tail, head, directed, beside):
                    lines.discard((a, b))
                    directed.add((tail, head))
                    moved = True
    return Pattern(size, frozenset(directed), frozenset(lines))


def _must_point(a: int, b: int, directed: set[tuple[int, int]], beside: list[set[int]]) -> bool:
    """Return whether a - b must become a -> b by one of Meek's first three rules."""
    if any((c, a) in directed and c != b and c not in beside[b] for c in beside[a]):
        return True  # c -> a - b with c and b apart: else a new v-structure
    common = beside[a] & beside[b]
    if any((a, c) in directed and (c, b) in directed for c in common):
        return True  # a -> c -> b: else a cycle
    heads = [c for c in common if (c, b) in directed and (a, c) not in directed and (c, a) not in directed]
    return any(d not in beside[c] for c in heads for d in heads if c != d)  # two ways round that may not meet


def extension(pattern: Pattern) -> Parents | None:
    """Return the parents of a directed acyclic graph in the class of a pattern; None if it has none."""
    arrows, lines = set(pattern.arrows), set(pattern.lines)
    parents: list[set[int]] = [set() for _ in range(pattern.size)]
    for a, b in arrows:
        parents[b].add(a)
    left = set(range(pattern.size))
    while left:
        sink = next((v for v in sorted(left) if _may_end(v, arrows, lines)), None)
        if sink is None:
            return None
        for a, b in [edge for edge in lines if sink in edge]:
            parents[sink].add(b if a == sink else a)
        arrows = {edge for edge in arrows if sink not in edge}
        lines = {edge for edge in lines if sink not in edge}
        left.discard(sink)
    return tuple(tuple(sorted(above)) for above in parents)


def _may_end(v: int, arrows: set[tuple[int, int]], lines: set[tuple[int, int]]) -> bool:
    """Return whether all open edges at `v` may point to it: no arrow leaves, its lines see all beside it."""
    if any(a == v for a, _ in arrows):
        return False
    open_to = {b if a == v else a for a, b in lines if v in (a, b)}
    beside = open_to | {a for a, b in arrows if b == v}
    both = arrows | lines
    joined: Callable[[int, int], bool] = lambda a, b: (a, b) in both or (b, a) in both  # noqa: E731
    return all(joined(a, b) for a in open_to for b in beside if a != b)
