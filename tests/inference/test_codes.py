"""Codes whose parity checks rule out much together and little alone: exact where no bound promised it."""

import itertools
import math

import numpy as np
import pytest

from leadline.core import ResourceError
from leadline.inference import sparse_tree
from leadline.inference.asking import believe, likeliest
from leadline.inference.budget import Budget
from leadline.inference.factors import Factor, FactorGraph, Floats, Ints
from leadline.inference.sparse_loops import probe
from leadline.inference.sparse_tree import SparseTree

BITS, CHECKS, WEIGHT = 40, 30, 6
LIMIT = 2e7  # whole tables take 0.8 GB, the bound of possible states 220 MB


def checks(bits: int = BITS, count: int = CHECKS, weight: int = WEIGHT) -> Ints:
    """Return the parity checks of a random code (checks, bits)."""
    rng, rows = np.random.default_rng(0), np.zeros((count, bits), dtype=np.int64)
    for row in rows:
        row[rng.choice(bits, weight, replace=False)] = 1
    return rows


def codewords(rows: Ints) -> Ints:
    """Return all words that pass all checks, by elimination over GF(2)."""
    left, pivots = rows.copy(), list[int]()
    for bit in range(left.shape[1]):
        held = [i for i in range(len(pivots), len(left)) if left[i, bit]]
        if held:
            left[[len(pivots), held[0]]] = left[[held[0], len(pivots)]]
            for i in np.flatnonzero(left[:, bit]):
                if i != len(pivots):
                    left[i] ^= left[len(pivots)]
            pivots.append(bit)
    free = [bit for bit in range(left.shape[1]) if bit not in pivots]
    words = np.zeros((1 << len(free), left.shape[1]), dtype=np.int64)
    words[:, free] = np.arange(len(words))[:, None] >> np.arange(len(free)) & 1
    words[:, pivots] = words[:, free] @ left[: len(pivots)][:, free].T % 2
    assert not (words @ rows.T % 2).any()
    return words


def graph_of(rows: Ints) -> FactorGraph:
    """Return the graph over whose possible states, the codewords, every weight is one."""
    scopes = [tuple(int(v) for v in np.flatnonzero(row)) for row in rows]
    even = [(np.indices((2,) * len(scope)).sum(0) % 2 == 0).astype(float) for scope in scopes]
    return FactorGraph((2,) * rows.shape[1], tuple(map(Factor, scopes, even)))


def received(rows: Ints) -> tuple[FactorGraph, Floats]:
    """Return the graph of a word sent over a noisy channel, and how likely each bit makes what came."""
    likely = np.random.default_rng(1).random((rows.shape[1], 2)) + 0.05
    graph = graph_of(rows)
    return FactorGraph(
        graph.sizes, (*graph.factors, *(Factor((v,), p) for v, p in enumerate(likely)))
    ), likely


def test_a_code_has_two_to_the_bits_less_the_rank_words() -> None:
    rows = checks()
    found = believe(graph_of(rows), wanted=[0], limit=LIMIT)
    assert (found.kind, found.method) == ("exact", "junction tree of possible states")
    assert found.log_partition.value == pytest.approx(math.log(len(codewords(rows))), abs=1e-10)


def test_what_no_bound_promised_is_decoded_exactly() -> None:
    rows, heard = checks(), list[str]()
    graph, likely = received(rows)
    words = codewords(rows)
    weights = likely[np.arange(BITS), words].prod(1)  # (words,)
    found = believe(graph, limit=LIMIT, tell=heard.append)
    assert "trying without impossible states, up to 20 MB" in heard[0]
    assert found.log_partition.value == pytest.approx(math.log(weights.sum()), abs=1e-10)
    for v, p in found.marginals.items():
        np.testing.assert_allclose(p, np.bincount(words[:, v], weights, 2) / weights.sum(), atol=1e-12)
    best = likeliest(graph, limit=LIMIT)
    assert best.log_weight == pytest.approx(math.log(weights.max()), abs=1e-10)
    np.testing.assert_array_equal(best.x, words[weights.argmax()])


