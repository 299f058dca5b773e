r"""Residual nets for large pictures, and their plain twins.

    y = relu(F(x) + S(x)) block by block; the mean over pixels, and one linear layer

Source:
    He, Zhang, Ren and Sun (2016), Deep Residual Learning for Image Recognition, CVPR, table 1.

Departs from the source:
    variant="torchvision" has the stride of a bottleneck on its 3 x 3 convolution, "paper" on its first 1 x 1.
    Statistics of batch normalisation after training are averages over some thousand samples, not over all.
    For small pictures the stem is one 3 x 3 convolution without a pool.
"""

from typing import ClassVar

from leadline.core import Described
from leadline.core.errors import unknown_name
from leadline.models.supervised.vision import Ends, Entrance, VisionModel
from leadline.nets.vision.blocks import VisionNet
from leadline.nets.vision.resnet import ResNet, imagenet_plan

__all__ = ["ResNetClassifier"]

DEEP = 50  # layers from which the rate is to rise slowly, as Goyal et al. (2017), section 2.2, raise it
VARIANTS = ("torchvision", "paper")


class ResNetClassifier(VisionModel):
    """A residual net of 18 to 152 layers, or a plain one (shortcut="none").

    Verbs:
        predict, encode

    Example:
        >>> import torch
        >>> from leadline.core import Classes, Images, Signature
        >>> data = Signature(Images(1, 8, 8), Classes(("a", "b")))
        >>> model = ResNetClassifier.for_data(data, width=0.125)
        >>> x = torch.zeros(5, 1, 8, 8, dtype=torch.uint8)
        >>> model.predict(x).shape, model.encode(x).shape, model.encode(x, layer="layer2").shape
        (torch.Size([5, 2]), torch.Size([5, 64]), torch.Size([5, 256]))
    """

    smallest: ClassVar[int] = ResNet.smallest

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

        Args:
            data: What samples and labels are.
            depth: 18, 34, 50, 101 or 152.
            shortcut: "A", "B", "C" or "none"; see `leadline.nets.vision.residual`.
            variant: "torchvision" or "paper".
            width: Factor on all channels.
            stem: "imagenet", "small", or "auto" by the sides of the pictures.
            repeated: Whether grey pictures are repeated to three channels.
            weights: A torch or safetensors file, or None for a fresh start.

        Raises:
            DomainError: If samples are no pictures, or too small ones, or the data have no labels.
            OptionError: If an option is out of range.
            DataError: If the file of weights does not fit.
        """
        if variant not in VARIANTS:
            raise unknown_name("variant", variant, VARIANTS)

        def make(ends: Ends) -> VisionNet:
            early = variant == "paper"
            plan = imagenet_plan(depth, shortcut=shortcut, early=early, small=ends.small, width=width)
            return ResNet(ends.inputs, ends.outputs, plan)

        model = cls.around(make, data, Entrance(stem, repeated, weights))
        return model.began_slowly() if depth >= DEEP else model
