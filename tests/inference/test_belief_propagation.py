"""Belief propagation: exact on forests, a sensible estimate with cycles."""

import math

import numpy as np
import pytest

from leadline.core import DataError, OptionError
from leadline.inference.belief_propagation import is_forest, propagate
from leadline.inference.factors import Factor, FactorGraph, enumerated
from tests.inference.graphs_of import ising, random_evidence, random_graph


def random_tree(seed: int) -> FactorGraph:
    """Return a forest of three-variable and pair factors over nine variables."""
    rng = np.random.default_rng(seed)
    sizes = tuple(int(size) for size in rng.integers(2, 4, 9))
    factors = [Factor((v,), rng.random(sizes[v])) for v in range(0, 9, 2)]
    for v in range(1, 9, 2):
        scope = (int(rng.integers(0, v)), v, v + 1)
        factors.append(Factor(scope, rng.random(tuple(sizes[u] for u in scope))))
    return FactorGraph(sizes, tuple(factors))


def test_sum_product_is_exact_on_forests_with_and_without_evidence() -> None:
    for seed in range(12):
        graph = random_tree(seed)
        assert is_forest(graph)
        evidence = random_evidence(graph, seed)
        joint, log_partition = enumerated(graph.given(evidence))
        found = propagate(graph, evidence)
        assert found.exact
        assert found.log_partition == pytest.approx(log_partition, abs=1e-9)
        for v, belief in enumerate(found.marginals):
            left = belief[[evidence[v]]] if v in evidence else belief
            np.testing.assert_allclose(left, joint.onto([v]).table, atol=1e-9)


def test_max_product_finds_the_likeliest_state_of_a_forest() -> None:
    for seed in range(12):
        graph = random_tree(seed)
        evidence = random_evidence(graph, seed)
        joint, log_partition = enumerated(graph.given(evidence))
        found = propagate(graph, evidence, maxima=True)
        assert all(found.x[v] == state for v, state in evidence.items())
        assert found.log_partition - log_partition == pytest.approx(math.log(joint.table.max()), abs=1e-9)


def test_with_damping_a_forest_still_settles_on_the_truth() -> None:
    graph = random_tree(3)
    found = propagate(graph, damping=0.5)
    assert found.converged
    assert not found.exact
    assert found.log_partition == pytest.approx(enumerated(graph)[1], abs=1e-6)


def test_zeros_stay_zeros_and_impossible_evidence_is_told() -> None:
    same = FactorGraph(
        (2, 2, 2), (Factor((0, 1), np.eye(2)), Factor((1, 2), np.array([[1.0, 1.0], [0.0, 2.0]])))
    )
    found = propagate(same, {0: 1})
    assert found.marginals[2].tolist() == [0.0, 1.0]
    assert found.log_partition == pytest.approx(math.log(2))
    with pytest.raises(DataError, match="probability zero"):
        propagate(same, {0: 1, 2: 0})
    with pytest.raises(DataError, match="probability zero"):
        propagate(same, {0: 0, 1: 1})


def test_loops_give_an_estimate_that_says_so_and_is_near_where_couplings_are_weak() -> None:
    graph = ising((4, 4), 0.2, 0.1)
    found = propagate(graph, damping=0.2)
    joint, log_partition = enumerated(graph)
    assert found.converged
    assert not found.exact
    assert found.log_partition == pytest.approx(log_partition, rel=0.01)
    error = max(float(np.abs(b - joint.onto([v]).table).max()) for v, b in enumerate(found.marginals))
    assert 0 < error < 0.02


def test_variables_of_one_state_and_of_no_factor_and_constants_are_held() -> None:
    graph = FactorGraph((1, 3, 2), (Factor((0, 2), np.array([[1.0, 3.0]])), Factor((), np.array(0.5))))
    found = propagate(graph)
    assert found.exact
    assert found.log_partition == pytest.approx(math.log(4 * 3 * 0.5))
    np.testing.assert_allclose(found.marginals[1], np.full(3, 1 / 3))


def test_a_random_graph_with_cycles_is_never_called_exact() -> None:
    seen = 0
    for seed in range(40):
        graph = random_graph(seed, zeros=0.0)
        found = propagate(graph, damping=0.0 if is_forest(graph) else 0.3, rounds=300)
        if found.exact:
            assert found.log_partition == pytest.approx(enumerated(graph)[1], abs=1e-10)
        else:
            seen += 1
    assert seen > 10


def test_damping_out_of_range_is_refused() -> None:
    for damping in (-0.1, 1.0):
        with pytest.raises(OptionError, match="damping"):
            propagate(random_tree(0), damping=damping)
