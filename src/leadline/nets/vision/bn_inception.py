r"""Inception with batch normalisation: each 5 x 5 is two 3 x 3, modules with a stride replace pools.

For small pictures the first convolution is 3 x 3 without stride or pool.

Symbols:
    n samples, c channels, h height, w width, d channels of the last module.

Source:
    Ioffe and Szegedy (2015), Batch Normalization, ICML, section 4.2.1 and figure 5.

Departs from the source:
    Convolutions keep their biases, as in the published weights; module 4c gives 608 channels, the sum of its
    branches, where the figure prints 576.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from leadline.nets.vision.blocks import MaxPool2d, VisionNet, conv_norm, halving, he_start, scaled

__all__ = ["ROWS", "BNInception"]

# Module: channels of 1 x 1; 3 x 3 reduced, 3 x 3; double 3 x 3 reduced, double 3 x 3; behind the pool.
# A module without 1 x 1 halves the sides and passes its pool on as it is.
ROWS: dict[str, tuple[int, int, int, int, int, int]] = {
    "3a": (64, 64, 64, 64, 96, 32),
    "3b": (64, 64, 96, 64, 96, 64),
    "3c": (0, 128, 160, 64, 96, 0),
    "4a": (224, 64, 96, 96, 128, 128),
    "4b": (192, 96, 128, 96, 128, 128),
    "4c": (160, 128, 160, 128, 160, 128),
    "4d": (96, 128, 192, 160, 192, 128),
    "4e": (0, 128, 192, 192, 256, 0),
    "5a": (352, 192, 320, 160, 224, 128),
    "5b": (352, 192, 320, 192, 224, 128),
}
MAXIMUM = ("3c", "4e", "5b")  # modules that pool by the maximum; the others by the mean


class BNInception(VisionNet):
    """Inception with batch normalisation.

    Args:
        inputs: Channels of the pictures.
        outputs: Number of scores.
        small: Whether the stem is that for small pictures.
        width: Factor on all channels.
    """

    heads: ClassVar[tuple[str, ...]] = ("fc",)
    stems: ClassVar[tuple[str, ...]] = ("conv1",)

    def __init__(self, inputs: int, outputs: int, *, small: bool = False, width: float = 1.0) -> None:
        super().__init__()
        start, middle = scaled(64, width), scaled(192, width)
        self.conv1 = _conv(inputs, start, 3 if small else 7, 1 if small else 2)
        self.maxpool1 = nn.Identity() if small else halving(3, small=False)
        self.conv2 = _conv(start, start, 1)
        self.conv3 = _conv(start, middle, 3)
        self.maxpool2 = halving(3, small=small)
        channels = middle
        for name, row in ROWS.items():
            module = _Inception(channels, [scaled(wide, width) if wide else 0 for wide in row], name)
            self.add_module(f"inception{name}", module)
            channels = module.outputs
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, outputs)
        he_start(self)

    def code(self, x: Tensor) -> Tensor:
        """Return the mean over pixels of the last module: (n, c, h, w) -> (n, d)."""
        x = self.maxpool2(self.conv3(self.conv2(self.maxpool1(self.conv1(x)))))
        for name in ROWS:
            x = self.get_submodule(f"inception{name}")(x)
        return self.avgpool(x).flatten(1)


class _Inception(nn.Module):
    """Branches side by side: (n, inputs, h, w) -> (n, outputs, h, w), half the sides without a 1 x 1."""

    def __init__(self, inputs: int, row: list[int], name: str) -> None:
        super().__init__()
        one, reduced, three, reduced_twice, twice, pooled = row
        stride = 1 if one else 2
        self.outputs = one + three + twice + (pooled or inputs)
        branches: list[nn.Module] = [_conv(inputs, one, 1)] if one else []
        branches.append(nn.Sequential(_conv(inputs, reduced, 1), _conv(reduced, three, 3, stride)))
        double = (_conv(reduced_twice, twice, 3), _conv(twice, twice, 3, stride))
        branches.append(nn.Sequential(_conv(inputs, reduced_twice, 1), *double))
        # A side of odd length keeps its last pixel in both kinds of branch, as a 3 x 3 with one zero does
        pool = MaxPool2d(3, stride, 1) if name in MAXIMUM else nn.AvgPool2d(3, stride, 1)
        branches.append(nn.Sequential(pool, _conv(inputs, pooled, 1)) if pooled else pool)
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Return a normalised, rectified convolution with a bias."""
    return conv_norm(inputs, outputs, kernel, stride=stride, bias=True, activation=nn.ReLU(inplace=True))
