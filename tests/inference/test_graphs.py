"""Separation and equivalence of graphs, against enumeration of all graphs and of all paths."""

import itertools
import random
from collections import defaultdict

import networkx as nx
import pytest

from leadline.core import DataError
from leadline.inference.graphs import (
    Parents,
    acyclic,
    d_separated,
    essential_graph,
    extension,
    maximal_cliques,
    moral_graph,
    separated,
    topological_order,
)


def all_dags(size: int) -> list[Parents]:
    """Return every directed acyclic graph of `size` variables."""
    others = [[v for v in range(size) if v != child] for child in range(size)]
    subsets = [
        [choice for k in range(size) for choice in itertools.combinations(above, k)] for above in others
    ]
    return [parents for parents in itertools.product(*subsets) if acyclic(parents)]


def random_dag(size: int, seed: int) -> Parents:
    source = random.Random(seed)
    order = list(range(size))
    source.shuffle(order)
    parents: list[tuple[int, ...]] = [()] * size
    for place, child in enumerate(order):
        parents[child] = tuple(sorted(v for v in order[:place] if source.random() < 0.35))
    return tuple(parents)


def v_structures(parents: Parents) -> frozenset[tuple[int, int, int]]:
    edges = {frozenset((a, child)) for child, above in enumerate(parents) for a in above}
    return frozenset(
        (min(a, b), child, max(a, b))
        for child, above in enumerate(parents)
        for a, b in itertools.combinations(above, 2)
        if frozenset((a, b)) not in edges
    )


def skeleton(parents: Parents) -> frozenset[tuple[int, int]]:
    return frozenset((min(a, c), max(a, c)) for c, above in enumerate(parents) for a in above)


def test_four_variables_have_543_acyclic_graphs() -> None:
    assert len(all_dags(4)) == 543  # OEIS A003024


def test_parents_come_before_their_children() -> None:
    for seed in range(20):
        parents = random_dag(8, seed)
        place = {v: i for i, v in enumerate(topological_order(parents))}
        assert all(place[a] < place[child] for child, above in enumerate(parents) for a in above)


def test_a_cycle_is_named() -> None:
    with pytest.raises(DataError, match=r"a -> b -> c -> a|b -> c -> a -> b|c -> a -> b -> c"):
        topological_order([(2,), (0,), (1,), (0,)], ["a", "b", "c", "d"])
    with pytest.raises(DataError, match="0 -> 0"):
        topological_order([(0,)])


def test_d_separation_agrees_with_separation_in_the_moral_graph_of_the_ancestors() -> None:
    # Lauritzen et al. (1990): a and b are d-separated by c exactly if c separates them in the moral
    # graph of the smallest ancestral set that holds all three; and with networkx.
    for seed in range(12):
        parents = random_dag(6, seed)
        graph = nx.DiGraph([(a, c) for c, above in enumerate(parents) for a in above])
        graph.add_nodes_from(range(6))
        for a, b in itertools.combinations(range(6), 2):
            rest = [v for v in range(6) if v not in (a, b)]
            for given in itertools.chain.from_iterable(itertools.combinations(rest, k) for k in range(5)):
                mine = d_separated(parents, [a], [b], given)
                keep = {a, b, *given}
                for v in list(keep):
                    keep |= nx.ancestors(graph, v)
                cut = [tuple(above) if v in keep else () for v, above in enumerate(parents)]
                assert mine == separated(moral_graph(cut), [a], [b], given)
                assert mine == nx.is_d_separator(graph, {a}, {b}, set(given))


def test_separation_needs_every_path_to_be_cut() -> None:
    square = [{1, 3}, {0, 2}, {1, 3}, {0, 2}]
    assert not separated(square, [0], [2], [1])
    assert separated(square, [0], [2], [1, 3])


def test_an_essential_graph_directs_what_all_equivalent_graphs_direct_alike() -> None:
    classes: dict[object, list[Parents]] = defaultdict(list)
    for parents in all_dags(4):
        classes[skeleton(parents), v_structures(parents)].append(parents)
    for members in classes.values():
        arrows = [{(a, c) for c, above in enumerate(p) for a in above} for p in members]
        shared = set.intersection(*arrows)
        for parents in members:
            pattern = essential_graph(parents)
            assert pattern.arrows == shared
            assert pattern.skeleton == skeleton(parents)
        found = extension(essential_graph(members[0]))
        assert found is not None
        assert tuple(tuple(sorted(p)) for p in found) in {tuple(tuple(sorted(q)) for q in m) for m in members}


def test_a_pattern_without_a_directed_graph_is_told() -> None:
    square = [{1, 3}, {0, 2}, {1, 3}, {0, 2}]
    lines = frozenset((a, b) for a, beside in enumerate(square) for b in beside if a < b)
    pattern = essential_graph([(), (), (), ()])
    assert extension(type(pattern)(4, frozenset(), lines)) is None


def test_the_distance_counts_pairs_joined_or_directed_otherwise() -> None:
    chain, collider, empty = essential_graph([(), (0,), (1,)]), essential_graph([(), (0, 2), ()]), [()] * 3
    assert chain.distance(chain) == 0
    assert chain.distance(collider) == 2
    assert chain.distance(essential_graph(empty)) == 2
    assert collider.distance(chain) == chain.distance(collider)


def test_maximal_cliques_are_all_cliques_that_cannot_grow() -> None:
    for seed in range(5):
        neighbours = moral_graph(random_dag(7, seed))
        sets = [
            s
            for k in range(1, 8)
            for s in itertools.combinations(range(7), k)
            if all(b in neighbours[a] for a, b in itertools.combinations(s, 2))
        ]
        largest = [s for s in sets if not any(set(s) < set(t) for t in sets)]
        assert maximal_cliques(neighbours) == sorted(largest)
