r"""Restricted Boltzmann machine, learned by contrastive divergence.

    p(v) = exp(-F(v)) / Z,        F(v) = -g(v, b) - sum_j softplus(c + r(v) W)_j

with binary visible units for bits and Gaussian ones for real columns and pictures; see
`leadline.nets.boltzmann` for the formulas of both. Real columns are standardised. Levels of a picture get
uniform noise, so that log p(x) >= E log p(u), and u in [0, 1) is stretched to unit variance.

Symbols:
    n samples, D visible units v (n, D), H hidden units h (n, H), W (D, H) weights, b (D,) visible and
    c (H,) hidden biases, F free energy, Z partition function, u (n, D) real coordinates, S draws of noise.

Source:
    Hinton (2002), Training Products of Experts by Minimizing Contrastive Divergence.
    Gaussian units: Hinton (2010), A Practical Guide to Training Restricted Boltzmann Machines, section 13.2.
    Uniform noise: Theis, van den Oord and Bethge (2016), A note on the evaluation of generative models.

Departs from the source:
    See `leadline.nets.boltzmann` and `leadline.models.boltzmann.partition`.
"""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from leadline.core import Batch, Bits, Density, Described, Domain, Images, OptionError, Quantity, Vectors
from leadline.core.errors import checked_codes, unknown_name
from leadline.core.randomness import uniform, uniform_of_rows
from leadline.models.boltzmann.partition import Method, Remembered, log_partition, partition_tensor
from leadline.nets.boltzmann import BernoulliLayer, BoltzmannLayer, GaussianLayer

__all__ = ["RBM"]

_SCALES = ("learned", "unit")
_DRAWS = 16
_UNIFORM_SCALE = 12**-0.5  # of the uniform distribution on [0, 1)


