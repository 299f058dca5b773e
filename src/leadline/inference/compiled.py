"""Functions compiled to machine code by numba when they are first called, and kept on disk.

The first call on a machine compiles; later processes load what is kept in a few milliseconds. Sums may be
taken in another order than written, which lets loops run on vectors.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

__all__ = ["compiled"]

F = TypeVar("F", bound=Callable[..., object])


def compiled(function: F) -> F:
    """Return `function` compiled for the types that it is called with."""
    options: dict[str, Any] = {"error_model": "numpy", "fastmath": {"reassoc", "contract"}}
    try:
        return cast(F, numba.njit(cache=True, **options)(function))
    except RuntimeError:  # no folder to keep it in
        return cast(F, numba.njit(**options)(function))
