r"""Partition functions by summing over every state of binary units.

Two layers of them are summed over the smaller one; where the other units are Gaussian, or there are none,
what is left is one layer with weights inside it:

    Z = sum_h exp(c h) prod_i (1 + exp(b_i + W_i h)),        Z = sum_h exp(a h + h^T G h / 2)

States are made of a high and a low half, so that a block of them needs an addition and no product:
b + W h = W h_high + (b + W h_low).

Symbols:
    W (D, H) weights, b (D,) and c (H,) biases, h (2^H, H) states, a = b + W h the input of the other layer;
    a (H,) and G (H, H), symmetric, of one layer.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["log_partition_by_pairs", "log_partition_of", "log_partition_with_gradient", "states_of"]

_LOW = 10
# A product of this many factors in [1, 2] stays below the largest float32, 2^128.
_FACTORS = 64


def log_partition_of(weights: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return log Z in nats, shape (), float64 in CPU memory, of weights (D, H) and biases (D,) and (H,)."""
    with torch.no_grad():
        W, b, c = _smaller_last(weights, rows, columns)
        blocks = [torch.logsumexp(log_weights, 0) for _, _, log_weights in _blocks(W, b, c)]
    return torch.logsumexp(torch.stack(blocks), 0)


def log_partition_with_gradient(weights: Tensor, rows: Tensor, columns: Tensor, value: float) -> Tensor:
    """Return the known log Z as a tensor whose gradient is found by enumeration when it is asked for."""
    found: Tensor = _LogPartition.apply(weights, rows, columns, value)
    return found


def log_partition_by_pairs(pairs: Tensor, linear: Tensor) -> Tensor:
    """Return log sum_h exp(a h + h^T G h / 2) in nats, shape (), of pairs G (H, H) and linear a (H,)."""
    G, a = pairs.double().cpu(), linear.double().cpu()
    low = min(_LOW, len(a))
    x, y = states_of(low, a), states_of(len(a) - low, a)  # the state is (x, y)
    of_x = x @ a[:low] + 0.5 * ((x @ G[:low, :low]) * x).sum(1)
    of_y = y @ a[low:] + 0.5 * ((y @ G[low:, low:]) * y).sum(1)
    both = torch.addmm(of_y, x @ G[:low, low:], y.T) + of_x[:, None]  # (2^low, 2^(H - low))
    return both.flatten().logsumexp(0).to(linear)


class _LogPartition(torch.autograd.Function):
    """A known log Z; backward gives the expected statistics: E[v h^T], E[v], E[h]."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, rows: Tensor, columns: Tensor, value: float) -> Tensor:
        ctx.save_for_backward(weights, rows, columns)
        ctx.value = value
        return weights.new_tensor(value)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weights, rows, columns = ctx.saved_tensors
        W, b, c = _smaller_last(weights, rows, columns)
        pairs, ones, others = torch.zeros_like(W), torch.zeros_like(b), torch.zeros_like(c)
        for h, a, log_weights in _blocks(W, b, c, keep_inputs=True):
            p = (log_weights - ctx.value).exp().to(W)[:, None]  # (states, 1)
            on = a.sigmoid() * p
            pairs += on.T @ h
            ones += on.sum(0)
            others += (p * h).sum(0)
        if weights.shape[0] < weights.shape[1]:
            pairs, ones, others = pairs.T, others, ones
        return grad * pairs, grad * ones, grad * others, None


def _smaller_last(weights: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the same machine with the smaller layer as columns."""
    if weights.shape[0] < weights.shape[1]:
        return weights.T.contiguous(), columns, rows
    return weights, rows, columns


def _blocks(
    weights: Tensor, b: Tensor, c: Tensor, *, keep_inputs: bool = False
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Return states h, inputs a and log-weights (float64, CPU), a block at a time; `a` only if kept."""
    W = weights
    low = min(_LOW, W.shape[1])
    low_states, high_states = states_of(low, W), states_of(W.shape[1] - low, W)
    low_inputs = torch.addmm(b, low_states, W[:, :low].T)  # (2^low, D)
    low_bias, high_bias = low_states @ c[:low], high_states @ c[low:]
    a = torch.empty_like(low_inputs)
    extras = high_states @ W[:, low:].T
    totals = low_inputs.cpu().double().sum(1), extras.cpu().double().sum(1)
    for high, bias, extra, total in zip(high_states, high_bias, extras, totals[1], strict=True):
        torch.add(low_inputs, extra, out=a)
        kept = a.clone() if keep_inputs else a
        log_weights = (low_bias + bias).cpu().double() + _sum_of_softplus(a, totals[0] + total)
        yield torch.cat([low_states, high.expand(len(low_states), -1)], 1), kept, log_weights


def states_of(units: int, like: Tensor) -> Tensor:
    """Return every state of some binary units: (2^units, units)."""
    number = torch.arange(2**units, device=like.device)[:, None]
    return (number >> torch.arange(units, device=like.device) & 1).to(like)


def _sum_of_softplus(a: Tensor, total: Tensor) -> Tensor:
    """Return sum_i log(1 + exp(a_i)) as float64 in CPU memory: (n, D) -> (n,); overwrites `a`.

    Args:
        a: Inputs.
        total: Their sums (n,).
    """
    # log(1 + e^a) = (a + |a|) / 2 + log(1 + e^-|a|), and one logarithm serves many factors
    below = a.copysign_(-1.0)  # -|a| in one pass
    half = (total - below.sum(1).cpu().double()) / 2
    factors = below.exp_().add_(1).split(_FACTORS, 1)
    return half + torch.stack([group.prod(1) for group in factors]).log().sum(0).cpu().double()
