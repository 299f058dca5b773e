r"""Partition functions by summing over every state of binary units.

Two layers of them are summed over the smaller one; where the other units are Gaussian, or there are none,
what is left is one layer with weights inside it:

    Z = sum_h exp(c h) prod_i (1 + exp(b_i + W_i h)),        Z = sum_h exp(a h + h^T G h / 2)

States are made of a high and a low half: b_i + W_i h = x_i + y_i with x = W h_high and y = b + W h_low. So
the factors of a few units multiply out into a sum over subsets S of them,

    prod_i (1 + exp(x_i) exp(y_i)) = sum_S exp(sum_S x_i) exp(sum_S y_i)

which for all pairs of halves is one product of matrices: no exponential and no logarithm a state. All terms
are positive, so that nothing cancels: in float64 the relative error of Z is about D 2^-53. Logarithms are
taken each time the product could outgrow float64.

Symbols:
    W (D, H) weights, b (D,) and c (H,) biases, h (2^H, H) states, a = b + W h the input of the other layer;
    a (H,) and G (H, H), symmetric, of one layer. x (2^high, D), y (2^low, D), k groups of _GROUP units.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

__all__ = [
    "draws_of_pairs",
    "draws_of_smaller",
    "log_partition_by_pairs",
    "log_partition_of",
    "log_partition_with_gradient",
    "states_of",
]

_LOW = 10
_GROUP = 3  # 2^3 terms for 3 factors: fewer waste passes over the states, more waste multiplications
_ROWS = 256  # states of the high half at once, so that a block of states stays in the cache
_LARGEST = 700.0  # exp of it is still a float64
# A product of this many factors in [1, 2] stays below the largest float32, 2^128.
_FACTORS = 64


def log_partition_of(weights: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return log Z in nats, shape (), float64 in CPU memory, of weights (D, H) and biases (D,) and (H,)."""
    with torch.no_grad():
        blocks = [torch.logsumexp(part.flatten(), 0) for part in _log_weights(weights, rows, columns)]
    return torch.logsumexp(torch.stack(blocks), 0)


def draws_of_smaller(
    weights: Tensor, rows: Tensor, columns: Tensor, n: int, generator: torch.Generator | None = None
) -> Tensor:
    """Return exact draws of the smaller layer of two, by its marginal over all states: (n, min(D, H))."""
    with torch.no_grad():
        each = torch.cat([part.flatten() for part in _log_weights(weights, rows, columns)])
    return _states_drawn(each, min(weights.shape), n, weights, generator)


def log_partition_with_gradient(weights: Tensor, rows: Tensor, columns: Tensor, value: float) -> Tensor:
    """Return the known log Z as a tensor whose gradient is found by enumeration when it is asked for."""
    found: Tensor = _LogPartition.apply(weights, rows, columns, value)
    return found


def log_partition_by_pairs(pairs: Tensor, linear: Tensor) -> Tensor:
    """Return log sum_h exp(a h + h^T G h / 2) in nats, shape (), of pairs G (H, H) and linear a (H,)."""
    return _log_weights_by_pairs(pairs, linear).flatten().logsumexp(0).to(linear)


def draws_of_pairs(pairs: Tensor, linear: Tensor, n: int, generator: torch.Generator | None = None) -> Tensor:
    """Return exact draws of the units whose log-weight is a h + h^T G h / 2: (n, H)."""
    with torch.no_grad():
        each = _log_weights_by_pairs(pairs, linear).T.flatten()
    return _states_drawn(each, len(linear), n, linear, generator)


def _log_weights_by_pairs(pairs: Tensor, linear: Tensor) -> Tensor:
    """Return a h + h^T G h / 2 of each state, low half by high half: (2^low, 2^high), float64, CPU."""
    G, a = pairs.double().cpu(), linear.double().cpu()
    low = min(_LOW, len(a))
    x, y = states_of(low, a), states_of(len(a) - low, a)  # the state is (x, y)
    of_x = x @ a[:low] + 0.5 * ((x @ G[:low, :low]) * x).sum(1)
    of_y = y @ a[low:] + 0.5 * ((y @ G[low:, low:]) * y).sum(1)
    return torch.addmm(of_y, x @ G[:low, low:], y.T) + of_x[:, None]


