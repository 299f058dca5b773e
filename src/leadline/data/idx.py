"""IDX files, the format of MNIST: one file, or a folder of train and t10k files, gzipped or not.

Source:
    LeCun, Cortes and Burges, The MNIST database, section "File formats": two zero bytes, a type
    byte, the number of axes, the sizes as big-endian 32-bit integers, the values.
"""

import gzip
import math
import re
import struct
import zlib
from pathlib import Path

import numpy as np

from leadline.core import DataError
from leadline.core.memory import available
from leadline.data.arrays import found_arrays
from leadline.data.found import Ask, Found
from leadline.data.meaning import Array, meaning_of
from leadline.data.memory import spoken

__all__ = ["holds_idx", "read_idx"]

TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
NAME = re.compile(r"(?P<set>.*)(?P<what>images|labels)(?P<mark>[-.]idx)(?P<axes>\d)(?P<end>-ubyte(\.gz)?)$")
TEST = ("t10k", "test")


def holds_idx(path: Path) -> bool:
    """Return whether `path` is an IDX file by its name, or a folder that holds one."""
    if path.is_dir():
        return any(NAME.search(item.name) for item in path.iterdir())
    return bool(re.search(r"idx\d?-ubyte(\.gz)?$|\.idx(\.gz)?$", path.name))


def read_idx(path: Path, ask: Ask, *, levels: int | None = None) -> Found:
    """Return the pictures and labels of a folder, or of a file of pictures and the labels beside it.

    Args:
        path: A folder with train-images-idx3-ubyte and so on, or one file of pictures.
        ask: What every reader is asked.
        levels: Number of levels of a pixel, 256 by default.
    """
    files = _members(path) if path.is_dir() else _beside(path)
    if "x" not in files:
        raise DataError(f"{path}: no file of training pictures (train-images-idx3-ubyte)")
    arrays = {key: _read(item) for key, item in files.items()}
    means = meaning_of(arrays["x"], files["x"].name, levels=levels)
    return found_arrays(
        arrays, means, ask, name=path.name.removesuffix(".gz") if path.is_file() else path.name
    )


def _members(path: Path) -> dict[str, Path]:
    """Return the files of a folder by the names `x`, `y`, `x_test`, `y_test`.

    Raises:
        DataError: If two files have one role.
    """
    files: dict[str, Path] = {}
    for item in sorted(path.iterdir()):
        match = NAME.search(item.name)
        if match:
            end = "_test" if any(word in match["set"].lower() for word in TEST) else ""
            key = ("x" if match["what"] == "images" else "y") + end
            if key in files:
                raise DataError(f"{path}: both {files[key].name} and {item.name}; give one file of pictures")
            files[key] = item
    return files


def _beside(path: Path) -> dict[str, Path]:
    """Return a file of pictures, and the file of its labels where there is one."""
    match = NAME.search(path.name)
    files = {"x": path}
    if match and match["what"] == "images":
        for end in (match["end"], "-ubyte", "-ubyte.gz"):
            labels = path.with_name(f"{match['set']}labels{match['mark']}1{end}")
            if labels.exists():
                files["y"] = labels
                break
    return files


def _read(path: Path) -> Array:
    """Return the array of one file.

    Raises:
        DataError: If the file is damaged, or claims more than it holds.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as stream:
            head = stream.read(4)
            if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in TYPES or head[3] == 0:
                raise DataError(f"{path}: not an IDX file, it begins with {head!r}")
            axes = stream.read(4 * head[3])
            if len(axes) < 4 * head[3]:
                raise DataError(f"{path}: is cut off inside its header")
            shape = struct.unpack(f">{head[3]}I", axes)
            dtype = np.dtype(TYPES[head[2]])
            want = math.prod(shape) * dtype.itemsize
            if want > available():
                raise DataError(f"{path}: claims {spoken(want)}, more memory than can be had")
            data = bytearray(stream.read(want))
            more = stream.read(1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: damaged or cut off ({error}); fetch it again") from error
    if len(data) < want or more:
        rest = "more" if more else f"{len(data)}"
        raise DataError(f"{path}: claims {shape}, {want} bytes, but holds {rest}; fetch it again")
    return np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)
