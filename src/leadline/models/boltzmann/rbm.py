r"""Restricted Boltzmann machine, learned by contrastive divergence.

    p(v, h) = exp(b v + c h + v W h) / Z,        p(v) = exp(-F(v)) / Z
    F(v) = -b v - sum_j softplus(c + v W)_j

The gradient of -log p is the gradient of F at the data less its mean under the model. CD-k puts the end
of a Gibbs chain of k steps, started at the data, in place of the model; persistent CD keeps the chains.

Symbols:
    n samples, D visible units v (n, D), H hidden units h (n, H), W (D, H) weights, b (D,) visible and
    c (H,) hidden biases, F free energy, Z partition function.

Source:
    Hinton (2002), Training Products of Experts by Minimizing Contrastive Divergence.
    Persistent chains: Tieleman (2008), Training RBMs using Approximations to the Likelihood Gradient.
    Annealed log Z: Salakhutdinov and Murray (2008), On the Quantitative Analysis of Deep Belief Networks.

Departs from the source:
    The last hidden layer of a chain is its probabilities, not a draw: the same gradient with less noise.
    The base of the annealed path has the visible means of short Gibbs chains, not of the training data.
"""

import hashlib
import math
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from leadline.core import Batch, Bits, Density, Described, Quantity
from leadline.core.errors import checked_codes
from leadline.core.randomness import bernoulli, generator_for, uniform
from leadline.inference.annealed import annealed_importance
from leadline.models.boltzmann.enumeration import log_partition_of, log_partition_with_gradient

__all__ = ["RBM"]

MOST_ENUMERATED = 20
Method = Literal["auto", "exact", "ais"]


