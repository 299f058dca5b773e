"""The named judge of generated samples: a classifier trained on the data, or principal components.

Its last hidden layer is the feature space of the Fréchet distance, of precision and of recall; its class
probabilities give the inception-type score. It is trained once for each data set and process, with a fixed
seed, so that every model of a comparison meets the same judge; processes that share a folder train it once
between them.
"""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import Tensor, nn

from leadline.catalog import build
from leadline.core import Classes, DomainError, RunError, has_verb
from leadline.core.randomness import derive_seed
from leadline.core.telling import told_of
from leadline.data import Dataset, Split
from leadline.measures.answers import answers, split_of
from leadline.measures.reading import MeasureError
from leadline.training import fit
from leadline.training.checkpoint import load_weights, weights_of
from leadline.training.files import read_tensors, write_tensors

__all__ = ["Critic", "critic_for", "critics_kept"]

EPOCHS, LEAST_STEPS = 15, 300
SEED, BATCH = 0, 128
COMPONENTS = 32
MOST_TRAIN = 10_000
MOST_CRITICS = 8
_SMALLEST_PICTURE = 8

_critics: dict[str, "Critic"] = {}
_training = Lock()  # one at a time: threads that compare models share the judge
_folders: list[Path] = []


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
    with _training:
        if key not in _critics:
            while len(_critics) >= MOST_CRITICS:
                _critics.pop(next(iter(_critics)))
            _critics[key] = _classifier(data) if _classes_seen(data) > 1 else _components(data)
        return _critics[key]


@contextmanager
def critics_kept(folder: str | os.PathLike[str] | None) -> Iterator[None]:
    """Inside the block, keep trained critics in `folder`, and find there what another process trained.

    Nothing is kept if it is None. Two processes that want a critic at the same time both train it, to the
    same weights; a folder that cannot be read or written is as good as an empty one.
    """
    if folder is None:
        yield
        return
    _folders.append(Path(folder))
    try:
        yield
    finally:
        _folders.pop()


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
    kept = _folders[-1] / f"critic-{data.fingerprint}.safetensors" if _folders else None
    with torch.random.fork_rng(devices=[]), told_of("training the critic"):
        torch.manual_seed(derive_seed(SEED, "critic"))
        model = build(name, data)
        said = _found(model, kept)
        if said is None:
            fit(model, small, steps=steps, seed=SEED, batch_size=BATCH, out=False, progress=False)
            said = f"trained on {data.name} ({steps} steps, test accuracy {_right(model, data.test):.3f})"
            if kept is not None:
                with suppress(RunError):  # the next process trains its own
                    write_tensors(kept, weights_of(model), {"said": said})
    verb = "encode" if has_verb(model, "encode") else "predict"
    layer = "hidden layer" if verb == "encode" else "log-probabilities"
    return Critic(
        f"{layer} of a {name} {said}",
        features=lambda x: _said(model, verb, x).flatten(1).double(),
        predict=lambda x: _said(model, "predict", x).double(),
    )


def _found(model: nn.Module, kept: Path | None) -> str | None:
    """Put the weights of a critic that was kept into `model`, and return what is said of it, or None."""
    if kept is None or not kept.is_file():
        return None
    try:
        weights, note = read_tensors(kept)
        load_weights(model, weights, str(kept))
    except RunError:  # damaged, or of another make
        return None
    return str(note.get("said"))


def _right(model: nn.Module, test: Split) -> float:
    """Return the share of labelled test samples that a classifier gets right; 0 without any."""
    if test.y is None or not bool((test.y >= 0).any()):
        return 0.0
    known = test.y >= 0
    return float((answers(model, "predict", test).argmax(1) == test.y)[known].double().mean())


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
