"""Functions compiled to machine code by numba when they are first called, and kept on disk.

The first call on a machine compiles; later processes load what is kept in a few milliseconds. Sums of
`compiled` functions may be taken in another order than written, which lets loops run on vectors; `kept` ones
are compiled as they are told to be.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from filelock import FileLock, Timeout
from numba.core.caching import FunctionCache

__all__ = ["compiled", "kept"]

F = TypeVar("F", bound=Callable[..., object])
_PATIENCE = 60.0  # seconds to wait for another process that saves


class _Cache(FunctionCache):
    """What is kept of a function, saved by one process at a time.

    numba reads the index of a function, picks a free name for the new code and writes both: two processes
    that save code for different types at once would pick one name, and each run the code of the other.
    """

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            with FileLock(Path(self.cache_path) / "saving.lock", timeout=_PATIENCE):
                super().save_overload(sig, data)
        except (OSError, Timeout):
            return  # not kept: the next process compiles it again


def kept(**options: Any) -> Callable[[F], F]:
    """Return what compiles a function with these options of `numba.njit` and keeps its code on disk."""

    def compile_later(function: F) -> F:
        dispatcher: Any = numba.njit(**options)(function)
        try:
            dispatcher._cache = _Cache(function)
        except RuntimeError:  # no folder to keep it in
            return cast(F, dispatcher)
        return cast(F, dispatcher)

    return compile_later


def compiled(function: F) -> F:
    """Return `function` compiled for the types that it is called with."""
    return kept(error_model="numpy", fastmath={"reassoc", "contract"})(function)
