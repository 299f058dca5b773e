"""The rows of a delimited text: the separator, the header, and rows with too few or too many fields."""

import csv
import io
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from leadline.core import DataError
from leadline.data.found import Faults
from leadline.data.meaning import Array
from leadline.data.text import text_of

__all__ = ["MISSING", "Rows", "rows_of"]

MISSING = ("", "?", "NA", "N/A", "NaN", "nan", "null", "NULL")
SEPARATORS = (",", "\t", ";", "|")
LOOKED_AT = 50
SHORT = 100


@dataclass(frozen=True)
class Rows:
    """The good rows of a delimited text.

    Args:
        data: The rows in UTF-8, bad ones left out; the first one names the columns if `named`.
        lines: The line of the file where each row ends, from 1, without the names.
        names: The names of the columns.
        named: Whether the first row names the columns.
        separator: What stands between fields.
    """

    data: bytes
    lines: list[int]
    names: list[str]
    named: bool
    separator: str


def rows_of(path: Path, faults: Faults, *, header: bool | None = None) -> Rows:
    """Return the rows of a file that have as many fields as most.

    Args:
        path: A delimited text in UTF-8, gzipped or not.
        faults: Where to tell of other rows.
        header: Whether the first row names the columns; else it does if it looks like names.

    Raises:
        DataError: If a row has too few or too many fields, or there are no rows.
    """
    data = text_of(path).encode()
    separator = "\t" if re.search(r"\.tsv(\.gz)?$", path.name.lower()) else _separator(data)
    table = _quoted(path, data, separator) if b'"' in data else _plain(data, separator)
    width = Counter(table.fields.tolist()).most_common(1)[0][0]
    for wrong in sorted(set(table.fields.tolist()) - {width}):
        places = [f"{path.name}, row {line}" for line in table.lines[table.fields == wrong]]
        faults.bad(places, f"{wrong} fields where most rows have {width}")
    good = np.flatnonzero(table.fields == width)
    head = [_cells(data, table, i, separator) for i in good[:LOOKED_AT]]
    named = _looks_named(head) if header is None else header
    names = _names(path, head[0]) if named else [f"x{i}" for i in range(width)]
    if len(good) == 1 and (named or not any(_number(cell) or cell in MISSING for cell in head[0])):
        raise DataError(f"{path}: the file holds one row of names and no rows of values")
    if len(good) < len(table.fields):
        data = b"\n".join(data[table.starts[i] : table.ends[i]] for i in good)
    return Rows(data, table.lines[good[named:]].tolist(), names, named, separator)


@dataclass(frozen=True)
class _Spans:
    """Where each row that is not blank begins and ends, the line it ends at, its number of fields."""

    starts: Array
    ends: Array
    lines: Array
    fields: Array


def _plain(data: bytes, separator: str) -> _Spans:
    """Return the rows of a text without quotes, one a line."""
    octets = np.frombuffer(data, np.uint8)
    breaks = np.flatnonzero(octets == ord("\n"))
    starts, ends = np.append(0, breaks + 1), np.append(breaks, len(octets))
    marks = np.flatnonzero(octets == ord(separator))
    fields = np.searchsorted(marks, ends) - np.searchsorted(marks, starts) + 1
    short = np.flatnonzero((fields == 1) & (ends - starts < SHORT))
    filled = np.ones(len(fields), dtype=bool)
    filled[[i for i in short if not data[starts[i] : ends[i]].strip()]] = False
    lines = np.flatnonzero(filled)
    return _Spans(starts[lines], ends[lines], lines + 1, fields[lines])


def _quoted(path: Path, data: bytes, separator: str) -> _Spans:
    """Return the rows of a text with quotes, where a row may go over several lines."""
    breaks = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n"))
    first, last = np.append(0, breaks + 1), np.append(breaks, len(data))
    reader = csv.reader(
        io.StringIO(data.decode(), newline=""), delimiter=separator, skipinitialspace=True, strict=True
    )
    spans, before = [], 0
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                spans.append((first[before], last[reader.line_num - 1], reader.line_num, len(row)))
            before = reader.line_num
    except csv.Error as error:
        raise DataError(f"{path}, row {before + 1}: {error}; is a quote not closed?") from None
    starts, ends, lines, fields = np.array(spans).T
    return _Spans(starts, ends, lines, fields)


def _cells(data: bytes, table: _Spans, row: int, separator: str) -> list[str]:
    """Return the fields of a row."""
    line = data[table.starts[row] : table.ends[row]].decode()
    return [cell.strip() for cell in next(csv.reader([line], delimiter=separator, skipinitialspace=True))]


def _looks_named(head: list[list[str]]) -> bool:
    """Return whether the first row names the columns.

    It does if none of its fields is a number or missing, and below it a column holds only numbers,
    or none of its fields occurs again in its column.
    """
    first, rest = head[0], head[1:]
    if not rest or any(_number(cell) or cell in MISSING for cell in first):
        return False
    columns = [[row[i] for row in rest if i < len(row) and row[i] not in MISSING] for i in range(len(first))]
    numeric = any(column and all(_number(cell) for cell in column) for column in columns)
    alone = all(cell not in column for cell, column in zip(first, columns, strict=True))
    return numeric or alone


def _number(cell: str) -> bool:
    """Return whether a field is a number."""
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _names(path: Path, first: list[str]) -> list[str]:
    """Return the column names of a header, unnamed columns by their number."""
    names = [name or f"x{i}" for i, name in enumerate(first)]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(
            f'{path}, row 1: two columns are named "{twice[0]}"; rename one, or give header=False'
        )
    return names


def _separator(data: bytes) -> str:
    """Return the separator that parts most of the first rows into the same number of fields."""
    head = [
        line for line in data[: 1 << 16].decode("utf-8", "ignore").split("\n")[:LOOKED_AT] if line.strip()
    ]

    def rows(separator: str) -> int:
        counts = Counter(line.count(separator) for line in head if separator in line)
        return counts.most_common(1)[0][1] if counts else 0

    return max(SEPARATORS, key=rows)
