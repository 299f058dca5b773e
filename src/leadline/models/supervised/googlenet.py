r"""GoogLeNet for pictures: inception modules, and two auxiliary heads that only training reads.

    loss = L(scores) + 0.3 (L(scores_1) + L(scores_2))

Source:
    Szegedy et al. (2015), Going Deeper with Convolutions, CVPR, section 5. Normalised convolutions
    (torchvision): Ioffe and Szegedy (2015).

Departs from the source:
    variant="torchvision" has batch normalisation and 3 x 3 in place of 5 x 5; "paper" has neither. Levels are
    brought to [-1, 1], which is what the published weights were trained on. For small pictures the first
    convolution is 3 x 3 without stride or pool.
"""

from typing import ClassVar, cast

from torch import Tensor

from leadline.core import Batch, Described
from leadline.core.errors import unknown_name
from leadline.models.supervised.vision import Ends, Entrance, VisionModel
from leadline.nets.vision.blocks import VisionNet
from leadline.nets.vision.googlenet import GoogLeNet

__all__ = ["GoogLeNetClassifier"]

VARIANTS = ("torchvision", "paper")
AUXILIARY = 0.3  # weight of each auxiliary loss


class GoogLeNetClassifier(VisionModel):
    """GoogLeNet with auxiliary heads.

    Verbs:
        predict, encode

    Example:
        >>> import torch
        >>> from leadline.core import Classes, Images, Signature
        >>> data = Signature(Images(1, 8, 8), Classes(("a", "b")))
        >>> model = GoogLeNetClassifier.for_data(data, width=0.0625)
        >>> model.encode(torch.zeros(5, 1, 8, 8, dtype=torch.uint8)).shape
        torch.Size([5, 64])
    """

    rate: ClassVar[float] = 0.05
    mean: ClassVar[tuple[float, float, float]] = (0.5, 0.5, 0.5)
    std: ClassVar[tuple[float, float, float]] = (0.5, 0.5, 0.5)

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
    ) -> "GoogLeNetClassifier":
        """Return a model for pictures with labels.

        Args:
            data: What samples and labels are.
            variant: "torchvision" or "paper".
            width: Factor on all channels.
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
            return GoogLeNet(ends.inputs, ends.outputs, variant, small=ends.small, width=width)

        model = cls.around(make, data, Entrance(stem, repeated, weights))
        if variant == "paper":
            model.recommended["lr"] /= 5
        return model

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean loss of the labels that are known, in training with the auxiliary heads', shape ().

        Raises:
            DataError: If the batch has no labels.
        """
        if not self.training:
            return super().loss(batch)
        scores, others = cast(GoogLeNet, self.net).with_auxiliary(self.normalised(batch.x))
        whole = [self.loss_of(given, batch) for given in (scores, *others)]
        return whole[0] + AUXILIARY * (whole[1] + whole[2])
