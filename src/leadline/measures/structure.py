"""What structure the codes of a model show without being told: clusters, and what decoding brings back.

Clusters are those of the model where it has `assign(x)`, else k-means on standardised train codes with as
many centres as there are classes (8 without classes); they are judged on the test split.

Symbols:
    n test samples, d numbers of a code, K classes or centres.

Source:
    Hubert and Arabie (1985), Comparing partitions; Strehl and Ghosh (2002), Cluster ensembles;
    Rousseeuw (1987), Silhouettes. Errors of the adjusted Rand index: jackknife, Efron (1982).
"""

import math

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score, silhouette_samples
from torch import Tensor, nn

from leadline.core import Classes, DomainError, Quantity, has_verb, mean_quantity
from leadline.data import Dataset, Split
from leadline.measures.answers import answers, codes, split_of
from leadline.measures.probes import standardised
from leadline.measures.reading import Reading
from leadline.measures.reconstruction import component_curve, reconstruction
from leadline.measures.representation import RandomNetwork, RawInput

__all__ = ["adjusted_rand", "structure", "structure_controls"]

TASK = "structure"
CENTRES = 8
MOST_CODES = 5_000
MOST_TEST = 2_000


def structure(model: nn.Module, data: Dataset) -> Reading:
    """Return how the clusters of a model agree with the classes, and what decoding its codes brings back.

    The headline is the adjusted Rand index where there are classes, else the silhouette of the clusters
    in the domain's features, a space that all models share.

    Args:
        model: Anything that encodes; `assign` and `decode` are used where it has them.
        data: The data.

    Raises:
        MeasureError: If a code is not finite.
    """
    part = split_of(data, "test").head(MOST_TEST)
    test = codes(model, part, "test")
    clusters, protocol = _clusters(model, data, part, test)
    notes = []
    if len(clusters.unique()) == 1:
        notes.append("all test samples fall into one cluster")
    if has_verb(model, "predict"):
        notes.append("it predicts: its codes may have been learned from all the labels")
    if not bool((test - test[:1]).any()):
        notes.append("the codes are constant: they hold nothing")
    found, rows = _agreement(data, part, clusters, protocol)
    outlines = {"silhouette": _features(data, part), "silhouette_codes": standardised(test)[0]}
    for name, space in outlines.items():
        each = _silhouettes(space, clusters)
        found[name] = _mean_or_nan(
            each, f"{protocol}, {'domain features' if name == 'silhouette' else 'codes'}"
        )
        rows = each if rows is None and name == "silhouette" else rows
    found["clusters"] = Quantity(float(len(clusters.unique())), samples=len(clusters))
    found["code_size"] = Quantity(float(test.shape[1]))
    if has_verb(model, "decode"):
        found["reconstruction"] = reconstruction(model, data.domain, part)
    headline = "adjusted_rand" if "adjusted_rand" in found else "silhouette"
    return Reading(
        TASK, headline, higher_is_better=True, quantities=found, rows=rows,
        details={"clusters": clusters, "notes": notes},
    )  # fmt: skip


def structure_controls(data: Dataset) -> dict[str, Reading]:
    """Return the readings of k-means on the raw input and on random units.

    The first has the error of principal components of each size in its details. Samples of unequal lengths
    are no codes, so they have no such lines.
    """
    if -1 in data.domain.shape:
        return {}
    raw = structure(RawInput(data.domain), data)
    curve = component_curve(data)
    if curve is not None:
        raw.details["reconstruction_curve"] = curve
    return {"raw input": raw, "random network": structure(RandomNetwork(data.domain), data)}


def _clusters(model: nn.Module, data: Dataset, part: Split, test: Tensor) -> tuple[Tensor, str]:
    """Return the cluster of each test sample, (n,), and how it was found."""
    if has_verb(model, "assign"):
        return answers(model, "assign", part).long().flatten(), "the model's own clusters"
    train = codes(model, split_of(data, "train").head(MOST_CODES), "train")
    train, test = standardised(train, test)
    centres = min(_centres(data), len(np.unique(train.numpy(), axis=0)))
    means = KMeans(centres, n_init=4, random_state=0).fit(train.numpy())
    return torch.from_numpy(
        means.predict(test.numpy())
    ).long(), f"k-means of {len(train)} train codes, K={centres}"


def _centres(data: Dataset) -> int:
    return data.labels.outputs if isinstance(data.labels, Classes) else CENTRES


def _agreement(
    data: Dataset, part: Split, clusters: Tensor, protocol: str
) -> tuple[dict[str, Quantity], Tensor | None]:
    """Return how clusters agree with the known classes, and the jackknife rows of the Rand index."""
    if not isinstance(data.labels, Classes) or part.y is None:
        return {}, None
    mask = data.labels.known(part.y)
    if not bool(mask.any()):
        return {}, None
    y, guess = part.y[mask], clusters[mask]
    value, rows = adjusted_rand(y, guess)
    mutual = normalized_mutual_info_score(y.numpy(), guess.numpy())
    spread = mean_quantity(rows)
    low, high = spread.interval or (-1.0, 1.0)
    return {
        "adjusted_rand": Quantity(
            value,
            "",
            "exact",
            spread.stderr,
            (max(-1.0, low), min(1.0, high)),
            len(y),
            f"{protocol}; jackknife over samples",
        ),
        "mutual_information": Quantity(
            float(mutual), samples=len(y), protocol="normalised by the mean entropy"
        ),
    }, rows


def adjusted_rand(y: Tensor, clusters: Tensor) -> tuple[float, Tensor]:
    """Return the adjusted Rand index of two partitions (n,), and its jackknife pseudo-values (n,).

    The pseudo-values n a - (n - 1) a_without_i are moved so that their mean is the index itself.
    """
    n = len(y)
    value = float(adjusted_rand_score(y.numpy(), clusters.numpy()))
    if n < 3:
        return value, torch.full((n,), value).double()
    pairs = torch.stack([y, clusters])
    kinds, kind = torch.unique(pairs, dim=1, return_inverse=True)
    without = torch.tensor(
        [_rand_without(y, clusters, int((kind == k).nonzero()[0])) for k in range(kinds.shape[1])]
    )
    rows = (n * value - (n - 1) * without.double())[kind]
    return value, rows - rows.mean() + value


def _rand_without(y: Tensor, clusters: Tensor, place: int) -> float:
    """Return the adjusted Rand index with one sample left out."""
    keep = torch.arange(len(y)) != place
    return float(adjusted_rand_score(y[keep].numpy(), clusters[keep].numpy()))


def _features(data: Dataset, part: Split) -> Tensor | None:
    """Return the domain's features, or None where there would be too many."""
    try:
        return data.domain.features(part.x).double()  # type: ignore[arg-type]
    except DomainError:
        return None


def _silhouettes(space: Tensor | None, clusters: Tensor) -> Tensor | None:
    """Return the silhouette of each sample, or None unless there are 2 to n - 1 clusters."""
    if space is None or not 2 <= len(clusters.unique()) < len(clusters):
        return None
    return torch.from_numpy(np.asarray(silhouette_samples(space.numpy(), clusters.numpy()))).double()


def _mean_or_nan(rows: Tensor | None, protocol: str) -> Quantity:
    if rows is None:
        return Quantity(math.nan, protocol=f"{protocol}; not defined for this number of clusters")
    return mean_quantity(rows, protocol=protocol)
