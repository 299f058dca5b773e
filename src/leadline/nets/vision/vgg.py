r"""VGG nets: stages of 3 x 3 convolutions with a pool between, and three dense layers.

For small pictures pools keep at least one pixel, and the dense layers read one pixel instead of 7 x 7.

Symbols:
    n samples, c channels, h height, w width, d units of the last hidden layer.

Source:
    Simonyan and Zisserman (2015), Very Deep Convolutional Networks for Large-Scale Image Recognition, ICLR,
    table 1, columns A, B, D and E.
"""

from typing import ClassVar

from torch import Tensor, nn

from leadline.core.errors import OptionError
from leadline.nets.vision.blocks import VisionNet, conv_norm, he_start, scaled

__all__ = ["DEPTHS", "VGG"]

# Depth: convolutions of each stage.
DEPTHS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
CHANNELS = (64, 128, 256, 512, 512)
DENSE = 4096


class VGG(VisionNet):
    """A VGG net.

    Args:
        inputs: Channels of the pictures.
        outputs: Number of scores.
        depth: 11, 13, 16 or 19 layers with weights.
        normalised: Whether batch normalisation stands behind each convolution.
        small: Whether the net is to take small pictures.
        width: Factor on all channels and units.

    Raises:
        OptionError: If there is no such depth.
    """

    heads: ClassVar[tuple[str, ...]] = ("classifier.6",)
    stems: ClassVar[tuple[str, ...]] = ("classifier.0",)

    def __init__(
        self,
        inputs: int,
        outputs: int,
        depth: int = 16,
        *,
        normalised: bool = False,
        small: bool = False,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        if depth not in DEPTHS:
            raise OptionError(f"depth must be one of {', '.join(map(str, DEPTHS))}, got {depth}")
        layers: list[nn.Module] = []
        eps = 1e-5 if normalised else None
        for wide, count in zip(CHANNELS, DEPTHS[depth], strict=True):
            for _ in range(count):
                channels = scaled(wide, width)
                layers += conv_norm(inputs, channels, 3, eps=eps, bias=True, activation=nn.ReLU(inplace=True))
                inputs = channels
            layers.append(nn.MaxPool2d(2, ceil_mode=small))
        self.features = nn.Sequential(*layers)
        side, units = 1 if small else 7, scaled(DENSE, width)
        self.avgpool = nn.AdaptiveAvgPool2d(side)
        self.classifier = nn.Sequential(
            nn.Linear(inputs * side**2, units), nn.ReLU(inplace=True), nn.Dropout(),
            nn.Linear(units, units), nn.ReLU(inplace=True), nn.Dropout(),
            nn.Linear(units, outputs),
        )  # fmt: skip
        he_start(self, linear=True)

    def code(self, x: Tensor) -> Tensor:
        """Return the last hidden layer: (n, c, h, w) -> (n, d)."""
        return self.classifier[:-1](self.avgpool(self.features(x)).flatten(1))
