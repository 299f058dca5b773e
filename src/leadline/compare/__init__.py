"""Many models, one data set, one table a task."""

from leadline.compare.comparing import compare, seconds_of
from leadline.compare.comparison import Comparison
from leadline.compare.ranking import ranks, told_apart

__all__ = ["Comparison", "compare", "ranks", "seconds_of", "told_apart"]
