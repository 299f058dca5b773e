r"""Autoencoder, dense or convolutional.

A code z = e(x) and a decoder learn to give the sample back:
    minimise  -mean log p(x | d(e(x)))
where p is the likelihood of the domain: cross-entropy for bits, levels, categories and words, squared error
for real columns.

Symbols:
    x (n, *shape) raw samples, z (n, latent) codes, P number of the likelihood's parameters a sample.

Source:
    Hinton and Salakhutdinov (2006), Reducing the Dimensionality of Data with Neural Networks, Science 313.
    Layer-wise pre-training by autoencoders: Bengio, Lamblin, Popovici and Larochelle (2007), Greedy
    Layer-Wise Training of Deep Networks, section 3.

Departs from the source:
    Layers are pre-trained as autoencoders, not as Boltzmann machines, and their weights are not tied.
    Real columns have a fixed scale of one standard deviation, so that the loss is half the squared error
    and a constant; a learned scale would run to zero as the reconstruction gets better.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from leadline.core import Batch, Described, Domain, OptionError, Table, Vectors
from leadline.core.errors import checked_codes, unknown_name
from leadline.nets.architecture import is_convolutional
from leadline.nets.convolution import ConvDecoder, ConvEncoder
from leadline.nets.dense import dense

__all__ = ["Autoencoder"]

_PRETRAININGS = ("none", "layerwise")


class Autoencoder(nn.Module):
    """A code of `latent` numbers and the way back, for any domain.

    Verbs:
        encode, decode

    Args:
        domain: What one sample is.
        latent: Width of the code; half the dimensions, at most 16, by default.
        hidden: Widths of the dense encoder's hidden layers; the decoder mirrors them.
        channels: Channels of the convolutional encoder's stages; the decoder mirrors them.
        activation: "relu", "tanh", "gelu", ...; see `leadline.nets.dense.ACTIVATIONS`.
        architecture: "dense", "conv" (pictures only), or "auto": convolutional for pictures whose sides
            have at least 16 pixels.
        pretraining: "none", or "layerwise": the dense one is first learned one layer at a time, each on
            the codes of the one before.

    Raises:
        DomainError: If a convolutional one is asked for and samples are no pictures.
        OptionError: If an option is unknown or out of range.

    Example:
        >>> import torch
        >>> from leadline.core import Bits
        >>> model = Autoencoder(Bits((6,)), latent=2, hidden=(8,))
        >>> z = model.encode(torch.ones(5, 6, dtype=torch.uint8))
        >>> z.shape, model.decode(z).dtype
        (torch.Size([5, 2]), torch.uint8)
    """

    like: Tensor

    def __init__(
        self,
        domain: Domain,
        latent: int | None = None,
        hidden: tuple[int, ...] = (256,),
        channels: tuple[int, ...] = (32, 64, 128),
        activation: str = "relu",
        *,
        architecture: str = "auto",
        pretraining: str = "none",
    ) -> None:
        super().__init__()
        self.domain = domain
        self.likelihood = domain.likelihood()
        self.depth = len(hidden)
        self.pretraining = pretraining
        self.latent = min(16, (domain.dims + 1) // 2) if latent is None else latent
        if self.latent < 1:
            raise OptionError(f"latent must be at least 1, got {latent}")
        self.reals = _real_columns(domain)
        self.register_buffer("like", torch.empty(0), persistent=False)
        if pretraining not in _PRETRAININGS:
            raise unknown_name("pretraining", pretraining, _PRETRAININGS)
        if pretraining == "layerwise" and architecture == "conv":
            raise OptionError('pretraining="layerwise" needs architecture="dense"')
        planes = domain.planes
        convolutional = is_convolutional(architecture, planes) and pretraining == "none"
        if convolutional and planes is not None:
            self.encoder, self.decoder = self._convolutional(planes, channels, activation)
        else:
            sizes = (domain.feature_count, *hidden, self.latent)
            outputs = self.likelihood.parameters - self.reals
            self.encoder = dense(sizes, activation)
            self.decoder = dense((*sizes[:0:-1], outputs), activation)

    def _convolutional(
        self, planes: tuple[int, int, int], channels: tuple[int, ...], activation: str
    ) -> tuple[nn.Sequential, nn.Sequential]:
        """Return encoder and decoder of pictures, from and to flat rows."""
        depth = self.likelihood.parameters // self.domain.dims
        outputs = (planes[0] * depth, planes[1], planes[2])
        encoder = ConvEncoder(planes, self.latent, channels, activation=activation)
        decoder = ConvDecoder(self.latent, outputs, channels[::-1], activation=activation)
        return nn.Sequential(nn.Unflatten(1, planes), encoder), nn.Sequential(decoder)

    @classmethod
    def for_data(
        cls,
        data: Described,
        *,
        latent: int | None = None,
        hidden: tuple[int, ...] = (256,),
        channels: tuple[int, ...] = (32, 64, 128),
        activation: str = "relu",
        architecture: str = "auto",
        pretraining: str = "none",
    ) -> "Autoencoder":
        """Return a model for any samples."""
        return cls(
            data.domain,
            latent,
            hidden,
            channels,
            activation,
            architecture=architecture,
            pretraining=pretraining,
        )

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean negative log-likelihood of the reconstruction, in nats a sample, shape ()."""
        return self._misfit(self.decoder(self.encode(batch.x)), batch.x)

    def stages(self) -> list[nn.Module]:
        """Return the layers as autoencoders to be learned in turn, each on the codes of the one before.

        They share their parameters with this model, so that nothing is left to join.
        """
        if self.pretraining == "none":
            return []
        first = self._stage(0, self._features, self._misfit)
        rest = [self._stage(i, _same, _half_squared_error) for i in range(1, self.depth + 1)]
        return [first, *rest]

    def _stage(self, index: int, read: "_Read", misfit: "_Misfit") -> nn.Module:
        """Return layer `index` of the encoder beside the layer of the decoder that mirrors it."""
        mirror = self.depth - index
        up, down = self.encoder[2 * index : 2 * index + 2], self.decoder[2 * mirror : 2 * mirror + 2]
        return _Stage(up, down, read, misfit)

    def encode(self, x: Tensor) -> Tensor:
        """Return the code: (n, *x) -> (n, latent)."""
        return self.encoder(self._features(x))

    def decode(self, z: Tensor) -> Tensor:
        """Return the best raw sample of a code: (n, latent) -> (n, *x)."""
        return self.likelihood.point(
            self._likelihood_parameters(self.decoder(checked_codes(z, self.latent).to(self.like)))
        )

    def reconstruct(self, x: Tensor) -> Tensor:
        """Return the samples as their codes keep them: (n, *x) -> (n, *x)."""
        return self.decode(self.encode(x))

    def _features(self, x: Tensor) -> Tensor:
        """Return what the encoder reads: (n, *x) -> (n, f)."""
        return self.domain.features(x, self.like)

    def _misfit(self, outputs: Tensor, x: Tensor) -> Tensor:
        """Return the mean negative log-likelihood of `x` under the decoder's outputs, shape ()."""
        return -self.likelihood.log_prob(self._likelihood_parameters(outputs), x.to(self.like.device)).mean()

    def _likelihood_parameters(self, outputs: Tensor) -> Tensor:
        """Return the likelihood's parameters, the scale of real columns fixed: outputs -> (n, P)."""
        if outputs.dim() == 4:
            return self.likelihood.from_planes(outputs)
        if not self.reals:
            return outputs
        centre, rest = outputs[:, : self.reals], outputs[:, self.reals :]
        # (n, r) -> (n, r, 2): location and a log-scale of zero side by side
        located = torch.stack([centre, torch.zeros_like(centre)], -1).flatten(1)
        return torch.cat([located, rest], -1)


