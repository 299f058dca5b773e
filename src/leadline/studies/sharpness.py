r"""How sharp a minimum is, by three measures, and which of them a mere change of units can move.

Claim:
    The largest eigenvalue of the Hessian can be changed more than tenfold without changing any output, and
    the adaptive one changes by less than 1 % then: so the eigenvalue alone is no verdict on a model.

Instrument:
    Two neighbouring layers are multiplied by 10 and 1/10. Where the units between are rectified, no output
    changes; all pairs are tried until one leaves the losses of parts of the data equal to 1e-6. Before and
    after: the largest eigenvalue, Keskar's phi in boxes of 1e-3 and 5e-4, the largest rise over moves that
    are relative to each weight, and the largest eigenvalue of |p| H |p|. Without such a pair the claim is
    undecided, and the figures are those of the model as it is. All in float64.

Controls:
    positive: the eigenvalue of linear regression is that of X^T X / n to 1e-6; rescaling rectified units
        moves no output.
    negative: rescaling units of tanh moves outputs by more than 1 %.

Source:
    Dinh, Pascanu, Bengio and Bengio (2017), Sharp minima can generalize for deep nets, ICML. Keskar et al.
    (2017), ICLR. Kwon, Kim, Park and Choi (2021), ASAM, ICML.

Cost:
    Seconds on digits: some fifty products with the Hessian and two hundred gradients.
"""

import math
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from leadline.core import OptionError, Quantity
from leadline.core.randomness import generator_for
from leadline.data import Dataset
from leadline.measures.curvature import adaptive_eigenvalue, extremes
from leadline.measures.sharpness import adaptive, keskar
from leadline.measures.surface import Loss, Statistics, function_surface, loss_surface
from leadline.studies.finding import Finding
from leadline.studies.landscape_pictures import sharpness_figure
from leadline.studies.rescaling import moved_by, rescaled, same_function
from leadline.studies.study import Control, all_of, passed, side

__all__ = ["sharpness"]

TENFOLD, STEADY, FACTOR = 10.0, 0.01, 10.0
EXACT, MOVED, UNMOVED = 1e-6, 0.01, 1e-6
BOXES, RHO = (1e-3, 5e-4), 0.5
WITNESSES, WITNESS_ROWS = 48, 3


def sharpness(
    model: nn.Module,
    data: Dataset,
    *,
    loss: Loss | None = None,
    samples: int = 500,
    tolerance: float = 1e-4,
    statistics: Statistics = "running",
) -> Finding:
    """Return how sharp a model's loss is, and whether units alone can change that.

    Args:
        model: Any module with a loss; see `leadline.measures.surface.loss_surface`.
        data: Its training samples are what the loss is averaged over.
        loss: (model, x, y) -> mean loss; the model's own by default.
        samples: Most training samples.
        tolerance: Error of the eigenvalues, relative to them, in (0, 0.01).
        statistics: Of batch normalisation: "running" or "batch".

    Raises:
        OptionError: If an option is out of range.
        VerbError: If the model has no loss and none is given.
        StudyError: If a control fails.
    """
    if not 0 < tolerance < STEADY:
        raise OptionError(f"tolerance must be in (0, {STEADY}), got {tolerance}")
    options: dict[str, Any] = {"loss": loss, "statistics": statistics, "double": True}
    surface = loss_surface(model, data, samples=samples, **options)
    controls = passed(_controls())

    def losses(net: nn.Module) -> Tensor:
        parts = loss_surface(net, data, samples=WITNESSES, rows=WITNESS_ROWS, **options)
        with torch.no_grad():
            return torch.stack([part(parts.point) for part in parts.parts])

    found = same_function(model, losses, FACTOR)
    rows = [_figures("as given", surface, tolerance)]
    if found is not None:
        rows.append(_figures("rescaled", loss_surface(found[0], data, samples=samples, **options), tolerance))
    table = pd.DataFrame(rows)
    value, holds = _judged(table)
    how = "no two layers can be rescaled without changing outputs" if found is None else found[1]
    return Finding(
        study="sharpness",
        claim=(
            f"The largest Hessian eigenvalue of {type(model).__name__} on {data.name} can change tenfold "
            "though no output does; the adaptive one cannot."
        ),
        holds=holds,
        value=value,
        controls=controls,
        table=table,
        protocol=(
            f"{how}; largest eigenvalue {table['eigenvalue'][0]:.4g} ± {table['error'][0]:.2g}, adaptive "
            f"{table['adaptive eigenvalue'][0]:.4g}; {len(data.train.head(samples)):,} samples, "
            f"{surface.size:,} parameters, float64; box of Keskar 1e-3 and 5e-4, rho {RHO:g}"
        ),
        draw=sharpness_figure,
    )


