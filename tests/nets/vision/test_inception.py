"""Nets that torchvision lacks: inception modules and pyramids written out by hand."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from leadline.nets.vision.bn_inception import BNInception
from leadline.nets.vision.prelu_net import PReLUNet

Move = Callable[[nn.Module], nn.Module]
# Figure 5 of Ioffe and Szegedy (2015): what each module pools by; those with a stride pass their pool on
POOLED = {
    "3a": "mean", "3b": "mean", "3c": "max, halved", "4a": "mean", "4b": "mean", "4c": "mean", "4d": "mean",
    "4e": "max, halved", "5a": "mean", "5b": "max",
}  # fmt: skip


def rectified(x: Tensor, layer: nn.Module, stride: int = 1) -> Tensor:
    """Return a convolution, normalised by its running averages and rectified."""
    conv, norm = layer.conv, layer.bn
    y = F.conv2d(x, conv.weight, conv.bias, stride=stride, padding=conv.weight.shape[-1] // 2)
    mean, var, scale, shift = (
        v.view(1, -1, 1, 1) for v in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    return F.relu((y - mean) / (var + 1e-5).sqrt() * scale + shift)


@pytest.mark.parametrize("name", POOLED)
def test_an_inception_module_is_its_branches_side_by_side(name: str, moved: Move) -> None:
    net = moved(BNInception(3, 5, small=True, width=0.0625)).double().eval()
    module = net.get_submodule(f"inception{name}")
    inputs = module.branches[-2][0].conv.in_channels  # the double branch's reduction
    x = torch.randn(2, inputs, 7, 6, dtype=torch.float64)
    halved = "halved" in POOLED[name]
    stride = 2 if halved else 1
    branches = list(module.branches)
    expected = [] if halved else [rectified(x, branches.pop(0))]
    single, double, last = branches
    expected.append(rectified(rectified(x, single[0]), single[1], stride))
    expected.append(rectified(rectified(rectified(x, double[0]), double[1]), double[2], stride))
    if halved:
        expected.append(F.max_pool2d(x, 3, 2, 1))
    else:
        pool = F.max_pool2d if POOLED[name] == "max" else F.avg_pool2d
        expected.append(rectified(pool(x, 3, 1, 1), last[1]))
    torch.testing.assert_close(module(x), torch.cat(expected, 1))


def test_a_prelu_net_is_three_stages_and_a_pyramid_of_maxima(moved: Move) -> None:
    net = moved(PReLUNet(3, 5, "A", small=True, width=0.03125)).double().eval()
    x = torch.randn(2, 3, 12, 12, dtype=torch.float64)
    convs = [part for part in net.features if isinstance(part, nn.Conv2d)]
    acts = [part for part in net.features if isinstance(part, nn.PReLU)]
    assert len(convs) == 16  # the stem and three stages of five
    h = x
    for number, (conv, act) in enumerate(zip(convs, acts, strict=True)):
        h = F.max_pool2d(h, 2) if number in (6, 11) else h  # 12 -> 6 -> 3 pixels, before stages two and three
        h = F.conv2d(h, conv.weight, conv.bias, padding=1)
        h = torch.where(h > 0, h, h * act.weight.view(1, -1, 1, 1))
    # cells of 2 x 2 on 3 pixels overlap: rows 0 and 1, and rows 1 and 2
    quarters = [h[:, :, r : r + 2, c : c + 2].amax((2, 3)) for r in (0, 1) for c in (0, 1)]
    flat = torch.cat([torch.stack(quarters, 2).flatten(1), h.amax((2, 3))], 1)
    first, slope, _, second, other, _, _ = net.classifier
    units = F.linear(flat, first.weight, first.bias)
    units = torch.where(units > 0, units, units * slope.weight)
    units = F.linear(units, second.weight, second.bias)
    torch.testing.assert_close(net.code(x), torch.where(units > 0, units, units * other.weight))
