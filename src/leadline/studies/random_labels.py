r"""A network fits labels that mean nothing.

Claim:
    The network fits random labels to 99.5 % training accuracy, is at chance on test samples then, and
    needs more steps than with the true labels.

Instrument:
    The same network and training on true labels, on inputs whose pixels are shuffled by one permutation,
    by one permutation a sample, or replaced by normal noise of the same mean and variance, and on labels
    drawn uniformly anew. Read: accuracy on training and test samples (with their true labels), and the
    steps until training accuracy reaches 99.5 %. Not to fit within the steps is undecided, never false.

Controls:
    positive: two layers of ReLUs with 2 n + d weights interpolate any n random labels exactly
        (Theorem 1), residual below 1e-6.
    negative: a network with far fewer weights than samples stays below 50 % on random labels.

Source:
    Zhang, Bengio, Hardt, Recht and Vinyals (2017), Understanding deep learning requires rethinking
    generalization, ICLR, section 2, Theorem 1 and figure 1.

Cost:
    Under a minute on digits with a 64-512-10 net and 5 seeds.
"""

import math
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from leadline.core import Bits, Classes, Images, OptionError, Vectors
from leadline.core.randomness import derive_seed
from leadline.data import Dataset, load
from leadline.studies.corruption import SETTINGS, corrupted, interpolation_error
from leadline.studies.finding import Finding
from leadline.studies.pictures import bars_figure
from leadline.studies.study import Control, Seeds, all_of, named_seeds, over_seeds, passed, readings, side
from leadline.studies.trainings import accuracy_of, fit_until, labelled, started

__all__ = ["random_labels"]

FITTED, RESIDUAL, CONTROL_MOST = 0.995, 1e-6, 0.5
WIDE, NARROW = {"hidden": (512,)}, {"hidden": (2,)}
TRAINING: dict[str, Any] = {"optimizer": "momentum", "lr": 0.1, "batch_size": 128}
PROBE_EVERY = 10


def random_labels(
    data: Dataset | None = None,
    model: str = "mlp",
    options: Mapping[str, Any] | None = None,
    *,
    narrow: Mapping[str, Any] | None = None,
    samples: int = 2000,
    steps: int = 3000,
    seeds: Seeds = 5,
    jobs: int = 1,
) -> Finding:
    """Return whether a network fits random labels, at chance on the test, in more steps than true ones.

    Args:
        data: Labelled pictures, bits or vectors; digits by default.
        model: Catalog name of a classifier.
        options: Its options; one hidden layer of 512 by default.
        narrow: Options that make it too small to fit, for the control; one hidden layer of 2 by default.
        samples: Most training samples.
        steps: Most steps of a training, at least 1.
        seeds: Number of trainings of each setting, or which seeds.
        jobs: Trainings at once, through joblib.

    Raises:
        DomainError: If the data have no classes, or inputs whose dimensions cannot be shuffled.
        OptionError: If `steps`, `samples` or `seeds` is below 1, or a seed comes twice.
        StudyError: If a control fails.
    """
    source = _usable(load("digits") if data is None else data, samples, steps)
    chosen = dict(WIDE if options is None else options)
    few = dict(NARROW if narrow is None else narrow)
    controls = passed(
        {
            "2n + d weights interpolate": Control(
                lambda: interpolation_error(source), lambda error: error < RESIDUAL, f"be below {RESIDUAL:g}"
            ),
            "too few weights": Control(
                lambda: _reading(source, model, few, steps, "random labels", 0)["train accuracy"],
                lambda accuracy: accuracy < CONTROL_MOST,
                f"be below {CONTROL_MOST:g}",
            ),
        }
    )
    settings = [(source, model, chosen, steps, setting) for setting in SETTINGS]
    table = readings(_reading, settings, seeds=seeds, jobs=jobs)
    noise, truth = (table[table["setting"] == name] for name in ("random labels", "true labels"))
    ratios = noise["steps"].to_numpy() / truth["steps"].to_numpy()
    classes = cast(Classes, source.labels).outputs
    value = over_seeds(ratios, "steps / steps", "random over true labels")
    accuracy = torch.tensor(noise["test accuracy"].tolist(), dtype=torch.float64)
    at_chance = _at_chance(accuracy, 1 / classes, len(source.test))
    fits = True if bool((noise["train accuracy"] >= FITTED).all()) else None
    slower = side(value.interval, 1.0, above=True)
    size = f"{model} {chosen}, {len(source.train):,} training samples of {source.name}"
    return Finding(
        study="random_labels",
        claim=f"On {source.name}, {model} fits random labels, then at chance, and slower than true ones.",
        holds=all_of([fits, at_chance, slower]),
        value=value,
        controls=controls,
        table=table,
        protocol=f"{size}, {TRAINING}, at most {steps:,} steps, {named_seeds(seeds)}; labels drawn uniformly",
        draw=bars_figure,
        details={"chance": 1 / classes, "fits": fits, "at chance": at_chance, "slower": slower},
    )


def _reading(
    data: Dataset, model: str, options: dict[str, Any], steps: int, setting: str, seed: int
) -> dict[str, Any]:
    """Return accuracies and steps to fit of one training."""
    changed = corrupted(data, setting, derive_seed(seed, setting))
    net = started(changed, model, options, seed)
    taken = fit_until(
        net, changed, lambda net: accuracy_of(net, changed.train) >= FITTED, steps=steps, every=PROBE_EVERY,
        seed=seed, **TRAINING,
    )  # fmt: skip
    accuracies = {f"{name} accuracy": accuracy_of(net, getattr(changed, name)) for name in ("train", "test")}
    return {"setting": setting, "seed": seed, **accuracies, "steps": math.nan if taken is None else taken}


def _usable(data: Dataset, samples: int, steps: int) -> Dataset:
    """Return the labelled part of the data, whose inputs must have dimensions to shuffle."""
    data.domain.require(Images, Bits, Vectors)
    if steps < 1:
        raise OptionError(f"steps must be at least 1, got {steps}")
    return labelled(data, "random_labels", samples)


def _at_chance(accuracy: Tensor, chance: float, count: int) -> bool:
    """Return whether chance lies within two standard errors, between seeds or binomial, of the accuracy."""
    binomial = math.sqrt(chance * (1 - chance) / (count * len(accuracy)))
    between = float(accuracy.std()) / math.sqrt(len(accuracy)) if len(accuracy) > 1 else 0.0
    return abs(float(accuracy.mean()) - chance) <= 2 * max(binomial, between)