class RBM(nn.Module):
    """Restricted Boltzmann machine of binary units.

    Its samples are bits of any shape. Numbers in [0, 1] are taken too, as probabilities of bits, so that
    the codes of one machine can be what the next one learns from.

    Verbs:
        sample, log_prob, encode, decode

    Args:
        domain: What one sample is.
        hidden: Number H of hidden units, at least 1.
        steps: Number k of Gibbs steps of a chain in one loss, at least 1.
        persistent: Whether chains go on from loss to loss instead of starting at the data.
        chains: Number of persistent chains, at least 1.
        burn_in: Gibbs steps before a sample is taken.

    Raises:
        ValueError: If a size is below 1.
        DomainError: If the domain is not Bits.

    Example:
        >>> model = RBM(Bits((2, 3)), hidden=4)
        >>> x = model.sample(5)
        >>> x.shape, model.log_prob(x).shape, model.encode(x).shape
        (torch.Size([5, 2, 3]), torch.Size([5]), torch.Size([5, 4]))
    """

    recommended: ClassVar[dict[str, Any]] = {"optimizer": "momentum", "lr": 0.005, "batch_size": 20}
    chain: Tensor

    def __init__(
        self,
        domain: Bits,
        hidden: int = 128,
        steps: int = 1,
        *,
        persistent: bool = False,
        chains: int = 100,
        burn_in: int = 1000,
    ) -> None:
        super().__init__()
        self.domain = domain.require(Bits)
        for name, value in (("hidden", hidden), ("steps", steps), ("chains", chains), ("burn_in", burn_in)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.steps = steps
        self.persistent = persistent
        self.burn_in = burn_in
        self.weights = nn.Parameter(0.01 * torch.randn(domain.dims, hidden))
        self.visible_bias = nn.Parameter(torch.zeros(domain.dims))
        self.hidden_bias = nn.Parameter(torch.zeros(hidden))
        # visible units at the end of each chain; none unless they persist
        start = torch.rand(chains if persistent else 0, domain.dims).round()
        self.register_buffer("chain", start)
        self._partition: tuple[bytes, Quantity] | None = None

    @classmethod
    def for_data(
        cls,
        data: Described,
        *,
        hidden: int = 128,
        steps: int = 1,
        persistent: bool = False,
        chains: int = 100,
        burn_in: int = 1000,
    ) -> "RBM":
        """Return a machine over the samples of `data`, which must be bits."""
        domain = data.domain.require(Bits)
        return cls(domain, hidden, steps, persistent=persistent, chains=chains, burn_in=burn_in)

    def loss(self, batch: Batch) -> Tensor:
        """Return what training descends on or, in evaluation mode, a figure to choose by, in nats, shape ().

        In training: mean F(data) - mean F(chain end), whose gradient is that of CD-k. Its value is no
        likelihood; it may rise while the model improves.
        In evaluation: minus the log pseudo-likelihood, estimated from one bit a sample, which is drawn.
        """
        data = self._visible(batch.x)
        if not self.training:
            return self._pseudo_loss(data)
        with torch.no_grad():
            inputs = self._inputs(data)
            end = self._chain_end(self._inputs(self.chain) if self.persistent else inputs, self.steps)
            if self.persistent:
                self.chain.copy_(end)
        difference: Tensor = _Contrast.apply(*self._tensors(), data, end, inputs, self._inputs(end).detach())
        return difference

    def sample(self, n: int, generator: torch.Generator | None = None, *, steps: int | None = None) -> Tensor:
        """Return `n` draws (n, *shape), each the end of its own Gibbs chain of `steps` from fair coins.

        Args:
            n: Number of chains.
            generator: Source of randomness.
            steps: Length of the chains, `burn_in` by default; a machine with far-apart modes needs more.
        """
        with torch.no_grad():
            start = uniform((n, self.domain.dims), self.weights, generator).round()
            length = self.burn_in if steps is None else steps
            end = self._chain_end(self._inputs(start), length, generator) if length else start
        return end.to(self.domain.dtype).view(n, *self.domain.shape)

    def log_prob(self, x: Tensor) -> Tensor:
        """Return log p(x) = -F(x) - log Z of each row, in nats: (n, *shape) -> (n,).

        `density` says whether log Z is exact. Where it is, the gradient includes it.
        """
        return -self.free_energy(x) - self._log_partition_tensor()

    def encode(self, x: Tensor) -> Tensor:
        """Return the probability of each hidden unit: (n, *shape) -> (n, H) in [0, 1]."""
        return self._inputs(self._visible(x)).sigmoid()

    def decode(self, z: Tensor) -> Tensor:
        """Return the most probable bits given hidden units or their probabilities: (n, H) -> (n, *shape)."""
        on = self._outputs(checked_codes(z, len(self.hidden_bias)).to(self.weights)) > 0
        return on.to(self.domain.dtype).unflatten(-1, self.domain.shape)

    @property
    def density(self) -> Density:
        """Return whether `log_prob` is exact or an estimate, with the error that all rows share."""
        found = self.log_partition()
        return Density(found.kind, found.protocol, found.stderr or 0.0)

    def free_energy(self, x: Tensor) -> Tensor:
        """Return F(x) of each row, in nats: (n, *shape) -> (n,)."""
        return self._free_energy(self._visible(x))

    def log_partition(
        self, method: Method = "auto", *, chains: int = 100, temperatures: int = 1000, seed: int = 0
    ) -> Quantity:
        """Return log Z in nats, with its standard error where it is estimated.

        Args:
            method: "exact" sums over all states of the smaller layer; "ais" is annealed importance
                sampling; "auto" is exact up to 20 units, and remembers what it found for these parameters.
            chains: Number of particles of "ais".
            temperatures: Number of temperatures of "ais".
            seed: Seed of "ais".

        Raises:
            ValueError: If "exact" is asked of a machine whose smaller layer has more than 20 units.
        """
        if method == "ais":
            return self._annealed(chains, temperatures, seed)
        if method == "auto":
            return self._remembered(chains, temperatures, seed)
        if min(self.weights.shape) > MOST_ENUMERATED:
            raise ValueError(
                f"exact log Z needs a layer of at most {MOST_ENUMERATED} units, "
                f"got {self.weights.shape[0]} visible and {self.weights.shape[1]} hidden"
            )
        value = log_partition_of(*self._tensors())
        return Quantity(float(value), "nats", "exact", protocol="sum over the smaller layer")

    def _pseudo_loss(self, v: Tensor) -> Tensor:
        """Return the mean of -D log p(v_i | all other bits) with i drawn for each row, shape ()."""
        places = torch.randint(v.shape[1], (v.shape[0], 1), device="cpu").to(v.device)
        flipped = v.scatter(1, places, 1 - v.gather(1, places))
        return v.shape[1] * F.softplus(self._free_energy(v) - self._free_energy(flipped)).mean()

    def _free_energy(self, v: Tensor) -> Tensor:
        """Return F(v) of rows of visible units: (n, D) -> (n,)."""
        return -(v @ self.visible_bias) - F.softplus(self._inputs(v)).sum(1)

    def _remembered(self, chains: int, temperatures: int, seed: int) -> Quantity:
        """Return log Z by the method that fits, found once for each setting of the parameters."""
        key = repr((chains, temperatures, seed)).encode() + _digest(self._tensors())
        if self._partition is None or self._partition[0] != key:
            method: Method = "exact" if min(self.weights.shape) <= MOST_ENUMERATED else "ais"
            self._partition = (
                key,
                self.log_partition(method, chains=chains, temperatures=temperatures, seed=seed),
            )
        return self._partition[1]

    def _annealed(self, chains: int, temperatures: int, seed: int) -> Quantity:
        """Return the estimate of log Z along p_t(v) ~ exp((1 - t) base v + t b v + softplus(t (c + v W)))."""
        generator = generator_for(seed, "annealed log Z", device=self.weights.device)
        memory: list[Tensor] = []

        def inputs(v: Tensor) -> Tensor:
            if not memory or memory[0] is not v:
                memory[:] = [v, self._inputs(v)]
            return memory[1]

        def log_density(v: Tensor, t: float) -> Tensor:
            return v @ torch.lerp(base, self.visible_bias, t) + F.softplus(t * inputs(v)).sum(1)

        def transition(v: Tensor, t: float, source: torch.Generator | None) -> Tensor:
            h = bernoulli((t * inputs(v)).sigmoid(), source)
            return bernoulli(torch.lerp(base, self._outputs(h), t).sigmoid(), source)

        with torch.no_grad():
            base = self._base(chains, generator)
            start = bernoulli(base.sigmoid().expand(chains, -1), generator)
            result = annealed_importance(
                log_density, transition, start, torch.linspace(0, 1, temperatures), generator
            )
            at_zero = float(F.softplus(base).double().sum()) + self.weights.shape[1] * math.log(2)
        value, spread = at_zero + result.log_ratio, 1.96 * result.stderr
        protocol = (
            f"annealed importance sampling, {chains} chains, {temperatures} temperatures, "
            f"effective sample size {result.effective_sample_size:.0f}"
        )
        return Quantity(
            value, "nats", "estimate", result.stderr, (value - spread, value + spread), chains, protocol
        )

    def _base(self, chains: int, generator: torch.Generator) -> Tensor:
        """Return logits of independent visible units with the means of Gibbs chains of 100 steps: (D,)."""
        start = uniform((chains, self.domain.dims), self.weights, generator).round()
        end = self._chain_end(self._inputs(start), 100, generator)
        return torch.logit((end.sum(0) + 1) / (chains + 2))

    def _log_partition_tensor(self) -> Tensor:
        """Return log Z as a tensor, with its gradient where it is exact."""
        found = self.log_partition()
        return log_partition_with_gradient(*self._tensors(), found.value, found.kind)

    def _chain_end(self, inputs: Tensor, steps: int, generator: torch.Generator | None = None) -> Tensor:
        """Return visible units after `steps` >= 1 Gibbs steps that begin at inputs (n, H)."""
        for _ in range(steps - 1):
            v = self._draw_visible(inputs, generator)
            inputs = self._inputs(v)
        return self._draw_visible(inputs, generator)

    def _draw_visible(self, inputs: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return visible units drawn given hidden ones that are drawn: inputs (n, H) -> (n, D)."""
        h = bernoulli(inputs.sigmoid(), generator)
        return bernoulli(self._outputs(h).sigmoid(), generator)

    def _visible(self, x: Tensor) -> Tensor:
        """Return samples as rows of the parameters' type: (n, *shape) -> (n, D)."""
        return self.domain.checked(x).flatten(1).to(self.weights)

    def _inputs(self, v: Tensor) -> Tensor:
        """Return c + v W: (n, D) -> (n, H)."""
        return torch.addmm(self.hidden_bias, v, self.weights)

    def _outputs(self, h: Tensor) -> Tensor:
        """Return b + h W^T: (n, H) -> (n, D)."""
        return torch.addmm(self.visible_bias, h, self.weights.T)

    def _tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return W, b and c."""
        return self.weights, self.visible_bias, self.hidden_bias


class _Contrast(torch.autograd.Function):
    """Mean F(data) - mean F(end); backward writes the gradient of CD-k in one product of matrices."""

    @staticmethod
    def forward(
        ctx: Any, weights: Tensor, b: Tensor, c: Tensor, data: Tensor, end: Tensor, up: Tensor, down: Tensor
    ) -> Tensor:
        shift = end.mean(0) - data.mean(0)
        ctx.save_for_backward(data, end, up, down, shift)
        return shift @ b + F.softplus(down).sum() / len(end) - F.softplus(up).sum() / len(data)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        data, end, up, down, shift = ctx.saved_tensors
        v, h = torch.cat([data, end]), torch.cat([up, down]).sigmoid_()
        h[: len(data)].mul_(grad / -len(data))
        h[len(data) :].mul_(grad / len(end))
        return v.T @ h, shift * grad, h.sum(0), None, None, None, None


def _digest(tensors: tuple[Tensor, ...]) -> bytes:
    """Return a hash of what the tensors hold."""
    found = hashlib.blake2b(digest_size=16)
    for tensor in tensors:
        found.update(repr((tensor.dtype, tensor.shape)).encode())
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.digest()
