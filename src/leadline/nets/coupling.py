r"""Affine couplings, and the flows made of them: maps with an exact inverse and log-determinant.

    b' = b * exp(s(a)) + t(a),    a' = a,    log |det| = sum s(a)

Halves lie in tensors of their own, (a, b), so that nothing is masked and nothing is computed for the half
that stays. Couplings in a row change b, then a, then b, and so on.

Symbols:
    n samples, d dimensions, c channels, h height, w width, a and b halves, s log-scale, t shift.

Source:
    Dinh, Sohl-Dickstein and Bengio (2017), Density Estimation using Real NVP, ICLR, equations 7 and 8,
    sections 3.4 (masks), 3.6 (multi-scale) and 4.1 (the rescaled tanh).

Departs from the source:
    A checkerboard of pixels is a choice of channels once a picture is squeezed, so that both kinds of
    mask are halves of channels, and networks see half the height and width.
    No batch normalisation, which would make a row's density depend on its batch: a learned affine map of
    each coordinate at the end instead.
"""

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from leadline.core.errors import OptionError
from leadline.nets.dense import activation_layer, dense

__all__ = ["AffineCoupling", "Couplings", "DenseFlow", "PictureFlow", "conditioner"]

_START = 0.01
_CORNERS = ((0, 0), (1, 1), (0, 1), (1, 0))  # the first two are the white fields of the checkerboard
Halves = tuple[Tensor, Tensor]


