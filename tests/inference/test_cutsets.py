"""The weight of states that agree on a cutset against enumeration: a bound, found where there is one."""

import functools
import itertools
import math

import numpy as np
import pytest

from leadline.core import DataError
from leadline.inference import approximate
from leadline.inference.asking import believe
from leadline.inference.cutsets import weigh_agreeing
from leadline.inference.factors import Factor, FactorGraph, enumerated
from tests.inference.graphs_of import ising, random_graph


def weight(graph: FactorGraph) -> float:
    """Return log Z, minus infinity of an impossible graph."""
    try:
        return enumerated(graph)[1]
    except DataError:
        return -math.inf


def test_it_is_never_above_log_z_and_finite_where_any_state_is_possible() -> None:
    kinds = set()
    for seed in range(120):
        graph = random_graph(seed, zeros=0.5 if seed % 2 else 0.1)
        truth = weight(graph)
        whole = weigh_agreeing(graph)
        assert whole.log_weight == pytest.approx(truth, abs=1e-9)
        assert whole.fixed == 0
        for entries in (1, 10):
            some = weigh_agreeing(graph, entries=entries)
            assert some.log_weight <= truth + 1e-9
            assert (some.log_weight > -math.inf) == (truth > -math.inf)
            assert some.fixed > 0 or some.log_weight == pytest.approx(truth, abs=1e-9)
            kinds.add((some.fixed > 1, truth > -math.inf))
    assert kinds == {(True, True), (False, True), (False, False)}


def test_the_more_is_summed_the_nearer_it_comes() -> None:
    graph = ising((4, 4), 0.6, 0.1)
    truth = weight(graph)
    found = [weigh_agreeing(graph, entries=entries) for entries in (1, 60, 150, 1000)]
    gaps = [truth - one.log_weight for one in found]
    assert all(before > after for before, after in itertools.pairwise(gaps))
    assert [one.fixed for one in found] == sorted((one.fixed for one in found), reverse=True)
    assert gaps[0] < 1.5  # all spins at the likeliest state: 0.78 nats for the other sign, the rest for flips
    assert gaps[-1] == pytest.approx(0, abs=1e-9)


def test_a_state_that_leads_nowhere_is_taken_back() -> None:
    # x0 = 0 is a hundred times likelier, but then x1, x2, x3 must be pairwise different with two states
    differ = np.array([[0.0, 1.0], [1.0, 0.0]])
    factors = [Factor((0,), np.array([100.0, 1.0]))]
    for a, b in ((1, 2), (2, 3), (1, 3)):
        factors.append(Factor((0, a, b), np.stack([differ, np.ones((2, 2))])))
    graph = FactorGraph((2,) * 4, tuple(factors))
    assert weigh_agreeing(graph, entries=1).log_weight == pytest.approx(0)  # one state of weight 1
    assert weigh_agreeing(graph, entries=12).log_weight == pytest.approx(math.log(8))  # all of x0 = 1
    assert (
        weigh_agreeing(FactorGraph((2,) * 4, (*factors, Factor((0,), np.eye(2)[0])))).log_weight == -math.inf
    )


@pytest.mark.parametrize("method", ["mini_bucket", "mean_field", "loopy", "gibbs"])
def test_answers_take_it_as_their_lower_bound_and_say_so(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(approximate, "weigh_agreeing", functools.partial(weigh_agreeing, entries=150))
    monkeypatch.setattr(approximate, "bound_partition", functools.partial(approximate.bound_partition, cap=4))
    monkeypatch.setattr(approximate, "_drawn", lambda *_: None)  # chains, which take long
    graph = ising((4, 4), 0.6, 0.1)
    found = believe(graph, {0: 1}, [5], method=method, limit=8 * 4 if method == "mini_bucket" else None)
    told, truth = found.log_partition, weight(graph.given({0: 1}))
    assert told.interval is not None
    assert truth - 0.7 < told.interval[0] <= truth <= told.interval[1]
    assert "the weight of states that agree on " in told.protocol
