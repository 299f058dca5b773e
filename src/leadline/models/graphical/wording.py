"""Graphs in words: edges and hidden variables as options name them.

"cause -> effect" directed,   "a - b" undirected,   "cause=3" a hidden variable of three states
"""

import itertools
from collections.abc import Sequence

from leadline.core import Categories, Classes, Labels, OptionError
from leadline.core.errors import nearest

__all__ = [
    "above_columns",
    "beside_columns",
    "column_number",
    "hidden_of",
    "joined",
    "label_of",
    "parents_of",
    "scopes_of",
]


def column_number(domain: Categories, name: str) -> int:
    """Return the number of the column that an option names.

    Raises:
        OptionError: If there is none; the message names the nearest.
    """
    columns = domain.columns or tuple(f"x{v}" for v in range(len(domain.sizes)))
    if name not in columns:
        known = ", ".join(columns[:12]) + (", ..." if len(columns) > 12 else "")
        raise OptionError(f"edges: unknown column {name!r}{nearest(name, columns)}; there are {known}")
    return columns.index(name)


def hidden_of(hidden: Sequence[str]) -> Categories | None:
    """Return the variables that words such as "cause=3" name.

    Raises:
        OptionError: If one has no number of states, at least 2, or a name comes twice.
    """
    names, sizes = [], []
    for word in hidden:
        name, _, count = word.partition("=")
        if not (name.strip() and count.strip().isdigit() and int(count) >= 2):
            raise OptionError(f'hidden: write "name=3" with at least 2 states, got {word!r}')
        names.append(name.strip())
        sizes.append(int(count))
    if len(set(names)) < len(names):
        raise OptionError(f"hidden: {', '.join(names)} are not all different")
    values = tuple(tuple(str(s) for s in range(size)) for size in sizes)
    return Categories(tuple(sizes), tuple(names), values) if names else None


def label_of(labels: Labels | None, domain: Categories) -> Categories | None:
    """Return the label as a variable called "label", None where the data have no classes.

    Raises:
        OptionError: If a column has that name already.
    """
    if not isinstance(labels, Classes):
        return None
    if "label" in domain.columns:
        raise OptionError('a column is called "label", as the label itself will be: give it another name')
    return Categories((len(labels.names),), ("label",), (labels.names,))


def above_columns(parents: Sequence[Sequence[int]], columns: int) -> list[list[int]]:
    """Return parents with the variable behind the columns above every column, where no edge names it."""
    label = columns
    if parents[label] or any(label in above for above in parents):
        return [list(above) for above in parents]
    return [[*above, label] if v < columns else list(above) for v, above in enumerate(parents)]


def beside_columns(scopes: Sequence[tuple[int, ...]], columns: int) -> list[tuple[int, ...]]:
    """Return scopes with the variable behind the columns joined to every column, where none names it."""
    label = columns
    named = any(label in scope for scope in scopes)
    return [*scopes, *(() if named else ((v, label) for v in range(columns)))]


def joined(domain: Categories, hidden: Categories | None) -> Categories:
    """Return the observed variables with the hidden ones behind them.

    Raises:
        OptionError: If two have one name.
    """
    if hidden is None:
        return domain
    names = domain.columns or tuple(f"x{v}" for v in range(domain.dims))
    for name in hidden.columns:
        if name in names:
            raise OptionError(f"hidden: {name!r} is a column of the data; give it another name")
    values = domain.values or tuple(tuple(str(s) for s in range(k)) for k in domain.sizes)
    return Categories(domain.sizes + hidden.sizes, names + hidden.columns, values + hidden.values)


def parents_of(domain: Categories, edges: Sequence[str]) -> list[list[int]]:
    """Return the parents that edges such as "a -> b" name.

    Raises:
        OptionError: If an edge has no arrow, or a column is unknown.
    """
    parents: list[list[int]] = [[] for _ in domain.sizes]
    for edge in edges:
        numbers = [column_number(domain, name.strip()) for name in edge.split("->")]
        if len(numbers) < 2:
            raise OptionError(f'edges: write "cause -> effect", got {edge!r}')
        for above, below in itertools.pairwise(numbers):
            if above not in parents[below]:
                parents[below].append(above)
    return parents


def scopes_of(domain: Categories, edges: Sequence[str]) -> list[tuple[int, ...]]:
    """Return the scopes that edges such as "a - b" name.

    Raises:
        OptionError: If a column is unknown, or an edge names fewer than two.
    """
    scopes = []
    for edge in edges:
        names = [name.strip() for name in edge.split(" - ")]
        if len(set(names)) != len(names) or len(names) < 2:
            raise OptionError(f'edges: write "a - b" with different columns, got {edge!r}')
        scopes.append(tuple(column_number(domain, name) for name in names))
    return scopes
