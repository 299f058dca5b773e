"""Samples of unequal lengths as one batch: rows that lie one after another, and where each begins.

A `Ragged` is a tensor to whoever only passes samples on: it has a length, rows, a device, and can be
selected from, cut, joined and moved. Whoever computes with it takes `flat` and `offsets`, or `padded()`.
Anything else is refused in one line, so that no padding is ever mistaken for a value.

Symbols:
    n rows, total values of all rows together, k rows chosen.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from leadline.core.errors import ShapeError

__all__ = ["Ragged"]


class Ragged(Tensor):
    """A batch of n rows (length_i, *), stored without any padding.

    `shape` is that of the batch if it were padded, (n, longest, *); `numel()` counts what is there.
    `x[i]` is row i, a plain tensor; `x[3:7]`, `x[index]` and `x[mask]` are batches. Offsets stay on the
    CPU wherever the values are, so that no length is ever waited for.

    Args:
        flat: The values of all rows one after another, (total, *).
        offsets: Where each row begins, and where the last ends: (n + 1,) int64, from 0 to total.

    Raises:
        ShapeError: If the offsets do not cut `flat` into rows.

    Example:
        >>> x = Ragged.of([torch.tensor([1, 2, 3]), torch.tensor([4])])
        >>> len(x), x.lengths.tolist(), x[1].tolist()
        (2, [3, 1], [4])
        >>> x[torch.tensor([1, 0])].padded()
        tensor([[4, 0, 0],
                [1, 2, 3]])
    """

    flat: Tensor
    offsets: Tensor

    @staticmethod
    def __new__(cls, flat: Tensor, offsets: Tensor) -> "Ragged":
        """Return the batch; no value is copied."""
        offsets = offsets.cpu().to(torch.int64)
        lengths = offsets.diff()
        whole = offsets.dim() == 1 and len(offsets) > 0 and int(offsets[0]) == 0
        if not whole or flat.dim() == 0 or int(offsets[-1]) != len(flat) or bool((lengths < 0).any()):
            raise ShapeError(f"offsets {_few(offsets)} do not cut {tuple(flat.shape)} values into rows")
        longest = int(lengths.max()) if len(lengths) else 0
        shape = (len(lengths), longest, *flat.shape[1:])
        made = Tensor._make_wrapper_subclass(cls, shape, dtype=flat.dtype, device=flat.device)
        made.flat, made.offsets = flat, offsets
        return made

    @classmethod
    def of(cls, rows: Tensor | Sequence[Tensor]) -> "Ragged":
        """Return rows as one batch: a list of tensors (length_i, *), or a tensor (n, length, *)."""
        if isinstance(rows, Ragged):
            return rows
        if isinstance(rows, Tensor):
            if rows.dim() < 2:
                raise ShapeError(f"a batch of rows has the shape (n, length, ...), got {tuple(rows.shape)}")
            n, length = rows.shape[:2]
            return cls(rows.reshape(n * length, *rows.shape[2:]), torch.arange(n + 1) * length)
        sizes = torch.tensor([0, *(len(row) for row in rows)])
        return cls(torch.cat(list(rows)) if rows else torch.zeros(0), sizes.cumsum(0))

    @property
    def lengths(self) -> Tensor:
        """Return the length of each row, (n,) on the CPU."""
        return self.offsets.diff()

    @property
    def owners(self) -> Tensor:
        """Return the row that each value belongs to, (total,) on the device of the values."""
        lengths = self.lengths.to(self.flat.device)
        numbers = torch.arange(len(lengths), device=self.flat.device)
        return torch.repeat_interleave(numbers, lengths, output_size=len(self.flat))

    def like(self, flat: Tensor) -> "Ragged":
        """Return a batch of rows of the same lengths with other values (total, *)."""
        return Ragged(flat, self.offsets)

    def padded(self, value: float = 0) -> Tensor:
        """Return a plain tensor (n, longest, *), with `value` behind the end of each row."""
        out = self.flat.new_full(tuple(self.shape), value)
        place = torch.arange(len(self.flat)) - self.offsets[:-1].repeat_interleave(self.lengths)
        out[self.owners, place.to(self.flat.device)] = self.flat
        return out

    def lengthened(self, least: int) -> "Ragged":
        """Return the batch with zeros behind every row that is shorter than `least`."""
        if len(self) == 0 or int(self.lengths.min()) >= least:
            return self
        rows = [torch.cat([row, row.new_zeros(max(0, least - len(row)), *row.shape[1:])]) for row in self]
        return Ragged.of(rows)

    def mean(self) -> Tensor:  # type: ignore[override]
        """Return the mean of each row, NaN for one without values: (n, length_i, *) -> (n, *)."""
        if len(self) == 0:
            return self.flat.new_zeros(0, *self.flat.shape[1:])
        lengths = self.lengths.to(self.flat.device)
        return torch.segment_reduce(self.flat, "mean", lengths=lengths, unsafe=True)

    def select_rows(self, index: Sequence[int]) -> "Ragged":
        """Return the rows of these numbers, in their order; a run of them is not copied."""
        ends = self.offsets.tolist()
        if len(index) and list(index) == list(range(index[0], index[0] + len(index))):
            first, last = ends[index[0]], ends[index[-1] + 1]
            return Ragged(self.flat[first:last], self.offsets[index[0] : index[-1] + 2] - first)
        rows = [self.flat[ends[i] : ends[i + 1]] for i in index]
        return Ragged.of(rows) if rows else Ragged(self.flat[:0], torch.zeros(1, dtype=torch.int64))

    def __getitem__(self, index: Any) -> Tensor:
        """Return row i for a number, else the batch of the rows that a slice, numbers or a mask choose."""
        n = len(self)
        if isinstance(index, slice):
            return self.select_rows(range(*index.indices(n)))
        if isinstance(index, Tensor) and index.dim() == 1:
            if index.dtype == torch.bool:
                if len(index) != n:
                    raise ShapeError(f"a mask of {len(index)} rows for a batch of {n}")
                index = index.nonzero().flatten()
            return self.select_rows([_within(i, n) for i in index.tolist()])
        if isinstance(index, int) or (isinstance(index, Tensor) and index.dim() == 0):
            at = _within(int(index), n)
            return self.flat[int(self.offsets[at]) : int(self.offsets[at + 1])]
        raise ShapeError(f"{self!r} is indexed by row alone; take .padded() to index places in a row")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __iter__(self) -> Iterator[Tensor]:
        return (self.flat[first:last] for first, last in pairwise(self.offsets.tolist()))

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        low, high = (int(self.lengths.min()), int(self.lengths.max())) if len(self) else (0, 0)
        return f"Ragged({len(self)} rows of {low} to {high}, {self.flat.dtype})"

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)

    def __deepcopy__(self, memo: Any) -> "Ragged":
        return self.like(self.flat.clone())

    def numel(self) -> int:
        """Return the number of values that are stored."""
        return self.flat.numel()

    def index_select(self, dim: int, index: Tensor) -> "Ragged":
        """Return the rows at `index` (k,); `dim` is 0."""
        _only_rows(dim)
        return self.select_rows([_within(i, len(self)) for i in index.tolist()])

    def split(self, size: Any, dim: int = 0) -> Any:
        """Return batches of at most `size` rows; `dim` is 0."""
        _only_rows(dim)
        return tuple(self[start : start + size] for start in range(0, max(len(self), 1), size))

    def chunk(self, chunks: int, dim: int = 0) -> Any:
        """Return at most `chunks` batches of about equal size; `dim` is 0."""
        return self.split(max(1, -(-len(self) // chunks)), dim)

    def flip(self, *dims: Any) -> "Ragged":
        """Return the rows in the opposite order; `dims` is 0."""
        for dim in dims:
            _only_rows(dim)
        return self.select_rows(range(len(self) - 1, -1, -1))

    def copy_(self, src: Tensor, non_blocking: bool = False) -> "Ragged":  # noqa: FBT001, FBT002
        """Take the values of another batch of the same lengths."""
        if not isinstance(src, Ragged) or not torch.equal(self.offsets, src.offsets):
            raise ShapeError(f"{self!r} cannot take the values of rows of other lengths")
        self.flat.copy_(src.flat, non_blocking)
        return self

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Answer what a container can; refuse what would need to know what stands behind a row's end."""
        kwargs = kwargs or {}
        if func in _TOLD:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        if func in _VALUES:
            return args[0].like(func(args[0].flat, *args[1:], **kwargs))
        if func is torch.cat and all(isinstance(part, Ragged) for part in args[0]):
            return _joined(*args, **kwargs)
        if func in (torch.equal, Tensor.equal):
            return _equal(*args)
        name = getattr(func, "__name__", str(func))
        raise ShapeError(
            f"{name} is not defined for samples of unequal shape: take .padded(), or .flat and .offsets"
        )

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Refuse what reached the kernels."""
        raise ShapeError(f"{func} is not defined for samples of unequal shape: take .padded()")


def _getters(*names: str) -> set[Callable[..., Any]]:
    return {getattr(Tensor, name).__get__ for name in names}


# What a batch tells of itself without looking at a value.
_TOLD: set[Callable[..., Any]] = {
    Tensor.dim, Tensor.size, Tensor.is_floating_point, Tensor.element_size, Tensor.__hash__,
    Tensor.is_complex, Tensor.get_device,
    *_getters("shape", "dtype", "device", "ndim", "layout", "requires_grad", "is_cuda", "is_sparse"),
}  # fmt: skip
# What acts on each value alone, so that rows stay rows.
_VALUES: set[Callable[..., Any]] = {
    Tensor.to, Tensor.cpu, Tensor.cuda, Tensor.clone, Tensor.detach, Tensor.contiguous, Tensor.float,
    Tensor.double, Tensor.nan_to_num, Tensor.pin_memory, torch.clone, torch.isfinite, Tensor.isfinite,
}  # fmt: skip


def _joined(parts: Sequence[Ragged], dim: int = 0) -> Ragged:
    """Return the rows of several batches as one."""
    _only_rows(dim)
    sizes = torch.cat([torch.zeros(1, dtype=torch.int64), *(part.lengths for part in parts)])
    return Ragged(torch.cat([part.flat for part in parts]), sizes.cumsum(0))


def _equal(left: Tensor, right: Tensor) -> bool:
    """Return whether two batches have the same rows."""
    if not isinstance(left, Ragged) or not isinstance(right, Ragged):
        return False
    return torch.equal(left.offsets, right.offsets) and torch.equal(left.flat, right.flat)


def _within(index: int, n: int) -> int:
    """Return the number of a row, counted from the end where it is negative.

    Raises:
        IndexError: If there is no such row, so that a loop over a batch ends.
    """
    if not -n <= index < n:
        raise IndexError(f"row {index} of a batch of {n}")
    return index + n if index < 0 else index


def _only_rows(dim: Any) -> None:
    if dim not in (0, (0,), [0]):
        raise ShapeError(
            f"samples of unequal shape are joined and cut by row alone, not along dimension {dim}"
        )


def _few(offsets: Tensor) -> str:
    told = offsets.flatten().tolist()
    return str(told) if len(told) <= 6 else f"[{', '.join(str(i) for i in told[:6])}, ...]"
