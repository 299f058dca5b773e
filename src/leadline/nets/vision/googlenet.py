r"""GoogLeNet: inception modules, each a 1 x 1, a 3 x 3, a 5 x 5 and a pooled branch side by side.

    torchvision: batch normalisation (eps 1e-3), no biases, 3 x 3 in place of 5 x 5
    paper: 5 x 5, biases, local response normalisation in the stem

Two auxiliary heads branch off behind the modules 4a and 4d; training reads them, prediction does not.
For small pictures the first convolution is 3 x 3 without stride or pool.

Symbols:
    n samples, c channels, h height, w width, k outputs, d channels of the last module.

Source:
    Szegedy et al. (2015), Going Deeper with Convolutions, CVPR, table 1 and section 5. Normalised
    convolutions: Ioffe and Szegedy (2015).
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from leadline.nets.vision.blocks import MaxPool2d, VisionNet, conv_norm, halving, he_start, scaled

__all__ = ["ROWS", "GoogLeNet"]

# Module: channels of 1 x 1; 3 x 3 reduced, 3 x 3; 5 x 5 reduced, 5 x 5; behind the pool.
ROWS: dict[str, tuple[int, int, int, int, int, int]] = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
POOLED = {"4a": "maxpool3", "5a": "maxpool4"}  # the pool before a module
DROPOUT = {"torchvision": 0.2, "paper": 0.4}
AUXILIARY = {"4a": "aux1", "4d": "aux2"}


class GoogLeNet(VisionNet):
    """GoogLeNet with its auxiliary heads.

    Args:
        inputs: Channels of the pictures.
        outputs: Number of scores.
        variant: "torchvision" or "paper".
        small: Whether the stem is that for small pictures.
        width: Factor on all channels.
        branched: Whether there are auxiliary heads.
    """

    heads: ClassVar[tuple[str, ...]] = ("fc", "aux1.fc2", "aux2.fc2")
    stems: ClassVar[tuple[str, ...]] = ("conv1",)
    auxiliary: ClassVar[tuple[str, ...]] = ("aux1", "aux2")

    def __init__(
        self,
        inputs: int,
        outputs: int,
        variant: str = "torchvision",
        *,
        small: bool = False,
        width: float = 1.0,
        branched: bool = True,
    ) -> None:
        super().__init__()
        self.paper = variant == "paper"
        start, middle = scaled(64, width), scaled(192, width)
        self.conv1 = _conv(inputs, start, 3 if small else 7, self.paper, stride=1 if small else 2)
        self.maxpool1 = nn.Identity() if small else halving(3, small=False)
        self.conv2 = _conv(start, start, 1, self.paper)
        self.conv3 = _conv(start, middle, 3, self.paper)
        self.maxpool2 = halving(3, small=small)
        # torch divides alpha by the five channels
        self.response = nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0) if self.paper else nn.Identity()
        self.maxpool3 = halving(3, small=small)
        self.maxpool4 = halving(3 if self.paper else 2, small=small)
        channels, branches = middle, {}
        for name, row in ROWS.items():
            module = _Inception(channels, [scaled(wide, width) for wide in row], paper=self.paper)
            self.add_module(f"inception{name}", module)
            channels = module.outputs
            if branched and name in AUXILIARY:
                branches[AUXILIARY[name]] = _Auxiliary(channels, outputs, width, paper=self.paper)
        self.branched = branched
        for name, branch in branches.items():
            self.add_module(name, branch)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(DROPOUT[variant])
        self.fc = nn.Linear(channels, outputs)
        he_start(self)

    def code(self, x: Tensor) -> Tensor:
        """Return the mean over pixels of the last module: (n, c, h, w) -> (n, d)."""
        return self._code(x, [])

    def with_auxiliary(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the scores, and those of the auxiliary heads: (n, c, h, w) -> (n, k), two of (n, k)."""
        maps: list[Tensor] = []
        scores = self.fc(self._code(x, maps))
        return scores, [self.get_submodule(n)(m) for n, m in zip(self.auxiliary, maps, strict=True)]

    def _code(self, x: Tensor, branches: list[Tensor]) -> Tensor:
        """Return the code, and add to `branches` the maps that auxiliary heads read."""
        x = self.response(self.maxpool1(self.conv1(x)))
        x = self.maxpool2(self.response(self.conv3(self.conv2(x))))
        for name in ROWS:
            if name in POOLED:
                x = self.get_submodule(POOLED[name])(x)
            x = self.get_submodule(f"inception{name}")(x)
            if name in AUXILIARY:
                branches.append(x)
        return self.dropout(self.avgpool(x).flatten(1))


class _Inception(nn.Module):
    """Four branches side by side: (n, inputs, h, w) -> (n, outputs, h, w)."""

    def __init__(self, inputs: int, row: list[int], *, paper: bool) -> None:
        super().__init__()
        one, reduced3, three, reduced5, five, pooled = row
        self.outputs = one + three + five + pooled
        self.branch1 = _conv(inputs, one, 1, paper)
        self.branch2 = nn.Sequential(_conv(inputs, reduced3, 1, paper), _conv(reduced3, three, 3, paper))
        side = 5 if paper else 3
        self.branch3 = nn.Sequential(_conv(inputs, reduced5, 1, paper), _conv(reduced5, five, side, paper))
        self.branch4 = nn.Sequential(MaxPool2d(3, 1, 1), _conv(inputs, pooled, 1, paper))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class _Auxiliary(nn.Module):
    """A head on the way: (n, c, h, w) -> (n, outputs)."""

    def __init__(self, inputs: int, outputs: int, width: float, *, paper: bool) -> None:
        super().__init__()
        channels, units = scaled(128, width), scaled(1024, width)
        self.conv = _conv(inputs, channels, 1, paper)
        self.fc1 = nn.Linear(channels * 16, units)
        self.fc2 = nn.Linear(units, outputs)
        self.dropout = nn.Dropout(0.7)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(F.adaptive_avg_pool2d(x, 4)).flatten(1)
        return self.fc2(self.dropout(F.relu_(self.fc1(x))))


def _conv(inputs: int, outputs: int, kernel: int, paper: bool, stride: int = 1) -> nn.Sequential:  # noqa: FBT001
    """Return a convolution as the variant has it, rectified."""
    eps = None if paper else 1e-3
    return conv_norm(
        inputs, outputs, kernel, stride=stride, eps=eps, bias=paper, activation=nn.ReLU(inplace=True)
    )
