r"""Densely connected nets: every layer reads the maps of all layers before it.

    x_l = H_l([x_0, ..., x_{l-1}]),    H = norm, relu, 1 x 1 convolution to 4 k maps, norm, relu, 3 x 3 to k

A transition between two blocks is norm, relu, 1 x 1 convolution to a fraction of the maps, mean over 2 x 2.

Symbols:
    n samples, c channels, h height, w width, k growth, L layers of a block, d channels of the last block.

Source:
    Huang, Liu, van der Maaten and Weinberger (2017), Densely Connected Convolutional Networks, CVPR,
    equation 2, table 1 and section 3 (small pictures). Memory: Pleiss et al. (2017), Memory-Efficient
    Implementation of DenseNets.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from leadline.core.errors import OptionError
from leadline.nets.vision.blocks import BatchNorm2d, MaxPool2d, VisionNet, he_start

__all__ = ["DEPTHS", "DenseNet", "DenseNetPlan", "bc_plan", "imagenet_plan"]

# Depth: layers of each block, growth, channels of the stem.
DEPTHS: dict[int, tuple[tuple[int, ...], int, int]] = {
    121: ((6, 12, 24, 16), 32, 64),
    161: ((6, 12, 36, 24), 48, 96),
    169: ((6, 12, 32, 32), 32, 64),
    201: ((6, 12, 48, 32), 32, 64),
}
WIDENING = 4  # maps of a bottleneck, in growths


@dataclass(frozen=True)
class DenseNetPlan:
    """The numbers of a DenseNet.

    Args:
        blocks: Layers of each block.
        growth: Maps that a layer adds.
        start: Channels of the stem.
        bottleneck: Whether a layer begins with a 1 x 1 convolution.
        compression: Fraction of the maps that a transition keeps, in (0, 1].
        opened: Whether the stem ends in normalisation and rectifier.
        small: Whether the stem is that for small pictures.
        dropout: Probability that a map of a layer is left out during training, in [0, 1).
    """

    blocks: Sequence[int]
    growth: int = 32
    start: int = 64
    bottleneck: bool = True
    compression: float = 0.5
    opened: bool = True
    small: bool = False
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if min(self.growth, self.start, *self.blocks) < 1:
            raise OptionError(f"growth, start and blocks must be positive, got {self}")
        if not (0 < self.compression <= 1 and 0 <= self.dropout < 1):
            raise OptionError(
                f"compression must be in (0, 1] and dropout in [0, 1), got {self.compression}, {self.dropout}"
            )


class DenseNet(VisionNet):
    """A densely connected net.

    Args:
        inputs: Channels of the pictures.
        outputs: Number of scores.
        plan: Its numbers.
        checkpointing: Whether joined maps and what follows up to a layer's first convolution are computed
            again for the gradient instead of being kept; the same gradients in less memory.

    Example:
        >>> import torch
        >>> net = DenseNet(3, 10, bc_plan(22, growth=12))
        >>> net(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    heads: ClassVar[tuple[str, ...]] = ("classifier",)
    stems: ClassVar[tuple[str, ...]] = ("features.conv0",)

    def __init__(self, inputs: int, outputs: int, plan: DenseNetPlan, *, checkpointing: bool = False) -> None:
        super().__init__()
        channels = plan.start
        kernel, stride = (3, 1) if plan.small else (7, 2)
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        parts["conv0"] = nn.Conv2d(inputs, channels, kernel, stride, kernel // 2, bias=False)
        if plan.opened:
            parts["norm0"] = BatchNorm2d(channels)
            parts["relu0"] = nn.ReLU(inplace=True)
            parts["pool0"] = nn.Identity() if plan.small else MaxPool2d(3, 2, 1)
        for number, layers in enumerate(plan.blocks, 1):
            parts[f"denseblock{number}"] = _DenseBlock(channels, layers, plan, checkpointing=checkpointing)
            channels += layers * plan.growth
            if number < len(plan.blocks):
                kept = max(1, int(channels * plan.compression))
                parts[f"transition{number}"] = _transition(channels, kept, small=plan.small)
                channels = kept
        parts["norm5"] = BatchNorm2d(channels)
        self.features = nn.Sequential(parts)
        self.classifier = nn.Linear(channels, outputs)
        he_start(self)
        nn.init.zeros_(self.classifier.bias)

    def code(self, x: Tensor) -> Tensor:
        """Return the mean over pixels of the last block, rectified: (n, c, h, w) -> (n, d)."""
        return F.adaptive_avg_pool2d(F.relu_(self.features(x)), 1).flatten(1)


class _DenseLayer(nn.Module):
    """One layer: maps of all layers before it -> `growth` maps."""

    def __init__(self, inputs: int, plan: DenseNetPlan) -> None:
        super().__init__()
        middle = WIDENING * plan.growth if plan.bottleneck else plan.growth
        kernel = 1 if plan.bottleneck else 3
        self.norm1 = BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, middle, kernel, padding=kernel // 2, bias=False)
        self.bottleneck = plan.bottleneck
        if plan.bottleneck:
            self.norm2 = BatchNorm2d(middle)
            self.conv2 = nn.Conv2d(middle, plan.growth, 3, padding=1, bias=False)
        self.dropout = plan.dropout

    def joined(self, normalise: Callable[[Tensor], Tensor], *maps: Tensor) -> Tensor:
        """Return the first convolution of all maps before."""
        return self.conv1(F.relu_(normalise(torch.cat(maps, 1))))

    def forward(self, maps: list[Tensor], *, checkpointing: bool) -> Tensor:
        if checkpointing:
            out = checkpoint(
                self.joined, _Once(self.norm1), *maps, use_reentrant=False, preserve_rng_state=False
            )
        else:
            out = self.joined(self.norm1, *maps)
        if self.bottleneck:
            out = self.conv2(F.relu_(self.norm2(out)))
        return F.dropout(out, self.dropout, self.training) if self.dropout else out


class _Once:
    """A normalisation that moves its running averages the first time only: the second is for the gradient."""

    def __init__(self, norm: BatchNorm2d) -> None:
        self.norm = norm
        self.seen = False

    def __call__(self, x: Tensor) -> Tensor:
        if not (self.seen and self.norm.training):
            self.seen = True
            return self.norm(x)
        norm = self.norm
        mean, var = (cast(Tensor, value).clone() for value in (norm.running_mean, norm.running_var))
        whole = x.shape[0] * x.shape[2] * x.shape[3] > 1
        return F.batch_norm(x, mean, var, norm.weight, norm.bias, whole, 0.0, norm.eps)


class _DenseBlock(nn.Module):
    """Layers that read all before them: (n, inputs, h, w) -> (n, inputs + L k, h, w)."""

    def __init__(self, inputs: int, layers: int, plan: DenseNetPlan, *, checkpointing: bool) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        for number in range(layers):
            self.add_module(f"denselayer{number + 1}", _DenseLayer(inputs + number * plan.growth, plan))

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        again = self.checkpointing and torch.is_grad_enabled()
        for layer in self.children():
            maps.append(layer(maps, checkpointing=again))
        return torch.cat(maps, 1)


def _transition(inputs: int, outputs: int, *, small: bool) -> nn.Sequential:
    """Return what stands between two blocks."""
    return nn.Sequential(
        OrderedDict(
            norm=BatchNorm2d(inputs),
            relu=nn.ReLU(inplace=True),
            conv=nn.Conv2d(inputs, outputs, 1, bias=False),
            pool=nn.AvgPool2d(2, 2, ceil_mode=small),
        )
    )


def imagenet_plan(depth: int, *, growth: int | None = None, small: bool = False) -> DenseNetPlan:
    """Return the plan of a net for large pictures.

    Args:
        depth: 121, 161, 169 or 201 layers with weights.
        growth: Maps that a layer adds; that of the paper if None.
        small: Whether the stem is that for small pictures.

    Raises:
        OptionError: If there is no such depth.
    """
    if depth not in DEPTHS:
        raise OptionError(f"depth must be one of {', '.join(map(str, DEPTHS))}, got {depth}")
    blocks, usual, start = DEPTHS[depth]
    wide = usual if growth is None else growth
    return DenseNetPlan(blocks, wide, start if growth is None else 2 * growth, small=small)


def bc_plan(
    depth: int = 100,
    growth: int = 12,
    *,
    bottleneck: bool = True,
    compression: float = 0.5,
    dropout: float = 0.0,
) -> DenseNetPlan:
    """Return the plan of a net for small pictures: three blocks of (depth - 4) / 3 convolutions.

    The paper's DenseNet without B and C is bottleneck=False, compression=1.

    Raises:
        OptionError: If the depth does not give whole layers.
    """
    step = 6 if bottleneck else 3
    if depth < step + 4 or (depth - 4) % step:
        raise OptionError(f"depth must be {step} n + 4, such as {40 if step == 3 else 100}, got {depth}")
    start = 2 * growth if bottleneck and compression < 1 else 16
    layers = [(depth - 4) // step] * 3
    return DenseNetPlan(
        layers, growth, start, bottleneck, compression, opened=False, small=True, dropout=dropout
    )
