r"""Deep Boltzmann machine: layers of binary units with undirected weights between neighbours.

    p(v, h) = exp(sum_l b_l s_l + sum_l s_l-1 W_l s_l) / Z,        s_0 = v, s_l = h_l

Units of even layers are independent given those of odd ones, and the other way round: the machine is a
restricted Boltzmann machine between the two halves whose missing weights are zero. So one block Gibbs step
draws one half, then the other, and log Z is found as there. The data's statistics are those of mean field,
the model's those of persistent chains:

    log p(v) >= -E_q[E(v, h)] + H(q) - log Z,        q = prod of independent units, at its fixed point

Symbols:
    n samples, L hidden layers, s_l (n, H_l) units of layer l, W_l (H_l-1, H_l) weights, b_l (H_l,) biases,
    m_l (n, H_l) mean-field probabilities, e and o all units of even and of odd layers side by side.

Source:
    Salakhutdinov and Hinton (2009), Deep Boltzmann Machines, AISTATS, sections 2.2, 3 and 3.1.

Departs from the source:
    The gradient is the centred one of `leadline.nets.centring`, with which no pre-training is needed: in
    equal time the bound gets better without. Where it is asked for, two layers go on with the bias of
    the layer that joins them.
    The loss takes fewer sweeps of mean field than a bound does.
    The statistics of odd layers at the end of a chain are probabilities, not draws.
"""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from leadline.core import Batch, Bits, Density, Described, Domain, counted
from leadline.core.errors import checked_codes
from leadline.core.randomness import bernoulli
from leadline.models.boltzmann.machine import Machine
from leadline.models.boltzmann.partition import (
    density_of,
    estimate_tensor,
)
from leadline.nets.boltzmann import BernoulliLayer
from leadline.nets.centring import Centring, with_gradient
from leadline.nets.enumeration import log_partition_with_gradient

__all__ = ["DBM"]

_SWEEPS_DOWN = 5
_LEARNING_SWEEPS = 2  # at equal time the bound gets better than by five or twenty


