"""From a name or a path to a data set."""

from leadline.data.dataset import Dataset, Split, Stream

__all__ = ["Dataset", "Split", "Stream"]
