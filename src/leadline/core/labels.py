"""What a label is, and how a network's outputs become a prediction and a loss."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from leadline.core.errors import DataError, OptionError

__all__ = ["Classes", "Labels", "Targets", "labels_from_json"]

UNKNOWN = -1


@dataclass(frozen=True)
class Classes:
    """Labels that name one of K classes; y is (n,) int64, -1 where unknown.

    Args:
        names: The K class names, in the order of their numbers.
    """

    names: tuple[str, ...]

    @property
    def outputs(self) -> int:
        """Return the number of network outputs that a prediction needs: K."""
        return len(self.names)

    def predict(self, outputs: Tensor) -> Tensor:
        """Return class log-probabilities: (n, K) scores -> (n, K)."""
        return F.log_softmax(outputs, -1)

    def loss(
        self, outputs: Tensor, y: Tensor, label_smoothing: float = 0.0, *, complete: bool = False
    ) -> Tensor:
        """Return the mean cross-entropy in nats over the rows whose label is known, shape ().

        A batch without any known label costs nothing (zero, with a gradient of zero); `complete` says
        that all are known, which saves three small kernels.
        """
        if complete:
            return F.cross_entropy(outputs, y, label_smoothing=label_smoothing)
        total = F.cross_entropy(
            outputs, y, ignore_index=UNKNOWN, reduction="sum", label_smoothing=label_smoothing
        )
        return total / (y != UNKNOWN).sum().clamp(min=1)

    def known(self, y: Tensor) -> Tensor:
        """Return which rows carry a label: (n,) -> (n,) bool."""
        return y != UNKNOWN

    def to_json(self) -> dict[str, Any]:
        """Return a plain description that `labels_from_json` reads back."""
        return {"kind": "classes", "names": list(self.names)}


@dataclass(frozen=True)
class Targets:
    """Labels that are D real numbers; y is (n, D) float32, NaN where unknown.

    Args:
        names: The D column names.
        mean: Mean of each column over the training split.
        scale: Standard deviation of each column over the training split, positive.
    """

    names: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]

    @property
    def outputs(self) -> int:
        """Return the number of network outputs that a prediction needs: D."""
        return len(self.names)

    def predict(self, outputs: Tensor) -> Tensor:
        """Return means in the raw unit of the targets: (n, D) -> (n, D)."""
        return outputs * outputs.new_tensor(self.scale) + outputs.new_tensor(self.mean)

    def loss(
        self, outputs: Tensor, y: Tensor, label_smoothing: float = 0.0, *, complete: bool = False
    ) -> Tensor:
        """Return half the mean squared error in standardised units over the known targets, shape ()."""
        if label_smoothing:
            raise OptionError("label_smoothing applies to classes; these labels are real targets")
        known = ~torch.isnan(y)
        goal = (y - outputs.new_tensor(self.mean)) / outputs.new_tensor(self.scale)
        error = torch.where(known, outputs - torch.where(known, goal, 0.0), 0.0)
        return 0.5 * error.square().sum() / known.sum().clamp(min=1)

    def known(self, y: Tensor) -> Tensor:
        """Return which rows carry every target: (n, D) -> (n,) bool."""
        return ~torch.isnan(y).any(-1)

    def to_json(self) -> dict[str, Any]:
        """Return a plain description that `labels_from_json` reads back."""
        return {
            "kind": "targets",
            "names": list(self.names),
            "mean": list(self.mean),
            "scale": list(self.scale),
        }


Labels = Classes | Targets


def labels_from_json(fields: dict[str, Any] | None) -> Labels | None:
    """Return the labels that `to_json` described, or None.

    Raises:
        DataError: If the description is of no known kind.
    """
    if fields is None:
        return None
    if fields.get("kind") == "classes":
        return Classes(tuple(fields["names"]))
    if fields.get("kind") == "targets":
        return Targets(tuple(fields["names"]), tuple(fields["mean"]), tuple(fields["scale"]))
    raise DataError(f"unknown kind of labels: {fields.get('kind')!r}")
