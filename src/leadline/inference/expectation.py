r"""Rows with missing values: their likelihood, and the expected counts that EM divides.

    p(x_seen) = sum over x_missing of p(x),    E n_f[s] = sum over rows of p(x_scope(f) = s | x_seen)

Rows that are alike are asked about once. A row without a gap needs no inference: it is one state.

Symbols:
    n rows, d variables, x (n, d) states with -1 where missing, f factor.

Source:
    Lauritzen (1995), The EM algorithm for graphical association models with missing data, Computational
    Statistics and Data Analysis 19.
"""

import numpy as np

from leadline.core.errors import DataError
from leadline.inference.factors import Floats, Ints
from leadline.inference.junction_tree import JunctionTree

__all__ = ["expected_counts", "log_evidence"]


def log_evidence(tree: JunctionTree, x: Ints) -> Floats:
    """Return the log of the weight of what is known of each row, in nats: (n, d) -> (n,).

    A row that the factors rule out has -inf.
    """
    rows, back = np.unique(x, axis=0, return_inverse=True)
    found = np.empty(len(rows))
    whole = (rows >= 0).all(1)
    found[whole] = tree.graph.log_weight(rows[whole])
    for i in np.flatnonzero(~whole):
        try:
            found[i] = tree.log_partition(_seen(rows[i]))
        except DataError:
            found[i] = -np.inf
    return found[back.reshape(-1)]


def expected_counts(tree: JunctionTree, x: Ints) -> tuple[list[Floats], float]:
    """Return the expected number of rows in each state of each factor, and the sum of the log-weights.

    Args:
        tree: A junction tree of the factors.
        x: States (n, d), -1 where missing.

    Raises:
        DataError: If what is known of a row has probability zero; the message names its values.
    """
    factors = tree.graph.factors
    counts = [np.zeros(factor.table.shape) for factor in factors]
    rows, times = np.unique(x, axis=0, return_counts=True)
    whole = (rows >= 0).all(1)
    for factor, count in zip(factors, counts, strict=True):
        np.add.at(count, tuple(rows[whole][:, v] for v in factor.scope), times[whole])
    logs = tree.graph.log_weight(rows[whole])
    if np.isneginf(logs).any():
        raise _impossible(rows[whole][np.isneginf(logs)][0])
    total = float(times[whole] @ logs)
    for row, often in zip(rows[~whole], times[~whole], strict=True):
        try:
            log_weight, beliefs = tree.beliefs(_seen(row))
        except DataError:
            raise _impossible(row) from None
        total += float(often) * log_weight
        for count, belief in zip(counts, beliefs, strict=True):
            np.add(count, often * belief, out=count)
    return counts, total


def _seen(row: Ints) -> dict[int, int]:
    return {v: int(state) for v, state in enumerate(row) if state >= 0}


def _impossible(row: Ints) -> DataError:
    return DataError(
        f"the states {row.tolist()} (-1 is missing) have probability zero: give smoothing above 0, "
        "or take that row out"
    )
