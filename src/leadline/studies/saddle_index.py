r"""The higher the loss at a critical point, the more directions lead down from it.

Claim:
    Over the critical points that are found from places along training, the index (the share of negative
    eigenvalues of the Hessian) grows with the loss: Spearman's rank correlation is above 0.5.

Instrument:
    A tanh net small enough for its whole Hessian, with cross-entropy and a weight decay that leaves no flat
    direction, on the first principal components of the data. Each search starts where full-batch gradient
    descent is after some steps, from none to 300, each from its own initialisation, and goes on by
    damped Newton steps on the norm of the gradient. An end counts if its gradient is below 1e-7; equal
    losses (to 1e-6) are one point, since units can be exchanged. A seed with fewer than 5 points leaves the
    claim undecided. The interval is that of the mean correlation over seeds.

Controls:
    positive: for a sum of double wells the index of a critical point is 4 / d times its value, exactly.
    negative: of random quadratics, with indices known and levels drawn apart from them, the found indices are
        those, and the correlation is not above 0.5.

Source:
    Dauphin, Pascanu, Gulcehre, Cho, Ganguli and Bengio (2014), Identifying and attacking the saddle point
    problem in high-dimensional non-convex optimization, NeurIPS. Bray and Dean (2007), Statistics of critical
    points of Gaussian fields on large-dimensional spaces, Phys. Rev. Lett. 98.

Cost:
    Under a minute on 100 digits with a 4-3-10 net of 55 parameters, 20 searches and 5 seeds.
"""

import math
from functools import partial
from typing import Any, cast

import numpy as np
import pandas as pd
import scipy.stats
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.func import grad, vmap
from torch.nn import functional as F

from leadline.core import Classes, OptionError
from leadline.core.randomness import generator_for
from leadline.data import Dataset, load
from leadline.studies.critical_points import Critical, critical_points
from leadline.studies.finding import Finding
from leadline.studies.landscape_pictures import COLOURS, heading
from leadline.studies.study import Control, Seeds, named_seeds, over_seeds, passed, readings, side
from leadline.studies.trainings import labelled

__all__ = ["saddle_index"]

CORRELATED, FEWEST = 0.5, 5
STATIONARY, SAME = 1e-7, 1e-6
DECAY, RATE, DESCENT = 1e-2, 0.5, 300
EXACT = 1e-8


def saddle_index(
    data: Dataset | None = None,
    *,
    hidden: int = 3,
    components: int = 4,
    samples: int = 100,
    searches: int = 20,
    steps: int = 80,
    seeds: Seeds = 5,
    jobs: int = 1,
) -> Finding:
    """Return whether the share of ways down from a critical point grows with its loss.

    Args:
        data: Data with classes; digits by default.
        hidden: Units of the one hidden layer.
        components: Principal components of the inputs that the net is given.
        samples: Most training samples.
        searches: Searches for a critical point of each seed, at least 5.
        steps: Most Newton steps of each, at least 1.
        seeds: Number of times over, or which seeds.
        jobs: Seeds at once, through joblib.

    Raises:
        DomainError: If the data have no classes.
        OptionError: If a number is out of range.
        StudyError: If a control fails.
    """
    source = labelled(load("digits") if data is None else data, "saddle_index", samples)
    x, y = _components(source, components), cast(Tensor, source.train.y)
    if hidden < 1 or searches < FEWEST or steps < 1:
        raise OptionError(
            f"hidden >= 1, searches >= {FEWEST} and steps >= 1 are needed, got {hidden}, {searches}, {steps}"
        )
    controls = passed(_controls())
    outputs = cast(Classes, source.labels).outputs
    found = readings(_reading, [(x, y, outputs, hidden, searches, steps)], seeds=seeds, jobs=jobs)
    table = pd.concat(found["rows"].tolist(), ignore_index=True)
    each = (_correlation(rows) for _, rows in table.groupby("seed"))
    value = over_seeds(each, "(rank correlation)", "Spearman's, loss against index")
    return Finding(
        study="saddle_index",
        claim=f"On {source.name}, the index of critical points grows with their loss.",
        holds=side(value.interval, CORRELATED, above=True),
        value=value,
        controls=controls,
        table=table.drop(columns=["spectrum"]),
        protocol=(
            f"{x.shape[1]}-{hidden}-{outputs} net of tanh units, {_size(x, outputs, hidden)} parameters, "
            f"weight decay {DECAY:g}, {len(x):,} samples, {searches} searches of at most {steps} steps, "
            f"{named_seeds(seeds)}; {int(table['critical'].sum())} of {len(table)} searches ended at a "
            "critical point"
        ),
        draw=_figure,
        details={"spectra": table["spectrum"].tolist()},
    )


