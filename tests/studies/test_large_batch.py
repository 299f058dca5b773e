"""Large and small batches on tiny data: what is trained, what is read, what is decided."""

import json
import math
import sys

import pytest
import torch
from torch import nn

from leadline.core import DomainError, OptionError
from leadline.data import Dataset
from leadline.studies import StudyError, large_batch
from leadline.studies.large_batch import _loss, _phi, _ratio, _reading, _trained
from tests.tiny import tiny

MODULE = sys.modules["leadline.studies.large_batch"]
QUICK = {"seeds": 2, "batches": (8, 60), "epochs": 60, "options": {"hidden": (16,)}}


@pytest.fixture(scope="module")
def images() -> Dataset:
    return tiny("images")


@pytest.fixture(autouse=True)
def high_goal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "GOAL", 0.4)
    monkeypatch.setattr(MODULE, "CONTROL_PAIRS", 1)
    monkeypatch.setattr(MODULE, "TRAINING", {"optimizer": "adam", "lr": 0.01})


def test_trainings_end_at_one_loss_and_are_a_function_of_the_seed(images: Dataset) -> None:
    nets = [_trained(images, "mlp", {"hidden": (16,)}, 60, 60, seed) for seed in (1, 1, 2)]
    assert nets[0][1] is not None
    assert nets[0][1] == nets[1][1]
    for net, _ in nets:
        assert 0.36 < _loss(net, images) <= 0.4  # the loss is read every step, and each makes it little less
    first = [net.net[0].weight for net, _ in nets]
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first[0], first[2])


def test_a_batch_is_what_a_step_takes(images: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, object]] = []
    monkeypatch.setattr(MODULE, "fit_until", lambda *_, **options: asked.append(options))
    _trained(images, "mlp", {}, 60, 3, 0)
    _trained(images, "mlp", {}, 7, 3, 0)
    assert [(one["batch_size"], one["steps"], one["every"]) for one in asked] == [(60, 6, 1), (7, 54, 3)]


def test_the_finding_has_every_row_its_parts_and_a_figure(images: Dataset) -> None:
    found = large_batch(images, **QUICK)
    assert sorted(zip(found.table["batch"], found.table["seed"], strict=True)) == [
        (8, 0), (8, 1), (60, 0), (60, 1)
    ]  # fmt: skip
    small, large = (found.table[found.table["batch"] == batch] for batch in (8, 60))
    logs = [math.log(b / a) for a, b in zip(small["phi 1e-3"], large["phi 1e-3"], strict=True)]
    assert found.value.value == pytest.approx(math.exp(sum(logs) / 2))
    worse = large["test error"].mean() - small["test error"].mean()
    assert found.details["worse"].value == pytest.approx(worse)
    assert found.controls["planted sharp minimum"] > 2 > found.controls["small batch against itself"] >= 1
    assert len(found.figure.axes) == 3
    json.dumps(found.to_json(), allow_nan=False)


@pytest.mark.parametrize(
    ("phi", "error", "steps", "verdict"),
    [
        (3.0, 0.1, 5.0, True),
        (3.0, -0.1, 5.0, False),
        (1.5, 0.1, 5.0, False),
        (3.0, 0.0, 5.0, None),
        (3.0, 0.1, math.nan, None),
    ],
)
def test_the_verdict_needs_sharper_and_worse_at_the_same_loss(
    images: Dataset,
    monkeypatch: pytest.MonkeyPatch,
    phi: float,
    error: float,
    steps: float,
    verdict: bool | None,
) -> None:
    def told(
        data: Dataset, model: str, options: object, batch: int, epochs: int, seed: int
    ) -> dict[str, float]:
        many = batch == 60
        sharp = (phi if many else 1.0) * (1 + 0.1 * seed)
        return {
            "batch": batch, "seed": seed, "steps": steps if many else 9.0, "phi 1e-3": sharp,
            "adaptive eigenvalue": 1.0, "test error": 0.3 + error * many,
        }  # fmt: skip

    monkeypatch.setattr(MODULE, "_reading", told)
    monkeypatch.setattr(MODULE, "_controls", lambda *_: {})
    assert large_batch(images, **QUICK).holds is verdict


def test_a_loss_that_is_not_reached_is_told(images: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "GOAL", 1e-9)
    row = _reading(images, "mlp", {"hidden": (4,)}, 60, 1, 0)
    assert math.isnan(row["steps"])
    assert row["train loss"] > 0.1


def test_phi_rises_with_curvature(images: Dataset) -> None:
    net, _ = _trained(images, "mlp", {"hidden": (16,)}, 60, 60, 0)
    before = _phi(net, images)
    with torch.no_grad():
        for layer in net.modules():
            if isinstance(layer, nn.Linear):
                layer.weight.mul_(3)
    assert _phi(net, images) > 2 * before


def test_a_ratio_is_a_geometric_mean() -> None:
    assert _ratio([1.0, 4.0], "").value == pytest.approx(2.0)
    low, high = _ratio([1.0, 4.0], "").interval or (0.0, 0.0)
    assert 1.0 <= low < 2.0 < high <= 4.0
    assert _ratio([2.0], "").interval is None
    assert math.isnan(_ratio([0.0, 1.0], "").value)


def test_an_instrument_blind_to_sharpness_is_caught(images: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "keskar", lambda surface, eps: 1.0)
    with pytest.raises(StudyError, match="planted sharp minimum"):
        large_batch(images, **QUICK)


def test_what_cannot_serve_is_refused(images: Dataset) -> None:
    with pytest.raises(DomainError, match="classes"):
        large_batch(tiny("targets"))
    for wrong in ({"batches": (60, 8)}, {"batches": (8, 500)}, {"batches": (0, 60)}, {"epochs": 0}):
        with pytest.raises(OptionError, match="small < large"):
            large_batch(images, **wrong)
