"""Copies at higher temperatures: cold models answered with errors that hold, or told as not to be trusted."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from leadline.core import OptionError
from leadline.inference import approximate
from leadline.inference.asking import believe
from leadline.inference.chains.gibbs import Gibbs
from leadline.inference.chains.tempered_gibbs import TemperedGibbs, spaced
from leadline.inference.factors import Factor, FactorGraph, enumerated
from leadline.inference.gibbs_answers import _Walk, gibbs_marginals
from leadline.inference.junction_tree import JunctionTree
from tests.inference.graphs_of import ising, random_graph


def glass(side: int, cold: float, seed: int) -> FactorGraph:
    """Return a grid of couplings of random sign, with weak random fields."""
    rng, factors = np.random.default_rng(seed), []
    for v in range(side * side):
        factors.append(Factor((v,), np.exp(rng.normal(size=2) * 0.1)))
        for u in ([v + 1] if (v + 1) % side else []) + ([v + side] if v + side < side * side else []):
            J = cold * rng.choice([-1, 1])
            factors.append(Factor((v, u), np.exp([[J, -J], [-J, J]])))
    return FactorGraph((2,) * side**2, tuple(factors))


def test_errors_of_cold_models_cover_the_truth_at_their_level() -> None:
    z = []
    for seed in range(5):
        graph = glass(4, 2.0, seed)
        truth = JunctionTree(graph).calibrate().marginals
        assert not gibbs_marginals(graph, draws=50).settled
        found = gibbs_marginals(graph, chains=8, draws=200, thin=4, tempered=True, seed=seed)
        assert found.copies > 3
        z += [(found.marginals[v][0] - p[0]) / found.stderr[v][0] for v, p in truth.items()]
    assert np.abs(z).max() < 5
    assert 0.3 < np.mean(np.square(z)) < 2.5  # the 16 of one model move together


def test_a_cold_grid_beyond_memory_is_answered_by_tempering_and_says_its_error() -> None:
    graph = ising((5, 5), 1.0, 0.02)
    truth = JunctionTree(graph).calibrate().marginals
    found = believe(graph, limit=64)
    assert found.kind == "estimate"
    assert "parallel tempering, 8 chains" in found.method
    assert found.error.protocol == "largest standard error"
    assert 0.001 < found.error.value < 0.05
    for v, p in truth.items():
        assert (np.abs(found.marginals[v] - p) < 5 * found.stderr[v]).all()
    assert found.log_partition.interval is not None
    again = believe(graph, {}, [0], method="tempered")
    assert "parallel tempering" in again.method


def test_chains_too_short_to_agree_are_told_as_not_to_be_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = glass(8, 3.0, 0)
    walked = gibbs_marginals(graph, {}, [0, 1], chains=8, draws=20, thin=1, tempered=True)
    assert not walked.settled
    monkeypatch.setattr(approximate, "gibbs_marginals", lambda *_, **__: walked)
    told = believe(graph, wanted=[0, 1], method="tempered")
    assert "do NOT agree" in told.error.protocol
    rough = believe(graph, wanted=[0, 1], limit=64)
    assert "belief propagation" in rough.method


def test_where_no_draws_are_to_be_trusted_the_error_is_a_certain_bound_or_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    edges = [(v, v + k) for v in range(20) for k in (1, 5) if v + k < 20]
    factors = [Factor(edge, rng.random((3, 3)) + 0.2) for edge in edges]
    leaning = [Factor((v,), np.array([30.0, 1.0, 1.0])) for v in (6, 12)]
    graph = FactorGraph((3,) * 20, (*factors, *leaning))
    truth = JunctionTree(graph).calibrate().marginals
    frozen = replace(gibbs_marginals(graph, {}, [0], draws=20), r_hat=1.5)
    monkeypatch.setattr(approximate, "gibbs_marginals", lambda *_, **__: frozen)
    monkeypatch.setattr(approximate, "_SMALL_CAP", 8)
    for found in (believe(graph, wanted=[6, 12], limit=64), believe(graph, wanted=[6], method="mean_field")):
        assert (found.error.kind, found.error.protocol) == ("upper bound", "certain bounds by mini-buckets")
        for v, p in found.marginals.items():
            assert (found.low[v] <= truth[v] + 1e-12).all()
            assert (truth[v] <= found.high[v] + 1e-12).all()
            assert (found.low[v] <= p).all()
            assert (p <= found.high[v]).all()
            assert np.abs(p - truth[v]).max() <= found.error.value < 1
            assert found.error.value >= max((found.high[v] - p).max(), (p - found.low[v]).max()) - 1e-12
    monkeypatch.setattr(approximate, "_VISITS", 10)
    unknown = believe(graph, wanted=[6, 12], limit=64)
    assert np.isnan(unknown.error.value)
    assert "ask for fewer" in unknown.error.protocol
    assert unknown.low == {}


def test_what_lies_outside_of_certain_bounds_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = glass(3, 0.5, 1)
    wrong = believe(graph, wanted=[4], method="loopy")
    wrong.marginals[4][:] = [1.0, 0.0]
    found = approximate._bounded(graph, {}, wrong)
    assert "1 of 1 moved between certain bounds" in found.method
    np.testing.assert_allclose(found.marginals[4], JunctionTree(graph).calibrate().marginals[4], atol=1e-9)


def test_each_copy_follows_the_factors_to_its_power() -> None:
    graph, b, n = glass(2, 0.7, 0), (1.0, 0.6, 0.2), 4000
    kernel, generator = TemperedGibbs(graph, b, rounds=30), torch.Generator().manual_seed(0)
    state, _ = kernel.step(kernel.init(kernel.start(n, generator)), generator)
    np.testing.assert_array_equal(state.position, state.state.position[::3])
    for t, power in enumerate(b):
        factors = tuple(Factor(factor.scope, factor.table**power) for factor in graph.factors)
        joint = enumerated(FactorGraph(graph.sizes, factors))[0].onto(range(len(graph.sizes))).table
        share = np.zeros_like(joint)
        np.add.at(share, tuple(state.state.position[t::3].numpy().T), 1 / n)
        assert (np.abs(share - joint) <= 4.5 * np.sqrt(joint * (1 - joint) / n) + 1e-12).all()


def test_weights_of_states_are_those_of_the_graph() -> None:
    for graph in (glass(3, 1.0, 0), random_graph(5, zeros=0)):
        x = Gibbs(graph).start(50, torch.Generator().manual_seed(1))
        powers = torch.linspace(0.1, 1.0, 50, dtype=torch.float64)
        weights = Gibbs(graph).powered(x, powers, torch.Generator().manual_seed(2))
        constant = sum(float(np.log(f.table)) for f in graph.factors if not f.scope)
        np.testing.assert_allclose(weights + constant, graph.log_weight(x.numpy()), atol=1e-10)


def test_temperatures_are_spaced_so_that_neighbours_refuse_as_often() -> None:
    graph, generator = ising((5, 5), 0.8), torch.Generator().manual_seed(0)
    b = spaced(graph, 16, generator)
    assert b[0] == 1
    assert all(high > low > 0 for high, low in pairwise(b))
    kernel = TemperedGibbs(graph, b)
    state, told = kernel.init(kernel.start(64, generator)), []
    for _ in range(200):
        state, _ = kernel.step(state, generator)
        told.append(state.swaps)
    swaps = torch.stack(told[50:]).nanmean(0)
    assert swaps.min() > 0.3
    assert swaps.max() - swaps.min() < 0.15
    refusals = float((1 - swaps).sum())  # that all pairs of neighbours have together
    assert len(b) == pytest.approx(2 * refusals + 1, abs=1.5)
    for wrong in ((1.0,), (0.9, 0.5), (1.0, 0.5, 0.5), (1.0, 0.0)):
        with pytest.raises(OptionError, match="must fall from 1"):
            TemperedGibbs(graph, wrong)


def test_one_variable_whose_chains_disagree_is_enough_to_distrust_all() -> None:
    frozen = glass(4, 3.0, 0)
    free = FactorGraph((*frozen.sizes, 2), (*frozen.factors, Factor((16,), np.array([1.0, 2.0]))))
    walked = gibbs_marginals(free, draws=50)
    assert not walked.settled
    assert gibbs_marginals(free, wanted=[16], draws=50).settled
    assert walked.r_hat >= gibbs_marginals(free, wanted=[0, 16], draws=50).r_hat > 1.01


def test_tempered_chains_warm_up_for_a_quarter_of_their_draws() -> None:
    walk = _Walk(glass(3, 2.0, 0), {}, 10, thin=4, tempered=True)
    first, again = walk._kernels(8, 400, torch.Generator().manual_seed(0))
    assert (first.rounds, again.rounds) == (400, 4)
    short, _ = walk._kernels(8, 5, torch.Generator().manual_seed(0))
    assert short.rounds == 10
