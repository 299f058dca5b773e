"""Errors that a user can cause: each says what was wrong, where, and what to do."""

import difflib
import importlib
from collections.abc import Iterable
from os import PathLike
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "DataError",
    "DivergenceError",
    "DomainError",
    "ExtraError",
    "InterruptedFit",
    "LeadlineError",
    "OptionError",
    "ResourceError",
    "RunError",
    "ShapeError",
    "VerbError",
    "checked_codes",
    "nearest",
    "no_data_set",
    "require_extra",
    "unknown_name",
]


class LeadlineError(Exception):
    """The root of every error that a user can cause and can mend."""


class DataError(LeadlineError, ValueError):
    """A file, row or sample does not hold what it should."""


class ShapeError(LeadlineError, ValueError):
    """A tensor has the wrong shape, type or range for the domain."""


class OptionError(LeadlineError, ValueError):
    """An option or a name is unknown, or its value is out of range."""


class DomainError(LeadlineError, TypeError):
    """A model was asked to hold a domain that it cannot."""


class VerbError(LeadlineError, TypeError):
    """A model lacks the verb that was asked of it."""


class RunError(LeadlineError, OSError):
    """A run directory cannot be read or written."""


class DivergenceError(LeadlineError, ArithmeticError):
    """Training produced a value that is not finite."""


class ResourceError(LeadlineError, MemoryError):
    """An exact answer would take more memory or time than is allowed."""


class ExtraError(LeadlineError, ImportError):
    """An optional dependency is not installed."""


class InterruptedFit(KeyboardInterrupt):
    """Ctrl-C stopped a training after its step; the message says how to resume."""


def checked_codes(z: "Tensor", width: int) -> "Tensor":
    """Return codes `z` if they have the shape (n, width).

    Raises:
        ShapeError: If they do not, or are no tensor.
    """
    if not callable(getattr(z, "dim", None)):
        raise ShapeError(f"expected a tensor of codes, got {type(z).__name__}")
    if z.dim() != 2 or z.shape[1] != width:
        raise ShapeError(f"codes of this model have shape (n, {width}), got {tuple(z.shape)}")
    return z


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ` (did you mean "x"?)` for the known name closest to `name` in any case, or an empty string."""
    folded = {one.lower(): one for one in known}
    found = difflib.get_close_matches(name.lower(), list(folded), n=1, cutoff=0.5)
    return f' (did you mean "{folded[found[0]]}"?)' if found else ""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> OptionError:
    """Return the error that names an unknown `kind` and lists the `known` ones."""
    names = sorted(known)
    return OptionError(f'unknown {kind} "{name}"{nearest(name, names)}; known: {", ".join(names)}')


def no_data_set(verb: str, value: object) -> OptionError:
    """Return the error of a verb that was given no data set, with the way to one."""
    if isinstance(value, (str, PathLike)):
        return OptionError(f"{verb} needs a data set: load({str(value)!r}) reads one")
    kind = type(value).__name__
    return OptionError(
        f"{verb} needs a data set, not {kind}: from_arrays(x, y) makes one of arrays in memory"
    )


def require_extra(module: str, extra: str) -> ModuleType:
    """Return the imported `module`, or say which extra of the project installs it.

    Raises:
        ExtraError: If the module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ExtraError(f"this needs {module.split('.')[0]}: pip install 'leadline[{extra}]'") from error
