r"""log Z of two layers of units: by enumeration where that is possible, else by annealed importance sampling.

The path of the annealing joins independent visible units of centre a to the layer:

    f_t(v) = exp(g(v, (1 - t) a + t b)) prod_j (1 + exp(t (c + r(v) W)_j))

Symbols:
    v, b, c, W, g, r as in `leadline.nets.boltzmann`; a (D,) centre of the base, t in [0, 1], H hidden units.

Source:
    Salakhutdinov and Murray (2008), On the Quantitative Analysis of Deep Belief Networks, section 4.1.

Departs from the source:
    The base has the visible means of short Gibbs chains, not of the training data.
"""

import hashlib
import math
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from leadline.core import Density, Quantity
from leadline.core.randomness import bernoulli, generator_for
from leadline.inference.annealed import AISResult, annealed_importance
from leadline.nets.boltzmann import BoltzmannLayer

__all__ = [
    "MOST_ENUMERATED",
    "Method",
    "Remembered",
    "annealed_quantity",
    "density_of",
    "estimate_tensor",
    "log_mean_exp",
    "log_partition",
    "partition_tensor",
]

MOST_ENUMERATED = 20
_BASE_STEPS = 100
Method = Literal["auto", "exact", "ais"]


class Remembered:
    """A figure that depends on parameters, found once for each setting of them."""

    def __init__(self) -> None:
        self._found: tuple[bytes, Quantity] | None = None

    def __call__(self, tensors: Iterable[Tensor], find: Callable[[], Quantity], *about: object) -> Quantity:
        """Return what `find` finds, or found before for equal `tensors` and `about`."""
        key = hashlib.blake2b(repr(about).encode(), digest_size=16)
        for tensor in tensors:
            key.update(repr((tensor.dtype, tensor.shape)).encode())
            key.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        if self._found is None or self._found[0] != key.digest():
            self._found = (key.digest(), find())
        return self._found[1]


def log_partition(
    layer: BoltzmannLayer,
    method: Method = "auto",
    *,
    chains: int = 100,
    temperatures: int = 1000,
    seed: int = 0,
) -> Quantity:
    """Return log Z of `layer` in nats, with its standard error where it is estimated.

    Args:
        layer: Two layers of units.
        method: "exact" sums over all states of binary units; "ais" is annealed importance sampling;
            "auto" is exact up to 20 units.
        chains: Number of particles of "ais".
        temperatures: Number of temperatures of "ais".
        seed: Seed of "ais".

    Raises:
        ValueError: If "exact" is asked of a layer with more than 20 units to sum over.
    """
    few = layer.enumerated <= MOST_ENUMERATED
    if method == "ais" or (method == "auto" and not few):
        return _annealed(layer, chains, temperatures, seed)
    if not few:
        D, H = layer.weights.shape
        raise ValueError(
            f"exact log Z needs a layer of at most {MOST_ENUMERATED} binary units, "
            f"got {D} visible and {H} hidden"
        )
    with torch.no_grad():
        value = float(layer.log_partition())
    return Quantity(value, "nats", "exact", protocol=f"sum over {layer.enumerated} binary units")


def partition_tensor(layer: BoltzmannLayer, found: Quantity) -> Tensor:
    """Return log Z that was found for `layer`, shape (), with its gradient where it is exact.

    An estimate refuses to have one: a RuntimeError when the gradient is asked for.
    """
    if found.kind == "exact":
        return layer.log_partition(found.value)
    return estimate_tensor(layer.weights, found.value)


def estimate_tensor(like: Tensor, value: float) -> Tensor:
    """Return an estimate that depends on `like`, shape (); to ask for its gradient is a RuntimeError."""
    held: Tensor = _Estimate.apply(like, value)
    return held


def density_of(log_z: Quantity, bound: str) -> Density:
    """Return what log p(x) is, given log Z and, if it is a bound beside that, how the bound was made."""
    if not bound:
        return Density(log_z.kind, log_z.protocol, log_z.stderr or 0.0)
    said = "" if log_z.kind == "exact" else "estimate of a lower bound: "
    return Density("lower bound", f"{said}{bound}; log Z: {log_z.protocol}", log_z.stderr or 0.0)


def log_mean_exp(values: Tensor) -> Tensor:
    """Return the log of the mean of exp over the first dimension: (S, n) -> (n,)."""
    return values.logsumexp(0) - math.log(len(values))


def annealed_quantity(at_start: float, result: AISResult, temperatures: int) -> Quantity:
    """Return log Z as an estimate, from that of the start of a path and the ratio found along it."""
    value, spread, chains = at_start + result.log_ratio, 1.96 * result.stderr, len(result.log_weights)
    protocol = (
        f"annealed importance sampling, {chains} chains, {temperatures} temperatures, "
        f"effective sample size {result.effective_sample_size:.0f}"
    )
    interval = (value - spread, value + spread)
    return Quantity(value, "nats", "estimate", result.stderr, interval, chains, protocol)


def _annealed(layer: BoltzmannLayer, chains: int, temperatures: int, seed: int) -> Quantity:
    """Return the estimate along the path f_t."""
    generator = generator_for(seed, "annealed log Z", device=layer.weights.device)
    memory: list[Tensor] = []

    def inputs(v: Tensor) -> Tensor:
        if not memory or memory[0] is not v:
            memory[:] = [v, layer.inputs(v)]
        return memory[1]

    def log_density(v: Tensor, t: float) -> Tensor:
        return layer.log_factor(v, torch.lerp(base, b, t)) + F.softplus(t * inputs(v)).sum(1)

    def transition(v: Tensor, t: float, source: torch.Generator | None) -> Tensor:
        h = bernoulli((t * inputs(v)).sigmoid(), source)
        return layer.draw(base * (1 - t) + t * layer.centre(h), source)

    with torch.no_grad():
        b = layer.visible_bias
        base = _base(layer, chains, generator)
        start = layer.draw(base.expand(chains, -1), generator)
        path = torch.linspace(0, 1, temperatures)
        result = annealed_importance(log_density, transition, start, path, generator)
        at_start = float(layer.log_normaliser(base).double()) + layer.weights.shape[1] * math.log(2)
    return annealed_quantity(at_start, result, temperatures)


def _base(layer: BoltzmannLayer, chains: int, generator: torch.Generator) -> Tensor:
    """Return the centre of independent visible units with the means of Gibbs chains of 100 steps: (D,)."""
    end = layer.chain_end(layer.inputs(layer.start(chains, generator)), _BASE_STEPS, generator)
    unknown = layer.mean(torch.zeros_like(layer.visible_bias))  # two rows of it keep logits finite
    return layer.centre_of((end.sum(0) + 2 * unknown) / (chains + 2))


class _Estimate(torch.autograd.Function):
    """A number that depends on parameters in a way that is not known."""

    @staticmethod
    def forward(ctx: Any, like: Tensor, value: float) -> Tensor:
        return like.new_tensor(value)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        raise RuntimeError("log Z is an estimate here and has no gradient; descend on the loss instead")
