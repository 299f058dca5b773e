"""Tables: .csv and .tsv (gzipped or not) and .parquet, one row a sample.

Symbols:
    n rows, K classes.
"""

import io
import re
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from leadline.core import DataError, OptionError
from leadline.core.errors import require_extra, unknown_name
from leadline.core.memory import available
from leadline.data.dataset import Split
from leadline.data.found import Ask, Faults, Found, Part
from leadline.data.frames import numbers_of, samples_of, spelt
from leadline.data.meaning import Array
from leadline.data.memory import spoken
from leadline.data.rows import MISSING, rows_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["holds_table", "read_table"]

MOST_CLASSES = 20
UNKNOWN = -1
Frame = tuple["pd.DataFrame", list[int]]
Target = tuple[Tensor, tuple[str, ...] | None, tuple[str, ...] | None]


def holds_table(path: Path) -> bool:
    """Return whether `path` is a table by its name."""
    return bool(re.search(r"\.(csv|tsv)(\.gz)?$|\.parquet$", path.name.lower()))


def read_table(  # noqa: PLR0913
    path: Path,
    ask: Ask,
    *,
    target: str | int | None = None,
    task: str | None = None,
    test: str | None = None,
    header: bool | None = None,
    categorical: Sequence[str | int] = (),
    drop: Sequence[str | int] = (),
    missing: str = "refuse",
) -> Found:
    """Return the rows of a table: numbers are real columns, texts and truth values are categories.

    Args:
        path: A .csv, .tsv or .parquet file.
        ask: What every reader is asked.
        target: The column that is the label, by name or number (-1 is the last); none by default.
        task: "classification" or "regression"; else texts, and at most 20 whole numbers, are classes.
        test: Another file of the same columns, whose rows are the test split.
        header: Whether the first row names the columns; else it does if it looks like names.
        categorical: Columns whose numbers are categories; "*" for all.
        drop: Columns to leave out.
        missing: "refuse" rows with a missing field, or "keep" those of a table of categories alone; a
            missing value is -1, which only some models take.

    Raises:
        DataError: If a row is short, long or incomplete, or a field is not the number it should be.
        OptionError: If an option names no column.
    """
    if task not in (None, "classification", "regression"):
        raise OptionError(f'task={task!r}: give "classification" or "regression"')
    if missing not in ("refuse", "keep"):
        raise OptionError(f'missing={missing!r}: give "refuse" or "keep"')
    files = [path] if test is None else [path, Path(test)]
    read = [_frame(file, ask.faults, header=header) for file in files]
    frame, place = _joined(files, read)
    goal = None if target is None else _column(frame, target)
    every = list(_listed(categorical)) == ["*"]
    forced = {_column(frame, name) for name in (frame.columns if every else _listed(categorical))}
    left_out = [_column(frame, name) for name in _listed(drop)]
    inputs = frame.drop(columns=[*left_out, *([] if goal is None else [goal])])
    table = samples_of(inputs, place, forced, ask.faults, keep_missing=missing == "keep")
    first = int((table.good < len(read[0][0])).sum())
    y, classes, targets = None, None, None
    if goal is not None:
        y, classes, targets = _target(frame[goal].iloc[table.good], first, task, ask.faults)
    bounds = {"train": slice(0, first)} | ({"test": slice(first, None)} if test else {})
    parts = {
        split: Part(
            Split(table.x[rows], None if y is None else y[rows]), _places(place, table.good[rows].tolist())
        )
        for split, rows in bounds.items()
    }
    return Found(path.name.split(".")[0], parts, table.domain, classes, targets)


def _listed(names: Sequence[str | int] | str | int) -> Sequence[str | int]:
    """Return a list of columns, which may have been given as one."""
    return [names] if isinstance(names, (str, int)) else names


def _places(place: Callable[[int], str], rows: list[int]) -> Callable[[int], str]:
    return lambda i: place(rows[i])


def _frame(path: Path, faults: Faults, *, header: bool | None) -> Frame:
    """Return the rows of a file, and the line or number of each."""
    if not path.is_file():
        raise DataError(f"{path}: {'a folder, not a table' if path.is_dir() else 'no such file'}")
    if path.suffix == ".parquet":
        frame = _parquet(path)
        return frame, list(range(1, len(frame) + 1))
    import pandas as pd

    rows = rows_of(path, faults, header=header)

    def read(texts: Sequence[Any]) -> "pd.DataFrame":
        return pd.read_csv(
            io.BytesIO(rows.data),
            sep=rows.separator,
            header=0 if rows.named else None,
            names=rows.names,
            index_col=False,
            dtype=dict.fromkeys(texts, str),
            na_values=list(MISSING),
            keep_default_na=False,
            skipinitialspace=True,
            low_memory=False,
        )

    try:
        frame = read(())
        flags = [name for name in frame if pd.api.types.infer_dtype(frame[name]) == "boolean"]
        frame = read(flags) if flags else frame  # TRUE is kept as it is spelt
    except (ValueError, pd.errors.ParserError) as error:
        raise DataError(f"{path}: cannot be read as a table ({error})") from error
    return frame.loc[~frame.isna().all(axis=1)] if len(frame) > len(rows.lines) else frame, rows.lines


