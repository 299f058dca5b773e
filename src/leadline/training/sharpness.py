r"""Sharpness-aware minimisation: a step of any optimiser with the gradient at the worst point nearby.

With the gradient g of the loss at the weights w, the step is taken from w with the gradient at w + e:
    plain:     e = rho g / |g|
    adaptive:  e = rho T^2 g / |T g|,  T = diag(|w| + 0.01)

Symbols:
    w weights, g gradient, e the climb, rho its length, T scale of each weight.

Source:
    Foret et al. (2021), Sharpness-Aware Minimization for Efficiently Improving Generalization, equations
    2 and 3 and algorithm 1. Kwon et al. (2021), ASAM, equation 9 and section 4.

Departs from the source:
    T is one for vectors (biases, the parameters of normalisation) in the adaptive form, as the weights of
    those have no scale to be free of. Weight decay belongs to the step and not to the climb.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from leadline.core import OptionError
from leadline.training.machine import whole

__all__ = ["Memory", "Sharpness"]

_ETA = 0.01


@dataclass(frozen=True)
class Sharpness:
    """How far and by which measure to climb before the gradient of a step is taken.

    Args:
        rho: Length of the climb, at least 0.
        adaptive: Measure the length in units of the weights' own scale.

    Raises:
        OptionError: If `rho` is no number of at least 0, or `adaptive` is not true or false.
    """

    rho: float = 0.05
    adaptive: bool = False

    def __post_init__(self) -> None:
        number = isinstance(self.rho, (int, float)) and not isinstance(self.rho, bool)
        if not (number and 0 <= self.rho < math.inf):
            raise OptionError(f"rho of sam must be a number of at least 0, got {self.rho!r}")
        if not isinstance(self.adaptive, bool):
            raise OptionError(f"adaptive of sam must be true or false, got {self.adaptive!r}")

    @torch.no_grad()
    def climb(self, parameters: Sequence[nn.Parameter]) -> None:
        """Move weights by e along their gradients, which may all be multiplied by one factor.

        Gradients that are not finite move nothing: a scaler then finds them again in the second pass.
        """
        moving = [p for p in parameters if p.grad is not None]
        grads: list[Tensor] = [p.grad for p in moving if p.grad is not None]
        scales = [self._scale(p) for p in moving] if self.adaptive else None
        if scales is not None:
            grads = [g if t is None else g * t for g, t in zip(grads, scales, strict=True)]
        norm = float(whole(nn.utils.get_total_norm(grads)))
        if not 0 < norm < math.inf or self.rho == 0:
            return
        if scales is not None:
            grads = [g if t is None else g * t for g, t in zip(grads, scales, strict=True)]
        torch._foreach_add_(_here(moving), _here(grads), alpha=self.rho / norm)

    @staticmethod
    def _scale(weight: Tensor) -> Tensor | None:
        return weight.abs() + _ETA if weight.dim() > 1 else None


class Memory:
    """What a pass over a batch may change, to be put back bit for bit.

    Args:
        learner: The module whose buffers a loss may change (running averages, chains).
        parameters: The weights that are moved.
        device: Where random numbers are drawn.
    """

    def __init__(self, learner: nn.Module, parameters: Sequence[nn.Parameter], device: torch.device) -> None:
        self._learner = learner
        self._parameters = list(parameters)
        self._source: Any = torch if device.type == "cpu" else getattr(torch, device.type)
        self._draws = (torch.get_rng_state(), self._source.get_rng_state())
        self._weights: list[Tensor] = []
        self._buffers: dict[str, Tensor] = {}

    @torch.no_grad()
    def keep(self) -> None:
        """Remember weights and buffers as they are now."""
        self._weights = [value.clone() for value in _here(self._parameters)]
        self._buffers = {name: value.clone() for name, value in self._learner.named_buffers()}

    def replay(self) -> None:
        """Let random numbers begin again where they did when this memory was made."""
        torch.set_rng_state(self._draws[0])
        if self._source is not torch:
            self._source.set_rng_state(self._draws[1])

    @torch.no_grad()
    def restore(self) -> None:
        """Put weights and buffers back to what was kept."""
        if self._weights:
            torch._foreach_copy_(_here(self._parameters), self._weights)
        for name, value in self._learner.named_buffers():
            if name in self._buffers:
                value.copy_(self._buffers[name])


def _here(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return the part of each tensor that this process holds."""
    return [value.to_local() if isinstance(value, DTensor) else value for value in tensors]
