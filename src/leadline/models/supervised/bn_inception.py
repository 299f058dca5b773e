r"""Inception with batch normalisation for pictures.

Source:
    Ioffe and Szegedy (2015), Batch Normalization: Accelerating Deep Network Training by Reducing Internal
    Covariate Shift, ICML, section 4.2.1.

Departs from the source:
    Convolutions keep their biases, as in the published weights. For small pictures the first convolution is
    3 x 3 without stride or pool.
"""

from typing import ClassVar

from leadline.core import Described
from leadline.models.supervised.vision import Ends, Entrance, VisionModel
from leadline.nets.vision.blocks import VisionNet
from leadline.nets.vision.bn_inception import BNInception

__all__ = ["BNInceptionClassifier"]


class BNInceptionClassifier(VisionModel):
    """Inception with batch normalisation.

    Verbs:
        predict, encode

    Example:
        >>> import torch
        >>> from leadline.core import Classes, Images, Signature
        >>> data = Signature(Images(1, 8, 8), Classes(("a", "b")))
        >>> model = BNInceptionClassifier.for_data(data, width=0.0625)
        >>> model.encode(torch.zeros(5, 1, 8, 8, dtype=torch.uint8)).shape
        torch.Size([5, 64])
    """

    rate: ClassVar[float] = 0.05

    @classmethod
    def for_data(
        cls,
        data: Described,
        *,
        width: float = 1.0,
        stem: str = "auto",
        repeated: bool = False,
        weights: str | None = None,
    ) -> "BNInceptionClassifier":
        """Return a model for pictures with labels.

        Args:
            data: What samples and labels are.
            width: Factor on all channels.
            stem: "imagenet", "small", or "auto" by the sides of the pictures.
            repeated: Whether grey pictures are repeated to three channels.
            weights: A torch or safetensors file, or None for a fresh start.

        Raises:
            DomainError: If samples are no pictures, or too small ones, or the data have no labels.
            OptionError: If an option is out of range.
            DataError: If the file of weights does not fit.
        """

        def make(ends: Ends) -> VisionNet:
            return BNInception(ends.inputs, ends.outputs, small=ends.small, width=width)

        return cls.around(make, data, Entrance(stem, repeated, weights))
