"""Numbers about a model on data, each with its kind, unit, protocol and interval."""

from leadline.measures.classification import (
    calibration_error,
    classification,
    classification_controls,
    reliability,
)
from leadline.measures.coherence import coherence
from leadline.measures.cost import model_cost
from leadline.measures.critic import Critic, critic_for, critics_kept
from leadline.measures.density import bits_per_dim, density
from leadline.measures.frechet import frechet_distance, inception_score, precision_recall
from leadline.measures.generation import generation, generation_controls
from leadline.measures.reading import MeasureError, Reading
from leadline.measures.references import Histogram, Uniform, density_references
from leadline.measures.representation import RandomNetwork, RawInput, representation, representation_controls
from leadline.measures.structure import structure, structure_controls
from leadline.measures.tasks import TASKS, Task

__all__ = [
    "TASKS",
    "Critic",
    "Histogram",
    "MeasureError",
    "RandomNetwork",
    "RawInput",
    "Reading",
    "Task",
    "Uniform",
    "bits_per_dim",
    "calibration_error",
    "classification",
    "classification_controls",
    "coherence",
    "critic_for",
    "critics_kept",
    "density",
    "density_references",
    "frechet_distance",
    "generation",
    "generation_controls",
    "inception_score",
    "model_cost",
    "precision_recall",
    "reliability",
    "representation",
    "representation_controls",
    "structure",
    "structure_controls",
]
