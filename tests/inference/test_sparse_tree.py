"""The tree over possible states against enumeration, and on codes that no table of all states could hold."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch

from leadline.core import DataError, ResourceError
from leadline.data.networks import FactorFile
from leadline.inference import sparse_tree
from leadline.inference.asking import believe, likeliest, sample_states
from leadline.inference.budget import Budget
from leadline.inference.factors import Factor, FactorGraph, Floats, enumerated
from leadline.inference.junction_tree import JunctionTree
from leadline.inference.sparse_tree import SparseTree
from leadline.models.graphical.markov_random_field import MarkovRandomField
from tests.inference.graphs_of import random_graph

D = 11
SOME = (7, 50)  # graphs of 108 and 81 states, 8 and 11 of them possible


def ring() -> tuple[FactorGraph, Floats, Floats]:
    """Return a graph whose tables of all states do not fit, its possible states, and their weights.

    Every two of eleven variables of six states are at most one step apart on a ring turned for each of them.
    """
    rng = np.random.default_rng(0)
    turns = rng.integers(6, size=D)
    step = (np.arange(6) - np.arange(6)[:, None] + 1) % 6 <= 2
    factors = [Factor((v,), rng.random(6) + 0.1) for v in range(D)]
    for a, b in itertools.combinations(range(D), 2):
        near = step[np.ix_((np.arange(6) + turns[a]) % 6, (np.arange(6) + turns[b]) % 6)]
        factors.append(Factor((a, b), near * (rng.random((6, 6)) + 0.5)))
    states = np.zeros((1, 0), dtype=np.int64)
    for v in range(D):
        states = np.concatenate([np.c_[states, np.full(len(states), x)] for x in range(6)])
        for factor in factors:
            if max(factor.scope) == v:
                states = states[factor.table[tuple(states[:, list(factor.scope)].T)] > 0]
    weights = np.prod([f.table[tuple(states[:, list(f.scope)].T)] for f in factors], axis=0)
    return FactorGraph((6,) * D, tuple(factors)), states, weights


@pytest.mark.parametrize("few", [1e4, 1])
def test_log_z_marginals_and_the_likeliest_state_equal_enumeration(
    monkeypatch: pytest.MonkeyPatch, few: float
) -> None:
    monkeypatch.setattr(sparse_tree, "_FEW", few)  # 1: each scope is counted, and held by what is outside it
    outcomes = Counter[str]()
    for seed in range(150):
        graph = random_graph(seed, zeros=(0.0, 0.3, 0.6)[seed % 3])
        try:
            joint, log_z = enumerated(graph)
        except DataError:
            with pytest.raises(DataError, match="probability zero"):
                SparseTree(graph).log_partition()
            outcomes["impossible"] += 1
            continue
        truth = joint.onto(range(len(graph.sizes))).table
        tree = SparseTree(graph)
        answer = tree.calibrate()
        assert answer.log_partition == pytest.approx(log_z, abs=1e-12)
        for v, p in answer.marginals.items():
            others = tuple(u for u in range(len(graph.sizes)) if u != v)
            np.testing.assert_allclose(p, truth.sum(others), atol=1e-12)
        x, log_weight = tree.maximise()
        assert truth[tuple(x)] == pytest.approx(truth.max(), rel=1e-12)
        assert log_weight == pytest.approx(log_z + math.log(truth.max()), abs=1e-12)
        assert all(made <= rows for made, rows in zip(tree._made, tree._rows, strict=True))
        outcomes["fewer" if tree.states < JunctionTree(graph, tree.cliques).cliques.states else "all"] += 1
    assert outcomes["impossible"] > 10
    assert outcomes["fewer"] > 20


def test_draws_are_as_frequent_as_their_probabilities() -> None:
    n = 20_000
    for seed in SOME:
        graph = random_graph(seed, zeros=0.3, most=5)
        truth = enumerated(graph)[0].onto(range(len(graph.sizes))).table
        tree = SparseTree(graph)
        x = tree.sample(np.random.default_rng(seed).random((n, len(tree.cliques.own))))
        found = np.zeros_like(truth)
        np.add.at(found, tuple(x.T), 1 / n)
        assert (np.abs(found - truth) <= 5 * np.sqrt(truth * (1 - truth) / n)).all()
        assert tree.sample(np.empty((0, len(tree.cliques.own)))).shape == (0, len(graph.sizes))


def test_what_is_beyond_whole_tables_is_answered_exactly() -> None:
    graph, states, weights = ring()
    heard: list[str] = []
    found = believe(graph, limit=1e6, tell=heard.append)
    assert (found.kind, found.method) == ("exact", "junction tree of possible states")
    assert "2.9 GB for tables of up to 11 variables" in heard[0]
    assert "bytes without impossible states" in heard[0]
    p = weights / weights.sum()
    assert found.log_partition.value == pytest.approx(math.log(weights.sum()), abs=1e-10)
    for v, marginal in found.marginals.items():
        np.testing.assert_allclose(marginal, np.bincount(states[:, v], p, 6), atol=1e-12)
    best = likeliest(graph, limit=1e6)
    assert best.kind == "exact"
    np.testing.assert_array_equal(best.x, states[weights.argmax()])
    x = sample_states(graph, {}, lambda columns: np.random.default_rng(0).random((2000, columns)), limit=1e6)
    assert {tuple(row) for row in x} <= {tuple(row) for row in states}
    for v, marginal in found.marginals.items():
        np.testing.assert_allclose(np.bincount(x[:, v], minlength=6) / 2000, marginal, atol=0.06)


def test_a_model_draws_given_evidence_where_whole_tables_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, states, _ = ring()
    scopes, tables = [f.scope for f in graph.factors], [f.table for f in graph.factors]
    model = MarkovRandomField.of(FactorFile("MARKOV", graph.sizes, scopes, tables))
    monkeypatch.setattr("leadline.inference.budget.available_memory", lambda: 1_000_000)
    x = model.sample(50, torch.Generator().manual_seed(0), evidence={0: 1})
    assert {tuple(row) for row in x.tolist()} <= {tuple(row) for row in states.tolist() if row[0] == 1}
    assert len(x.unique(dim=0)) > 5


def test_what_cannot_fit_is_told_before_anything_is_made() -> None:
    pairs = [pair for pair in itertools.combinations(range(9), 2) if pair != (0, 8)]
    apart = Factor((9,), np.eye(6)[0])  # its zeros touch no message
    graph = FactorGraph((6,) * 10, (*(Factor(pair, np.full((6, 6), 2.0)) for pair in pairs), apart))
    with pytest.raises(ResourceError, match=r"MB without impossible states, more than the limit of 10 bytes"):
        SparseTree(graph, budget=Budget(10))
    with pytest.raises(ResourceError, match=r"MB for tables .*or a walk through 3.4e\+06 states"):
        SparseTree(graph, budget=Budget(states=100, unsure=100))


def test_a_limit_that_possible_states_exceed_ends_an_exact_answer_and_leads_to_an_estimate() -> None:
    graph, _, _ = ring()
    with pytest.raises(
        ResourceError, match=r"more than the limit of 10 bytes, at message 1 of .* use another"
    ):
        believe(graph, method="exact", limit=10)
    rough = believe(graph, limit=10)
    assert rough.kind == "estimate"
    assert "without impossible states more than the limit" in rough.needs
    assert "another" not in rough.needs


def test_values_beyond_the_range_of_floats_do_not_overflow() -> None:
    strong = Factor((0, 1), np.array([[1e300, 0.0], [0.0, 1e300]]))
    faint = Factor((1, 2), np.array([[1e-300, 0.0], [0.0, 3e-300]]))
    graph = FactorGraph((2, 2, 2), (strong, strong, faint, faint, faint))
    answer = SparseTree(graph).calibrate()
    assert answer.log_partition == pytest.approx(math.log(28) - 300 * math.log(10))
    np.testing.assert_allclose(answer.marginals[0], [1 / 28, 27 / 28])


def test_memory_that_cannot_be_had_is_told_and_leads_to_an_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing_left(*_: object, **__: object) -> None:
        raise MemoryError("Unable to allocate 3 GiB")

    monkeypatch.setattr("leadline.inference.asking.fitting_tree", nothing_left)
    graph, _, _ = ring()
    with pytest.raises(ResourceError, match="Unable to allocate 3 GiB; use another method"):
        believe(graph, method="exact")
    rough = believe(graph, wanted=[0])
    assert (rough.kind, rough.needs) == ("estimate", "Unable to allocate 3 GiB")
