r"""From waveforms to frames of log-mel energies, and what is made of frames: cepstra, slopes, windows.

A clip is cut into frames of L samples every H samples; with w a Hamming window and B_mk triangles that are
even on the mel scale, as wide as to the centres of their neighbours,

    P_k = |sum_t w_t x_t exp(-2 pi i k t / N)|^2,      e_m = log(sum_k B_mk P_k + floor).

Frames of all clips of a batch lie one after another, so no clip is ever padded to the length of another,
and what a clip gives does not depend on its company.

Symbols:
    n clips, F frames of all clips together, L samples of a frame, H samples between two frames,
    N points of the transform, M mel bands, C cepstra, d features of a frame.

Source:
    Mel scale 2595 log10(1 + f / 700): O'Shaughnessy (1987), Speech Communication, page 150.
    Filter bank, cepstra and slopes: Davis and Mermelstein (1980); Furui (1986); Young et al., The HTK Book,
    sections 5.4, 5.6 and 5.9.

Departs from the source:
    No pre-emphasis; the mean of each frame is removed. Triangles are not scaled by their width. The floor,
    the power that rounding to 16 bits leaves in a band, is added before the logarithm, so that silence is
    one value and not minus infinity. Cepstra are the orthonormal cosine transform, without liftering.
"""

import math

import torch
from torch import Tensor, nn

from leadline.core.errors import OptionError
from leadline.core.ragged import Ragged
from leadline.nets.dense import BatchNorm

__all__ = ["Frames", "LogMel", "hertz", "mel", "slopes", "triangles", "windows"]

NORMALISATIONS = ("none", "mean", "utterance", "learned")
_FLOOR = 1e-8
_REACH = 2  # frames on each side of which a slope is taken
_WIDEST = 1  # doublings of the transform after which bands are too many


def mel(hertz_: Tensor) -> Tensor:
    """Return pitches in mel of frequencies in hertz."""
    return 2595 * torch.log10(1 + hertz_ / 700)


def hertz(mel_: Tensor) -> Tensor:
    """Return frequencies in hertz of pitches in mel."""
    return 700 * (10 ** (mel_ / 2595) - 1)


