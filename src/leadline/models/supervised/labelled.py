"""What every supervised model has in common: labels, their loss, and a prediction."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from leadline.core import Batch, Classes, DataError, Described, Domain, DomainError, Labels

__all__ = ["Labelled", "required_classes", "required_labels"]


class Labelled(nn.Module, ABC):
    """A model of p(label | sample), a classifier or a regressor by what its labels are.

    Args:
        domain: What one sample is.
        labels: What a label is.
    """

    like: Tensor

    def __init__(self, domain: Domain, labels: Labels) -> None:
        super().__init__()
        self.domain = domain
        self.labels = labels
        # Follows the parameters, so that inputs get their type and device.
        self.register_buffer("like", torch.empty(0), persistent=False)

    @abstractmethod
    def scores(self, x: Tensor) -> Tensor:
        """Return what the labels read: unnormalised scores or standardised means, (n, *x) -> (n, outputs)."""

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean loss of the labels that are known, shape ().

        Raises:
            DataError: If the batch has no labels.
        """
        return self.loss_of(self.scores(batch.x), batch)

    def loss_of(self, scores: Tensor, batch: Batch) -> Tensor:
        """Return the mean loss of `scores` (n, outputs) for the labels that are known, shape ().

        Raises:
            DataError: If the batch has no labels.
        """
        if batch.y is None:
            raise DataError(f"{type(self).__name__} learns from labels, but this batch has none")
        return self.labels.loss(scores, batch.y, batch.label_smoothing, complete=batch.complete)

    def predict(self, x: Tensor) -> Tensor:
        """Return class log-probabilities (n, K) or regression means (n, D): (n, *x) -> (n, outputs)."""
        return self.labels.predict(self.scores(x))


def required_labels(data: Described) -> Labels:
    """Return the labels of `data`.

    Raises:
        DomainError: If there are none; the message says how to load them.
    """
    if data.labels is None:
        raise DomainError(
            "needs labels, but the data have none; load data with labels: "
            "a folder with one sub-folder a class, a table with target=COLUMN, arrays with y"
        )
    return data.labels


def required_classes(labels: Labels) -> Classes:
    """Return `labels` if they name classes.

    Raises:
        DomainError: If they are real targets.
    """
    if isinstance(labels, Classes):
        return labels
    raise DomainError(f"needs Classes, but the labels are real targets ({', '.join(labels.names)})")
