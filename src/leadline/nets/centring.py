r"""The centred gradient of machines of binary units: most of a plain step goes into what biases could do.

Units less their running means m_l have the weights

    G_l = g(W_l) - m_l-1 g(b_l)^T - g(b_l-1) m_l^T

as their gradient; taken back to the plain parameters, the biases have

    g(b_l) - G_l^T m_l-1 - G_l+1 m_l+1

That is the plain gradient times a positive matrix: it vanishes in the same places. It does not change when
ones and zeros are swapped.

Symbols:
    W_l (H_l-1, H_l) weights, b_l (H_l,) biases and m_l (H_l,) means of layer l, g plain gradients.

Source:
    Montavon and Mueller (2012), Deep Boltzmann Machines and the Centering Trick.
    Melchior, Fischer and Wiskott (2016), How to Center Deep Boltzmann Machines, JMLR 17.

Departs from the source:
    The means are of the data's statistics, and move by at most a hundredth of a batch once they have begun.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

__all__ = ["Centring", "centred_gradients", "with_gradient"]

_SLOWEST = 0.01


class Centring(nn.Module):
    """Running means of the units of each layer, and losses whose gradient is centred by them.

    Args:
        sizes: Number of units of each layer, from below.
    """

    batches: Tensor

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("batches", torch.zeros(()))
        for number, size in enumerate(sizes):
            self.register_buffer(f"mean{number}", torch.zeros(size))

    @property
    def means(self) -> list[Tensor]:
        """Return the running mean of each layer, (H_l,)."""
        return [buffer for name, buffer in self.named_buffers() if name != "batches"]

    def forward(
        self,
        loss: Tensor,
        weights: Sequence[Tensor],
        biases: Sequence[Tensor],
        states: Sequence[Tensor],
        takers: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Return `loss`, shape (), with the centred gradient in weights and biases, and none elsewhere.

        Args:
            loss: A loss of machines whose units these are.
            weights: W_l between neighbouring layers.
            biases: b_l of every layer.
            states: Units of the data, or their probabilities, which the means follow: (n, H_l) each.
            takers: What takes the gradient of the biases, if that is not the biases themselves.
        """
        with torch.no_grad():
            self.batches += 1
            share = (1 / self.batches).clamp(min=_SLOWEST)
            for mean, state in zip(self.means, states, strict=True):
                mean.lerp_(state.mean(0).to(mean), share.to(mean))
        if not torch.is_grad_enabled():
            return loss
        parameters = [*weights, *biases]
        plain = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            found = centred_gradients(plain[: len(weights)], plain[len(weights) :], self.means)
        taking = [*weights, *(biases if takers is None else takers)]
        return with_gradient(loss.detach(), taking, found)


def with_gradient(value: Tensor, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    """Return `value`, shape (), as a number whose gradient in each of the parameters is the given one."""
    held: Tensor = _WithGradient.apply(value, len(parameters), *parameters, *gradients)
    return held


def centred_gradients(
    weights: Sequence[Tensor], biases: Sequence[Tensor], means: Sequence[Tensor]
) -> list[Tensor]:
    """Return the centred gradients in weights, then biases, given the plain ones and the means."""
    pairs = [
        of_weights.addr(means[number], biases[number + 1], alpha=-1).addr_(
            biases[number], means[number + 1], alpha=-1
        )
        for number, of_weights in enumerate(weights)
    ]
    ones = [each.clone() for each in biases]
    for number, pair in enumerate(pairs):
        ones[number].addmv_(pair, means[number + 1], alpha=-1)
        ones[number + 1].addmv_(pair.T, means[number], alpha=-1)
    return [*pairs, *ones]


class _WithGradient(torch.autograd.Function):
    """A number whose gradient in some parameters is given."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, count: int, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*tensors[count:])
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        found = [grad * each for each in ctx.saved_tensors]
        return (None, None, *found, *(None for _ in found))