def _states_drawn(
    log_weights: Tensor, units: int, n: int, like: Tensor, generator: torch.Generator | None
) -> Tensor:
    """Return states whose numbers are drawn by the log-weights of all: (2^units,) -> (n, units)."""
    # by the inverse of the cumulative distribution
    total = (log_weights - log_weights.max()).exp().cumsum(0)
    chance = torch.rand(n, dtype=torch.float64, device=like.device, generator=generator).cpu()
    number = torch.searchsorted(total, chance * total[-1], right=True).clamp_(max=len(total) - 1)
    return (number[:, None] >> torch.arange(units) & 1).to(like)


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


def _log_weights(weights: Tensor, rows: Tensor, columns: Tensor) -> Iterator[Tensor]:
    """Return the log-weights of all states of the smaller layer in order, in blocks: float64, CPU."""
    W, b, c = (tensor.double().cpu() for tensor in _smaller_last(weights, rows, columns))
    low = min(_LOW, W.shape[1])
    low_states, high_states = states_of(low, W), states_of(W.shape[1] - low, W)
    x, y = high_states @ W[:, low:].T, torch.addmm(b, low_states, W[:, :low].T)
    bounds = _bounds(x, y)
    if bounds is None:
        for _, _, each in _blocks(W, b, c):
            yield each
        return
    ups, downs = _subsets(x.exp()), _subsets(y.exp()).transpose(1, 2).contiguous()
    biases = (high_states @ c[low:])[:, None] + low_states @ c[:low]  # (2^high, 2^low)
    for start in range(0, len(x), _ROWS):
        part = slice(start, start + _ROWS)
        yield biases[part] + _log_of_products(ups[:, part], downs, bounds)


def _bounds(x: Tensor, y: Tensor) -> list[float] | None:
    """Return what the log of the factors of each group is at most, or None if that is too large for exp."""
    peak = F.softplus(x.amax(0) + y.amax(0))
    sizes = [tensor.abs().amax(0) for tensor in (x, y)]
    largest = [_grouped(tensor[None]).sum(2)[:, 0] for tensor in (peak, *sizes)]
    if not all(bool((each <= _LARGEST).all()) for each in largest):
        return None
    return largest[0].tolist()


def _log_of_products(ups: Tensor, downs: Tensor, bounds: list[float]) -> Tensor:
    """Return the sum over groups of the log of ups_k downs_k: (k, r, 2^g), (k, 2^g, c) -> (r, c)."""
    found = ups.new_zeros(ups.shape[1], downs.shape[2])
    product, factor, reached = torch.ones_like(found), torch.empty_like(found), 0.0
    for up, down, bound in zip(ups, downs, bounds, strict=True):
        if reached + bound > _LARGEST:
            found += product.log_()
            product.fill_(1.0)
            reached = 0.0
        product *= torch.mm(up, down, out=factor)
        reached += bound
    return found.add_(product.log_())


def _subsets(values: Tensor) -> Tensor:
    """Return the product of every subset of each group of columns: (s, D) -> (k, s, 2^_GROUP)."""
    groups = _grouped(values)
    found = groups.new_ones(*groups.shape[:2], 1)
    for column in groups.split(1, 2):
        found = torch.cat([found, found * column], 2)
    return found


def _grouped(values: Tensor) -> Tensor:
    """Return columns in groups of _GROUP, the last one filled with zeros: (s, D) -> (k, s, _GROUP)."""
    whole = F.pad(values, (0, -values.shape[1] % _GROUP))
    return whole.view(len(values), -1, _GROUP).transpose(0, 1)


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
