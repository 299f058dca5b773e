"""Dense stacks: linear layers with an activation between two of them.

Symbols:
    n samples.
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from leadline.core.errors import OptionError, unknown_name

__all__ = ["ACTIVATIONS", "NORMS", "BatchNorm", "activation_layer", "dense"]


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation that takes a training batch of one row, which has no variance.

    Such a batch (the rest of an epoch) is normalised by the running averages, and leaves them alone.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised units: (n, width) -> (n, width)."""
        if len(x) > 1 or not self.training:
            return super().forward(x)
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


ACTIVATIONS: dict[str, type[nn.Module]] = {
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "identity": nn.Identity,
    "leaky_relu": nn.LeakyReLU,
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
}
NORMS: dict[str, type[nn.Module]] = {
    "none": nn.Identity,
    "batch": BatchNorm,
    "layer": nn.LayerNorm,
}


def activation_layer(name: str) -> nn.Module:
    """Return the layer of an activation's name.

    Raises:
        OptionError: If the name is unknown; the message lists the known ones.
    """
    if name not in ACTIVATIONS:
        raise unknown_name("activation", name, ACTIVATIONS)
    return nn.LeakyReLU(0.2) if name == "leaky_relu" else ACTIVATIONS[name]()


def dense(
    sizes: Sequence[int], activation: str = "relu", *, dropout: float = 0.0, norm: str = "none"
) -> nn.Sequential:
    """Return a stack of linear layers, (n, sizes[0]) -> (n, sizes[-1]).

    Behind every layer but the last stand normalisation, activation and dropout, each only if asked for;
    so the last module is the last linear layer, and what comes before it gives the hidden features.

    Args:
        sizes: Widths of input, hidden layers and output; two of them make one linear map.
        activation: A name in `ACTIVATIONS`.
        dropout: Probability that a hidden unit is left out during training, in [0, 1).
        norm: A name in `NORMS`.

    Raises:
        OptionError: If a name is unknown or a number out of range.

    Example:
        >>> dense((64, 128, 10))
        Sequential(
          (0): Linear(in_features=64, out_features=128, bias=True)
          (1): ReLU()
          (2): Linear(in_features=128, out_features=10, bias=True)
        )
    """
    if len(sizes) < 2 or min(sizes) < 1:
        raise OptionError(f"sizes must be at least two positive widths, got {tuple(sizes)}")
    if not 0 <= dropout < 1:
        raise OptionError(f"dropout must be in [0, 1), got {dropout}")
    if norm not in NORMS:
        raise unknown_name("norm", norm, NORMS)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes[:-1]):
        layers.append(nn.Linear(inputs, outputs))
        layers.extend([] if norm == "none" else [NORMS[norm](outputs)])
        layers.append(activation_layer(activation))
        layers.extend([nn.Dropout(dropout)] if dropout else [])
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))
