r"""Residual nets for large pictures, and their plain twins.

    y = relu(F(x) + S(x)) block by block; the mean over pixels, and one linear layer

Source:
    He, Zhang, Ren and Sun (2016), Deep Residual Learning for Image Recognition, CVPR, table 1.

Departs from the source:
    variant="torchvision" has the stride of a bottleneck on its 3 x 3 convolution, "paper" on its first 1 x 1.
    Running averages of batch statistics instead of exact ones after training. For small pictures the stem is
    one 3 x 3 convolution without a pool.
"""

from leadline.core import Described, Domain, Labels
from leadline.core.errors import unknown_name
from leadline.models.supervised.labelled import required_labels
from leadline.models.supervised.vision import Ends, Entrance, VisionModel
from leadline.nets.vision.blocks import VisionNet
from leadline.nets.vision.resnet import ResNet, imagenet_plan

__all__ = ["ResNetClassifier"]

VARIANTS = ("torchvision", "paper")


class ResNetClassifier(VisionModel):
    """A residual net of 18 to 152 layers, or a plain one (shortcut="none").

    Verbs:
        predict, encode

    Args:
        domain: What one sample is: `Images`, or `Bits` of shape (channels, height, width).
        labels: What a label is: classes make a classifier, targets a regressor.
        depth: 18, 34, 50, 101 or 152.
        entrance: Stem and weights.
        shortcut: "A", "B", "C" or "none"; see `leadline.nets.vision.residual`.
        variant: "torchvision" or "paper".
        width: Factor on all channels.

    Raises:
        DomainError: If samples are no pictures, or too small ones.
        OptionError: If an option is out of range.
        DataError: If the file of weights does not fit.

    Example:
        >>> import torch
        >>> from leadline.core import Classes, Images
        >>> model = ResNetClassifier(Images(1, 8, 8), Classes(("a", "b")), 18, width=0.125)
        >>> x = torch.zeros(5, 1, 8, 8, dtype=torch.uint8)
        >>> model.predict(x).shape, model.encode(x).shape, model.encode(x, layer="layer2").shape
        (torch.Size([5, 2]), torch.Size([5, 64]), torch.Size([5, 256]))
    """

    def __init__(
        self,
        domain: Domain,
        labels: Labels,
        depth: int = 18,
        entrance: Entrance | None = None,
        *,
        shortcut: str = "B",
        variant: str = "torchvision",
        width: float = 1.0,
    ) -> None:
        if variant not in VARIANTS:
            raise unknown_name("variant", variant, VARIANTS)

        def make(ends: Ends) -> VisionNet:
            early = variant == "paper"
            plan = imagenet_plan(depth, shortcut=shortcut, early=early, small=ends.small, width=width)
            return ResNet(ends.inputs, ends.outputs, plan)

        super().__init__(domain, labels, entrance or Entrance(), make, ResNet.smallest)

    @classmethod
    def for_data(
        cls,
        data: Described,
        *,
        depth: int = 18,
        shortcut: str = "B",
        variant: str = "torchvision",
        width: float = 1.0,
        stem: str = "auto",
        repeated: bool = False,
        weights: str | None = None,
    ) -> "ResNetClassifier":
        """Return a model for pictures with labels.

        Raises:
            DomainError: If samples are no pictures or the data have no labels.
        """
        labels, entrance = required_labels(data, "resnet"), Entrance(stem, repeated, weights)
        return cls(data.domain, labels, depth, entrance, shortcut=shortcut, variant=variant, width=width)
