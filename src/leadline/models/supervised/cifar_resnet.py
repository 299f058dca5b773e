r"""Residual nets for small pictures, and their plain twins.

    3 x 3 convolution, three stages of n = (depth - 2) / 6 blocks with 16, 32 and 64 channels, mean, linear

Source:
    He, Zhang, Ren and Sun (2016), Deep Residual Learning for Image Recognition, CVPR, section 4.2.

Departs from the source:
    Statistics of batch normalisation after training are averages over some thousand samples, not over all.
"""

from leadline.core import Described
from leadline.models.supervised.vision import Ends, Entrance, VisionModel
from leadline.nets.vision.blocks import VisionNet
from leadline.nets.vision.resnet import ResNet, cifar_plan

__all__ = ["CifarResNet"]

DEEP = 110  # layers from which the rate is to rise slowly, as in section 4.2


class CifarResNet(VisionModel):
    """A residual net of 6 n + 2 layers for small pictures, or a plain one (shortcut="none").

    Verbs:
        predict, encode

    Example:
        >>> import torch
        >>> from leadline.core import Classes, Images, Signature
        >>> data = Signature(Images(3, 32, 32), Classes(("a", "b")))
        >>> model = CifarResNet.for_data(data, depth=8)
        >>> model.encode(torch.zeros(5, 3, 32, 32, dtype=torch.uint8)).shape
        torch.Size([5, 64])
    """

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

        Args:
            data: What samples and labels are.
            depth: 6 n + 2, such as 20 or 56.
            shortcut: "A", "B", "C" or "none"; see `leadline.nets.vision.residual`.
            width: Factor on all channels.
            repeated: Whether grey pictures are repeated to three channels.
            weights: A torch or safetensors file, or None for a fresh start.

        Raises:
            DomainError: If samples are no pictures, or too small ones, or the data have no labels.
            OptionError: If an option is out of range.
            DataError: If the file of weights does not fit.
        """

        def make(ends: Ends) -> VisionNet:
            return ResNet(ends.inputs, ends.outputs, cifar_plan(depth, shortcut=shortcut, width=width))

        model = cls.around(make, data, Entrance("small", repeated, weights))
        return model.began_slowly() if depth >= DEEP else model
