"""What the codes of a model hold about the labels.

With Classes: the accuracy of a linear probe on the codes as the number of labels grows (1, 5, 10, 50 a class
and all), and the area under that curve over the logarithm of the number of labels, divided by the width,
so that it lies in [0, 1]. With Targets: R2 of a ridge regression.

Symbols:
    n training codes, m test codes, d numbers of a code, s labels a class.

Source:
    Alain and Bengio (2016), Understanding intermediate layers using linear classifier probes;
    label-efficiency curves as in Henaff et al. (2020), Data-Efficient Image Recognition with CPC.
"""

import math
from dataclasses import dataclass

import pandas as pd
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from leadline.core import Domain, Quantity, Targets, bootstrap_interval, has_verb
from leadline.core.randomness import generator_for
from leadline.data import Dataset, Split
from leadline.measures.answers import codes, known, split_of
from leadline.measures.classification import wilson_interval
from leadline.measures.probes import (
    best_penalty,
    labelled_subset,
    linear_probe,
    nearest_neighbours,
    ridge_probe,
    standardised,
)
from leadline.measures.reading import MeasureError, Reading

__all__ = ["RandomNetwork", "RawInput", "representation", "representation_controls"]

TASK = "representation"
SIZES = (1, 5, 10, 50)
DRAWS = 5
MOST_CODES = 5_000


@dataclass(frozen=True)
class _Codes:
    """Standardised codes and labels of the three splits, samples without a label left out."""

    train: Tensor
    valid: Tensor
    test: Tensor
    y_train: Tensor
    y_valid: Tensor
    y_test: Tensor
    notes: list[str]


def representation(model: nn.Module, data: Dataset, draws: int = DRAWS, most: int = MOST_CODES) -> Reading:
    """Return what a probe reads off the codes of `encode`.

    Args:
        model: Anything that encodes.
        data: Labelled data; the probe learns on the train split and is judged on the test split.
        draws: Random choices of the labelled samples at each size of the curve, at least 5.
        most: Most codes taken of a split, spread evenly over it.

    Raises:
        MeasureError: If there are no labels, fewer than two classes, or a code is not finite.
    """
    found = _codes(model, data, most)
    if has_verb(model, "predict"):
        found.notes.append("it predicts: its codes may have been learned from all the labels")
    if isinstance(data.labels, Targets):
        with threadpool_limits(1):
            return _targets_reading(found)
    if len(found.y_train.unique()) < 2:
        raise MeasureError("a probe needs at least two classes among the labelled train samples; found one")
    with threadpool_limits(1):  # probes are small: more threads only wait for each other
        return _classes_reading(found, max(draws, DRAWS), most)


def representation_controls(data: Dataset) -> dict[str, Reading]:
    """Return the readings of codes that nobody learned: the raw input, and an untrained network.

    Samples of unequal lengths are no codes, so they have no such lines.
    """
    if -1 in data.domain.shape:
        return {}
    return {
        "raw input": representation(RawInput(data.domain), data),
        "random network": representation(RandomNetwork(data.domain), data),
    }


class RawInput(nn.Module):
    """The features of the domain as codes.

    Verbs:
        encode

    Args:
        domain: What one sample is.
    """

    def __init__(self, domain: Domain) -> None:
        super().__init__()
        self.domain = domain

    def encode(self, x: Tensor) -> Tensor:
        """Return the features of each row: (n, *shape) -> (n, f)."""
        return self.domain.features(x)


class RandomNetwork(nn.Module):
    """One hidden layer of ReLU units with fixed random weights of He's scale.

    Verbs:
        encode

    Args:
        domain: What one sample is.
        width: Number of units.
        seed: Seed of the weights.
    """

    def __init__(self, domain: Domain, width: int = 256, seed: int = 0) -> None:
        super().__init__()
        self.domain = domain
        generator = generator_for(seed, "random network")
        inputs = domain.feature_count
        weight = torch.randn(inputs, width, generator=generator) * math.sqrt(2 / inputs)
        self.register_buffer("weight", weight)

    def encode(self, x: Tensor) -> Tensor:
        """Return the units of each row: (n, *shape) -> (n, width)."""
        return torch.relu(self.domain.features(x, like=self.weight) @ self.weight)  # type: ignore[arg-type, operator]


def _codes(model: nn.Module, data: Dataset, most: int) -> _Codes:
    """Return the codes of at most `most` samples of each split."""
    parts = {name: split_of(data, name).head(most) for name in ("train", "test")}
    parts["valid"] = data.valid.head(most)
    masks = {name: known(data, parts[name]) for name in ("train", "test")}
    masks["valid"] = _known_or_none(data, parts["valid"])
    raw = {name: codes(model, _kept(parts[name], mask), name) for name, mask in masks.items() if mask.any()}
    raw.setdefault("valid", raw["train"][:0])
    train, valid, test = standardised(raw["train"], raw["valid"], raw["test"])
    y = {name: parts[name].y[mask] for name, mask in masks.items()}  # type: ignore[index]
    notes = [] if bool(train.any()) else ["the codes are constant: they hold nothing"]
    return _Codes(train, valid, test, y["train"], y["valid"], y["test"], notes)


def _known_or_none(data: Dataset, part: Split) -> Tensor:
    """Return which samples carry a label; none of an empty or unlabelled split."""
    if data.labels is None or part.y is None:
        return torch.zeros(len(part), dtype=torch.bool)
    return data.labels.known(part.y)


def _kept(part: Split, mask: Tensor) -> Split:
    return Split(*part.rows(mask.nonzero().squeeze(1)))


