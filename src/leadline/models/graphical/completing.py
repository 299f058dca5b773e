r"""Rows with gaps made whole by draws, so that a graph can be found from them.

    x_v ~ p(x_v | all others of the row) for each missing value in turn, over and over

Source:
    Friedman (1997), Learning belief networks in the presence of missing values and hidden variables, ICML.
    Draws by Gibbs sampling: Tanner and Wong (1987), The calculation of posterior distributions by data
    augmentation, JASA 82.

Departs from the source:
    The graph is sought in one set of drawn values, where Friedman sums over all of them.

Symbols:
    n rows, d variables, x (n, d) states with -1 where missing, K states of a variable.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from leadline.core import DataError
from leadline.core.randomness import categorical
from leadline.models.graphical.tables import Family, log_product

__all__ = ["drawn_alone", "drawn_given_the_rest"]


def drawn_alone(x: Tensor, sizes: Sequence[int]) -> Tensor:
    """Return rows in which missing values are drawn as often as their column shows them: (n, d) -> (n, d).

    Raises:
        DataError: If there is no row.
    """
    if len(x) == 0:
        raise DataError(
            "every row is empty, so no graph can be found: name its edges, or set structure='given'"
        )
    whole = x.clone()
    for v, size in enumerate(sizes):
        known, missing = x[:, v] >= 0, x[:, v] < 0
        often = torch.bincount(x[known, v], minlength=size).double() + 1e-9
        whole[missing, v] = categorical(often.log().expand(int(missing.sum()), -1))
    return whole


def drawn_given_the_rest(
    x: Tensor, whole: Tensor, families: Sequence[Family], logs: Tensor, sweeps: int
) -> Tensor:
    """Return whole rows whose missing values have been drawn anew `sweeps` times.

    Args:
        x: Rows with gaps (n, d).
        whole: The rows as they stand, without any (n, d), of positive probability.
        families: The tables of a network.
        logs: Logs of all tables, one after another.
        sweeps: How often to go over all variables.
    """
    whole = whole.clone()
    touching = [[f for f in families if v == f.child or v in f.parents] for v in range(x.shape[1])]
    open_rows = [(x[:, v] < 0).nonzero().flatten() for v in range(x.shape[1])]
    for _ in range(sweeps):
        for v, rows in enumerate(open_rows):
            if len(rows):
                whole[rows, v] = _drawn(whole[rows], v, touching[v], logs)
    return whole


def _drawn(rows: Tensor, v: int, families: Sequence[Family], logs: Tensor) -> Tensor:
    """Return draws of variable v given all others: (n, d) -> (n,)."""
    own = next(family for family in families if family.child == v)
    weights = []
    for state in range(own.length // math.prod(own.sizes)):
        rows[:, v] = state
        weights.append(log_product(families, logs, rows))
    return categorical(torch.stack(weights, 1))
