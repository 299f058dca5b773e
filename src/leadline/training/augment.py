"""Random changes of training pictures that keep their class: raw levels in, raw levels out.

Source:
    Flips and shifted crops as in He et al. (2016), Deep Residual Learning, section 4.2.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from leadline.core import Domain, DomainError

__all__ = ["AUGMENTATIONS", "augmenter"]


def _flip(x: Tensor) -> Tensor:
    """Return pictures (n, c, h, w), each mirrored left to right with probability one half."""
    mirrored = torch.rand(x.shape[0], device=x.device) < 0.5
    return torch.where(mirrored[:, None, None, None], x.flip(-1), x)


def _crop(x: Tensor) -> Tensor:
    """Return pictures (n, c, h, w), each shifted by up to an eighth of its sides, edges filled by zero."""
    n, _, height, width = x.shape
    pad = max(1, min(height, width) // 8)
    padded = F.pad(x, (pad, pad, pad, pad))
    shift = torch.randint(0, 2 * pad + 1, (2, n), device=x.device)
    rows = shift[0][:, None] + torch.arange(height, device=x.device)  # (n, h)
    columns = shift[1][:, None] + torch.arange(width, device=x.device)  # (n, w)
    each = torch.arange(n, device=x.device)[:, None, None]
    # advanced indices at both ends put channels last: (n, h, w, c) -> (n, c, h, w)
    return padded[each, :, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)


AUGMENTATIONS: dict[str, Callable[[Tensor], Tensor]] = {"flip": _flip, "crop": _crop}


def augmenter(names: str | None, domain: Domain) -> Callable[[Tensor], Tensor] | None:
    """Return the function that applies `names` ("flip+crop") to a batch, or None.

    Raises:
        DomainError: If samples are no pictures.
    """
    if not names:
        return None
    if domain.planes is None:
        raise DomainError(f"augment={names!r} needs pictures, but the data are {domain}")
    steps = [AUGMENTATIONS[name] for name in names.split("+")]

    def apply(x: Tensor) -> Tensor:
        for step in steps:
            x = step(x)
        return x

    return apply
