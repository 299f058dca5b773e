"""The named judge of generated samples: a classifier trained on the data, or principal components.

Its last hidden layer is the feature space of the Fréchet distance, of precision and of recall; its class
probabilities give the inception-type score. It is trained once for each data set and process, with a fixed
seed, so that every model of a comparison meets the same judge.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import Tensor, nn

from leadline.catalog import build
from leadline.core import Classes, DomainError, has_verb
from leadline.core.randomness import derive_seed
from leadline.core.telling import told_of
from leadline.data import Dataset, Split
from leadline.measures.answers import answers, split_of
from leadline.measures.reading import MeasureError
from leadline.training import fit

__all__ = ["Critic", "critic_for"]

EPOCHS, LEAST_STEPS = 15, 300
SEED, BATCH = 0, 128
COMPONENTS = 32
MOST_TRAIN = 10_000
MOST_CRITICS = 8
_SMALLEST_PICTURE = 8

_critics: dict[str, "Critic"] = {}


@dataclass(frozen=True)
class Critic:
    """A feature space with a name.

    Args:
        name: What it is, in a few words.
        features: Raw samples (n, *x) -> feature rows (n, f) in double precision.
        predict: Raw samples (n, *x) -> class log-probabilities (n, K), or None without classes.
    """

    name: str
    features: Callable[[Tensor], Tensor]
    predict: Callable[[Tensor], Tensor] | None = None


def critic_for(data: Dataset) -> Critic:
    """Return the judge of `data`: a trained classifier where there are two classes, else components.

    The classifier is the catalog's `convnet` for pictures of at least 8 x 8 and its `mlp` otherwise,
    trained for 15 epochs and at least 300 steps with seed 0 on at most 10,000 samples. Without classes
    the features are the scores of at most 32 principal components of the domain's features.

    Raises:
        MeasureError: If the domain has no features to judge by.
    """
    key = data.fingerprint
    if key not in _critics:
        while len(_critics) >= MOST_CRITICS:
            _critics.pop(next(iter(_critics)))
        _critics[key] = _classifier(data) if _classes_seen(data) > 1 else _components(data)
    return _critics[key]


def _classes_seen(data: Dataset) -> int:
    """Return the number of classes among the labelled train samples."""
    if not isinstance(data.labels, Classes) or data.train.y is None:
        return 0
    return len(data.train.y[data.labels.known(data.train.y)].unique())


def _classifier(data: Dataset) -> Critic:
    """Return the hidden layer and the probabilities of a classifier trained on the data."""
    planes = data.domain.planes
    name = "convnet" if planes and min(planes[1:]) >= _SMALLEST_PICTURE else "mlp"
    small = Dataset(
        data.name,
        data.domain,
        data.labels,
        data.train.head(MOST_TRAIN),
        data.valid.head(MOST_TRAIN),
        data.test,
    )
    steps = max(LEAST_STEPS, EPOCHS * math.ceil(len(small.train) / BATCH))
    with torch.random.fork_rng(devices=[]), told_of("training the critic"):
        torch.manual_seed(derive_seed(SEED, "critic"))
        model = build(name, data)
        run = fit(model, small, steps=steps, seed=SEED, batch_size=BATCH, out=False, progress=False)
    said = answers(model, "predict", data.test).argmax(1)
    truth = data.test.y
    mask = torch.ones(len(said), dtype=torch.bool) if truth is None else truth >= 0
    right = float((said == truth)[mask].double().mean()) if truth is not None and bool(mask.any()) else 0.0
    verb = "encode" if has_verb(model, "encode") else "predict"
    layer = "hidden layer" if verb == "encode" else "log-probabilities"
    return Critic(
        f"{layer} of a {name} trained on {data.name} ({run.steps} steps, test accuracy {right:.3f})",
        features=lambda x: _said(model, verb, x).flatten(1).double(),
        predict=lambda x: _said(model, "predict", x).double(),
    )


def _said(model: nn.Module, verb: str, x: Tensor) -> Tensor:
    return answers(model, verb, Split(x))


def _components(data: Dataset) -> Critic:
    """Return the scores of the first principal components of the domain's features."""
    domain = data.domain
    try:
        rows = domain.features(split_of(data, "train").head(MOST_TRAIN).x).double()  # type: ignore[arg-type]
    except DomainError as error:
        raise MeasureError(f"samples cannot be judged without classes: {error}") from error
    count = min(COMPONENTS, rows.shape[1], max(len(rows) - 1, 1))
    with np.errstate(invalid="ignore"):  # rows that are all alike have no variance to share out
        found = PCA(count, random_state=0).fit(
            rows.numpy()
        )  # exact for small tables, randomised for wide ones
    mean = torch.from_numpy(found.mean_).to(rows)
    basis = torch.from_numpy(found.components_.T.copy()).to(rows)  # (f, count)
    return Critic(
        f"{count} principal components of the features of {data.name}, for want of classes",
        features=lambda x: (domain.features(x).double() - mean) @ basis,
    )
