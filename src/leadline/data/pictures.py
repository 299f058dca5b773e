"""One picture file to one array of levels: checked, cropped, resized.

Symbols:
    c channels, h height, w width.
"""

import hashlib
import math
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from leadline.data.meaning import Array

__all__ = ["DAMAGE", "Head", "decoded", "head", "mark"]

FORMATS = ("BMP", "JPEG", "PNG", "WEBP")
GREY = ("1", "L", "LA", "La", "F")
DAMAGE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    IndexError,
    TypeError,
    MemoryError,
    RuntimeError,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
ORIENTATION, SIDEWAYS = 0x0112, (5, 6, 7, 8)
SPARE = 1.0  # a JPEG is decoded at no less than this times the size it is brought to
BLOCK = 1 << 16


@dataclass(frozen=True)
class Head:
    """What the first bytes of a picture say: its channels, height and width as it is shown."""

    channels: int
    height: int
    width: int


def head(path: Path) -> Head:
    """Return what a file says of itself, after a look at its end; pixels are not decoded.

    Raises:
        OSError: If it is no picture, is cut off, or claims more pixels than any camera has.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            grey = image.mode in GREY or image.mode.startswith("I")
            form = image.format
            early = form != "PNG" or "exif" in image.info  # else PNG would be decoded to look for it
            turned = early and image.getexif().get(ORIENTATION) in SIDEWAYS
    if not _whole(path, str(form)):
        raise OSError("the file is cut off")
    return Head(1 if grey else 3, *((width, height) if turned else (height, width)))


def decoded(path: Path, channels: int, height: int, width: int, *, crop: bool) -> Array:
    """Return the levels (c, h, w) uint8 of a picture, upright, on white where it is transparent.

    With `crop` it is cut at its centre to the aspect asked for and resized; else its size must fit.
    """
    mode = "L" if channels == 1 else "RGB"
    with Image.open(path, formats=FORMATS) as image:
        if crop:
            scale = SPARE * max(width, height) / min(image.size)
            image.draft(mode, (math.ceil(image.width * scale), math.ceil(image.height * scale)))
        ImageOps.exif_transpose(image, in_place=True)
        plain = _plain(image, mode)
    if crop:
        plain = _cropped(plain, width, height).resize((width, height), Image.Resampling.BICUBIC)
    elif plain.size != (width, height):
        raise ValueError(f"it is {plain.width}x{plain.height}, not {width}x{height}")
    levels = np.asarray(plain)  # (h, w) or (h, w, 3)
    return levels[None] if levels.ndim == 2 else levels.transpose(2, 0, 1)


def _cropped(image: Image.Image, width: int, height: int) -> Image.Image:
    """Return the largest part at the centre that has the aspect of `width` to `height`."""
    scale = min(image.width / width, image.height / height)
    w, h = max(1, round(width * scale)), max(1, round(height * scale))
    left, top = (image.width - w) // 2, (image.height - h) // 2
    return image.crop((left, top, left + w, top + h))


def _plain(image: Image.Image, mode: str) -> Image.Image:
    """Return a picture in grey or in colour, 8 bits a channel."""
    if image.mode.startswith("I"):  # 16 bits of grey
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image.convert("RGBA"))
        image = white
    return image.convert(mode)


def _whole(path: Path, form: str) -> bool:
    """Return whether the end of a file is that of a whole picture, as far as its end can tell."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        first = stream.read(12)
        stream.seek(max(size // 2, size - BLOCK))
        last = stream.read()
    if form == "PNG":
        return b"IEND" in last
    if form == "JPEG":
        return b"\xff\xd9" in last
    return form != "WEBP" or int.from_bytes(first[4:8], "little") + 8 <= size


def mark(path: Path) -> bytes:
    """Return a hash of a file's size and contents; of a large file, of its beginning, middle and end."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as stream:
        for start in [0] if size <= 3 * BLOCK else [0, size // 2, size - BLOCK]:
            stream.seek(start)
            digest.update(stream.read(3 * BLOCK if size <= 3 * BLOCK else BLOCK))
    return digest.digest()
