r"""How many different samples a model makes, by the birthday paradox.

Claim:
    The support of the model is smaller than its training set.

Instrument:
    Two draws coincide with probability c = sum p^2, so 1 / c is the effective support: never more
    than the support, and equal to it where all samples are equally likely. c is the share of coinciding
    pairs in a pool of draws; its variance is that of a U-statistic. A batch of s draws holds a pair with
    probability 1/2 at s (s - 1) c / 2 = ln 2. Pictures and real vectors coincide when they are nearer
    than the nearest hundredth of held-out samples are to the training set; other samples, when equal.

Controls:
    positive: a uniform sampler of 500 known points; its interval must hold 500.
    negative: a sampler that never repeats itself; its support must have no upper end.

Source:
    Arora, Risteski and Zhang (2018), Do GANs learn the distribution? Some theory and empirics, ICLR.

Cost:
    Seconds: five pools of 1,000 draws and their distances.
"""

import math
from itertools import chain
from typing import Any, cast

import pandas as pd
import torch
from torch import Tensor, nn

from leadline.core import Images, OptionError, Quantity, Vectors, require_verb
from leadline.core.randomness import generator_for
from leadline.data import Dataset
from leadline.studies.finding import Finding
from leadline.studies.pictures import pairs_figure
from leadline.studies.study import Control, passed, readings, side

__all__ = ["birthday_paradox", "support_size"]

KNOWN, DISTINCT, APART = 500, 500, 10.0
NEAR_QUANTILE, CALIBRATION_ROWS = 0.01, 1000
HALF_WIDTH = 0.98  # of the square root of a Poisson count, at 95 %
NONE_SEEN = 3.69  # upper 97.5 % limit of a Poisson rate of which nothing was seen
SHOWN = 6


def birthday_paradox(
    model: nn.Module,
    data: Dataset,
    *,
    draws: int = 1000,
    seeds: int = 5,
    near: bool | None = None,
    jobs: int = 1,
) -> Finding:
    """Return whether a model's support is smaller than its training set, with the support's size.

    Args:
        model: Anything that can sample.
        data: What it was trained on.
        draws: Samples in a pool, at least 2.
        seeds: Number of pools.
        near: Count near-duplicates; only equal samples otherwise. By default near for pictures and vectors.
        jobs: Pools drawn at once, through joblib.

    Raises:
        VerbError: If the model cannot sample.
        OptionError: If `draws` or `seeds` is out of range.
        StudyError: If a control fails.
    """
    require_verb(model, "sample")
    if draws < 2:
        raise OptionError(f"draws must be at least 2, got {draws}")
    nearly = isinstance(data.domain, (Images, Vectors)) if near is None else near
    reach = _reach(data) if nearly else 0.0
    controls = passed(_controls(reach))
    table = readings(_pool, [(model, data, draws, reach)], seeds=seeds, jobs=jobs)
    value = support_size(table)
    how = f"nearer than {reach:.4g}" if nearly else "equal"
    size = len(data.train)
    return Finding(
        study="birthday_paradox",
        claim=f"{type(model).__name__} makes fewer different samples than {data.name} has ({size:,}).",
        holds=side(value.interval or (0.0, math.inf), size, above=False),
        value=value,
        controls=controls,
        table=table.drop(columns=["shared", "nearest"]),
        protocol=f"{seeds} pools of {draws:,} draws, pairs {how}; the support itself may be larger",
        draw=pairs_figure,
        details={
            "pairs": sorted(chain(*table["nearest"]), key=lambda pair: pair[2])[:SHOWN],
            "domain": data.domain,
        },
    )


def support_size(table: pd.DataFrame) -> Quantity:
    """Return the effective support 1 / sum p^2 with its 95 % interval, from the pairs of all pools."""
    pairs, seen = float(table["pairs"].sum()), float(table["coinciding"].sum())
    protocol = "coinciding pairs of draws, 1 / sum p^2"
    if seen == 0:
        low = pairs / NONE_SEEN
        return Quantity(low, "samples", "lower bound", None, (low, math.inf), int(pairs), protocol)
    rate = seen / pairs
    triples = (table["draws"] * (table["draws"] - 1) * (table["draws"] - 2)).sum()
    # Pairs that share a draw vary together where samples are not equally likely.
    inflation = 1 + max(0.0, float(table["shared"].sum()) - triples * rate**2) / seen
    half = HALF_WIDTH * math.sqrt(inflation)
    high = pairs / max(math.sqrt(seen) - half, 0.0) ** 2 if math.sqrt(seen) > half else math.inf
    low = pairs / (math.sqrt(seen + 1) + half) ** 2
    return Quantity(1 / rate, "samples", "estimate", None, (low, high), int(pairs), protocol)


def _pool(model: nn.Module, data: Dataset, draws: int, reach: float, seed: int) -> dict[str, Any]:
    """Return the pairs of one pool of draws, and its nearest pairs."""
    like = next(model.parameters(), torch.empty(0))
    with torch.no_grad():
        x = cast(Any, model).sample(draws, generator=generator_for(seed, "pool", device=like.device)).cpu()
    row = _pairs(data.domain.features(x), reach)
    nearest = [(x[i], x[j], distance) for i, j, distance in row.pop("closest")]
    chance = row["coinciding"] / row["pairs"]
    batch = math.ceil((1 + math.sqrt(1 + 8 * math.log(2) / chance)) / 2) if chance else math.inf
    return {"seed": seed, **row, "batch": batch, "nearest": nearest}


def _pairs(features: Tensor, reach: float) -> dict[str, Any]:
    """Return how many pairs of rows coincide, how many of those share a row, and the closest pairs."""
    n = len(features)
    gaps = torch.cdist(features[None], features[None], compute_mode="donot_use_mm_for_euclid_dist")[0]
    gaps.fill_diagonal_(math.inf)
    beside = (gaps <= reach).sum(1).double()
    upper = torch.where(torch.ones(n, n).triu(1).bool(), gaps, math.inf).flatten()
    best, at = upper.topk(min(SHOWN, n * (n - 1) // 2), largest=False)
    return {
        "draws": n,
        "pairs": n * (n - 1) // 2,
        "coinciding": int(beside.sum()) // 2,
        "shared": float((beside * (beside - 1)).sum()),
        "closest": [(int(i) // n, int(i) % n, float(gap)) for gap, i in zip(best, at, strict=True)],
    }


def _reach(data: Dataset) -> float:
    """Return how near the nearest hundredth of held-out samples are to the training set."""
    train, test = (
        data.domain.features(cast(Tensor, split.head(CALIBRATION_ROWS).x))
        for split in (data.train, data.test)
    )
    return float(torch.cdist(test, train).amin(1).quantile(NEAR_QUANTILE))


def _controls(reach: float) -> dict[str, Control]:
    """Return the samplers whose support is known; their points lie far apart."""
    step = APART * max(reach, 1.0)

    def uniform() -> float:
        picks = torch.randint(KNOWN, (1000, 1), generator=generator_for(0, "known"))
        size = support_size(pd.DataFrame([_pairs(picks * step, reach)]))
        low, high = size.interval or (0.0, 0.0)
        return size.value if low <= KNOWN <= high else math.nan

    def distinct() -> float:
        size = support_size(pd.DataFrame([_pairs(torch.arange(DISTINCT)[:, None] * step, reach)]))
        return (size.interval or (0.0, 0.0))[1]

    return {
        f"uniform over {KNOWN}": Control(uniform, math.isfinite, f"hold {KNOWN} in its interval"),
        "all distinct": Control(distinct, math.isinf, "have no upper end"),
    }
