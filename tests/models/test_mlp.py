"""The multi-layer perceptron."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from leadline.catalog import build
from leadline.core import Batch, Classes, OptionError, Signature
from tests.tiny import tiny

KINDS = ("images", "bits", "vectors", "targets", "categories", "table", "counts", "tokens")


def _signature(kind: str) -> Signature:
    data = tiny(kind)
    return Signature(data.domain, data.labels or Classes(("a", "b", "c")))


@pytest.mark.parametrize("kind", KINDS)
def test_the_prediction_is_the_formula_written_out(
    kind: str, moved: Callable[[nn.Module], nn.Module]
) -> None:
    what, x = _signature(kind), tiny(kind).test.x
    model = moved(build("mlp", what, hidden=(7, 5), activation="tanh")).double().eval()
    f = what.domain.features(x, torch.empty(0, dtype=torch.float64))
    first, second, last = (layer for layer in model.net if isinstance(layer, nn.Linear))
    hidden = torch.tanh(torch.tanh(f @ first.weight.T + first.bias) @ second.weight.T + second.bias)
    torch.testing.assert_close(model.encode(x), hidden)
    torch.testing.assert_close(model.predict(x), what.labels.predict(hidden @ last.weight.T + last.bias))


@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
def test_twenty_steps_improve_the_loss_and_every_parameter_has_a_gradient(norm: str) -> None:
    data = tiny("images")
    model = build("mlp", data, hidden=(32,), norm=norm)
    batch = Batch(data.train.x, data.train.y)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = model.loss(batch)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    still = [name for name, parameter in model.named_parameters() if not bool(parameter.grad.any())]
    # a mean over the batch takes the bias in front of it away, up to rounding
    assert not still or (norm == "batch" and still == ["net.0.bias"])


@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
def test_in_evaluation_each_row_is_predicted_alone(
    norm: str, moved: Callable[[nn.Module], nn.Module]
) -> None:
    data = tiny("table")
    model = moved(build("mlp", data, hidden=(6,), norm=norm, dropout=0.3)).double()
    model.loss(Batch(data.train.x, data.train.y))  # moves the running averages
    model.eval()
    whole = model.predict(data.test.x)
    alone = torch.cat([model.predict(row[None]) for row in data.test.x])
    torch.testing.assert_close(alone, whole)


def test_dropout_acts_while_training_only() -> None:
    data = tiny("vectors")
    model = build("mlp", data, dropout=0.5)
    x = data.test.x
    assert not torch.equal(model.encode(x), model.encode(x))
    model.eval()
    assert torch.equal(model.encode(x), model.encode(x))


def test_a_regressor_answers_in_the_unit_of_its_targets() -> None:
    data = tiny("targets")
    model = build("mlp", data, hidden=(32,))
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(100):
        optimizer.zero_grad()
        model.loss(Batch(data.train.x, data.train.y)).backward()
        optimizer.step()
    error = (model.predict(data.test.x) - data.test.y).std()
    assert model.predict(data.test.x).shape == data.test.y.shape
    assert error < 0.2 * data.test.y.std()


def test_rows_without_a_target_add_nothing() -> None:
    data = tiny("targets")
    model = build("mlp", data).double()
    x, y = data.train.x, data.train.y.clone()
    y[::3] = float("nan")
    known = ~y.isnan().squeeze(1)
    torch.testing.assert_close(model.loss(Batch(x, y)), model.loss(Batch(x[known], y[known])))


def test_wrong_options_are_named() -> None:
    data = tiny("vectors")
    with pytest.raises(OptionError, match="at least one layer"):
        build("mlp", data, hidden=())
    with pytest.raises(OptionError, match="dropout must be in"):
        build("mlp", data, dropout=1.5)
    targets = tiny("targets")
    regressor = build("mlp", targets)
    with pytest.raises(OptionError, match="label_smoothing applies to classes"):
        regressor.loss(Batch(targets.train.x, targets.train.y, label_smoothing=0.1))
