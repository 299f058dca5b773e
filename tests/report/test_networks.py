"""Figures of networks: what the layout promises, and what is written in the figure."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Wedge

import leadline as ll
from leadline.cli import main
from leadline.core import Categories, DataError, OptionError, VerbError
from leadline.data import Dataset, Split
from leadline.models.graphical.bayesian_network import BayesianNetwork
from leadline.models.graphical.markov_random_field import MarkovRandomField
from leadline.reports.boxes import cut
from leadline.reports.drawing import png_bytes, svg
from leadline.reports.factor_graphs import factor_graph
from leadline.reports.layered import layered
from leadline.reports.networks import compared_networks, network
from leadline.reports.of_network import draw, network_block
from leadline.reports.of_run import sections_of
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


def test_only_what_is_certain_is_called_a_hundred_percent_or_none() -> None:
    shares = [(0.9962, 0.0038), (1.0, 0.0), (0.99, 0.01), (0.5, 0.5)]
    shown = set(_texts(network(NAMES, CHAIN, STATES, shares, {1: 0})))
    assert {">99%", "<1%", "100%", "0%", "99%", "1%"} <= shown


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


def test_nothing_of_a_large_factor_graph_lies_on_anything_else() -> None:
    names = [f"x{v}" for v in range(40)]
    scopes = [
        *((v,) for v in range(40)),
        *((v, v + 1) for v in range(24)),
        *((v, v + 1) for v in range(25, 39)),
    ]
    scopes += [(0,), (25,), (4, 3)]  # a second factor over the same variables
    figure = factor_graph(names, scopes, [("no", "yes")] * 40, [(0.25, 0.75)] * 40)
    place = figure.axes[0]
    squares = [line.get_xydata()[0] for line in place.lines if line.get_marker() == "s"]
    rings = {patch.center: patch.r for patch in place.patches if isinstance(patch, Wedge)}
    assert (len(squares), len(rings)) == (len(scopes), 40)
    spots = np.array([*rings, *squares])  # in inches
    apart = np.hypot(*(spots[:, None] - spots[None]).T) + 9 * np.eye(len(spots))
    assert apart.min() > 1.1 * max(rings.values())
    corners = np.array([place.get_xlim(), place.get_ylim()]).T
    assert bool(((spots > corners[0]) & (spots < corners[1])).all())
    assert float(np.ptp(corners, axis=0).prod()) < 2.5 * float(np.ptp(spots, axis=0).prod())


def test_crowded_variables_are_moved_apart_and_their_factors_drawn_small() -> None:
    pairs = list(itertools.combinations(range(14), 2))  # all joined to all, on the end of a chain
    scopes = [*pairs, *((v, v + 1) for v in range(13, 30))]
    figure = factor_graph([f"x{v}" for v in range(31)], scopes)
    rings = {patch.center: patch.r for patch in figure.axes[0].patches if isinstance(patch, Wedge)}
    spots = np.array(list(rings))
    apart = np.hypot(*(spots[:, None] - spots[None]).T) + 9 * np.eye(len(spots))
    assert apart.min() > 2 * max(rings.values())
    sizes = {line.get_markersize() for line in figure.axes[0].lines if line.get_marker() == "s"}
    sparse = factor_graph([f"x{v}" for v in range(31)], scopes[-20:])
    assert max(sizes) < min(
        line.get_markersize() for line in sparse.axes[0].lines if line.get_marker() == "s"
    )


def test_observed_variables_of_a_factor_graph_are_marked() -> None:
    figure = factor_graph(NAMES, [(0, 1), (2, 3)], evidence={2: 1})
    marked = [patch.center for patch in figure.axes[0].patches if isinstance(patch, Circle)]
    rings = [patch.center for patch in figure.axes[0].patches if isinstance(patch, Wedge)]
    assert len(marked) == 1
    assert marked[0] == rings[2]


def _boxes(figure: Figure) -> dict[str, FancyBboxPatch]:
    """Return the box around each name."""
    boxes = [patch for patch in figure.axes[0].patches if isinstance(patch, FancyBboxPatch)]
    found = {}
    for text in figure.axes[0].texts:
        x, y = text.get_position()
        for box in boxes:
            across, up = x - box.get_x(), y - box.get_y()
            if text.get_weight() == "bold" and 0 < across < box.get_width() and 0 < up < box.get_height():
                found[text.get_text()] = box
    return found


def test_a_small_factor_graph_has_marginals_as_bars_and_nothing_on_anything_else() -> None:
    scopes = [*itertools.combinations(range(7), 2), *((v,) for v in range(12)), (7, 8, 9), (9, 10, 11)]
    names = [f"v{v}" for v in range(12)]
    figure = factor_graph(names, scopes, [("no", "yes")] * 12, [(0.25, 0.75)] * 12, {3: 1})
    boxes = _boxes(figure)
    assert set(boxes) == set(names)
    assert _texts(figure).count("75%") == 12
    widths = {name for name, box in boxes.items() if box.get_linewidth() > 1}
    assert widths == {"v3"}
    corners = [
        (b.get_x(), b.get_y(), b.get_x() + b.get_width(), b.get_y() + b.get_height()) for b in boxes.values()
    ]
    squares = [line.get_xydata()[0] for line in figure.axes[0].lines if line.get_marker() == "s"]
    assert len(squares) == len(scopes)
    corners += [(x - 0.07, y - 0.07, x + 0.07, y + 0.07) for x, y in squares]
    for a, b in itertools.combinations(corners, 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
    middles = {(round(a[0] + a[2], 6), round(a[1] + a[3], 6)) for a in corners}
    ways = [line.get_xydata() for line in figure.axes[0].lines if len(line.get_xydata()) == 2]
    assert len(ways) == sum(map(len, scopes))
    assert {tuple(np.round(2 * end, 6)) for way in ways for end in way} == middles
    (left, right), (low, high) = figure.axes[0].get_xlim(), figure.axes[0].get_ylim()
    assert all(left < a[0] and a[2] < right and low < a[1] and a[3] < high for a in corners)


def test_names_of_boxes_fit_and_stay_apart_when_they_are_cut() -> None:
    long = [f"{'serum_' * 9}{v}{'_of_the_third_station' * 3}" for v in range(4)]
    states = [tuple(f"{'between_' * 5}{s}{'_units' * 9}" for s in range(3))] * 4
    figure = network(long, CHAIN, states, [(0.2, 0.3, 0.5)] * 4)
    FigureCanvasAgg(figure).draw()
    boxes = _boxes(figure)
    assert len(boxes) == 4  # no two names look the same
    assert all("…" in name for name in boxes)
    drawn = {text.get_text(): text.get_window_extent() for text in figure.axes[0].texts}
    labels = {text for text in drawn if text.startswith("betw")}
    assert len(labels) == 3
    for name, box in boxes.items():
        assert drawn[name].width < box.get_window_extent().width
    bars = [bar.get_window_extent() for bar in figure.axes[0].collections]
    words = [text.get_window_extent() for text in figure.axes[0].texts]
    assert not any(bar.overlaps(word) for bar in bars for word in words if bar.width > 0)


def test_a_short_name_is_left_as_it_is_and_a_long_one_keeps_both_ends() -> None:
    assert cut("abcdefghij", 10) == "abcdefghij"
    assert cut("abcdefghijk", 10) == "abcde…hijk"


def test_extra_edges_go_round_the_boxes_between_their_ends() -> None:
    given = ((), (0,), (1,), (2,))
    figure = compared_networks(NAMES, (given[0], given[1], given[2], (0, 2)), given)
    extra = [
        p for p in figure.axes[0].patches if isinstance(p, FancyArrowPatch) and p.get_linestyle() == "--"
    ]
    boxes = _boxes(figure)
    assert len(extra) == 1
    way = extra[0].get_path().interpolated(20).vertices
    for name in "bc":
        box = boxes[name]
        inside = (way[:, 0] > box.get_x()) & (way[:, 0] < box.get_x() + box.get_width())
        inside &= (way[:, 1] > box.get_y()) & (way[:, 1] < box.get_y() + box.get_height())
        assert not inside.any()


def long_chain(length: int = 80) -> BayesianNetwork:
    names = tuple(f"x{v}" for v in range(length))
    states = tuple(("low", "high") if v % 3 else ("no", "yes") for v in range(length))
    return BayesianNetwork(
        Categories((2,) * length, names, states),
        tuple((v - 1,) if v else () for v in range(length)),
    )


def test_a_large_network_is_drawn_by_names_alone_and_says_so() -> None:
    figure = draw(long_chain())
    assert "x79" in _texts(figure)
    assert "50%" not in _texts(figure)
    assert figure.axes[0].get_title().startswith("80 variables: marginals are left out")
    assert "50%" in _texts(draw(long_chain(60)))
    assert draw(long_chain(60)).axes[0].get_title() == ""


def test_a_large_factor_graph_is_drawn_without_names_and_says_so() -> None:
    field = MarkovRandomField(Categories((2,) * 310), tuple((v, v + 1) for v in range(309)))
    figure = draw(field)
    assert set(_texts(figure)) <= {""}
    assert figure.axes[0].get_title().startswith("310 variables: names are left out")


def test_the_neighbourhood_of_variables_is_drawn_with_what_is_left_out() -> None:
    figure = draw(long_chain(), evidence={"x39": "yes"}, around=["x40"])
    drawn = {text for text in _texts(figure) if text.startswith("x")}
    assert drawn == {f"x{v}" for v in range(26, 55)}  # 14 steps each way: 29 variables, 31 would be too many
    texts = _texts(figure)
    at = texts.index("x39")
    assert texts[at : at + 8] == ["x39", "no", "0%", "yes", "100%", "x40", "low", "50%"]
    assert (
        figure.axes[0].get_title() == "29 of 80 variables, within 14 steps of x40; 2 edges to others left out"
    )


def test_in_a_neighbourhood_of_factors_the_observed_variable_itself_is_marked() -> None:
    field = MarkovRandomField(Categories((2,) * 80), tuple((v, v + 1) for v in range(79)))
    figure = draw(field, evidence={"x27": 1, "x5": 0}, around=["x40"])  # x26 ... x54, numbered anew
    boxes = _boxes(figure)
    assert set(boxes) == {f"x{v}" for v in range(26, 55)}
    assert [name for name, box in boxes.items() if box.get_linewidth() > 1] == ["x27"]


def test_a_neighbourhood_too_large_for_bars_says_both_what_it_is_and_what_it_lacks() -> None:
    parents = ((), *((0,) for _ in range(69)), (69,))
    hub = BayesianNetwork(Categories((2,) * 71), parents)
    assert draw(hub, around=["x0"]).axes[0].get_title() == (
        "70 of 71 variables, within 1 step of x0; 1 edge to others left out; marginals are left out"
    )


def test_parents_of_a_child_are_neighbours_and_a_hub_is_drawn_whole() -> None:
    parents = ((), (), (0, 1), *((0,) for _ in range(40)))
    names = tuple(f"v{v}" for v in range(43))
    hub = BayesianNetwork(Categories((2,) * 43, names, STATES[:1] * 43), parents)
    assert "1 step of v0; 0 edges to others left out" in draw(hub, around=["v0"]).axes[0].get_title()
    part = draw(hub, around=["v1"])
    assert part.axes[0].get_title() == "3 of 43 variables, within 1 step of v1; 40 edges to others left out"
    assert {"v0", "v1", "v2"} <= set(_texts(part))
    assert _count(part, FancyArrowPatch) == 2
    field = MarkovRandomField(Categories((2,) * 9), tuple((v, v + 1) for v in range(8)))
    assert draw(field, around=["x4"]).axes[0].get_title().startswith("9 of 9 variables, within 4 steps of x4")


def garden(parents: tuple[tuple[int, ...], ...] = CHAIN) -> BayesianNetwork:
    torch.manual_seed(0)
    domain = Categories((2,) * 4, NAMES, STATES)
    model = BayesianNetwork(domain, parents)
    model._shuffle()
    return model


def test_a_model_is_drawn_with_its_marginals_given_evidence() -> None:
    model = garden()
    figure = draw(model, evidence={"a": "yes"})
    assert {*NAMES, "100%"} <= set(_texts(figure))
    assert model.diagram({"a": "yes"}).observed == {0: 1}
    field = MarkovRandomField(Categories((2, 2)), ((0,), (0, 1)))
    assert draw(field).axes[0].lines
    block = network_block(model)
    assert "exact" in block.caption


def test_a_learned_network_is_drawn_over_the_given_one_by_name() -> None:
    given = garden()
    turned = BayesianNetwork(Categories((2,) * 4, NAMES[::-1]), ((1, 3), (2,), (3,), ()))  # the same, d first
    figure = draw(turned, against=given)
    legend = figure.axes[0].get_legend()
    assert legend is not None
    assert legend.get_texts()[0].get_text() == "found (4)"
    assert figure.axes[0].get_title().startswith("0 pairs")
    assert "BIC" not in figure.axes[0].get_title()


def test_a_learned_graph_has_its_score_beside_that_of_the_given_one() -> None:
    names = ("c", "b", "a")  # the columns of the data stand in another order than the given network's
    x = torch.tensor([[0, 0, 0], [0, 0, 0], [0, 1, 1], [1, 0, 1]])
    domain = Categories((2,) * 3, names, (("no", "yes"),) * 3)
    data = Dataset("rows", domain, None, Split(x), Split(x[:1]), Split(x[:1]))
    given = BayesianNetwork(Categories((2,) * 3, ("a", "b", "c"), domain.values), ((), (0,), ()))
    figure = draw(BayesianNetwork(domain), against=given, data=data)
    # c and b are 3:1, a is 2:2; given a, b is 2:0 and 1:1; half of log 4 a parameter
    uneven, even = 3 * math.log(3 / 4) + math.log(1 / 4), 4 * math.log(1 / 2)
    alone = 2 * uneven + even - 1.5 * math.log(4)
    joined = uneven + even + 2 * math.log(1 / 2) - 2 * math.log(4)
    assert figure.axes[0].get_title().splitlines()[1] == (
        f"BIC on 4 training rows: learned {alone:.1f}, given {joined:.1f} nats"
    )
    other = Dataset("else", Categories((2,) * 3), None, Split(x), Split(x[:1]), Split(x[:1]))
    assert "BIC" not in draw(given, against=given, data=other).axes[0].get_title()


def test_a_variable_that_nothing_joins_is_said_to_stand_alone() -> None:
    lone = BayesianNetwork(Categories((2,) * 3), ((), (0,), ()))
    assert draw(lone, around=["x2"]).axes[0].get_title() == "x2, of 3 variables: no edge joins it to others"


def test_what_cannot_be_drawn_gets_one_line() -> None:
    model = garden()
    with pytest.raises(VerbError, match="no graph"):
        draw(torch.nn.Linear(1, 1))
    with pytest.raises(OptionError, match="two directed"):
        draw(model, against=MarkovRandomField(Categories((2, 2)), ((0, 1),)))
    with pytest.raises(OptionError, match="different variables"):
        draw(model, against=BayesianNetwork(Categories((2, 2)), ((), (0,))))
    with pytest.raises(OptionError, match=r'unknown variable aa \(did you mean "a"'):
        draw(model, around=["aa"])
    with pytest.raises(OptionError, match="must be a list of names"):
        draw(model, around="a")
    with pytest.raises(OptionError, match="of one network"):
        draw(model, against=model, around=["a"])
    with pytest.raises(OptionError, match="fit a page"):
        network_block(BayesianNetwork(Categories((2,) * 61)))


def test_the_command_draws_files_and_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = garden()
    model.write(tmp_path / "garden.bif")
    given, out = str(tmp_path / "garden.bif"), tmp_path / "out.svg"
    assert main(["draw", given, "--evidence", "a=yes", "--out", str(out)]) == 0
    assert b"<svg" in out.read_bytes()
    assert main(["draw", given, "--around", "a, b", "--out", str(out)]) == 0
    assert b"within 1 step of a, b" in out.read_bytes()
    assert main(["draw", given, "--against", given, "--out", str(tmp_path / "d.png")]) == 0
    assert (tmp_path / "d.png").read_bytes().startswith(b"\x89PNG")
    assert main(["draw", given, "--out", str(tmp_path / "d.gif")]) == 2
    assert main(["draw", given, "--evidence", "a=maybe"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert any("must end in .png, .svg" in line for line in lines)
    assert any("no state maybe" in line for line in lines)


def test_the_graph_of_a_run_stands_before_its_samples_and_figures() -> None:
    model = garden()
    x = model.sample(60, torch.Generator().manual_seed(0))
    data = Dataset("garden", model.domain, None, Split(x), Split(x), Split(x))
    run = ll.fit(ll.build("bayesian_network", data, structure="tree"), data, out=False, progress=False)
    titles = [section.title for section in sections_of(run, data)]
    assert titles.index("graph") < min(titles.index("What it measures"), titles.index("sample"))