def _classes_reading(found: _Codes, draws: int, most: int) -> Reading:
    penalty = best_penalty(found.train, found.y_train, found.valid, found.y_valid)
    counts = torch.bincount(found.y_train)
    counts = counts[counts > 0]
    sizes = [size for size in SIZES if size < int(counts.max())]
    # (sizes + 1, draws, m): whether each test sample is met; all labels are one draw, repeated
    hits = torch.stack(
        [*(_hits_at(found, size, draws, penalty) for size in sizes), _hits_all(found, penalty, draws)]
    )
    places = torch.tensor([*sizes, float(counts.double().mean())]).double()
    area = torch.einsum("s,sdm->dm", _trapezoid(places.log()), hits)  # (draws, m)
    voted = nearest_neighbours(found.train, found.y_train, found.test)
    n, d = found.train.shape
    protocol = (
        f"logistic regression on standardised codes, C={penalty:g} chosen on valid at all labels; "
        f"{n} train codes (at most {most}), {draws} draws"
    )
    every = wilson_interval(int(hits[-1, 0].sum()), len(found.y_test))
    return Reading(
        TASK,
        "area",
        higher_is_better=True,
        quantities={
            "area": _area(area, protocol),
            **{f"accuracy_{size}": _over_draws(hits[i]) for i, size in enumerate(sizes)},
            "accuracy_all": every,
            "knn_accuracy": wilson_interval(int((voted == found.y_test).sum()), len(found.y_test)),
            "code_size": Quantity(float(d)),
        },
        rows=area.mean(0),
        details={"curve": _curve(places, hits), "notes": found.notes},
    )


def _hits_at(found: _Codes, size: int, draws: int, penalty: float) -> Tensor:
    """Return whether the probe of `size` labels a class meets each test sample: (draws, m)."""
    return torch.stack([_hits(found, labelled_subset(found.y_train, size, i), penalty) for i in range(draws)])


def _hits_all(found: _Codes, penalty: float, draws: int) -> Tensor:
    """Return whether the probe of all labels meets each test sample, repeated: (draws, m)."""
    return _hits(found, torch.arange(len(found.y_train)), penalty).expand(draws, -1)


def _hits(found: _Codes, places: Tensor, penalty: float) -> Tensor:
    said = linear_probe(found.train[places], found.y_train[places], found.test, penalty)
    return (said == found.y_test).double()


def _trapezoid(x: Tensor) -> Tensor:
    """Return weights w so that sum w f is the integral of f over x divided by the width; they sum to 1."""
    if len(x) == 1:
        return torch.ones(1).double()
    step = x.diff()
    weights = torch.zeros(len(x)).double()
    weights[:-1] += step / 2
    weights[1:] += step / 2
    return weights / step.sum()


def _area(area: Tensor, protocol: str) -> Quantity:
    """Return the mean area (draws, m) with the errors of the draws and of the test samples together."""
    draws, m = area.shape
    of_draws = float(area.mean(1).std()) / math.sqrt(draws)
    of_samples = float(area.mean(0).std()) / math.sqrt(m) if m > 1 else math.inf
    stderr = math.hypot(of_draws, of_samples)
    mean = float(area.mean())
    interval = (max(0.0, mean - 1.96 * stderr), min(1.0, mean + 1.96 * stderr))
    return Quantity(mean, stderr=stderr, interval=interval, samples=m, protocol=protocol)


def _over_draws(hits: Tensor) -> Quantity:
    """Return the mean accuracy of hits (draws, m) with a bootstrap interval over the draws."""
    each = hits.mean(1)
    return Quantity(
        float(each.mean()),
        stderr=float(each.std()) / math.sqrt(len(each)),
        interval=bootstrap_interval(each),
        samples=len(each),
        protocol="bootstrap over the draws of labels",
    )


def _curve(places: Tensor, hits: Tensor) -> pd.DataFrame:
    """Return the label-efficiency curve as a table."""
    points = [_over_draws(hit) for hit in hits]
    ends = [point.interval or (point.value, point.value) for point in points]
    return pd.DataFrame(
        {
            "labels_per_class": places.tolist(),
            "accuracy": [point.value for point in points],
            "low": [low for low, _ in ends],
            "high": [high for _, high in ends],
        }
    )


def _targets_reading(found: _Codes) -> Reading:
    y, truth = found.y_train.double(), found.y_test.double()
    centred = (truth - truth.mean(0)).square().sum(0)
    notes = found.notes
    if bool((centred == 0).any()):
        raise MeasureError("a target is constant over the test split: R2 is not defined")
    said = ridge_probe(found.train, y, found.test)
    rows = 1 - len(truth) * ((said - truth).square() / centred).mean(1)  # its mean is R2
    voted = nearest_neighbours(found.train, y, found.test).view(len(truth), -1)
    knn = 1 - ((voted - truth).square().sum(0) / centred).mean()
    stderr = float(rows.std()) / math.sqrt(len(rows))
    mean = float(rows.mean())
    return Reading(
        TASK,
        "r2",
        higher_is_better=True,
        quantities={
            "r2": Quantity(
                mean,
                stderr=stderr,
                interval=(mean - 1.96 * stderr, mean + 1.96 * stderr),
                samples=len(rows),
                protocol=f"ridge regression on standardised codes, {len(y)} train codes",
            ),
            "knn_r2": Quantity(float(knn), samples=len(rows)),
            "code_size": Quantity(float(found.train.shape[1])),
        },
        rows=rows,
        details={"predicted": said, "targets": truth, "notes": notes},
    )
