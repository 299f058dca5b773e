"""The convolutional network."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from leadline.catalog import build
from leadline.core import Batch, Bits, Classes, DomainError, Images, OptionError, Signature, Targets
from leadline.data import Dataset, Split
from tests.tiny import tiny

SMALL = {"channels": (4, 6, 8), "hidden": 10}


@pytest.mark.parametrize(
    "domain", [Images(1, 4, 4, 4), Images(3, 8, 8), Images(1, 28, 28), Bits((1, 3, 3)), Images(2, 5, 9, 17)]
)
@pytest.mark.parametrize(
    "labels",
    [Classes(("a", "b", "c")), Targets(("s", "t"), (5.0, -2.0), (3.0, 0.5))],
    ids=["classes", "reals"],
)
def test_it_predicts_every_picture_domain(domain: Images | Bits, labels: Classes | Targets) -> None:
    model = build("convnet", Signature(domain, labels), **SMALL).eval()
    most = 2 if isinstance(domain, Bits) else domain.levels
    x = torch.randint(most, (5, *domain.shape), dtype=torch.uint8)
    assert model.predict(x).shape == (5, labels.outputs)
    assert model.encode(x).shape == (5, 10)


def test_the_prediction_is_the_layers_written_out(moved: Callable[[nn.Module], nn.Module]) -> None:
    data = tiny("images")
    model = moved(build("convnet", data, channels=(4,), hidden=5, norm="none")).double().eval()
    conv, dense, last = model.features[0].trunk[0], model.features[0].head, model.head[1]
    h = data.test.x.double() * 2 / 3 - 1  # levels 0 to 3
    h = F.max_pool2d(F.conv2d(h, conv.weight, conv.bias, padding=1).relu(), 2)
    code = (h.flatten(1) @ dense.weight.T + dense.bias).relu()
    torch.testing.assert_close(model.encode(data.test.x), code)
    expected = F.log_softmax(code @ last.weight.T + last.bias, -1)
    torch.testing.assert_close(model.predict(data.test.x), expected)


def _side(n: int) -> Dataset:
    """Return pictures whose class is where a bright column stands: what a row of means cannot tell."""
    y = torch.arange(n) % 2
    x = torch.randint(0, 6, (n, 1, 6, 6), dtype=torch.uint8)
    rows = torch.arange(n)
    x[rows, 0, :, torch.where(y == 0, 1, 4)] += 9
    split = Split(x, y)
    return replace(tiny("images"), domain=Images(1, 6, 6, 16), labels=Classes(("l", "r")), train=split)


def test_it_learns_where_a_thing_is() -> None:
    data = _side(128)
    model = build("convnet", data, **SMALL)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(25):
        optimizer.zero_grad()
        model.loss(Batch(data.train.x, data.train.y)).backward()
        optimizer.step()
    fresh = _side(100).train
    model.eval()
    assert (model.predict(fresh.x).argmax(1) == fresh.y).float().mean() > 0.9


def test_every_parameter_gets_a_gradient() -> None:
    data = tiny("bits")
    model = build("convnet", data, **SMALL)
    model.loss(Batch(data.train.x, data.train.y, label_smoothing=0.1)).backward()
    assert all(bool(parameter.grad.any()) for parameter in model.parameters())


@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
def test_in_evaluation_each_row_is_predicted_alone(
    norm: str, moved: Callable[[nn.Module], nn.Module]
) -> None:
    data = tiny("images")
    model = moved(build("convnet", data, **SMALL, norm=norm, dropout=0.2)).double()
    model.loss(Batch(data.train.x, data.train.y))
    model.eval()
    alone = torch.cat([model.predict(row[None]) for row in data.test.x])
    torch.testing.assert_close(alone, model.predict(data.test.x))


def test_channels_last_changes_no_prediction() -> None:
    data = tiny("images")
    model = build("convnet", data, **SMALL).double().eval()
    expected = model.predict(data.test.x)
    model.to(memory_format=torch.channels_last)
    torch.testing.assert_close(model.predict(data.test.x), expected)


def test_what_it_cannot_hold_is_named() -> None:
    labels = Classes(("a", "b"))
    with pytest.raises(DomainError, match=r"needs Images, or Bits of shape.*Vectors\(3 columns\); use mlp"):
        build("convnet", tiny("vectors"))
    with pytest.raises(DomainError, match="use mlp"):
        build("convnet", Signature(Bits((9,)), labels))
    with pytest.raises(DomainError, match="needs labels"):
        build("convnet", Signature(Images(1, 4, 4)))
    with pytest.raises(OptionError, match="dropout"):
        build("convnet", tiny("images"), dropout=-0.1)
