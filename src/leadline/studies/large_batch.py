r"""Large batches end in sharper minima than small ones, and generalise worse.

Claim:
    Brought to the same training loss from the same start with the same learning rate, training with the large
    batch ends at more than twice the sharpness of the small one, and with a higher test error.

Instrument:
    Trainings by Adam at one learning rate, seed by seed from one start, until the mean training loss is at
    most 0.01 nats. Read there, in float64 over training samples: Keskar's phi in boxes of 1e-3 and 5e-4, the
    largest eigenvalue, the largest of |p| H |p|, and the test error. Sharper: the interval of the geometric
    mean, over seeds, of phi at 1e-3, large over small, lies above 2. Worse: that of the difference of test
    errors lies above 0. A training that does not come to that loss leaves the claim undecided. The ratio of
    the adaptive eigenvalues, which no rescaling of layers can move, is told beside it.

Controls:
    positive: a trained net of rectified units with two layers rescaled by 10 computes the same at a minimum
        that phi must call more than twice as sharp.
    negative: the small batch under other seeds against itself; phi must not differ twofold, either way.

Source:
    Keskar, Mudigere, Nocedal, Smelyanskiy and Tang (2017), On large-batch training for deep learning:
    generalization gap and sharp minima, ICLR, section 2.2, metric 2.1.

Departs from the source:
    Trainings end at one training loss, where the source ends them when the loss no longer falls: sharpness
    falls with the loss, so that minima are compared at the same height.

Cost:
    Under a minute on digits with a 64-64-64-10 net, batches of 16 and 400, and 5 seeds.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from leadline.core import OptionError, Quantity
from leadline.data import Dataset, load
from leadline.measures.curvature import adaptive_eigenvalue, extremes
from leadline.measures.sharpness import keskar
from leadline.measures.surface import loss_surface
from leadline.studies.finding import Finding, told
from leadline.studies.landscape_pictures import COLOURS, heading
from leadline.studies.rescaling import same_function
from leadline.studies.study import Control, Seeds, all_of, named_seeds, over_seeds, passed, readings, side
from leadline.studies.trainings import accuracy_of, fit_until, labelled, started

__all__ = ["large_batch"]

GOAL, TWOFOLD = 0.01, 2.0
TRAINING: dict[str, Any] = {"optimizer": "adam", "lr": 1e-3}
BOXES, TOLERANCE, MEASURED = (1e-3, 5e-4), 0.01, 500
ASKED = 6  # times an epoch that the training loss is read
CONTROL_PAIRS, OTHER_SEEDS = 2, 1000
PLANTED, FACTOR, WITNESSES = {"hidden": (32,)}, 10.0, 48


def large_batch(
    data: Dataset | None = None,
    model: str = "mlp",
    options: Mapping[str, Any] | None = None,
    *,
    batches: tuple[int, int] = (16, 400),
    samples: int = 1000,
    epochs: int = 500,
    seeds: Seeds = 5,
    jobs: int = 1,
) -> Finding:
    """Return whether large batches end in sharper minima than small ones and generalise worse.

    Args:
        data: Data with classes; digits by default.
        model: Catalog name of a classifier.
        options: Its options; two hidden layers of 64 for an mlp by default.
        batches: The small and the large batch, the large one at most `samples`.
        samples: Most training samples.
        epochs: Most passes over them, at least 1.
        seeds: Number of trainings with each batch, or which seeds.
        jobs: Trainings at once, through joblib.

    Raises:
        DomainError: If the data have no classes.
        OptionError: If a number is out of range.
        StudyError: If a control fails.
    """
    source = labelled(load("digits") if data is None else data, "large_batch", samples)
    small, large = batches
    if not 1 <= small < large <= len(source.train) or epochs < 1:
        raise OptionError(
            f"1 <= small < large <= {len(source.train):,} samples and epochs >= 1 are needed, "
            f"got batches {batches} and {epochs} epochs"
        )
    chosen = ({"hidden": (64, 64)} if model == "mlp" else {}) if options is None else dict(options)
    controls = passed(_controls(source, model, chosen, small, epochs))
    settings = [(source, model, chosen, batch, epochs) for batch in batches]
    table = readings(_reading, settings, seeds=seeds, jobs=jobs)
    few, many = (table[table["batch"] == batch].reset_index(drop=True) for batch in batches)
    sharper = _ratio(many["phi 1e-3"] / few["phi 1e-3"], f"phi, batch {large} over {small}")
    own = _ratio(many["adaptive eigenvalue"] / few["adaptive eigenvalue"], "adaptive eigenvalues")
    worse = over_seeds(many["test error"] - few["test error"], "of test error")
    parts = [
        None if bool(table["steps"].isna().any()) else True,
        side(sharper.interval, TWOFOLD, above=True),
        side(worse.interval, 0.0, above=True),
    ]
    return Finding(
        study="large_batch",
        claim=f"On {source.name}, batches of {large} end in sharper minima than {small}, and err more.",
        holds=None if parts[0] is None else all_of(parts),
        value=sharper,
        controls=controls,
        table=table,
        protocol=(
            f"{model} {chosen}, {len(source.train):,} training and {len(source.test):,} test samples, "
            f"{TRAINING}, to a training loss of {GOAL:g}, {named_seeds(seeds)}; large - small: "
            f"{told(worse)}; of adaptive eigenvalues: {told(own)}"
        ),
        draw=_figure,
        details={"sharper": sharper, "worse": worse, "adaptive": own, "parts": parts, "batches": batches},
    )


def _trained(
    data: Dataset, model: str, options: dict[str, Any], batch: int, epochs: int, seed: int
) -> tuple[nn.Module, int | None]:
    """Return a net at the training loss that is the goal, and the steps it took; None without success."""
    each = -(-len(data.train) // batch)  # steps of an epoch
    net = started(data, model, options, seed)
    return net, fit_until(
        net, data, lambda net: _loss(net, data) <= GOAL, steps=epochs * each, every=max(1, each // ASKED),
        seed=seed, batch_size=batch, **TRAINING,
    )  # fmt: skip


def _loss(net: nn.Module, data: Dataset) -> float:
    """Return the mean negative log-probability of the training labels, in nats."""
    with torch.no_grad():
        answers: Tensor = net.predict(data.train.x)  # type: ignore[operator]
        return float(nn.functional.nll_loss(answers, data.train.y))  # type: ignore[arg-type]


def _phi(net: nn.Module, data: Dataset, eps: float = BOXES[0]) -> float:
    """Return Keskar's phi on the training samples."""
    return keskar(loss_surface(net, data, samples=MEASURED, double=True), eps)


