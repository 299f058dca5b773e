r"""The residual block, and the ways around it.

    y = relu(F(x) + S(x)),    F two convolutions of 3 x 3, or three of 1 x 1, 3 x 3 and 1 x 1

    S   A: identity; zeros in place of channels that are missing, every second pixel at a stride
        B: identity where the shape stays, else a projection (1 x 1, normalised)
        C: a projection around every block
        none: no way around; a plain net

Symbols:
    n samples, c channels, h height, w width, F branch, S shortcut.

Source:
    He, Zhang, Ren and Sun (2016), Deep Residual Learning for Image Recognition, CVPR, equations 1 and 2,
    section 3.3 (shortcuts) and figure 5 (both blocks).
"""

from torch import Tensor, nn
from torch.nn import functional as F

from leadline.core.errors import unknown_name
from leadline.nets.vision.blocks import conv_norm

__all__ = ["SHORTCUTS", "ResidualBlock"]

SHORTCUTS = ("A", "B", "C", "none")
EXPANSION = 4  # channels behind a bottleneck, in widths


class ResidualBlock(nn.Module):
    """A block with a shortcut around it: (n, inputs, h, w) -> (n, outputs, h / stride, w / stride).

    Args:
        inputs: Channels of the input.
        width: Channels inside; `outputs` is as many, or four times as many behind a bottleneck.
        stride: Step of the block.
        bottleneck: Whether the branch is 1 x 1, 3 x 3, 1 x 1 instead of two 3 x 3.
        shortcut: One of `SHORTCUTS`.
        early: Whether a bottleneck's stride is on its first convolution instead of its second.

    Raises:
        OptionError: If the shortcut is unknown.
    """

    def __init__(
        self,
        inputs: int,
        width: int,
        stride: int = 1,
        *,
        bottleneck: bool = False,
        shortcut: str = "B",
        early: bool = False,
    ) -> None:
        super().__init__()
        if shortcut not in SHORTCUTS:
            raise unknown_name("shortcut", shortcut, SHORTCUTS)
        self.outputs = width * EXPANSION if bottleneck else width
        first, second = (stride, 1) if early or not bottleneck else (1, stride)
        if bottleneck:
            plan = [(1, width, first), (3, width, second), (1, self.outputs, 1)]
        else:
            plan = [(3, width, first), (3, width, second)]
        self.depth = len(plan)
        self.plain = shortcut == "none"
        before = inputs
        for place, (kernel, after, step) in enumerate(plan, 1):
            conv, norm = conv_norm(before, after, kernel, stride=step)
            self.add_module(f"conv{place}", conv)
            self.add_module(f"bn{place}", norm)
            before = after
        self.downsample = _shortcut(shortcut, inputs, self.outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return relu(F(x) + S(x)): (n, inputs, h, w) -> (n, outputs, h / stride, w / stride)."""
        branch = x
        for place in range(1, self.depth + 1):
            branch = self._modules[f"bn{place}"](self._modules[f"conv{place}"](branch))  # type: ignore[misc]
            if place < self.depth:
                branch = F.relu_(branch)
        if not self.plain:
            # In place: the memory of the branch's last normalisation, which no gradient needs
            branch += x if self.downsample is None else self.downsample(x)
        return F.relu_(branch)


class _Subsampled(nn.Module):
    """Shortcut A where the shape changes; no parameters."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.channels = channels
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Return every `stride`-th pixel, missing channels zero: (n, c, h, w) -> (n, channels, ...)."""
        missing = self.channels - x.shape[1]
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, missing))


def _shortcut(kind: str, inputs: int, outputs: int, stride: int) -> nn.Module | None:
    """Return what stands in the way around a block; None for the identity, or for no way around."""
    changes = stride != 1 or inputs != outputs
    if kind == "C" or (kind == "B" and changes):
        return nn.Sequential(*conv_norm(inputs, outputs, 1, stride=stride))
    return _Subsampled(outputs, stride) if kind == "A" and changes else None
