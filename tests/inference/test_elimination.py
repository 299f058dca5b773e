"""Variable elimination, its bound, and weighted draws against enumeration."""

import math
from typing import Any

import numpy as np
import pytest

from leadline.core import DataError, OptionError, ResourceError
from leadline.inference.asking import METHODS, believe, likeliest, sample_states
from leadline.inference.belief_propagation import is_forest
from leadline.inference.elimination import eliminate, relevant
from leadline.inference.factors import Factor, FactorGraph, enumerated
from leadline.inference.junction_tree import JunctionTree
from leadline.inference.pruning import pruned
from leadline.inference.weighting import likelihood_weighting
from tests.inference.graphs_of import ising, random_evidence, random_graph


@pytest.mark.parametrize("directed", [False, True])
def test_elimination_agrees_with_enumeration_for_any_kept_variables(directed: bool) -> None:
    for seed in range(40):
        graph = random_graph(seed, directed=directed, zeros=0.0)
        evidence = random_evidence(graph, seed)
        joint, log_partition = enumerated(graph.given(evidence))
        free = [v for v in range(len(graph.sizes)) if v not in evidence]
        kept = np.random.default_rng(seed).permutation(free)[:2].tolist()
        found = eliminate(graph, kept, evidence, order="min_weight" if seed % 2 else "min_fill")
        assert found.log_partition == pytest.approx(log_partition, abs=1e-10)
        np.testing.assert_allclose(found.factor.table, joint.onto(kept).table, atol=1e-12)


def test_barren_variables_are_left_out_and_answers_stay_the_same() -> None:
    chain = [Factor((0,), np.array([0.3, 0.7]), child=0)]
    step = np.array([[0.9, 0.1], [0.4, 0.6]])
    chain += [Factor((v, v + 1), step, child=v + 1) for v in range(6)]
    graph = FactorGraph((2,) * 7, tuple(chain))
    assert len(relevant(graph, [2]).factors) == 3
    assert len(relevant(graph, [2], [4]).factors) == 5
    assert len(relevant(graph, []).factors) == 0
    for evidence in ({}, {4: 1}, {6: 0}):
        exact = JunctionTree(graph).calibrate(evidence)
        found = believe(graph, evidence, [2])
        np.testing.assert_allclose(found.marginals[2], exact.marginals[2], atol=1e-12)
        assert found.log_partition.value == pytest.approx(exact.log_partition, abs=1e-12)
        assert eliminate(graph, [2], evidence).log_partition == pytest.approx(exact.log_partition, abs=1e-12)


def test_states_that_cannot_be_are_left_out_and_answers_stay_the_same() -> None:
    fewer = 0
    for seed in range(60):
        graph = random_graph(seed, zeros=0.45)
        evidence = random_evidence(graph, seed)
        try:
            joint, log_partition = enumerated(graph.given(evidence))
        except DataError:
            with pytest.raises(DataError, match="zero"):
                believe(graph, evidence)
            continue
        small = pruned(graph)
        fewer += sum(graph.sizes) - sum(small.graph.sizes)
        found = believe(graph, evidence)
        assert found.log_partition.value == pytest.approx(log_partition, abs=1e-10)
        for v, p in found.marginals.items():
            np.testing.assert_allclose(
                p[[evidence[v]]] if v in evidence else p, joint.onto([v]).table, atol=1e-12
            )
        best = likeliest(graph, evidence)
        assert best.log_weight - log_partition == pytest.approx(np.log(joint.table.max()), abs=1e-10)
        assert float(graph.log_weight(best.x[None])[0]) == pytest.approx(best.log_weight, abs=1e-10)
    assert fewer > 10


def test_weighted_draws_miss_the_truth_by_no_more_than_their_error_says() -> None:
    misses, total = 0, 0
    for seed in range(8):
        graph = random_graph(seed, directed=True)
        evidence = random_evidence(graph, seed)
        truth = JunctionTree(graph).calibrate(evidence)
        found = likelihood_weighting(graph, evidence, draws=4000, seed=seed)
        assert abs(found.log_partition - truth.log_partition) <= 4 * found.log_stderr + 1e-12
        assert found.effective_sample_size <= 4000 + 1e-6
        for v, p in truth.marginals.items():
            gap, error = np.abs(found.marginals[v] - p), found.stderr[v]
            assert (gap <= 5 * error + 1e-12).all()
            misses += int((gap > 2 * error + 1e-12).sum())
            total += len(p)
    assert misses <= 0.12 * total


def test_a_state_that_no_draw_was_in_has_an_error_unless_it_is_impossible() -> None:
    rare = np.array([[1 - 1e-4, 1e-4, 0.0], [0.2, 0.3, 0.5]])
    factors = (Factor((0,), np.array([1.0, 0.0]), child=0), Factor((0, 1), rare, child=1))
    found = likelihood_weighting(FactorGraph((2, 3), factors), draws=1000, seed=1)
    assert found.marginals[1].tolist() == [1.0, 0.0, 0.0]
    once = math.sqrt(1 / 1001 * (1 - 1 / 1001) / 1000)  # one draw of 1,001
    assert found.stderr[1].tolist() == pytest.approx([once, once, 0.0])
    assert found.stderr[0].tolist() == [0.0, 0.0]
    given = likelihood_weighting(FactorGraph((2, 3), factors), {1: 0}, draws=1000)
    assert given.stderr[1].tolist() == [0.0, 0.0, 0.0]


