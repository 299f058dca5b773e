r"""Each pixel through its own histogram H of the training split to a unit normal.

    v = Phi^-1(C),        C = sum_{k < x} H(k) + e H(x),        log |dv / dx| = log H(x) - log phi(v)

so that under independent histograms the units are unit normals exactly, whatever walls and spikes the pixel
has, and a model that is N(0, I) has the likelihood of the histograms: learning adds what pixels say of
each other. Every level is counted once more than it was seen.

Symbols:
    n samples, D pixels x (n, D) and units v (n, D), e noise in [0, 1), q levels, H (D, q) histograms,
    Phi and phi the distribution and density of a unit normal.

Source:
    Chen and Gopinath (2000), Gaussianization, NIPS, section 3.
"""

import math

import torch
from torch import Tensor, nn

from leadline.core.errors import unknown_name

__all__ = ["PIXELS", "Marginals", "usual_pixels"]

PIXELS = ("gaussianised", "standard")
_COUNTED_AT_ONCE = 1000
_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
_FARTHEST = 1e4  # stands for infinity, of which a slope would be NaN
_LEAST = 1e-12  # least distance of C from 0 and 1: seven standard deviations


class Marginals(nn.Module):
    """The map of pixels to units and back, learned by one sweep over the samples.

    Args:
        count: Number D of pixels.
        levels: Number q of their levels; with 0 there are no histograms, and no map.
        pixels: "gaussianised", or "standard" for no histograms either.

    Raises:
        OptionError: If `pixels` is not one of `PIXELS`.

    Example:
        >>> marginals = Marginals(4, levels=3)
        >>> v = marginals.of_levels(torch.ones(2, 4))
        >>> marginals.levels_of(v).tolist()
        [[1, 1, 1, 1], [1, 1, 1, 1]]
    """

    converged = True  # one sweep is all
    enough = 20_000  # samples to count
    cumulative: Tensor | None

    def __init__(self, count: int, levels: int, pixels: str = "gaussianised") -> None:
        super().__init__()
        if pixels not in PIXELS:
            raise unknown_name("pixels", pixels, PIXELS)
        # for each pixel the number of samples below each level, one added to each: (D, q + 1)
        blank = torch.arange(levels + 1, dtype=torch.int32).repeat(count, 1)
        self.register_buffer("cumulative", blank if levels and pixels == "gaussianised" else None)
        self._ends: tuple[Tensor, int, Tensor] | None = None  # of which counts, at which change of them

    def make_room(self, shapes: dict[str, tuple[int, ...]]) -> None:
        """Have no histograms if none were saved, given shapes by name."""
        if "cumulative" not in shapes:
            self.cumulative = None

    def stages(self) -> list[nn.Module]:
        """Return what is to be learned before all else: itself, where there are histograms."""
        return [self] if self.gaussianised else []

    def sweep(self, x: Tensor) -> float:
        """Count the levels of each pixel, and return the mean log-likelihood of samples (n, *), in nats."""
        ladder = self._ladder
        D, q = ladder.shape[0], ladder.shape[1] - 1
        counts = torch.ones(D * q, dtype=torch.int64, device=x.device)
        first = torch.arange(D, device=x.device) * q
        for rows in x.flatten(1).split(_COUNTED_AT_ONCE):
            counts += torch.bincount((rows.long() + first).flatten(), minlength=D * q)
        held = counts.view(D, q)
        ladder[:, 1:] = held.cumsum(1).to(ladder)
        return float(((held - 1) * (held / held.sum(1, keepdim=True)).log()).sum()) / max(len(x), 1)

    def encode(self, x: Tensor) -> Tensor:
        """Return the samples as they are: what is learned above draws its own noise."""
        return x

    @property
    def gaussianised(self) -> bool:
        """Return whether there are histograms."""
        return self.cumulative is not None

    def of_levels(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return units of the middle of the cell, or of noise in it: (n, *) -> (n, D), float64."""
        below, mass = self._cell(x)
        place = 0.5 if noise is None else noise.flatten(1).to(mass)
        return torch.special.ndtri((below + place * mass).clamp(_LEAST, 1 - _LEAST))

    def log_slope(self, x: Tensor, v: Tensor) -> Tensor:
        """Return log |dv / dx| of the units v (n, D) of samples x (n, *), in nats: -> (n,)."""
        _, mass = self._cell(x)
        log_normal = -0.5 * v.double().square() - _HALF_LOG_2PI
        return (mass.log() - log_normal).sum(1).to(v)

    def levels_of(self, v: Tensor) -> Tensor:
        """Return the level in whose cell each unit lies: (n, D) -> (n, D), int64."""
        ladder = self._ladder
        place = torch.special.ndtr(v.double()).T.contiguous() * ladder[0, -1]  # (D, n)
        return torch.searchsorted(ladder[:, 1:-1].double().contiguous(), place, right=True).T

    def ends(self) -> Tensor:
        """Return the ends of the cells of each pixel, in units, the outer ones far away: (D, q + 1)."""
        ladder, held = self._ladder, self._ends
        if held is None or held[0] is not ladder or held[1] != ladder._version:
            found = torch.special.ndtri(ladder.double() / ladder[0, -1]).clamp(-_FARTHEST, _FARTHEST)
            self._ends = held = (ladder, ladder._version, found)
        return held[2]

    def ends_of(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return both ends of the cell of each level, as `ends` does: (n, *) -> two of (n, D), float64."""
        ends = self.ends()
        level = x.flatten(1).to(ends.device, torch.int64).T  # (D, n)
        return ends.gather(1, level).T, ends.gather(1, level + 1).T

    def column(self, pixel: int) -> "Marginals":
        """Return the map of one pixel, with the histogram of now."""
        held = self._ladder[pixel : pixel + 1]
        one = Marginals(1, held.shape[1] - 1).to(held.device)
        one.cumulative = held.clone()
        return one

    @property
    def _ladder(self) -> Tensor:
        """Return the cumulative counts.

        Raises:
            ValueError: If there are none.
        """
        if self.cumulative is None:
            raise ValueError("only gaussianised pixels have histograms to learn")
        return self.cumulative

    def _cell(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mass of the levels below x and of x itself: (n, *) -> (n, D), (n, D)."""
        ladder = self._ladder
        level = x.flatten(1).to(ladder.device, torch.int64).T  # (D, n)
        below, top = ladder.gather(1, level).T.double(), ladder.gather(1, level + 1).T.double()
        total = ladder[0, -1]
        return below / total, (top - below) / total


def usual_pixels(planes: tuple[int, int, int] | None) -> str:
    """Return what is done to pixels unless it is said: those of grey pictures are gaussianised.

    Levels of colour photographs have neither walls nor spikes, and their many histograms are noisy.

    Args:
        planes: Channels, height and width of a sample, or None if it is no picture.
    """
    return "gaussianised" if planes is not None and planes[0] == 1 else "standard"
