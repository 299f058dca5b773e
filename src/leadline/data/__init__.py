"""From a name or a path to a data set."""

from leadline.data.arrays import from_arrays
from leadline.data.dataset import Dataset, Split, Stream
from leadline.data.describe import Description, describe
from leadline.data.load import load

__all__ = ["Dataset", "Description", "Split", "Stream", "describe", "from_arrays", "load"]
