"""The one table of studies by name. Reading it loads no study: each is imported when it is first run."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leadline.studies.finding import Finding

__all__ = ["STUDIES", "Study"]


@dataclass(frozen=True)
class Study:
    """A line of the table; call it to run the study, the function of its name in the module of its name.

    Args:
        name: The phenomenon.
        claim: What it puts to the test.
        needs: What it is given: "data", the verbs of a model, "model" for any with a loss, "function" for
            one by name; empty for a study that needs nothing.
        cost: What it takes at its smallest scale.
    """

    name: str
    claim: str
    needs: tuple[str, ...]
    cost: str

    @property
    def run(self) -> "Callable[..., Finding]":
        """Return the function that runs it."""
        module = importlib.import_module(f"leadline.studies.{self.name}")
        found: Callable[..., Finding] = vars(module)[self.name]
        return found

    def __call__(self, *args: Any, **options: Any) -> "Finding":
        """Return the finding; see `run`."""
        return self.run(*args, **options)


_TABLE = (
    Study(
        "birthday_paradox",
        "A generator makes fewer different samples than it saw.",
        ("sample",),
        "seconds",
    ),
    Study(
        "chain_convergence",
        "The spectral gap predicts how fast a Gibbs sampler forgets, and a cold lattice does not mix.",
        (),
        "seconds",
    ),
    Study(
        "contrastive_divergence_bias",
        "The bias of CD-k falls as its chains grow.",
        ("data",),
        "under a minute",
    ),
    Study(
        "dense_parameters",
        "A DenseNet errs less than a residual net of as many parameters.",
        ("data",),
        "under a minute",
    ),
    Study(
        "depth",
        "A very deep plain net trains worse than a shallower one, and shortcuts mend it.",
        ("data",),
        "under a minute",
    ),
    Study(
        "edge_of_stability",
        "Full-batch gradient descent brings the largest Hessian eigenvalue to 2 / lr and keeps it there.",
        ("data",),
        "under a minute",
    ),
    Study(
        "em_monotone",
        "No sweep of EM lowers the objective.",
        ("data",),
        "seconds",
    ),
    Study(
        "hessian_spectrum",
        "Nine tenths of the Hessian's eigenvalues lie within 5 % of the largest from zero.",
        ("model",),
        "seconds",
    ),
    Study(
        "langevin_bias",
        "The bias of unadjusted Langevin grows with its step; with the accept step there is none.",
        (),
        "seconds",
    ),
    Study(
        "large_batch",
        "Large batches end in sharper minima than small ones, and generalise worse.",
        ("data",),
        "under a minute",
    ),
    Study(
        "layerwise_bound",
        "Each further layer of a deep belief net raises the bound on held-out samples.",
        ("data",),
        "under a minute",
    ),
    Study(
        "optimizer_paths",
        "Momentum takes the square root of gradient descent's steps, and noise leaves a saddle it stays on.",
        ("function",),
        "ten seconds",
    ),
    Study(
        "random_labels",
        "A network fits random labels, is at chance on the test, and is slower than on true labels.",
        ("data",),
        "under a minute",
    ),
    Study(
        "saddle_index",
        "The higher the loss at a critical point, the more directions lead down from it.",
        ("data",),
        "under a minute",
    ),
    Study(
        "sharpness",
        "The largest Hessian eigenvalue can change tenfold though no output does; the adaptive one cannot.",
        ("model",),
        "seconds",
    ),
    Study(
        "stationary_point",
        "The weights of a model, or a point of a function, are a local minimum.",
        ("model", "function"),
        "seconds",
    ),
    Study(
        "variational_gap",
        "The mean-field gap is the divergence from the posterior; it grows with coupling.",
        (),
        "seconds",
    ),
)

STUDIES: dict[str, Study] = {study.name: study for study in _TABLE}
