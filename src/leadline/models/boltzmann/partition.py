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
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from leadline.core import Density, Quantity
from leadline.core.randomness import bernoulli, generator_for
from leadline.inference.annealed import AISResult
from leadline.models.boltzmann.annealing import Annealing, Path, annealing, resampled
from leadline.nets.boltzmann import BoltzmannLayer

__all__ = [
    "MOST_ENUMERATED",
    "Remembered",
    "annealed_partition",
    "density_of",
    "estimate_tensor",
    "log_mean_exp",
    "partition_tensor",
    "summed_partition",
]

MOST_ENUMERATED = 20
_BASE_STEPS = 100
_END_STEPS = 1000
_LADDER = (1000, 4000)
_WORK = 1.2e9  # weights times most temperatures: half a minute of a processor at 784 x 500
T = TypeVar("T")


class Remembered:
    """Figures that depend on parameters, found once for each setting of them."""

    def __init__(self) -> None:
        self._of, self._found = b"", dict[str, Any]()

    def __call__(self, tensors: Iterable[Tensor], find: Callable[[], T], *about: object) -> T:
        """Return what `find` finds, or found before for equal `tensors` and `about`."""
        key = hashlib.blake2b(digest_size=16)
        for tensor in tensors:
            key.update(repr((tensor.dtype, tensor.shape)).encode())
            key.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        if key.digest() != self._of:
            self._of, self._found = key.digest(), {}
        if repr(about) not in self._found:
            self._found[repr(about)] = find()
        found: T = self._found[repr(about)]
        return found


def summed_partition(layer: BoltzmannLayer) -> Quantity:
    """Return log Z of `layer` in nats, by a sum over all states of its binary units.

    Raises:
        ValueError: If there are more than 20 units to sum over.
    """
    if layer.enumerated > MOST_ENUMERATED:
        D, H = layer.weights.shape
        raise ValueError(
            f"exact log Z needs a layer of at most {MOST_ENUMERATED} binary units, "
            f"got {D} visible and {H} hidden"
        )
    with torch.no_grad():
        value = float(layer.log_partition())
    return Quantity(value, "nats", "exact", protocol=f"sum over {layer.enumerated} binary units")


def annealed_partition(layer: BoltzmannLayer, chains: int, temperatures: int | None, seed: int) -> Annealing:
    """Return log Z of `layer` by annealed importance sampling there and back.

    Args:
        layer: Two layers of units.
        chains: Number of particles.
        temperatures: Number of temperatures, or None to choose it.
        seed: Seed of all randomness.
    """
    generator = generator_for(seed, "annealed log Z", device=layer.weights.device)
    with torch.no_grad():
        return annealing(_path(layer, chains, generator), temperatures, generator)


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


def _path(layer: BoltzmannLayer, chains: int, generator: torch.Generator) -> Path:
    """Return the path f_t to a layer."""
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

    def end(forward: AISResult) -> Tensor:
        if exact:
            return layer.exact_draws(chains, generator)
        held = layer.begin(chains, generator) if kept else resampled(forward, generator)
        return layer.chain_end(layer.inputs(held), _END_STEPS, generator)

    b, exact, kept = layer.visible_bias, layer.enumerated <= MOST_ENUMERATED, len(layer.chain) > 0
    base = _base(layer, chains, generator)
    start = layer.draw(base.expand(chains, -1), generator)
    at_start = float(layer.log_normaliser(base).double()) + layer.weights.shape[1] * math.log(2)
    origin = f"{_END_STEPS} Gibbs steps from {'persistent chains' if kept else 'the forward particles'}"
    return Path(
        log_density,
        transition,
        at_start,
        start,
        end,
        exact,
        "exact draws" if exact else origin,
        _ladder(layer),
    )


def _ladder(layer: BoltzmannLayer) -> tuple[int, int]:
    """Return the least and the greatest number of temperatures, which falls with the size of the layer."""
    least, most = _LADDER
    return least, max(least, min(most, int(_WORK / layer.weights.numel())))


def _base(layer: BoltzmannLayer, chains: int, generator: torch.Generator) -> Tensor:
    """Return the centre of independent visible units with the means of Gibbs chains of 100 steps: (D,)."""
    end = layer.chain_end(layer.inputs(layer.begin(chains, generator)), _BASE_STEPS, generator)
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
