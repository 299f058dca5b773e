r"""The label as one more variable, behind the columns: seen, or summed out.

    log p(x) = log sum_k p(x, label = k),      p(label = k | x) = p(x, label = k) / p(x)

The second needs no partition function, so a field predicts exactly whatever its width.

Symbols:
    n rows, d columns, x (n, d) states, K classes.
"""

import math
from abc import abstractmethod

import torch
from torch import Tensor

from leadline.core import Categories, Domain, ShapeError
from leadline.models.graphical.questions import FactorModel
from leadline.models.graphical.wording import joined

__all__ = ["LabelledModel"]


class LabelledModel(FactorModel):
    """A product of factors over columns, a label where there is one, and hidden variables, in this order.

    Args:
        domain: What a sample is.
        columns: The observed variables and their states.
        label: The label's name and classes, if there is one.
        hidden: Variables that no row shows.
    """

    def __init__(
        self,
        domain: Domain,
        columns: Categories,
        label: Categories | None = None,
        hidden: Categories | None = None,
    ) -> None:
        super().__init__(domain, joined(joined(columns, label), hidden))
        self.label = None if label is None else len(columns.sizes)  # its number among the variables
        if label is None:
            self.predict = None  # type: ignore[assignment, method-assign]

    @abstractmethod
    def states(self, x: Tensor) -> Tensor:
        """Return checked samples as states of the columns: (n, *shape) -> (n, d) int64."""

    @abstractmethod
    def known_weight(self, s: Tensor) -> Tensor:
        """Return the log-weight of what is known of rows of all variables, in nats: (n, d) -> (n,)."""

    def predict(self, x: Tensor) -> Tensor:
        """Return log p(label | x) of each class, exactly: (n, *shape) -> (n, K).

        Of a row that every class rules out all classes are equally likely.

        Raises:
            ShapeError: If a value is not of the domain.
        """
        logs = self.class_weights(self.states(x)).log_softmax(1)
        return logs.nan_to_num(-math.log(logs.shape[1]), neginf=-math.inf)

    def class_weights(self, s: Tensor) -> Tensor:
        """Return the log-weight of rows of columns with each class, in nats: (n, d) -> (n, K)."""
        classes = range(self.variables.sizes[s.shape[1]])
        return torch.stack(
            [self.known_weight(self.with_label(s, s.new_full((len(s),), k))) for k in classes], 1
        )

    def with_label(self, s: Tensor, y: Tensor | None = None) -> Tensor:
        """Return rows with a column for the label, and one a hidden variable, -1 where unknown.

        Raises:
            ShapeError: If there is not one label a row.
        """
        unseen = s.new_full((len(s), len(self.variables.sizes) - s.shape[1]), -1)
        if self.label is not None and y is not None:
            if y.shape != (len(s),):
                raise ShapeError(f"labels must have shape ({len(s)},), one a row, got {tuple(y.shape)}")
            unseen[:, 0] = y.to(s)
        return torch.cat([s, unseen], 1)
