"""Arrays of .npz and .npy files, read without pickle and without trust in what a file claims."""

import math
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from leadline.core import DataError
from leadline.core.memory import available
from leadline.data.meaning import Array
from leadline.data.memory import spoken

__all__ = ["read_npy", "read_npz"]

DAMAGE = (ValueError, OSError, EOFError, SyntaxError, zipfile.BadZipFile, zlib.error, RuntimeError)
HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def read_npz(path: Path, aliases: dict[str, tuple[str, ...]]) -> dict[str, Array]:
    """Return the arrays of an archive by the keys of `aliases`; other arrays are not read.

    Raises:
        DataError: If the file is damaged, holds pickled objects, or claims more than it holds.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {name.removesuffix(".npy"): name for name in archive.namelist()}
            found = {}
            for key, names in aliases.items():
                name = next((item for item in names if item in members), None)
                if name is not None:
                    with archive.open(members[name]) as stream:
                        size = archive.getinfo(members[name]).file_size
                        found[key] = _array(stream, size, f'{path}: array "{name}"')
    except DataError:
        raise
    except DAMAGE as error:
        raise DataError(f"{path}: not a whole .npz archive ({error}); write it again") from error
    if "x" not in found:
        held = ", ".join(sorted(members)[:8]) or "nothing"
        raise DataError(f'{path}: no array "x"; the file holds {held}')
    return found


def read_npy(path: Path) -> Array:
    """Return the array of a .npy file.

    Raises:
        DataError: If the file is damaged, holds pickled objects, or claims more than it holds.
    """
    try:
        with path.open("rb") as stream:
            return _array(stream, path.stat().st_size, str(path))
    except DataError:
        raise
    except DAMAGE as error:
        raise DataError(f"{path}: not a whole .npy file ({error}); write it again") from error


def _array(stream: IO[bytes], size: int, name: str) -> Array:
    """Return the array in a stream of `size` bytes."""
    version = npy.read_magic(stream)
    if version not in HEADERS:
        raise DataError(f"{name}: format version {version} is not read; save it again with numpy.save")
    shape, fortran, dtype = HEADERS[version](stream)
    if dtype.hasobject:
        raise DataError(f"{name}: holds pickled objects, which are never loaded; save plain numbers or texts")
    want, held = math.prod(shape) * dtype.itemsize, size - stream.tell()
    if min(shape, default=0) < 0 or want != held:
        raise DataError(f"{name}: claims the shape {shape} of {dtype}, {want} bytes, but holds {held} bytes")
    if want > available():
        raise DataError(f"{name}: needs {spoken(want)} of memory, {spoken(available())} can be had")
    data = bytearray(stream.read(want))
    if len(data) != want or stream.read(1):
        raise DataError(f"{name}: is cut off after {len(data)} of {want} bytes")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
