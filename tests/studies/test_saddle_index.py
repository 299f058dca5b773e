"""Critical points and their index: what is found, what counts, what is decided."""

import json
import math
import sys

import pandas as pd
import pytest
import torch
from torch import Tensor

from leadline.core import DomainError, OptionError
from leadline.studies import StudyError, saddle_index
from leadline.studies.critical_points import critical_points, index_of
from leadline.studies.saddle_index import _components, _correlation, _descended, _objective, _size
from leadline.studies.trainings import labelled
from tests.tiny import tiny

MODULE = sys.modules["leadline.studies.saddle_index"]
QUICK = {"hidden": 2, "components": 2, "samples": 40, "searches": 8, "steps": 40, "seeds": 2}


def wells(p: Tensor) -> Tensor:
    return 0.25 * (p.square() - 1).square().sum()


def test_newton_steps_go_to_saddles_and_maxima_as_readily_as_to_minima() -> None:
    start = torch.tensor([[0.9, 1.2, -0.8], [0.1, 1.1, -0.9], [0.1, -0.2, 0.1]]).double()
    found = critical_points(wells, start, steps=50)
    assert torch.allclose(found.points, start.round(), atol=1e-9)
    assert found.index.tolist() == pytest.approx([0, 1 / 3, 1])
    assert found.values.tolist() == pytest.approx([0, 0.25, 0.75])
    assert torch.allclose(found.spectra[1], torch.tensor([-1.0, 2.0, 2.0]).double(), atol=1e-6)
    assert bool((found.norms < 1e-9).all())


def test_where_the_norm_alone_is_stationary_there_is_no_critical_point() -> None:
    # f' = x^2 + 1 is never zero, and least at 0, where f'' is
    found = critical_points(lambda p: (p**3 / 3 + p).sum(), torch.tensor([[0.4]]).double(), steps=80)
    assert abs(float(found.points)) < 1e-2
    assert float(found.norms) == pytest.approx(1.0, abs=1e-3)


def test_no_step_raises_the_gradient() -> None:
    start = torch.randn(6, 4).double()
    before = critical_points(wells, start, steps=1).norms
    after = critical_points(wells, start, steps=5).norms
    assert bool((after <= before).all())


def test_an_eigenvalue_that_is_rounding_has_no_sign() -> None:
    spectra = torch.tensor([[-1e-9, 0.0, 1.0], [-1e-3, 0.5, 1.0], [-2.0, -1.0, 1e-9]]).double()
    assert index_of(spectra).tolist() == pytest.approx([0, 1 / 3, 2 / 3])


def test_a_descent_ends_after_its_own_number_of_steps() -> None:
    start = torch.ones(3, 2).double()
    ends = _descended(lambda p: 0.5 * p.square().sum(), start, torch.tensor([0, 1, 3]))
    assert ends[:, 0].tolist() == pytest.approx([1, 0.5, 0.125])  # lr 0.5 halves at each step


def test_the_loss_is_that_of_the_net_with_weight_decay() -> None:
    data = labelled(tiny("images"), "saddle_index", 40)
    x = _components(data, 3)
    assert x.square().mean() == pytest.approx(1)
    assert torch.allclose(x.mean(0), torch.zeros(3).double(), atol=1e-9)
    p = torch.zeros(_size(x, 3, 2)).double()
    loss = _objective(x, data.train.y, 3, 2)
    assert float(loss(p)) == pytest.approx(math.log(3))
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Tanh(), torch.nn.Linear(2, 3)).double()
    p = torch.nn.utils.parameters_to_vector(net.parameters()).detach()
    own = torch.nn.functional.cross_entropy(net(x), data.train.y).detach() + 0.005 * p.square().sum()
    assert float(loss(p)) == pytest.approx(float(own))


def test_a_correlation_takes_each_critical_point_once_and_no_other() -> None:
    rows = pd.DataFrame(
        {
            "loss": [1.0, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0],
            "index": [0.0, 0.0, 0.1, 0.2, 0.3, 0.4, 0.0],
            "critical": [True] * 6 + [False],
        }
    )
    assert _correlation(rows) == pytest.approx(1.0)
    assert math.isnan(_correlation(rows[rows["loss"] < 1.7]))
    assert _correlation(rows.assign(index=-rows["index"])) == pytest.approx(-1.0)


@pytest.mark.parametrize(
    ("ranks", "verdict"),
    [((0.9, 0.8), True), ((0.1, 0.2), False), ((0.2, 0.9), None), ((0.9, math.nan), None)],
)
def test_the_verdict_needs_the_whole_interval(
    monkeypatch: pytest.MonkeyPatch, ranks: tuple[float, float], verdict: bool | None
) -> None:
    given = iter(ranks)
    monkeypatch.setattr(MODULE, "_correlation", lambda rows: next(given))
    monkeypatch.setattr(MODULE, "_controls", dict)
    monkeypatch.setattr(MODULE, "DESCENT", 5)
    assert saddle_index(tiny("images"), **(QUICK | {"steps": 1})).holds is verdict


def test_the_finding_has_every_search_and_a_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "DESCENT", 30)
    found = saddle_index(tiny("images"), **QUICK)
    assert len(found.table) == 16
    assert set(found.table["descent"]) <= set(range(31))
    assert (found.table["critical"] == (found.table["gradient"] <= 1e-7)).all()
    assert bool(found.table["critical"].any())
    assert len(found.figure.axes) == 2
    json.dumps(found.to_json(), allow_nan=False)


def test_a_finder_that_miscounts_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    from leadline.studies import critical_points as points

    monkeypatch.setattr(points, "index_of", lambda spectra: (spectra > 0).double().mean(1))
    with pytest.raises(StudyError, match="double wells"):
        saddle_index(tiny("images"), **QUICK)


def test_what_cannot_serve_is_refused() -> None:
    with pytest.raises(DomainError, match="classes"):
        saddle_index(tiny("targets"))
    for wrong in ({"components": 100}, {"components": 0}):
        with pytest.raises(OptionError, match="components"):
            saddle_index(tiny("images"), **wrong)
    for wrong in ({"searches": 2}, {"hidden": 0}, {"steps": 0}):
        with pytest.raises(OptionError, match="searches"):
            saddle_index(tiny("images"), **({"components": 2} | wrong))
