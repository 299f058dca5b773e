r"""Likelihood weighting: importance sampling of a Bayesian network given evidence.

Variables are drawn parents first, observed ones are set, and each draw gets the weight

    w = prod_{v observed} p(x_v | x_parents(v)),    E[w] = p(evidence).

Symbols:
    n draws, d variables, w (n,) weights.

Source:
    Fung and Chang (1990), Weighing and integrating evidence for stochastic simulation in Bayesian networks;
    standard errors of the ratio by the delta method, as in Owen (2013), Monte Carlo, chapter 9.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from leadline.core.errors import DataError, OptionError
from leadline.inference.factors import FactorGraph, Floats, Ints
from leadline.inference.graphs import topological_order
from leadline.inference.pruning import pruned

__all__ = ["Weighted", "likelihood_weighting", "share_errors"]


@dataclass(frozen=True, eq=False)
class Weighted:
    """What weighted draws say.

    Args:
        marginals: Estimated distribution of each variable.
        stderr: Standard error of each probability; of a state that no draw, or every one, was in, that of one
            draw from there.
        log_partition: Log of the mean weight in nats, an estimate of log p(evidence).
        log_stderr: Its standard error by the delta method.
        effective_sample_size: (sum w)^2 / sum w^2; standard errors of few effective draws cannot be trusted.
    """

    marginals: list[Floats]
    stderr: list[Floats]
    log_partition: float
    log_stderr: float
    effective_sample_size: float


def likelihood_weighting(
    graph: FactorGraph, evidence: Mapping[int, int] | None = None, *, draws: int = 20_000, seed: int = 0
) -> Weighted:
    """Return estimates from `draws` weighted draws.

    Args:
        graph: Factors that are the distributions of one child each, in a graph without a cycle.
        evidence: Observed states by variable.
        draws: Number n of draws.
        seed: Seed of the draws.

    Raises:
        OptionError: If the factors are not such distributions.
        DataError: If no draw agrees with the evidence.
    """
    seen = dict(evidence or {})
    graph.check_evidence(seen)
    owner = {factor.child: factor for factor in graph.factors}
    if set(owner) != set(range(len(graph.sizes))) or len(graph.factors) != len(owner):
        raise OptionError("likelihood weighting needs a Bayesian network; use method='loopy'")
    parents = [[u for u in owner[v].scope if u != v] for v in range(len(graph.sizes))]
    rng = np.random.default_rng(seed)
    x = np.zeros((draws, len(graph.sizes)), dtype=np.int64)
    log_weights = np.zeros(draws)
    for v in topological_order(parents):
        factor = owner[v]
        table = np.moveaxis(factor.table, factor.scope.index(v), -1)
        rows = table[tuple(x[:, u] for u in factor.scope if u != v)]  # (n, k), or (k,) without parents
        if v in seen:
            x[:, v] = seen[v]
            with np.errstate(divide="ignore"):
                log_weights += np.log(rows[..., seen[v]])
        else:
            cumulative = rows.cumsum(-1)
            threshold = rng.random((draws, 1)) * cumulative[..., -1:]
            x[:, v] = np.minimum((cumulative <= threshold).sum(-1), graph.sizes[v] - 1)
    return _summary(graph, seen, x, log_weights)


def share_errors(shares: Floats, possible: NDArray[np.bool_], effective: Floats | float) -> Floats:
    """Return sqrt(p (1 - p) / ESS); of a state never, or always, seen p is one draw from the end."""
    p = np.clip(shares, 1 / (effective + 1), effective / (effective + 1))
    return np.where(possible & (possible.sum() > 1), np.sqrt(p * (1 - p) / effective), 0.0)


def _summary(graph: FactorGraph, seen: Mapping[int, int], x: Ints, log_weights: Floats) -> Weighted:
    """Return the estimates of weighted draws (n, d)."""
    top = float(log_weights.max())
    if top == -math.inf:
        raise DataError("no draw agrees with the evidence: its probability is zero, or too small to sample")
    w = np.exp(log_weights - top)
    total, n, squared = float(w.sum()), len(w), float((w * w).sum())
    effective = total**2 / squared
    marginals, errors = [], []
    for v, able in enumerate(pruned(graph.given(seen)).possible(graph.sizes)):
        size = len(able)
        p = np.bincount(x[:, v], weights=w, minlength=size) / total
        squares = np.bincount(x[:, v], weights=w * w, minlength=size)  # sum of w^2 where the state holds
        # sum w^2 (1[x = s] - p)^2 = squares (1 - p)^2 + (rest) p^2
        variance = squares * (1 - p) ** 2 + (squared - squares) * p**2
        told = np.sqrt(np.maximum(variance, 0.0)) / total  # rounding may fall below zero
        marginals.append(p)
        drawn = np.bincount(x[w > 0, v], minlength=size) > 0
        bare = ~drawn | (drawn.sum() == 1)  # never, or always
        errors.append(np.where(bare, share_errors(p, able, effective), told))
    spread = float(w.std(ddof=1)) / (total / n) / math.sqrt(n) if n > 1 else math.inf
    return Weighted(marginals, errors, math.log(total / n) + top, spread, effective)