_Read = Callable[[Tensor], Tensor]
_Misfit = Callable[[Tensor, Tensor], Tensor]


class _Stage(nn.Module):
    """An autoencoder of one layer.

    Args:
        up: The layer that encodes.
        down: The layer that decodes.
        read: What turns inputs into what `up` takes.
        misfit: The loss of what `down` gives, beside the inputs.
    """

    def __init__(self, up: nn.Module, down: nn.Module, read: _Read, misfit: _Misfit) -> None:
        super().__init__()
        self.up, self.down = up, down
        self.read, self.misfit = read, misfit

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean misfit of the reconstruction, shape ()."""
        return self.misfit(self.down(self.encode(batch.x)), batch.x)

    def encode(self, x: Tensor) -> Tensor:
        """Return the layer's outputs: (n, *x) -> (n, width)."""
        return self.up(self.read(x))


def _same(x: Tensor) -> Tensor:
    """Return codes as they are."""
    return x


def _half_squared_error(outputs: Tensor, codes: Tensor) -> Tensor:
    """Return half the squared error a row, shape ()."""
    return 0.5 * F.mse_loss(outputs, codes, reduction="sum") / max(codes.shape[0], 1)


def _real_columns(domain: Domain) -> int:
    """Return the number of real columns, which come first."""
    if isinstance(domain, Table):
        return domain.reals.dims
    return domain.dims if isinstance(domain, Vectors) else 0