class RBM(nn.Module):
    """Restricted Boltzmann machine of binary hidden units.

    Bits are binary visible units; pictures and real columns are Gaussian ones. Numbers in [0, 1] are
    taken too where bits are expected, as their probabilities.

    Verbs:
        sample, log_prob, encode, decode

    Args:
        domain: What one sample is.
        hidden: Number H of hidden units, at least 1.
        steps: Number k of Gibbs steps of a chain in one loss, at least 1.
        persistent: Whether chains go on from loss to loss instead of starting at the data.
        chains: Number of persistent chains, at least 1.
        burn_in: Gibbs steps before a sample is taken.
        scale: Noise of each Gaussian visible unit, "learned" or "unit"; of no meaning for bits.

    Raises:
        ValueError: If a size is below 1.
        DomainError: If the domain is not Bits, Images or Vectors.

    Example:
        >>> model = RBM(Bits((2, 3)), hidden=4)
        >>> x = model.sample(5)
        >>> x.shape, model.log_prob(x).shape, model.encode(x).shape
        (torch.Size([5, 2, 3]), torch.Size([5]), torch.Size([5, 4]))
    """

    recommended: ClassVar[dict[str, Any]] = {"optimizer": "momentum", "lr": 0.005, "batch_size": 20}

    def __init__(
        self,
        domain: Domain,
        hidden: int = 128,
        steps: int = 1,
        *,
        persistent: bool = False,
        chains: int = 100,
        burn_in: int = 1000,
        scale: str = "learned",
    ) -> None:
        super().__init__()
        self.domain = domain.require(Bits, Images, Vectors)
        for name, value in (("hidden", hidden), ("steps", steps), ("chains", chains), ("burn_in", burn_in)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if scale not in _SCALES:
            raise unknown_name("scale", scale, _SCALES)
        self.steps = steps
        self.burn_in = burn_in
        kept = chains if persistent else 0
        self.layer: BoltzmannLayer
        if isinstance(domain, Bits):
            self.layer = BernoulliLayer(domain.dims, hidden, kept)
        else:
            self.layer = GaussianLayer(domain.dims, hidden, kept, learned=scale == "learned")
        self._partition = Remembered()

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
        scale: str = "learned",
    ) -> "RBM":
        """Return a machine over the samples of `data`: bits, pictures or real columns."""
        return cls(
            data.domain, hidden, steps, persistent=persistent, chains=chains, burn_in=burn_in, scale=scale
        )

    def loss(self, batch: Batch) -> Tensor:
        """Return what training descends on or, in evaluation mode, a figure to choose by, shape ().

        In training: mean F(data) - mean F(chain end), whose gradient is that of CD-k. Its value is no
        likelihood; it may rise while the model improves.
        In evaluation: minus the log pseudo-likelihood of bits in nats, estimated from one bit a sample,
        which is drawn; the score-matching objective of pictures and real columns.
        """
        v = self._visible(batch.x, noisy=True)
        return self.layer.contrast(v, self.steps) if self.training else self.layer.misfit(v)

    def sample(self, n: int, generator: torch.Generator | None = None, *, steps: int | None = None) -> Tensor:
        """Return `n` draws (n, *shape), each the end of its own Gibbs chain of `steps` from a blind start.

        Args:
            n: Number of chains.
            generator: Source of randomness.
            steps: Length of the chains, `burn_in` by default; a machine with far-apart modes needs more.
        """
        with torch.no_grad():
            v = self.layer.start(n, generator)
            length = self.burn_in if steps is None else steps
            return self._raw(self.layer.chain_end(self.layer.inputs(v), length, generator) if length else v)

    def log_prob(self, x: Tensor, samples: int = _DRAWS, generator: torch.Generator | None = None) -> Tensor:
        """Return log p(x) = -F(x) - log Z of each row, or its bound, in nats: (n, *shape) -> (n,).

        `density` says what it is. Where log Z is exact, the gradient includes it.

        Args:
            x: Raw samples.
            samples: Number S of draws of noise a row for pictures, at least 1; the bound tightens as it
                grows. Bits and real columns need none.
            generator: Source of the noise; each row's own fixed noise if None.
        """
        if samples < 1:
            raise OptionError(f"samples must be at least 1, got {samples}")
        log_z = partition_tensor(self.layer, self.log_partition())
        if not isinstance(self.domain, Images):
            return self._log_volume - self.free_energy(x) - log_z
        shape = (samples, len(x), self.domain.dims)
        like = self.layer.visible_bias
        noise = (
            uniform_of_rows(self.domain.checked(x), shape[2], samples)
            if generator is None
            else uniform(shape, like, generator)
        ).to(like)
        energies = [self.layer.free_energy(self._coordinates(x, each)) for each in noise]
        return self._log_volume - log_z + (-torch.stack(energies)).logsumexp(0) - math.log(samples)

    def encode(self, x: Tensor) -> Tensor:
        """Return the probability of each hidden unit: (n, *shape) -> (n, H) in [0, 1]."""
        return self.layer.hidden(self._visible(x))

    def decode(self, z: Tensor) -> Tensor:
        """Return the likeliest sample given hidden units or their probabilities: (n, H) -> (n, *shape)."""
        layer = self.layer
        return self._raw(layer.mean(layer.centre(checked_codes(z, layer.weights.shape[1]).to(layer.weights))))

    @property
    def density(self) -> Density:
        """Return whether `log_prob` is exact, a bound or an estimate, with the error that all rows share."""
        found = self.log_partition()
        if not isinstance(self.domain, Images):
            return Density(found.kind, found.protocol, found.stderr or 0.0)
        noise = f"uniform noise, {_DRAWS} draws; {found.protocol}"
        if found.kind == "exact":
            return Density("lower bound", noise)
        return Density("estimate", f"of a lower bound: {noise}", found.stderr or 0.0)

    def free_energy(self, x: Tensor) -> Tensor:
        """Return F(x) of each row, in nats; of the middle of the cell for pictures: (n, *shape) -> (n,)."""
        return self.layer.free_energy(self._visible(x))

    def filters(self) -> Tensor:
        """Return what each hidden unit adds to the visible ones, W^T: (H, D)."""
        return self.layer.weights.detach().T

    def log_partition(
        self, method: Method = "auto", *, chains: int = 100, temperatures: int = 1000, seed: int = 0
    ) -> Quantity:
        """Return log Z in nats, with its standard error where it is estimated.

        Args:
            method: "exact" sums over all states of the smaller layer (of the hidden one if visible units
                are Gaussian); "ais" is annealed importance sampling; "auto" is exact up to 20 units, and
                remembers what it found for these parameters.
            chains: Number of particles of "ais".
            temperatures: Number of temperatures of "ais".
            seed: Seed of "ais".

        Raises:
            ValueError: If "exact" is asked of a machine with more than 20 units to sum over.
        """

        def find() -> Quantity:
            return log_partition(self.layer, method, chains=chains, temperatures=temperatures, seed=seed)

        if method != "auto":
            return find()
        return self._partition(self.layer.parameters(), find, chains, temperatures, seed)

    def _visible(self, x: Tensor, *, noisy: bool = False) -> Tensor:
        """Return samples as rows of visible units: (n, *shape) -> (n, D)."""
        like = self.layer.visible_bias
        if isinstance(self.domain, Bits):
            return self.domain.checked(x).flatten(1).to(like)
        return self._coordinates(x, uniform(tuple(x.shape), like) if noisy and self._levels else None)

    def _coordinates(self, x: Tensor, noise: Tensor | None) -> Tensor:
        """Return real coordinates of unit variance: (n, *shape) -> (n, D)."""
        within = None if noise is None else noise.view(-1, *self.domain.shape)
        u = self.domain.continuous(x, within, self.layer.visible_bias).flatten(1)
        return (u - 0.5) / _UNIFORM_SCALE if self._levels else u

    def _raw(self, v: Tensor) -> Tensor:
        """Return raw samples of visible units: (n, D) -> (n, *shape)."""
        shaped = v.view(-1, *self.domain.shape)
        return self.domain.quantize(shaped * _UNIFORM_SCALE + 0.5 if self._levels else shaped)

    @property
    def _levels(self) -> bool:
        return isinstance(self.domain, Images)

    @property
    def _log_volume(self) -> float:
        """Return what the log-density of visible units lacks to that of raw samples, in nats."""
        if isinstance(self.domain, Bits):
            return 0.0
        stretch = math.log(_UNIFORM_SCALE) * self.domain.dims if self._levels else 0.0
        return self.domain.log_volume - stretch
