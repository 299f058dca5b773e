r"""Multi-layer perceptron.

    h_0 = f(x),  h_i = a(W_i h_{i-1} + b_i),  scores = W h_L + b

Symbols:
    x (n, *shape) raw samples, f (n, features) their features, h_i (n, hidden[i - 1]) hidden units,
    a the activation.

Source:
    Rumelhart, Hinton and Williams (1986), Learning representations by back-propagating errors, Nature 323.
    Dropout: Srivastava et al. (2014). Batch normalisation: Ioffe and Szegedy (2015). Layer normalisation:
    Ba, Kiros and Hinton (2016).

Departs from the source:
    Rectified units and cross-entropy by default, instead of sigmoids and squared error.
"""

from torch import Tensor

from leadline.core import Described, Domain, Labels, OptionError
from leadline.models.supervised.labelled import Labelled, required_labels
from leadline.nets.dense import dense

__all__ = ["MLP"]


class MLP(Labelled):
    """A classifier or regressor with dense hidden layers, for any domain.

    Verbs:
        predict, encode

    Args:
        domain: What one sample is.
        labels: What a label is: classes make a classifier, targets a regressor.
        hidden: Width of each hidden layer, at least one.
        activation: "relu", "tanh", "gelu", ...; see `leadline.nets.dense.ACTIVATIONS`.
        dropout: Probability that a hidden unit is left out during training, in [0, 1).
        norm: "none", "batch" or "layer".

    Raises:
        OptionError: If an option is out of range.

    Example:
        >>> import torch
        >>> from leadline.core import Classes, Vectors
        >>> model = MLP(Vectors.standard(3), Classes(("a", "b")), hidden=(16, 8))
        >>> x = torch.zeros(5, 3)
        >>> model.predict(x).shape, model.encode(x).shape
        (torch.Size([5, 2]), torch.Size([5, 8]))
    """

    def __init__(
        self,
        domain: Domain,
        labels: Labels,
        hidden: tuple[int, ...] = (128,),
        activation: str = "relu",
        *,
        dropout: float = 0.0,
        norm: str = "none",
    ) -> None:
        super().__init__(domain, labels)
        if not hidden:
            raise OptionError("hidden must name at least one layer; without any this is the model linear")
        sizes = (domain.feature_count, *hidden, labels.outputs)
        self.net = dense(sizes, activation, dropout=dropout, norm=norm)

    @classmethod
    def for_data(
        cls,
        data: Described,
        *,
        hidden: tuple[int, ...] = (128,),
        activation: str = "relu",
        dropout: float = 0.0,
        norm: str = "none",
    ) -> "MLP":
        """Return a model for any samples with labels.

        Raises:
            DomainError: If the data have no labels.
        """
        labels = required_labels(data)
        return cls(data.domain, labels, hidden, activation, dropout=dropout, norm=norm)

    def scores(self, x: Tensor) -> Tensor:
        """Return the outputs of the last layer: (n, *x) -> (n, outputs)."""
        return self.net(self.domain.features(x, self.like))

    def encode(self, x: Tensor) -> Tensor:
        """Return the last hidden layer: (n, *x) -> (n, hidden[-1])."""
        return self.net[:-1](self.domain.features(x, self.like))
