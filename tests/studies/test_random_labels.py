"""Random labels on tiny data: what is changed, what is read, what is decided."""

import json
import math
import sys

import pytest
import torch

from leadline.core import DomainError, OptionError
from leadline.data import Dataset, load
from leadline.studies import StudyError, random_labels
from leadline.studies.corruption import SETTINGS, corrupted, interpolation_error
from leadline.studies.random_labels import _at_chance
from tests.tiny import tiny

MODULE = sys.modules["leadline.studies.random_labels"]
QUICK = {"seeds": 2, "steps": 30, "samples": 100}


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits")


@pytest.mark.parametrize("points", [2, 100, 1400])
def test_weights_twice_the_points_plus_the_inputs_interpolate_anything(digits: Dataset, points: int) -> None:
    assert interpolation_error(digits, points) < 1e-6


@pytest.mark.parametrize("kind", ["images", "bits", "vectors"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_a_setting_changes_what_it_says_and_nothing_else(kind: str, setting: str) -> None:
    data = tiny(kind)
    changed = corrupted(data, setting, 3)
    data.domain.validated(changed.train.x)
    labels = setting == "random labels"
    assert torch.equal(changed.train.y, data.train.y) is not labels
    assert torch.equal(changed.test.y, data.test.y)
    assert torch.equal(changed.train.x, data.train.x) is (labels or setting == "true labels")
    again = corrupted(data, setting, 3)
    assert torch.equal(again.train.x, changed.train.x)
    assert torch.equal(again.train.y, changed.train.y)


def test_one_permutation_of_pixels_keeps_each_pixel_and_many_keep_each_picture() -> None:
    data = tiny("images")
    one, many = (corrupted(data, setting, 3).train.x.flatten(1) for setting in SETTINGS[1:3])
    x = data.train.x.flatten(1)
    assert torch.equal(one.sort(1).values, x.sort(1).values)
    assert torch.equal(many.sort(1).values, x.sort(1).values)
    columns = {tuple(column.tolist()) for column in x.T}
    assert all(tuple(column.tolist()) in columns for column in one.T)
    assert not all(tuple(column.tolist()) in columns for column in many.T)


def test_a_training_that_does_not_fit_is_undecided_never_false(digits: Dataset) -> None:
    found = random_labels(digits, **QUICK)
    assert found.holds is None
    assert found.details["fits"] is None
    assert math.isnan(found.value.value)
    assert found.value.interval is None
    assert len(found.table) == 2 * len(SETTINGS)
    assert len(found.figure.axes) == 1
    json.dumps(found.to_json(), allow_nan=False)


def test_a_net_large_enough_fits_random_labels(digits: Dataset) -> None:
    found = random_labels(digits, seeds=2, steps=600, samples=150)
    assert found.details["fits"] is True
    assert found.details["slower"] is True
    assert found.value.value > 1


def test_a_net_that_fits_is_no_negative_control(digits: Dataset) -> None:
    with pytest.raises(StudyError, match="too few weights"):
        random_labels(digits, narrow={"hidden": (512,)}, seeds=1, steps=600, samples=100)


def test_a_failed_construction_stops_before_any_training(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MODULE, "interpolation_error", lambda data: 1.0)
    monkeypatch.setattr(MODULE, "_reading", lambda *arguments: pytest.fail("a reading was taken"))
    with pytest.raises(StudyError, match="interpolate"):
        random_labels(digits)


def test_chance_is_told_from_learning() -> None:
    at = torch.tensor([0.08, 0.12, 0.11, 0.09, 0.10]).double()
    assert _at_chance(at, 0.1, 180)
    assert not _at_chance(at + 0.1, 0.1, 180)
    assert not _at_chance(at - 0.08, 0.1, 180)


def test_data_that_cannot_serve_are_refused() -> None:
    with pytest.raises(DomainError, match="Images"):
        random_labels(tiny("tokens"))
    with pytest.raises(DomainError, match="classes"):
        random_labels(tiny("targets"))
    for wrong in ({"steps": 0}, {"samples": 0}):
        with pytest.raises(OptionError, match="at least 1"):
            random_labels(tiny("images"), **wrong)
