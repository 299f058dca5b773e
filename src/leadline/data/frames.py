"""The columns of a table: which are real, which are categories, and which rows are whole.

Symbols:
    n rows, r real columns, c category columns.
"""

from collections.abc import Callable, Set
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from leadline.core import Categories, DataError, Domain, Table
from leadline.data.dataset import Split
from leadline.data.found import Faults, vectors_of
from leadline.data.meaning import Array

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Columns", "numbers_of", "samples_of", "spelt"]

NUMERIC_SHARE = 0.9
MOST_VALUES = 1000
MOST_NUMBERS = 50  # different ones of categories of which most rows have one of their own
GREATEST = float(np.finfo(np.float32).max)
Coded = tuple[Array, list[str]]


@dataclass(frozen=True)
class Columns:
    """Rows as samples.

    Args:
        x: Real columns, then category columns by number, (n, r + c).
        good: Which rows of the table they are, (n,).
        reals: Names of the real columns.
        categories: The category columns, or None.
    """

    x: Tensor
    good: Array
    reals: tuple[str, ...]
    categories: Categories | None

    def domain(self, train: Split) -> Domain:
        """Return the domain, with the moments of the training split."""
        if self.categories is None:
            return vectors_of(self.reals)(train)
        if not self.reals:
            return self.categories
        count = len(self.reals)
        reals = vectors_of(self.reals)(Split(train.x[:, :count])) if isinstance(train.x, Tensor) else None
        return Table(reals, self.categories)  # type: ignore[arg-type]


def samples_of(
    frame: "pd.DataFrame",
    place: Callable[[int], str],
    forced: Set[str],
    faults: Faults,
    *,
    keep_missing: bool = False,
) -> Columns:
    """Return the rows of a table in which every field is known and finite.

    Args:
        frame: The table, without the target.
        place: Return the file and the line of a row.
        forced: Columns whose numbers are categories.
        faults: Where to tell of other rows.
        keep_missing: Whether a category may be missing (-1); then no column may be one of numbers.

    Raises:
        DataError: If a column is neither, or no row is whole.
    """
    reals: dict[str, Array] = {}
    texts: dict[str, Coded] = {}
    good = np.ones(len(frame), dtype=bool)
    for name, column in frame.items():
        missing = column.isna().to_numpy()
        if missing.all():
            faults.note(f'column "{name}" is empty in every row and was left out')
            continue
        values = None if name in forced else numbers_of(column)
        if not keep_missing:
            otherwise = 'keep it with missing="keep" (--data missing=keep)' if values is None else ""
            good = _without(good, missing, place, f'column "{name}" is missing', faults, otherwise)
        if keep_missing and values is not None:
            raise DataError(
                f'column "{name}" holds numbers, and only categories may be missing: '
                f'give categorical="{name}" (or "*" for all columns), or drop="{name}"'
            )
        if values is None:
            texts[str(name)] = spelt(column)
        else:
            good = _finite(column, values, good, place, faults)
            reals[str(name)] = values
    if not good.any() or not (reals or texts):
        raise DataError(f"{place(0)}: no whole row, or no column, is left")
    for name, (_, names) in texts.items():
        _check_values(frame[name], names, len(frame), numbers=name in forced)
    rows = np.flatnonzero(good)
    coded = {name: _used(codes[rows], names) for name, (codes, names) in texts.items()}
    found = _columns({name: values[rows] for name, values in reals.items()}, coded, rows)
    gaps = keep_missing and bool((found.x < 0).any())
    return (
        replace(found, categories=replace(found.categories, missing=True))
        if gaps and found.categories
        else found
    )


def _check_values(column: "pd.Series[Any]", names: list[str], rows: int, *, numbers: bool) -> None:
    """Check that a column of categories has few enough of them.

    Raises:
        DataError: If they are more than `MOST_VALUES`, or numbers of which hardly two rows share one.
    """
    numbers = numbers and numbers_of(column) is not None
    alone = numbers and len(names) > max(MOST_NUMBERS, rows / 2)
    if len(names) > MOST_VALUES or alone:
        what = "numbers, too many for categories: cut them into ranges," if numbers else "texts;"
        raise DataError(
            f'column "{column.name}" has {len(names)} different {what} {"or " * numbers}leave it out with '
            f'drop="{column.name}" (--data drop={column.name})'
        )


def _used(codes: Array, names: list[str]) -> Coded:
    """Return codes and names without those that no row has."""
    used, again = np.unique(codes, return_inverse=True)
    gaps = int(len(used) > 0 and used[0] < 0)  # the code -1 stays
    return again - gaps, [names[i] for i in used[gaps:]]


def _finite(
    column: "pd.Series[Any]", values: Array, good: Array, place: Callable[[int], str], faults: Faults
) -> Array:
    """Return which rows stay when those whose field is no finite number are told of."""
    text = f'column "{column.name}": '
    wrong = np.isnan(values) & good
    good = _without(
        good, wrong, place, f"{text}{_shown(column, wrong)} is not a number, unlike the others", faults
    )
    large = ~(np.abs(values) <= GREATEST) & good
    return _without(
        good, large, place, f"{text}{_shown(column, large)} is not a finite float32 number", faults
    )


def _columns(reals: dict[str, Array], coded: dict[str, Coded], good: Array) -> Columns:
    """Return real columns and coded ones side by side."""
    kind = np.float32 if reals else np.int64
    columns = [*reals.values(), *(codes for codes, _ in coded.values())]
    x = torch.from_numpy(np.stack([column.astype(kind) for column in columns], 1))
    values = tuple(tuple(names) for _, names in coded.values())
    categories = Categories(tuple(len(names) for names in values), tuple(coded), values) if coded else None
    return Columns(x, good, tuple(reals), categories)


def _without(
    good: Array, bad: Array, place: Callable[[int], str], what: str, faults: Faults, otherwise: str = ""
) -> Array:
    """Return which rows stay when the `bad` ones among the good are told of."""
    faults.bad([place(row) for row in np.flatnonzero(good & bad).tolist()], what, otherwise)
    return good & ~bad


def numbers_of(column: "pd.Series[Any]") -> Array | None:
    """Return the numbers of a column, NaN for a field that is none; None if it is not one of numbers."""
    import pandas as pd

    if pd.api.types.is_bool_dtype(column):
        return None
    if pd.api.types.is_numeric_dtype(column):
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    codes, texts = pd.factorize(column)  # each text is read once, however many rows have it
    values = pd.to_numeric(pd.Series(texts), errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    numbers = np.append(values, np.nan)[codes]  # a missing field has the code -1
    known = int((codes >= 0).sum())
    return numbers if (~np.isnan(numbers)).sum() >= NUMERIC_SHARE * max(known, 1) else None


def spelt(column: "pd.Series[Any]") -> tuple[Array, list[str]]:
    """Return the number of each field's text, -1 where missing, and the texts, sorted.

    Whole numbers are spelt without a point.
    """
    import pandas as pd

    codes, values = pd.factorize(column)
    names = [_text(value) for value in values]
    number = {name: i for i, name in enumerate(sorted(set(names)))}
    return np.array([*(number[name] for name in names), -1])[codes], list(number)


def _text(value: object) -> str:
    """Return a field as text."""
    whole = isinstance(value, float) and value.is_integer()
    return str(int(value) if whole else value).strip()  # type: ignore[call-overload]


def _shown(column: "pd.Series[Any]", where: Array) -> str:
    """Return the first of some fields, as text."""
    rows = np.flatnonzero(where)
    return repr(column.iloc[int(rows[0])]) if len(rows) else ""
