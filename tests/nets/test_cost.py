"""What a net costs: hand-computed small ones, the published table, and no memory used to find out."""

import pytest
import torch
from torch import Tensor, nn

from leadline.core import Classes, DomainError, Images, OptionError, VerbError
from leadline.measures import model_cost
from leadline.nets.cost import Cost, cost

LARGE = Images(3, 224, 224)


def of(net: nn.Module, x: Tensor) -> Cost:
    return cost(net, lambda: net(x), lambda: net(x).sum(), len(x))


def test_two_linear_layers_cost_what_a_pencil_says() -> None:
    with torch.device("meta"):
        net, x = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2)), torch.zeros(4, 6)
        found = of(net, x)
    assert found.parameters == 6 * 5 + 5 + 5 * 2 + 2
    assert found.multiply_adds == 6 * 5 + 5 * 2
    assert found.activations == 5 + 2
    # 47 weights, and at the end of tanh its input and its output (4, 5)
    assert found.inference_bytes == 4 * (47 + 2 * 20)
    # 47 weights, 47 momenta, then at the end of the backward pass of the first layer: gradients of all 47
    # weights, the tanh (4, 5), its gradient (4, 5), and the gradient behind it (4, 5) at most
    assert 4 * (3 * 47) < found.training_bytes <= 4 * (3 * 47 + 4 * 20 + 2 * 8 + 2)


def test_a_convolution_costs_its_kernel_at_every_place() -> None:
    with torch.device("meta"):
        found = of(nn.Conv2d(3, 4, 3, padding=1, groups=1), torch.zeros(2, 3, 10, 8))
    assert found.multiply_adds == 10 * 8 * 4 * 3 * 9
    assert found.activations == 10 * 8 * 4


# G multiply-adds at 224 x 224: torchvision's table of its published weights
TABLE = [
    ("alexnet", 0.714), ("vgg11", 7.609), ("vgg16", 15.470), ("vgg19", 19.632), ("googlenet", 1.498),
    ("resnet18", 1.814), ("resnet34", 3.664), ("resnet50", 4.089), ("resnet101", 7.801),
    ("resnet152", 11.514), ("densenet121", 2.834), ("densenet161", 7.728), ("densenet169", 3.360),
    ("densenet201", 4.291),
]  # fmt: skip


@pytest.mark.parametrize(("name", "billions"), TABLE)
def test_multiply_adds_are_those_of_the_published_table(name: str, billions: float) -> None:
    from leadline.catalog import build
    from leadline.core import Signature

    labels = Classes(tuple(map(str, range(1000))))
    with torch.device("meta"):
        model, x = build(name, Signature(LARGE, labels)), torch.zeros(1, 3, 224, 224, dtype=torch.uint8)
        parameter = next(model.parameters())
        found = cost(model, lambda: model.predict(x), parameter.sum, 1)
    assert round(found.multiply_adds / 1e9, 3) == billions


def test_checkpointing_takes_a_dense_net_below_seven_tenths() -> None:
    plain = model_cost("densenet_bc", Images(3, 32, 32), classes=10, batch=64)
    again = model_cost("densenet_bc", Images(3, 32, 32), classes=10, batch=64, checkpointing=True)
    assert again.training_bytes < 0.7 * plain.training_bytes
    assert again.inference_bytes == plain.inference_bytes
    assert again.multiply_adds == plain.multiply_adds


def test_memory_grows_with_the_batch_and_work_a_picture_does_not() -> None:
    one, two = (model_cost("resnet18", Images(3, 64, 64), batch=size) for size in (8, 16))
    assert one.multiply_adds == two.multiply_adds
    assert one.activations == two.activations
    fixed = 2 * one.training_bytes - two.training_bytes
    # what does not grow: weights, momenta and most gradients, 4 bytes each
    assert 8 * one.parameters < fixed < 13 * one.parameters


def test_what_cannot_be_asked_is_named() -> None:
    with pytest.raises(VerbError, match="no predict"):
        model_cost("vae", LARGE)
    with pytest.raises(DomainError, match="at least 4 pixels"):
        model_cost("resnet18", Images(3, 2, 2))
    with pytest.raises(OptionError, match="at least 1"):
        model_cost("resnet18", LARGE, batch=0)
    with pytest.raises(OptionError, match="unknown model"):
        model_cost("resnet19", LARGE)