def _components(data: Dataset, components: int) -> Tensor:
    """Return the first principal components of the training inputs, of unit mean square (n, components).

    Raises:
        OptionError: If there are not so many.
    """
    x = data.domain.features(cast(Tensor, data.train.x)).double()
    if not 1 <= components <= min(x.shape):
        raise OptionError(f"components must be in [1, {min(x.shape)}], got {components}")
    U, S, _ = torch.linalg.svd(x - x.mean(0), full_matrices=False)
    scores = U[:, :components] * S[:components]
    return scores / scores.square().mean().sqrt()


def _size(x: Tensor, outputs: int, hidden: int) -> int:
    return (x.shape[1] + 1) * hidden + (hidden + 1) * outputs


def _objective(x: Tensor, y: Tensor, outputs: int, hidden: int) -> Any:
    """Return the loss as a function of all parameters: (d,) -> ()."""
    shapes = [(hidden, x.shape[1]), (hidden,), (outputs, hidden), (outputs,)]

    def loss(p: Tensor) -> Tensor:
        pieces = p.split([math.prod(shape) for shape in shapes])
        W, b, V, c = (piece.view(shape) for piece, shape in zip(pieces, shapes, strict=True))
        answers = F.linear(torch.tanh(F.linear(x, W, b)), V, c)
        return F.cross_entropy(answers, y) + 0.5 * DECAY * p.square().sum()

    return loss


def _reading(
    x: Tensor, y: Tensor, outputs: int, hidden: int, searches: int, steps: int, seed: int
) -> dict[str, Any]:
    """Return a row for each search of a seed."""
    loss = _objective(x, y, outputs, hidden)
    size = _size(x, outputs, hidden)
    normal = torch.randn(searches, size, generator=generator_for(seed, "start"), dtype=torch.float64)
    taken = np.unique(np.geomspace(1, DESCENT, searches - 1).round().astype(int))
    until = torch.tensor([0, *taken, *[DESCENT] * (searches - 1 - len(taken))])
    found = critical_points(loss, _descended(loss, normal / math.sqrt(hidden), until), steps=steps)
    return {"rows": _rows(found, until, seed)}


def _descended(loss: Any, start: Tensor, until: Tensor) -> Tensor:
    """Return each point (n, d) after its own number of steps of gradient descent (n,)."""
    slopes, p = vmap(grad(loss)), start.clone()
    for step in range(int(until.max())):
        going = until > step
        p[going] = p[going] - RATE * slopes(p[going])
    return p


def _rows(found: Critical, until: Tensor, seed: int) -> pd.DataFrame:
    """Return a row for each search: where it started, and what it found."""
    return pd.DataFrame(
        {
            "seed": seed,
            "descent": until.tolist(),
            "loss": found.values.tolist(),
            "index": found.index.tolist(),
            "gradient": found.norms.tolist(),
            "critical": (found.norms <= STATIONARY).tolist(),
            "spectrum": list(found.spectra.numpy()),
        }
    )


def _correlation(rows: pd.DataFrame) -> float:
    """Return Spearman's correlation of loss and index over different critical points; NaN for too few."""
    kept = rows[rows["critical"]].sort_values("loss")
    gaps = kept["loss"].diff().fillna(math.inf) > SAME * kept["loss"].abs().clip(lower=1.0)
    kept = kept[gaps]
    if len(kept) < FEWEST or kept["index"].nunique() < 2:
        return math.nan
    return float(scipy.stats.spearmanr(kept["loss"], kept["index"]).statistic)


