"""Kinds of stationary points: the table that must pass, scales, rounding, nets, wrong input."""

import json
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import leadline as ll
from leadline.core import DivergenceError, OptionError, VerbError
from leadline.measures.stationary import _evidence, nature_of
from leadline.measures.surface import function_surface
from leadline.studies import stationary_point
from tests.tiny import tiny


def kind(function: Callable[[Tensor], Tensor], *at: float, reach: float = 0.01) -> str:
    return nature_of(function_surface(function, torch.tensor(at).double()), reach=reach).kind


@pytest.mark.parametrize(
    ("name", "expected", "holds"),
    [
        ("bowl", "minimum", True),
        ("saddle", "saddle", False),
        ("flat_saddle", "saddle", False),
        ("flat_bowl", "minimum not refuted", None),
        ("monkey_saddle", "saddle", False),
        ("peano", "saddle", False),
        ("hill", "maximum", False),
        ("constant", "undecided", None),
        ("rosenbrock", "minimum", True),
        ("beale", "minimum", True),
        ("himmelblau", "minimum", True),
    ],
)
def test_the_kind_of_a_known_point_is_known(name: str, expected: str, holds: bool | None) -> None:
    found = stationary_point(function=name)
    assert found.details["kind"] == expected
    assert found.holds is holds
    json.dumps(found.to_json(), allow_nan=False)


@pytest.mark.parametrize("name", ["flat_saddle", "peano", "monkey_saddle"])
def test_a_witness_is_lower_and_another_is_higher_at_every_radius(name: str) -> None:
    nature = stationary_point(function=name).details["nature"]
    assert nature.low is not None
    assert nature.high is not None
    value = ll.studies.functions.FUNCTIONS[name].value
    here = float(value(torch.zeros(2).double()))
    assert float(value(nature.low)) < here < float(value(nature.high))
    assert float(nature.low.norm()) == pytest.approx(nature.radii[0])
    assert all(low < 0 < high for low, high in zip(nature.lowest, nature.highest, strict=True))
    assert nature.radii[-1] < nature.radii[0] / 50


def test_no_straight_line_shows_that_peanos_surface_has_no_minimum() -> None:
    value = ll.studies.functions.FUNCTIONS["peano"].value
    for angle in torch.linspace(0.01, math.pi, 50).tolist():
        way = torch.tensor([math.cos(angle), math.sin(angle)]).double()
        small = 0.1 * abs(math.sin(angle)) + 1e-9
        assert float(value(1e-2 * small * way)) > 0


@pytest.mark.parametrize("offset", [0.0, 1.0, 1e6])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_kind_depends_neither_on_the_unit_nor_on_an_offset_above_rounding(
    offset: float, scale: float
) -> None:
    assert kind(lambda p: offset + scale * (p @ p), 0, 0) == "minimum"
    assert kind(lambda p: offset + scale * (p[0] ** 2 - p[1] ** 2), 0, 0) == "saddle"


def test_what_rounding_hides_is_undecided_and_what_derivatives_show_is_not() -> None:
    assert kind(lambda p: 1e8 + (p**4).sum(), 0, 0) == "undecided"
    assert kind(lambda p: 1 + 1e-10 * (p @ p), 0, 0) == "minimum"
    assert kind(lambda p: 1 + p[1] ** 4 - p[0] ** 4, 0, 0) == "saddle"
    assert kind(lambda p: 1 + (p[1] - p[0] ** 2) * (p[1] - 3 * p[0] ** 2), 0, 0) == "saddle"


def test_a_singular_valley_is_not_proved_and_a_falling_one_is_refuted() -> None:
    assert kind(lambda p: p[0] ** 2, 0, 0) == "minimum not refuted"
    assert kind(lambda p: -(p[0] ** 2), 0, 0) == "maximum not refuted"
    assert kind(lambda p: p[0] ** 2 - p[1] ** 6, 0, 0) == "saddle"
    assert kind(lambda p: p[0] ** 3, 0) == "saddle"
    assert kind(lambda p: p[0] ** 4, 0) == "minimum not refuted"


