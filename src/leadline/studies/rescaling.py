r"""Two layers multiplied by a and by 1 / a: other weights, the same function where units are rectified.

Source:
    Dinh, Pascanu, Bengio and Bengio (2017), Sharp minima can generalize for deep nets, ICML, section 3.
"""

import copy
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

__all__ = ["moved_by", "rescaled", "same_function"]

SAME = 1e-6


def rescaled(net: nn.Module, first: str, second: str, factor: float) -> nn.Module:
    """Return a copy with module `first`, biases too, multiplied by a factor and `second` divided by it."""
    twin = copy.deepcopy(net)
    with torch.no_grad():
        for parameter in twin.get_submodule(first).parameters(recurse=False):
            parameter.mul_(factor)
        twin.get_submodule(second).weight.div_(factor)  # type: ignore[operator]
    return twin


def moved_by(before: Tensor, after: Tensor) -> float:
    """Return the largest change of outputs, relative to the largest output."""
    return float(((after - before).abs().max() / before.abs().max().clamp(min=1e-30)).detach())


def same_function(
    net: nn.Module, outputs: Callable[[nn.Module], Tensor], factor: float
) -> tuple[nn.Module, str] | None:
    """Return the first rescaling of two neighbouring layers that changes no output, and its name; or None.

    Args:
        net: A module whose layers are registered in the order of its computation.
        outputs: What a module computes, as a tensor in float64.
        factor: By which the first layer is multiplied.
    """
    layers = [
        name for name, part in net.named_modules() if isinstance(getattr(part, "weight", None), nn.Parameter)
    ]
    before = outputs(net)
    for first, second in pairwise(layers):
        if net.get_submodule(second).weight.dim() < 2:  # type: ignore[operator]
            continue
        twin = rescaled(net, first, second, factor)
        if moved_by(before, outputs(twin)) < SAME:
            return twin, f"{first} x {factor:g}, {second} / {factor:g}"
    return None