def _controls() -> dict[str, Control]:
    """Return functions whose critical points are known."""
    size, count = 12, 24
    source = generator_for(0, "saddles")
    start = 1.6 * torch.rand(count, size, generator=source, dtype=torch.float64) - 0.8
    kinds = torch.randint(size + 1, (count,), generator=source)
    levels = torch.randn(count, generator=source, dtype=torch.float64)
    turns = torch.linalg.qr(torch.randn(count, size, size, generator=source, dtype=torch.float64)).Q
    signs = torch.where(torch.arange(size) < kinds[:, None], -1.0, 1.0).double()  # (count, size)
    matrices = torch.einsum("nij,nj,nkj->nik", turns, signs, turns)

    def wells() -> float:
        found = critical_points(lambda p: 0.25 * (p.square() - 1).square().sum(), start, steps=200)
        at = found.norms <= STATIONARY
        various = at.double().mean() > 0.9 and len(found.index[at].unique()) >= FEWEST
        return float((4 * found.values[at] / size - found.index[at]).abs().max()) if various else math.inf

    def quadratics() -> pd.DataFrame:
        ends = [
            critical_points(partial(_quadratic, A, c), one[None], steps=100)
            for A, c, one in zip(matrices, levels, start, strict=True)
        ]
        parts = [_rows(end, torch.zeros(1), number) for number, end in enumerate(ends)]
        return pd.concat(parts, ignore_index=True)

    table = quadratics()
    wrong = np.abs(table["index"].to_numpy() - kinds.numpy() / size).max() + float(
        not table["critical"].all()
    )
    return {
        "double wells": Control(wells, lambda error: error < EXACT, f"be below {EXACT:g}"),
        "indices of quadratics": Control(lambda: float(wrong), lambda error: error < EXACT, "be 0"),
        "levels drawn apart from indices": Control(
            lambda: _correlation(table), lambda rank: rank < CORRELATED, f"be below {CORRELATED:g}"
        ),
    }


def _quadratic(A: Tensor, level: Tensor, p: Tensor) -> Tensor:
    return 0.5 * p @ A @ p + level


def _figure(finding: Finding) -> Figure:
    """Return index against loss, a colour a seed, and the spectra of a low, a middle and a high point."""
    table = finding.table
    figure = Figure(figsize=(9.0, 3.8), layout="constrained")
    figure.suptitle(heading(finding), fontsize=9)
    plane, spectra = figure.subplots(1, 2)
    for number, (seed, rows) in enumerate(table[table["critical"]].groupby("seed")):
        colour = COLOURS[number % len(COLOURS)]
        plane.plot(rows["loss"], rows["index"], "o", color=colour, alpha=0.6, label=f"seed {seed}")
    plane.set_xlabel("loss at the critical point")
    plane.set_ylabel("index: share of negative eigenvalues")
    kept = table[table["critical"]].sort_values("loss")
    for place, colour in zip(_thirds(len(kept)), COLOURS, strict=False):
        row = kept.iloc[place]
        values = np.sort(finding.details["spectra"][kept.index[place]])
        share = (np.arange(len(values)) + 0.5) / len(values)
        spectra.plot(values, share, "-", color=colour, label=f"loss {row['loss']:.3g}")
    spectra.axvline(0, color="0.5", linewidth=0.8)
    spectra.set_xscale("symlog", linthresh=DECAY)
    spectra.set_xlabel("eigenvalue of the Hessian")
    spectra.set_ylabel("share of eigenvalues below")
    for axis in (plane, spectra):
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=7)
    return figure


def _thirds(count: int) -> list[int]:
    """Return the places of the lowest, the middle and the highest of `count` rows."""
    return sorted({0, count // 2, count - 1}) if count else []
