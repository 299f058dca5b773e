r"""Deep belief net: a Boltzmann machine on top of directed layers of binary units.

    p(v, h) = p(v | h_1) p(h_1 | h_2) ... p(h_L-1, h_L),        h_L-1, h_L a restricted Boltzmann machine

It is learned greedily: each layer is a Boltzmann machine on draws of the units below. Then its layers part:
generative weights go down, recognition weights go up, and both learn by the contrastive form of wake-sleep
("up-down"). With q(h | v) = prod q(h_l | h_l-1) of the recognition weights,

    log p(v) >= E_q [log p(v, h_1 ... h_L-1) - log q(h_1 ... h_L-1 | v)]

where the top machine sums h_L out, and needs its log Z.

Symbols:
    n samples, D visible units v (n, D), L hidden layers h_l (n, H_l), W_l generative and R_l (H_l-1, H_l)
    recognition weights, S draws of h.

Source:
    Hinton, Osindero and Teh (2006), A Fast Learning Algorithm for Deep Belief Nets, Neural Computation 18,
    sections 4 and 5 and appendix B.
    The bound: Salakhutdinov and Murray (2008), On the Quantitative Analysis of Deep Belief Networks,
    section 5.
    Its importance-weighted form: Burda, Grosse and Salakhutdinov (2016), Importance Weighted Autoencoders.

Departs from the source:
    Without labels. Gaussian visible units for real columns and pictures. Machines of bits and
    pictures learn by the centred gradient of `leadline.nets.centring`.
"""

from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from leadline.core import Batch, Density, Described, Domain, OptionError, counted
from leadline.core.errors import checked_codes
from leadline.core.randomness import bernoulli, uniform
from leadline.models.boltzmann.machine import Machine
from leadline.models.boltzmann.partition import (
    density_of,
    log_mean_exp,
    partition_tensor,
)
from leadline.models.boltzmann.visible import Visible
from leadline.nets.boltzmann import BernoulliLayer, BoltzmannLayer

__all__ = ["DBN"]

_SAMPLES = 16


