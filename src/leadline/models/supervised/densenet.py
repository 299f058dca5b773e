r"""Densely connected nets for large pictures.

    x_l = H_l([x_0, ..., x_{l-1}]): every layer reads the maps of all layers before it

Source:
    Huang, Liu, van der Maaten and Weinberger (2017), Densely Connected Convolutional Networks, CVPR,
    table 1.

Departs from the source:
    For small pictures the stem is one 3 x 3 convolution without stride or pool.
"""

from leadline.core import Described
from leadline.models.supervised.vision import Ends, Entrance, VisionModel
from leadline.nets.vision.blocks import VisionNet
from leadline.nets.vision.densenet import DenseNet, imagenet_plan

__all__ = ["DenseNetClassifier"]


class DenseNetClassifier(VisionModel):
    """A DenseNet of 121 to 201 layers.

    Verbs:
        predict, encode

    Example:
        >>> import torch
        >>> from leadline.core import Classes, Images, Signature
        >>> data = Signature(Images(1, 8, 8), Classes(("a", "b")))
        >>> model = DenseNetClassifier.for_data(data, growth=4)
        >>> model.encode(torch.zeros(5, 1, 8, 8, dtype=torch.uint8)).shape
        torch.Size([5, 128])
    """

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

        Args:
            data: What samples and labels are.
            depth: 121, 161, 169 or 201.
            growth: Maps that a layer adds; that of the paper if None.
            checkpointing: Whether joined maps are computed again for the gradient instead of being kept.
            stem: "imagenet", "small", or "auto" by the sides of the pictures.
            repeated: Whether grey pictures are repeated to three channels.
            weights: A torch or safetensors file, or None for a fresh start.

        Raises:
            DomainError: If samples are no pictures, or too small ones, or the data have no labels.
            OptionError: If an option is out of range.
            DataError: If the file of weights does not fit.
        """

        def make(ends: Ends) -> VisionNet:
            plan = imagenet_plan(depth, growth=growth, small=ends.small)
            return DenseNet(ends.inputs, ends.outputs, plan, checkpointing=checkpointing)

        return cls.around(make, data, Entrance(stem, repeated, weights))
