"""What each layer gains: what is read, what is decided, what is refused."""

import math
import sys
from typing import Any

import pytest

from leadline.core import DomainError, OptionError
from leadline.data import Dataset
from leadline.studies import StudyError, layerwise_bound
from tests.tiny import tiny

MODULE = sys.modules["leadline.studies.layerwise_bound"]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the controls be known, so that only the readings take time."""
    monkeypatch.setattr(MODULE, "passed", lambda controls: dict.fromkeys(controls, 0.0))


@pytest.mark.usefixtures("quick")
def test_a_reading_a_depth_and_seed_and_an_interval_over_seeds() -> None:
    found = layerwise_bound(tiny("bits"), width=4, layers=3, steps=30, seeds=2)
    assert list(found.table["layers"]) == [1, 2, 3, 1, 2, 3]
    assert set(found.table["kind"]) == {"exact", "lower bound"}
    assert len(found.details["gains"]) == 2
    assert found.value.interval is not None
    assert found.figure.axes


def test_a_layer_that_has_hardly_learned_leaves_the_bound_where_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # all depths of a seed share the layers below, and a further one starts as their transpose
    learn = MODULE.fit

    def fit(stage: object, data: Dataset, **settings: Any) -> object:
        return learn(stage, data, **settings | {"lr": 1e-9 if data.name == "codes" else 0.2})

    monkeypatch.setattr(MODULE, "fit", fit)
    readings = [MODULE._reading(MODULE._bars(), "dbn", 4, 300, depth, 3) for depth in (1, 2, 3)]
    assert [each["kind"] for each in readings] == ["exact", "lower bound", "lower bound"]
    assert readings[0]["nats"] > -9 * math.log(2) + 0.2
    for each in readings[1:]:
        assert each["nats"] == pytest.approx(readings[0]["nats"], abs=1e-3)


@pytest.mark.usefixtures("quick")
def test_one_seed_is_undecided() -> None:
    assert layerwise_bound(tiny("bits"), width=4, layers=2, steps=20, seeds=1).holds is None


def test_the_bars_have_the_entropy_that_the_control_names() -> None:
    data = MODULE._bars()
    assert len(data.test) == 16
    rows, counts = data.test.x.unique(dim=0, return_counts=True)
    p = counts.double() / 16
    assert len(rows) == 14
    # blank and full 2/16 each, twelve others 1/16: -(1/4 ln 8 + 3/4 ln 16)
    assert float((p * p.log()).sum()) == pytest.approx(-MODULE.ENTROPY, abs=1e-7)


def test_a_bound_above_the_entropy_fails_the_control(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "_reading", lambda *_: {"nats": -2.0})
    with pytest.raises(StudyError, match="bars and stripes"):
        layerwise_bound(tiny("bits"))


def test_a_net_that_learned_nothing_fails_the_control(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "_reading", lambda *_: {"nats": -9 * math.log(2)})
    with pytest.raises(StudyError, match="bars and stripes"):
        layerwise_bound(tiny("bits"))


def test_what_it_cannot_use_is_refused() -> None:
    for options in ({"layers": 1}, {"width": 0}, {"steps": 0}):
        with pytest.raises(OptionError, match=next(iter(options))):
            layerwise_bound(tiny("bits"), **options)
    with pytest.raises(DomainError, match="needs Bits"):
        layerwise_bound(tiny("vectors"))
