"""Residual blocks and nets: the formula written out, the ways around, the counts."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from leadline.core import OptionError
from leadline.nets.vision.prelu_net import PReLUNet
from leadline.nets.vision.residual import ResidualBlock
from leadline.nets.vision.resnet import ResNet, ResNetPlan, cifar_plan, imagenet_plan

Move = Callable[[nn.Module], nn.Module]


def normalised(x: Tensor, norm: nn.Module) -> Tensor:
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True, unbiased=False)
    scale, shift = (v.view(1, -1, 1, 1) for v in (norm.weight, norm.bias))
    return (x - mean) / (var + 1e-5).sqrt() * scale + shift


@pytest.mark.parametrize("shortcut", ["A", "B", "C", "none"])
@pytest.mark.parametrize(("inputs", "stride"), [(4, 1), (2, 2)])
def test_a_block_is_its_formula(shortcut: str, inputs: int, stride: int, moved: Move) -> None:
    block = moved(ResidualBlock(inputs, 4, stride, shortcut=shortcut)).double()
    x = torch.randn(3, inputs, 6, 6).double()
    h = F.relu(normalised(F.conv2d(x, block.conv1.weight, stride=stride, padding=1), block.bn1))
    h = normalised(F.conv2d(h, block.conv2.weight, padding=1), block.bn2)
    if shortcut == "C" or (shortcut == "B" and stride == 2):
        way = normalised(F.conv2d(x, block.downsample[0].weight, stride=stride), block.downsample[1])
    elif shortcut == "none":
        way = torch.zeros_like(h)
    else:
        way = torch.zeros_like(h)
        way[:, :inputs] = x[:, :, ::stride, ::stride]
    torch.testing.assert_close(block(x), F.relu(h + way))


@pytest.mark.parametrize("early", [False, True])
def test_the_stride_of_a_bottleneck_is_where_the_variant_says(early: bool) -> None:
    block = ResidualBlock(8, 4, 2, bottleneck=True, early=early)
    assert [block.conv1.stride, block.conv2.stride] == ([(2, 2), (1, 1)] if early else [(1, 1), (2, 2)])
    assert block(torch.randn(2, 8, 6, 6)).shape == (2, 16, 3, 3)


@pytest.mark.parametrize(
    ("plan", "outputs", "count"),
    [
        (imagenet_plan(18), 1000, 11_689_512),
        (imagenet_plan(34), 1000, 21_797_672),
        (imagenet_plan(34, shortcut="A"), 1000, 21_623_848),
        (imagenet_plan(34, shortcut="none"), 1000, 21_623_848),
        (imagenet_plan(34, shortcut="C"), 1000, 22_716_840),
        (imagenet_plan(50), 1000, 25_557_032),
        (imagenet_plan(50, early=True), 1000, 25_557_032),
        (imagenet_plan(101), 1000, 44_549_160),
        (imagenet_plan(152), 1000, 60_192_808),
        (cifar_plan(20), 10, 269_722),
        (cifar_plan(32), 10, 464_154),
        (cifar_plan(44), 10, 658_586),
        (cifar_plan(56), 10, 853_018),
        (cifar_plan(110), 10, 1_727_962),
        (cifar_plan(1202), 10, 19_421_274),
    ],
)
def test_parameter_counts_hold_to_the_unit(plan: ResNetPlan, outputs: int, count: int) -> None:
    with torch.device("meta"):
        net = ResNet(3, outputs, plan)
    assert sum(parameter.numel() for parameter in net.parameters()) == count


def off(weight: torch.Tensor, variance: float) -> float:
    """Return by how many standard errors the variance of normal draws differs from what it should be."""
    return abs(float(weight.detach().var()) / variance - 1) / (2 / weight.numel()) ** 0.5


def test_convolutions_start_at_the_variance_that_keeps_gradients() -> None:
    net = ResNet(3, 10, cifar_plan(20))
    for name, outputs in (("layer3.1.conv1", 64), ("layer3.0.conv1", 64), ("layer2.0.conv1", 32)):
        weight = net.get_submodule(name).weight  # those that halve the sides have half as many inputs
        assert off(weight, 2 / (outputs * 9)) < 4, name


def test_slopes_and_dense_layers_have_their_part_in_the_start() -> None:
    net = PReLUNet(3, 10, "A", small=True, width=0.25)
    for layer in (net.features[3], net.features[14]):
        assert off(layer.weight, 2 / ((1 + 0.25**2) * layer.out_channels * 9)) < 4
    hidden = net.classifier[0]
    assert off(hidden.weight, 2 / ((1 + 0.25**2) * hidden.in_features)) < 4
    assert not any(bool(layer.bias.any()) for layer in (hidden, net.features[3]))
    assert bool(net.classifier[-1].bias.any())  # the last layer keeps torch's start


def test_a_training_batch_of_one_value_a_channel_is_normalised_by_the_averages() -> None:
    net = ResNet(3, 10, imagenet_plan(18, small=True, width=0.125)).train()
    before = net.get_submodule("layer4.1.bn2").running_mean.clone()
    net(torch.randn(1, 3, 8, 8)).sum().backward()
    assert torch.equal(net.get_submodule("layer4.1.bn2").running_mean, before)
    assert not torch.equal(net.bn1.running_mean, torch.zeros(8))


def test_what_is_out_of_range_is_named() -> None:
    with pytest.raises(OptionError, match=r"depth must be 6 n \+ 2.*got 21"):
        cifar_plan(21)
    with pytest.raises(OptionError, match=r"depth must be one of 18, 34.*got 19"):
        imagenet_plan(19)
    with pytest.raises(OptionError, match='unknown shortcut "D"'):
        ResNet(3, 10, cifar_plan(8, shortcut="D"))
    for width in (0, -1.0, float("nan")):
        with pytest.raises(OptionError, match="width must be above 0"):
            imagenet_plan(18, width=width)
