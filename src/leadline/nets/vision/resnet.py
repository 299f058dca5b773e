r"""Residual nets: a stem, stages of residual blocks that halve the sides, a mean over pixels, a linear layer.

For large pictures the stem is a 7 x 7 convolution of stride 2 and a pool of stride 2, for small ones one
3 x 3 convolution.

Symbols:
    n samples, c channels, h height, w width, d channels of the last stage.

Source:
    He, Zhang, Ren and Sun (2016), Deep Residual Learning for Image Recognition, CVPR, table 1 and
    section 4.2 (small pictures). Start: He et al. (2015), Delving Deep into Rectifiers, equation 10.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from leadline.core.errors import OptionError
from leadline.nets.vision.blocks import MaxPool2d, VisionNet, conv_norm, he_start, scaled
from leadline.nets.vision.residual import ResidualBlock

__all__ = ["DEPTHS", "ResNet", "ResNetPlan", "cifar_plan", "imagenet_plan"]

# Depth: blocks of each stage, and whether they are bottlenecks.
DEPTHS: dict[int, tuple[tuple[int, ...], bool]] = {
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
    152: ((3, 8, 36, 3), True),
}


@dataclass(frozen=True)
class ResNetPlan:
    """The numbers of a residual net.

    Args:
        blocks: Blocks of each stage.
        channels: Channels of the stem and of the first stage; each stage doubles them.
        bottleneck: Whether blocks are bottlenecks.
        shortcut: "A", "B", "C" or "none"; see `leadline.nets.vision.residual`.
        early: Whether a bottleneck's stride is on its first convolution.
        small: Whether the stem is that for small pictures.
    """

    blocks: Sequence[int]
    channels: int = 64
    bottleneck: bool = False
    shortcut: str = "B"
    early: bool = False
    small: bool = False


class ResNet(VisionNet):
    """A residual net, or a plain one where the plan's shortcut is "none".

    Args:
        inputs: Channels of the pictures.
        outputs: Number of scores.
        plan: Its numbers.

    Raises:
        OptionError: If a number is out of range.

    Example:
        >>> import torch
        >>> net = ResNet(3, 10, cifar_plan(20))
        >>> net(torch.zeros(2, 3, 32, 32)).shape, net.code(torch.zeros(2, 3, 32, 32)).shape
        (torch.Size([2, 10]), torch.Size([2, 64]))
    """

    heads: ClassVar[tuple[str, ...]] = ("fc",)
    stems: ClassVar[tuple[str, ...]] = ("conv1",)

    def __init__(self, inputs: int, outputs: int, plan: ResNetPlan) -> None:
        super().__init__()
        if plan.channels < 1 or not plan.blocks or min(plan.blocks) < 1:
            raise OptionError(f"channels and blocks must be positive, got {plan.channels}, {plan.blocks}")
        kernel, stride = (3, 1) if plan.small else (7, 2)
        self.conv1, self.bn1 = conv_norm(inputs, plan.channels, kernel, stride=stride)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if plan.small else MaxPool2d(3, 2, 1)
        self.stages: list[str] = []
        channels = plan.channels
        for number, count in enumerate(plan.blocks):
            name = f"layer{number + 1}"
            stage = _stage(channels, plan.channels << number, count, 1 if number == 0 else 2, plan)
            self.add_module(name, stage)
            self.stages.append(name)
            channels = stage[-1].outputs  # type: ignore[assignment]
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, outputs)
        he_start(self)

    def code(self, x: Tensor) -> Tensor:
        """Return the mean over pixels of the last stage: (n, c, h, w) -> (n, d)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for name in self.stages:
            x = self.get_submodule(name)(x)
        return self.avgpool(x).flatten(1)


def _stage(inputs: int, width: int, count: int, stride: int, plan: ResNetPlan) -> nn.Sequential:
    """Return `count` blocks, the first of which changes channels and size."""
    blocks: list[nn.Module] = []
    for number in range(count):
        block = ResidualBlock(
            inputs,
            width,
            stride if number == 0 else 1,
            bottleneck=plan.bottleneck,
            shortcut=plan.shortcut,
            early=plan.early,
        )
        blocks.append(block)
        inputs = block.outputs
    return nn.Sequential(*blocks)


def imagenet_plan(
    depth: int, *, shortcut: str = "B", early: bool = False, small: bool = False, width: float = 1.0
) -> ResNetPlan:
    """Return the plan of a net for large pictures.

    Args:
        depth: 18, 34, 50, 101 or 152 layers with weights.
        shortcut: "A", "B", "C" or "none".
        early: Whether a bottleneck's stride is on its first convolution, as in the paper.
        small: Whether the stem is that for small pictures.
        width: Factor on all channels.

    Raises:
        OptionError: If there is no such depth.
    """
    if depth not in DEPTHS:
        raise OptionError(f"depth must be one of {', '.join(map(str, DEPTHS))}, got {depth}")
    blocks, bottleneck = DEPTHS[depth]
    return ResNetPlan(blocks, scaled(64, width), bottleneck, shortcut, early, small)


def cifar_plan(depth: int, *, shortcut: str = "A", width: float = 1.0) -> ResNetPlan:
    """Return the plan of a net for small pictures: three stages of (depth - 2) / 6 blocks.

    Raises:
        OptionError: If the depth is not 6 n + 2.
    """
    if depth < 8 or (depth - 2) % 6:
        raise OptionError(f"depth must be 6 n + 2, such as 20, 32, 44, 56 or 110, got {depth}")
    return ResNetPlan([(depth - 2) // 6] * 3, scaled(16, width), shortcut=shortcut, small=True)
