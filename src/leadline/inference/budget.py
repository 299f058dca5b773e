"""What an exact answer may take, in memory and in time, and what is said where it would take more."""

from dataclasses import dataclass
from typing import Protocol

from leadline.core.errors import OptionError, ResourceError
from leadline.core.memory import available

__all__ = ["OTHERWISE", "Budget", "Sized", "available_memory", "checked_memory", "told_need", "told_size"]

OTHERWISE = "use another method, as 'auto' does, or raise the limit"
_BYTES = 8


@dataclass(frozen=True)
class Budget:
    """What an exact answer may take.

    Args:
        memory: Most bytes; half the memory that can be had, by default.
        states: Most states of cliques to walk through; ten million take about a second.
        unsure: Most where no bound tells before that they will be enough.
        probed: Whether to give up there as soon as probes say that it would take ten times what is left.

    Raises:
        OptionError: If `memory` is not a number above zero.
    """

    memory: float | None = None
    states: float = 1e11
    unsure: float = 1e11
    probed: bool = False

    def __post_init__(self) -> None:
        if self.memory is not None and not (isinstance(self.memory, int | float) and self.memory > 0):
            raise OptionError(f"limit must be a number of bytes above zero, got {self.memory!r}")

    @property
    def bytes(self) -> float:
        """Return the most bytes, at this moment."""
        return available_memory() if self.memory is None else self.memory


def available_memory() -> int:
    """Return half the memory that can be had now, in bytes: what an exact answer may take by default."""
    return available() // 2


class Sized(Protocol):
    """What an order of elimination leads to: table entries in all, and variables of the largest less one."""

    @property
    def states(self) -> float:
        """Return the number of table entries."""
        ...

    @property
    def width(self) -> int:
        """Return the variables of the largest table, less one."""
        ...


def checked_memory(cliques: Sized, limit: float | None) -> None:
    """Check that tables fit in `limit` bytes, or in half the free memory.

    Raises:
        ResourceError: If they do not; the message says what they would take.
    """
    most = Budget(limit).bytes
    need = cliques.states * _BYTES
    if need > most:
        raise ResourceError(f"{told_need(cliques)}, more than the limit of {told_size(most)}; {OTHERWISE}")


def told_need(cliques: Sized, sparse: float | None = None) -> str:
    """Return in words what an exact answer would take, and the bytes without states of weight zero."""
    fewer = "" if sparse is None else f", {told_size(sparse)} without impossible states"
    return (
        f"an exact answer needs {told_size(cliques.states * _BYTES)} for tables of up to {cliques.width + 1} "
        f"variables (treewidth at most {cliques.width}){fewer}"
    )


def told_size(count: float) -> str:
    """Return a number of bytes in words."""
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} PB"
