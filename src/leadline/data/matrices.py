"""Corpora as sparse matrices: Matrix Market files, what scipy.sparse.save_npz writes, and those in memory."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.io import mminfo, mmread
from scipy.sparse import coo_matrix, csc_matrix, csr_matrix, issparse
from torch import Tensor

from leadline.core import DataError
from leadline.core.memory import available
from leadline.data.bags import counts_of
from leadline.data.memory import spoken
from leadline.data.npy import read_npz

__all__ = ["holds_sparsely", "is_sparse", "market", "matrix_of", "scipy_sparse"]

SPARSE_KEYS: dict[str, tuple[str, ...]] = {
    "x": ("data",),
    "indices": ("indices",),
    "indptr": ("indptr",),
    "row": ("row",),
    "col": ("col",),
    "shape": ("shape",),
    "format": ("format",),
}
MOST_ROWS = 1 << 31
_BYTES_OF_PLACE = 64  # of a row or column while it is read, cut and split
DAMAGE = (ValueError, OSError, OverflowError, TypeError, MemoryError, EOFError, IndexError)


def is_sparse(path: Path) -> bool:
    """Return whether a .npz file holds a sparse matrix as scipy.sparse.save_npz writes it."""
    if path.suffix != ".npz" or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
    return {"format.npy", "shape.npy", "data.npy"} <= names


def holds_sparsely(value: object) -> bool:
    """Return whether a value in memory is a sparse matrix of scipy or a sparse tensor."""
    return issparse(value) or (isinstance(value, Tensor) and value.layout != torch.strided)


def matrix_of(value: Any, name: str) -> csr_matrix:
    """Return a matrix of counts in memory, sparse or dense: (documents, words).

    Raises:
        DataError: If it is no matrix, or a value is no count; it is named.
    """
    if isinstance(value, Tensor) and value.layout != torch.strided:
        held = value.detach().cpu().to_sparse_coo().coalesce()
        if held.sparse_dim() != 2 or held.dense_dim():
            raise DataError(f"{name} has the shape {tuple(value.shape)}; a corpus is (documents, words)")
        value = coo_matrix((held.values().numpy(), held.indices().numpy()), shape=tuple(held.shape))
    elif isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    if not issparse(value) and np.ndim(value) != 2:
        raise DataError(f"{name} has the shape {np.shape(value)}; a corpus is (documents, words)")
    return _counted(name, csr_matrix(value, copy=True))


def market(path: Path) -> csr_matrix:
    """Return the matrix of a Matrix Market file."""
    try:
        rows, columns, *_ = mminfo(path)
    except DAMAGE as error:
        raise DataError(f"{path}: not a whole Matrix Market file ({error})".replace("\n", " ")) from error
    _holdable(path, (rows, columns))
    try:
        held = mmread(path)
    except DAMAGE as error:
        raise DataError(f"{path}: not a whole Matrix Market file ({error})".replace("\n", " ")) from error
    if not issparse(held):
        raise DataError(f"{path}: holds a dense array; a corpus is written in coordinates")
    return _counted(path, csr_matrix(held))


def scipy_sparse(path: Path) -> csr_matrix:
    """Return the matrix of a .npz file of scipy, every index checked."""
    held = read_npz(path, SPARSE_KEYS)
    kind = held["format"].item()
    name = kind.decode("ascii", "replace") if isinstance(kind, bytes) else str(kind)
    if name not in ("csr", "csc", "coo"):
        raise DataError(f"{path}: a sparse matrix of the form {name!r}; save it as csr, csc or coo")
    shape = tuple(int(side) for side in held["shape"].ravel())
    if len(shape) != 2 or not all(0 <= side < MOST_ROWS for side in shape):
        raise DataError(f"{path}: claims the shape {shape}; a corpus is (documents, words)")
    _holdable(path, shape)
    values = held["x"]
    if values.dtype.kind not in "biuf":
        raise DataError(f"{path}: values of type {values.dtype} are no counts")
    values = values.astype(np.float64 if values.dtype.kind == "f" else np.int64)
    try:
        if name == "coo":
            made = coo_matrix((values, (held["row"], held["col"])), shape)
        else:
            made = {"csr": csr_matrix, "csc": csc_matrix}[name](
                (values, held["indices"], held["indptr"]), shape
            )
            made.check_format(full_check=True)
        return _counted(path, csr_matrix(made))
    except DataError:
        raise
    except (KeyError, *DAMAGE) as error:
        raise DataError(f"{path}: not a whole sparse matrix ({error}); save it again") from error


def _holdable(path: Path, shape: tuple[int, int]) -> None:
    """Check that a matrix of this shape can be held, whatever it holds: rows and columns take places.

    Raises:
        DataError: If not.
    """
    need = _BYTES_OF_PLACE * sum(shape)
    if need > available() // 2:
        raise DataError(
            f"{path}: claims {shape[0]:,} rows and {shape[1]:,} columns; that would take {spoken(need)}, and "
            f"{spoken(available())} can be had"
        )


def _counted(path: Path | str, matrix: csr_matrix) -> csr_matrix:
    """Return the matrix with its values as whole numbers.

    Raises:
        DataError: If one is negative, not whole or not finite; its row and column are named.
    """

    def place(i: int) -> str:
        row = int(np.searchsorted(matrix.indptr, i, side="right")) - 1
        return f"{path}, row {row}, column {matrix.indices[i]}"

    matrix.data = counts_of(matrix.data, place)
    return matrix