def test_weighting_needs_a_network_and_draws_that_agree() -> None:
    with pytest.raises(OptionError, match="loopy"):
        likelihood_weighting(ising((2, 2), 0.1))
    graph = FactorGraph((2,), (Factor((0,), np.array([1.0, 0.0]), child=0),))
    with pytest.raises(DataError, match="no draw agrees"):
        likelihood_weighting(graph, {0: 1})


@pytest.mark.parametrize("method", METHODS)
def test_every_method_says_what_it_is_and_is_near_the_truth(method: str) -> None:
    graph = random_graph(9, directed=True, most=7)
    evidence = {0: 0}
    truth = JunctionTree(graph).calibrate(evidence)
    found = believe(graph, evidence, method=method)
    tree = method == "loopy" and is_forest(graph.given(evidence))
    assert found.kind == ("exact" if method in ("auto", "exact", "mini_bucket") or tree else "estimate")
    assert (found.error.value == 0) == (found.kind == "exact")
    assert found.marginals[0][0] == 1.0
    for v, p in truth.marginals.items():
        assert found.marginals[v] == pytest.approx(p, abs=1e-12 if found.kind == "exact" else 0.15)
    log_partition = found.log_partition
    if log_partition.interval is not None and log_partition.stderr is None:
        low, high = log_partition.interval
        assert low - 1e-9 <= truth.log_partition <= high + 1e-9
    if method == "mean_field":
        assert log_partition.kind == "lower bound"
    if method == "weighting":
        assert log_partition.stderr is not None
    if method in ("weighting", "gibbs"):
        assert set(found.stderr) == set(found.marginals)
        assert found.error.value == max(float(e.max()) for e in found.stderr.values())


def test_auto_turns_to_an_estimate_where_memory_does_not_allow_the_truth() -> None:
    graph = random_graph(9, directed=True, most=7)
    found = believe(graph, {0: 0}, limit=8)
    assert found.kind == "estimate"
    assert "weighting" in found.method
    grid = ising((5, 5), 0.3, 0.1)
    told: list[str] = []
    rough = believe(grid, limit=64, tell=told.append)
    assert "Gibbs sampling, 40 chains" in rough.method
    assert rough.kind == "estimate"
    assert rough.needs.startswith("an exact answer needs")
    assert told == [f"{rough.needs}; approximating"]
    assert rough.log_partition.interval is not None
    low, high = rough.log_partition.interval
    assert low - 1e-9 <= JunctionTree(grid).log_partition() <= high + 1e-9
    with pytest.raises(ResourceError):
        believe(grid, method="exact", limit=64)
    best, guess = likeliest(grid), likeliest(grid, limit=64)
    assert best.kind == "exact"
    assert guess.kind == "lower bound"
    assert guess.log_weight <= best.log_weight + 1e-9
    assert guess.log_weight == pytest.approx(float(grid.log_weight(guess.x[None])[0]))


def test_where_no_bound_is_known_the_error_is_the_difference_from_draws_or_a_certain_bound() -> None:
    grid = ising((4, 4), 0.35, 0.1)
    truth = JunctionTree(grid).calibrate().marginals
    found = believe(grid, method="loopy")
    worst = max(float(np.abs(p - truth[v]).max()) for v, p in found.marginals.items())
    assert "no bound is known" in found.error.protocol
    assert found.error.stderr is not None
    assert abs(found.error.value - worst) < 4 * found.error.stderr + 0.005
    value, interval = found.log_partition.value, found.log_partition.interval
    assert interval is not None
    assert interval[0] <= value <= interval[1]
    cold = ising((7, 7), 1.0)  # chains freeze, each to one side: no draws to trust
    sure = believe(cold, method="loopy")
    assert (sure.error.kind, sure.error.protocol) == ("upper bound", "certain bounds by mini-buckets")
    for v, p in JunctionTree(cold).calibrate().marginals.items():
        assert np.abs(sure.marginals[v] - p).max() <= sure.error.value + 1e-12
    frozen = believe(cold, method="gibbs")
    assert "do NOT agree" in frozen.error.protocol


@pytest.mark.parametrize("limit", [0, -5.0, math.nan, "4GB"])
def test_a_limit_that_is_no_number_of_bytes_above_zero_is_refused(limit: Any) -> None:
    graph = ising((2, 2), 0.3)
    for method in ("auto", "exact", "mini_bucket", "loopy"):
        with pytest.raises(OptionError, match="limit must be a number of bytes above zero"):
            believe(graph, method=method, limit=limit)
    with pytest.raises(OptionError, match="limit must be"):
        likeliest(graph, limit=limit)
    with pytest.raises(OptionError, match="limit must be"):
        sample_states(graph, {}, lambda columns: np.zeros((1, columns)), limit=limit)


def test_unknown_methods_and_impossible_evidence_are_refused() -> None:
    graph = FactorGraph((2, 2), (Factor((0, 1), np.eye(2)),))
    with pytest.raises(OptionError, match="method must be one of auto"):
        believe(graph, method="magic")
    with pytest.raises(OptionError, match="likeliest"):
        likeliest(graph, method="mean_field")
    for method in ("exact", "loopy"):
        with pytest.raises(DataError, match="zero"):
            believe(graph, {0: 0, 1: 1}, method=method)
        with pytest.raises(DataError, match="zero"):
            likeliest(graph, {0: 0, 1: 1}, method=method)
    with pytest.raises(DataError, match="zero"):
        eliminate(graph, (), {0: 0, 1: 1})
