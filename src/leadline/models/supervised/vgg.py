r"""VGG nets for pictures: stages of 3 x 3 convolutions with a pool between, and three dense layers.

Source:
    Simonyan and Zisserman (2015), Very Deep Convolutional Networks for Large-Scale Image Recognition, ICLR,
    table 1. Batch normalisation: Ioffe and Szegedy (2015).

Departs from the source:
    A start that keeps variances, so that no shallower net has to be learned first. For small pictures the
    dense layers read one pixel instead of 7 x 7.
"""

from typing import ClassVar

from leadline.core import Described
from leadline.core.errors import unknown_name
from leadline.models.supervised.vision import Ends, Entrance, VisionModel
from leadline.nets.vision.blocks import VisionNet
from leadline.nets.vision.vgg import VGG

__all__ = ["VGGClassifier"]

NORMS = ("none", "batch")


class VGGClassifier(VisionModel):
    """A VGG net of 11 to 19 layers.

    Verbs:
        predict, encode

    Example:
        >>> import torch
        >>> from leadline.core import Classes, Images, Signature
        >>> data = Signature(Images(1, 8, 8), Classes(("a", "b")))
        >>> model = VGGClassifier.for_data(data, depth=11, width=0.0625)
        >>> model.encode(torch.zeros(5, 1, 8, 8, dtype=torch.uint8)).shape
        torch.Size([5, 256])
    """

    rate: ClassVar[float] = 0.01

    @classmethod
    def for_data(
        cls,
        data: Described,
        *,
        depth: int = 16,
        norm: str = "none",
        width: float = 1.0,
        stem: str = "auto",
        repeated: bool = False,
        weights: str | None = None,
    ) -> "VGGClassifier":
        """Return a model for pictures with labels.

        Args:
            data: What samples and labels are.
            depth: 11, 13, 16 or 19.
            norm: "none" or "batch".
            width: Factor on all channels and units.
            stem: "imagenet", "small", or "auto" by the sides of the pictures.
            repeated: Whether grey pictures are repeated to three channels.
            weights: A torch or safetensors file, or None for a fresh start.

        Raises:
            DomainError: If samples are no pictures, or too small ones, or the data have no labels.
            OptionError: If an option is out of range.
            DataError: If the file of weights does not fit.
        """
        if norm not in NORMS:
            raise unknown_name("norm", norm, NORMS)

        def make(ends: Ends) -> VisionNet:
            return VGG(
                ends.inputs, ends.outputs, depth, normalised=norm == "batch", small=ends.small, width=width
            )

        return cls.around(make, data, Entrance(stem, repeated, weights))
