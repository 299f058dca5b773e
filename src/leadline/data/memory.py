"""How much memory samples may take."""

import os
import re
from pathlib import Path

from leadline.core import OptionError

__all__ = ["allowance", "available", "bytes_of", "spoken"]

SHARE = 0.25
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
CGROUP = Path("/sys/fs/cgroup")
UNLIMITED = 1 << 60


def available() -> int:
    """Return the bytes of memory that can be had now: free ones, within the container's limit."""
    free = _meminfo() or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    limit, used = _number(CGROUP / "memory.max"), _number(CGROUP / "memory.current")
    return min(free, max(limit - used, 0)) if limit < UNLIMITED and used < UNLIMITED else free


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


def _meminfo() -> int:
    """Return what Linux says can be allocated without swapping, or 0."""
    try:
        found = re.search(r"MemAvailable:\s*(\d+) kB", Path("/proc/meminfo").read_text(encoding="ascii"))
    except OSError:
        return 0
    return int(found[1]) << 10 if found else 0


def _number(path: Path) -> int:
    """Return the number in a file, or "no limit" where there is none."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return UNLIMITED
