r"""Restricted Boltzmann machine, learned by contrastive divergence.

    p(v) = exp(-F(v)) / Z,        F(v) = -g(v, b) - sum_j softplus(c + r(v) W)_j

with binary visible units for bits and Gaussian ones for real columns and pictures. The formulas of both
stand in `leadline.nets.boltzmann`, what visible units are of a sample in `leadline.models.boltzmann.visible`.

Symbols:
    n samples, D visible units v (n, D), H hidden units h (n, H), W (D, H) weights, b (D,) visible and
    c (H,) hidden biases, F free energy, Z partition function, S draws of noise.

Source:
    Hinton (2002), Training Products of Experts by Minimizing Contrastive Divergence.
    Gaussian units: Hinton (2010), A Practical Guide to Training Restricted Boltzmann Machines, section 13.2.

Departs from the source:
    See `leadline.nets.boltzmann` and `leadline.models.boltzmann.partition`.
"""

from typing import Any

import torch
from torch import Tensor, nn

from leadline.core import Batch, Density, Described, Domain, counted
from leadline.core.errors import checked_codes
from leadline.models.boltzmann.machine import Machine
from leadline.models.boltzmann.partition import (
    density_of,
    partition_tensor,
)
from leadline.models.boltzmann.visible import Visible
from leadline.nets.boltzmann import BoltzmannLayer

__all__ = ["RBM"]

_DRAWS = 16
_USUAL_PIXELS = 64  # up to which pictures take the usual steps


