r"""Densely connected nets for large pictures.

    x_l = H_l([x_0, ..., x_{l-1}]): every layer reads the maps of all layers before it

Source:
    Huang, Liu, van der Maaten and Weinberger (2017), Densely Connected Convolutional Networks, CVPR,
    table 1.

Departs from the source:
    For small pictures the stem is one 3 x 3 convolution without stride or pool.
"""

from leadline.core import Described, Domain, Labels
from leadline.models.supervised.labelled import required_labels
from leadline.models.supervised.vision import Ends, Entrance, VisionModel
from leadline.nets.vision.blocks import VisionNet
from leadline.nets.vision.densenet import DenseNet, imagenet_plan

__all__ = ["DenseNetClassifier"]


class DenseNetClassifier(VisionModel):
    """A DenseNet of 121 to 201 layers.

    Verbs:
        predict, encode

    Args:
        domain: What one sample is: `Images`, or `Bits` of shape (channels, height, width).
        labels: What a label is: classes make a classifier, targets a regressor.
        depth: 121, 161, 169 or 201.
        entrance: Stem and weights.
        growth: Maps that a layer adds; that of the paper if None.
        checkpointing: Whether joined maps are computed again for the gradient instead of being kept.

    Raises:
        DomainError: If samples are no pictures, or too small ones.
        OptionError: If an option is out of range.
        DataError: If the file of weights does not fit.

    Example:
        >>> import torch
        >>> from leadline.core import Classes, Images
        >>> model = DenseNetClassifier(Images(1, 8, 8), Classes(("a", "b")), growth=4)
        >>> model.encode(torch.zeros(5, 1, 8, 8, dtype=torch.uint8)).shape
        torch.Size([5, 128])
    """

    def __init__(
        self,
        domain: Domain,
        labels: Labels,
        depth: int = 121,
        entrance: Entrance | None = None,
        *,
        growth: int | None = None,
        checkpointing: bool = False,
    ) -> None:
        def make(ends: Ends) -> VisionNet:
            return DenseNet(
                ends.inputs,
                ends.outputs,
                imagenet_plan(depth, growth=growth, small=ends.small),
                checkpointing=checkpointing,
            )

        super().__init__(domain, labels, entrance or Entrance(), make)

    @classmethod
    def for_data(
        cls,
        data: Described,
        *,
        depth: int = 121,
        growth: int | None = None,
        checkpointing: bool = False,
        stem: str = "auto",
        repeated: bool = False,
        weights: str | None = None,
    ) -> "DenseNetClassifier":
        """Return a model for pictures with labels.

        Raises:
            DomainError: If samples are no pictures or the data have no labels.
        """
        labels, entrance = required_labels(data, "densenet"), Entrance(stem, repeated, weights)
        return cls(data.domain, labels, depth, entrance, growth=growth, checkpointing=checkpointing)
