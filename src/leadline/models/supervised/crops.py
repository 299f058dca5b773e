r"""Crops: any model's prediction averaged over parts of a picture and their mirror images.

    classes:  log p(k | x) = log 1/V sum_v p(k | view_v(x))
    targets:  E[t | x] = 1/V sum_v E[t | view_v(x)]

One crop is the centre; five are the four corners and the centre; ten are those five and their mirror images.

Symbols:
    x (n, c, h, w) raw pictures, V views.

Source:
    Krizhevsky, Sutskever and Hinton (2012), ImageNet Classification with Deep Convolutional Neural
    Networks, section 4.1 (ten crops of 224 pixels out of 256).

Departs from the source:
    A net that knows its size reads crops of that size. Where pictures are no larger than that, crops of seven
    eighths of the sides (224 of 256) are brought back to it by bilinear interpolation, in raw levels.
"""

from math import log

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from leadline.core import OptionError, ShapeError, Targets, require_verb

__all__ = ["Crops"]

_COUNTS = (1, 5, 10)
_PART = 7 / 8


class Crops(nn.Module):
    """Predicts by the mean over crops of a picture.

    Verbs:
        predict

    Args:
        model: A model of pictures that predicts; without labels of its own it gives log-probabilities.
        crops: 1, 5 or 10.
        flip: Take the mirror image of each crop as well; ten crops have them already.
        size: Height and width of a crop, or one number for both; by default the size that the model reads,
            or seven eighths of it where pictures are no larger and there are several crops.

    Raises:
        OptionError: If `crops` or `size` is out of range.
        VerbError: If the model cannot predict.

    Example:
        >>> from leadline.core import Classes, Images
        >>> from leadline.models.supervised.linear import Linear
        >>> model = Crops(Linear(Images(1, 8, 8), Classes(("a", "b"))), crops=10)
        >>> model.predict(torch.zeros(5, 1, 8, 8, dtype=torch.uint8)).shape
        torch.Size([5, 2])
        >>> model.predict(torch.zeros(5, 1, 12, 9, dtype=torch.uint8)).shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        model: nn.Module,
        crops: int = 10,
        *,
        flip: bool = False,
        size: int | tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        require_verb(model, "predict")
        if crops not in _COUNTS:
            raise OptionError(f"crops must be 1, 5 or 10, got {crops!r}")
        sides = (size, size) if isinstance(size, int) else size
        if sides is not None and not (len(sides) == 2 and all(isinstance(s, int) and s >= 1 for s in sides)):
            raise OptionError(f"size of a crop must be one or two whole numbers of at least 1, got {size!r}")
        self.model = model
        self.crops = crops
        self.flip = flip or crops == 10
        self.size = sides
        self.domain = getattr(model, "domain", None)
        self.labels = getattr(model, "labels", None)

    def predict(self, x: Tensor) -> Tensor:
        """Return the mean over all views: pictures (n, c, h, w) -> (n, outputs).

        Raises:
            ShapeError: If samples are no pictures, or smaller than a crop.
        """
        mean, views = isinstance(self.labels, Targets), self.views(x)
        join = torch.add if mean else torch.logaddexp
        total: Tensor = self.model.predict(views[0])  # type: ignore[operator]
        for view in views[1:]:
            total = join(total, self.model.predict(view))  # type: ignore[operator]
        return total / len(views) if mean else total - log(len(views))

    def views(self, x: Tensor) -> list[Tensor]:
        """Return what the model is shown: the crops in order, then their mirror images; (n, c, h, w) each.

        Raises:
            ShapeError: If samples are no pictures, or smaller than a crop.
        """
        if x.dim() != 4:
            raise ShapeError(
                f"crops need pictures of shape (n, channels, height, width), got {tuple(x.shape)}"
            )
        own = self._own(x)
        height, width = self._sides(x, own)
        down, right = x.shape[2] - height, x.shape[3] - width
        if down < 0 or right < 0:
            given = f"{x.shape[2]}x{x.shape[3]}"
            raise ShapeError(f"pictures of {given} are smaller than a crop of {height}x{width}: give a size")
        corners = [(0, 0), (0, right), (down, 0), (down, right)] if self.crops > 1 else []
        places = [*corners, (down // 2, right // 2)]
        parts = [x[:, :, top : top + height, left : left + width] for top, left in places]
        parts = [_resized(part, own) for part in parts]
        return parts + [part.flip(-1) for part in parts] if self.flip else parts

    def _own(self, x: Tensor) -> tuple[int, int]:
        """Return height and width of what the model reads."""
        planes = getattr(self.domain, "planes", None)
        return (x.shape[2], x.shape[3]) if planes is None else planes[1:]

    def _sides(self, x: Tensor, own: tuple[int, int]) -> tuple[int, int]:
        """Return height and width of a crop."""
        if self.size is not None:
            return self.size
        larger = x.shape[2] > own[0] or x.shape[3] > own[1]
        if larger or self.crops == 1:
            return own
        return max(1, round(_PART * own[0])), max(1, round(_PART * own[1]))


def _resized(x: Tensor, own: tuple[int, int]) -> Tensor:
    """Return pictures at the size `own`, levels rounded to whole ones where they were whole."""
    if tuple(x.shape[2:]) == tuple(own):
        return x
    if not len(x):
        return x.new_zeros(0, x.shape[1], *own)
    if x.is_floating_point():
        return F.interpolate(x, own, mode="bilinear", antialias=True)
    return F.interpolate(x.float(), own, mode="bilinear", antialias=True).round().to(x.dtype)
