r"""The tree that loses least: maximum likelihood among all trees, in closed form.

A tree's log-likelihood is, up to a constant, n times the sum over its edges of the mutual information in
the data, so the best tree is a maximum spanning tree.

Symbols:
    n rows, d variables, I (d, d) mutual information.

Source:
    Chow and Liu (1968), Approximating discrete probability distributions with dependence trees, IEEE
    Transactions on Information Theory 14.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import xlogy

from leadline.core.errors import OptionError
from leadline.inference.graphs import Parents
from leadline.inference.structure.counting import Table

__all__ = ["chow_liu", "mutual_information"]


def mutual_information(table: Table) -> NDArray[np.float64]:
    """Return the empirical mutual information of all pairs, in nats: (d, d); the diagonal holds entropies."""
    counts, starts = table.pairs()
    n = len(table)
    joint = np.add.reduceat(np.add.reduceat(xlogy(counts, counts), starts[:-1], 0), starts[:-1], 1)
    single = np.add.reduceat(xlogy(counts.diagonal(), counts.diagonal()), starts[:-1])
    # sum n_ab log(n_ab n / (n_a n_b)) / n
    return np.maximum(joint / n + np.log(n) - (single[:, None] + single[None, :]) / n, 0.0)


def chow_liu(table: Table, root: int = 0) -> Parents:
    """Return the parents of each variable in a tree of maximum likelihood that hangs from `root`.

    Raises:
        OptionError: If there is no such variable.
    """
    d = len(table.sizes)
    if not 0 <= root < d:
        raise OptionError(f"root must be a variable from 0 to {d - 1}, got {root}")
    weight = mutual_information(table)
    parents: list[tuple[int, ...]] = [()] * d
    best, source = weight[root].copy(), np.full(d, root)
    outside = np.ones(d, dtype=bool)
    outside[root] = False
    for _ in range(d - 1):  # Prim's algorithm
        v = int(np.where(outside, best, -1.0).argmax())
        parents[v] = (int(source[v]),)
        outside[v] = False
        nearer = outside & (weight[v] > best)
        best[nearer], source[nearer] = weight[v][nearer], v
    return tuple(parents)
