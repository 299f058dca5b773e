r"""Densely connected nets for small pictures: three blocks of equal length.

    x_l = H_l([x_0, ..., x_{l-1}]); B: a 1 x 1 convolution first; C: transitions halve the maps

Source:
    Huang, Liu, van der Maaten and Weinberger (2017), Densely Connected Convolutional Networks, CVPR,
    section 3 (implementation details) and table 2.
"""

from leadline.core import Described, Domain, Labels
from leadline.models.supervised.labelled import required_labels
from leadline.models.supervised.vision import Ends, Entrance, VisionModel
from leadline.nets.vision.blocks import VisionNet
from leadline.nets.vision.densenet import DenseNet, DenseNetPlan, bc_plan

__all__ = ["DenseNetBC"]


class DenseNetBC(VisionModel):
    """A DenseNet for small pictures.

    Verbs:
        predict, encode

    Args:
        domain: What one sample is: `Images`, or `Bits` of shape (channels, height, width).
        labels: What a label is: classes make a classifier, targets a regressor.
        plan: The numbers of the net; depth 100 and growth 12 if None.
        checkpointing: Whether joined maps are computed again for the gradient instead of being kept.
        repeated: Whether grey pictures are repeated to three channels.
        weights: A torch or safetensors file, or None for a fresh start.

    Raises:
        DomainError: If samples are no pictures, or too small ones.
        OptionError: If an option is out of range.
        DataError: If the file of weights does not fit.

    Example:
        >>> import torch
        >>> from leadline.core import Classes, Images
        >>> model = DenseNetBC(Images(1, 8, 8), Classes(("a", "b")), bc_plan(10, growth=4))
        >>> model.encode(torch.zeros(5, 1, 8, 8, dtype=torch.uint8)).shape
        torch.Size([5, 9])
    """

    def __init__(
        self,
        domain: Domain,
        labels: Labels,
        plan: DenseNetPlan | None = None,
        *,
        checkpointing: bool = False,
        repeated: bool = False,
        weights: str | None = None,
    ) -> None:
        def make(ends: Ends) -> VisionNet:
            return DenseNet(ends.inputs, ends.outputs, plan or bc_plan(), checkpointing=checkpointing)

        super().__init__(domain, labels, Entrance("small", repeated, weights), make)

    @classmethod
    def for_data(  # noqa: PLR0913  # noqa: PLR0913
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
            weights: A torch or safetensors file.

        Raises:
            DomainError: If samples are no pictures or the data have no labels.
        """
        labels = required_labels(data, "densenet_bc")
        plan = bc_plan(depth, growth, bottleneck=bottleneck, compression=compression, dropout=dropout)
        return cls(data.domain, labels, plan, checkpointing=checkpointing, repeated=repeated, weights=weights)
