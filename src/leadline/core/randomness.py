"""Randomness as an argument: generators, draws, and noise that belongs to a row.

Symbols:
    n number of rows, k number of categories, m number of draws.
"""

import hashlib
import math

import torch
from torch import Tensor

__all__ = [
    "bernoulli",
    "categorical",
    "derive_seed",
    "generator_for",
    "normal",
    "normal_of_rows",
    "uniform",
    "uniform_of_rows",
]

# Odd multipliers of the 64-bit finaliser "splitmix64" (Steele, Lea and Flood 2014), as signed integers.
_GAMMA = -7046029254386353131
_MIX = (-4658895280553007687, -7723592293110705685)


def derive_seed(seed: int, *keys: object) -> int:
    """Return a seed in [0, 2^63) that is a pure function of `seed` and `keys`."""
    text = repr((seed, *keys)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "little") >> 1


def generator_for(seed: int, *keys: object, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a generator whose stream is a pure function of `seed` and `keys`."""
    return torch.Generator(device=device).manual_seed(derive_seed(seed, *keys))


def uniform(shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Return draws from U[0, 1) with the dtype and device of `like`."""
    return torch.empty(shape, dtype=like.dtype, device=like.device).uniform_(generator=generator)


def normal(shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Return draws from N(0, 1) with the dtype and device of `like`."""
    return torch.empty(shape, dtype=like.dtype, device=like.device).normal_(generator=generator)


def bernoulli(probability: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Return 0/1 draws of the shape and dtype of `probability`."""
    return uniform(tuple(probability.shape), probability, generator).lt_(probability.detach())


def categorical(log_weights: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Return one index per row drawn with probability softmax(log_weights): (..., k) -> (...)."""
    # Inverse of the cumulative distribution: one uniform a row, exact up to rounding.
    cumulative = torch.softmax(log_weights, -1).cumsum(-1)
    total = cumulative[..., -1:]
    threshold = uniform(tuple(total.shape), total, generator) * total
    return (
        torch.searchsorted(cumulative, threshold, right=True)
        .squeeze(-1)
        .clamp_(max=log_weights.shape[-1] - 1)
    )


def uniform_of_rows(x: Tensor, width: int, draws: int = 1) -> Tensor:
    """Return noise in (0, 1) that is a pure function of each row of `x`: (n, *) -> (draws, n, width).

    Two calls agree, and a row's noise does not depend on the rows beside it; different rows, draws
    and columns behave as independent. So an estimate that needs noise scores each row alone.
    """
    rows = x.flatten(1) if x.dim() > 1 else x[:, None]
    bits = rows.double().contiguous().view(torch.int64) if rows.is_floating_point() else rows.to(torch.int64)
    place = torch.arange(bits.shape[1], device=x.device, dtype=torch.int64)
    key = _mix(_mix(bits + 1) + (place + 1) * _GAMMA).sum(1)  # (n,), wraps around on purpose
    cell = torch.arange(draws * width, device=x.device, dtype=torch.int64).view(draws, 1, width)
    mixed = _mix(_mix(key)[None, :, None] + (cell + 1) * _GAMMA)
    mantissa = (mixed >> 41) & ((1 << 23) - 1)  # one bit to spare: the half below stays exact in float32
    return (mantissa.to(torch.float32) + 0.5) / (1 << 23)


def normal_of_rows(x: Tensor, width: int, draws: int = 1) -> Tensor:
    """Return N(0, 1) noise that is a pure function of each row of `x`: (n, *) -> (draws, n, width)."""
    return math.sqrt(2.0) * torch.erfinv(2.0 * uniform_of_rows(x, width, draws) - 1.0)


def _mix(bits: Tensor) -> Tensor:
    """Return the splitmix64 finaliser of signed 64-bit integers."""
    bits = (bits ^ _shifted(bits, 30)) * _MIX[0]
    bits = (bits ^ _shifted(bits, 27)) * _MIX[1]
    return bits ^ _shifted(bits, 31)


def _shifted(bits: Tensor, places: int) -> Tensor:
    """Return the logical (unsigned) shift to the right."""
    return (bits >> places) & ((1 << (64 - places)) - 1)
