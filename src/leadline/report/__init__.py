"""One self-contained HTML page about a run or a comparison."""

from leadline.report.page import report

__all__ = ["report"]
