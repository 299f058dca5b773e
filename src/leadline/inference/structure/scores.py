r"""Scores of a directed graph that are sums over families: BIC and BDeu.

    BIC  = sum_i [ sum_jk n_ijk log(n_ijk / n_ij) - (log n / 2) q_i (r_i - 1) ]
    BDeu = sum_i sum_j [ log G(a/q_i) / G(a/q_i + n_ij) + sum_k log G(a/(q_i r_i) + n_ijk) / G(a/(q_i r_i)) ]

Both are equal for graphs that state the same independences. What BDeu finds depends on a: many equivalent
samples favour edges that join variables of uneven distributions, even where the data say independent.

Symbols:
    n rows, i variable, j configuration of its parents (q_i), k state (r_i), a equivalent sample size.

Source:
    Schwarz (1978), Estimating the dimension of a model, Annals of Statistics 6.
    Heckerman, Geiger and Chickering (1995), Learning Bayesian networks, Machine Learning 20, section 5.
    Silander, Kontkanen and Myllymäki (2007), On sensitivity of the MAP Bayesian network structure to the
    equivalent sample size parameter, UAI; Steck (2008), Learning the Bayesian network structure: Dirichlet
    prior versus data, UAI.
"""

import math
from collections.abc import Iterable

import numpy as np
from scipy.special import gammaln, xlogy

from leadline.core.errors import OptionError, unknown_name
from leadline.inference.structure.counting import Table

__all__ = ["SCORES", "FamilyScore"]

SCORES = ("bic", "bdeu")


class FamilyScore:
    """The score of a child with its parents, in nats; higher is better. Each is counted once.

    Args:
        table: The rows.
        score: "bic" or "bdeu".
        equivalent_samples: Weight of the uniform prior of "bdeu", in rows, positive; more, more edges.

    Raises:
        OptionError: If the score is unknown, or the weight not positive.
    """

    def __init__(self, table: Table, score: str = "bic", equivalent_samples: float = 1.0) -> None:
        if score not in SCORES:
            raise unknown_name("score", score, SCORES)
        if not equivalent_samples > 0:
            raise OptionError(f"equivalent_samples must be positive, got {equivalent_samples}")
        self.table = table
        self.weight = equivalent_samples
        self._of_counts = self._bic if score == "bic" else self._bdeu
        self._known: dict[tuple[int, tuple[int, ...]], float] = {}

    def __call__(self, child: int, parents: Iterable[int]) -> float:
        """Return the score of one family, in nats."""
        key = (child, tuple(sorted(parents)))
        if key not in self._known:
            q = math.prod(self.table.sizes[v] for v in key[1])
            self._known[key] = self._of_counts(self.table.family(*key), q)
        return self._known[key]

    def total(self, parents: Iterable[Iterable[int]]) -> float:
        """Return the score of a whole graph, in nats."""
        return sum(self(child, above) for child, above in enumerate(parents))

    def _bic(self, counts: np.ndarray, q: int) -> float:
        fit = xlogy(counts, counts).sum() - xlogy(rows := counts.sum(1), rows).sum()
        return float(fit - 0.5 * math.log(len(self.table)) * q * (counts.shape[1] - 1))

    def _bdeu(self, counts: np.ndarray, q: int) -> float:
        of_row, of_cell = self.weight / q, self.weight / (q * counts.shape[1])
        rows = counts.sum(1)
        rows, counts = rows[rows > 0], counts[counts > 0]
        return float(
            (gammaln(of_row) - gammaln(of_row + rows)).sum()
            + (gammaln(of_cell + counts) - gammaln(of_cell)).sum()
        )
