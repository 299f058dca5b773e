"""One self-contained HTML page about a run or a comparison."""

from leadline.reports.of_network import draw
from leadline.reports.page import report

__all__ = ["draw", "report"]
