"""Sharpness and spectrum of tiny nets: what is claimed, what is undecided, what is refused."""

import json
import math
import sys

import pytest
import torch
from torch import Tensor, nn

import leadline as ll
from leadline.core import OptionError, VerbError
from leadline.data import Dataset
from leadline.inference.traces import spectral_density
from leadline.measures.surface import loss_surface
from leadline.studies import StudyError, hessian_spectrum, sharpness
from leadline.studies.hessian_spectrum import share_near_zero
from leadline.studies.rescaling import moved_by, rescaled, same_function
from tests.tiny import tiny


@pytest.fixture(scope="module")
def images() -> Dataset:
    return tiny("images")


def trained(data: Dataset, activation: str = "relu", norm: str = "none") -> nn.Module:
    model = ll.build("mlp", data, hidden=(12,), activation=activation, norm=norm)
    ll.fit(model, data, steps=60, lr=0.01, out=False, progress=False)
    return model


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_units_alone_change_the_eigenvalue_tenfold_and_not_the_adaptive_one(
    images: Dataset, norm: str
) -> None:
    found = sharpness(trained(images, norm=norm), images)
    assert found.holds is True
    assert found.value.value > 10
    given, other = found.table.to_dict(orient="records")
    assert given["loss"] == pytest.approx(other["loss"], rel=1e-6)
    assert given["adaptive eigenvalue"] == pytest.approx(other["adaptive eigenvalue"], rel=1e-3)
    assert len(found.figure.axes) == 1
    json.dumps(found.to_json(), allow_nan=False)


def test_without_rectified_units_nothing_can_be_rescaled_and_all_is_still_measured(images: Dataset) -> None:
    found = sharpness(trained(images, "tanh"), images)
    assert found.holds is None
    assert list(found.table["weights"]) == ["as given"]
    assert found.table["eigenvalue"][0] > 0
    assert found.figure.axes


def test_the_model_is_left_as_it_was(images: Dataset) -> None:
    model = trained(images)
    before = [p.clone() for p in model.parameters()]
    sharpness(model, images, samples=50)
    hessian_spectrum(model, images, samples=50, largest=2, probes=2, steps=5)
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def test_a_module_of_ones_own_needs_a_loss_and_nothing_else(images: Dataset) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.ReLU(), nn.Linear(5, 3))

    def loss(model: nn.Module, x: Tensor, y: Tensor | None) -> Tensor:
        return nn.functional.cross_entropy(model(x.to(next(model.parameters()))), y)  # type: ignore[arg-type]

    found = sharpness(net, images, loss=loss)
    assert "1 x 10, 3 / 10" in found.protocol
    assert len(hessian_spectrum(net, images, loss=loss, largest=3, probes=2, steps=8).table) == 8
    for study in (sharpness, hessian_spectrum):
        with pytest.raises(VerbError, match="give loss="):
            study(net, images)


def test_only_a_pair_that_leaves_outputs_alone_is_taken() -> None:
    x = torch.randn(20, 4).double()
    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2)).double()
    found = same_function(net, lambda part: part(x), 10.0)
    assert found is not None
    assert found[1] == "2 x 10, 4 / 10"
    assert moved_by(net(x), rescaled(net, "0", "2", 10.0)(x)) > 0.01
    assert same_function(nn.Sequential(nn.Linear(4, 2)).double(), lambda part: part(x), 10.0) is None


def test_the_spectrum_is_that_of_the_dense_hessian(images: Dataset) -> None:
    model = trained(images)
    found = hessian_spectrum(model, images, largest=3, probes=6, steps=30)
    surface = loss_surface(model, images)
    rows = torch.stack([surface.product(unit) for unit in torch.eye(surface.size)]).double()
    truth = torch.linalg.eigvalsh((rows + rows.T) / 2)
    table = found.table.set_index("quantity")
    for name, value in (
        ("eigenvalue 1", truth[-1]),
        ("eigenvalue 3", truth[-3]),
        ("smallest eigenvalue", truth[0]),
    ):
        assert table["value"][name] == pytest.approx(float(value), abs=2e-3 * float(truth.abs().max()))
    assert abs(table["value"]["trace"] - float(truth.sum())) < 4 * table["error"]["trace"]
    assert (
        abs(table["value"]["Frobenius norm"] - float(truth.norm()))
        < 4 * table["error"]["Frobenius norm"] + 1e-4
    )
    low, high = found.value.interval or (0.0, 0.0)
    near = float((truth.abs() < 0.05 * truth.abs().max()).double().mean())
    assert low <= near <= high
    assert found.figure.axes
    json.dumps(found.to_json(), allow_nan=False)


def test_a_semicircle_is_no_bulk_at_zero() -> None:
    noise = torch.randn(200, 200).double()
    matrix = noise + noise.T
    found = share_near_zero(spectral_density(lambda v: matrix @ v, matrix[0]), 2 * math.sqrt(2 * 200))
    assert (found.interval or (0.0, 1.0))[1] < 0.3


def test_one_probe_decides_nothing(images: Dataset) -> None:
    found = hessian_spectrum(trained(images), images, largest=1, probes=1, steps=5)
    assert found.value.interval == (0.0, 1.0)
    assert found.holds is None


def test_options_out_of_range_are_refused(images: Dataset) -> None:
    model = trained(images)
    with pytest.raises(OptionError, match="tolerance"):
        sharpness(model, images, tolerance=0.5)
    with pytest.raises(OptionError, match="probes"):
        hessian_spectrum(model, images, probes=0)
    with pytest.raises(OptionError, match="eigenpairs"):
        hessian_spectrum(model, images, largest=-1)


def test_a_broken_instrument_is_caught_by_its_controls(
    images: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = sys.modules["leadline.studies.sharpness"]
    monkeypatch.setattr(module, "rescaled", lambda net, first, second, factor: net)
    with pytest.raises(StudyError, match="tanh units"):
        sharpness(trained(images), images)
