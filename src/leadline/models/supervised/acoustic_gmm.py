r"""Mixtures of Gaussians of frames of sound, one a class: what deep nets replaced in speech recognition.

    log p(v | k) = log sum_m w_km N(v; mu_km, diag(s_km^2))
    log p(k | clip) = mean_t log p(v_t | k) + log pi_k, normalised over k

Each sweep is one step of expectation maximisation of every class on the frames of its clips.
Frames overlap and are computed from more samples than they have numbers, so their likelihood is no density
of waveforms: the model predicts, and has no `log_prob`.

Symbols:
    n clips, F frames of all clips together, v (F, d) cepstra and their slopes, K classes, M components,
    w (K, M) weights, mu (K, M, d) means, s (K, M, d) deviations, pi (K,) shares of the classes.

Source:
    Reynolds and Rose (1995), Robust Text-Independent Speaker Identification Using Gaussian Mixture Speaker
    Models, IEEE TSAP 3(1), sections III and IV. EM: Dempster, Laird and Rubin (1977). As the baseline:
    Hinton et al. (2012), Deep Neural Networks for Acoustic Modeling in Speech Recognition, section II.

Departs from the source:
    The mean of the frames' log-likelihoods decides, not their sum: frames are far from independent, and the
    sum would make every posterior 0 or 1. The most likely class is nearly always the same.
    A component that explains nothing is left where it is.
"""

import math

import torch
from torch import Tensor, nn

from leadline.core import Audio, DataError, Described, Domain, Labels, OptionError, Ragged
from leadline.inference.gaussians import Gaussians, widened
from leadline.models.supervised.labelled import required_classes, required_labels
from leadline.nets.spectra import Frames

__all__ = ["AcousticGMM"]

_CLIPS = 256  # clips whose frames are made at a time
_ROWS = 1 << 13  # frames whose statistics are held at a time
_START_FRAMES = 10_000
_UNSEEN = 1e-6  # what a class without any clip counts


