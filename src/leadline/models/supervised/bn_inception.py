r"""Inception with batch normalisation for pictures.

Source:
    Ioffe and Szegedy (2015), Batch Normalization: Accelerating Deep Network Training by Reducing Internal
    Covariate Shift, ICML, section 4.2.1.

Departs from the source:
    Convolutions keep their biases, as in the published weights. For small pictures the first convolution is
    3 x 3 without stride or pool.
"""

from typing import ClassVar

from leadline.core import Described, Domain, Labels
from leadline.models.supervised.labelled import required_labels
from leadline.models.supervised.vision import Ends, Entrance, VisionModel
from leadline.nets.vision.blocks import VisionNet
from leadline.nets.vision.bn_inception import BNInception

__all__ = ["BNInceptionClassifier"]


class BNInceptionClassifier(VisionModel):
    """Inception with batch normalisation.

    Verbs:
        predict, encode

    Args:
        domain: What one sample is: `Images`, or `Bits` of shape (channels, height, width).
        labels: What a label is: classes make a classifier, targets a regressor.
        entrance: Stem and weights.
        width: Factor on all channels.

    Raises:
        DomainError: If samples are no pictures, or too small ones.
        OptionError: If an option is out of range.
        DataError: If the file of weights does not fit.

    Example:
        >>> import torch
        >>> from leadline.core import Classes, Images
        >>> model = BNInceptionClassifier(Images(1, 8, 8), Classes(("a", "b")), width=0.0625)
        >>> model.encode(torch.zeros(5, 1, 8, 8, dtype=torch.uint8)).shape
        torch.Size([5, 64])
    """

    rate: ClassVar[float] = 0.05

    def __init__(
        self,
        domain: Domain,
        labels: Labels,
        entrance: Entrance | None = None,
        *,
        width: float = 1.0,
    ) -> None:
        def make(ends: Ends) -> VisionNet:
            return BNInception(ends.inputs, ends.outputs, small=ends.small, width=width)

        super().__init__(domain, labels, entrance or Entrance(), make)

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

        Raises:
            DomainError: If samples are no pictures or the data have no labels.
        """
        labels, entrance = required_labels(data, "bn_inception"), Entrance(stem, repeated, weights)
        return cls(data.domain, labels, entrance, width=width)
