r"""PReLU nets for pictures: 22 layers of rectifiers with learned slopes, without normalisation.

Source:
    He, Zhang, Ren and Sun (2015), Delving Deep into Rectifiers: Surpassing Human-Level Performance on
    ImageNet Classification, ICCV, table 3.

Departs from the source:
    For small pictures the first convolution is 3 x 3 without stride or pool, and the pyramid has 2 x 2 and
    1 x 1 cells.
"""

from typing import ClassVar

from leadline.core import Described, Domain, Labels
from leadline.models.supervised.labelled import required_labels
from leadline.models.supervised.vision import Ends, Entrance, VisionModel
from leadline.nets.vision.blocks import VisionNet
from leadline.nets.vision.prelu_net import PReLUNet

__all__ = ["PReLUNetClassifier"]


class PReLUNetClassifier(VisionModel):
    """A PReLU net, model A, B or C.

    Verbs:
        predict, encode

    Args:
        domain: What one sample is: `Images`, or `Bits` of shape (channels, height, width).
        labels: What a label is: classes make a classifier, targets a regressor.
        model: "A", "B" or "C".
        entrance: Stem and weights.
        width: Factor on all channels and units.

    Raises:
        DomainError: If samples are no pictures, or too small ones.
        OptionError: If an option is out of range.
        DataError: If the file of weights does not fit.

    Example:
        >>> import torch
        >>> from leadline.core import Classes, Images
        >>> model = PReLUNetClassifier(Images(1, 8, 8), Classes(("a", "b")), width=0.0625)
        >>> model.encode(torch.zeros(5, 1, 8, 8, dtype=torch.uint8)).shape
        torch.Size([5, 256])
    """

    rate: ClassVar[float] = 0.01

    def __init__(
        self,
        domain: Domain,
        labels: Labels,
        model: str = "A",
        entrance: Entrance | None = None,
        *,
        width: float = 1.0,
    ) -> None:
        def make(ends: Ends) -> VisionNet:
            return PReLUNet(ends.inputs, ends.outputs, model, small=ends.small, width=width)

        super().__init__(domain, labels, entrance or Entrance(), make)

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

        Raises:
            DomainError: If samples are no pictures or the data have no labels.
        """
        labels, entrance = required_labels(data, "prelu_net"), Entrance(stem, repeated, weights)
        return cls(data.domain, labels, model, entrance, width=width)
