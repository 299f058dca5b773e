r"""Residual nets for small pictures, and their plain twins.

    3 x 3 convolution, three stages of n = (depth - 2) / 6 blocks with 16, 32 and 64 channels, mean, linear

Source:
    He, Zhang, Ren and Sun (2016), Deep Residual Learning for Image Recognition, CVPR, section 4.2.

Departs from the source:
    Running averages of batch statistics instead of exact ones after training.
"""

from leadline.core import Described, Domain, Labels
from leadline.models.supervised.labelled import required_labels
from leadline.models.supervised.vision import Ends, Entrance, VisionModel
from leadline.nets.vision.blocks import VisionNet
from leadline.nets.vision.resnet import ResNet, cifar_plan

__all__ = ["CifarResNet"]


class CifarResNet(VisionModel):
    """A residual net of 6 n + 2 layers for small pictures, or a plain one (shortcut="none").

    Verbs:
        predict, encode

    Args:
        domain: What one sample is: `Images`, or `Bits` of shape (channels, height, width).
        labels: What a label is: classes make a classifier, targets a regressor.
        depth: 6 n + 2, such as 20 or 56.
        shortcut: "A", "B", "C" or "none"; see `leadline.nets.vision.residual`.
        width: Factor on all channels.
        repeated: Whether grey pictures are repeated to three channels.
        weights: A torch or safetensors file, or None for a fresh start.

    Raises:
        DomainError: If samples are no pictures, or too small ones.
        OptionError: If an option is out of range.
        DataError: If the file of weights does not fit.

    Example:
        >>> import torch
        >>> from leadline.core import Classes, Images
        >>> model = CifarResNet(Images(3, 32, 32), Classes(("a", "b")), depth=8)
        >>> model.encode(torch.zeros(5, 3, 32, 32, dtype=torch.uint8)).shape
        torch.Size([5, 64])
    """

    def __init__(
        self,
        domain: Domain,
        labels: Labels,
        depth: int = 20,
        *,
        shortcut: str = "A",
        width: float = 1.0,
        repeated: bool = False,
        weights: str | None = None,
    ) -> None:
        def make(ends: Ends) -> VisionNet:
            return ResNet(ends.inputs, ends.outputs, cifar_plan(depth, shortcut=shortcut, width=width))

        super().__init__(domain, labels, Entrance("small", repeated, weights), make)

    @classmethod
    def for_data(
        cls,
        data: Described,
        *,
        depth: int = 20,
        shortcut: str = "A",
        width: float = 1.0,
        repeated: bool = False,
        weights: str | None = None,
    ) -> "CifarResNet":
        """Return a model for pictures with labels.

        Raises:
            DomainError: If samples are no pictures or the data have no labels.
        """
        labels = required_labels(data, "cifar_resnet")
        return cls(
            data.domain, labels, depth, shortcut=shortcut, width=width, repeated=repeated, weights=weights
        )
