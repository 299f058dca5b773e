"""Weighted mini-buckets against enumeration: bounds hold, tighten, and are Hölder's."""

import itertools
import math

import numpy as np
import pytest

from leadline.core import DataError
from leadline.inference import buckets
from leadline.inference.asking import believe
from leadline.inference.buckets import bound_marginals, bound_partition
from leadline.inference.factors import Factor, FactorGraph, enumerated
from tests.inference.graphs_of import ising, random_evidence, random_graph


def test_log_z_and_every_marginal_lie_between_their_bounds() -> None:
    split = 0
    for seed in range(90):
        graph = random_graph(seed, zeros=0.2 if seed % 2 else 0.0)
        evidence = random_evidence(graph, seed)
        try:
            joint, log_partition = enumerated(graph.given(evidence))
        except DataError:
            continue
        for cap in (1, 4, 8, 1 << 16):
            found = bound_marginals(graph, evidence, cap=cap)
            split += not found.exact
            assert found.lower - 1e-9 <= log_partition <= found.upper + 1e-9
            for v in set(range(len(graph.sizes))) - set(evidence):
                p = joint.onto([v]).table
                assert (found.low[v] - 1e-9 <= p).all()
                assert (p <= found.high[v] + 1e-9).all()
                assert (found.low[v] - 1e-9 <= found.guess[v]).all()
                assert (found.guess[v] <= found.high[v] + 1e-9).all()
                assert found.guess[v].sum() == pytest.approx(1)
                if graph.sizes[v] == 1 and found.lower > -math.inf:
                    assert found.low[v] == pytest.approx(1)
                if found.exact:
                    np.testing.assert_allclose([found.low[v], found.high[v]], [p, p], atol=1e-9)
            for v, state in evidence.items():
                assert found.low[v][state] == found.high[v][state] == 1
    assert split > 50


def test_larger_tables_tighten_the_bounds_until_they_meet() -> None:
    graph = ising((4, 4), 0.44, 0.1)
    truth = enumerated(graph)[1]
    gaps = []
    for cap in (4, 8, 16, 32):
        lower, upper = bound_partition(graph, cap=cap)
        gaps.append((truth - lower, upper - truth))
    for (below, above), (less_below, less_above) in itertools.pairwise(gaps):
        assert less_below < below
        assert less_above < above
    assert gaps[0][1] < 1.5  # summing one mini-bucket and taking the maxima of the others is 2.9 nats off
    assert gaps[-1] == pytest.approx((0, 0), abs=1e-10)


def test_a_pass_for_each_variable_tightens_the_bounds_of_the_whole() -> None:
    graph = ising((4, 4), 0.44, 0.1)
    truth, (lower, upper) = enumerated(graph)[1], bound_partition(graph, cap=4)
    found = bound_marginals(graph, cap=4)
    assert lower + 0.01 < found.lower < truth < found.upper < upper - 0.01


def test_a_lower_bound_is_the_best_of_three_spreads_of_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    winners = []
    for graph in (ising((4, 4), 0.44, 0.1), random_graph(3), random_graph(6)):
        best = bound_partition(graph, cap=4)[0]
        alone = []
        for spread in (0.1, 0.5, 2.0):
            with monkeypatch.context() as patch:
                patch.setattr(buckets, "_SPREADS", (spread,))
                alone.append(bound_partition(graph, cap=4)[0])
        assert best == pytest.approx(max(alone), abs=1e-12)
        winners.append(int(np.argmax(alone)))
    assert sorted(winners) == [0, 1, 2]


def test_bounds_of_one_split_bucket_are_those_of_the_cauchy_schwarz_inequality() -> None:
    # two equal mini-buckets need no matching: (sum f^2)^(1/2 + 1/2), and f_1 f_2 is f^2
    f = np.array([1.0, 2.0, 4.0])
    pairs = [np.outer(f, [1.0, 3.0]), np.outer(f, [1.0, 3.0])]
    graph = FactorGraph((3, 2, 2), (Factor((0, 1), pairs[0]), Factor((0, 2), pairs[1])))
    split = FactorGraph(graph.sizes, (*graph.factors, Factor((1, 2), np.ones((2, 2)))))
    lower, upper = bound_partition(split, cap=6)
    # the mini-buckets of v are the same function of v, so that both bounds meet at 1 + 4 + 16 times 4 * 4
    assert upper == pytest.approx(math.log(21 * 16))
    assert lower == pytest.approx(math.log(21 * 16))


def test_states_that_cannot_be_loosen_nothing_and_impossible_evidence_is_told() -> None:
    eye = np.eye(2)
    triangle = tuple(Factor(pair, eye + 0.0) for pair in ((0, 1), (1, 2), (0, 2)))
    one = Factor((0,), np.array([0.0, 1.0]))
    lower, upper = bound_partition(FactorGraph((2, 2, 2), (*triangle, one)), cap=2)
    assert upper >= 0 >= lower  # the only state is (1, 1, 1), of weight one
    assert upper < math.inf
    grid = ising((4, 4), 0.4)
    known = FactorGraph(grid.sizes, (*grid.factors, Factor((5,), np.array([0.0, 1.0]))))
    lower, upper = bound_partition(known, cap=4)  # half of the weight of all, and not a bound of nothing
    assert enumerated(known)[1] - 5 < lower < enumerated(known)[1] < upper
    with pytest.raises(DataError, match="zero"):
        bound_partition(FactorGraph((2, 2, 2), triangle), {0: 0, 1: 1})


def test_the_method_widens_pruned_states_and_says_that_its_bounds_are_certain() -> None:
    graph = ising((4, 4), 0.3, 0.2)
    sure = FactorGraph(
        (*graph.sizes, 3), (*graph.factors, Factor((0, 16), np.array([[1.0, 0, 2], [1, 0, 1]])))
    )
    truth = believe(sure, {5: 1}).marginals
    found = believe(sure, {5: 1}, method="mini_bucket", limit=8 * 8)
    assert found.kind == "estimate"
    assert found.error.kind == "upper bound"
    assert found.high[16][1] == found.low[16][1] == 0
    for v, p in truth.items():
        assert (found.low[v] - 1e-12 <= p).all()
        assert (p <= found.high[v] + 1e-12).all()
        assert np.abs(found.marginals[v] - p).max() <= found.error.value + 1e-12
    assert believe(sure, {5: 1}, [0, 16], method="mini_bucket").kind == "exact"
