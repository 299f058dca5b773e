"""The contrast of two layers of binary units: free energy at the data less that at the ends of chains."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

__all__ = ["Contrast"]


class Contrast(torch.autograd.Function):
    """Mean F(data) - mean F(end) of binary units; backward writes the gradient in one product of matrices.

    The inputs of the hidden units are given; where the data have a gradient, it is found by another product.
    Under autocast these products may be rounded, but nothing that is summed or drawn from is.

    Shapes:
        weights (D, H), b (D,), c (H,), data (n, D), end (m, D), up (n, H) and down (m, H) -> ().
    """

    @staticmethod
    def forward(
        ctx: Any, weights: Tensor, b: Tensor, c: Tensor, data: Tensor, end: Tensor, up: Tensor, down: Tensor
    ) -> Tensor:
        """Return the contrast, shape (), in nats."""
        shift = end.mean(0) - data.mean(0)
        ctx.save_for_backward(data, end, up, down, shift, weights, b)
        return (shift * b).sum() + F.softplus(down).sum() / len(end) - F.softplus(up).sum() / len(data)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients in weights, biases, data and ends."""
        data, end, up, down, shift, weights, b = ctx.saved_tensors
        v, h = torch.cat([data, end]), torch.cat([up, down]).sigmoid_()
        h[: len(data)].mul_(grad / -len(data))
        h[len(data) :].mul_(grad / len(end))
        of_data = of_end = None
        if ctx.needs_input_grad[3]:
            back = h @ weights.T
            of_data = back[: len(data)] - b * (grad / len(data))
            of_end = back[len(data) :] + b * (grad / len(end))
        return v.T @ h, shift * grad, h.sum(0), of_data, of_end, None, None
