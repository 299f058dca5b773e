r"""Densely connected nets for small pictures: three blocks of equal length.

    x_l = H_l([x_0, ..., x_{l-1}]); B: a 1 x 1 convolution first; C: transitions halve the maps

Source:
    Huang, Liu, van der Maaten and Weinberger (2017), Densely Connected Convolutional Networks, CVPR,
    section 3 (implementation details) and table 2.
"""

from leadline.core import Described
from leadline.models.supervised.vision import Ends, Entrance, VisionModel
from leadline.nets.vision.blocks import VisionNet
from leadline.nets.vision.densenet import DenseNet, bc_plan

__all__ = ["DenseNetBC"]


class DenseNetBC(VisionModel):
    """A DenseNet for small pictures.

    Verbs:
        predict, encode

    Example:
        >>> import torch
        >>> from leadline.core import Classes, Images, Signature
        >>> data = Signature(Images(1, 8, 8), Classes(("a", "b")))
        >>> model = DenseNetBC.for_data(data, depth=10, growth=4)
        >>> model.encode(torch.zeros(5, 1, 8, 8, dtype=torch.uint8)).shape
        torch.Size([5, 9])
    """

    @classmethod
    def for_data(  # noqa: PLR0913
        cls,
        data: Described,
        *,
        depth: int = 100,
        growth: int = 12,
        bottleneck: bool = True,
        compression: float = 0.5,
        dropout: float = 0.0,
        checkpointing: bool = False,
        repeated: bool = False,
        weights: str | None = None,
    ) -> "DenseNetBC":
        """Return a model for pictures with labels.

        Args:
            data: What samples and labels are.
            depth: 6 n + 4, or 3 n + 4 without bottlenecks.
            growth: Maps that a layer adds.
            bottleneck: Whether a layer begins with a 1 x 1 convolution.
            compression: Fraction of the maps that a transition keeps, in (0, 1].
            dropout: Probability that a map is left out during training, in [0, 1).
            checkpointing: Whether joined maps are computed again for the gradient.
            repeated: Whether grey pictures are repeated to three channels.
            weights: A torch or safetensors file, or None for a fresh start.

        Raises:
            DomainError: If samples are no pictures, or too small ones, or the data have no labels.
            OptionError: If an option is out of range.
            DataError: If the file of weights does not fit.
        """
        plan = bc_plan(depth, growth, bottleneck=bottleneck, compression=compression, dropout=dropout)

        def make(ends: Ends) -> VisionNet:
            return DenseNet(ends.inputs, ends.outputs, plan, checkpointing=checkpointing)

        return cls.around(make, data, Entrance("small", repeated, weights))