def test_a_slope_is_no_stationary_point_and_a_trace_of_one_is_forgiven() -> None:
    assert kind(lambda p: p.sum(), 0, 0) == "not stationary"
    assert kind(lambda p: p @ p, 0.1, 0) == "not stationary"
    assert kind(lambda p: p @ p, 1e-7, 0) == "minimum"
    found = nature_of(function_surface(lambda p: p.sum(), torch.zeros(2).double()))
    assert found.lowest[0] < 0 < found.highest[0]


def test_what_is_left_of_a_gradient_is_taken_out_on_every_sphere() -> None:
    slope = 5e-10  # on the smallest sphere it makes a hundred times what x^4 + y^4 does
    tilted = function_surface(lambda p: (p**4).sum() + slope * p[0], torch.zeros(2).double())
    found = nature_of(tilted)
    assert found.kind == "minimum not refuted"
    for radius, lowest, highest in zip(found.radii, found.lowest, found.highest, strict=True):
        assert lowest == pytest.approx(radius**4 / 2, rel=1e-12, abs=0)  # where x = y
        assert highest == pytest.approx(radius**4, rel=1e-12, abs=0)  # on an axis


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ((1e-8, 1e-12, 1e-16, 1e-17), True),  # on every sphere
        ((0.0, 0.0, -1.0, 0.0), False),  # on none
        ((1e-8, 1e-12, 1e-16, 0.0), True),  # the next would be 1e-20, which rounding hides
        ((1e-8, 1e-9, 1e-10, 0.0), None),  # the next would be 1e-11, and is not there
        ((1e-8, 0.0, 0.0, -1.0), None),  # one sphere gives no power to go on with
        ((1e-8, 1e-12, 0.0, 1e-8), None),  # there, and not there, and there again
        ((0.0, 1e-8, 1e-8, 1e-8), None),
    ],
)
def test_a_change_is_evidence_where_it_is_above_rounding_or_must_be_below(
    changes: tuple[float, ...], told: bool | None
) -> None:
    assert _evidence(list(changes), [1e-19] * 4) is told


def test_a_minimum_with_a_lower_place_further_off_is_a_minimum() -> None:
    assert kind(lambda p: p[0] ** 2 - 1e4 * p[0] ** 4 + p[1] ** 2, 0, 0) == "minimum"


def test_the_weights_of_least_squares_settle_in_a_minimum() -> None:
    data = tiny("targets")
    model = ll.build("linear", data)
    assert stationary_point(model, data).details["kind"] == "not stationary"
    found = stationary_point(model, data, settle=200)
    assert found.holds is True
    assert found.value.value > 0
    assert found.figure.axes


def test_two_layers_at_zero_are_a_saddle() -> None:
    # L(u, v) = (u v - 1)^2 at 0: Hessian [[0, -2], [-2, 0]].
    data = tiny("targets")

    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.u, self.v = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))

    found = stationary_point(Product(), data, loss=lambda m, x, y: ((m.u * m.v - 1) ** 2).sum())
    assert found.details["kind"] == "saddle"
    assert found.value.value == pytest.approx(-2)
    assert found.details["top"].value == pytest.approx(2)


def test_what_cannot_be_looked_at_is_refused() -> None:
    with pytest.raises(OptionError, match="a model with data, or a function"):
        stationary_point()
    with pytest.raises(OptionError, match="needs the data"):
        stationary_point(nn.Linear(1, 1))
    with pytest.raises(OptionError, match='did you mean "peano"'):
        stationary_point(function="peanno")
    with pytest.raises(OptionError, match="two numbers"):
        stationary_point(function="bowl", at=(1.0, 2.0, 3.0))
    with pytest.raises(OptionError, match="at="):
        stationary_point(function=lambda p: p.sum())
    with pytest.raises(OptionError, match="reach"):
        stationary_point(function="bowl", reach=0)
    with pytest.raises(VerbError, match="give loss="):
        stationary_point(nn.Linear(1, 1), tiny("vectors"))
    with pytest.raises(DivergenceError, match="not smooth"):
        kind(lambda p: p.abs().sqrt().sum(), 0, 0)
