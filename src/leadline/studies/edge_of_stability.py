r"""Gradient descent on all samples drives the sharpness to the edge of what its learning rate allows.

Claim:
    With full-batch gradient descent on a net of tanh units and squared error, the largest eigenvalue of the
    Hessian rises to 2 / lr and stays there: lambda lr / 2 has its median over the last third in [0.9, 1.2].

Instrument:
    Deterministic descent on the centred one-hot labels; the eigenvalue by Lanczos' process at even distances.
    Three learning rates, each a fraction of the largest that is stable at the start, five initialisations.
    The value is the mean over trainings of the late medians; its whole interval must lie within the limits.

Controls:
    positive: gradient descent on a quadratic diverges for lambda lr / 2 = 1.05 and converges for 0.95.
    negative: a linear net with one layer has a constant Hessian: its eigenvalue must not move by 1 %.

Source:
    Cohen, Kaur, Li, Kolter and Talwalkar (2021), Gradient descent on neural networks typically occurs at the
    edge of stability, ICLR.

Cost:
    Under a minute on 300 digits with a 64-32-10 net.
"""

import math
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from leadline.core import Classes, DomainError, OptionError
from leadline.core.randomness import derive_seed, generator_for
from leadline.data import Dataset, load
from leadline.measures.curvature import extremes
from leadline.measures.surface import Surface
from leadline.studies.finding import Finding
from leadline.studies.path_pictures import edge_figure
from leadline.studies.study import Control, Seeds, named_seeds, over_seeds, passed, readings
from leadline.studies.table import STUDIES

__all__ = ["edge_of_stability"]

EDGE, LAST = (0.9, 1.2), 1 / 3
STEADY, OVER, UNDER = 0.01, 1.05, 0.95
SPREAD = 1e6


def edge_of_stability(
    data: Dataset | None = None,
    *,
    rates: tuple[float, ...] = (0.5, 0.65, 0.8),
    hidden: int = 32,
    samples: int = 300,
    steps: int = 2000,
    probes: int = 30,
    seeds: Seeds = 5,
    jobs: int = 1,
) -> Finding:
    """Return whether full-batch gradient descent stays at the edge of stability.

    Args:
        data: Data with classes; digits by default.
        rates: Learning rates as fractions of the largest that is stable at the start, each in (0, 1).
        hidden: Units of the one hidden layer.
        samples: Most training samples, all of which make each step.
        steps: Steps of a training, at least `probes`.
        probes: How often the eigenvalue is taken, at least 6.
        seeds: Number of initialisations, or which seeds.
        jobs: Trainings at once, through joblib.

    Raises:
        DomainError: If the data have no classes.
        OptionError: If an option is out of range.
        StudyError: If a control fails.
    """
    source = load("digits") if data is None else data
    if not isinstance(source.labels, Classes):
        raise DomainError(f"edge_of_stability needs classes, but {source.name} has none")
    if (
        not rates
        or not all(0 < rate < 1 for rate in rates)
        or min(hidden, samples) < 1
        or not 6 <= probes <= steps
    ):
        raise OptionError(
            "rates in (0, 1), hidden and samples of at least 1 and 6 <= probes <= steps are needed"
        )
    controls = passed(_controls())
    x, y = _standardised(source, samples)
    settings = [(x, y, hidden, rate, steps, probes) for rate in rates]
    table = readings(_reading, settings, seeds=seeds, jobs=jobs)
    curves = table.pop("curve")
    value = over_seeds(table["edge"], "lambda lr / 2", "medians of the last third")
    low, high = value.interval or (-math.inf, math.inf)
    inside = EDGE[0] <= low and high <= EDGE[1]
    outside = high < EDGE[0] or low > EDGE[1]
    return Finding(
        study="edge_of_stability",
        claim=STUDIES["edge_of_stability"].claim,
        holds=True if inside else (False if outside else None),
        value=value,
        controls=controls,
        table=table,
        protocol=(
            f"{x.shape[1]}-{hidden}-{y.shape[1]} net of tanh units, squared error, {len(x):,} samples of "
            f"{source.name}, {steps:,} steps, {named_seeds(seeds)}; lambda lr / 2 must lie in "
            f"[{EDGE[0]}, {EDGE[1]}]"
        ),
        draw=edge_figure,
        details={"curves": list(zip(table["fraction"], curves, strict=True)), "steps": steps},
    )


def _reading(
    x: Tensor, y: Tensor, hidden: int, fraction: float, steps: int, probes: int, seed: int
) -> dict[str, Any]:
    """Return lambda lr / 2 along one training."""
    torch.manual_seed(derive_seed(seed, "start"))
    net = nn.Sequential(nn.Linear(x.shape[1], hidden), nn.Tanh(), nn.Linear(hidden, y.shape[1]))
    point = nn.utils.parameters_to_vector(net.parameters()).detach()
    shapes = [p.shape for p in net.parameters()]

    def loss(p: Tensor) -> Tensor:
        pieces = p.split([shape.numel() for shape in shapes])
        W, b, V, c = (piece.view(shape) for piece, shape in zip(pieces, shapes, strict=True))
        return 0.5 * (F.linear(torch.tanh(F.linear(x, W, b)), V, c) - y).square().sum(1).mean()

    rate = fraction * 2 / float(extremes(Surface([loss], point), tolerance=1e-3, seed=seed).values[0])
    curve: list[float] = []
    for step in range(steps):
        if step % (steps // probes) == 0:
            top = extremes(Surface([loss], point), tolerance=1e-3, most=60, seed=seed)
            curve.append(float(top.values[0]) * rate / 2)
        where = point.requires_grad_()
        (gradient,) = torch.autograd.grad(loss(where), where)
        point = (where - rate * gradient).detach()
        if not bool(point.norm() < SPREAD):
            break
    late = torch.tensor(curve[-max(1, round(len(curve) * LAST)) :])
    return {
        "fraction": fraction, "seed": seed, "lr": rate, "edge": float(late.median()), "most": max(curve),
        "loss": float(loss(point)), "curve": curve,
    }  # fmt: skip


def _standardised(data: Dataset, samples: int) -> tuple[Tensor, Tensor]:
    """Return features of unit scale (n, d) and centred one-hot labels (n, k)."""
    part = data.train.head(samples)
    labels = cast(Tensor, part.y)
    known = labels >= 0
    x = data.domain.features(cast(Tensor, part.x)[known])
    x = (x - x.mean(0)) / x.std()
    y = F.one_hot(labels[known], cast(Classes, data.labels).outputs).float()
    return x, y - y.mean(0)


def _controls() -> dict[str, Control]:
    """Return descent on a quadratic at both sides of the edge, and a net whose Hessian cannot move."""

    def growth(factor: float) -> float:
        p = 1.0
        for _ in range(100):
            p -= 2 * factor * p  # lr lambda = 2 factor
        return abs(p)

    def drift() -> float:
        x = torch.randn(50, 4, generator=generator_for(0, "edge"), dtype=torch.float64)
        y = x.sum(1)
        ends = [
            float(extremes(Surface([lambda p: 0.5 * (x @ p - y).square().mean()], point)).values[0])
            for point in (torch.zeros(4).double(), torch.full((4,), 5.0).double())
        ]
        return abs(ends[1] / ends[0] - 1)

    return {
        f"quadratic at {OVER}": Control(lambda: growth(OVER), lambda size: size > 1, "be above 1"),
        f"quadratic at {UNDER}": Control(lambda: growth(UNDER), lambda size: size < 1, "be below 1"),
        "linear net": Control(drift, lambda move: move < STEADY, f"be below {STEADY:g}"),
    }
