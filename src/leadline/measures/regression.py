"""How well a model predicts real targets.

Symbols:
    n judged samples, D targets.
"""

import math

import pandas as pd
from torch import Tensor

from leadline.core import Quantity, Targets, mean_quantity
from leadline.measures.reading import Reading

__all__ = ["regression_reading"]


def regression_reading(predicted: Tensor, y: Tensor, labels: Targets, notes: list[str]) -> Reading:
    """Return the reading of predicted means (n, D) for known targets (n, D).

    One target is judged in its own unit; several are each divided by their standard deviation over the
    train split first, and averaged.
    """
    one = labels.outputs == 1
    unit = labels.names[0] if one else "sd"
    error = (predicted - y) / (1.0 if one else y.new_tensor(labels.scale))
    squares = error.square().mean(1)  # (n,)
    centred = (y - y.mean(0)).square().sum(0)
    explained = 1 - (predicted - y).square().sum(0) / centred
    if bool((centred == 0).any()):
        notes.append("a target is constant over these samples: R2 is not defined")
    return Reading(
        "classification",
        "rmse",
        higher_is_better=False,
        quantities={
            "rmse": root_mean_square(squares, unit),
            "mae": mean_quantity(error.abs().mean(1), unit=unit),
            "r2": Quantity(
                float(explained.mean()) if bool((centred > 0).all()) else math.nan,
                samples=len(y),
                protocol="mean over targets" if not one else "",
            ),
        },
        rows=squares,
        details={
            "per_target": pd.DataFrame(
                {
                    "target": list(labels.names),
                    "rmse": (predicted - y).square().mean(0).sqrt().tolist(),
                    "r2": explained.tolist(),
                }
            ),
            "predicted": predicted,
            "targets": y,
            "notes": notes,
        },
    )


def root_mean_square(squares: Tensor, unit: str) -> Quantity:
    """Return the root of the mean of `squares` (n,) with the root of that mean's 95 % interval."""
    mean = mean_quantity(squares)
    interval = None
    if mean.interval is not None and math.isfinite(mean.interval[1]):
        interval = (math.sqrt(max(0.0, mean.interval[0])), math.sqrt(mean.interval[1]))
    return Quantity(
        math.sqrt(mean.value) if mean.value >= 0 else math.nan,
        unit,
        interval=interval,
        samples=len(squares),
        protocol="root of the mean square and of its interval",
    )