def _figures(weights: str, surface: Any, tolerance: float) -> dict[str, Any]:
    """Return a row of the table."""
    top = extremes(surface, tolerance=tolerance)
    own = adaptive_eigenvalue(surface, tolerance=tolerance)
    wide, narrow = (keskar(surface, eps) for eps in BOXES)
    return {
        "weights": weights,
        "loss": surface.value(),
        "eigenvalue": float(top.values[0]),
        "error": float(top.errors[0]),
        "keskar 1e-3": wide,
        "keskar 5e-4": narrow,
        "adaptive rise": adaptive(surface, RHO),
        "adaptive eigenvalue": float(own.values[0]),
        "adaptive error": float(own.errors[0]),
    }


def _judged(table: pd.DataFrame) -> tuple[Quantity, bool | None]:
    """Return by how much the eigenvalue changed, with the interval of its errors, and the verdict."""
    name = "larger over smaller eigenvalue"
    if len(table) < 2 or float(table["eigenvalue"].min()) <= 0:
        return Quantity(math.nan, "", "estimate", protocol=name), None
    (small, low), (large, high) = sorted(zip(table["eigenvalue"], table["error"], strict=True))
    interval = ((large - high) / (small + low), (large + high) / max(small - low, 1e-300))
    own, error = table["adaptive eigenvalue"], table["adaptive error"]
    change = abs(own[1] / own[0] - 1)
    reach = (error[0] + error[1]) / abs(own[0])
    steady = side((change - reach, change + reach), STEADY, above=False)
    holds = all_of([side(interval, TENFOLD, above=True), steady])
    return Quantity(large / small, "", "estimate", None, interval, 2, name), holds


def _controls() -> dict[str, Control]:
    """Return a curvature that is known, and rescalings that do and do not change what is computed."""
    source = generator_for(0, "sharpness")
    x = torch.randn(60, 5, generator=source, dtype=torch.float64)
    y = torch.randn(60, generator=source, dtype=torch.float64)

    def regression() -> float:
        surface = function_surface(lambda p: 0.5 * (x @ p - y).square().mean(), torch.zeros(5).double())
        truth = float(torch.linalg.eigvalsh(x.T @ x / len(x))[-1])
        return abs(float(extremes(surface, tolerance=1e-9).values[0]) / truth - 1)

    def moves(unit: type[nn.Module]) -> float:
        net = nn.Sequential(nn.Linear(5, 8), unit(), nn.Linear(8, 2)).double()
        with torch.no_grad():
            for p in net.parameters():
                p.copy_(torch.randn(p.shape, generator=source))
            return moved_by(net(x), rescaled(net, "0", "2", FACTOR)(x))

    return {
        "linear regression": Control(regression, lambda error: error < EXACT, f"be below {EXACT:g}"),
        "rectified units": Control(
            lambda: moves(nn.ReLU), lambda move: move < UNMOVED, f"be below {UNMOVED:g}"
        ),
        "tanh units": Control(lambda: moves(nn.Tanh), lambda move: move > MOVED, f"be above {MOVED:g}"),
    }
