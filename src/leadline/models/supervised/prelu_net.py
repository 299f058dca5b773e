r"""PReLU nets for pictures: 22 layers of rectifiers with learned slopes, without normalisation.

Source:
    He, Zhang, Ren and Sun (2015), Delving Deep into Rectifiers: Surpassing Human-Level Performance on
    ImageNet Classification, ICCV, table 3.

Departs from the source:
    For small pictures the first convolution is 3 x 3 without stride or pool, and the pyramid has 2 x 2 and
    1 x 1 cells.
"""

from typing import ClassVar

from leadline.core import Described
from leadline.models.supervised.vision import Ends, Entrance, VisionModel
from leadline.nets.vision.blocks import VisionNet
from leadline.nets.vision.prelu_net import PReLUNet

__all__ = ["PReLUNetClassifier"]


class PReLUNetClassifier(VisionModel):
    """A PReLU net, model A, B or C.

    Verbs:
        predict, encode

    Example:
        >>> import torch
        >>> from leadline.core import Classes, Images, Signature
        >>> data = Signature(Images(1, 8, 8), Classes(("a", "b")))
        >>> model = PReLUNetClassifier.for_data(data, width=0.0625)
        >>> model.encode(torch.zeros(5, 1, 8, 8, dtype=torch.uint8)).shape
        torch.Size([5, 256])
    """

    rate: ClassVar[float] = 0.01

    @classmethod
    def for_data(
        cls,
        data: Described,
        *,
        model: str = "A",
        width: float = 1.0,
        stem: str = "auto",
        repeated: bool = False,
        weights: str | None = None,
    ) -> "PReLUNetClassifier":
        """Return a model for pictures with labels.

        Args:
            data: What samples and labels are.
            model: "A", "B" or "C".
            width: Factor on all channels and units.
            stem: "imagenet", "small", or "auto" by the sides of the pictures.
            repeated: Whether grey pictures are repeated to three channels.
            weights: A torch or safetensors file, or None for a fresh start.

        Raises:
            DomainError: If samples are no pictures, or too small ones, or the data have no labels.
            OptionError: If an option is out of range.
            DataError: If the file of weights does not fit.
        """

        def make(ends: Ends) -> VisionNet:
            return PReLUNet(ends.inputs, ends.outputs, model, small=ends.small, width=width)

        return cls.around(make, data, Entrance(stem, repeated, weights))