def _parquet(path: Path) -> "pd.DataFrame":
    """Return the rows of a Parquet file.

    Raises:
        DataError: If the file is damaged, too large, or has nested columns.
    """
    arrow, parquet = require_extra("pyarrow", "parquet"), require_extra("pyarrow.parquet", "parquet")
    try:
        with parquet.ParquetFile(path) as file:
            size = sum(
                file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups)
            )
            if size > available():
                raise DataError(f"{path}: needs {spoken(size)} of memory, {spoken(available())} can be had")
            table = file.read()
        nested = [field.name for field in table.schema if arrow.types.is_nested(field.type)]
        if nested:
            raise DataError(f'{path}: column "{nested[0]}" is nested; write plain columns')
        frame: pd.DataFrame = table.to_pandas(ignore_metadata=True)
    except (arrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: damaged, or not a Parquet file ({error})") from error
    if not len(frame):
        raise DataError(f"{path}: the file holds no rows")
    return frame


def _joined(files: list[Path], read: list[Frame]) -> tuple["pd.DataFrame", Callable[[int], str]]:
    """Return the rows of all files under one another, and what to call each.

    Raises:
        DataError: If their columns differ.
    """
    import pandas as pd

    first = list(read[0][0].columns)
    for file, (frame, _) in zip(files, read, strict=True):
        if list(frame.columns) != first:
            raise DataError(
                f"{file}: its columns are not those of {files[0].name}: {', '.join(map(str, first[:8]))}"
            )
    ends = list(accumulate(len(frame) for frame, _ in read))

    def place(row: int) -> str:
        which = next(i for i, end in enumerate(ends) if row < end)
        start = ends[which - 1] if which else 0
        return f"{files[which].name}, row {read[which][1][row - start]}"

    return pd.concat([frame for frame, _ in read], ignore_index=True), place


def _column(frame: "pd.DataFrame", name: str | int) -> str:
    """Return a column by its name or number.

    Raises:
        OptionError: If there is none.
    """
    columns = [str(column) for column in frame.columns]
    if str(name) in columns:
        return str(frame.columns[columns.index(str(name))])
    try:
        return str(frame.columns[int(name)])
    except (ValueError, IndexError):
        raise unknown_name("column", str(name), columns) from None


def _target(column: "pd.Series[Any]", first: int, task: str | None, faults: Faults) -> Target:
    """Return labels, class names, target names; the first `first` rows are those of train."""
    known = column.notna().to_numpy(copy=True)
    values = numbers_of(column)
    if values is not None and np.isnan(values[known]).any():
        values = None
    if task == "regression" and values is None:
        raise DataError(f'column "{column.name}" is not one of numbers, as task="regression" needs')
    whole = values is not None and bool((values[known] == np.floor(values[known])).all())
    few = whole and values is not None and len(np.unique(values[known])) <= MOST_CLASSES
    if values is not None and task != "classification" and (task == "regression" or not few):
        y = torch.from_numpy(values.astype(np.float32))[:, None]
        if torch.isinf(y).any():
            raise DataError(f'column "{column.name}": a target is not finite')
        return y, None, (str(column.name),)
    codes, names = spelt(column)
    if values is None:
        codes, names = _undotted(codes, names, first, faults)
    else:
        order = sorted(range(len(names)), key=lambda i: float(names[i]))
        codes, names = np.array([*np.argsort(order), UNKNOWN])[codes], [names[i] for i in order]
    return torch.from_numpy(codes), tuple(names), None


def _undotted(codes: Array, names: list[str], first: int, faults: Faults) -> tuple[Array, list[str]]:
    """Return class numbers and names; a dot behind all those of the test file is taken away, and told of."""
    train, test = ({names[i] for i in np.unique(part) if i >= 0} for part in (codes[:first], codes[first:]))
    if not test or test & train or not {name.rstrip(".") for name in test} <= train:
        return codes, names
    faults.note('the classes of the test file end in ".", those of train do not: the dot was taken away')
    kept = sorted(train)
    return np.array([*(kept.index(name.rstrip(".")) for name in names), UNKNOWN])[codes], kept
