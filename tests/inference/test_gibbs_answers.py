"""Marginals from Gibbs chains: errors that hold, zeros that are summed out or refused."""

import numpy as np
import pytest
import torch

from leadline.core import DataError
from leadline.inference.factors import Factor, FactorGraph, enumerated
from leadline.inference.gibbs_answers import IslandsError, gibbs_draws, gibbs_marginals
from leadline.inference.junction_tree import JunctionTree
from tests.inference.graphs_of import ising, random_evidence, random_graph

CONE = np.ones((3, 3)) - np.eye(3)


def test_marginals_miss_the_truth_by_no_more_than_their_error_says_even_with_zeros() -> None:
    z, collapsed = [], 0
    for seed in range(24):
        graph = random_graph(seed, directed=seed % 2 == 1, zeros=0.3)
        evidence = random_evidence(graph, seed)
        try:
            truth = JunctionTree(graph).calibrate(evidence).marginals
        except DataError:
            continue
        collapsed += any((factor.table == 0).any() for factor in graph.factors)
        found = gibbs_marginals(graph, evidence, draws=100, seed=seed)
        assert found.settled
        for v, p in truth.items():
            gap, error = np.abs(found.marginals[v] - p), found.stderr[v]
            assert (gap[error == 0] < 1e-12).all()
            z += (gap[error > 0] / error[error > 0]).tolist()
    assert collapsed >= 4
    assert max(z) < 5
    assert 0.4 < float(np.mean(np.square(z))) < 1.6


def test_errors_and_r_hat_are_those_of_the_chains_draws() -> None:
    # one variable: draws are independent, so the effective sample size is near their number
    found = gibbs_marginals(FactorGraph((2,), (Factor((0,), np.array([1.0, 3.0])),)), chains=20, draws=200)
    assert found.stderr[0][1] == pytest.approx(np.sqrt(0.75 * 0.25 / 4000), rel=0.1)
    # two that hardly ever change together: few effective draws
    sticky = FactorGraph((2, 2), (Factor((0, 1), np.array([[1.0, 0.02], [0.02, 1.0]])),))
    slow = gibbs_marginals(sticky, chains=20, draws=200)
    assert slow.effective < 600
    assert slow.stderr[0][0] == pytest.approx(np.sqrt(0.25 / slow.effective), rel=0.2)


def test_chains_that_freeze_are_told_by_r_hat() -> None:
    found = gibbs_marginals(ising((5, 5), 1.2), chains=20, draws=50)
    assert not found.settled
    assert found.r_hat > 1.5


def test_zeros_that_cut_states_into_islands_are_summed_out_or_refused() -> None:
    same = FactorGraph((3, 3), (Factor((0, 1), np.eye(3)), Factor((1,), np.array([0.2, 0.3, 0.5]))))
    found = gibbs_marginals(same, draws=200)
    np.testing.assert_allclose(found.marginals[0], [0.2, 0.3, 0.5], atol=4 * found.stderr[0].max())
    np.testing.assert_array_equal(found.marginals[0], found.marginals[1])  # drawn back from its neighbour
    rng = np.random.default_rng(0)
    joined = [Factor((a, b), CONE) for a in range(14) for b in range(a)]
    tangle = FactorGraph((20,) * 14, tuple(_padded(factor, rng) for factor in joined))
    with pytest.raises(IslandsError, match="Gibbs chains could be cut off") as caught:
        gibbs_marginals(tangle)
    assert "\n" not in str(caught.value)


def _padded(factor: Factor, rng: np.random.Generator) -> Factor:
    table = rng.random((20, 20))
    table[:3, :3] *= factor.table
    return Factor(factor.scope, table)


def test_a_zero_that_forbids_a_state_by_itself_needs_no_summing() -> None:
    table = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 2.0]])  # all combinations of (1) and (0, 2)
    found = gibbs_marginals(FactorGraph((2, 3), (Factor((0, 1), table),)), draws=100)
    assert found.marginals[0].tolist() == [0, 1]
    assert found.marginals[1][1] == 0
    assert found.stderr[1][1] == 0


def test_ends_of_chains_follow_the_joint_distribution_given_evidence() -> None:
    graph = random_graph(9, directed=True)
    evidence = {0: 0}
    n = 6000
    x = gibbs_draws(graph, n, evidence, torch.Generator().manual_seed(3), burn_in=30).numpy()
    assert (x[:, 0] == 0).all()
    joint = enumerated(graph.given(evidence))[0].table
    counts = np.zeros(joint.shape)
    np.add.at(counts, tuple(x.T), 1)
    assert (np.abs(counts / n - joint) <= 4.5 * np.sqrt(joint * (1 - joint) / n) + 1e-12).all()


def test_draws_repeat_under_one_seed() -> None:
    graph = ising((3, 3), 0.3)
    one, same, other = (gibbs_marginals(graph, seed=seed, draws=20).marginals[4] for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