def _reading(
    data: Dataset, model: str, options: dict[str, Any], batch: int, epochs: int, seed: int
) -> dict[str, Any]:
    """Return where one training ended."""
    net, steps = _trained(data, model, options, batch, epochs, seed)
    surface = loss_surface(net, data, samples=MEASURED, double=True)
    return {
        "batch": batch,
        "seed": seed,
        "steps": math.nan if steps is None else float(steps),
        "train loss": surface.value(),
        "phi 1e-3": keskar(surface, BOXES[0]),
        "phi 5e-4": keskar(surface, BOXES[1]),
        "eigenvalue": float(extremes(surface, tolerance=TOLERANCE).values[0]),
        "adaptive eigenvalue": float(adaptive_eigenvalue(surface, tolerance=TOLERANCE).values[0]),
        "test error": 1 - accuracy_of(net, data.test),
    }


def _ratio(ratios: Any, protocol: str) -> Quantity:
    """Return the geometric mean of ratios, without an interval where one is not positive or all are one."""
    logs = [math.log(ratio) if ratio > 0 else math.nan for ratio in map(float, ratios)]
    mean = over_seeds(logs, "log", protocol)
    interval = None if mean.interval is None else (math.exp(mean.interval[0]), math.exp(mean.interval[1]))
    return replace(mean, value=math.exp(mean.value), unit="times", interval=interval)


def _controls(
    data: Dataset, model: str, options: dict[str, Any], small: int, epochs: int
) -> dict[str, Control]:
    """Return two groups that are alike, and two minima of which one is the sharper by construction."""

    def alike() -> float:
        phis = [
            _phi(_trained(data, model, options, small, epochs, OTHER_SEEDS + number)[0], data)
            for number in range(2 * CONTROL_PAIRS)
        ]
        pairs = [one / other for one, other in zip(phis[::2], phis[1::2], strict=True)]
        ratio = _ratio(pairs, "").value
        return max(ratio, 1 / ratio)

    def planted() -> float:
        net, _ = _trained(data, "mlp", PLANTED, small, epochs, OTHER_SEEDS)
        x = data.train.head(WITNESSES).x
        twin = same_function(net.double(), lambda part: part.predict(x).detach(), FACTOR)  # type: ignore[operator]
        return math.nan if twin is None else _phi(twin[0], data) / _phi(net, data)

    return {
        "small batch against itself": Control(
            alike, lambda times: times < TWOFOLD, f"be below {TWOFOLD:g} times"
        ),
        "planted sharp minimum": Control(
            planted, lambda times: times > TWOFOLD, f"be above {TWOFOLD:g} times"
        ),
    }


def _figure(finding: Finding) -> Figure:
    """Return sharpness and test error by batch, a line a seed."""
    table, batches = finding.table, finding.details["batches"]
    figure = Figure(figsize=(9.0, 3.6), layout="constrained")
    figure.suptitle(heading(finding), fontsize=9)
    names = {"phi 1e-3": "Keskar's phi, box 1e-3", "adaptive eigenvalue": "largest of |p| H |p|"}
    names["test error"] = "test error"
    for axis, (column, label), colour in zip(figure.subplots(1, 3), names.items(), COLOURS, strict=False):
        wide = table.pivot_table(index="seed", columns="batch", values=column)[list(batches)]
        axis.plot([0, 1], wide.to_numpy().T, "o-", color=colour, alpha=0.6, linewidth=1)
        axis.set_ylim(bottom=0, top=1.1 * float(table[column].max()))
        axis.set_xticks([0, 1], [f"batch {batch}" for batch in batches])
        axis.set_xlim(-0.4, 1.4)
        axis.set_ylabel(label)
    return figure
