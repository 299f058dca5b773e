r"""AlexNet: five convolutions and three dense layers.

    torchvision: one tower of 64-192-384-256-256 channels
    paper: two towers, as groups of 96-256-384-384-256 channels, with local response normalisation
        b_c = a_c / (2 + 1e-4 sum over the five neighbouring channels of a^2)^0.75

For small pictures the first convolution is 5 x 5 without a stride, pools keep at least one pixel, and the
dense layers read 2 x 2 pixels instead of 6 x 6.

Symbols:
    n samples, c channels, h height, w width, d units of the last hidden layer.

Source:
    Krizhevsky, Sutskever and Hinton (2012), ImageNet Classification with Deep Convolutional Neural
    Networks, NeurIPS, section 3 (paper). Krizhevsky (2014), One weird trick for parallelizing convolutional
    neural networks (torchvision).
"""

from typing import ClassVar

from torch import Tensor, nn

from leadline.nets.vision.blocks import MaxPool2d, VisionNet, conv_norm, he_start, scaled

__all__ = ["AlexNet"]

CHANNELS = {"torchvision": (64, 192, 384, 256, 256), "paper": (96, 256, 384, 384, 256)}
GROUPS = {"torchvision": (1, 1, 1, 1, 1), "paper": (1, 2, 1, 2, 2)}
KERNELS = (11, 5, 3, 3, 3)
POOLED, NORMALISED = (0, 1, 4), (0, 1)  # behind which convolutions
DENSE = 4096


class AlexNet(VisionNet):
    """AlexNet.

    Args:
        inputs: Channels of the pictures.
        outputs: Number of scores.
        variant: "torchvision" or "paper".
        small: Whether the stem is that for small pictures.
        width: Factor on all channels and units.
    """

    heads: ClassVar[tuple[str, ...]] = ("classifier.6",)
    stems: ClassVar[tuple[str, ...]] = ("features.0", "classifier.1")
    smallest: ClassVar[int] = 63

    def __init__(
        self,
        inputs: int,
        outputs: int,
        variant: str = "torchvision",
        *,
        small: bool = False,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        rows = zip(CHANNELS[variant], GROUPS[variant], KERNELS, strict=True)
        for number, (wide, groups, kernel) in enumerate(rows):
            channels, first = scaled(wide, width, 2), number == 0
            side, stride, pad = (5, 1, 2) if small else (kernel, 4, 2)
            side, stride, pad = (side, stride, pad) if first else (kernel, 1, kernel // 2)
            layers += conv_norm(
                inputs, channels, side, stride=stride, padding=pad, groups=groups, eps=None, bias=True,
                activation=nn.ReLU(inplace=True),
            )  # fmt: skip
            if variant == "paper" and number in NORMALISED:
                # torch divides alpha by the five channels
                layers.append(nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0))
            if number in POOLED:
                layers.append(MaxPool2d(3, 2, padding=int(small)))
            inputs = channels
        self.features = nn.Sequential(*layers)
        side, units = 2 if small else 6, scaled(DENSE, width)
        self.avgpool = nn.AdaptiveAvgPool2d(side)
        self.classifier = nn.Sequential(
            nn.Dropout(), nn.Linear(inputs * side**2, units), nn.ReLU(inplace=True),
            nn.Dropout(), nn.Linear(units, units), nn.ReLU(inplace=True),
            nn.Linear(units, outputs),
        )  # fmt: skip
        he_start(self, linear=True)

    def code(self, x: Tensor) -> Tensor:
        """Return the last hidden layer: (n, c, h, w) -> (n, d)."""
        return self.classifier[:-1](self.avgpool(self.features(x)).flatten(1))
