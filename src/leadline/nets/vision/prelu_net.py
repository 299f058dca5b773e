r"""PReLU nets: VGG-like nets with learned slopes, made to be trained at 22 layers without normalisation.

    PReLU: f(y) = max(0, y) + a_c min(0, y), a_c started at 0.25

A 7 x 7 convolution of stride 2 and a pool, three stages of 3 x 3 convolutions, a pyramid of pools over
7 x 7, 3 x 3, 2 x 2 and 1 x 1 cells, three dense layers. For small pictures the first convolution is 3 x 3
without stride or pool, and the pyramid has 2 x 2 and 1 x 1 cells.

Symbols:
    n samples, c channels, h height, w width, a slopes, d units of the last hidden layer.

Source:
    He, Zhang, Ren and Sun (2015), Delving Deep into Rectifiers, ICCV, table 3 and equations 1 and 15.
    Pyramid: He et al. (2014), Spatial Pyramid Pooling in Deep Convolutional Networks, ECCV.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from leadline.core.errors import unknown_name
from leadline.nets.vision.blocks import VisionNet, conv_norm, he_start, scaled

__all__ = ["MODELS", "PReLUNet"]

# Model: convolutions and channels of each of the three stages.
MODELS = {"A": (5, (256, 512, 512)), "B": (6, (256, 512, 512)), "C": (6, (384, 768, 896))}
STEM, DENSE, SLOPE = 96, 4096, 0.25


class PReLUNet(VisionNet):
    """A PReLU net.

    Args:
        inputs: Channels of the pictures.
        outputs: Number of scores.
        model: "A", "B" or "C".
        small: Whether the stem is that for small pictures.
        width: Factor on all channels and units.

    Raises:
        OptionError: If there is no such model.
    """

    heads: ClassVar[tuple[str, ...]] = ("classifier.6",)
    stems: ClassVar[tuple[str, ...]] = ("features.0", "classifier.0")

    def __init__(
        self, inputs: int, outputs: int, model: str = "A", *, small: bool = False, width: float = 1.0
    ) -> None:
        super().__init__()
        if model not in MODELS:
            raise unknown_name("model", model, MODELS)
        count, stages = MODELS[model]
        start = scaled(STEM, width)
        kernel, stride = (3, 1) if small else (7, 2)
        layers = [*_conv(inputs, start, kernel, stride), nn.Identity() if small else nn.MaxPool2d(2)]
        inputs = start
        for number, wide in enumerate(stages):
            layers += [nn.MaxPool2d(2, ceil_mode=small)] if number else []
            for _ in range(count):
                channels = scaled(wide, width)
                layers += _conv(inputs, channels, 3, 1)
                inputs = channels
        self.features = nn.Sequential(*layers)
        cells = (2, 1) if small else (7, 3, 2, 1)
        self.pyramid = nn.ModuleList(nn.AdaptiveMaxPool2d(side) for side in cells)
        units = scaled(DENSE, width)
        self.classifier = nn.Sequential(
            nn.Linear(inputs * sum(side**2 for side in cells), units), nn.PReLU(units, SLOPE), nn.Dropout(),
            nn.Linear(units, units), nn.PReLU(units, SLOPE), nn.Dropout(),
            nn.Linear(units, outputs),
        )  # fmt: skip
        he_start(self, slope=SLOPE, linear=True)

    def code(self, x: Tensor) -> Tensor:
        """Return the last hidden layer: (n, c, h, w) -> (n, d)."""
        maps = self.features(x)
        return self.classifier[:-1](torch.cat([pool(maps).flatten(1) for pool in self.pyramid], 1))


def _conv(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
    """Return a convolution with a slope a channel."""
    slopes = nn.PReLU(outputs, SLOPE)
    return conv_norm(inputs, outputs, kernel, stride=stride, eps=None, bias=True, activation=slopes)