class DBM(Machine):
    """Deep Boltzmann machine of binary units.

    Verbs:
        sample, log_prob, encode, decode

    Args:
        domain: What one sample is; bits.
        hidden: Widths of the hidden layers from below, at least one.
        steps: Gibbs steps of the persistent chains in one loss, at least 1.
        chains: Number of persistent chains, at least 1.
        sweeps: Sweeps of mean field, at least 1; the loss takes two of them.
        burn_in: Gibbs steps before a sample is taken, at least 1.
        centred: Whether the gradient is the centred one, which learns faster and further.
        pretrained: Whether pairs of neighbouring layers are learned first.

    Raises:
        ValueError: If a size is below 1.
        DomainError: If the domain is not Bits.

    Example:
        >>> model = DBM(Bits((6,)), hidden=(4, 3))
        >>> x = model.sample(5)
        >>> model.log_prob(x).shape, model.encode(x).shape, model.density.kind
        (torch.Size([5]), torch.Size([5, 3]), 'lower bound')
    """

    chain: Tensor

    def __init__(
        self,
        domain: Domain,
        hidden: tuple[int, ...] = (128, 128),
        steps: int = 1,
        chains: int = 100,
        sweeps: int = 20,
        burn_in: int = 1000,
        *,
        centred: bool = True,
        pretrained: bool = False,
    ) -> None:
        super().__init__()
        self.domain = domain.require(Bits)
        counts = {"hidden": min(hidden, default=0), "steps": steps, "chains": chains, "sweeps": sweeps}
        for name, value in {**counts, "burn_in": burn_in}.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.steps, self.sweeps, self.burn_in = steps, sweeps, burn_in
        self.pretrained = pretrained
        self.sizes = (domain.dims, *hidden)
        self.weights = nn.ParameterList(0.01 * torch.randn(a, b) for a, b in pairwise(self.sizes))
        self.biases = nn.ParameterList(torch.zeros(size) for size in self.sizes)
        self.centring = Centring(self.sizes) if centred else None
        # units of even layers at the end of each chain
        self.register_buffer("chain", torch.rand(chains, sum(self.sizes[::2])).round())

    @classmethod
    def for_data(
        cls,
        data: Described,
        *,
        hidden: tuple[int, ...] = (128, 128),
        steps: int = 1,
        chains: int = 100,
        sweeps: int = 20,
        burn_in: int = 1000,
        centred: bool = True,
        pretrained: bool = False,
    ) -> "DBM":
        """Return a machine over the samples of `data`, which must be bits."""
        counts = (steps, chains, sweeps, burn_in)
        return cls(data.domain, hidden, *counts, centred=centred, pretrained=pretrained)

    @property
    def recommended(self) -> dict[str, Any]:
        """Return the settings of `fit` that go well with it.

        Plain gradients and pre-training let weights grow without end, which tears the modes apart, unless
        they decay.
        """
        if self.centred and not self.pretrained:
            return {"optimizer": "momentum", "lr": 0.01, "batch_size": 50, "schedule": "linear"}
        usual = {"optimizer": "momentum", "lr": 0.005, "batch_size": 20, "schedule": "linear"}
        return {**usual, "weight_decay": 0.005}

    @property
    def centred(self) -> bool:
        """Return whether the gradient is the centred one."""
        return self.centring is not None

    def make_room(self, shapes: dict[str, tuple[int, ...]]) -> None:
        """Keep no running means if none were saved, given shapes by name."""
        if not any(name.startswith("centring.") for name in shapes):
            self.centring = None

    def stages(self) -> list[nn.Module]:
        """Return pairs of layers as machines to be learned in turn, if asked for, each on codes of the last.

        They share their parameters with this model, so that nothing is left to join. What a layer will hear
        from its other side is made up for by doubling what it hears now (section 3.1).
        """
        last = len(self.weights) - 1
        if not self.pretrained:
            return []
        return [
            _Stage(
                weights,
                self.biases[number],
                self.biases[number + 1],
                up=1 if number == last else 2,
                down=1 if number == 0 else 2,
                steps=self.steps,
            )
            for number, weights in enumerate(self.weights)
        ]

    def loss(self, batch: Batch) -> Tensor:
        """Return what training descends on or, in evaluation mode, a figure to choose by, in nats, shape ().

        In training: the mean energy of the data with mean-field units less the mean free energy of the
        even layers of the chains, whose gradient is that of the bound on log p; its value is no likelihood.
        In evaluation: minus the log pseudo-likelihood with the bound in place of log p, from one bit each.
        """
        v = self._visible(batch.x)
        if not self.training:
            places = torch.randint(v.shape[1], (len(v), 1), device="cpu").to(v.device)
            flipped = v.scatter(1, places, 1 - v.gather(1, places))
            other, own = (self._unnormalised(each, _LEARNING_SWEEPS) for each in (flipped, v))
            return v.shape[1] * F.softplus(other - own).mean()
        with torch.no_grad():
            states = self._mean_field(v, _LEARNING_SWEEPS)
            value, gradients = self._contrast(states)
        loss = with_gradient(value, [*self.weights, *self.biases], gradients)
        if self.centring is None:
            return loss
        centred: Tensor = self.centring(loss, list(self.weights), list(self.biases), states)
        return centred

    @counted
    def sample(self, n: int, generator: torch.Generator | None = None, *, steps: int | None = None) -> Tensor:
        """Return `n` draws (n, *shape), each `steps` of Gibbs sampling on from a persistent chain.

        Args:
            n: Number of chains.
            generator: Source of randomness.
            steps: Length of the chains, at least 1, `burn_in` by default.
        """
        with torch.no_grad():
            layer = self.two_layers()
            inputs = layer.inputs(layer.begin(n, generator))
            end = layer.chain_end(inputs, self.burn_in if steps is None else steps, generator)
        return self._raw(end[:, : self.domain.dims])

    def log_prob(self, x: Tensor) -> Tensor:
        """Return the mean-field bound on log p(x) of each row, in nats: (n, *shape) -> (n,)."""
        self.domain.validated(x)
        found, weights = self.log_partition(), self._between()
        if found.kind == "exact":
            log_z = log_partition_with_gradient(weights, self._biases(0), self._biases(1), found.value)
        else:
            log_z = estimate_tensor(weights, found.value)
        return self._unnormalised(self._visible(x)) - log_z

    def encode(self, x: Tensor) -> Tensor:
        """Return the mean-field probabilities of the units on top: (n, *shape) -> (n, H_L)."""
        return self._mean_field(self._visible(x))[-1]

    def decode(self, z: Tensor) -> Tensor:
        """Return the likeliest sample by mean field, with the units on top held: (n, H_L) -> (n, *shape).

        It begins on a pass down: units that know nothing would fall into the widest mode, whatever is on top.
        Few sweeps follow, since at the fixed point many codes meet in one mode.
        """
        top = checked_codes(z, self.sizes[-1]).to(self.biases[0])
        states = [top]
        for number in reversed(range(len(self.weights))):
            doubled = 1 if number == 0 else 2
            logits = torch.addmm(self.biases[number], states[0], self.weights[number].T, alpha=doubled)
            states.insert(0, logits.sigmoid())
        for _ in range(min(self.sweeps, _SWEEPS_DOWN)):
            for number in reversed(range(len(self.sizes) - 1)):
                states[number] = self._heard(states, number).sigmoid()
        return self._raw(states[0])

    @property
    def density(self) -> Density:
        """Return that `log_prob` is a lower bound; its protocol says if log Z in it is an estimate."""
        return density_of(self.log_partition(), f"mean field, {self.sweeps} sweeps")

    def filters(self) -> Tensor:
        """Return what each unit of the first hidden layer adds to the visible ones: (H_1, D)."""
        return self.weights[0].detach().T

    def two_layers(self) -> BernoulliLayer:
        """Return all units of even layers, with their chains, and all of odd ones."""
        with torch.no_grad():
            return BernoulliLayer.of(self._between(), self._biases(0), self._biases(1), self.chain)

    def _biases(self, parity: int) -> Tensor:
        """Return the biases of even or of odd layers side by side."""
        return torch.cat(list(self.biases)[parity::2])

    def _between(self) -> Tensor:
        """Return the weights between even and odd layers, zero where there are none: (even, odd)."""
        rows = []
        for i in range(0, len(self.sizes), 2):
            row = [self._block(i, j) for j in range(1, len(self.sizes), 2)]
            rows.append(torch.cat(row, 1))
        return torch.cat(rows)

    def _block(self, i: int, j: int) -> Tensor:
        """Return the weights between layer i and layer j: (H_i, H_j)."""
        if j == i + 1:
            return self.weights[i]
        return self.weights[j].T if j == i - 1 else self.chain.new_zeros(self.sizes[i], self.sizes[j])

    def _contrast(self, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Take the chains a step on, and return the loss, shape (), with its plain gradient.

        Args:
            states: Units of the data, or their probabilities: (n, H_l) each.
        """
        layer = self.two_layers()
        self.chain.copy_(layer.chain_end(layer.inputs(self.chain), self.steps))
        inputs = layer.inputs(self.chain)
        ends: list[Tensor] = [states[0]] * len(self.sizes)
        ends[::2] = self.chain.split(self.sizes[::2], 1)
        ends[1::2] = inputs.sigmoid().split(self.sizes[1::2], 1)
        of_data, of_chains = _statistics(states), _statistics(ends)
        parameters = [*self.weights, *self.biases]
        energy = torch.stack([(each * known).sum() for each, known in zip(of_data, parameters, strict=True)])
        free = self.chain.mean(0) @ layer.visible_bias + F.softplus(inputs).sum(1).mean()
        return free - energy.sum(), list(torch._foreach_sub(of_chains, of_data))

    def _heard(self, states: list[Tensor], number: int, below: Tensor | None = None) -> Tensor:
        """Return logits of layer `number` given its neighbours, or what it hears from below: (n, H_l)."""
        total = self.biases[number]
        if number < len(self.weights):
            total = torch.addmm(total, states[number + 1], self.weights[number].T).to(total)
        if below is not None:
            return total + below
        if number == 0:
            return total
        return total + (states[number - 1] @ self.weights[number - 1]).to(total)

    def _mean_field(self, v: Tensor, sweeps: int | None = None) -> list[Tensor]:
        """Return v and the probabilities of each hidden layer after the sweeps, begun on a pass up."""
        first = (v @ self.weights[0]).to(v)  # the same in every sweep
        states = [v]
        for number, weights in enumerate(self.weights):
            doubled = 1 if number == len(self.weights) - 1 else 2
            heard = first if number == 0 else (states[-1] @ weights).to(v)
            states.append(torch.add(self.biases[number + 1], heard, alpha=doubled).sigmoid())
        for _ in range(min(self.sweeps, sweeps or self.sweeps) if len(self.weights) > 1 else 0):
            for number in range(1, len(self.sizes)):
                states[number] = self._heard(states, number, first if number == 1 else None).sigmoid()
        return states

    def _negative_energy(self, states: list[Tensor]) -> Tensor:
        """Return -E of each row, or its expectation under independent units: -> (n,)."""
        total = sum((s @ b for s, b in zip(states, self.biases, strict=True)), states[0].new_zeros(()))
        for weights, (below, above) in zip(self.weights, pairwise(states), strict=True):
            total = total + ((below @ weights) * above).sum(1)
        return total

    def _unnormalised(self, v: Tensor, sweeps: int | None = None) -> Tensor:
        """Return the bound without log Z of each row, in nats: (n, D) -> (n,)."""
        states = self._mean_field(v, sweeps)
        entropy = sum(_entropy(m) for m in states[1:])
        return self._negative_energy(states) + entropy

    def _visible(self, x: Tensor) -> Tensor:
        """Return samples as rows of the parameters' type: (n, *shape) -> (n, D)."""
        return self.domain.checked(x).flatten(1).to(self.chain)

    def _raw(self, v: Tensor) -> Tensor:
        """Return raw samples of bits or their probabilities: (n, D) -> (n, *shape)."""
        return self.domain.quantize(v.view(-1, *self.domain.shape))


class _Stage(nn.Module):
    """Two neighbouring layers as a machine of its own, each hearing a multiple of the other.

    Args:
        weights: Weights between them (D, H).
        below: Biases of the lower layer (D,).
        above: Biases of the upper layer (H,).
        up: How often the upper layer hears the lower one.
        down: How often the lower layer hears the upper one.
        steps: Gibbs steps of a chain.
    """

    def __init__(
        self,
        weights: nn.Parameter,
        below: nn.Parameter,
        above: nn.Parameter,
        *,
        up: int,
        down: int,
        steps: int,
    ) -> None:
        super().__init__()
        self.weights, self.below, self.above = weights, below, above
        self.up, self.down, self.steps = up, down, steps

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean energy of the data less that of chain ends, shape (), or a figure to choose by.

        That figure, in evaluation mode, is the cross-entropy of the reconstruction in nats.
        """
        v = bernoulli(batch.x.flatten(1).to(self.below))
        if not self.training:
            logits = self._centre(self.encode(v))
            return F.binary_cross_entropy_with_logits(logits, v, reduction="sum") / max(len(v), 1)
        with torch.no_grad():
            end, h = v, self.encode(v)
            for _ in range(self.steps):
                end = bernoulli(self._centre(bernoulli(self.encode(end))).sigmoid())
            after = self.encode(end)
        return self._energy(v, h) - self._energy(end, after)

    def encode(self, x: Tensor) -> Tensor:
        """Return the probabilities of the upper units: (n, *) -> (n, H)."""
        v = x.flatten(1).to(self.below)
        return torch.addmm(self.above, v, self.weights, alpha=self.up).to(v).sigmoid()

    def _centre(self, h: Tensor) -> Tensor:
        """Return logits of the lower units: (n, H) -> (n, D)."""
        return torch.addmm(self.below, h, self.weights.T, alpha=self.down).to(h)

    def _energy(self, v: Tensor, h: Tensor) -> Tensor:
        """Return the mean of -(b v + c h + v W h), shape ()."""
        return -(v @ self.below + h @ self.above + ((v @ self.weights) * h).sum(1)).mean()


def _statistics(states: list[Tensor]) -> list[Tensor]:
    """Return the mean products of neighbouring layers, then the mean of each layer."""
    pairs = [(below.T @ above).to(below) / len(below) for below, above in pairwise(states)]
    return [*pairs, *(state.mean(0) for state in states)]


def _entropy(m: Tensor) -> Tensor:
    """Return the entropy of independent bits of each row, in nats: (n, H) -> (n,)."""
    return (torch.special.entr(m) + torch.special.entr(1 - m)).sum(1)