def triangles(bands: int, points: int, rate: int, low: float = 20.0, high: float | None = None) -> Tensor:
    """Return the weight of each frequency in each band: (points // 2 + 1, bands), float64.

    Args:
        bands: Number M of bands.
        points: Number N of points of the transform.
        rate: Samples a second.
        low: Frequency in hertz at which the first triangle begins.
        high: Frequency at which the last one ends; half the rate by default.
    """
    ends = mel(torch.tensor([low, rate / 2 if high is None else high], dtype=torch.float64))
    edges = hertz(torch.linspace(float(ends[0]), float(ends[1]), bands + 2, dtype=torch.float64))
    at = torch.arange(points // 2 + 1, dtype=torch.float64)[:, None] * rate / points  # (points // 2 + 1, 1)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    rise, fall = (at - left) / (centre - left), (right - at) / (right - centre)
    return torch.minimum(rise, fall).clamp(min=0)


class LogMel(nn.Module):
    """Log-mel energies of every frame.

    Args:
        rate: Samples a second of the waveforms.
        mels: Number M of bands.
        frame: Seconds of a frame.
        hop: Seconds between the beginnings of two frames.

    Raises:
        OptionError: If there are too many bands for the rate, or a frame has no sample.
    """

    window: Tensor
    filters: Tensor

    def __init__(self, rate: int, mels: int = 24, frame: float = 0.025, hop: float = 0.010) -> None:
        super().__init__()
        self.length, self.hop = round(rate * frame), round(rate * hop)
        if self.length < 2 or self.hop < 1:
            raise OptionError(f"a frame of {frame} s every {hop} s has no samples at {rate} a second")
        if mels < 1:
            raise OptionError(f"mels must be at least 1, got {mels}")
        self.points = 1 << (self.length - 1).bit_length()
        filters = triangles(mels, self.points, rate)
        for _ in range(_WIDEST):
            if bool((filters.sum(0) > 0).all()):
                break
            self.points *= 2
            filters = triangles(mels, self.points, rate)
        if not bool((filters.sum(0) > 0).all()):
            raise OptionError(f"mels={mels} are too many bands for {rate} samples a second; give fewer")
        turn = 2 * math.pi * torch.arange(self.length, dtype=torch.float64) / (self.length - 1)
        self.register_buffer("window", (0.54 - 0.46 * torch.cos(turn)).float(), persistent=False)
        self.register_buffer("filters", filters.float(), persistent=False)

    def forward(self, waves: Ragged) -> Ragged:
        """Return the energies: clips (length_i,) on the scale of -1 to 1 -> frames (F_i, M).

        A clip gives 1 + (length - L) // H frames; one shorter than a frame is filled up with zeros to one.
        """
        clips = waves.lengthened(self.length)
        counts = 1 + (clips.lengths - self.length) // self.hop
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
        if not len(clips):
            return Ragged(self.filters.new_zeros(0, self.filters.shape[1]), offsets)
        flat = clips.flat if clips.dtype == torch.float64 else clips.flat.float()
        with torch.autocast(flat.device.type, enabled=False):
            frames = flat.unfold(0, self.length, 1)[self._starts(clips, offsets, flat.device)]  # (F, L)
            frames = (frames - frames.mean(1, keepdim=True)) * self.window.to(flat)
            power = torch.fft.rfft(frames, self.points).abs().square()  # (F, N / 2 + 1)
            energies = (power @ self.filters.to(flat) + _FLOOR).log()
        return Ragged(energies.to(self.filters.dtype), offsets)

    def _starts(self, clips: Ragged, offsets: Tensor, device: torch.device) -> Tensor:
        """Return the place in `clips.flat` at which each frame begins, (F,)."""
        counts = offsets.diff()
        within = torch.arange(int(offsets[-1])) - offsets[:-1].repeat_interleave(counts)
        return (clips.offsets[:-1].repeat_interleave(counts) + self.hop * within).to(device)


class Frames(nn.Module):
    """What a model of speech reads: log-mel energies or cepstra, with slopes, normalised, with neighbours.

    Args:
        rate: Samples a second of the waveforms.
        mels: Number M of bands.
        cepstra: Number C of cepstra to take instead of the energies, at most M; 0 for the energies.
        deltas: How often slopes over time are added: 0, 1 (velocity) or 2 (and acceleration).
        context: Frames on each side that stand beside each frame.
        normalisation: "none"; "mean", each feature less its mean over the clip; "utterance", that over its
            deviation in the clip; "learned", that over its deviation in what was seen while training.

    Raises:
        OptionError: If an option is unknown or out of range.
    """

    cosines: Tensor

    def __init__(
        self,
        rate: int,
        mels: int = 24,
        *,
        cepstra: int = 0,
        deltas: int = 0,
        context: int = 0,
        normalisation: str = "utterance",
    ) -> None:
        super().__init__()
        if not 0 <= cepstra <= mels:
            raise OptionError(f"cepstra must be from 0 to mels={mels}, got {cepstra}")
        if deltas not in (0, 1, 2) or context < 0:
            raise OptionError(f"deltas must be 0, 1 or 2 and context at least 0, got {deltas} and {context}")
        if normalisation not in NORMALISATIONS:
            raise OptionError(
                f"normalisation must be one of {', '.join(NORMALISATIONS)}, got {normalisation!r}"
            )
        self.energies = LogMel(rate, mels)
        self.deltas, self.context, self.normalisation = deltas, context, normalisation
        self.register_buffer("cosines", _cosines(mels, cepstra), persistent=False)
        self.each = (cepstra or mels) * (1 + deltas)
        self.unit = BatchNorm(self.each, affine=False) if normalisation == "learned" else nn.Identity()
        self.width = self.each * (1 + 2 * context)

    def forward(self, waves: Ragged) -> Ragged:
        """Return the features: clips (length_i,) on the scale of -1 to 1 -> frames (F_i, d)."""
        frames = self.energies(waves)
        if self.cosines.numel():
            frames = frames.like(frames.flat @ self.cosines)
        parts = [frames]
        for _ in range(self.deltas):
            parts.append(slopes(parts[-1]))
        frames = frames.like(torch.cat([part.flat for part in parts], 1)) if self.deltas else frames
        return windows(self._normalised(frames), self.context)

    def _normalised(self, frames: Ragged) -> Ragged:
        """Return features less their mean over the clip, and over a deviation if asked for."""
        if self.normalisation == "none":
            return frames
        owners = frames.owners
        centred = frames.flat - frames.mean()[owners]
        if self.normalisation != "utterance":
            return frames.like(self.unit(centred) if len(centred) else centred)
        # one frame, or silence throughout, has no deviation: what is zero stays zero
        spread = frames.like(centred.square()).mean().sqrt().clamp(min=1e-2)
        return frames.like(centred / spread[owners])


def slopes(frames: Ragged) -> Ragged:
    """Return the slope of each feature over time, by least squares over five frames: (F_i, d) -> (F_i, d).

    The first and the last frame of a clip stand for those beyond its ends.
    """
    near = _neighbours(frames, _REACH)  # (F, 5)
    total = torch.zeros_like(frames.flat)
    for step in range(1, _REACH + 1):
        ahead, behind = near[:, _REACH + step], near[:, _REACH - step]
        total = total + step * (frames.flat[ahead] - frames.flat[behind])
    return frames.like(total / (2 * sum(step * step for step in range(1, _REACH + 1))))


def windows(frames: Ragged, context: int) -> Ragged:
    """Return each frame between its `context` neighbours on each side: (F_i, d) -> (F_i, (2 context + 1) d).

    The first and the last frame of a clip stand for those beyond its ends.
    """
    return frames.like(frames.flat[_neighbours(frames, context)].flatten(1)) if context else frames


def _neighbours(frames: Ragged, reach: int) -> Tensor:
    """Return the numbers of the frames around each frame, none beyond its own clip: (F, 2 reach + 1)."""
    device, owners = frames.flat.device, frames.owners
    first, last = frames.offsets[:-1].to(device)[owners], frames.offsets[1:].to(device)[owners] - 1
    near = torch.arange(len(owners), device=device)[:, None] + torch.arange(-reach, reach + 1, device=device)
    return near.clamp(first[:, None], last[:, None])


def _cosines(mels: int, cepstra: int) -> Tensor:
    """Return the first `cepstra` columns of the orthonormal cosine transform: (mels, cepstra)."""
    at = (torch.arange(mels, dtype=torch.float64)[:, None] + 0.5) * math.pi / mels
    waves = torch.cos(at * torch.arange(cepstra, dtype=torch.float64)) * math.sqrt(2 / mels)
    waves[:, :1] /= math.sqrt(2)
    return waves.float()
