"""How much memory can be had on this machine, now."""

import os
import re
from pathlib import Path

__all__ = ["available"]

CGROUP = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")


def available() -> int:
    """Return the bytes of memory that can be had now: what is free, within the container's limit.

    What the system keeps of files counts as free, since it makes room for a program that asks.
    """
    free = _kilobytes() or _pages()
    limit, used = _number(CGROUP / "memory.max"), _number(CGROUP / "memory.current")
    if limit is None or used is None:
        return free
    return min(free, max(limit - used + _of_files(), 0))


def _kilobytes() -> int:
    """Return the bytes that Linux says can be allocated without swapping, or 0."""
    try:
        found = re.search(r"MemAvailable:\s*(\d+) kB", MEMINFO.read_text(encoding="ascii"))
    except OSError:
        return 0
    return int(found[1]) << 10 if found else 0


def _pages() -> int:
    """Return half the memory of the machine, for want of better."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError, OSError):
        return 4 << 30


def _of_files() -> int:
    """Return the bytes of the container's memory that hold files nobody used of late."""
    try:
        found = re.search(r"^inactive_file (\d+)", (CGROUP / "memory.stat").read_text("ascii"), re.M)
    except OSError:
        return 0
    return int(found[1]) if found else 0


def _number(path: Path) -> int | None:
    """Return the number in a file; None where there is none, or no limit."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
