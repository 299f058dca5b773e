"""How near the samples of a model come to the data, and whether they are copies.

All distances between sets are taken in the feature space of a named critic, between the train split and as
many samples as the test split has (at most 1,000): a Fréchet distance of few samples is too large, by an
amount that depends on their number, so every line of a comparison uses the same number. Two lines say
what can be hoped for: held-out data, and draws of independent histograms.

Symbols:
    n samples of a set, f features, s sets.

Source:
    Heusel et al. (2017); Kynkäänniemi et al. (2019); Salimans et al. (2016); see `frechet`.
    Memorisation by rank: Meehan, Chaudhuri and Dasgupta (2020), A Non-Parametric Test to Detect
    Data-Copying in Generative Models, section 3.
"""

import math
from dataclasses import dataclass

import torch
from scipy.stats import mannwhitneyu, t
from torch import Tensor, nn

from leadline.core import Domain, Quantity
from leadline.core.telling import told_of
from leadline.data import Dataset
from leadline.measures.answers import draw, split_of
from leadline.measures.critic import Critic, critic_for
from leadline.measures.frechet import frechet_distance, inception_score, nearest_distances, precision_recall
from leadline.measures.reading import MeasureError, Reading
from leadline.measures.references import Histogram

__all__ = ["generation", "generation_controls", "interval_of_sets"]

TASK = "generation"
SETS = 5
NEIGHBOURS = 3
MOST_SAMPLES = 1_000
MOST_TRAIN = 10_000
SHOWN = 16


@dataclass(frozen=True)
class _Bench:
    """What samples are held against: raw data, and the same as the critic sees them."""

    critic: Critic
    train: Tensor
    held_out: Tensor
    features: Tensor
    few: Tensor
    domain: Domain

    @property
    def count(self) -> int:
        """Return the number n of samples of every set."""
        return len(self.held_out)


def generation(model: nn.Module, data: Dataset, critic: Critic | None = None, sets: int = SETS) -> Reading:
    """Return how near samples come to the train split, and how much nearer than held-out data.

    Args:
        model: Anything that samples.
        data: The data.
        critic: The feature space; the data's own critic by default.
        sets: Independent sets of samples; figures are their means, intervals are over them.

    Raises:
        MeasureError: If a sample is not finite, or the test split has fewer than five samples.
    """
    bench = _bench(data, critic)
    drawn = []
    for number in range(max(sets, 1)):
        with told_of(f"set {number + 1} of {max(sets, 1)}"):
            drawn.append(draw(model, bench.count, "generation", number))
        data.domain.validated(drawn[-1])
    return _reading(bench, drawn)


def generation_controls(data: Dataset, critic: Critic | None = None) -> dict[str, Reading]:
    """Return the best that can be hoped for (held-out data) and a poor line (independent histograms)."""
    if -1 in data.domain.shape:  # samples of unequal lengths have no distance
        return {}
    bench = _bench(data, critic)
    histogram = generation(Histogram(data), data, bench.critic)
    return {"held-out data": _reading(bench, [bench.held_out]), "histogram samples": histogram}


def interval_of_sets(values: list[float]) -> tuple[float, float] | None:
    """Return Student's 95 % interval of the mean of independent sets; None for fewer than two."""
    rows = torch.tensor(values).double()
    if len(rows) < 2 or not bool(torch.isfinite(rows).all()):
        return None
    half = float(t.ppf(0.975, len(rows) - 1)) * float(rows.std()) / math.sqrt(len(rows))
    return float(rows.mean()) - half, float(rows.mean()) + half


