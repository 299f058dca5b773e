"""The junction tree against enumeration and against closed forms of physics."""

import itertools
import math

import numpy as np
import pytest

from leadline.core import DataError, ResourceError
from leadline.inference.factors import Factor, FactorGraph, enumerated
from leadline.inference.junction_tree import JunctionTree
from leadline.inference.orders import find_cliques
from tests.inference.graphs_of import ising, random_evidence, random_graph


@pytest.mark.parametrize("directed", [False, True])
def test_everything_a_tree_answers_agrees_with_enumeration(directed: bool) -> None:
    possible = 0
    for seed in range(60):
        graph = random_graph(seed, directed=directed)
        evidence = random_evidence(graph, seed)
        tree = JunctionTree(graph, "min_fill" if seed % 2 else "min_weight")
        try:
            joint, log_partition = enumerated(graph.given(evidence))
        except DataError:
            with pytest.raises(DataError, match="zero"):
                tree.calibrate(evidence)
            continue
        possible += 1
        answer = tree.calibrate(evidence)
        assert answer.log_partition == pytest.approx(log_partition, abs=1e-10)
        assert tree.log_partition(evidence) == pytest.approx(log_partition, abs=1e-10)
        for v, distribution in answer.marginals.items():
            left = distribution[[evidence[v]]] if v in evidence else distribution
            np.testing.assert_allclose(left, joint.onto([v]).table, atol=1e-12)
        some = tree.calibrate(evidence, wanted=[0])
        np.testing.assert_allclose(some.marginals[0], answer.marginals[0], atol=1e-12)
        assert list(some.marginals) == [0]
    assert possible > 30


def test_the_belief_of_a_factor_is_the_joint_distribution_of_its_scope() -> None:
    for seed in range(40):
        graph = random_graph(seed, directed=bool(seed % 2), zeros=0.0)
        evidence = random_evidence(graph, seed)
        joint, log_partition = enumerated(graph.given(evidence))
        found, beliefs = JunctionTree(graph).beliefs(evidence)
        assert found == pytest.approx(log_partition, abs=1e-10)
        for factor, belief in zip(graph.factors, beliefs, strict=True):
            assert belief.shape == factor.table.shape
            assert belief.sum() == pytest.approx(1)
            kept = [v for v in factor.scope if v not in evidence]
            np.testing.assert_allclose(
                Factor(factor.scope, belief).given(evidence).table, joint.onto(kept).table
            )


def test_other_tables_of_the_same_scopes_are_answered_as_by_a_tree_of_their_own() -> None:
    rng, met = np.random.default_rng(0), 0
    for seed in range(60):
        graph = random_graph(seed, directed=seed % 3 == 0, zeros=0.0)
        evidence = random_evidence(graph, seed)
        tree, before = JunctionTree(graph), JunctionTree(graph).log_partition()
        far = 800 * (seed % 2)  # e^800 overflows
        logs = [rng.normal(size=f.table.shape) + far * (-1) ** i for i, f in enumerate(graph.factors)]
        logs = [np.where(rng.random(log.shape) < 0.1, -np.inf, log) for log in logs]
        flat = np.concatenate([np.empty(0), *(log.ravel() for log in logs)])
        scales = [max(float(log.max()), -1e300) for log in logs]
        tables = [np.exp(log - scale) for log, scale in zip(logs, scales, strict=True)]
        others = tuple(Factor(f.scope, table) for f, table in zip(graph.factors, tables, strict=True))
        try:
            log_z, beliefs = JunctionTree(FactorGraph(graph.sizes, others)).beliefs(evidence)
        except DataError:
            with pytest.raises(DataError):
                tree.entries(evidence, flat)
            continue
        found, entries = tree.entries(evidence, flat)
        assert found == pytest.approx(log_z + sum(scales), abs=1e-9)
        np.testing.assert_allclose(
            entries, np.concatenate([np.empty(0), *(b.ravel() for b in beliefs)]), atol=1e-12
        )
        assert tree.log_partition() == before
        met += len(flat) > 4
    assert met > 15


def test_the_likeliest_state_is_that_of_the_largest_entry() -> None:
    for seed in range(40):
        graph = random_graph(seed, zeros=0.0)
        evidence = random_evidence(graph, seed)
        joint, log_partition = enumerated(graph.given(evidence))
        x, log_weight = JunctionTree(graph).maximise(evidence)
        assert all(x[v] == state for v, state in evidence.items())
        assert graph.log_weight(x[None])[0] == pytest.approx(log_weight, abs=1e-10)
        assert log_weight - log_partition == pytest.approx(math.log(joint.table.max()), abs=1e-10)


def test_draws_follow_the_joint_distribution() -> None:
    graph = random_graph(6, directed=True, most=6)
    evidence = {2: 1}
    joint, _ = enumerated(graph.given(evidence))
    tree, n = JunctionTree(graph), 20_000
    x = tree.sample(np.random.default_rng(0).random((n, len(tree.cliques.own))), evidence)
    assert (x[:, 2] == 1).all()
    x[:, 2] = 0
    counts = np.bincount(np.ravel_multi_index(tuple(x.T), joint.table.shape), minlength=joint.table.size)
    p = joint.table.ravel()
    assert (np.abs(counts / n - p) <= 4 * np.sqrt(p * (1 - p) / n) + 1e-12).all()


