r"""Very deep plain nets train worse than shallower ones, and shortcuts mend it.

Claim:
    After the same steps the deep plain net has a higher training error than the shallow one, and than the
    deep net with shortcuts.

Instrument:
    Nets of two depths, plain and residual, with the same width, start and training. Read: the share of
    training samples that are wrong at the end, and at the start the norm of the gradient of each
    convolution, from the first to the last. Both differences are taken seed by seed.

Controls:
    positive: a residual net whose further blocks add nothing gives exactly the answers of the shallower net,
        so that the deep nets could be as good.
    negative: the shallow plain net against itself under other seeds; the error must not differ by 5 points.

Source:
    He, Zhang, Ren and Sun (2016), Deep Residual Learning for Image Recognition, CVPR, section 4.2 and
    figure 6.

Cost:
    Under a minute on digits with nets of 20 and 56 layers, half the width, and 5 seeds.
"""

from typing import Any, cast

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from leadline.core import Batch, Classes, DomainError, OptionError
from leadline.data import Dataset, Split, load
from leadline.nets.vision.resnet import ResNet, ResNetPlan
from leadline.studies.finding import Finding, told
from leadline.studies.landscape_pictures import heading
from leadline.studies.study import Control, Seeds, all_of, named_seeds, over_seeds, passed, readings, side
from leadline.studies.trainings import accuracy_of, labelled, started
from leadline.training import fit

__all__ = ["depth", "error_of", "pictures_of", "trained"]

SAME_ANSWERS, SAME_ERROR = 1e-5, 0.05
OTHER_SEEDS = 1000
TRAINING: dict[str, Any] = {"optimizer": "momentum", "lr": 0.1, "schedule": "cosine", "batch_size": 128}
KINDS = {"plain": "cifar_plain", "residual": "cifar_resnet"}
COLOURS = {"plain": "#d1495b", "residual": "#1b6ca8"}


def depth(
    data: Dataset | None = None,
    *,
    shallow: int = 20,
    deep: int = 56,
    width: float = 0.5,
    samples: int = 1000,
    steps: int = 80,
    seeds: Seeds = 5,
    jobs: int = 1,
) -> Finding:
    """Return whether a deep plain net trains worse than a shallow one, and than one with shortcuts.

    Args:
        data: Pictures with classes; digits by default.
        shallow: Layers of the shallow nets: 20, 32, 44, 56 or 110.
        deep: Layers of the deep nets, more than `shallow`.
        width: Factor on all channels.
        samples: Most training samples.
        steps: Steps of each training, at least 1.
        seeds: Number of trainings of each net, or which seeds.
        jobs: Trainings at once, through joblib.

    Raises:
        DomainError: If samples are no pictures, or the data have no classes.
        OptionError: If a number is out of range.
        StudyError: If a control fails.
    """
    if deep <= shallow:
        raise OptionError(f"deep must be more than shallow, got {deep} and {shallow}")
    source = pictures_of(load("digits") if data is None else data, "depth", samples, steps)
    controls = passed(_controls(source, shallow, width, steps))
    settings = [(source, kind, layers, width, steps) for layers in (shallow, deep) for kind in KINDS]
    table = readings(_reading, settings, seeds=seeds, jobs=jobs)
    errors = {
        (kind, layers): rows["train error"].to_numpy()
        for (kind, layers), rows in table.groupby(["kind", "layers"])
    }
    unit = "training error"
    worse = over_seeds(errors["plain", deep] - errors["plain", shallow], unit, "deep plain - shallow plain")
    mended = over_seeds(errors["plain", deep] - errors["residual", deep], unit, "deep plain - deep residual")
    parts = [side(one.interval, 0.0, above=True) for one in (worse, mended)]
    return Finding(
        study="depth",
        claim=f"On {source.name}, {deep} plain layers train worse than {shallow}, and shortcuts mend it.",
        holds=all_of(parts),
        value=mended,
        controls=controls,
        table=table.drop(columns=["norms"]),
        protocol=(
            f"{len(source.train):,} training samples, channels x {width:g}, {steps:,} steps, {TRAINING}, "
            f"{named_seeds(seeds)}; deep plain - shallow plain: {told(worse)}"
        ),
        draw=_figure,
        details={
            "norms": table[["kind", "layers", "norms"]].to_dict(orient="records"),
            "worse": worse,
            "mended": mended,
        },
    )


def pictures_of(data: Dataset, study: str, samples: int, steps: int) -> Dataset:
    """Return at most `samples` labelled pictures to learn from, with the test samples in memory.

    Raises:
        DomainError: If samples are no pictures, or the data have no classes.
        OptionError: If a number is below 1.
    """
    if data.domain.planes is None or not isinstance(data.labels, Classes):
        raise DomainError(f"{study} needs Images with classes, but {data.name} holds {data.domain}")
    if steps < 1:
        raise OptionError(f"steps must be at least 1, got {steps}")
    return labelled(data, study, samples)


