"""Raw samples of picture domains as PNG, level by level, without a plotting library between."""

import io
import math

import torch
from PIL import Image
from torch import Tensor

from leadline.core import Domain, DomainError, Images

__all__ = ["grid", "grid_png", "page_image", "picture_png"]

_GAP, _PAPER = 2, 128
_LEAST_TILE, _MOST_SIDE = 48, 4096
_PHOTO_BYTES, _MOST_PAGE_SIDE = 300_000, 900


def picture_png(domain: Domain, sample: Tensor) -> bytes:
    """Return one raw sample (c, h, w) as PNG, a pixel a pixel."""
    return _png(_colours(domain, sample[None])[0])


def grid_png(domain: Domain, x: Tensor, columns: int | None = None, scale: int | None = None) -> bytes:
    """Return raw samples (n, c, h, w) side by side as one PNG; small ones are enlarged."""
    return _png(grid(domain, x, columns, scale))


def grid(
    domain: Domain, x: Tensor, columns: int | None = None, scale: int | None = None, paper: int = _PAPER
) -> Tensor:
    """Return raw samples side by side, row after row, with lines between: (n, c, h, w) -> (H, W, 3) uint8.

    Args:
        domain: What one sample is; it must be a picture.
        x: Raw samples.
        columns: Samples in a row; about as many as rows by default.
        scale: Screen pixels a pixel; so many that a picture is about 48 wide by default.
        paper: Level of the lines between, 0 to 255.
    """
    tiles = _colours(domain, x)  # (n, h, w, 3)
    n, h, w, _ = tiles.shape
    across = columns or max(1, math.ceil(math.sqrt(n)))
    down = max(1, math.ceil(n / across))
    factor = scale or max(1, math.ceil(_LEAST_TILE / max(h, w)))
    while factor > 1 and max(across * w, down * h) * factor > _MOST_SIDE:
        factor -= 1
    tiles = tiles.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    high, wide = h * factor + _GAP, w * factor + _GAP
    page = torch.full((down * high - _GAP, across * wide - _GAP, 3), paper, dtype=torch.uint8)
    for number, tile in enumerate(tiles):
        top, left = number // across * high, number % across * wide
        page[top : top + high - _GAP, left : left + wide - _GAP] = tile
    return page


def _colours(domain: Domain, x: Tensor) -> Tensor:
    """Return samples as colours: (n, c, h, w) raw -> (n, h, w, 3) uint8."""
    if domain.planes is None:
        raise DomainError(f"{domain} are no pictures")
    levels = domain.levels if isinstance(domain, Images) else 2
    shades = (x.cpu().double() * (255 / (levels - 1))).round().clamp(0, 255).to(torch.uint8)
    channels = shades.shape[1]
    if channels < 3:
        shades = shades[:, :1].expand(-1, 3, -1, -1)
    return shades[:, :3].permute(0, 2, 3, 1)


def page_image(domain: Domain, x: Tensor, columns: int, tile: int, paper: int = _PAPER) -> tuple[bytes, int]:
    """Return samples side by side for a page, and how wide to show them: photos smaller, as JPEG."""
    factor = max(1, math.ceil(tile / max(x.shape[-2:])))
    pixels = grid(domain, x, columns, scale=factor, paper=paper)
    if x[0].numel() * len(x) < _PHOTO_BYTES:
        return _png(pixels), pixels.shape[1]
    picture = Image.fromarray(pixels.numpy())
    picture.thumbnail((_MOST_PAGE_SIDE, _MOST_PAGE_SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=85)
    return buffer.getvalue(), picture.width


def _png(pixels: Tensor) -> bytes:
    """Return colours (h, w, 3) as PNG, grey where all three are equal."""
    image = Image.fromarray(pixels.contiguous().numpy())
    if bool((pixels == pixels[..., :1]).all()):
        image = image.convert("L")
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
