"""Curvature against dense Hessians: exact products, linear regression, rescaled layers, hard modules."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import leadline as ll
from leadline.core import OptionError, Targets, VerbError
from leadline.data import Dataset, Split
from leadline.measures import MeasureError
from leadline.measures.curvature import (
    adaptive_eigenvalue,
    density_of,
    eigenvalue_quantity,
    extremes,
    probe,
    trace_of,
    trace_quantity,
)
from leadline.measures.sharpness import adaptive, keskar
from leadline.measures.surface import Surface, function_surface, loss_surface
from tests.tiny import tiny


def dense(surface: Surface) -> Tensor:
    def loss(p: Tensor) -> Tensor:
        return torch.stack([part(p) for part in surface.parts]).sum()

    return torch.autograd.functional.hessian(loss, surface.point.detach())


def classifier(data: Dataset, activation: str = "tanh") -> nn.Module:
    return ll.build("mlp", data, hidden=(6,), activation=activation)


@pytest.fixture
def images() -> Dataset:
    return tiny("images")


@pytest.mark.parametrize("memory", [2e9, 1.0])
@pytest.mark.parametrize("rows", [None, 50])
def test_eigenvalues_are_those_of_the_dense_hessian(
    images: Dataset, moved: Callable[[nn.Module], nn.Module], memory: float, rows: int | None
) -> None:
    surface = loss_surface(moved(classifier(images)), images, double=True, memory=memory, rows=rows)
    truth = torch.linalg.eigvalsh(dense(surface))
    found = extremes(surface, largest=2, smallest=2, tolerance=1e-9)
    expected = torch.cat([truth[-2:].flip(0), truth[:2]])
    assert ((found.values - expected).abs() < 1e-6 * truth.abs().max()).all()
    assert surface.kept == (1 if memory == 1.0 else surface.kept)


def test_trace_and_norm_agree_with_the_dense_hessian(
    images: Dataset, moved: Callable[[nn.Module], nn.Module]
) -> None:
    surface = loss_surface(moved(classifier(images)), images, double=True)
    truth = dense(surface)
    space = extremes(surface, largest=2).space
    found = trace_of(surface, space=space, tolerance=0.01, most=60)
    assert abs(found.value - float(truth.trace())) < 3 * found.stderr
    assert abs(found.square - float(truth.square().sum())) < 3 * found.square_stderr
    density = density_of(surface, probes=10, steps=20)
    for power, exact in ((1, truth.trace()), (2, truth.square().sum())):
        value, stderr = density.moment(power)
        assert abs(value - float(exact)) < 3 * stderr
    assert "60 probes" in str(trace_quantity(found).protocol)


def test_the_hessian_of_linear_regression_is_the_moment_matrix() -> None:
    data = tiny("targets")
    model = ll.build("linear", data)
    surface = loss_surface(model, data, double=True)
    f = data.domain.features(data.train.x.double(), torch.zeros(1).double())
    f = torch.cat([f, torch.ones(len(f), 1)], 1)  # weights, then the bias
    moment = f.T @ f / len(f)
    rows = torch.stack([surface.product(unit) for unit in torch.eye(surface.size).double()])
    assert torch.allclose(rows, moment, atol=1e-6)
    assert float(extremes(surface, tolerance=1e-9).values[0]) == pytest.approx(
        float(torch.linalg.eigvalsh(moment)[-1]), rel=1e-6
    )


def test_predictions_of_a_module_of_ones_own_give_the_loss_of_the_labels() -> None:
    data = tiny("targets")
    assert isinstance(data.labels, Targets)
    own = ll.build("linear", data)

    class Mine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = own

        def predict(self, x: Tensor) -> Tensor:
            return own.predict(x)  # type: ignore[operator]

    left, right = (loss_surface(model, data, double=True) for model in (own, Mine()))
    assert left.value() == pytest.approx(right.value())
    v = left.direction()
    assert torch.allclose(left.product(v), right.product(v))


def test_a_loss_of_ones_own_needs_no_verb(images: Dataset) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))

    def loss(model: nn.Module, x: Tensor, y: Tensor | None) -> Tensor:
        return nn.functional.cross_entropy(model(x.float()), y)  # type: ignore[arg-type]

    surface = loss_surface(net, images, loss=loss)
    assert surface.size == 51
    with pytest.raises(VerbError, match="give loss="):
        loss_surface(net, images)
    with pytest.raises(OptionError, match="one number"):
        loss_surface(net, images, loss=lambda model, x, y: model(x.float()))


def test_a_measurement_leaves_no_trace_on_the_model(images: Dataset) -> None:
    model = ll.build("mlp", images, hidden=(6,), norm="batch", dropout=0.5).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    for statistics in ("running", "batch"):
        surface = loss_surface(model, images, statistics=statistics)
        surface.product(surface.direction(torch.Generator()))
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(part.training for part in model.modules())
    assert all(p.grad is None for p in model.parameters())
    norms = [part for part in model.modules() if isinstance(part, nn.BatchNorm1d)]
    assert all(norm.track_running_stats for norm in norms)


def test_statistics_of_the_batch_belong_to_the_hessian(images: Dataset) -> None:
    model = ll.build("mlp", images, hidden=(6,), norm="batch")
    still, moving = (
        loss_surface(model, images, statistics=kind, double=True) for kind in ("running", "batch")
    )
    assert still.value() != pytest.approx(moving.value(), rel=1e-3)
    v = moving.direction()
    step = 1e-5
    slopes = [moving.slope(moving.point.detach() + sign * step * v)[1] for sign in (1, -1)]
    assert torch.allclose(moving.product(v), (slopes[0] - slopes[1]) / (2 * step), atol=1e-6)


def test_the_surface_stays_where_it_was_when_the_model_moves_on(images: Dataset) -> None:
    model = classifier(images)
    surface = loss_surface(model, images)
    v = surface.direction()
    before = surface.product(v)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    assert torch.equal(surface.product(v), before)


@pytest.mark.parametrize("name", ["vae", "realnvp", "made"])
def test_generative_models_have_a_curvature_too(name: str, moved: Callable[[nn.Module], nn.Module]) -> None:
    data = tiny("vectors") if name == "realnvp" else tiny("bits")
    surface = loss_surface(moved(ll.build(name, data)), data, double=True)
    v = surface.direction()
    step = 1e-7
    slopes = [surface.slope(surface.point.detach() + sign * step * v)[1] for sign in (1, -1)]
    image = surface.product(v)
    error = (image - (slopes[0] - slopes[1]) / (2 * step)).norm()
    assert error < 1e-3 * image.norm()  # rectified units may change sides within the step


def test_attention_and_recurrence_have_second_derivatives() -> None:
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.names = nn.Embedding(5, 8)
            self.look = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
            self.read = nn.LSTM(8, 4, batch_first=True)

        def log_prob(self, x: Tensor) -> Tensor:
            h, _ = self.read(self.look(self.names(x)))
            return -h.square().sum((1, 2))

    data = tiny("tokens")
    surface = loss_surface(Reader(), data, loss=lambda model, x, y: -model.log_prob(x).mean(), samples=20)
    assert float(extremes(surface, tolerance=0.05).values[0]) > 0


def test_frozen_parameters_are_no_part_of_it(images: Dataset) -> None:
    model = classifier(images)
    whole = loss_surface(model, images).size
    first = next(model.parameters()).requires_grad_(requires_grad=False)
    assert loss_surface(model, images).size == whole - first.numel()
    model.requires_grad_(requires_grad=False)
    with pytest.raises(MeasureError, match="no parameter"):
        loss_surface(model, images)


def test_rescaling_two_rectified_layers_changes_all_but_the_adaptive_figures(images: Dataset) -> None:
    model = classifier(images, "relu")
    ll.fit(model, images, steps=100, lr=0.01, out=False, progress=False)
    first, last = (part for part in model.modules() if isinstance(part, nn.Linear))

    def figures() -> tuple[Tensor, list[float]]:
        surface = loss_surface(model, images, double=True)
        values = [float(pairs.values[0]) for pairs in (extremes(surface), adaptive_eigenvalue(surface))]
        outputs = model.predict(images.test.x)  # type: ignore[operator]
        return outputs, [*values, keskar(surface), adaptive(surface)]

    before, plain = figures()
    with torch.no_grad():
        first.weight.mul_(10)
        first.bias.mul_(10)
        last.weight.div_(10)
    after, scaled = figures()
    assert torch.allclose(before, after, atol=1e-5)
    assert scaled[0] / plain[0] > 10 or plain[0] / scaled[0] > 10
    assert scaled[1] == pytest.approx(plain[1], rel=0.01)
    assert scaled[2] != pytest.approx(plain[2], rel=0.1)
    assert scaled[3] == pytest.approx(plain[3], rel=0.01)


def test_sharpness_of_a_quadratic_is_known() -> None:
    # L = 1/2 p^T diag(3, 1) p at p = (1, 0): gradient (3, 0).
    weights = torch.tensor([3.0, 1.0], dtype=torch.float64)
    point = torch.tensor([1.0, 0.0], dtype=torch.float64)
    surface = function_surface(lambda p: 0.5 * (weights * p * p).sum(), point)
    eps = 0.1  # box: |z_0| <= 0.2, |z_1| <= 0.1: rise 1/2 (3 (1.44 - 1) + 0.01) = 0.665, L = 1.5
    assert keskar(surface, eps) == pytest.approx(100 * 0.665 / 2.5)
    # ellipsoid |z_0| <= 0.5, z_1 = 0: rise 3/2 (2.25 - 1) = 1.875
    assert adaptive(surface, 0.5) == pytest.approx(1.875)
    assert float(adaptive_eigenvalue(surface).values[0]) == pytest.approx(3.0)


def test_one_power_step_finds_the_top_of_a_linear_loss() -> None:
    slope = torch.linspace(-1, 2, 12).double()  # no corner of a random start is likely to be the best of 4096
    surface = function_surface(lambda p: 1 + slope @ p, torch.zeros(12).double())
    assert keskar(surface, 0.1, starts=1, steps=1) == pytest.approx(100 * 0.1 * float(slope.abs().sum()) / 2)


def test_a_loss_that_overflows_nearby_has_no_sharpness_of_nan() -> None:
    surface = function_surface(lambda p: torch.exp(400 * p).sum(), torch.full((2,), 1.77).double())
    assert math.isfinite(surface.value())
    assert surface.value(surface.point + 0.01) == math.inf
    assert math.isfinite(keskar(surface, 0.02))


def test_a_linear_function_has_a_hessian_of_zero() -> None:
    surface = function_surface(lambda p: p.sum(), torch.zeros(3))
    assert torch.equal(surface.product(torch.ones(3)), torch.zeros(3))
    constant = function_surface(lambda p: torch.ones(()), torch.zeros(3))
    assert torch.equal(constant.slope()[1], torch.zeros(3))
    assert torch.equal(constant.product(torch.ones(3)), torch.zeros(3))


def test_the_probe_records_figures_while_a_model_is_fitted(images: Dataset) -> None:
    model = classifier(images)
    every = probe(images, what=("top", "bottom", "trace", "adaptive", "keskar"), samples=60, tolerance=0.1)
    run = ll.fit(model, images, steps=4, probe=every, probe_every=2, out=False, progress=False)
    lines = [line for line in run.metrics if "top" in line]
    assert len(lines) == 2
    names = {"top", "top_error", "bottom", "bottom_error", "trace", "trace_error", "adaptive", "keskar"}
    assert names <= set(lines[0])
    assert all(math.isfinite(lines[1][name]) for name in names)
    with pytest.raises(OptionError, match="a probe records"):
        probe(images, what=("flatness",))


def test_a_probe_records_what_its_names_say(images: Dataset) -> None:
    model = classifier(images)
    lines = probe(images, what=("top", "bottom", "trace"), tolerance=1e-4, most=400)(model, 0)
    values = torch.linalg.eigvalsh(dense(loss_surface(model, images)).double())
    for name, truth in (("top", values[-1]), ("bottom", values[0])):
        assert lines[name] == pytest.approx(float(truth), abs=1e-3 * float(values.abs().max()))
    assert lines["trace"] == pytest.approx(float(values.sum()), abs=5 * lines["trace_error"] + 1e-4)


def test_parts_of_unequal_size_make_the_mean_over_samples(images: Dataset) -> None:
    model = classifier(images)
    whole, parts = (loss_surface(model, images, rows=rows, double=True) for rows in (120, 50))
    sizes = {len(part.args[0]) for part in parts.parts}
    assert len(sizes) == 1  # 120 in three parts
    odd = loss_surface(model, images, samples=119, rows=50, double=True)
    one = loss_surface(model, images, samples=119, rows=119, double=True)
    assert len({len(part.args[0]) for part in odd.parts}) == 2
    assert odd.value() == pytest.approx(one.value(), rel=1e-12)
    assert parts.value() == pytest.approx(whole.value(), rel=1e-12)


def test_what_a_loss_draws_is_drawn_alike_each_time(images: Dataset) -> None:
    surface = loss_surface(ll.build("vae", images, latent=2, hidden=(8,)), images, double=True)
    before, (_, slope) = surface.value(), surface.slope()
    torch.rand(3)  # what others draw in between changes nothing
    assert surface.value() == before
    assert torch.equal(surface.slope()[1], slope)


def test_the_interval_of_a_trace_is_that_of_a_normal(images: Dataset) -> None:
    found = trace_of(loss_surface(classifier(images), images), most=20)
    told = trace_quantity(found)
    assert found.stderr > 0
    assert told.interval == pytest.approx(
        (found.value - 1.96 * found.stderr, found.value + 1.96 * found.stderr)
    )


def test_an_eigenvalue_says_what_it_is(images: Dataset) -> None:
    surface = loss_surface(classifier(images), images)
    loose = extremes(surface, most=2)
    assert "not converged" in eigenvalue_quantity(loose).protocol
    tight = eigenvalue_quantity(extremes(surface))
    assert tight.interval is not None
    assert tight.interval[0] < tight.value < tight.interval[1]
    assert tight.stderr is not None


def test_what_cannot_be_measured_is_said_in_one_line(images: Dataset) -> None:
    model = classifier(images)
    empty = replace(images, train=Split(images.train.x[:0], images.train.y[:0]))
    with pytest.raises(MeasureError, match="no samples"):
        loss_surface(model, empty)
    unknown = replace(images, train=Split(images.train.x, torch.full_like(images.train.y, -1)))
    with pytest.raises(MeasureError, match="no labelled"):
        loss_surface(model, unknown)
    for wrong in ({"samples": 0}, {"rows": 0}, {"memory": 0}, {"statistics": "mine"}):
        with pytest.raises(OptionError):
            loss_surface(model, images, **wrong)
    half = classifier(images).to(torch.bfloat16)
    with pytest.raises(MeasureError, match="double=True"):
        loss_surface(half, images)
    with torch.no_grad():
        next(model.parameters()).fill_(math.nan)
    with pytest.raises(MeasureError, match="is nan"):
        loss_surface(model, images)
    with pytest.raises(OptionError, match="finite"):
        function_surface(lambda p: p.sum(), torch.tensor([math.nan]))
    with pytest.raises(OptionError, match="one number"):
        function_surface(lambda p: p, torch.zeros(2))
    with pytest.raises(OptionError, match="above 0"):
        keskar(function_surface(lambda p: p.sum(), torch.zeros(2)), 0.0)


def test_one_labelled_sample_is_enough(images: Dataset) -> None:
    one = replace(images, train=Split(images.train.x[:1], images.train.y[:1]))
    assert float(extremes(loss_surface(classifier(images), one)).values[0]) > 0
