"""Which of two models is better, where the evidence can tell.

One seed: the paired bootstrap. Both models are judged on the same test samples, so the difference of their
rows is resampled 2,000 times; they are told apart if the 95 % interval of its mean excludes zero. An error
that all rows of a model share (an estimated log-partition) widens the interval in quadrature. A figure that
is no mean over samples (a Fréchet distance) has an interval of its own: the difference must exceed the half
widths of both in quadrature.

Several seeds: Welch's interval of the difference of the means over seeds. It speaks of training's randomness,
on this test split.

Each comparison is at 95 %, without a correction for their number: among twenty ties one is expected to
be broken by chance. A bound is compared as it stands.

Source:
    Efron and Tibshirani (1993), An Introduction to the Bootstrap, chapters 13 and 16; Welch (1947).
"""

import math
from collections.abc import Sequence

import torch
from scipy.stats import t
from torch import Tensor

from leadline.core.randomness import generator_for
from leadline.measures import Reading

__all__ = ["over_seeds", "ranks", "told_apart"]

RESAMPLES = 2_000
_CELLS = 2_000_000


def ranks(entries: Sequence[Sequence[Reading]]) -> tuple[list[int], list[int | None]]:
    """Return the order of models, best first, and the rank of each in that order.

    The best model opens rank 1. Each next one shares the rank of the model that opened it unless the two
    can be told apart; then it opens a rank of its own, numbered by its place: 1, 1, 3. A model whose
    headline is not finite stands last, without a rank.

    Args:
        entries: The readings of each model, one a seed.
    """
    higher = entries[0][0].higher_is_better if entries else True
    worth = [_mean(readings) * (1 if higher else -1) for readings in entries]
    finite = [math.isfinite(value) for value in worth]
    order = sorted(range(len(entries)), key=lambda i: (not finite[i], -worth[i] if finite[i] else 0.0))
    found: list[int | None] = []
    leader, rank = -1, 0
    for place, i in enumerate(order):
        if not finite[i]:
            found.append(None)
            continue
        if leader < 0 or told_apart(entries[leader], entries[i]):
            leader, rank = i, place + 1
        found.append(rank)
    return order, found


def told_apart(a: Sequence[Reading], b: Sequence[Reading]) -> bool:
    """Return whether the headlines of two models differ beyond chance at 95 %."""
    if len(a) > 1 and len(b) > 1:
        return _welch([reading.value.value for reading in a], [reading.value.value for reading in b])
    first, second = a[0], b[0]
    if first.rows is not None and second.rows is not None and len(first.rows) == len(second.rows):
        shared = math.hypot(first.shared_stderr, second.shared_stderr)
        return _paired(first.rows.double() - second.rows.double(), shared)
    return _separate(first, second)


def over_seeds(values: Sequence[float]) -> tuple[float, tuple[float, float] | None]:
    """Return the mean over seeds and Student's 95 % interval, None for one seed or none finite."""
    rows = torch.tensor(list(values)).double()
    mean = float(rows.mean())
    if len(rows) < 2 or not math.isfinite(mean):
        return mean, None
    half = float(t.ppf(0.975, len(rows) - 1)) * float(rows.std()) / math.sqrt(len(rows))
    return mean, (mean - half, mean + half)


def _mean(readings: Sequence[Reading]) -> float:
    return over_seeds([reading.value.value for reading in readings])[0]


def _paired(differences: Tensor, shared: float) -> bool:
    """Return whether the bootstrap interval of the mean difference excludes zero."""
    n = len(differences)
    if n < 2 or not bool(torch.isfinite(differences).all()):
        return False
    low, high = _interval(differences)
    mean = float(differences.mean())
    below = mean - math.hypot(mean - low, 1.96 * shared)
    above = mean + math.hypot(high - mean, 1.96 * shared)
    return below > 0 or above < 0


def _interval(rows: Tensor) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the mean of `rows` (n,), in blocks of bounded memory."""
    n = len(rows)
    generator = generator_for(0, "paired bootstrap", n)
    block = max(1, _CELLS // n)
    means = []
    for start in range(0, RESAMPLES, block):
        size = min(block, RESAMPLES - start)
        means.append(rows[torch.randint(n, (size, n), generator=generator)].mean(1))
    ends = torch.quantile(torch.cat(means), torch.tensor([0.025, 0.975]).double())
    return float(ends[0]), float(ends[1])


def _separate(a: Reading, b: Reading) -> bool:
    """Return whether two figures differ by more than the half widths of their intervals in quadrature."""
    if a.value.interval is None or b.value.interval is None:
        return False
    halves = [(high - low) / 2 for low, high in (a.value.interval, b.value.interval)]
    return abs(a.value.value - b.value.value) > math.hypot(*halves)


def _welch(a: Sequence[float], b: Sequence[float]) -> bool:
    """Return whether Welch's 95 % interval of the difference of means excludes zero."""
    x, y = torch.tensor(list(a)).double(), torch.tensor(list(b)).double()
    parts = [float(rows.var()) / len(rows) for rows in (x, y)]
    gap, variance = abs(float(x.mean() - y.mean())), sum(parts)
    if variance == 0:
        return gap > 0
    freedom = variance**2 / sum(part**2 / (len(rows) - 1) for part, rows in zip(parts, (x, y), strict=True))
    return gap > float(t.ppf(0.975, freedom)) * math.sqrt(variance)