def test_chains_rings_and_a_mean_field_magnet_have_their_closed_partition_functions() -> None:
    chain, beta = ising((1, 10), 0.5), 0.5
    assert JunctionTree(chain).log_partition() == pytest.approx(
        math.log(2) + 9 * math.log(2 * math.cosh(beta)), abs=1e-10
    )
    assert JunctionTree(chain).log_partition() == pytest.approx(8.0125023682, abs=1e-9)
    pair = chain.factors[-1].table
    ring = FactorGraph(chain.sizes, (*chain.factors, Factor((9, 0), pair)))
    assert JunctionTree(ring).log_partition() == pytest.approx(8.1330609176, abs=1e-9)
    coupled = np.exp(1.2 / 20 * np.array([[1.0, -1.0], [-1.0, 1.0]]))
    pairs = tuple(Factor(pair, coupled) for pair in itertools.combinations(range(20), 2))
    assert JunctionTree(FactorGraph((2,) * 20, pairs)).log_partition() == pytest.approx(
        14.9967334517, abs=1e-9
    )


@pytest.mark.parametrize(
    ("sides", "beta", "field", "torus", "log_partition"),
    [
        ((3, 3), 0.3, 0.0, False, 6.8015390511),
        ((3, 3), 0.3, 0.1, False, 6.9126819991),
        ((4, 4), 0.4406867935, 0.0, False, 13.6763152414),
        ((4, 4), 0.4406867935, 0.0, True, 15.5219154588),
        ((4, 4), 0.2, 0.0, True, 11.7714703585),
    ],
)
def test_ising_grids_have_the_partition_functions_of_enumeration(
    sides: tuple[int, int], beta: float, field: float, torus: bool, log_partition: float
) -> None:
    graph = ising(sides, beta, field, torus=torus)
    assert JunctionTree(graph).log_partition() == pytest.approx(log_partition, abs=1e-8)


def test_cliques_hold_every_factor_and_meet_the_running_intersection() -> None:
    for seed in range(30):
        graph = random_graph(seed, most=9)
        cliques = find_cliques(graph, "min_weight" if seed % 2 else "min_fill")
        members = [set(cliques.of(c)) for c in range(len(cliques.own))]
        assert sum(cliques.own) == len(graph.sizes)
        for factor in graph.factors:
            scope = {v for v in factor.scope if graph.sizes[v] > 1}
            assert not scope or any(scope <= clique for clique in members)
        for c, parent in enumerate(cliques.parent):
            separator = set(cliques.of(c)[cliques.own[c] :])
            assert parent > c if parent >= 0 else not separator
            assert separator <= (members[parent] if parent >= 0 else set())
            assert not any(members[c] <= members[other] for other in range(len(members)) if other != c)


def test_a_given_order_is_followed_and_greedy_ones_know_the_width_of_a_grid() -> None:
    graph = ising((4, 4), 0.3)
    given = JunctionTree(graph, order=list(range(16)))
    assert list(given.cliques.order) == list(range(16))
    assert given.width == 4
    assert given.log_partition() == pytest.approx(JunctionTree(graph, "min_weight").log_partition())
    assert find_cliques(graph).width == 4
    assert find_cliques(ising((1, 30), 0.3)).width == 1


def test_too_large_a_tree_says_what_it_would_take_before_it_takes_it() -> None:
    with pytest.raises(ResourceError, match=r"needs .*[GTP]B.*treewidth at most \d\d.*'auto'"):
        JunctionTree(ising((40, 40), 0.3))
    graph = ising((5, 5), 0.3)
    with pytest.raises(ResourceError, match=r"limit of 1 kB"):
        JunctionTree(graph, limit=1000)
    assert JunctionTree(graph, limit=1e6).memory < 1e6
    with pytest.raises(ResourceError, match="too many"):
        JunctionTree(FactorGraph((2,) * 30_000, ()))


def test_conditional_tables_that_form_a_circle_are_not_taken_for_a_network() -> None:
    one, two = (np.random.default_rng(seed).random((2, 2)) for seed in range(2))
    circle = (
        Factor((0, 1), one / one.sum(1, keepdims=True), child=1),
        Factor((1, 0), two / two.sum(1, keepdims=True), child=0),
    )
    graph = FactorGraph((2, 2), circle)
    assert JunctionTree(graph).log_partition() == pytest.approx(enumerated(graph)[1], abs=1e-12)


def test_huge_and_tiny_weights_neither_overflow_nor_vanish() -> None:
    strong = ising((6, 6), 80.0, 1e-3)
    tree = JunctionTree(strong)
    answer = tree.calibrate()
    assert answer.log_partition == pytest.approx(
        60 * 80 + math.log(math.exp(0.036) + math.exp(-0.036)), abs=1e-6
    )
    assert answer.marginals[0][1] == pytest.approx(1 / (1 + math.exp(-0.072)), abs=1e-9)


def test_evidence_that_cannot_be_or_does_not_exist_is_refused() -> None:
    graph = FactorGraph((2, 2), (Factor((0, 1), np.eye(2)),))
    tree = JunctionTree(graph)
    with pytest.raises(DataError, match="probability zero"):
        tree.calibrate({0: 0, 1: 1})
    for evidence in ({2: 0}, {0: 5}):
        with pytest.raises(DataError, match="evidence"):
            tree.maximise(evidence)
    np.testing.assert_allclose(tree.calibrate().marginals[1], [0.5, 0.5])
