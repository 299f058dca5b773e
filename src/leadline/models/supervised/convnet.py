r"""Small convolutional network.

Stages of convolution (3 x 3), batch normalisation, activation and max-pooling (2 x 2, while a side is
longer than three pixels), then one dense hidden layer and the scores.

Source:
    LeCun, Bottou, Bengio and Haffner (1998), Gradient-Based Learning Applied to Document Recognition.
    Batch normalisation: Ioffe and Szegedy (2015).

Departs from the source:
    Rectified units, batch normalisation and max-pooling, instead of squashing units and sub-sampling with
    weights; the size of the picture decides how often sides are halved.
"""

from torch import Tensor, nn

from leadline.core import Described, Domain, DomainError, Labels, OptionError
from leadline.models.supervised.labelled import Labelled, required_labels
from leadline.nets.convolution import ConvEncoder
from leadline.nets.dense import activation_layer

__all__ = ["ConvNet"]


class ConvNet(Labelled):
    """A classifier or regressor of pictures of any size.

    Verbs:
        predict, encode

    Args:
        domain: What one sample is: `Images`, or `Bits` of shape (channels, height, width).
        labels: What a label is: classes make a classifier, targets a regressor.
        channels: Channels of each convolutional stage.
        hidden: Width of the dense layer behind the stages.
        activation: "relu", "tanh", "gelu", ...; see `leadline.nets.dense.ACTIVATIONS`.
        dropout: Probability that a unit of the dense layer is left out during training, in [0, 1).
        norm: "batch", "layer" or "none".

    Raises:
        DomainError: If samples are no pictures.
        OptionError: If an option is out of range.

    Example:
        >>> import torch
        >>> from leadline.core import Classes, Images
        >>> model = ConvNet(Images(1, 8, 8), Classes(("a", "b")), channels=(8, 16), hidden=32)
        >>> x = torch.zeros(5, 1, 8, 8, dtype=torch.uint8)
        >>> model.predict(x).shape, model.encode(x).shape
        (torch.Size([5, 2]), torch.Size([5, 32]))
    """

    def __init__(
        self,
        domain: Domain,
        labels: Labels,
        channels: tuple[int, ...] = (32, 64, 128),
        hidden: int = 128,
        activation: str = "relu",
        *,
        dropout: float = 0.0,
        norm: str = "batch",
    ) -> None:
        super().__init__(domain, labels)
        if domain.planes is None:
            raise DomainError(
                "needs Images, or Bits of shape (channels, height, width), "
                f"but the data are {domain}; use mlp"
            )
        if not 0 <= dropout < 1:
            raise OptionError(f"dropout must be in [0, 1), got {dropout}")
        self.planes = domain.planes
        self.features = nn.Sequential(
            ConvEncoder(self.planes, hidden, channels, activation=activation, norm=norm, pooled=True),
            activation_layer(activation),
        )
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(hidden, labels.outputs))

    @classmethod
    def for_data(
        cls,
        data: Described,
        *,
        channels: tuple[int, ...] = (32, 64, 128),
        hidden: int = 128,
        activation: str = "relu",
        dropout: float = 0.0,
        norm: str = "batch",
    ) -> "ConvNet":
        """Return a model for pictures with labels.

        Raises:
            DomainError: If samples are no pictures or the data have no labels.
        """
        labels = required_labels(data)
        return cls(data.domain, labels, channels, hidden, activation, dropout=dropout, norm=norm)

    def scores(self, x: Tensor) -> Tensor:
        """Return the outputs of the last layer: (n, c, h, w) -> (n, outputs)."""
        return self.head(self.encode(x))

    def encode(self, x: Tensor) -> Tensor:
        """Return the dense hidden layer: (n, c, h, w) -> (n, hidden)."""
        flat = self.domain.features(x, self.like)
        return self.features(flat.unflatten(1, self.planes))