def test_draws_are_codewords_as_frequent_as_their_weights() -> None:
    n, rows = 4000, checks(20, 14, 5)
    graph, likely = received(rows)
    words = codewords(rows)
    p = likely[np.arange(20), words].prod(1)
    p /= p.sum()
    tree = SparseTree(graph, budget=Budget(states=0))
    assert not tree.certain
    x = tree.sample(np.random.default_rng(0).random((n, len(tree.cliques.own))))
    number = {tuple(word): i for i, word in enumerate(words)}
    share = np.bincount([number[tuple(row)] for row in x], minlength=len(words)) / n
    assert (np.abs(share - p) <= 5 * np.sqrt(p * (1 - p) / n)).all()


@pytest.mark.parametrize(("pause", "some"), [(1, 1), (3, 7), (1 << 20, 4096)])
def test_pauses_and_growth_change_nothing(monkeypatch: pytest.MonkeyPatch, pause: int, some: int) -> None:
    monkeypatch.setattr(sparse_tree, "_PAUSE", pause)
    monkeypatch.setattr(sparse_tree, "_SOME", some)
    graph, _ = received(checks(16, 10, 4))
    sure, grown = SparseTree(graph), SparseTree(graph, budget=Budget(states=0))
    assert (sure.certain, grown.certain) == (True, False)
    for tree in (sure, grown):
        tree.calibrate()
    assert sure._made == grown._made
    assert grown.log_partition() == sure.log_partition()
    for v, p in sure.calibrate().marginals.items():
        np.testing.assert_array_equal(grown.calibrate().marginals[v], p)
    np.testing.assert_array_equal(sure.maximise()[0], grown.maximise()[0])


def test_nothing_is_allocated_beyond_the_limit_and_what_it_sufficed_for_is_told() -> None:
    graph = graph_of(checks())
    for limit in (3e3, 1e5, 2e6):
        tree = SparseTree(graph, budget=Budget(limit, states=0))
        fixed = tree._slots.nbytes + 2 * tree._values.nbytes
        with pytest.raises(
            ResourceError, match=r"more than the limit of .* at message .* use another method"
        ):
            tree.log_partition()
        grown = tree._slots.nbytes + 2 * tree._values.nbytes - fixed  # a mass beside each value
        assert 0.8 * limit - 300 < grown <= limit
    with pytest.raises(ResourceError, match=r"0.\d+ GB|\d+ MB for tables .* at message \d+ of"):
        believe(graph, method="exact", limit=2e6)
    rough = believe(graph, limit=2e6)
    assert rough.kind == "estimate"
    assert "without impossible states" in rough.needs


def test_a_walk_ends_where_its_states_are_spent() -> None:
    graph = graph_of(checks())
    tree = SparseTree(graph, budget=Budget(states=0, unsure=1e4))
    with pytest.raises(ResourceError, match="a walk through more states than allowed, at message"):
        tree.log_partition()


def test_guesses_of_a_walk_are_right_on_average() -> None:
    tree = SparseTree(graph_of(checks(20, 14, 5)), budget=Budget(states=0))
    tree.log_partition()
    n, c = 20_000, int(np.argmax([len(levels) for levels in tree._levels]))
    before = tree._left
    tree._sent(c, len(tree._slots), maxima=False)
    uniforms = np.random.default_rng(0).random((n, len(tree._levels[c])))
    found = probe(tree._walks, c, tree._slots, tree._values, uniforms)
    error = found.std(0) / math.sqrt(n)
    assert abs(found[:, 0].mean() - (before - tree._left)) < 5 * error[0]
    assert found[:, 1].mean() <= tree._made[c] + 5 * error[1]


def test_what_is_hopeless_is_given_up_before_it_is_walked_through() -> None:
    differ = 1 - np.eye(20)  # 20! / 4! + 20! / 5! + ... + 20 beginnings: 1.26e17
    pairs = itertools.combinations(range(16), 2)
    graph = FactorGraph((20,) * 16, tuple(Factor(pair, differ) for pair in pairs))
    tree = SparseTree(graph, budget=Budget(1e6, 2e9, 2e8, probed=True))
    with pytest.raises(
        ResourceError, match=r"by a guess .* and a walk through 1.3e\+17 states, at message 1 of"
    ):
        tree.log_partition()
    assert tree._left == 2e8
