r"""Acoustic deep neural network: a classifier of frames of sound, which votes on the whole clip.

Each frame, between its neighbours, goes through layers of logistic units:

    h_0 = v_t,  h_i = sigmoid(W_i h_{i-1} + b_i),  log p(k | v_t) = log softmax(W h_L + b)_k
    log p(k | clip) = mean_t log p(k | v_t), normalised over k

With pre-training each layer is first learned as a restricted Boltzmann machine on what the layers below make
of the frames: Gaussian visible units below, binary ones above. Its weights and hidden biases are where the
layer starts from.

Symbols:
    n clips, F frames of all clips together, v (F, d) a frame with its neighbours,
    h_i (F, hidden[i - 1]) units, K classes.

Source:
    Hinton et al. (2012), Deep Neural Networks for Acoustic Modeling in Speech Recognition, IEEE Signal
    Processing Magazine 29(6); Dahl, Yu, Deng and Acero (2012), Context-Dependent Pre-Trained Deep Neural
    Networks for Large-Vocabulary Speech Recognition, IEEE TASLP 20(1), section III.

Departs from the source:
    A frame is labelled by the class of its clip, not by the state of a hidden Markov model, so no alignment
    is needed, and the clip's class is decided by the mean of the frames instead of by a search. Each clip
    weighs alike in the loss, however long. Without pre-training layers start at the scale that Glorot and
    Bengio (2010), Understanding the difficulty of training deep feedforward neural networks, give for
    logistic units.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from leadline.core import (
    Audio,
    Batch,
    DataError,
    Described,
    Domain,
    Labels,
    OptionError,
    Ragged,
)
from leadline.core.errors import unknown_name
from leadline.models.supervised.labelled import required_classes, required_labels
from leadline.nets.boltzmann import BernoulliLayer, BoltzmannLayer, GaussianLayer
from leadline.nets.spectra import Frames

__all__ = ["AcousticDNN"]

_PRETRAININGS = ("none", "rbm")


class AcousticDNN(nn.Module):
    """A classifier of clips of sound by its frames.

    Verbs:
        predict, encode

    Args:
        domain: What one sample is: `Audio`.
        labels: What a label is: `Classes`.
        frames: What turns waveforms into frames; 24 log-mel energies with slopes, between 5
            neighbours on each side, by default.
        hidden: Width of each hidden layer, at least one.
        pretraining: "none", or "rbm": layers are learned as restricted Boltzmann machines first.

    Raises:
        DomainError: If samples are no sound or labels no classes.
        OptionError: If an option is out of range.

    Example:
        >>> from leadline.core import Classes
        >>> model = AcousticDNN(Audio(8000), Classes(("yes", "no")), hidden=(16,))
        >>> x = Ragged.of([torch.zeros(4000, dtype=torch.int16), torch.zeros(3000, dtype=torch.int16)])
        >>> model.predict(x).shape, model.encode(x).shape
        (torch.Size([2, 2]), torch.Size([2, 16]))
    """

    recommended: ClassVar[dict[str, Any]] = {"batch_size": 32, "lr": 3e-3, "epochs": 20}
    like: Tensor

    def __init__(
        self,
        domain: Domain,
        labels: Labels,
        frames: Frames | None = None,
        hidden: tuple[int, ...] = (256, 256, 256),
        *,
        pretraining: str = "none",
    ) -> None:
        super().__init__()
        self.domain = domain.require(Audio)
        self.labels = required_classes(labels)
        if not hidden:
            raise OptionError("hidden must name at least one layer")
        if pretraining not in _PRETRAININGS:
            raise unknown_name("pretraining", pretraining, _PRETRAININGS)
        self.frames = _frames(self.domain.rate) if frames is None else frames
        self.pretraining = pretraining
        machines: list[type[BoltzmannLayer]] = [GaussianLayer, *[BernoulliLayer] * (len(hidden) - 1)]
        kinds = machines if pretraining == "rbm" else [None] * len(hidden)
        sizes = pairwise((self.frames.width, *hidden))
        self.units = nn.Sequential(*(_Units(*size, kind) for size, kind in zip(sizes, kinds, strict=True)))
        self.head = nn.Linear(hidden[-1], self.labels.outputs)
        self.register_buffer("like", torch.empty(0), persistent=False)

    @classmethod
    def for_data(
        cls,
        data: Described,
        *,
        hidden: tuple[int, ...] = (256, 256, 256),
        mels: int = 24,
        context: int = 5,
        deltas: int = 2,
        normalisation: str = "learned",
        pretraining: str = "none",
    ) -> "AcousticDNN":
        """Return a model for clips of sound with classes.

        Args:
            data: What the clips and their classes are.
            hidden: Units of each hidden layer.
            mels: Number of mel bands of a frame.
            context: Frames on each side that stand beside each frame.
            deltas: How often slopes over time are added: 0, 1 (velocity) or 2 (and acceleration).
            normalisation: "none", "mean", "utterance" or "learned"; see `nets.spectra.Frames`.
            pretraining: "none", or "rbm" to begin from a stack of Boltzmann machines.

        Raises:
            DomainError: If samples are no sound, or there are no classes.
        """
        rate = data.domain.require(Audio).rate
        labels = required_labels(data)
        frames = Frames(rate, mels, deltas=deltas, context=context, normalisation=normalisation)
        return cls(data.domain, labels, frames, hidden, pretraining=pretraining)

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean cross-entropy of the frames of a clip, averaged over the clips, in nats, shape ().

        Raises:
            DataError: If the batch has no labels.
        """
        if batch.y is None:
            raise DataError("AcousticDNN learns from labels, but this batch has none")
        scores = self._scores(batch.x)
        each = F.cross_entropy(
            scores.flat, batch.y[scores.owners], ignore_index=-1, reduction="none",
            label_smoothing=batch.label_smoothing,
        )  # fmt: skip
        return scores.like(each).mean().sum() / self.labels.known(batch.y).sum().clamp(min=1)

    def stages(self) -> list[nn.Module]:
        """Return the layers as machines to be learned in turn, each on the units of the one below.

        They share their numbers with this model, so that nothing is left to join.
        """
        if self.pretraining == "none":
            return []
        machines = [layer.machine() for layer in self.units if isinstance(layer, _Units)]
        first = _Stage(self._frames, machines[0], self.frames)
        return [first, *(_Stage(Ragged.of, machine) for machine in machines[1:])]

    def predict(self, x: Tensor) -> Tensor:
        """Return class log-probabilities by the mean of those of the frames: (n, length_i) -> (n, K)."""
        scores = self._scores(x)
        return scores.like(self.labels.predict(scores.flat)).mean().log_softmax(1)

    def encode(self, x: Tensor) -> Tensor:
        """Return the mean of the last hidden layer over the frames: (n, length_i) -> (n, hidden[-1])."""
        frames = self._frames(x)
        return frames.like(self.units(frames.flat)).mean()

    def _scores(self, x: Tensor) -> Ragged:
        """Return the unnormalised scores of each frame: (n, length_i) -> (n, F_i, K)."""
        frames = self._frames(x)
        return frames.like(self.head(self.units(frames.flat)))

    def _frames(self, x: Tensor) -> Ragged:
        """Return frames with their neighbours: (n, length_i) -> (n, F_i, d)."""
        found: Ragged = self.frames(self.domain.waves(x, self.like))
        return found


