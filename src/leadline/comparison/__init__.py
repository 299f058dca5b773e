"""Many models, one data set, one table a task."""

from leadline.comparison.comparing import compare, seconds_of
from leadline.comparison.comparison import Comparison
from leadline.comparison.ranking import ranks, told_apart

__all__ = ["Comparison", "compare", "ranks", "seconds_of", "told_apart"]
