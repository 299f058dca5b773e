r"""Masked stacks: dense networks whose output of position t reads only inputs of positions before t.

Every unit has a degree. An input has the position (1 to d) of the dimension it is computed from, an output
that of the dimension it belongs to, a hidden unit a number in 1 to d - 1. A weight is kept where

    degree of the hidden unit >= degree of what it reads,    degree of the output > degree of what it reads.

A stack holds several such assignments (components) over the same weights.

Because a unit of degree t waits for nothing after position t, a whole pass can be taken position by
position with each unit computed once: `Walk`.

Symbols:
    n samples, d positions, f inputs, p outputs, h hidden units, c components.

Source:
    Germain, Gregor, Murray and Larochelle (2015), MADE: Masked Autoencoder for Distribution Estimation,
    ICML, equations 9 to 14.

Departs from the source:
    Hidden degrees are spread evenly over 1 to d - 1, and shuffled in every draw of masks but the first,
    instead of drawn uniformly: no degree goes missing by chance, and no unit is cut off.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from leadline.core.errors import OptionError
from leadline.nets.dense import activation_layer

__all__ = ["MaskedLinear", "MaskedStack", "Walk", "spread_degrees"]


def spread_degrees(width: int, positions: int, shuffle: torch.Generator | None = None) -> Tensor:
    """Return degrees of `width` hidden units, even over 1 to `positions` - 1, sorted unless shuffled."""
    degrees = torch.linspace(1, max(positions - 1, 1), width).round().to(torch.int32)
    return degrees if shuffle is None else degrees[torch.randperm(width, generator=shuffle)]


class MaskedLinear(nn.Linear):
    """A linear layer whose weights are cut by the degrees of its ends.

    Args:
        sources: Degrees of what it reads, (c, inputs).
        targets: Degrees of what it gives, (c, outputs).
        strict: Whether a target must be of higher degree than what it reads, else of no lower one.
        bias: Whether there is a bias.
    """

    def __init__(self, sources: Tensor, targets: Tensor, *, strict: bool, bias: bool = True) -> None:
        super().__init__(sources.shape[1], targets.shape[1], bias=bias)
        self.strict = strict
        self.sources: Tensor
        self.targets: Tensor
        self.register_buffer("sources", sources.to(torch.int32))
        self.register_buffer("targets", targets.to(torch.int32))

    def mask(self, component: int = 0) -> Tensor:
        """Return which weights of a component are kept, (outputs, inputs)."""
        sources, targets = self.sources[component], self.targets[component][:, None]
        return targets > sources if self.strict else targets >= sources

    def forward(self, x: Tensor, component: int = 0) -> Tensor:
        """Return the masked linear map: (n, inputs) -> (n, outputs)."""
        return F.linear(x, torch.where(self.mask(component), self.weight, 0), self.bias)


class MaskedStack(nn.Module):
    """Masked linear layers with an activation between two of them: (n, f) -> (n, p).

    Args:
        degrees_in: Degrees of the inputs of each component, (c, f), positions from 1.
        degrees_out: Degrees of the outputs of each component, (c, p), positions from 1.
        hidden: Degrees of each hidden layer, one (c, h) a layer, at least one.
        activation: A name in `nets.dense.ACTIVATIONS`.
        direct: Whether masked weights lead from the inputs straight to the outputs as well.

    Raises:
        OptionError: If there is no hidden layer, or the activation is unknown.
    """

    def __init__(
        self,
        degrees_in: Tensor,
        degrees_out: Tensor,
        hidden: Sequence[Tensor],
        activation: str = "relu",
        *,
        direct: bool = False,
    ) -> None:
        super().__init__()
        if not hidden:
            raise OptionError("a masked stack needs at least one hidden layer")
        self.activation = activation_layer(activation)
        self.inner = nn.ModuleList(
            MaskedLinear(before, after, strict=False) for before, after in pairwise([degrees_in, *hidden])
        )
        self.head = MaskedLinear(hidden[-1], degrees_out, strict=True)
        self.direct = MaskedLinear(degrees_in, degrees_out, strict=True, bias=False) if direct else None

    def hidden(self, x: Tensor, component: int = 0) -> Tensor:
        """Return the activations of the last hidden layer: (n, f) -> (n, h)."""
        for layer in self.inner:
            x = self.activation(layer(x, component))
        return x

    def forward(self, x: Tensor, component: int = 0) -> Tensor:
        """Return the outputs of a component: (n, f) -> (n, p)."""
        out = self.head(self.hidden(x, component), component)
        return out if self.direct is None else out + self.direct(x, component)

    def walk(self, n: int, component: int = 0) -> "Walk":
        """Return a pass over `n` rows whose inputs become known position by position."""
        return Walk(self, n, component)


class Walk:
    """One pass of a masked stack, position by position: `outputs`, then `feed`, for each in turn.

    Units are sorted by degree, so that what a position may read is a prefix and what it settles is the
    next block. All steps together cost one pass, half of one where the masks cut half. Values lie as
    (units, n), which makes prefixes and blocks contiguous; unit 0 is always 1, and its weight the bias.

    Args:
        stack: The network.
        n: Number of rows.
        component: Which masks.
    """

    def __init__(self, stack: MaskedStack, n: int, component: int) -> None:
        self.activation = stack.activation.forward  # a step is short: the hooks of a call would show
        self.inner = [_Sorted(layer, component) for layer in stack.inner]  # type: ignore[arg-type]
        self.head = _Sorted(stack.head, component)
        self.direct = None if stack.direct is None else _Sorted(stack.direct, component)
        self.values = [layer.weight.new_ones(layer.weight.shape[1], n) for layer in [*self.inner, self.head]]
        self.position = 1

    def outputs(self) -> Tensor:
        """Return the outputs of the current position: (n, its number of outputs)."""
        out = self.head.block(self.values[-1], self.position)
        if self.direct is not None:
            out = out + self.direct.block(self.values[0], self.position)
        return out.T

    def feed(self, x: Tensor) -> None:
        """Take the inputs of the current position (n, its number of inputs), and go to the next one."""
        at = self.position
        self.values[0][self.inner[0].sources[at - 1] : self.inner[0].sources[at]] = x.T
        for layer, before, after in zip(self.inner, self.values, self.values[1:], strict=False):
            start, stop = layer.targets[at - 1], layer.targets[at]
            if start < stop:
                after[start + 1 : stop + 1] = self.activation(layer.block(before, at))
        self.position = at + 1


class _Sorted:
    """A masked layer with the units at both ends sorted by degree, behind a unit that is always 1.

    `sources[t]` counts what units of degree at most t give, that unit included; `targets[t]` what
    they are.
    """

    def __init__(self, layer: MaskedLinear, component: int) -> None:
        sources, rows = layer.sources[component].sort(stable=True)
        targets, columns = layer.targets[component].sort(stable=True)
        top = int(torch.maximum(sources[-1], targets[-1])) + 1
        steps = torch.arange(top + 1, device=sources.device, dtype=sources.dtype)
        self.sources: list[int] = (torch.searchsorted(sources, steps, right=True) + 1).tolist()
        self.targets: list[int] = torch.searchsorted(targets, steps, right=True).tolist()
        self.last = 1 if layer.strict else 0
        bias = layer.weight.new_zeros(len(targets)) if layer.bias is None else layer.bias
        # (outputs, inputs) -> (outputs, 1 + inputs), both sorted
        self.weight = torch.cat([bias[columns, None], layer.weight[columns][:, rows]], 1).detach()
        self.blocks = self.weight.tensor_split(self.targets[1:-1])

    def block(self, values: Tensor, at: int) -> Tensor:
        """Return what the units of degree `at` read from sorted `values`: (inputs, n) -> (units, n)."""
        reach = self.sources[at - self.last]
        return torch.mm(self.blocks[at - 1][:, :reach], values[:reach])