class _Units(nn.Module):
    """A layer of logistic units, which may be learned as a machine first.

    Without one it starts where units neither saturate nor fall asleep (Glorot and Bengio 2010).

    Args:
        inputs: Width of the layer below.
        outputs: Number of units.
        kind: The machine that it is learned as, or None.
    """

    def __init__(self, inputs: int, outputs: int, kind: type[BoltzmannLayer] | None) -> None:
        super().__init__()
        self.kind = kind
        if kind is None:
            self.weights = nn.Parameter(nn.init.xavier_uniform_(torch.empty(inputs, outputs), gain=4))
            self.biases = nn.Parameter(torch.zeros(outputs))
            return
        start = kind(inputs, outputs)
        self.weights, self.biases = start.weights, start.hidden_bias
        self.register_buffer("visible_bias", start.visible_bias.detach().clone())

    def forward(self, v: Tensor) -> Tensor:
        """Return the units of each frame: (F, inputs) -> (F, outputs)."""
        return torch.addmm(self.biases, v, self.weights).sigmoid()

    def machine(self) -> BoltzmannLayer:
        """Return the machine whose numbers are those of this layer; global randomness is left alone."""
        if self.kind is None:
            raise OptionError("a layer without a machine is not learned as one")
        with torch.random.fork_rng(devices=[]):
            made = self.kind(*self.weights.shape)
        made.weights, made.hidden_bias = nn.Parameter(self.weights.data), nn.Parameter(self.biases.data)
        made.visible_bias = nn.Parameter(self.get_buffer("visible_bias"))
        return made


class _Stage(nn.Module):
    """A hidden layer as a restricted Boltzmann machine.

    Args:
        read: What turns samples, or the units of the layer below, into visible units.
        machine: The machine.
        within: The part of `read` that behaves otherwise in training, or None.
    """

    def __init__(
        self, read: Callable[[Tensor], Ragged], machine: BoltzmannLayer, within: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.read, self.machine, self.within = read, machine, within

    def loss(self, batch: Batch) -> Tensor:
        """Return the contrast of CD-1 on the frames, or in evaluation a figure of fit, shape ()."""
        v = self.read(batch.x).flat
        with torch.autocast(v.device.type, enabled=False):  # small differences of large energies
            return self.machine.contrast(v) if self.training else self.machine.misfit(v)

    def encode(self, x: Tensor) -> Tensor:
        """Return the probability of each hidden unit in each frame: (n, F_i, d) -> (n, F_i, width)."""
        rows = self.read(x)
        return rows.like(self.machine.hidden(rows.flat))


def _frames(rate: int) -> Frames:
    return Frames(rate, deltas=2, context=5, normalisation="learned")
