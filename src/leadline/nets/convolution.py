"""Convolutional encoders and decoders for pictures of any height and width.

A stage halves a side, rounding up, while it is longer than three pixels; a decoder goes the same way back,
so that it ends at exactly the size asked for.

Symbols:
    n samples, c channels, h height, w width.

Source:
    Strided and transposed convolutions with batch normalisation: Radford, Metz and Chintala (2016),
    Unsupervised Representation Learning with Deep Convolutional GANs, section 3.
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from leadline.core.errors import OptionError, unknown_name
from leadline.nets.dense import NORMS, activation_layer

__all__ = ["ConvDecoder", "ConvEncoder", "halved_sizes"]

_SHORTEST = 3  # a side that is not longer is not halved


class ConvEncoder(nn.Module):
    """Convolutional stages and one linear layer: (n, c, h, w) -> (n, out).

    Args:
        planes: Channels, height and width of the input.
        out: Number of outputs.
        channels: Channels of each stage.
        activation: A name in `nets.dense.ACTIVATIONS`.
        norm: "batch", "layer" (over channels and pixels of one sample) or "none".
        pooled: Whether a stage halves by max-pooling behind a full convolution, instead of by a stride;
            four times the work of the stage.

    Raises:
        OptionError: If a name is unknown or a number out of range.
    """

    def __init__(
        self,
        planes: tuple[int, int, int],
        out: int,
        channels: Sequence[int] = (32, 64, 128),
        *,
        activation: str = "relu",
        norm: str = "batch",
        pooled: bool = False,
    ) -> None:
        super().__init__()
        _check(planes, channels, out)
        sizes = halved_sizes(planes[1:], len(channels))
        layers: list[nn.Module] = []
        for (inputs, outputs), (before, after) in zip(
            pairwise([planes[0], *channels]), pairwise(sizes), strict=True
        ):
            stride = _strides(before, after)
            layers.append(nn.Conv2d(inputs, outputs, 3, 1 if pooled else stride, 1, bias=norm != "batch"))
            layers.extend(_behind(outputs, activation, norm))
            if pooled and max(stride) > 1:
                layers.append(nn.MaxPool2d(stride, ceil_mode=True))
        self.trunk = nn.Sequential(*layers)
        self.head = nn.Linear(channels[-1] * sizes[-1][0] * sizes[-1][1], out)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs of pictures of floats: (n, c, h, w) -> (n, out)."""
        return self.head(self.trunk(x).flatten(1))


class ConvDecoder(nn.Module):
    """One linear layer and transposed convolutions: (n, inputs) -> (n, c, h, w).

    Args:
        inputs: Number of inputs.
        planes: Channels, height and width of the output.
        channels: Channels of each stage, from the code to the picture.
        activation: A name in `nets.dense.ACTIVATIONS`; none stands behind the last stage.
        norm: "batch", "layer" (over channels and pixels of one sample) or "none".

    Raises:
        OptionError: If a name is unknown or a number out of range.
    """

    def __init__(
        self,
        inputs: int,
        planes: tuple[int, int, int],
        channels: Sequence[int] = (128, 64, 32),
        *,
        activation: str = "relu",
        norm: str = "batch",
    ) -> None:
        super().__init__()
        _check(planes, channels, inputs)
        sizes = halved_sizes(planes[1:], len(channels))[::-1]
        self.start = (channels[0], *sizes[0])
        self.head = nn.Linear(inputs, channels[0] * sizes[0][0] * sizes[0][1])
        layers: list[nn.Module] = _behind(channels[0], activation, norm)
        for stage, (before, after) in enumerate(pairwise(sizes)):
            last = stage == len(channels) - 1
            outputs = planes[0] if last else channels[stage + 1]
            stride = _strides(after, before)
            # A kernel of 4 leads to 2 s pixels, one of 3 to 2 s - 1 (stride 2) or to s (stride 1).
            kernel = tuple(4 if to == 2 * side else 3 for side, to in zip(before, after, strict=True))
            bias = last or norm != "batch"
            layers.append(nn.ConvTranspose2d(channels[stage], outputs, kernel, stride, 1, bias=bias))  # type: ignore[arg-type]
            layers.extend([] if last else _behind(outputs, activation, norm))
        self.trunk = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:
        """Return pictures of floats: (n, inputs) -> (n, c, h, w)."""
        return self.trunk(self.head(z).unflatten(1, self.start))


def halved_sizes(size: Sequence[int], times: int) -> list[tuple[int, int]]:
    """Return height and width before and behind each of `times` stages, `times` + 1 of them."""
    sizes = [(size[0], size[1])]
    for _ in range(times):
        height, width = sizes[-1]
        sizes.append((_halved(height), _halved(width)))
    return sizes


def _halved(side: int) -> int:
    """Return half of a side, rounded up, or the side itself if it is short."""
    return side if side <= _SHORTEST else (side + 1) // 2


def _strides(long: tuple[int, int], short: tuple[int, int]) -> tuple[int, int]:
    """Return the stride of each axis that leads from `long` sides to `short` ones."""
    return 1 + (long[0] != short[0]), 1 + (long[1] != short[1])


def _behind(channels: int, activation: str, norm: str) -> list[nn.Module]:
    """Return what stands behind a convolution: normalisation, if any, and activation."""
    if norm not in NORMS:
        raise unknown_name("norm", norm, NORMS)
    layers: dict[str, list[nn.Module]] = {
        "none": [],
        "batch": [nn.BatchNorm2d(channels)],
        "layer": [nn.GroupNorm(1, channels)],
    }
    return [*layers[norm], activation_layer(activation)]


def _check(planes: tuple[int, int, int], channels: Sequence[int], width: int) -> None:
    """Check that every size is positive."""
    if len(planes) != 3 or not channels or min(*planes, *channels, width) < 1:
        raise OptionError(
            f"planes, channels and width must be positive, got {tuple(planes)}, {tuple(channels)}, {width}"
        )
