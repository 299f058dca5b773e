r"""Variational autoencoder: a latent variable model learned together with its inference network.

    p(x) = E_{z ~ N(0, I)} p(x | z),    q(z | x) = N(mean(x), diag(scale(x))^2)
    ELBO(x) = E_{z ~ q(z|x)} log p(x | z) - KL(q(z|x) || N(0, I))  <=  log p(x)

The likelihood p(x | z) is a head over raw values, so that the bound is one on the raw data. Averaging
weights before the logarithm gives the tighter bound
log p(x) >= E log (1/S) sum_s p(x, z_s) / q(z_s | x), which rises with S and tends to log p(x).

Symbols:
    x (n, *shape) raw data, z (n, k) code, e (S, n, k) standard normal noise, S number of draws,
    P number of parameters of the likelihood.

Source:
    Kingma and Welling (2014), Auto-Encoding Variational Bayes, ICLR, equation 10.
    Burda, Grosse and Salakhutdinov (2016), Importance Weighted Autoencoders, ICLR, equation 8.

Departs from the source:
    Pixels may go through their own histograms to unit normals before anything else (`nets.marginals`).
    The encoder's log-scale is kept in [-7, 7], so that an outlier cannot overflow.
    Noise of the bounds is a function of the row unless a generator is given: scores repeat.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from leadline.core import Batch, Density, Described, Domain, Images, OptionError, counted
from leadline.core.errors import checked_codes
from leadline.core.likelihoods import Likelihood
from leadline.core.randomness import normal, normal_of_rows
from leadline.models.autoencoders.cells import CellNormal
from leadline.nets.architecture import is_convolutional
from leadline.nets.convolution import ConvDecoder, ConvEncoder
from leadline.nets.dense import dense
from leadline.nets.marginals import Marginals, usual_pixels

__all__ = ["VAE", "divergence"]

_NUMBERS_AT_ONCE = 1 << 22


def divergence(mean: Tensor, log_scale: Tensor) -> Tensor:
    """Return KL(N(mean, scale^2) || N(0, I)) of each row in nats: two of (..., k) -> (...)."""
    return (0.5 * (mean.square() + torch.expm1(2 * log_scale)) - log_scale).sum(-1)


class VAE(nn.Module):
    """Variational autoencoder with a Gaussian posterior and a standard normal prior.

    Verbs:
        sample (draws of p(x | z), noise of the likelihood included), log_prob (a lower bound),
        encode (the posterior mean), decode (the best single value, without that noise)

    Args:
        domain: What one sample is.
        encoder: Network (n, features) -> (n, 2 k): posterior mean and log-scale, side by side.
        decoder: Network (n, k) -> the parameters of the likelihood, (n, P) or (n, c * P / d, h, w).
        latent: Number k of latent variables, at least 1.
        likelihood: Name of the domain's likelihood head, its default if None.
        pixels: "gaussianised" takes each pixel of a picture through its own histogram of the training split
            to a unit normal, and makes p(x | z) normal there; "standard" leaves all to the likelihood.
            None gaussianises grey pictures where no likelihood is named.

    Raises:
        OptionError: If the domain has no such head, or one is named beside gaussianised pixels.

    Example:
        >>> from leadline.core import Bits, Signature
        >>> model = VAE.for_data(Signature(Bits((8,))), latent=2)
        >>> x = model.sample(5)
        >>> model.log_prob(x).shape, model.encode(x).shape
        (torch.Size([5]), torch.Size([5, 2]))
    """

    like: Tensor
    density = Density("lower bound", "importance-weighted, 64 samples")

    def __init__(
        self,
        domain: Domain,
        encoder: nn.Module,
        decoder: nn.Module,
        latent: int,
        likelihood: str | None = None,
        *,
        pixels: str | None = None,
    ) -> None:
        super().__init__()
        self.domain = domain
        self.latent = latent
        levels = domain.levels if isinstance(domain, Images) else 0
        self.marginals = Marginals(domain.dims, levels, pixels or _usual(domain, likelihood))
        self.likelihood = _head(domain, likelihood, self.marginals)
        self.register_buffer("like", torch.empty(0), persistent=False)
        self.encoder = encoder
        self.decoder = decoder

    @classmethod
    def for_data(
        cls,
        data: Described,
        *,
        latent: int = 16,
        hidden: tuple[int, ...] = (256,),
        channels: tuple[int, ...] = (32, 64, 128),
        architecture: str = "auto",
        likelihood: str | None = None,
        pixels: str | None = None,
    ) -> "VAE":
        """Return a model for any domain that has features and a likelihood.

        Args:
            data: A data set, or anything with a domain.
            latent: Number of latent variables.
            hidden: Widths of the dense encoder's hidden layers; the decoder mirrors them.
            channels: Channels of the convolutional encoder's stages; the decoder mirrors them.
            architecture: "dense", "conv" (pictures only), or "auto": convolutional for pictures whose
                sides have at least 16 pixels.
            likelihood: Name of the domain's likelihood head, its default if None.
            pixels: "gaussianised" or "standard"; None gaussianises grey pixels unless a likelihood is named.
        """
        domain = data.domain
        pixels = pixels or _usual(domain, likelihood)
        counted = isinstance(domain, Images) and pixels == "gaussianised"
        parameters = 2 * domain.dims if counted else domain.likelihood(likelihood).parameters
        if latent < 1:
            raise OptionError(f"latent must be at least 1, got {latent}")
        if is_convolutional(architecture, domain.planes):
            coders = _convolutional(domain, latent, channels, parameters)
        else:
            coders = _dense(domain, latent, hidden, parameters)
        return cls(domain, *coders, latent, likelihood, pixels=pixels)

    def make_room(self, shapes: dict[str, tuple[int, ...]]) -> None:
        """Keep to the domain's likelihood if no histograms were saved, given shapes by name."""
        if "marginals.cumulative" in shapes or not self.marginals.gaussianised:
            return
        self.marginals.cumulative = None
        self.likelihood = self.domain.likelihood()
        for name, parameter in self.decoder.named_parameters():  # as many outputs as that likelihood reads
            parameter.data = parameter.new_zeros(shapes.get(f"decoder.{name}", parameter.shape))

    def stages(self) -> list[nn.Module]:
        """Return what is learned before the networks: the histograms of pixels, if they read them."""
        return self.marginals.stages()

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean of -ELBO of `batch.x` with one draw of z a row, in nats, shape ()."""
        mean, log_scale = self.posterior(batch.x)
        z = mean + log_scale.exp() * torch.randn_like(mean)  # equation 4
        fit = self.likelihood.log_prob(self.conditional(z), batch.x)
        return (divergence(mean, log_scale) - fit).mean()

    @counted
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Return `n` independent draws of x: z from the prior, then x from p(x | z), (n, *shape)."""
        z = normal((n, self.latent), self.like, generator)
        return self.likelihood.sample(self.conditional(z), generator)

    def log_prob(self, x: Tensor, samples: int = 64, generator: torch.Generator | None = None) -> Tensor:
        """Return the importance-weighted bound of log p(x) of each row, in nats: (n, *shape) -> (n,).

        Args:
            x: Raw samples.
            samples: Number S of draws of z a row, at least 1; the bound tightens as it grows.
            generator: Source of the noise; each row's own fixed noise if None.
        """
        draws = self._draws(x, samples, generator)
        return torch.cat([(fit + ratio).logsumexp(0) - math.log(samples) for fit, ratio, _ in draws])

    def encode(self, x: Tensor) -> Tensor:
        """Return the posterior mean E_q[z | x]: (n, *shape) -> (n, k)."""
        return self.posterior(x)[0]

    def decode(self, z: Tensor) -> Tensor:
        """Return the best single raw value under p(x | z), with no noise: (n, k) -> (n, *shape)."""
        return self.likelihood.point(self.conditional(checked_codes(z, self.latent)))

    def elbo(self, x: Tensor, samples: int = 1, generator: torch.Generator | None = None) -> Tensor:
        """Return the evidence lower bound of each row, in nats: (n, *shape) -> (n,).

        Args:
            x: Raw samples.
            samples: Number of draws of z a row to average over, at least 1; the bound stays as loose.
            generator: Source of the noise; each row's own fixed noise if None.
        """
        return torch.cat([fit.mean(0) - kl for fit, _, kl in self._draws(x, samples, generator)])

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-scale of q(z | x): (n, *shape) -> two of (n, k)."""
        if self.marginals.gaussianised:
            read = self.marginals.of_levels(self.domain.checked(x)).to(self.like)
        else:
            read = self.domain.features(x, self.like)
        mean, log_scale = self.encoder(read).chunk(2, -1)
        return mean, F.hardtanh(log_scale, -7.0, 7.0)  # a clamp whose gradient is one kernel

    def conditional(self, z: Tensor) -> Tensor:
        """Return the parameters of p(x | z): (n, k) -> (n, P)."""
        params = self.decoder(z)
        return self.likelihood.from_planes(params) if params.dim() == 4 else params

    def reconstruction(self, x: Tensor, z: Tensor) -> Tensor:
        """Return log p(x | z) of S codes a row, in nats: (n, *shape), (S, n, k) -> (S, n)."""
        params = self.conditional(z.flatten(0, 1)).unflatten(0, z.shape[:2])
        return self.likelihood.log_prob(params, x.to(z.device))

    def _draws(
        self, x: Tensor, samples: int, generator: torch.Generator | None
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Return, some rows r at a time: log p(x|z) (S, r), log p(z) - log q(z|x) (S, r), the KL (r,)."""
        if samples < 1:
            raise OptionError(f"samples must be at least 1, got {samples}")
        width = self.likelihood.parameters
        rows = max(1, _NUMBERS_AT_ONCE // (samples * width))
        draws = max(1, _NUMBERS_AT_ONCE // (rows * width))
        for part in self.domain.checked(x).split(rows):
            mean, log_scale = self.posterior(part)
            noise = _noise(part, mean, samples, generator)
            z = mean + log_scale.exp() * noise
            # Recomputed for a gradient instead of kept: memory stays bounded there too.
            fits = [
                checkpoint(self.reconstruction, part, some, use_reentrant=False) for some in z.split(draws)
            ]
            ratio = (0.5 * (noise.square() - z.square()) + log_scale).sum(-1)
            yield torch.cat(fits), ratio, divergence(mean, log_scale)


def _usual(domain: Domain, likelihood: str | None) -> str:
    """Return what is done to pixels unless it is said."""
    return usual_pixels(domain.planes) if likelihood is None else "standard"


def _head(domain: Domain, likelihood: str | None, marginals: Marginals) -> Likelihood:
    """Return the head of gaussianised pixels, or the domain's own."""
    if not (marginals.gaussianised and isinstance(domain, Images)):
        return domain.likelihood(likelihood)
    if likelihood is not None:
        raise OptionError(f"gaussianised pixels have a likelihood of their own, not {likelihood!r}")
    return CellNormal(domain, marginals)


def _noise(x: Tensor, mean: Tensor, samples: int, generator: torch.Generator | None) -> Tensor:
    """Return standard normal noise (S, n, k), that of the rows of `x` if there is no generator."""
    if generator is not None:
        return normal((samples, *mean.shape), mean, generator)
    return normal_of_rows(x, mean.shape[1], samples).to(mean)


def _dense(domain: Domain, latent: int, hidden: tuple[int, ...], outputs: int) -> tuple[nn.Module, nn.Module]:
    """Return dense encoder and decoder."""
    encoder = dense((domain.feature_count, *hidden, 2 * latent))
    return encoder, dense((latent, *reversed(hidden), outputs))


def _convolutional(
    domain: Domain, latent: int, channels: tuple[int, ...], outputs: int
) -> tuple[nn.Module, nn.Module]:
    """Return convolutional encoder and decoder; without batch normalisation, which would mix rows."""
    planes = domain.planes or (1, 1, 1)
    encoder = nn.Sequential(nn.Unflatten(1, planes), ConvEncoder(planes, 2 * latent, channels, norm="layer"))
    picture = (outputs // (planes[1] * planes[2]), planes[1], planes[2])
    return encoder, ConvDecoder(latent, picture, channels[::-1], norm="layer")
