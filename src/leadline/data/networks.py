"""What a file of a discrete graphical model says, as plain names and tables, and how its text is read."""

import gzip
import os
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from leadline.core import DataError, RunError

__all__ = ["FactorFile", "Network", "path_text", "write_path_text"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Network:
    """A Bayesian network as a BIF file states it.

    Args:
        name: Its name.
        columns: Names of the variables.
        values: Names of the states of each variable.
        parents: Numbers of the parents of each variable.
        tables: p(child | parents) of each variable, one axis a parent and the child's last.
        properties: Text of each `property` line, by where it stands: "" for the network, `variable NAME`
            or `probability NAME`.
    """

    name: str
    columns: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]
    parents: tuple[tuple[int, ...], ...]
    tables: tuple[Floats, ...]
    properties: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Network)
            and (self.name, self.columns, self.values, self.parents, self.properties)
            == (other.name, other.columns, other.values, other.parents, other.properties)
            and _same(self.tables, other.tables)
        )

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, eq=False)
class FactorFile:
    """Factors as a UAI file states them.

    Args:
        kind: "MARKOV" or "BAYES".
        sizes: Number of states of each variable.
        scopes: Variables of each factor; of a BAYES file the child comes last.
        tables: Values of each factor, one axis a variable.
    """

    kind: str
    sizes: tuple[int, ...]
    scopes: tuple[tuple[int, ...], ...]
    tables: tuple[Floats, ...]

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, FactorFile)
            and (self.kind, self.sizes, self.scopes) == (other.kind, other.sizes, other.scopes)
            and _same(self.tables, other.tables)
        )

    __hash__ = None  # type: ignore[assignment]


def path_text(path: str | os.PathLike[str]) -> str:
    """Return the text of a file, compressed by gzip or not.

    Raises:
        DataError: If it cannot be read, is damaged or is not UTF-8.
    """
    try:
        raw = Path(path).read_bytes()
        if raw[:2] == b"\x1f\x8b":
            raw = gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte {error.start} is not UTF-8 text") from error


def write_path_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file whole or not at all, compressed where its name ends in .gz.

    Raises:
        RunError: If it cannot be written; what stood there before still does.
    """
    raw = text.encode("utf-8")
    if Path(path).suffix == ".gz":
        raw = gzip.compress(raw, mtime=0)
    temporary = Path(f"{os.fspath(path)}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(raw)
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):  # it may not be there, nor its folder
            temporary.unlink()
        raise RunError(f"cannot write {os.fspath(path)}: {error.strerror or error}") from error


def _same(some: Sequence[Floats], others: Sequence[Floats]) -> bool:
    return len(some) == len(others) and all(np.array_equal(a, b) for a, b in zip(some, others, strict=True))
