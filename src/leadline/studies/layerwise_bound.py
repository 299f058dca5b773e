r"""What each further layer of a deep belief net gains.

Claim:
    Each further layer raises the bound on the log-likelihood of held-out samples.

Instrument:
    Nets of one, two, ... layers are learned greedily with the same steps a layer; they score test samples.
    Widths alternate between `width` and that of the data, so that each further layer starts as the transpose
    of the one below: there the bound equals the log-likelihood that was reached, and where the new layer
    gains on its own input, the bound gains on the training data. Nothing is learned after the last layer.
    The smaller side of the top machine is small enough to sum its log Z, so that the bound is a bound; with
    one layer it is the exact log-likelihood, so that the gain of the second layer is never overstated.
    Read: the mean log-likelihood in nats; a layer's gain is paired by seed, and all nets of a seed share
    their lower layers.

Controls:
    positive: on bars and stripes of 3 x 3, whose entropy is known, no net may beat it: the best bound of all
        depths must lie below -2.5993 nats and above what independent bits reach.
    negative: fair coins hold nothing to be learned: a second layer must gain less than 0.05 nats.

Source:
    Hinton, Osindero and Teh (2006), A Fast Learning Algorithm for Deep Belief Nets, section 4.
    Whether a further layer gains: Salakhutdinov and Murray (2008), On the Quantitative Analysis of Deep
    Belief Networks, section 6.

Cost:
    Under a minute on the bits of digits with 16 units a layer, 3 depths and 5 seeds.
"""

import itertools
import math
from dataclasses import replace
from typing import Any, cast

import torch
from matplotlib.figure import Figure
from torch import Tensor

from leadline.catalog import build
from leadline.core import Bits, DomainError, Images, OptionError, Vectors
from leadline.core.randomness import derive_seed
from leadline.data import Dataset, Split, load
from leadline.studies.finding import Finding
from leadline.studies.study import Control, all_of, over_seeds, passed, readings, side
from leadline.training import fit

__all__ = ["layerwise_bound"]

ENTROPY, COINS_MOST = 2.5993019, 0.05
TRAINING: dict[str, Any] = {"optimizer": "momentum", "lr": 0.02, "batch_size": 20, "schedule": "linear"}
MOST_TEST, CONTROL_STEPS = 1000, 400


def layerwise_bound(
    data: Dataset | None = None,
    model: str = "dbn",
    *,
    width: int = 16,
    layers: int = 3,
    steps: int = 1500,
    seeds: int = 5,
    jobs: int = 1,
) -> Finding:
    """Return whether each further layer raises the bound on held-out samples.

    Args:
        data: Bits, or pictures, which are made bits; digits by default.
        model: Catalog name of a model of stages with options `hidden` of widths and `tied`.
        width: Units of the first, third, ... layer; the others are as wide as the data. Above 20 the bounds
            are estimates.
        layers: Greatest depth, at least 2.
        steps: Steps of each layer, at least 1.
        seeds: Number of trainings of each depth.
        jobs: Trainings at once, through joblib.

    Raises:
        OptionError: If an option is out of range.
        DomainError: If the data are no bits.
        StudyError: If a control fails.
    """
    if layers < 2 or min(width, steps) < 1:
        raise OptionError(f"layers must be at least 2, width and steps 1, got {layers}, {width} and {steps}")
    source = _bits(load("digits") if data is None else data)
    controls = passed(
        {
            "bars and stripes": Control(
                lambda: max(_reading(_bars(), model, 8, CONTROL_STEPS, depth, 0)["nats"] for depth in (1, 2)),
                lambda nats: -9 * math.log(2) < nats <= -ENTROPY,
                f"lie between independent bits and {-ENTROPY:.4f}",
            ),
            "fair coins": Control(
                lambda: _gain_on_coins(model), lambda gain: gain < COINS_MOST, f"be below {COINS_MOST:g}"
            ),
        }
    )
    settings = [(source, model, width, steps, depth) for depth in range(1, layers + 1)]
    table = readings(_reading, settings, seeds=seeds, jobs=jobs)
    nats = [table[table["layers"] == depth]["nats"].tolist() for depth in range(1, layers + 1)]
    gains = [[b - a for a, b in zip(*pair, strict=True)] for pair in itertools.pairwise(nats)]
    quantities = [
        over_seeds(gain, "nats", f"layer {depth} over {depth - 1}") for depth, gain in enumerate(gains, 2)
    ]
    verdicts = [side(q.interval, 0.0, above=True) for q in quantities]
    told = "; ".join(f"layer {depth}: {q}" for depth, q in enumerate(quantities, 2))
    return Finding(
        study="layerwise_bound",
        claim=f"On {source.name}, each of {layers - 1} further layers raises the bound.",
        holds=all_of(verdicts),
        value=min(quantities, key=lambda gain: gain.value),  # the layer that decides
        controls=controls,
        table=table,
        protocol=f"{model}, widths {width} and {source.domain.dims}, {steps:,} steps a layer, {TRAINING}, "
        f"{seeds} seeds; gains: {told}",
        draw=_figure,
        details={"gains": gains},
    )