class AffineCoupling(nn.Module):
    """Scale and shift one half by functions of the other.

    Args:
        net: Network of the half that stays: (n, ca, *) -> (n, 2 cb, *), raw log-scale and shift side by side.
        width: Number cb of channels (or dimensions) of the half that changes.
        spatial: Number of axes behind the channels.
    """

    def __init__(self, net: nn.Module, width: int, spatial: int = 0) -> None:
        super().__init__()
        self.net = net
        self.bound = nn.Parameter(torch.ones(width, *(1,) * spatial))

    def coefficients(self, a: Tensor) -> Halves:
        """Return log-scale, within +-`bound`, and shift: (n, ca, *) -> two of (n, cb, *)."""
        raw, shift = self.net(a).chunk(2, 1)
        return self.bound * raw.tanh(), shift

    def forward(self, a: Tensor, b: Tensor) -> Halves:
        """Return the changed half and the log-scale: (n, ca, *), (n, cb, *) -> two of (n, cb, *)."""
        log_scale, shift = self.coefficients(a)
        return torch.addcmul(shift, b, log_scale.exp()), log_scale

    def inverse(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the half before the change: (n, ca, *), (n, cb, *) -> (n, cb, *)."""
        log_scale, shift = self.coefficients(a)
        return (b - shift) * torch.exp(-log_scale)


class Couplings(nn.Module):
    """Couplings in a row that change b and a in turn.

    Args:
        widths: Channels (or dimensions) of the halves a and b, at least 1.
        count: Number of couplings.
        net: From channels in and out to a network.
        spatial: Number of axes behind the channels.
    """

    def __init__(
        self, widths: tuple[int, int], count: int, net: Callable[[int, int], nn.Module], spatial: int = 0
    ) -> None:
        super().__init__()
        # Coupling 0 changes half 1, coupling 1 half 0, and so on.
        self.steps = nn.ModuleList(
            AffineCoupling(net(widths[k % 2], 2 * widths[1 - k % 2]), widths[1 - k % 2], spatial)
            for k in range(count)
        )

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return both halves and the log-scale of each coupling, flattened to (n, -1)."""
        scales: list[Tensor] = []
        for step in self.steps:
            b, scale = step(a, b)
            scales.append(scale.flatten(1))
            a, b = b, a
        return (*_unswapped(a, b, len(self.steps)), scales)

    def inverse(self, a: Tensor, b: Tensor) -> Halves:
        """Return both halves before the couplings."""
        a, b = _unswapped(a, b, len(self.steps))
        for step in reversed(self.steps):
            a, b = b, a
            b = cast(AffineCoupling, step).inverse(a, b)
        return a, b


class _Diagonal(nn.Module):
    """A learned affine map of each coordinate: z = y exp(s) + t."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(dims))
        self.shift = nn.Parameter(torch.zeros(dims))

    def forward(self, y: Tensor) -> Tensor:
        return torch.addcmul(self.shift, y, self.log_scale.exp())

    def inverse(self, z: Tensor) -> Tensor:
        return (z - self.shift) * torch.exp(-self.log_scale)


class DenseFlow(nn.Module):
    """Couplings between two fixed sets of dimensions: (n, d) -> (n, d).

    Args:
        first: Whether each dimension belongs to the half a, (d,) bool.
        couplings: Number of couplings; there are none if a half is empty.
        hidden: Widths of the hidden layers of each network.
    """

    def __init__(self, first: Tensor, couplings: int, hidden: Sequence[int]) -> None:
        super().__init__()
        halves = (int(first.sum()), int((~first).sum()))
        self.index: Tensor
        self.register_buffer("index", torch.argsort(~first, stable=True), persistent=False)
        self.split = halves

        def net(inputs: int, outputs: int) -> nn.Module:
            layers = _near_zero(dense((inputs, *hidden, outputs)))
            for layer in layers:
                if isinstance(layer, nn.ReLU):
                    layer.inplace = True  # fresh memory costs as much as the products here
            return layers

        self.couplings = Couplings(halves, couplings if min(halves) else 0, net)
        self.diagonal = _Diagonal(len(first))

    def forward(self, u: Tensor) -> Halves:
        """Return codes, half a before half b, and log |det|: (n, d) -> (n, d), (n,)."""
        a, b, scales = self.couplings(*u.index_select(1, self.index).split(self.split, 1))
        z = self.diagonal(torch.cat([a, b], 1))
        return z, _total(scales, z) + self.diagonal.log_scale.sum()

    def inverse(self, z: Tensor) -> Tensor:
        """Return what `forward` maps to the codes: (n, d) -> (n, d)."""
        a, b = self.couplings.inverse(*self.diagonal.inverse(z).split(self.split, 1))
        return torch.cat([a, b], 1).index_select(1, self.index.argsort())


class PictureFlow(nn.Module):
    """Scales of squeezing, checkerboard couplings and channel couplings: (n, c, h, w) -> (n, c h w).

    Behind each scale but the last, half of the channels is finished and goes to the code.

    Args:
        planes: Channels, height and width; both sides divisible by 2 to the power of `scales`.
        scales: Number of scales, at least 1; as many as leave sides of at least four pixels if None.
        couplings: Number of couplings of a scale, half of them checkerboards.
        channels: Channels of the networks' hidden layers.
        blocks: Residual blocks of each network.

    Raises:
        OptionError: If a side cannot be halved that often.
    """

    def __init__(
        self,
        planes: tuple[int, int, int],
        scales: int | None = None,
        couplings: int = 8,
        channels: int = 32,
        blocks: int = 1,
    ) -> None:
        super().__init__()
        width, height, breadth = planes
        count = _possible_scales(height, breadth) if scales is None else scales
        if count < 1 or height % 2**count or breadth % 2**count:
            raise OptionError(
                f"pictures of {height}x{breadth} pixels cannot be halved {max(count, 1)} times; "
                'use fewer scales, or architecture="dense"'
            )
        self.planes = planes

        def net(inputs: int, outputs: int) -> nn.Module:
            return conditioner(inputs, outputs, channels, blocks)

        self.checkerboards, self.halves = nn.ModuleList(), nn.ModuleList()
        for _ in range(count):
            width *= 2  # a half of four corners
            self.checkerboards.append(Couplings((width, width), couplings - couplings // 2, net, 2))
            self.halves.append(Couplings((width, width), couplings // 2, net, 2))
        self.diagonal = _Diagonal(planes[0] * height * breadth)

    def forward(self, u: Tensor) -> Halves:
        """Return codes and log |det|: (n, c, h, w) -> (n, c h w), (n,)."""
        done: list[Tensor] = []
        scales: list[Tensor] = []
        for checkerboard, half in zip(self.checkerboards, self.halves, strict=True):
            a, b, some = checkerboard(*_squeezed(u))
            u, rest, more = half(*_crossed(a, b))
            scales += [*some, *more]
            done.append(rest.flatten(1))
        z = self.diagonal(torch.cat([*done, u.flatten(1)], 1))
        return z, _total(scales, z) + self.diagonal.log_scale.sum()

    def inverse(self, z: Tensor) -> Tensor:
        """Return what `forward` maps to the codes: (n, c h w) -> (n, c, h, w)."""
        c, h, w = self.planes
        count = len(self.halves)
        size = [c * h * w >> scale for scale in range(1, count + 1)]
        *done, u = self.diagonal.inverse(z).split([*size, size[-1]], 1)
        u = u.unflatten(1, (2**count * c, h >> count, w >> count))
        for scale in reversed(range(count)):
            a, b = cast(Couplings, self.halves[scale]).inverse(u, done[scale].view_as(u))
            u = _unsqueezed(*cast(Couplings, self.checkerboards[scale]).inverse(*_crossed(a, b)))
        return u


class _Residual(nn.Module):
    """x + conv(relu(conv(relu(x)))), channels and size unchanged."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            activation_layer("relu"),
            nn.Conv2d(channels, channels, 3, padding=1),
            activation_layer("relu"),
            nn.Conv2d(channels, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def conditioner(inputs: int, outputs: int, channels: int, blocks: int) -> nn.Module:
    """Return a small residual network that starts near zero: (n, inputs, h, w) -> (n, outputs, h, w)."""
    return _near_zero(
        nn.Sequential(
            nn.Conv2d(inputs, channels, 3, padding=1),
            *(_Residual(channels) for _ in range(blocks)),
            activation_layer("relu"),
            nn.Conv2d(channels, outputs, 3, padding=1),
        )
    )


def _near_zero(net: nn.Sequential) -> nn.Sequential:
    """Return `net` with the last layer near zero: its coupling starts close to the identity."""
    with torch.no_grad():
        for parameter in net[-1].parameters():
            parameter.mul_(_START)
    return net


def _unswapped(a: Tensor, b: Tensor, swaps: int) -> Halves:
    """Return the halves in their own order after they were swapped so often."""
    return (b, a) if swaps % 2 else (a, b)


def _total(scales: Sequence[Tensor], like: Tensor) -> Tensor:
    """Return the sum of all log-scales of each row: (n,)."""
    return torch.cat([*scales, like[:, :0]], 1).sum(1)


def _squeezed(u: Tensor) -> Halves:
    """Return white and black fields, two corners of each 2 x 2 block: (n, c, h, w) -> (n, 2 c, h/2, w/2)."""
    corners = [u[:, :, i::2, j::2] for i, j in _CORNERS]
    return torch.cat(corners[:2], 1), torch.cat(corners[2:], 1)


def _unsqueezed(a: Tensor, b: Tensor) -> Tensor:
    """Return the picture of white and black fields: two of (n, 2 c, h/2, w/2) -> (n, c, h, w)."""
    n, twice, h, w = a.shape
    u = a.new_empty(n, twice // 2, 2 * h, 2 * w)
    for (i, j), corner in zip(_CORNERS, [*a.chunk(2, 1), *b.chunk(2, 1)], strict=True):
        u[:, :, i::2, j::2] = corner
    return u


def _crossed(a: Tensor, b: Tensor) -> Halves:
    """Return halves that hold half of each: ((a1, a2), (b1, b2)) -> ((a1, b1), (a2, b2)); its own inverse."""
    (a1, a2), (b1, b2) = a.chunk(2, 1), b.chunk(2, 1)
    return torch.cat([a1, b1], 1), torch.cat([a2, b2], 1)


def _possible_scales(height: int, breadth: int) -> int:
    """Return how often both sides can be halved down to four pixels, at least once if they are even."""
    count = 0
    while height % 2 == 0 and breadth % 2 == 0 and (count == 0 or min(height, breadth) >= 8):
        height, breadth, count = height // 2, breadth // 2, count + 1
    return count