class RBM(Machine):
    """Restricted Boltzmann machine of binary hidden units.

    Bits are binary visible units; pictures and real columns are Gaussian ones. Numbers in [0, 1] are
    taken too where bits are expected, as their probabilities.

    Verbs:
        sample, log_prob, encode, decode

    Args:
        domain: What one sample is.
        hidden: Number H of hidden units, at least 1.
        steps: Number k of Gibbs steps of a chain in one loss, at least 1.
        persistent: Whether chains go on from loss to loss instead of starting at the data; None is yes for
            bits and pictures and no for real columns, between whose clusters chains would not cross.
        chains: Number of persistent chains, at least 1.
        burn_in: Gibbs steps before a sample is taken.
        scale: Noise of each Gaussian visible unit, "learned" or "unit"; of no meaning for bits.
        centred: Whether the gradient for bits and pictures is the centred one, which learns faster and
            further.
        pixels: "gaussianised" takes each pixel of a picture through its own histogram of the training split
            to a unit normal, from which learning begins; "standard" only stretches it.

    Raises:
        ValueError: If a size is below 1.
        DomainError: If the domain is not Bits, Images or Vectors.

    Example:
        >>> from leadline.core import Bits
        >>> model = RBM(Bits((2, 3)), hidden=4)
        >>> x = model.sample(5)
        >>> x.shape, model.log_prob(x).shape, model.encode(x).shape
        (torch.Size([5, 2, 3]), torch.Size([5]), torch.Size([5, 4]))
    """

    def __init__(  # noqa: PLR0913
        self,
        domain: Domain,
        hidden: int = 128,
        steps: int = 1,
        *,
        persistent: bool | None = None,
        chains: int = 100,
        burn_in: int = 1000,
        scale: str = "learned",
        centred: bool = True,
        pixels: str = "gaussianised",
    ) -> None:
        super().__init__()
        self.domain = domain
        self.visible = Visible(domain, pixels)
        for name, value in (("hidden", hidden), ("steps", steps), ("chains", chains), ("burn_in", burn_in)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.steps = steps
        self.burn_in = burn_in
        self.centred = centred and not self.visible.columns
        kept = not self.visible.columns if persistent is None else persistent
        self.layer = self.visible.layer(hidden, chains if kept else 0, scale, centred=self.centred)

    @classmethod
    def for_data(  # noqa: PLR0913
        cls,
        data: Described,
        *,
        hidden: int = 128,
        steps: int = 1,
        persistent: bool | None = None,
        chains: int = 100,
        burn_in: int = 1000,
        scale: str = "learned",
        centred: bool = True,
        pixels: str = "gaussianised",
    ) -> "RBM":
        """Return a machine over the samples of `data`: bits, pictures or real columns."""
        return cls(
            data.domain,
            hidden,
            steps,
            persistent=persistent,
            chains=chains,
            burn_in=burn_in,
            scale=scale,
            centred=centred,
            pixels=pixels,
        )

    @property
    def recommended(self) -> dict[str, Any]:
        """Return the settings of `fit` that go well with it: faster with the centred gradient."""
        if self.centred:
            lr = 0.02 if self.visible.binary else 0.005
            if self.visible.gaussianised:  # as long steps on larger pictures diverge
                lr = 0.002 * min(1.0, (_USUAL_PIXELS / self.domain.dims) ** 0.5)
            return {"optimizer": "momentum", "lr": lr, "batch_size": 50, "schedule": "linear"}
        return {"optimizer": "momentum", "lr": 0.005, "batch_size": 20}

    def stages(self) -> list[nn.Module]:
        """Return what is learned before the machine: the histograms of pixels, if it reads them."""
        return self.visible.stages()

    def loss(self, batch: Batch) -> Tensor:
        """Return what training descends on or, in evaluation mode, a figure to choose by, shape ().

        In training: mean F(data) - mean F(chain end), whose gradient is that of CD-k. Its value is no
        likelihood; it may rise while the model improves.
        In evaluation: minus the log pseudo-likelihood of bits in nats, estimated from one bit a sample,
        which is drawn; the score-matching objective of pictures and real columns.
        """
        v = self.visible.drawn(batch.x, self.layer.visible_bias)
        return self.layer.contrast(v, self.steps) if self.training else self.layer.misfit(v)

    @counted
    def sample(self, n: int, generator: torch.Generator | None = None, *, steps: int | None = None) -> Tensor:
        """Return `n` draws (n, *shape), each the end of its own Gibbs chain of `steps`.

        Chains begin at the persistent ones where there are any, else blind.

        Args:
            n: Number of chains.
            generator: Source of randomness.
            steps: Length of the chains, `burn_in` by default, 0 for their starts; a machine with far-apart
                modes needs more.
        """
        with torch.no_grad():
            v = self.layer.begin(n, generator)
            length = self.burn_in if steps is None else steps
            return self.visible.raw(
                self.layer.chain_end(self.layer.inputs(v), length, generator) if length else v
            )

    def log_prob(self, x: Tensor, samples: int = _DRAWS, generator: torch.Generator | None = None) -> Tensor:
        """Return log p(x) = -F(x) - log Z of each row, or its bound, in nats: (n, *shape) -> (n,).

        `density` says what it is. Where log Z is exact, the gradient includes it.

        Args:
            x: Raw samples.
            samples: Number S of draws of noise a row for pictures, at least 1; the bound tightens as it
                grows. Bits and real columns need none.
            generator: Source of the noise; each row's own fixed noise if None.
        """
        self.domain.validated(x)
        log_z = partition_tensor(self.layer, self.log_partition())
        like = self.layer.visible_bias

        def score(v: Tensor) -> Tensor:
            return -self.layer.free_energy(v)

        return self.visible.averaged(x, like, score, samples, generator) - log_z

    def encode(self, x: Tensor) -> Tensor:
        """Return the probability of each hidden unit: (n, *shape) -> (n, H) in [0, 1]."""
        return self.layer.hidden(self.visible.units(x, self.layer.visible_bias))

    def decode(self, z: Tensor) -> Tensor:
        """Return the likeliest sample given hidden units or their probabilities: (n, H) -> (n, *shape)."""
        layer = self.layer
        codes = checked_codes(z, layer.weights.shape[1]).to(layer.weights)
        return self.visible.raw(layer.mean(layer.centre(codes)))

    @property
    def density(self) -> Density:
        """Return whether `log_prob` is exact, a bound or an estimate, with the error that all rows share."""
        found = self.log_partition()
        return density_of(found, f"uniform noise, {_DRAWS} draws" if self.visible.noisy else "")

    def two_layers(self) -> BoltzmannLayer:
        """Return the machine's own layers."""
        return self.layer

    def free_energy(self, x: Tensor) -> Tensor:
        """Return F(x) of each row, in nats; of the middle of the cell for pictures: (n, *shape) -> (n,)."""
        return self.layer.free_energy(self.visible.units(x, self.layer.visible_bias))

    def filters(self) -> Tensor:
        """Return what each hidden unit adds to the visible ones, W^T: (H, D)."""
        return self.layer.weights.detach().T
