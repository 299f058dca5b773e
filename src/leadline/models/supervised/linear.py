r"""Linear models: softmax regression for classes, least squares for real targets.

Scores are affine in the features f(x) of a sample:
    class k:  log p(k | x) = w_k . f(x) + b_k - log sum_j exp(w_j . f(x) + b_j)
    target:   E[t | x] = w . f(x) + b, by least squares

Symbols:
    x (n, *shape) raw samples, f (n, features) their features, w (outputs, features) weights, b biases.

Source:
    Bishop (2006), Pattern Recognition and Machine Learning, sections 3.1 and 4.3.
"""

from torch import Tensor

from leadline.core import Described, Domain, Labels
from leadline.models.supervised.labelled import Labelled, required_labels
from leadline.nets.dense import dense

__all__ = ["Linear"]


class Linear(Labelled):
    """Softmax or least-squares regression on the features of any domain.

    Verbs:
        predict

    Args:
        domain: What one sample is.
        labels: What a label is: classes make a classifier, targets a regressor.

    Example:
        >>> import torch
        >>> from leadline.core import Classes, Vectors
        >>> model = Linear(Vectors.standard(3), Classes(("a", "b")))
        >>> model.predict(torch.zeros(5, 3)).exp().sum(1).round(decimals=4)
        tensor([1., 1., 1., 1., 1.], grad_fn=<RoundBackward1>)
    """

    def __init__(self, domain: Domain, labels: Labels) -> None:
        super().__init__(domain, labels)
        self.net = dense((domain.feature_count, labels.outputs))

    @classmethod
    def for_data(cls, data: Described) -> "Linear":
        """Return a model for any samples with labels.

        Raises:
            DomainError: If the data have no labels.
        """
        return cls(data.domain, required_labels(data))

    def scores(self, x: Tensor) -> Tensor:
        """Return affine scores: (n, *x) -> (n, outputs)."""
        return self.net(self.domain.features(x, self.like))
