r"""What nets for pictures have in common: raw levels in, a stem that fits, weights of a file, codes.

    net input  (x / (levels - 1) - mean) / std,    mean and std those of ImageNet, their averages for grey

Symbols:
    x (n, c, h, w) raw levels, n samples, d width of the code.

Source:
    Mean and standard deviation of ImageNet's colours as published with torchvision's weights.
"""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from leadline.core import Described, Domain, DomainError, Labels, OptionError
from leadline.core.errors import nearest, unknown_name
from leadline.models.supervised.labelled import Labelled, required_labels
from leadline.nets.vision.blocks import VisionNet, unit_start
from leadline.nets.vision.weights import load_file

__all__ = ["STEMS", "Ends", "Entrance", "VisionModel"]

STEMS = ("auto", "imagenet", "small")
COLOUR_MEAN, COLOUR_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TUNED = 10  # by this much smaller is the learning rate where weights are given
FEWER, USUAL = 32, 256  # batch of large pictures, where memory is short; that of the papers' rates for them
WARMUP = 100  # steps; without them a residual net of 50 layers is thrown to chance
LARGE, LEAST = 64, 4  # shorter sides: from which "auto" takes the stem for large pictures; of any picture


@dataclass(frozen=True)
class Entrance:
    """How pictures enter a net, and where its weights come from.

    Args:
        stem: "imagenet" for large pictures, "small" for small ones, "auto" by the sides: large from 64 on.
        repeated: Whether grey pictures are repeated to three channels; weights of a file need it.
        weights: A torch or safetensors file, or None for a fresh start.
    """

    stem: str = "auto"
    repeated: bool = False
    weights: str | None = None


@dataclass(frozen=True)
class Ends:
    """What a net has to join: channels of the pictures, number of outputs, whether the stem is small."""

    inputs: int
    outputs: int
    small: bool


class VisionModel(Labelled):
    """A classifier or regressor of pictures around a net of `leadline.nets.vision`.

    A model says in `for_data` which options it has and how its net follows from its ends; `around` does the
    rest. What it decided itself stands in `decided`, where its weights came from in `origin`.

    Args:
        domain: What one sample is: `Images`, or `Bits` of shape (channels, height, width).
        labels: What a label is: classes make a classifier, targets a regressor.
        make: From its ends to the net.
        entrance: How pictures enter.

    Attributes:
        rate: Learning rate that is recommended for a fresh start; on large pictures it shrinks with the
            batch, by 8 (Goyal et al., 2017, Accurate, Large Minibatch SGD, section 2.1).
        smallest: Shortest side that the stem for large pictures takes.
        mean: Mean of each colour that its published weights were trained with, levels in [0, 1].
        std: Standard deviation of each colour.

    Raises:
        DomainError: If samples are no pictures, or too small ones.
        OptionError: If a word is unknown.
        DataError: If the file of weights cannot be read or does not fit.
    """

    rate: ClassVar[float] = 0.1
    smallest: ClassVar[int] = VisionNet.smallest
    mean: ClassVar[tuple[float, float, float]] = COLOUR_MEAN
    std: ClassVar[tuple[float, float, float]] = COLOUR_STD
    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        domain: Domain,
        labels: Labels,
        make: Callable[[Ends], VisionNet],
        entrance: Entrance,
    ) -> None:
        super().__init__(domain, labels)
        channels, *sides = _planes(domain)
        small = _is_small(entrance.stem, min(sides), self.smallest)
        self.repeated = channels == 1 and (entrance.repeated or entrance.weights is not None)
        read = 3 if self.repeated else channels
        self.net = make(Ends(read, labels.outputs, small))
        self.decided = {"stem": "small" if small else "imagenet", "repeated": self.repeated, "weights": None}
        self.origin: dict[str, Any] = {}
        if entrance.weights is not None:
            self.origin = load_file(self.net, entrance.weights)
        elif not any(isinstance(layer, nn.BatchNorm2d) for layer in self.net.modules()):
            unit_start(self.net, (read, *sides))
        large = min(sides) >= LARGE
        rate = self.rate * FEWER / USUAL if large else self.rate
        self.recommended: dict[str, Any] = {
            "optimizer": "momentum",
            "lr": rate if entrance.weights is None else rate / TUNED,
            "schedule": "cosine",
            "batch_size": FEWER if large else 128,
            "precision": "auto",
            "channels_last": "auto",
        }
        mean, std = (torch.tensor(v if read == 3 else [sum(v) / 3] * read) for v in (self.mean, self.std))
        top = max(domain.cardinalities or (256,)) - 1
        self.register_buffer("scale", (1 / (std * top)).view(-1, 1, 1), persistent=False)
        self.register_buffer("shift", (-mean / std).view(-1, 1, 1), persistent=False)

    @classmethod
    @abstractmethod
    def for_data(cls, data: Described) -> Self:
        """Return a model for pictures with labels."""

    def began_slowly(self) -> Self:
        """Return the model itself, with the advice to raise the rate slowly, without weights."""
        if not self.origin:
            self.recommended["warmup"] = WARMUP
        return self

    @classmethod
    def around(cls, make: Callable[[Ends], VisionNet], data: Described, entrance: Entrance) -> Self:
        """Return a model for pictures with labels around the net that `make` gives.

        Raises:
            DomainError: If samples are no pictures or the data have no labels.
        """
        return cls(data.domain, required_labels(data), make, entrance)

    def normalised(self, x: Tensor) -> Tensor:
        """Return what the net reads: (n, c, h, w) raw levels -> (n, c or 3, h, w) floats."""
        levels = self.domain.checked(x).to(self.like.device, self.like.dtype)
        return torch.addcmul(self.shift, levels, self.scale)

    def scores(self, x: Tensor) -> Tensor:
        """Return the outputs of the last layer: (n, c, h, w) -> (n, outputs)."""
        return self.net(self.normalised(x))

    def encode(self, x: Tensor, layer: str | None = None) -> Tensor:
        """Return what the last layer reads, or what a named layer gives: (n, c, h, w) -> (n, d).

        Args:
            x: Raw pictures.
            layer: Name of a layer of the net, such as "layer3" or "features.5"; its maps are flattened.

        Raises:
            OptionError: If there is no such layer, or prediction does not use it.
        """
        inputs = self.normalised(x)
        return self.net.code(inputs) if layer is None else _given(self.net, layer, inputs)


