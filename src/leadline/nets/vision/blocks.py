"""What vision nets share: convolution with normalisation and activation, the shape of a net, and its start.

Symbols:
    n samples, c channels, h height, w width, d width of the code.

Source:
    Batch normalisation: Ioffe and Szegedy (2015), ICML. Start: He, Zhang, Ren and Sun (2015), Delving Deep
    into Rectifiers, ICCV, equations 10 and 15.
"""

import math
from abc import ABC, abstractmethod
from collections import OrderedDict
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from leadline.core.errors import OptionError
from leadline.core.randomness import generator_for, normal

__all__ = [
    "BatchNorm2d",
    "MaxPool2d",
    "VisionNet",
    "conv_norm",
    "halving",
    "he_start",
    "scaled",
    "unit_start",
]


LANES = 16  # channels that a processor compares at a time


class BatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation that takes a training batch of one value a channel, which has no variance.

    Such a batch (one picture, shrunk to one pixel) is normalised by the running averages, and leaves
    them alone.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised maps: (n, c, h, w) -> (n, c, h, w)."""
        if self.training and x.shape[0] == 1 and x.shape[2] * x.shape[3] == 1:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)


class MaxPool2d(nn.MaxPool2d):
    """Max-pooling that looks for maxima in channels-last order where torch is slow in plain order.

    On a processor torch compares whole vectors of channels in that order, and single numbers in plain
    order. Maxima are looked for there and taken from where they were found, so that values and gradients
    are those of torch to the bit.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the maxima: (n, c, h, w) -> (n, c, h', w')."""
        if not self._slow(x):
            return super().forward(x)
        with torch.no_grad():
            turned = x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
            found, places = F.max_pool2d_with_indices(
                turned,
                _pair(self.kernel_size),
                _pair(self.stride),
                _pair(self.padding),
                _pair(self.dilation),
                self.ceil_mode,
            )
        if not torch.is_grad_enabled():
            return found.contiguous()
        taken = x.flatten(2).gather(2, places.contiguous().flatten(2))  # (n, c, h' w')
        return taken.view(places.shape)

    def _slow(self, x: Tensor) -> bool:
        """Return whether torch would compare single numbers, and many of them."""
        wide = min(_pair(self.kernel_size)) > 2 and x.dim() == 4 and x.shape[1] >= LANES
        return wide and x.device.type == "cpu" and x.is_contiguous() and not torch.compiler.is_compiling()


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


class VisionNet(nn.Module, ABC):
    """A net that ends in one linear layer, so that its code is what that layer reads.

    `heads` names the layers whose size follows from the number of outputs, `stems` those whose size
    follows from the stem, `auxiliary` branches that only training reads, `smallest` the shortest side
    that the stem for large pictures takes.
    """

    heads: ClassVar[tuple[str, ...]]
    stems: ClassVar[tuple[str, ...]] = ()
    auxiliary: ClassVar[tuple[str, ...]] = ()
    smallest: ClassVar[int] = 32

    @abstractmethod
    def code(self, x: Tensor) -> Tensor:
        """Return what the last layer reads: (n, c, h, w) -> (n, d)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return scores of pictures of floats: (n, c, h, w) -> (n, outputs)."""
        return self.get_submodule(self.heads[0])(self.code(x))


def conv_norm(  # noqa: PLR0913
    inputs: int,
    outputs: int,
    kernel: int,
    *,
    stride: int = 1,
    padding: int | None = None,
    groups: int = 1,
    eps: float | None = 1e-5,
    bias: bool = False,
    activation: nn.Module | None = None,
) -> nn.Sequential:
    """Return a convolution `conv`, its normalisation `bn` and its activation `act`, those asked for.

    Args:
        inputs: Channels of the input.
        outputs: Channels of the output.
        kernel: Side of the kernel.
        stride: Step of the kernel.
        padding: Zeros at each side; as many as keep an odd kernel's size if None.
        groups: Groups of channels that do not see each other.
        eps: What batch normalisation adds to the variance; None for no normalisation.
        bias: Whether the convolution has a bias.
        activation: What stands last, or None.
    """
    pad = kernel // 2 if padding is None else padding
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["conv"] = nn.Conv2d(inputs, outputs, kernel, stride, pad, groups=groups, bias=bias)
    if eps is not None:
        layers["bn"] = BatchNorm2d(outputs, eps=eps)
    if activation is not None:
        layers["act"] = activation
    return nn.Sequential(layers)


def halving(kernel: int, *, small: bool) -> MaxPool2d:
    """Return a pool of stride 2; for small pictures a 3 x 3 one that keeps at least one pixel."""
    return MaxPool2d(3, 2, 1) if small else MaxPool2d(kernel, 2, ceil_mode=True)


def scaled(channels: int, width: float, multiple: int = 1) -> int:
    """Return `channels` times `width`, rounded to a multiple and at least one of it.

    Raises:
        OptionError: If `width` is not above zero.
    """
    if not 0 < width < math.inf:
        raise OptionError(f"width must be above 0, got {width}")
    return max(multiple, multiple * round(channels * width / multiple))


def he_start(net: nn.Module, *, slope: float = 0.0, linear: bool = False) -> None:
    """Draw every convolution from N(0, 2 / ((1 + slope^2) fan)), fan counted over the outputs; zero biases.

    Args:
        net: What is started; in place.
        slope: Slope of its rectifiers below zero.
        linear: Whether linear layers but the last get the same start; else they keep torch's.
    """
    linears = [layer for layer in net.modules() if isinstance(layer, nn.Linear)]
    chosen = [
        (layer.weight, layer.bias, "fan_out") for layer in net.modules() if isinstance(layer, nn.Conv2d)
    ]
    chosen += [(layer.weight, layer.bias, "fan_in") for layer in linears[:-1] if linear]
    for weight, bias, mode in chosen:
        nn.init.kaiming_normal_(weight, a=slope, mode=mode)  # type: ignore[arg-type]
        if bias is not None:
            nn.init.zeros_(bias)


@torch.no_grad()
def unit_start(net: nn.Module, shape: tuple[int, ...]) -> None:
    """Scale weights of a net without normalisation so that each layer but the last gives variance 1.

    On small pictures most of what a 3 x 3 convolution reads is padding, and the usual start lets the signal
    of a deep net die away. The variance is that over a few pictures of fixed noise.

    Args:
        net: What is scaled, in place, biases too.
        shape: Channels, height and width of a picture.

    Source:
        Mishkin and Matas (2016), All You Need Is a Good Init, ICLR, algorithm 1, from random weights.
    """
    layers = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d | nn.Linear)][:-1]

    def scaled_output(layer: nn.Module, given: object, output: Tensor) -> Tensor:
        spread = output.std()
        if not bool(spread > 0):
            return output
        for parameter in layer.parameters():
            parameter.div_(spread)
        return output / spread

    if layers[0].weight.is_meta:  # only its shapes are asked for
        return
    count = 16 if min(shape[1:]) < 64 else 4
    hooks = [layer.register_forward_hook(scaled_output) for layer in layers]
    training = net.training
    try:
        net.eval()(normal((count, *shape), layers[0].weight, generator_for(0, "start")))
    finally:
        for hook in hooks:
            hook.remove()
        net.train(training)