class DBN(Machine):
    """Deep belief net of binary hidden units; visible units are binary for bits, else Gaussian.

    Verbs:
        sample, log_prob, encode, decode

    Args:
        domain: What one sample is.
        hidden: Widths of the hidden layers from below, at least one; the last two are the top machine.
        steps: Gibbs steps of a chain, at least 1, in pre-training and of the top machine afterwards.
        burn_in: Gibbs steps of the top machine before a sample is taken, at least 1.
        scale: Noise of each Gaussian visible unit, "learned" or "unit"; of no meaning for bits.
        persistent: Whether the chains of the top machine go on from loss to loss, so that none of its
            modes is left unseen; then the way down begins at them.
        chains: Number of persistent chains, at least 1.
        tied: Whether a layer that is as wide as the one two below starts, when its turn comes, as the
            transpose of the layer below: then the net is the machine it was, the bound is tight, and what
            the new layer gains on its input the bound gains (section 4). Needs bits in the first layer.
        pixels: "gaussianised" takes each pixel of a picture through its own histogram of the training split
            to a unit normal, from which learning begins; "standard" only stretches it.

    Raises:
        ValueError: If a size is below 1.
        DomainError: If the domain is not Bits, Images or Vectors.

    Example:
        >>> from leadline.core import Bits
        >>> model = DBN(Bits((6,)), hidden=(4, 3))
        >>> x = model.sample(5)
        >>> model.log_prob(x).shape, model.encode(x).shape, model.density.kind
        (torch.Size([5]), torch.Size([5, 3]), 'lower bound')
    """

    waiting: Tensor | None

    def __init__(  # noqa: PLR0913
        self,
        domain: Domain,
        hidden: tuple[int, ...] = (128, 128),
        steps: int = 1,
        burn_in: int = 1000,
        scale: str = "learned",
        *,
        persistent: bool = False,
        chains: int = 100,
        tied: bool = False,
        pixels: str = "gaussianised",
    ) -> None:
        super().__init__()
        self.domain = domain
        self.visible = Visible(domain, pixels)
        counts = {"hidden": min(hidden, default=0), "steps": steps, "burn_in": burn_in, "chains": chains}
        for name, value in counts.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.steps = steps
        self.burn_in = burn_in
        kept = [0] * (len(hidden) - 1) + [chains if persistent else 0]
        first = self.visible.layer(hidden[0], kept[0], scale, centred=not self.visible.columns)
        pairs = zip(pairwise(hidden), kept[1:], strict=True)
        rest = [BernoulliLayer(below, above, own, centred=True) for (below, above), own in pairs]
        self.layers = nn.ModuleList([first, *rest])
        # R_l; the recognition biases are the hidden biases of the lower layers
        self.recognition = nn.ParameterList(layer.weights.detach().clone() for layer in self.lower)
        # for each layer above the first: 1 while it is to start tied
        waiting = [tied and _mirror(below, above) for below, above in pairwise(self.layers)]
        self.register_buffer("waiting", torch.tensor(waiting, dtype=torch.float32) if tied else None)

    @classmethod
    def for_data(  # noqa: PLR0913
        cls,
        data: Described,
        *,
        hidden: tuple[int, ...] = (128, 128),
        steps: int = 1,
        burn_in: int = 1000,
        scale: str = "learned",
        persistent: bool = False,
        chains: int = 100,
        tied: bool = False,
        pixels: str = "gaussianised",
    ) -> "DBN":
        """Return a net over the samples of `data`: bits, pictures or real columns."""
        return cls(
            data.domain, hidden, steps, burn_in, scale,
            persistent=persistent, chains=chains, tied=tied, pixels=pixels,
        )  # fmt: skip

    @property
    def recommended(self) -> dict[str, Any]:
        """Return the settings of `fit` that go well with it: faster with the centred gradient."""
        if self.visible.columns:
            return {"optimizer": "momentum", "lr": 0.005, "batch_size": 20}
        lr = 0.02 if self.visible.binary else 0.01
        return {"optimizer": "momentum", "lr": lr, "batch_size": 50, "schedule": "linear"}

    @property
    def lower(self) -> list[BoltzmannLayer]:
        """Return the directed layers, from below."""
        return [cast(BoltzmannLayer, layer) for layer in self.layers[:-1]]

    @property
    def top(self) -> BoltzmannLayer:
        """Return the machine on top."""
        return cast(BoltzmannLayer, self.layers[-1])

    def stages(self) -> list[nn.Module]:
        """Return the layers as Boltzmann machines to be learned in turn, each on the codes of the last."""
        found = [*self.visible.stages(), _Stage(self.layers[0], self.steps, self.visible)]
        for number, (below, layer) in enumerate(pairwise(self.layers)):
            waits = None if self.waiting is None else self.waiting[number]
            found.append(_Stage(layer, self.steps, below=below, waits=waits))
        return list[nn.Module](found)

    def join(self) -> None:
        """Let recognition weights begin where the layers' own weights are."""
        with torch.no_grad():
            for up, layer in zip(self.recognition, self.lower, strict=True):
                up.copy_(layer.weights)

    def loss(self, batch: Batch) -> Tensor:
        """Return what up-down training descends on or, in evaluation, a figure to choose by, shape ().

        In training: the cross-entropy of each layer given the one above, on the way up; the contrast of
        the top machine; the cross-entropy of the recognition on the way down from the end of its chains.
        In evaluation: minus the bound with the top machine's pseudo-likelihood in place of its likelihood.
        """
        v = self.visible.drawn(batch.x, self.top.visible_bias)
        if not self.training:
            ratio, h = self._ratio(v, None)
            return self.top.misfit(h) - ratio.mean()
        with torch.no_grad():
            states = [v]
            for number in range(len(self.lower)):
                states.append(bernoulli(self._up(number, states[-1]).sigmoid()))
        loss, end = self.top.contrast_and_end(states[-1], self.steps)
        for layer, below, above in zip(self.lower, states, states[1:], strict=False):
            loss = loss - _log_conditional(layer, below, above).mean()
        for number in reversed(range(len(self.lower))):
            with torch.no_grad():
                below = self.lower[number].draw(self.lower[number].centre(end))
            read = self.lower[number].read(below).detach()  # recognition does not move the scale
            loss = loss - _log_bits(self._above(number, read), end).mean()
            end = below
        return loss

    @counted
    def sample(self, n: int, generator: torch.Generator | None = None, *, steps: int | None = None) -> Tensor:
        """Return `n` draws (n, *shape): a chain of the top machine each, then one pass down.

        Args:
            n: Number of chains.
            generator: Source of randomness.
            steps: Length of the chains, at least 1, `burn_in` by default.
        """
        with torch.no_grad():
            start = self.top.inputs(self.top.begin(n, generator))
            v = self.top.chain_end(start, self.burn_in if steps is None else steps, generator)
            for layer in reversed(self.lower):
                v = layer.draw(layer.centre(v), generator)
            return self.visible.raw(v)

    def log_prob(
        self, x: Tensor, samples: int = _SAMPLES, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return the importance-weighted bound on log p(x) of each row, in nats: (n, *shape) -> (n,).

        Args:
            x: Raw samples.
            samples: Number S of draws of h, at least 1; the bound tightens as it grows.
            generator: Source of the draws; each row's own fixed noise if None.
        """
        return log_mean_exp(self._log_weights(x, samples, generator))

    def elbo(self, x: Tensor, samples: int = _SAMPLES) -> Tensor:
        """Return the variational bound on log p(x) of each row, in nats: (n, *shape) -> (n,)."""
        return self._log_weights(x, samples, None).mean(0)

    def encode(self, x: Tensor) -> Tensor:
        """Return the probabilities of the units on top, on one pass up of probabilities: -> (n, H_L)."""
        h = self.visible.units(x, self.top.visible_bias)
        for number in range(len(self.lower)):
            h = self._up(number, h).sigmoid()
        return self.top.hidden(h)

    def decode(self, z: Tensor) -> Tensor:
        """Return the likeliest sample on one pass down of probabilities: (n, H_L) -> (n, *shape)."""
        h = checked_codes(z, self.top.weights.shape[1]).to(self.top.weights)
        for layer in (self.top, *reversed(self.lower)):
            h = layer.mean(layer.centre(h))
        return self.visible.raw(h)

    @property
    def density(self) -> Density:
        """Return that `log_prob` is a lower bound; its protocol says if log Z in it is an estimate."""
        noise = "uniform noise and " if self.visible.noisy else ""
        bound = f"{noise}importance-weighted, {_SAMPLES} draws of the hidden units"
        return density_of(self.log_partition(), bound if self.lower or self.visible.noisy else "")

    def filters(self) -> Tensor:
        """Return what each unit of the first hidden layer adds to the visible ones: (H_1, D)."""
        return cast(BoltzmannLayer, self.layers[0]).weights.detach().T

    def two_layers(self) -> BoltzmannLayer:
        """Return the machine on top."""
        return self.top

    def _up(self, number: int, below: Tensor) -> Tensor:
        """Return logits of q(h_l | h_l-1): (n, H_l-1) -> (n, H_l)."""
        return self._above(number, self.lower[number].read(below))

    def _above(self, number: int, read: Tensor) -> Tensor:
        """Return logits of q(h_l | h_l-1), given what the weights multiply: (n, H_l-1) -> (n, H_l)."""
        return torch.addmm(self.lower[number].hidden_bias, read, self.recognition[number]).to(read)

    def _ratio(self, v: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return log p(v | h_1 ...) - log q(h | v) without the top machine, and h_L-1: (n,), (n, H_L-1)."""
        total, column = v.new_zeros(len(v)), 0
        for number, layer in enumerate(self.lower):
            logits = self._up(number, v)
            width = logits.shape[1]
            chance = torch.rand_like(logits) if noise is None else noise[:, column : column + width]
            h = (chance < logits.sigmoid()).to(v)
            total = total + _log_conditional(layer, v, h) - _log_bits(logits, h)
            v, column = h, column + width
        return total, v

    def _log_weights(self, x: Tensor, samples: int, generator: torch.Generator | None) -> Tensor:
        """Return log p(x, h) - log q(h | x) of each draw of h: (n, *shape) -> (S, n)."""
        if samples < 1:
            raise OptionError(f"samples must be at least 1, got {samples}")
        self.domain.validated(x)
        like = self.top.visible_bias
        log_z = partition_tensor(self.top, self.log_partition())
        width, own = (
            sum(up.shape[1] for up in self.recognition),
            self.domain.dims if self.visible.noisy else 0,
        )
        if width + own == 0:
            samples = 1
        if generator is None:
            noise = self.visible.noise_of(x, width, samples).to(like)
        else:
            noise = uniform((samples, len(x), own + width), like, generator)
        rows = []
        for each in noise:
            v = self.visible.units(x, like, each[:, :own])
            ratio, h = self._ratio(v, each[:, own:])
            rows.append(ratio - self.top.free_energy(h) + self.visible.log_volume(x, v))
        return torch.stack(rows) - log_z


class _Stage(nn.Module):
    """A layer as a Boltzmann machine of its own.

    Args:
        layer: The layer.
        steps: Gibbs steps of a chain.
        visible: What turns raw samples into its visible units; without it these are drawn from codes.
        below: The layer that codes them.
        waits: A number that is not zero until the layer has started as the transpose of the one below.
    """

    def __init__(
        self,
        layer: nn.Module,
        steps: int,
        visible: Visible | None = None,
        *,
        below: nn.Module | None = None,
        waits: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.layer = cast(BoltzmannLayer, layer)
        self.below, self.waits = (below,), waits  # in a tuple, so that its parameters are not learned
        self.steps = steps
        self.visible = visible

    def loss(self, batch: Batch) -> Tensor:
        """Return the contrast of the layer or, in evaluation, a figure to choose by, shape ()."""
        if self.training and self.waits is not None and self.waits:
            self._tie(cast(BoltzmannLayer, self.below[0]))
            self.waits.zero_()
        like = self.layer.visible_bias
        v = bernoulli(batch.x.to(like)) if self.visible is None else self.visible.drawn(batch.x, like)
        return self.layer.contrast(v, self.steps) if self.training else self.layer.misfit(v)

    def encode(self, x: Tensor) -> Tensor:
        """Return the probabilities of the hidden units: (n, *) -> (n, H)."""
        like = self.layer.visible_bias
        return self.layer.hidden(x.to(like) if self.visible is None else self.visible.units(x, like))

    def _tie(self, below: BoltzmannLayer) -> None:
        """Start as the transpose of the layer below."""
        with torch.no_grad():
            self.layer.weights.copy_(below.weights.T)
            self.layer.visible_bias.copy_(below.hidden_bias)
            self.layer.hidden_bias.copy_(below.visible_bias)


def _mirror(below: nn.Module, above: nn.Module) -> bool:
    """Return whether one layer can be the transpose of the other: binary units as many on both sides."""
    return (
        isinstance(below, BernoulliLayer)
        and below.weights.T.shape == cast(BernoulliLayer, above).weights.shape
    )


def _log_conditional(layer: BoltzmannLayer, below: Tensor, above: Tensor) -> Tensor:
    """Return log p(below | above) of each row, in nats: (n, D), (n, H) -> (n,)."""
    centre = layer.centre(above)
    return layer.log_factor(below, centre) - layer.log_normaliser(centre)


def _log_bits(logits: Tensor, bits: Tensor) -> Tensor:
    """Return the log-probability of independent bits, in nats: (n, H), (n, H) -> (n,)."""
    return (logits * bits).sum(1) - F.softplus(logits).sum(1)