def _reading(data: Dataset, model: str, width: int, steps: int, depth: int, seed: int) -> dict[str, Any]:
    """Return the mean log-likelihood of the test samples under one net, or its bound."""
    torch.manual_seed(derive_seed(seed, "start"))
    widths = [width if number % 2 == 0 else data.domain.dims for number in range(depth)]
    net = cast(Any, build(model, data, hidden=tuple(widths), tied=True))
    _learn_greedily(net, data, steps, seed)
    with torch.no_grad():
        rows = net.log_prob(cast(Tensor, data.test.head(MOST_TEST).x))
    return {"layers": depth, "seed": seed, "nats": float(rows.double().mean()), "kind": net.density.kind}


def _learn_greedily(net: Any, data: Dataset, steps: int, seed: int) -> None:
    """Learn the stages of a net in turn, each on the codes of the last, and no more."""
    below = data
    for stage in net.stages():
        fit(
            stage,
            below,
            steps=steps,
            seed=seed,
            select="last",
            out=False,
            progress=False,
            threads=1,
            **TRAINING,
        )
        with torch.no_grad():
            codes = stage.encode(below.train.x)
        none = Split(codes[:0])
        below = Dataset("codes", Vectors.standard(codes.shape[1]), None, Split(codes), none, none)
    net.join()


def _bits(data: Dataset) -> Dataset:
    """Return the data as bits.

    Raises:
        DomainError: If they are none, or a split is empty.
    """
    if isinstance(data.domain, Images):
        data = data.binarize()
    data.domain.require(Bits)
    if not len(data.train) or not len(data.test):
        raise DomainError(f"{data.name} lacks training or test samples; it needs Bits in both")
    return replace(data, valid=Split(data.train.head(0).x))


def _bars() -> Dataset:
    """Return bars and stripes of 3 x 3: each direction and each set of rows equally likely."""
    rows = Bits((3,)).states()[:, :, None].expand(-1, 3, 3)
    x = torch.cat([rows.flatten(1), rows.transpose(1, 2).flatten(1)])
    return _made("bars", x.repeat(20, 1), x)


def _gain_on_coins(model: str) -> float:
    """Return what a second layer gains on fair coins."""
    x = torch.randint(2, (2000, 9), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    data = _made("coins", x[:1000], x[1000:])
    one, two = (_reading(data, model, 8, CONTROL_STEPS, depth, 0)["nats"] for depth in (1, 2))
    return two - one


def _made(name: str, train: Tensor, test: Tensor) -> Dataset:
    """Return bits of 9 dimensions as a data set."""
    return Dataset(name, Bits((9,)), None, Split(train), Split(train[:0]), Split(test))


def _figure(finding: Finding) -> Figure:
    """Return the bound against the depth, a line a seed."""
    figure = Figure(figsize=(5.4, 3.6), layout="constrained")
    axis = figure.subplots()
    for _, rows in finding.table.groupby("seed"):
        axis.plot(rows["layers"], rows["nats"], "o-", color="#1b6ca8", alpha=0.6, linewidth=1)
    axis.set_xticks(sorted(set(finding.table["layers"])))
    axis.set_xlabel("hidden layers")
    axis.set_ylabel("log-likelihood or its bound, nats a test sample")
    axis.set_title(f"{finding.claim}\n{finding.verdict.capitalize()}.", fontsize=9)
    return figure
