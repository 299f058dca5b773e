"""The domain of sound: waveforms of one sampling rate, each as long as it is.

Symbols:
    n clips, total samples of all clips together.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from leadline.core.domain import Domain, float_like
from leadline.core.errors import DomainError, OptionError, ShapeError
from leadline.core.likelihoods import Likelihood
from leadline.core.ragged import Ragged

__all__ = ["ENCODINGS", "Audio"]

ENCODINGS = ("int16", "float32")
_FULL = 32768.0
_RATES = (1, 1_000_000)


@dataclass(frozen=True)
class Audio(Domain):
    """Waveforms of one channel, raw x a `Ragged` of n rows, or a tensor (n, length) where all are as long.

    Args:
        rate: Samples a second.
        encoding: "int16", whose full scale is 32768, or "float32", whose full scale is 1.
    """

    rate: int
    encoding: str = "int16"
    kind: ClassVar[str] = "audio"
    heads: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        if not _RATES[0] <= self.rate <= _RATES[1]:
            raise OptionError(f"a sampling rate is from {_RATES[0]} to {_RATES[1]} a second, got {self.rate}")
        if self.encoding not in ENCODINGS:
            raise OptionError(f"encoding must be one of {', '.join(ENCODINGS)}, got {self.encoding!r}")

    def __str__(self) -> str:
        return f"Audio({self.rate} Hz, {self.encoding})"

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (-1,): one axis, whose length is that of each clip."""
        return (-1,)

    @property
    def dtype(self) -> torch.dtype:
        """Return int16 or float32."""
        return torch.int16 if self.encoding == "int16" else torch.float32

    @property
    def dims(self) -> int:
        """Refuse: a clip has as many dimensions as samples.

        Raises:
            DomainError: Always.
        """
        raise self._unsized()

    @property
    def feature_owners(self) -> Tensor:
        """Refuse: a clip has no fixed number of features.

        Raises:
            DomainError: Always.
        """
        raise self._unsized()

    def _unsized(self) -> DomainError:
        return DomainError(
            f"needs samples of one size, but those of {self} differ in length; "
            "use a model that takes Audio (acoustic_dnn, acoustic_gmm)"
        )

    def column(self, dim: int) -> "Audio":
        """Refuse: a place in one clip is not the same place in another.

        Raises:
            DomainError: Always.
        """
        raise self._unsized()

    def shrunken(self) -> "Audio":
        """Return the domain itself: no clip of sound can be listed or integrated over."""
        return self

    def _make_head(self, name: str) -> Likelihood:
        raise self._unsized()

    def likelihood(self, head: str | None = None) -> Likelihood:
        """Refuse: no head of the library is a likelihood of waveforms.

        Raises:
            DomainError: Always.
        """
        raise self._unsized()

    def _features(self, x: Tensor, like: Tensor) -> Tensor:
        raise self._unsized()

    def waves(self, x: Tensor, like: Tensor | None = None) -> Ragged:
        """Return clips on the scale of -1 to 1, with the type and device of `like`.

        Raises:
            ShapeError: If `x` is no batch of clips.
        """
        clips = Ragged.of(self.checked(x))
        target = float_like(clips.flat, like)
        flat = clips.flat.to(target.device, target.dtype)
        return clips.like(flat if clips.is_floating_point() else flat / _FULL)

    def checked(self, x: Tensor) -> Tensor:
        """Return `x` if it is a batch of clips.

        Raises:
            ShapeError: If it is not.
        """
        if not isinstance(x, Tensor):
            raise ShapeError(f"expected a tensor of samples, got {type(x).__name__}")
        if x.dim() != 2:
            raise ShapeError(
                f"{self} needs a Ragged of clips, or clips of shape (n, length), got {tuple(x.shape)}"
            )
        if not (x.dtype == torch.int16 or x.is_floating_point()):
            raise ShapeError(
                f"{self} needs int16 or floating samples, got {x.dtype} of shape {tuple(x.shape)}"
            )
        return x

    def validated(self, x: Tensor) -> Tensor:
        """Return `x` if every clip has samples, of the domain's type and finite.

        Raises:
            ShapeError: If one does not; the message names it.
        """
        clips = Ragged.of(self.checked(x))
        if clips.dtype != self.dtype:
            raise ShapeError(f"{self} holds {self.dtype} samples, got {clips.dtype}")
        if bool((clips.lengths == 0).any()):
            raise ShapeError(f"sample {int((clips.lengths == 0).int().argmax())}, holds no sound")
        bad = ~torch.isfinite(clips.flat)
        if bool(bad.any()):
            row = int(clips.owners[bad][0])
            raise ShapeError(f"sample {row}, holds a number that is not finite")
        return x

    def encoded(self, waves: Tensor) -> Tensor:
        """Return values on the scale of -1 to 1 as raw ones, the loudest cut off: (total,) -> (total,)."""
        if self.encoding == "float32":
            return waves.to(torch.float32)
        return (waves * _FULL).round().clamp(-_FULL, _FULL - 1).to(torch.int16)

    def noise(self, n: int, generator: torch.Generator) -> Ragged:
        """Return `n` clips of white noise, each of a fifth to half a second, for want of any data."""
        ends = (0.2 + 0.3 * torch.rand(n, generator=generator)) * self.rate
        offsets = torch.cat([torch.zeros(1), ends.ceil()]).cumsum(0).to(torch.int64)
        return Ragged(self.encoded(0.1 * torch.randn(int(offsets[-1]), generator=generator)), offsets)

    def show(self, sample: Tensor) -> str:
        """Return the length and the loudness of one clip."""
        wave = self.waves(sample[None]).flat
        peak, power = (float(wave.abs().max()), float(wave.square().mean())) if len(wave) else (0.0, 0.0)
        return f"{len(wave) / self.rate:.3f} s, peak {peak:.3f}, root mean square {power**0.5:.3f}"
