"""One self-contained HTML page about a run or a comparison."""

from leadline.reports.page import report

__all__ = ["report"]
