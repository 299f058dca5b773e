"""Linear probes and nearest neighbours on codes, by scikit-learn.

Symbols:
    n samples, d numbers of a code, C inverse strength of the squared penalty on the weights.
"""

import warnings

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from torch import Tensor

from leadline.core.randomness import generator_for

__all__ = [
    "PENALTIES",
    "best_penalty",
    "labelled_subset",
    "linear_probe",
    "nearest_neighbours",
    "ridge_probe",
    "standardised",
]

PENALTIES = (0.01, 0.1, 1.0, 10.0)
NEIGHBOURS = 5
ITERATIONS = 200


def standardised(train: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """Return codes less the mean and over the deviation of the train codes; constant columns become 0."""
    mean, scale = train.mean(0), train.std(0, correction=0)
    flat = scale <= 1e-12 * train.abs().amax(0).clamp(min=1e-300)
    unit = torch.where(flat, 1.0, scale)
    return tuple(torch.where(flat, 0.0, (part - mean) / unit) for part in (train, *others))


def linear_probe(train: Tensor, y: Tensor, test: Tensor, penalty: float) -> Tensor:
    """Return the classes that a logistic regression on `train` (n, d) gives to `test`: (m,)."""
    if len(y.unique()) == 1:
        return y[:1].expand(len(test))
    probe = LogisticRegression(C=penalty, max_iter=ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        probe.fit(train.numpy(), y.numpy())
    return torch.from_numpy(probe.predict(test.numpy()))


def best_penalty(train: Tensor, y: Tensor, valid: Tensor, truth: Tensor) -> float:
    """Return the C of `PENALTIES` with the best accuracy on `valid`, the smallest among equals."""
    if len(truth) == 0:
        return 1.0
    scores = [float((linear_probe(train, y, valid, c) == truth).double().mean()) for c in PENALTIES]
    return PENALTIES[int(np.argmax(scores))]


def ridge_probe(train: Tensor, y: Tensor, test: Tensor) -> Tensor:
    """Return the targets that a ridge regression gives to `test`, its penalty by leave-one-out: (m, D)."""
    probe = RidgeCV(alphas=np.logspace(-3, 4, 15)).fit(train.numpy(), y.numpy())
    return torch.from_numpy(np.asarray(probe.predict(test.numpy()))).view(len(test), -1)


def nearest_neighbours(train: Tensor, y: Tensor, test: Tensor) -> Tensor:
    """Return what the 5 nearest train codes say of `test`: a class by vote, or the mean of the targets."""
    kind = KNeighborsRegressor if y.is_floating_point() else KNeighborsClassifier
    model = kind(n_neighbors=min(NEIGHBOURS, len(train))).fit(train.numpy(), y.numpy())
    return torch.from_numpy(np.asarray(model.predict(test.numpy())))


def labelled_subset(y: Tensor, per_class: int, draw: int) -> Tensor:
    """Return the places of `per_class` samples of each class (all where fewer), the same for every model."""
    generator = generator_for(0, "labelled subset", per_class, draw)
    chosen = []
    for value in y.unique().tolist():
        places = (y == value).nonzero().squeeze(1)
        chosen.append(places[torch.randperm(len(places), generator=generator)[:per_class]])
    return torch.cat(chosen)
