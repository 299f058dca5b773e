"""One `fit` for every way to learn, checkpoints that resume bit for bit, and runs that open."""

from leadline.training.batchnorm import refresh_batchnorm
from leadline.training.fit import fit
from leadline.training.joining import ensemble
from leadline.training.run import Run, open_run

__all__ = ["Run", "ensemble", "fit", "open_run", "refresh_batchnorm"]
