"""Many models, one data set, one table a task."""

from leadline.comparison.comparing import compare
from leadline.comparison.comparison import Comparison
from leadline.comparison.ranking import ranks, told_apart

__all__ = ["Comparison", "compare", "ranks", "told_apart"]
