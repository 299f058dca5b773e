"""Factors against enumeration."""

import math

import numpy as np
import pytest

from leadline.core import DataError, ResourceError
from leadline.inference.factors import Factor, FactorGraph, enumerated, multiplied


def random_factor(scope: tuple[int, ...], sizes: tuple[int, ...], seed: int) -> Factor:
    return Factor(scope, np.random.default_rng(seed).random(tuple(sizes[v] for v in scope)))


SIZES = (2, 3, 4, 2)
A, B, C = (random_factor(scope, SIZES, seed) for seed, scope in enumerate([(2, 0), (1, 2), (3, 1, 0)]))


def test_a_product_multiplies_entry_by_entry_whatever_the_order_of_the_scopes() -> None:
    product = A.product(C)
    assert product.scope == (2, 0, 3, 1)
    for two, zero, three, one in np.ndindex(product.table.shape):
        assert product.table[two, zero, three, one] == A.table[two, zero] * C.table[three, one, zero]


def test_summing_out_and_maximising_out_reduce_the_named_axes_only() -> None:
    assert C.summed([1]).scope == C.maximised([1]).scope == (3, 0)
    np.testing.assert_array_equal(C.summed([1]).table, C.table.sum(1))
    np.testing.assert_array_equal(C.maximised([1, 0]).table, C.table.max((1, 2)))
    np.testing.assert_allclose(C.onto([0, 3]).table, C.table.sum(1).T)


def test_a_slice_keeps_the_observed_states_and_forgets_the_child_only_when_observed() -> None:
    conditional = Factor(C.scope, C.table / C.table.sum(1, keepdims=True), child=1)
    np.testing.assert_array_equal(conditional.given({3: 1, 0: 0}).table, conditional.table[1, :, 0])
    assert conditional.given({3: 1}).child == 1
    assert conditional.given({1: 2}).child is None
    assert conditional.given({2: 1}) is conditional


def test_a_quotient_undoes_a_product_and_nothing_over_nothing_is_nothing() -> None:
    np.testing.assert_allclose(A.product(B).quotient(B).table, np.broadcast_to(A.table[..., None], (4, 2, 3)))
    hole = Factor((0,), np.array([0.0, 2.0]))
    assert A.product(hole).quotient(hole).table[:, 0].tolist() == [0, 0, 0, 0]


def test_enumeration_agrees_with_the_product_of_all_factors_and_with_the_log_weight_of_rows() -> None:
    graph = FactorGraph(SIZES, (A, B, C))
    joint, log_partition = enumerated(graph)
    product = multiplied(graph.factors)
    np.testing.assert_allclose(log_partition, np.log(product.table.sum()))
    np.testing.assert_allclose(joint.table, product.normalised().onto([0, 1, 2, 3]).table)
    x = np.array([[1, 2, 3, 0], [0, 0, 0, 1]])
    np.testing.assert_allclose(graph.log_weight(x) - log_partition, np.log(joint.table[tuple(x.T)]))


def test_evidence_leaves_the_weights_of_the_states_that_agree_with_it() -> None:
    graph = FactorGraph(SIZES, (A, B, C))
    joint, log_partition = enumerated(graph)
    below, log_evidence = enumerated(graph.given({1: 2}))
    np.testing.assert_allclose(math.exp(log_evidence - log_partition), joint.table[:, 2].sum())
    np.testing.assert_allclose(below.table[:, 0], joint.table[:, 2] / joint.table[:, 2].sum())


def test_neighbours_share_a_factor() -> None:
    graph = FactorGraph(SIZES, (A, B))
    assert graph.neighbours == ({2}, {2}, {0, 1}, set())
    assert graph.factors_of == ((0,), (1,), (0, 1), ())


@pytest.mark.parametrize(
    ("scope", "table", "message"),
    [
        ((0, 0), np.ones((2, 2)), "once each"),
        ((5,), np.ones(2), "once each"),
        ((0,), np.ones(3), "shape"),
        ((0,), np.array([1.0, -1.0]), "negative"),
        ((0,), np.array([1.0, np.nan]), "negative or not finite"),
        ((0,), np.array([1.0, np.inf]), "not finite"),
    ],
)
def test_a_factor_that_does_not_fit_is_named(scope: tuple[int, ...], table: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        FactorGraph((2, 3), (Factor(scope, table),))


def test_evidence_that_does_not_exist_is_refused() -> None:
    graph = FactorGraph(SIZES, (A,))
    for evidence in ({9: 0}, {0: 2}, {0: -1}):
        with pytest.raises(DataError, match="evidence"):
            graph.given(evidence)


def test_what_cannot_be_listed_is_refused_and_so_is_a_graph_without_any_weight() -> None:
    with pytest.raises(ResourceError, match="too many"):
        enumerated(FactorGraph((2,) * 40, ()))
    with pytest.raises(DataError, match="weight zero"):
        enumerated(FactorGraph((2,), (Factor((0,), np.zeros(2)),)))