def _bench(data: Dataset, critic: Critic | None) -> _Bench:
    held_out = split_of(data, "test").head(MOST_SAMPLES).x
    if len(held_out) < NEIGHBOURS + 2:
        raise MeasureError(f"generation needs at least {NEIGHBOURS + 2} test samples, got {len(held_out)}")
    if len(data.train) < len(held_out):
        raise MeasureError("generation needs at least as many train as test samples")
    judge = critic or critic_for(data)
    train = split_of(data, "train").head(MOST_TRAIN)
    few = train.head(len(held_out)).x
    return _Bench(
        judge,
        train.x,  # type: ignore[arg-type]
        held_out,  # type: ignore[arg-type]
        judge.features(train.x),  # type: ignore[arg-type]
        judge.features(few),  # type: ignore[arg-type]
        data.domain,
    )


def _reading(bench: _Bench, drawn: list[Tensor]) -> Reading:
    """Return the figures of sets of samples, each as large as the held-out set."""
    features = [_finite(bench.critic.features(x)) for x in drawn]
    pairs = [precision_recall(bench.few, rows, NEIGHBOURS) for rows in features]
    protocol = f"{len(drawn)} sets of {bench.count} samples against {len(bench.train)} of train"
    frechet = [frechet_distance(bench.features, rows) for rows in features]
    quantities = {
        "frechet": _mean(frechet, f"{protocol}; {bench.critic.name}"),
        "precision": _mean([precision for precision, _ in pairs], f"{NEIGHBOURS} neighbours, {protocol}"),
        "recall": _mean([recall for _, recall in pairs], f"{NEIGHBOURS} neighbours, {protocol}"),
    }
    if bench.critic.predict is not None:
        scores = [inception_score(bench.critic.predict(x)) for x in drawn]
        quantities["inception"] = _mean(scores, "exp of the mutual information of sample and class")
    copies, details = _memorisation(bench, drawn[0])
    return Reading(
        TASK,
        "frechet",
        higher_is_better=False,
        quantities=quantities | copies,
        details={"critic": bench.critic.name, "samples": bench.count, **details},
    )


def _finite(rows: Tensor) -> Tensor:
    if not bool(torch.isfinite(rows).all()):
        raise MeasureError("the critic's features of the samples are not finite")
    return rows


def _mean(values: list[float], protocol: str) -> Quantity:
    """Return the mean over sets with its interval."""
    rows = torch.tensor(values).double()
    stderr = float(rows.std()) / math.sqrt(len(rows)) if len(rows) > 1 else None
    return Quantity(
        float(rows.mean()), "", "estimate", stderr, interval_of_sets(values), len(values), protocol
    )


def _memorisation(bench: _Bench, made: Tensor) -> tuple[dict[str, Quantity], dict[str, object]]:
    """Return how near samples lie to the train split against held-out data, in the domain's features.

    `copying` is the share of pairs (sample, held-out datum) in which the sample lies nearer to its nearest
    training sample: 1/2 for fresh data, 1 for copies. `copying_p` is the one-sided p-value of the rank
    test for copies. `nearest_ratio` is the ratio of the median distances.
    """
    train = bench.domain.features(bench.train)
    near, place = nearest_distances(bench.domain.features(made), train)
    usual, _ = nearest_distances(bench.domain.features(bench.held_out), train)
    middle = float(usual.median())
    notes = [] if middle > 0 else ["half of the held-out data equal a training sample: no nearest ratio"]
    test = mannwhitneyu(near.numpy(), usual.numpy(), alternative="less")
    share = 1 - float(test.statistic) / (len(near) * len(usual))
    n, protocol = len(near), "distance to the nearest training sample against that of held-out data"
    order = near.argsort()[:SHOWN]
    found = {
        "nearest_ratio": Quantity(
            float(near.median()) / middle if middle > 0 else math.nan, samples=n, protocol=protocol
        ),
        "copying": Quantity(share, samples=n, protocol=protocol),
        "copying_p": Quantity(float(test.pvalue), samples=n, protocol="one-sided rank test"),
    }
    shown: dict[str, object] = {
        "nearest_samples": made[order],
        "nearest_train": bench.train[place[order]],
        "nearest_distances": near[order],
        "notes": notes,
    }
    return found, shown
