"""The one table of tasks: what each asks of a model, how it is measured, and against what."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from leadline.catalog import CATALOG, model_class
from leadline.core import has_verb
from leadline.data import Dataset
from leadline.measures.classification import classification, classification_controls
from leadline.measures.density import density
from leadline.measures.generation import generation, generation_controls
from leadline.measures.reading import Reading
from leadline.measures.references import density_references
from leadline.measures.representation import representation, representation_controls
from leadline.measures.structure import structure, structure_controls

__all__ = ["TASKS", "Task"]


@dataclass(frozen=True)
class Task:
    """A line of the table.

    Args:
        name: Name of the task.
        question: What it asks, in one line.
        verbs: Verbs that a model needs.
        headline: Figures that models are sorted by, by kind of data.
        measure: Reads a model on data.
        controls: Reads the lines that need no training.
        shown: Figures beside the headline that a printed table shows.
        labelled: Whether the data need labels.
    """

    name: str
    question: str
    verbs: tuple[str, ...]
    headline: str
    measure: Callable[[nn.Module, Dataset], Reading]
    controls: Callable[[Dataset], dict[str, Reading]]
    shown: tuple[str, ...]
    labelled: bool = False

    @property
    def models(self) -> tuple[str, ...]:
        """Return the catalog's models that have the verbs, but those that have to be asked for by name."""
        return tuple(
            name for name, entry in CATALOG.items() if not entry.asked and self.fits(model_class(name))
        )

    def fits(self, model: object) -> bool:
        """Return whether a model, or its class, has the verbs."""
        return all(has_verb(model, verb) for verb in self.verbs)


TASKS: dict[str, Task] = {
    "classification": Task(
        "classification",
        "How well does it predict the labels?",
        ("predict",),
        "accuracy, or rmse for real targets",
        classification,
        classification_controls,
        ("nll", "calibration_error", "balanced_accuracy", "mae", "r2"),
        labelled=True,
    ),
    "density": Task(
        "density",
        "How likely does it find data it has not seen?",
        ("log_prob",),
        "bits_per_dim, bits_per_token for text, nats for real columns",
        density,
        density_references,
        ("nats", "bits_per_dim", "bits_per_token_stateful"),
    ),
    "generation": Task(
        "generation",
        "Do its samples look like the data, and are they new?",
        ("sample",),
        "frechet",
        generation,
        generation_controls,
        ("precision", "recall", "inception", "copying", "nearest_ratio"),
    ),
    "representation": Task(
        "representation",
        "What do its codes hold about the labels?",
        ("encode",),
        "area under the label-efficiency curve, or r2 for real targets",
        representation,
        representation_controls,
        ("accuracy_1", "accuracy_10", "accuracy_all", "knn_accuracy", "knn_r2"),
        labelled=True,
    ),
    "structure": Task(
        "structure",
        "Which groups and how small a code does it find?",
        ("encode",),
        "adjusted_rand, or silhouette without classes",
        structure,
        structure_controls,
        ("mutual_information", "silhouette", "reconstruction", "code_size"),
    ),
}
