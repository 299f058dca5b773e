"""How much memory samples may take."""

import re

from leadline.core import OptionError
from leadline.core.memory import available

__all__ = ["allowance", "bytes_of", "spoken"]

SHARE = 0.25
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def allowance(memory: str | int | None) -> int:
    """Return the bytes that samples may take: `memory` ("2GB"), or a quarter of what is available."""
    return int(SHARE * available()) if memory is None else bytes_of(memory)


def bytes_of(text: str | int) -> int:
    """Return the number of bytes of a size such as "2GB", "500 MB" or 1000000.

    Raises:
        OptionError: If it is no size.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?\s*", str(text), re.IGNORECASE)
    if not match:
        raise OptionError(f'memory must be a size such as "2GB", got {text!r}')
    return int(float(match[1]) * UNITS[match[2].upper()])


def spoken(size: int) -> str:
    """Return a number of bytes in words."""
    return f"{size / (1 << 30):.1f} GB" if size >= 1 << 30 else f"{size / (1 << 20):.1f} MB"
