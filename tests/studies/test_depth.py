"""Depth and parameters on tiny data: what is read, what is decided, what is refused."""

import json
import math
import sys

import numpy as np
import pytest
import torch
from torch import nn

from leadline.core import DomainError, OptionError
from leadline.data import Dataset, load
from leadline.studies import StudyError
from leadline.studies.dense_parameters import advantage, dense_parameters
from leadline.studies.depth import _built_deeper, _norms, depth, error_of, pictures_of, trained
from tests.tiny import tiny

QUICK = {"seeds": 2, "steps": 2, "samples": 32}


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits")


def test_blocks_that_add_nothing_leave_the_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _built_deeper() < 1e-5
    monkeypatch.setattr(nn.init, "zeros_", lambda tensor: tensor)
    assert not _built_deeper() < 1e-3  # weights never set may be NaN


def test_gradients_are_read_layer_by_layer(digits: Dataset) -> None:
    from leadline.catalog import build

    torch.manual_seed(0)
    norms = _norms(build("cifar_plain20", digits, width=0.25), digits)
    assert len(norms) == 19
    assert all(norm > 0 for norm in norms)


def test_a_training_is_a_function_of_its_seed(digits: Dataset) -> None:
    data = pictures_of(digits, "depth", 64, 1)
    one, same, other = (trained(data, "cifar_resnet20", {"width": 0.25}, 2, seed) for seed in (1, 1, 2))
    weights = [net.net.conv1.weight for net in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert 0 <= error_of(one, data.train) <= 1


def test_the_findings_have_every_row_and_a_figure(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["leadline.studies.depth"], "SAME_ERROR", 1.0)  # two steps teach little
    found = depth(digits, width=0.125, shallow=20, deep=32, **QUICK)
    assert sorted(zip(found.table["kind"], found.table["layers"], found.table["seed"], strict=True)) == [
        (kind, layers, seed) for kind in ("plain", "residual") for layers in (20, 32) for seed in (0, 1)
    ]
    other = dense_parameters(digits, growths=(4,), widths=(0.125, 0.5), layers=16, **QUICK)
    assert len(other.table) == 6
    for one, axes in ((found, 2), (other, 1)):
        assert len(one.figure.axes) == axes
        json.dumps(one.to_json(), allow_nan=False)


def test_an_advantage_is_read_between_the_known_points() -> None:
    # at the geometric middle of 10 and 1000 the line lies half-way between 0.4 and 0.2
    assert math.isclose(advantage(([100], [0.1]), ([10, 1000], [0.4, 0.2])), 0.2)
    assert advantage(([100, 5000], [0.1, 0.9]), ([10, 1000], [0.4, 0.2])) == pytest.approx(0.2)
    assert math.isnan(advantage(([5], [0.1]), ([10, 1000], [0.4, 0.2])))
    sizes = np.array([10.0, 100.0])
    assert advantage((sizes, sizes), (sizes, sizes)) == 0


def test_what_cannot_serve_is_refused(digits: Dataset) -> None:
    with pytest.raises(DomainError, match="needs Images with classes"):
        depth(tiny("vectors"))
    with pytest.raises(DomainError, match="needs Images with classes"):
        dense_parameters(tiny("targets"))
    with pytest.raises(OptionError, match="deep must be more"):
        depth(digits, shallow=56, deep=20)
    with pytest.raises(OptionError, match="at least 1"):
        depth(digits, steps=0)
    with pytest.raises(OptionError, match="two widths"):
        dense_parameters(digits, widths=(0.5,))


def test_nets_that_did_not_learn_alike_are_no_ground_for_a_claim(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = iter((0.1, 0.4))
    monkeypatch.setattr(sys.modules["leadline.studies.depth"], "error_of", lambda *_: next(errors))
    with pytest.raises(StudyError, match="other seeds"):
        depth(digits, width=0.125, deep=32, **QUICK)