class AcousticGMM(nn.Module):
    """A classifier of clips of sound by a mixture of Gaussians a class.

    Verbs:
        predict, encode

    Args:
        domain: What one sample is: `Audio`.
        labels: What a label is: `Classes`.
        frames: What turns waveforms into frames; 13 cepstra with velocity and acceleration by default.
        components: Number M of Gaussians of a class, at least 1.
        floor: Least variance, as a part of that of all frames.

    Raises:
        DomainError: If samples are no sound or labels no classes.
        OptionError: If an option is out of range.

    Example:
        >>> from leadline.core import Classes
        >>> model = AcousticGMM(Audio(8000), Classes(("yes", "no")), components=2)
        >>> x = Ragged.of([torch.zeros(4000, dtype=torch.int16), torch.zeros(3000, dtype=torch.int16)])
        >>> model.predict(x).shape, model.encode(x).shape
        (torch.Size([2, 2]), torch.Size([2, 4]))
    """

    counts: Tensor
    centre: Tensor
    spread: Tensor

    def __init__(
        self,
        domain: Domain,
        labels: Labels,
        frames: Frames | None = None,
        components: int = 16,
        *,
        floor: float = 0.01,
    ) -> None:
        super().__init__()
        self.domain = domain.require(Audio)
        self.labels = required_classes(labels)
        if components < 1 or not (floor > 0 and math.isfinite(floor)):
            raise OptionError(f"components must be at least 1 and floor positive, got {components}, {floor}")
        self.frames = _cepstra(self.domain.rate) if frames is None else frames
        self.mixtures = nn.ModuleList(
            Gaussians(components, self.frames.width, "diagonal", floor) for _ in self.labels.names
        )
        self.register_buffer("counts", torch.zeros(self.labels.outputs))
        self.register_buffer("centre", torch.zeros(self.frames.width))
        self.register_buffer("spread", torch.ones(self.frames.width))

    @classmethod
    def for_data(
        cls,
        data: Described,
        *,
        components: int = 16,
        mels: int = 24,
        cepstra: int = 13,
        deltas: int = 2,
        normalisation: str = "mean",
        floor: float = 0.01,
    ) -> "AcousticGMM":
        """Return a model for clips of sound with classes.

        Args:
            data: What the clips and their classes are.
            components: Number of components of each class.
            mels: Number of mel bands of a frame.
            cepstra: Number of cepstra to take instead of the energies, at most mels; 0 for the energies.
            deltas: How often slopes over time are added: 0, 1 (velocity) or 2 (and acceleration).
            normalisation: "none", "mean", "utterance" or "learned"; see `nets.spectra.Frames`.
            floor: Least variance of a feature, as a share of its variance over all frames.

        Raises:
            DomainError: If samples are no sound, or there are no classes.
        """
        rate = data.domain.require(Audio).rate
        labels = required_labels(data)
        frames = Frames(rate, mels, cepstra=cepstra, deltas=deltas, normalisation=normalisation)
        return cls(data.domain, labels, frames, components, floor=floor)

    def sweep(self, x: Tensor, y: Tensor | None) -> float:
        """Take one EM step of every class; return the mean log-likelihood of a frame before it, in nats.

        The first sweep draws the starts from torch's global generator, and takes the unit of each feature
        from its deviation over all frames.

        Args:
            x: Clips (n, length_i).
            y: Class numbers (n,), -1 for unknown; those clips are left out.

        Raises:
            DataError: If no clip has a label.
        """
        if y is None or not bool((y >= 0).any()):
            raise DataError("acoustic_gmm learns from labels, but no clip has one")
        frames = self._raw(x)
        owner = y.to(frames.flat.device)[frames.owners]
        fresh = not bool(self.counts.any())
        if fresh:
            self.counts.copy_(torch.bincount(y[y >= 0], minlength=len(self.counts)))
            self.centre.copy_(frames.flat[owner >= 0].mean(0))
            self.spread.copy_(frames.flat[owner >= 0].std(0, correction=0).clamp(min=1e-6))
        total = 0.0
        for number, mixture in enumerate(self._mixtures()):
            mine = self._standard(frames.flat[owner == number])
            if not len(mine):
                continue
            if fresh:
                rows = torch.randperm(len(mine), device="cpu")[:_START_FRAMES].to(mine.device)
                mixture.begin(widened(mine[rows]))
            likelihood, moments = mixture.expect(
                mixture.statistics(widened(rows)) for rows in mine.split(_ROWS)
            )
            mixture.maximise(moments)
            total += likelihood
        return total / int((owner >= 0).sum())

    def predict(self, x: Tensor) -> Tensor:
        """Return class log-probabilities: (n, length_i) -> (n, K)."""
        joint = self._joint(x)
        each = joint.like(joint.flat.logsumexp(2)).mean()  # (n, K)
        shares = (widened(self.counts) + _UNSEEN).log()
        return (each + shares).log_softmax(1).to(self.centre.dtype)

    def encode(self, x: Tensor) -> Tensor:
        """Return how much each Gaussian of any class explains of the frames: (n, length_i) -> (n, K M)."""
        joint = self._joint(x)
        shares = (widened(self.counts) + _UNSEEN).log()
        flat = (joint.flat + shares[:, None]).flatten(1).softmax(1)
        return joint.like(flat).mean().to(self.centre.dtype)

    def _joint(self, x: Tensor) -> Ragged:
        """Return log w_km N(v; mu_km, s_km) of each frame, float64: (n, length_i) -> (n, F_i, K, M)."""
        frames, mixtures = self._raw(x), self._mixtures()
        statistics = mixtures[0].statistics(widened(self._standard(frames.flat)))  # (F, f)
        natural = torch.cat([mixture.natural() for mixture in mixtures], 1)  # (f, K M)
        return frames.like((statistics @ natural).unflatten(1, (len(mixtures), -1)))

    def _raw(self, x: Tensor) -> Ragged:
        """Return the frames of clips, some clips at a time: (n, length_i) -> (n, F_i, d)."""
        waves = self.domain.waves(x, self.centre)
        return torch.cat([self.frames(part) for part in waves.split(_CLIPS)])  # type: ignore[return-value]

    def _standard(self, frames: Tensor) -> Tensor:
        """Return features in units of their deviation over all frames: (F, d) -> (F, d)."""
        return (frames - self.centre) / self.spread

    def _mixtures(self) -> list[Gaussians]:
        return [mixture for mixture in self.mixtures if isinstance(mixture, Gaussians)]


def _cepstra(rate: int) -> Frames:
    return Frames(rate, cepstra=13, deltas=2, normalisation="mean")
