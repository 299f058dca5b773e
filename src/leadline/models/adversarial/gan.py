r"""Generative adversarial network: a generator and a critic that play against each other.

Non-saturating, with D = sigmoid(f):
    critic: min -E log D(x) - E log(1 - D(G(z))) + c E ||grad f(x)||^2,    generator: min -E log D(G(z))
Wasserstein:
    critic: min E f(G(z)) - E f(x) + c E (||grad f(y)|| - 1)^2,    generator: min -E f(G(z))
with y drawn evenly on the line between a real and a generated sample.

Symbols:
    n samples, x (n, *shape) raw data, u (n, *shape) its real coordinates, z (n, k) code, f critic,
    G generator, c weight of the gradient penalty.

Source:
    Goodfellow et al. (2014), Generative Adversarial Networks, NeurIPS, section 3.
    Gulrajani et al. (2017), Improved Training of Wasserstein GANs, NeurIPS, equation 3.
    Mescheder, Geiger and Nowozin (2018), Which Training Methods for GANs do actually Converge?, ICML,
    equation 9 (the penalty of the non-saturating critic).

Departs from the source:
    Levels become real numbers by uniform noise within their cell before the critic sees them, so that
    it cannot tell real samples by the grid they lie on.
    Adam's settings are those that trained on 8 x 8 digits, faster than the papers' for large pictures.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from leadline.core import Batch, Bits, Described, Domain, Images, OptionError, Player, Vectors, counted
from leadline.core.errors import checked_codes, unknown_name
from leadline.core.randomness import normal
from leadline.nets.architecture import is_convolutional
from leadline.nets.convolution import ConvDecoder, ConvEncoder
from leadline.nets.dense import dense

__all__ = ["GAN", "OBJECTIVES", "Objective", "slopes"]


@dataclass(frozen=True)
class Objective:
    """What the two players minimise, and what is known to train them.

    Args:
        critic: Loss of the scores of real and of generated samples, two of (n,) -> ().
        generator: Loss of the scores of generated samples, (n,) -> ().
        penalty: Penalty on slopes of the critic, (n,) -> (), before its weight.
        between: Whether slopes are taken between real and generated samples, else at real ones.
        weight: Weight c of the penalty.
        critic_steps: Steps of the critic in a turn.
        beta2: Adam's second decay rate.
    """

    critic: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]
    penalty: Callable[[Tensor], Tensor]
    between: bool
    weight: float
    critic_steps: int
    beta2: float


OBJECTIVES = {
    "nonsaturating": Objective(
        critic=lambda real, fake: F.softplus(-real).mean() + F.softplus(fake).mean(),
        generator=lambda fake: F.softplus(-fake).mean(),
        penalty=lambda slope: slope.square().mean(),
        between=False,
        weight=1.0,
        critic_steps=1,
        beta2=0.99,
    ),
    "wasserstein": Objective(
        critic=lambda real, fake: fake.mean() - real.mean(),
        generator=lambda fake: -fake.mean(),
        penalty=lambda slope: (slope - 1).square().mean(),
        between=True,
        weight=10.0,
        critic_steps=5,
        beta2=0.9,
    ),
}


def slopes(critic: Callable[[Tensor], Tensor], u: Tensor) -> Tensor:
    """Return ||grad f(u)|| of each row, differentiable again: (n, *shape) -> (n,)."""
    point = u.detach().requires_grad_()
    # Behind a view: hooks on a critic's input (of a profiler) cannot be set on a leaf of this graph.
    score = critic(point.view_as(point))
    (gradient,) = torch.autograd.grad(score.sum(), point, create_graph=True)
    return gradient.flatten(1).norm(dim=1)


class GAN(nn.Module):
    """Generative adversarial network over real coordinates of pictures, bits or vectors.

    It has no density: there is no log_prob, and no encode.

    Verbs:
        sample, decode

    Args:
        domain: What one sample is.
        generator: Network (n, k) -> (n, d) or (n, *shape); its output passes a tanh unless the domain
            is Vectors.
        critic: Network (n, *shape) -> (n, 1), without batch normalisation.
        latent: Number k of latent variables, at least 1.
        objective: "nonsaturating" or "wasserstein".
        penalty: Weight c of the gradient penalty, at least 0; 1 or 10 by objective if None.

    Raises:
        DomainError: If the domain is none of the three.
        OptionError: If an option is unknown or out of range.

    Example:
        >>> from leadline.core import Bits, Signature
        >>> model = GAN.for_data(Signature(Bits((8,))), latent=2)
        >>> x = model.sample(5)
        >>> x.shape, model.critic(x).shape
        (torch.Size([5, 8]), torch.Size([5]))
    """

    like: Tensor

    def __init__(
        self,
        domain: Domain,
        generator: nn.Module,
        critic: nn.Module,
        latent: int,
        objective: str = "nonsaturating",
        penalty: float | None = None,
    ) -> None:
        super().__init__()
        if objective not in OBJECTIVES:
            raise unknown_name("objective", objective, OBJECTIVES)
        if penalty is not None and not penalty >= 0:
            raise OptionError(f"penalty must be at least 0, got {penalty}")
        self.domain = domain.require(Images, Bits, Vectors)
        self.latent = latent
        self.objective = OBJECTIVES[objective]
        self.penalty = self.objective.weight if penalty is None else penalty
        self.register_buffer("like", torch.empty(0), persistent=False)
        self.generator_net = generator
        self.critic_net = critic

    @classmethod
    def for_data(
        cls,
        data: Described,
        *,
        objective: str = "nonsaturating",
        latent: int = 32,
        hidden: tuple[int, ...] = (256, 256),
        channels: tuple[int, ...] = (32, 64, 128),
        architecture: str = "auto",
        penalty: float | None = None,
    ) -> "GAN":
        """Return a model for pictures, bits or vectors.

        Args:
            data: A data set, or anything with a domain.
            objective: "nonsaturating" or "wasserstein".
            latent: Number of latent variables.
            hidden: Widths of the dense critic's hidden layers; the generator mirrors them.
            channels: Channels of the convolutional critic's stages; the generator mirrors them.
            architecture: "dense", "conv" (pictures only), or "auto": convolutional for pictures whose
                sides have at least 16 pixels.
            penalty: Weight of the gradient penalty, that of the objective if None.
        """
        domain = data.domain.require(Images, Bits, Vectors)
        if latent < 1:
            raise OptionError(f"latent must be at least 1, got {latent}")
        if is_convolutional(architecture, domain.planes):
            nets = _convolutional(domain, latent, channels)
        else:
            nets = _dense(domain, latent, hidden)
        return cls(domain, *nets, latent, objective, penalty)

    @property
    def recommended(self) -> dict[str, Any]:
        """Return the settings of `fit` that this game is known to train with."""
        betas = (0.5, self.objective.beta2)
        return {"steps": 8000, "optimizer": "adam", "lr": 1e-3, "optimizer_options": {"betas": betas}}

    def players(self) -> list[Player]:
        """Return the critic, who moves first, and the generator."""
        steps = self.objective.critic_steps
        return [
            Player("critic", list(self.critic_net.parameters()), self.critic_loss, steps),
            Player("generator", list(self.generator_net.parameters()), self.generator_loss),
        ]

    def critic_loss(self, batch: Batch) -> Tensor:
        """Return the critic's loss on `batch.x` and as many generated samples, shape ()."""
        real = self.coordinates(batch.x, noisy=True)
        with torch.no_grad():
            fake = self.generated(self._codes(len(real)))
        loss = self.objective.critic(self._score(real), self._score(fake))
        if self.penalty == 0:
            return loss
        point = real
        if self.objective.between:
            weight = torch.rand(len(real), *(1,) * (real.dim() - 1)).to(real)
            point = torch.lerp(fake, real, weight)
        return loss + self.penalty * self.objective.penalty(slopes(self._score, point))

    def generator_loss(self, batch: Batch) -> Tensor:
        """Return the generator's loss on as many generated samples as `batch.x` has rows, shape ()."""
        fake = self.generated(self._codes(len(batch.x)))
        # The critic's weights are constants here: no gradient is computed for them.
        weights = {name: weight.detach() for name, weight in self.critic_net.named_parameters()}
        return self.objective.generator(functional_call(self.critic_net, weights, (fake,)).squeeze(1))

    @counted
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Return `n` independent draws of x, shape (n, *shape)."""
        return self.decode(self._codes(n, generator))

    def decode(self, z: Tensor) -> Tensor:
        """Return the raw sample that the generator makes of each code: (n, k) -> (n, *shape)."""
        u = self.generated(checked_codes(z, self.latent))
        return self.domain.quantize(u if self._unbounded else (u + 1) / 2)

    def critic(self, x: Tensor) -> Tensor:
        """Return the critic's score of raw samples, higher for real ones: (n, *shape) -> (n,).

        It is the log-odds that a sample is real under "nonsaturating", and has no zero or unit
        under "wasserstein".
        """
        return self._score(self.coordinates(x))

    def coordinates(self, x: Tensor, *, noisy: bool = False) -> Tensor:
        """Return the real coordinates that the networks use, in [-1, 1] or standardised: shape of x.

        Args:
            x: Raw samples (n, *shape).
            noisy: Whether levels are spread over their cell, else its middle is taken.
        """
        like = self.like
        noise = torch.rand(x.shape, dtype=like.dtype, device=like.device) if noisy else None
        u = self.domain.continuous(x, noise, like)
        return u if self._unbounded else 2 * u - 1

    def generated(self, z: Tensor) -> Tensor:
        """Return the real coordinates of generated samples: (n, k) -> (n, *shape)."""
        u = self.generator_net(z).view(-1, *self.domain.shape)
        return u if self._unbounded else u.tanh()

    @property
    def _unbounded(self) -> bool:
        return isinstance(self.domain, Vectors)

    def _score(self, u: Tensor) -> Tensor:
        return self.critic_net(u).squeeze(1)

    def _codes(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return normal((n, self.latent), self.like, generator)


def _dense(domain: Domain, latent: int, hidden: tuple[int, ...]) -> tuple[nn.Module, nn.Module]:
    """Return dense generator and critic."""
    critic = nn.Sequential(nn.Flatten(), dense((domain.dims, *hidden, 1), "leaky_relu"))
    return dense((latent, *reversed(hidden), domain.dims), "leaky_relu"), critic


def _convolutional(domain: Domain, latent: int, channels: tuple[int, ...]) -> tuple[nn.Module, nn.Module]:
    """Return convolutional generator and critic; neither mixes rows, as batch normalisation would."""
    planes = domain.planes or (1, 1, 1)
    generator = ConvDecoder(latent, planes, channels[::-1], norm="layer")
    return generator, ConvEncoder(planes, 1, channels, activation="leaky_relu", norm="none")
