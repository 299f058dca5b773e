"""`report`: a page that needs no network, no script and nothing beside it."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from leadline.core import LeadlineError
from leadline.data import Dataset
from leadline.reports import of_comparison, of_run, run_card
from leadline.reports.parts import Card, Section
from leadline.training import Run
from leadline.training.files import whole_file
from leadline.training.progress import telling_progress

__all__ = ["MOST_BYTES", "report"]

MOST_BYTES = 3_000_000


def report(
    subject: Any,
    path: str | os.PathLike[str] = "report.html",
    *,
    data: Dataset | None = None,
    progress: bool = True,
) -> Path:
    """Write one HTML page about a run or a comparison, and return where it is.

    The page holds all it shows, so that it can be sent and read without a network. A figure that cannot
    be drawn is replaced by a line that says why.

    Args:
        subject: A run, or what `compare` returned.
        path: Where to write it.
        data: The data to judge a run on; those it learned from, loaded again, by default.
        progress: Whether to show what is being measured, and how far that is, where it takes long.

    Raises:
        RunError: If the file cannot be written.
    """
    with telling_progress(shown=progress):
        if isinstance(subject, Run):
            found, missing = _data_of(subject, data)
            card, sections = run_card.card_of(subject, found), of_run.sections_of(subject, found, missing)
        else:
            card, sections = of_comparison.card_of(subject), of_comparison.sections_of(subject)
    text = _fitted(card, sections)
    target = Path(path)
    with whole_file(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return target


def _data_of(run: Run, data: Dataset | None) -> tuple[Dataset | None, str]:
    """Return the data to judge on, or why there are none."""
    if data is not None:
        return data, ""
    try:
        return run.load_data(), ""
    except LeadlineError as error:
        return None, str(error)


def _fitted(card: Card, sections: Sequence[Section]) -> str:
    """Return the page; while it is too large, its largest picture gives way to a line that says so."""
    kept = list(sections)
    text = _rendered(card, kept)
    while len(text.encode()) > MOST_BYTES:
        sizes = [
            (len(block.picture or ""), s, b)
            for s, section in enumerate(kept)
            for b, block in enumerate(section.blocks)
        ]
        size, s, b = max(sizes, default=(0, 0, 0))
        if size == 0:
            break
        blocks = list(kept[s].blocks)
        blocks[b] = replace(blocks[b], picture=None, failed="left out: the page would exceed 3 MB")
        kept[s] = replace(kept[s], blocks=tuple(blocks))
        text = _rendered(card, kept)
    return text


def _rendered(card: Card, sections: Sequence[Section]) -> str:
    environment = Environment(
        loader=PackageLoader("leadline.reports"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template("page.html.j2").render(card=card, sections=sections)