def _given(net: VisionNet, layer: str, inputs: Tensor) -> Tensor:
    """Return what `layer` gives on the way of `inputs`, (n, d)."""
    names = [name for name, _ in net.named_modules() if name]
    if layer not in names:
        tops = ", ".join(name for name, _ in net.named_children())
        raise OptionError(f'no layer "{layer}"{nearest(layer, names)}; at the top are {tops}')
    seen: list[Tensor] = []

    def keep(_: nn.Module, __: Any, output: Tensor) -> None:
        seen.append(output.clone())  # what follows may work in place

    with net.get_submodule(layer).register_forward_hook(keep):
        net(inputs)
    if not seen:
        raise OptionError(f'layer "{layer}" takes no part in prediction')
    return seen[-1].flatten(1)


def _planes(domain: Domain) -> tuple[int, int, int]:
    """Return channels, height and width of the samples.

    Raises:
        DomainError: If they are no pictures, or smaller than any stem takes.
    """
    if domain.planes is None:
        raise DomainError(
            f"needs Images, or Bits of shape (channels, height, width), but the data are {domain}; use mlp"
        )
    if min(domain.planes[1:]) < LEAST:
        raise DomainError(
            f"needs Images with sides of at least {LEAST} pixels, the data are {domain}; use convnet"
        )
    return domain.planes


def _is_small(stem: str, side: int, smallest: int) -> bool:
    """Return whether the stem is that for small pictures.

    Raises:
        OptionError: If the word is unknown.
        DomainError: If the pictures are too small for the stem that was asked for.
    """
    if stem not in STEMS:
        raise unknown_name("stem", stem, STEMS)
    if stem == "imagenet" and side < smallest:
        raise DomainError(
            f'stem "imagenet" of this net needs Images with sides of at least {smallest} pixels, these have '
            f"{side}; use stem=small, or load larger pictures (--data size={smallest})"
        )
    return stem == "small" or (stem == "auto" and side < LARGE)
