"""What a page is made of: sections of blocks, each drawn on its own so that one failure costs one block."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure
from torch import Tensor

from leadline.core import Audio, Categories, Domain, LeadlineError, Quantity, Table, Vectors
from leadline.core.telling import told_of
from leadline.measures import Reading
from leadline.reports.drawing import PIXELS, image, svg
from leadline.reports.pictures import page_image
from leadline.reports.sounds import MOST_CLIPS, clips

__all__ = [
    "Block",
    "Card",
    "Section",
    "attempt",
    "figure_block",
    "readings_table",
    "samples_block",
    "table_block",
]

_MOST_COLUMNS, _MOST_ROWS, _MOST_LINES, _MOST_TEXT = 10, 100, 12, 400
_MOST_BESIDE = 6  # samples of a table that stands upright


@dataclass(frozen=True)
class Block:
    """One part of a section: a figure, a table, or lines of text.

    Args:
        title: What it shows, a few words.
        caption: How to read it.
        picture: A figure or image.
        width: How wide it is, in pixels of the page.
        columns: Head of a table.
        rows: Rows of a table, cells of text; one whose first cell is in `strong` is set off.
        texts: Samples of text, one a line.
        strong: First cells of the rows to set off.
        notes: Lines to be read beside it.
        folded: Lines on what it does not show, to be opened.
        failed: Why it could not be drawn.
    """

    title: str = ""
    caption: str = ""
    picture: Markup | None = None
    width: int = 0
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[Any, ...], ...] = ()
    texts: tuple[str, ...] = ()
    strong: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    folded: tuple[str, ...] = ()
    failed: str = ""


@dataclass(frozen=True)
class Section:
    """A titled part of a page.

    Args:
        title: Its heading.
        lead: What it is about, a sentence or two.
        blocks: Its blocks.
    """

    title: str
    lead: str = ""
    blocks: tuple[Block, ...] = ()


@dataclass(frozen=True)
class Card:
    """What was done, in pairs of a word and a value.

    Args:
        title: Title of the page.
        subtitle: One sentence.
        facts: Pairs of a word and a value.
        command: How to repeat it.
    """

    title: str
    subtitle: str
    facts: tuple[tuple[str, str], ...] = field(default=())
    command: str = ""


def attempt(title: str, draw: Callable[[], Block | Sequence[Block]]) -> tuple[Block, ...]:
    """Return what `draw` draws, or a block that says why it could not."""
    try:
        with told_of(title or "pictures"):
            drawn = draw()
    except LeadlineError as error:
        return (Block(title, failed=str(error)),)
    except Exception as error:  # noqa: BLE001 - a report never fails for one of its figures
        return (Block(title, failed=f"{type(error).__name__}: {error}".splitlines()[0]),)
    return (drawn,) if isinstance(drawn, Block) else tuple(drawn)


def figure_block(title: str, caption: str, figure: Figure) -> Block:
    """Return a block that shows a figure."""
    width = round(figure.get_figwidth() * PIXELS)
    return Block(title, caption, picture=svg(figure, f"{title}. {caption}"), width=width)


def samples_block(
    title: str, caption: str, domain: Domain, x: Tensor, columns: int = 8, tile: int = 48
) -> Block:
    """Return a block that shows raw samples: pictures, sounds as pictures, rows of a table, or texts."""
    if not len(x):
        return Block(title, failed="there are no samples to show")
    if domain.planes is not None:
        data, width = page_image(domain, x, columns, tile)
        return Block(title, caption, picture=image(data, f"{title}. {caption}", width), width=width)
    if isinstance(domain, Audio):
        told = f"{caption} Above the waveform, below the log-mel energies."
        return figure_block(title, told.strip(), clips(domain, x[:MOST_CLIPS]))
    rows = x[:_MOST_LINES]
    if isinstance(domain, (Vectors, Categories, Table)) and domain.dims <= _MOST_COLUMNS:
        cells = tuple(tuple(_values(domain, row)) for row in rows)
        return Block(title, caption, columns=_names(domain), rows=cells)
    if isinstance(domain, (Vectors, Categories, Table)) and domain.dims <= _MOST_ROWS:
        return _upright(title, caption, domain, rows[:_MOST_BESIDE])
    return Block(title, caption, texts=tuple(_cut(domain.show(row)) for row in rows))


def _upright(title: str, caption: str, domain: Vectors | Categories | Table, x: Tensor) -> Block:
    """Return a table of many columns with a line a column of the data, a column a sample."""
    cells = zip(_names(domain), *(_values(domain, row) for row in x), strict=True)
    heads = ("", *map(str, range(1, len(x) + 1)))
    return Block(title, f"{caption} A column a sample, in order.".strip(), columns=heads, rows=tuple(cells))


def _cut(text: str) -> str:
    """Return a text, its end left out where it is long."""
    return text if len(text) <= _MOST_TEXT else f"{text[:_MOST_TEXT]}…"


def _names(domain: Vectors | Categories | Table) -> tuple[str, ...]:
    if isinstance(domain, Table):
        return _names(domain.reals) + _names(domain.categories)
    return domain.columns or tuple(f"x{i}" for i in range(domain.dims))


def _values(domain: Vectors | Categories | Table, row: Tensor) -> list[str]:
    if isinstance(domain, Table):
        split = domain.reals.dims
        return _values(domain.reals, row[:split]) + _values(domain.categories, row[split:])
    if isinstance(domain, Vectors):
        return [f"{value:.4g}" for value in row.tolist()]
    numbers = [int(value) for value in row]
    if not domain.values:
        return [str(number) for number in numbers]
    return [names[number] for names, number in zip(domain.values, numbers, strict=True)]


def table_block(title: str, caption: str, frame: Any, strong: tuple[str, ...] = ()) -> Block:
    """Return a block that shows a pandas table; its index stands first where that has a name."""
    shown = frame.reset_index() if frame.index.name is not None else frame
    rows = tuple(
        tuple(_cell(value) for value in row) for row in shown.head(_MOST_ROWS).itertuples(index=False)
    )
    columns = tuple(str(column).replace("_", " ") for column in shown.columns)
    return Block(title, caption, columns=columns, rows=rows, strong=strong)


def readings_table(title: str, caption: str, reading: Reading) -> Block:
    """Return a block with every figure of a reading: value, interval, kind, unit, protocol."""
    rows = tuple(
        (
            name.replace("_", " "),
            number(quantity.value),
            ""
            if quantity.interval is None
            else f"{number(quantity.interval[0])} to {number(quantity.interval[1])}",
            quantity.kind,
            quantity.unit,
            f"{quantity.samples:,}" if quantity.samples else "",
            quantity.protocol,
        )
        for name, quantity in reading.quantities.items()
    )
    columns = ("figure", "value", "95 % interval", "kind", "unit", "n", "how")
    return Block(
        title, caption, columns=columns, rows=rows, strong=(reading.headline.replace("_", " "),),
        notes=reading.notes,
    )  # fmt: skip


def number(value: float) -> str:
    """Return a number with four digits, or a word where it is none."""
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return f"{value:.4g}".replace("-", "−", 1) if value < 0 else f"{value:.4g}"


def _cell(value: Any) -> str:
    if isinstance(value, Quantity):
        return str(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value)
    return "–" if value is None else str(value)
