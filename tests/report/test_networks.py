"""Figures of networks: what the layout promises, and what is written in the figure."""

import itertools

import pytest
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from leadline.core import DataError
from leadline.reports.drawing import png_bytes, svg
from leadline.reports.layered import layered
from leadline.reports.networks import compared_networks, factor_graph, network
from tests.inference.test_graphs import random_dag

CHAIN = ((), (0,), (1,), (0, 2))
NAMES = ("a", "b", "c", "d")
STATES = (("no", "yes"),) * 4


@pytest.mark.parametrize("seed", range(6))
def test_edges_point_down_and_boxes_of_a_layer_do_not_overlap(seed: int) -> None:
    parents = random_dag(12, seed)
    found = layered(parents)
    for child, above in enumerate(parents):
        for parent in above:
            ys = [y for _, y in found.routes[parent, child]]
            assert ys == sorted(set(ys))
            assert found.routes[parent, child][0] == found.places[parent]
            assert found.routes[parent, child][-1] == found.places[child]
    for (x0, y0), (x1, y1) in itertools.combinations(found.places, 2):
        assert y0 != y1 or abs(x0 - x1) >= 1 - 1e-9
    assert max(x for x, _ in found.places) <= found.width
    assert max(y for _, y in found.places) < found.height


def test_bends_keep_off_the_boxes_they_pass() -> None:
    found = layered(CHAIN)
    bends = found.routes[0, 3][1:-1]
    assert len(bends) == 2
    for (x, y), v in zip(bends, (1, 2), strict=True):
        assert y == found.places[v][1]
        assert abs(x - found.places[v][0]) >= 0.5


def test_a_cycle_is_refused() -> None:
    with pytest.raises(DataError, match="cycle"):
        layered([(1,), (0,)])


def _texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def _count(figure: Figure, kind: type) -> int:
    return sum(isinstance(patch, kind) for patch in figure.axes[0].patches)


def test_a_network_shows_every_name_edge_and_share() -> None:
    marginals = [(0.25, 0.75), (1.0, 0.0), (0.5, 0.5), (0.9, 0.1)]
    figure = network(NAMES, CHAIN, STATES, marginals, {1: 0})
    assert set(NAMES) <= set(_texts(figure))
    assert {"25%", "75%", "100%", "0%", "90%"} <= set(_texts(figure))
    assert _count(figure, FancyBboxPatch) == 4
    assert _count(figure, FancyArrowPatch) == 4
    assert png_bytes(figure).startswith(b"\x89PNG")
    assert "<svg" in svg(network(NAMES, CHAIN, STATES), "a network")


def test_of_many_states_the_likeliest_are_shown_and_the_rest_summed() -> None:
    shares = [0.01] * 50 + [0.5]
    figure = network(["many"], [()], [[f"s{i}" for i in range(51)]], [shares])
    assert {"s50", "47 others", "47%", "50%"} <= set(_texts(figure))


def test_compared_networks_count_what_was_found_turned_missed_and_extra() -> None:
    learned = ((1,), (), (1,), (0, 1))  # 0-1 turned, 1->2 and 0->3 found, 2->3 missed, 1->3 extra
    figure = compared_networks(NAMES, learned, CHAIN)
    legend = figure.axes[0].get_legend()
    assert legend is not None
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == ["found (2)", "turned (1)", "missed (1)", "extra (1)"]


def test_a_factor_graph_shows_variables_and_factors_of_separate_parts() -> None:
    figure = factor_graph(NAMES, [(0,), (0, 1), (2, 3)], STATES, [(0.5, 0.5)] * 4)
    assert set(NAMES) <= set(_texts(figure))
    assert sum(line.get_marker() == "s" for line in figure.axes[0].lines) == 3