def trained(data: Dataset, name: str, options: dict[str, Any], steps: int, seed: int) -> nn.Module:
    """Return a net of the catalog after `steps` of training, a pure function of the seed."""
    net = started(data, name, options, seed)
    run = fit(
        net, data, steps=steps, seed=seed, select="last", validate_every=1_000_000, threads=1, out=False,
        progress=False, **TRAINING,
    )  # fmt: skip
    return run.model


def error_of(net: nn.Module, split: Split) -> float:
    """Return the share of samples whose most probable class is not their label."""
    return 1.0 - accuracy_of(net, split, 256)


def _reading(data: Dataset, kind: str, layers: int, width: float, steps: int, seed: int) -> dict[str, Any]:
    """Return the errors of one training, and the gradients that it began with."""
    name, options = f"{KINDS[kind]}{layers}", {"width": width}
    norms = _norms(started(data, name, options, seed), data)
    net = trained(data, name, options, steps, seed)
    return {
        "kind": kind,
        "layers": layers,
        "seed": seed,
        "train error": error_of(net, data.train),
        "test error": error_of(net, data.test),
        "gradient first / last": norms[0] / norms[-1],
        "norms": norms,
    }


def _norms(net: nn.Module, data: Dataset) -> list[float]:
    """Return the norm of the loss's gradient in each convolution, in order, on the first 128 samples."""
    x, y = cast(Tensor, data.train.x)[:128], cast(Tensor, data.train.y)[:128]
    cast(Any, net).train().loss(Batch(x, y)).backward()
    layers = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d)]
    return [float(cast(Tensor, layer.weight.grad).norm()) for layer in layers]


def _controls(data: Dataset, shallow: int, width: float, steps: int) -> dict[str, Control]:
    """Return what is known beforehand about nets of two depths."""

    def again() -> float:
        name, options = f"{KINDS['plain']}{shallow}", {"width": width}
        errors = [error_of(trained(data, name, options, steps, s), data.train) for s in (0, OTHER_SEEDS)]
        return abs(errors[0] - errors[1])

    return {
        "deep net made of the shallow one": Control(
            _built_deeper, lambda gap: gap < SAME_ANSWERS, f"be below {SAME_ANSWERS:g}"
        ),
        "shallow plain net under other seeds": Control(
            again, lambda gap: gap < SAME_ERROR, f"be below {SAME_ERROR:g}"
        ),
    }


def _built_deeper() -> float:
    """Return how far a net's answers are from those of a deeper one whose new blocks add nothing."""
    torch.manual_seed(0)
    plans = [ResNetPlan((count, count), 4, shortcut="A", small=True) for count in (1, 3)]
    few, many = (ResNet(1, 3, plan).eval() for plan in plans)
    many.load_state_dict(few.state_dict(), strict=False)
    for name, layer in many.named_modules():
        if name.endswith(("1.bn2", "2.bn2")):  # the last normalisation of a block that the shallow net lacks
            nn.init.zeros_(cast(Tensor, layer.weight))
    with torch.no_grad():
        x = torch.randn(5, 1, 8, 8)
        return float((few(x) - many(x)).abs().max())


def _figure(finding: Finding) -> Figure:
    """Return training errors by depth, and gradients by layer at the start."""
    table: pd.DataFrame = finding.table
    figure = Figure(figsize=(8.6, 3.6), layout="constrained")
    figure.suptitle(heading(finding), fontsize=9)
    errors, gradients = figure.subplots(1, 2)
    depths = sorted(table["layers"].unique())
    for shift, kind in zip((-0.08, 0.08), KINDS, strict=True):
        rows = table[table["kind"] == kind]
        places = [depths.index(layers) + shift for layers in rows["layers"]]
        errors.plot(places, rows["train error"], "o", color=COLOURS[kind], alpha=0.7, label=kind)
    errors.set_xticks(range(len(depths)), [f"{layers} layers" for layers in depths])
    errors.set_xlim(-0.5, len(depths) - 0.5)
    errors.set_ylabel("training error")
    errors.legend(fontsize=8, loc="center left")
    for row in finding.details["norms"]:
        style = "-" if row["layers"] == depths[-1] else ":"
        gradients.plot(row["norms"], style, color=COLOURS[row["kind"]], alpha=0.5, linewidth=1)
    gradients.set_yscale("log")
    gradients.set_xlabel(f"convolution (solid: {depths[-1]} layers, dotted: {depths[0]})")
    gradients.set_ylabel("gradient norm at the start")
    return figure
