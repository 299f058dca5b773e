r"""AlexNet for pictures: five convolutions and three dense layers.

    torchvision: one tower, no normalisation; paper: two towers and local response normalisation

Source:
    Krizhevsky, Sutskever and Hinton (2012), ImageNet Classification with Deep Convolutional Neural
    Networks, NeurIPS (paper). Krizhevsky (2014), One weird trick for parallelizing convolutional neural
    networks (torchvision).

Departs from the source:
    Normalisation by mean and standard deviation instead of the mean alone; a start that keeps variances. For
    small pictures the first convolution is 5 x 5 without a stride.
"""

from typing import ClassVar

from leadline.core import Described
from leadline.core.errors import unknown_name
from leadline.models.supervised.vision import Ends, Entrance, VisionModel
from leadline.nets.vision.alexnet import AlexNet
from leadline.nets.vision.blocks import VisionNet

__all__ = ["AlexNetClassifier"]

VARIANTS = ("torchvision", "paper")


class AlexNetClassifier(VisionModel):
    """AlexNet, of 2012 or of 2014.

    Verbs:
        predict, encode

    Example:
        >>> import torch
        >>> from leadline.core import Classes, Images, Signature
        >>> data = Signature(Images(1, 8, 8), Classes(("a", "b")))
        >>> model = AlexNetClassifier.for_data(data, width=0.0625)
        >>> model.encode(torch.zeros(5, 1, 8, 8, dtype=torch.uint8)).shape
        torch.Size([5, 256])
    """

    rate: ClassVar[float] = 0.01
    smallest: ClassVar[int] = AlexNet.smallest

    @classmethod
    def for_data(
        cls,
        data: Described,
        *,
        variant: str = "torchvision",
        width: float = 1.0,
        stem: str = "auto",
        repeated: bool = False,
        weights: str | None = None,
    ) -> "AlexNetClassifier":
        """Return a model for pictures with labels.

        Args:
            data: What samples and labels are.
            variant: "torchvision" or "paper".
            width: Factor on all channels and units.
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
            return AlexNet(ends.inputs, ends.outputs, variant, small=ends.small, width=width)

        return cls.around(make, data, Entrance(stem, repeated, weights))
