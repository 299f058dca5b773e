r"""A DenseNet needs fewer parameters than a residual net for the same error.

Claim:
    At the same number of parameters the DenseNet's test error is lower.

Instrument:
    DenseNets of growing growth and residual nets of growing width, trained alike. Read: test error and number
    of parameters. The residual nets' error is interpolated on the logarithm of their parameters and compared
    with each DenseNet inside their range; the mean difference of a seed is one reading.

Controls:
    positive: curves c / p and 2 c / p must be told apart: the difference has the known size.
    negative: two samples of binomial noise around one curve; the interval must hold zero.

Source:
    Huang, Liu, van der Maaten and Weinberger (2017), Densely Connected Convolutional Networks, CVPR,
    section 4.3 and figure 4.

Cost:
    Under a minute on digits with two DenseNets, three residual nets and 5 seeds.
"""

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from leadline.core import OptionError, bootstrap_interval
from leadline.data import Dataset, load
from leadline.studies.depth import TRAINING, error_of, pictures_of, trained
from leadline.studies.finding import Finding
from leadline.studies.landscape_pictures import heading
from leadline.studies.study import Control, Seeds, named_seeds, over_seeds, passed, readings, side

__all__ = ["advantage", "dense_parameters"]

TOLERANCE = 1e-9
NOISE_SEED, NOISE_ROWS, NOISE_SEEDS = 0, 180, 20
COLOURS = {"dense": "#1b6ca8", "residual": "#d1495b"}
Curve = tuple[Any, Any]  # parameters and errors, rows of numbers


def dense_parameters(
    data: Dataset | None = None,
    *,
    growths: tuple[int, ...] = (4, 8),
    widths: tuple[float, ...] = (0.125, 0.25, 0.5),
    layers: int = 22,
    samples: int = 1000,
    steps: int = 60,
    seeds: Seeds = 5,
    jobs: int = 1,
) -> Finding:
    """Return whether DenseNets err less than residual nets of as many parameters.

    Args:
        data: Pictures with classes; digits by default.
        growths: Growth of each DenseNet.
        widths: Width of each residual net of 20 layers, at least two.
        layers: Layers of the DenseNets, 6 n + 4.
        samples: Most training samples.
        steps: Steps of each training, at least 1.
        seeds: Number of trainings of each net, or which seeds.
        jobs: Trainings at once, through joblib.

    Raises:
        DomainError: If samples are no pictures, or the data have no classes.
        OptionError: If a number is out of range, or no DenseNet lies among the residual nets.
        StudyError: If a control fails.
    """
    if len(widths) < 2 or not growths:
        raise OptionError(f"give at least two widths and one growth, got {widths} and {growths}")
    source = pictures_of(load("digits") if data is None else data, "dense_parameters", samples, steps)
    controls = passed(_controls())
    nets: list[tuple[str, str, dict[str, Any]]] = [
        ("residual", "cifar_resnet20", {"width": width}) for width in widths
    ]
    nets += [("dense", "densenet_bc", {"depth": layers, "growth": growth}) for growth in growths]
    table = readings(_reading, [(source, *net, steps) for net in nets], seeds=seeds, jobs=jobs)
    gains = [
        advantage(*(_curve(rows[rows["kind"] == kind]) for kind in ("dense", "residual")))
        for _, rows in table.groupby("seed")
    ]
    if any(math.isnan(gain) for gain in gains):
        raise OptionError(
            "no DenseNet has as many parameters as these residual nets; change growths or widths"
        )
    value = over_seeds(gains, "test error", "residual - dense, at equal parameters")
    return Finding(
        study="dense_parameters",
        claim=f"On {source.name}, a DenseNet errs less than a residual net of as many parameters.",
        holds=side(value.interval, 0.0, above=True),
        value=value,
        controls=controls,
        table=table,
        protocol=(
            f"{len(source.train):,} training and {len(source.test):,} test samples, densenet_bc of {layers} "
            f"layers against cifar_resnet20, {steps:,} steps, {TRAINING}, {named_seeds(seeds)}"
        ),
        draw=_figure,
    )


def advantage(dense: Curve, residual: Curve) -> float:
    """Return how much higher the second curve is at the parameters of the first, inside its range.

    Args:
        dense: Numbers of parameters and errors.
        residual: Numbers of parameters, rising, and errors; interpolated on log parameters.

    Returns:
        The mean difference, NaN where no point of the first lies inside.
    """
    at, errors = np.log(np.asarray(dense[0], dtype=float)), np.asarray(dense[1])
    known = np.log(np.asarray(residual[0], dtype=float))
    inside = (at >= known[0]) & (at <= known[-1])
    if not inside.any():
        return math.nan
    return float((np.interp(at[inside], known, np.asarray(residual[1])) - errors[inside]).mean())


def _reading(
    data: Dataset, kind: str, name: str, options: dict[str, Any], steps: int, seed: int
) -> dict[str, Any]:
    """Return parameters and errors of one training."""
    net = trained(data, name, options, steps, seed)
    return {
        "kind": kind,
        "net": f"{name} {', '.join(f'{key}={value:g}' for key, value in options.items())}",
        "seed": seed,
        "parameters": sum(parameter.numel() for parameter in net.parameters()),
        "test error": error_of(net, data.test),
        "train error": error_of(net, data.train),
    }


def _curve(rows: pd.DataFrame) -> Curve:
    """Return parameters and test errors of one seed, by rising parameters."""
    ordered = rows.sort_values("parameters")
    return ordered["parameters"].tolist(), ordered["test error"].tolist()


def _controls() -> dict[str, Control]:
    """Return curves whose difference is known."""
    sizes = np.geomspace(1e3, 1e5, 200)

    def apart() -> float:
        return advantage((sizes, 1 / sizes), (sizes, 2 / sizes)) / float((1 / sizes).mean())

    def alike() -> float:
        source = np.random.default_rng(NOISE_SEED)
        few, truth = sizes[::50], 0.05 + 100 / sizes[::50]
        drawn = source.binomial(NOISE_ROWS, truth, (2, NOISE_SEEDS, len(few))) / NOISE_ROWS
        gains = [advantage((few, one), (few, other)) for one, other in zip(*drawn, strict=True)]
        low, high = bootstrap_interval(gains)
        return max(low, -high)

    return {
        "twice the error": Control(apart, lambda ratio: abs(ratio - 1) < TOLERANCE, "be one times the error"),
        "the same nets": Control(alike, lambda outside: outside <= 0, "hold zero in its interval"),
    }


def _figure(finding: Finding) -> Figure:
    """Return test errors against parameters, a dot a training, lines through the means."""
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axis = figure.subplots()
    for kind, rows in finding.table.groupby("kind"):
        axis.plot(rows["parameters"], rows["test error"], "o", color=COLOURS[str(kind)], alpha=0.4)
        means = rows.groupby("parameters")["test error"].mean()
        axis.plot(means.index, means.to_numpy(), "-", color=COLOURS[str(kind)], label=kind)
    axis.set_xscale("log")
    sizes = sorted(finding.table["parameters"].unique())
    axis.set_xticks(sizes, [f"{size:,}" for size in sizes], fontsize=8)
    axis.minorticks_off()
    axis.set_xlabel("parameters")
    axis.set_ylabel("test error")
    axis.set_title(heading(finding), fontsize=9)
    axis.legend(fontsize=8)
    return figure
