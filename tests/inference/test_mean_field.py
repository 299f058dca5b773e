"""The Gibbs variational principle, and mean field that climbs its bound."""

import numpy as np
import pytest

from leadline.core import DataError
from leadline.inference.factors import Factor, FactorGraph, enumerated
from leadline.inference.mean_field import elbo, entropy, expected_log, mean_field, variational_bound
from tests.inference.graphs_of import ising, random_evidence, random_graph


def some_distribution(sizes: tuple[int, ...], seed: int) -> Factor:
    return Factor(tuple(range(len(sizes))), np.random.default_rng(seed).random(sizes)).normalised()


def test_expected_energy_and_entropy_fall_short_of_log_z_by_the_divergence_exactly() -> None:
    for seed in range(20):
        graph = random_graph(seed, zeros=0.0)
        p, log_partition = enumerated(graph)
        q = some_distribution(graph.sizes, seed)
        divergence = float((q.table * np.log(q.table / p.table)).sum())
        bound = variational_bound(graph, q)
        assert bound == pytest.approx(expected_log(graph, q) + entropy(q.table), abs=1e-12)
        assert bound + divergence == pytest.approx(log_partition, abs=1e-12)
        assert variational_bound(graph, p) == pytest.approx(log_partition, abs=1e-12)


def test_the_bound_of_independent_variables_is_that_of_their_joint() -> None:
    graph = random_graph(3, zeros=0.0)
    rng = np.random.default_rng(0)
    marginals = [p / p.sum() for p in (rng.random(size) for size in graph.sizes)]
    table = np.ones(())
    for p in marginals:
        table = table[..., None] * p
    assert elbo(graph, marginals) == pytest.approx(
        variational_bound(graph, Factor(tuple(range(len(graph.sizes))), table)), abs=1e-12
    )


def test_a_bound_of_what_is_no_distribution_over_the_variables_is_refused() -> None:
    graph = random_graph(3, zeros=0.0)
    q = some_distribution(graph.sizes, 0)
    marginals = [np.full(size, 1 / size) for size in graph.sizes]
    negative = q.table.copy()
    negative.flat[0], negative.flat[1] = -0.1, negative.flat[0] + negative.flat[1] + 0.1  # sums to one
    for table in (2 * q.table, negative):
        with pytest.raises(DataError, match="q is no distribution"):
            variational_bound(graph, Factor(q.scope, table))
    with pytest.raises(DataError, match="the graph is over"):
        variational_bound(graph, Factor(q.scope[:-1], q.table.sum(-1)))
    with pytest.raises(DataError, match="the marginal of variable 1 is no distribution"):
        elbo(graph, [marginals[0], 2 * marginals[1], *marginals[2:]])
    with pytest.raises(DataError, match="the graph is over"):
        elbo(graph, marginals[:-1])


def test_mean_field_climbs_to_a_bound_below_log_z_and_its_gap_is_the_divergence() -> None:
    for seed in range(15):
        graph = random_graph(seed, zeros=0.0)
        evidence = random_evidence(graph, seed)
        p, log_partition = enumerated(graph.given(evidence))
        found = mean_field(graph, evidence)
        assert (np.diff(found.bounds) >= -1e-10).all()
        assert found.bound <= log_partition + 1e-10
        left = [m[[evidence[v]]] if v in evidence else m for v, m in enumerate(found.marginals)]
        assert found.bound == pytest.approx(elbo(graph.given(evidence), left), abs=1e-10)
        q = np.ones(())
        for m in left:
            q = q[..., None] * m
        with np.errstate(divide="ignore", invalid="ignore"):
            divergence = float(np.where(q > 0, q * np.log(q / p.table), 0.0).sum())
        assert log_partition - found.bound == pytest.approx(divergence, abs=1e-10)


def test_blocks_that_are_chains_tighten_the_bound_and_one_block_of_all_closes_it() -> None:
    graph = ising((3, 3), 0.5, 0.2)
    log_partition = enumerated(graph)[1]
    naive = mean_field(graph)
    rows = mean_field(graph, blocks=[(0, 1, 2), (3, 4, 5), (6, 7, 8)])
    whole = mean_field(graph, blocks=[range(9)])
    assert naive.bound < rows.bound - 1e-3
    assert rows.bound < log_partition - 1e-4
    assert (np.diff(rows.bounds) >= -1e-10).all()
    assert whole.bound == pytest.approx(log_partition, abs=1e-9)


def test_the_bound_of_blocks_is_that_of_the_product_of_their_joints() -> None:
    rng = np.random.default_rng(1)
    scopes = [(0, 1, 4), (1, 2), (2, 3, 0), (3, 4)]
    sizes = (2, 3, 2, 2, 3)
    graph = FactorGraph(sizes, tuple(Factor(s, rng.random(tuple(sizes[v] for v in s))) for s in scopes))
    found = mean_field(graph, blocks=[(2, 0, 1), (4, 3)])
    assert found.joints[0] is not None
    assert found.joints[1] is not None
    q = found.joints[0].product(found.joints[1]).onto(range(5))
    assert found.bound == pytest.approx(variational_bound(graph, q), abs=1e-9)
    assert found.bound < enumerated(graph)[1]


def test_a_start_on_forbidden_states_finds_a_way_out() -> None:
    table = np.array([[0.0, 1.0], [1.0, 0.0]])
    graph = FactorGraph((2, 2), (Factor((0, 1), table), Factor((0,), np.array([0.3, 0.7]))))
    found = mean_field(graph)
    assert found.bound == pytest.approx(np.log(0.7), abs=1e-9)  # one of the two states: x = (1, 0)
    assert found.bound <= enumerated(graph)[1]


def test_blocks_that_overlap_are_refused() -> None:
    with pytest.raises(DataError, match="at most once"):
        mean_field(ising((2, 2), 0.1), blocks=[(0, 1), (1, 2)])
