r"""Belief propagation on factor graphs: sum-product and max-product, exact on trees, loopy elsewhere.

    m_fi(x_i) = sum_{x_f without i} f(x_f) prod_{j in f, j != i} n_jf(x_j)
    n_if(x_i) = prod_{g in i, g != f} m_gi(x_i)

All messages are renewed at once (flooding), as logarithms with each message's largest entry zero, and mixed
with the old ones by `damping`. On a forest as many rounds as it is long give exact answers. With cycles a
fixed point is a stationary point of the Bethe free energy, which estimates log Z without a bound.

Symbols:
    f factor, i variable, m messages to variables, n messages to factors, b beliefs, H entropy.

Source:
    Kschischang, Frey and Loeliger (2001), Factor graphs and the sum-product algorithm;
    Yedidia, Freeman and Weiss (2005), Constructing free-energy approximations and generalized belief
    propagation algorithms, section IV (the Bethe free energy).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from leadline.core.errors import DataError, OptionError
from leadline.inference.factors import FactorGraph, Floats, Ints

__all__ = ["Propagation", "is_forest", "propagate"]

_NEVER = -1e300  # the log of nothing, kept finite so that differences stay numbers
_GONE = -1e200


@dataclass(frozen=True, eq=False)
class Propagation:
    """What belief propagation ended with.

    Args:
        marginals: Belief of each variable; of a max-product run, the normalised max-marginal.
        log_partition: The Bethe approximation of log Z in nats; exact on a forest. After max-product, the log
            weight of `x`.
        x: The likeliest state of each variable by itself, ties to the first; after max-product on a forest
            without ties the likeliest state of all.
        rounds: Rounds taken.
        change: Largest change of a message's entry in the last round, as a probability.
        exact: Whether the graph is a forest, nothing was damped and the messages are final.
    """

    marginals: list[Floats]
    log_partition: float
    x: Ints
    rounds: int
    change: float
    exact: bool

    @property
    def converged(self) -> bool:
        """Return whether the messages have settled."""
        return self.change < 1e-6


def is_forest(graph: FactorGraph) -> bool:
    """Return whether the graph of variables and factors has no cycle; variables of one state do not count."""
    root = list(range(len(graph.sizes) + len(graph.factors)))

    def find(a: int) -> int:
        while root[a] != a:
            root[a] = root[root[a]]
            a = root[a]
        return a

    for number, factor in enumerate(graph.factors):
        for v in factor.scope:
            if graph.sizes[v] > 1:
                one, other = find(v), find(len(graph.sizes) + number)
                if one == other:
                    return False
                root[one] = other
    return True


def propagate(
    graph: FactorGraph,
    evidence: Mapping[int, int] | None = None,
    *,
    maxima: bool = False,
    damping: float = 0.0,
    rounds: int = 1000,
    tolerance: float = 1e-9,
) -> Propagation:
    """Return the beliefs that messages settle on.

    Args:
        graph: The factors.
        evidence: Observed states by variable.
        maxima: Whether to maximise (max-product) in place of summing (sum-product).
        damping: Weight of the old message in the new one's logarithm, in [0, 1).
        rounds: Most rounds.
        tolerance: Messages have settled when no probability changes by more than this.

    Raises:
        OptionError: If damping is not in [0, 1).
        DataError: If the evidence has probability zero, as far as the messages see.
    """
    if not 0 <= damping < 1:
        raise OptionError(f"damping must be in [0, 1), got {damping}")
    seen = graph.given(evidence or {})
    net = _Net(seen, maxima=maxima)
    forest = damping == 0 and is_forest(seen)
    settled = 1e-15 if forest else tolerance  # on a forest messages end by being final, not by being near
    change, taken = math.inf, 0
    while taken < rounds and change > settled:
        change = net.round(damping)
        taken += 1
    exact = forest and change <= settled
    beliefs = net.beliefs()
    x = np.array([int(belief.argmax()) for belief in beliefs])
    for v, state in (evidence or {}).items():
        x[v] = state
        beliefs[v] = np.eye(graph.sizes[v])[state]
    value = float(graph.log_weight(x[None])[0]) if maxima else net.bethe()
    return Propagation(beliefs, value, x, taken, change, exact)


class _Group:
    """Factors of one shape, handled together.

    Args:
        scopes: Variables of each (F, r).
        logs: Log-tables (F, *shape).
        start: Number of the first message among all.
    """

    def __init__(self, scopes: Ints, logs: Floats, start: int) -> None:
        self.scopes, self.logs = scopes, logs
        count, arity = scopes.shape
        self.edges = start + np.arange(count * arity).reshape(count, arity)  # (F, r)

    def joined(self, messages: Floats) -> Floats:
        """Return log-tables plus the messages to the factors: messages (edges, K) -> (F, *shape)."""
        total = self.logs
        for axis in range(self.edges.shape[1]):
            total = np.maximum(total + self._along(messages, axis), _NEVER)
        return total

    def reduced(self, joint: Floats, messages: Floats, *, maxima: bool) -> list[Floats]:
        """Return the new message to each variable, as logs (F, k) a place of the scope."""
        found = []
        for axis in range(self.edges.shape[1]):
            others = np.where(joint > _GONE, joint - self._along(messages, axis), _NEVER)
            flat = np.moveaxis(others, axis + 1, 1).reshape(
                len(joint), others.shape[axis + 1], -1
            )  # (F, k, rest)
            found.append(flat.max(-1) if maxima else _log_sum(flat))
        return found

    def _along(self, messages: Floats, axis: int) -> Floats:
        """Return the messages of one place of the scope, shaped to add to the log-tables."""
        size = self.logs.shape[axis + 1]
        shape = [len(self.logs)] + [1] * (self.logs.ndim - 1)
        shape[axis + 1] = size
        return messages[self.edges[:, axis], :size].reshape(shape)


class _Net:
    """All messages of a graph, a row an edge, unused states at the log of nothing."""

    def __init__(self, graph: FactorGraph, *, maxima: bool) -> None:
        self.sizes, self.maxima = graph.sizes, maxima
        self.width = max(graph.sizes, default=1)
        self.constant = 0.0
        self.groups: list[_Group] = []
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for number, factor in enumerate(graph.factors):
            by_shape.setdefault(factor.table.shape, []).append(number)
        start = 0
        with np.errstate(divide="ignore"):
            for shape, numbers in by_shape.items():
                logs = np.maximum(np.log(np.stack([graph.factors[n].table for n in numbers])), _NEVER)
                if not shape:
                    self.constant += float(logs.sum())
                    continue
                scopes = np.array([graph.factors[n].scope for n in numbers], dtype=np.int64)
                self.groups.append(_Group(scopes, logs, start))
                start += scopes.size
        self.owner = np.concatenate([np.empty(0, dtype=np.int64), *(g.scopes.ravel() for g in self.groups)])
        if self.constant <= _GONE:
            raise DataError("the evidence has probability zero")
        states = np.arange(self.width)
        self.real = states[None] < np.array(self.sizes, dtype=np.int64)[:, None]  # (d, K)
        self.to_variables = np.where(self.real[self.owner], 0.0, _NEVER)  # (edges, K)

    def round(self, damping: float) -> float:
        """Renew all messages to variables, and return the largest change of a probability."""
        to_factors = self._to_factors()
        new = np.full_like(self.to_variables, _NEVER)
        for group in self.groups:
            joint = group.joined(to_factors)
            for axis, message in enumerate(group.reduced(joint, to_factors, maxima=self.maxima)):
                new[group.edges[:, axis], : message.shape[1]] = message
        top = new.max(1, keepdims=True, initial=_NEVER)
        if (top <= _GONE).any():
            raise DataError("the evidence has probability zero")
        new = np.maximum(new - top, _NEVER)
        if damping:
            new = np.maximum((1 - damping) * new + damping * self.to_variables, _NEVER)
        change = float(np.abs(_shares(new) - _shares(self.to_variables)).max(initial=0.0))
        self.to_variables = new
        return change

    def _sums(self) -> Floats:
        """Return the sum of the messages to each variable (d, K)."""
        total = np.where(self.real, 0.0, _NEVER)
        np.add.at(total, self.owner, self.to_variables)
        total = np.maximum(total, _NEVER)
        if (total.max(1, initial=_NEVER) <= _GONE).any():
            raise DataError("the evidence has probability zero")
        return total

    def _to_factors(self) -> Floats:
        """Return the messages to factors: all that come to the variable but the factor's own (edges, K)."""
        gone = self.to_variables <= _GONE
        finite = np.where(gone, 0.0, self.to_variables)
        total, count = np.zeros(self.real.shape), np.zeros(self.real.shape)
        np.add.at(total, self.owner, finite)
        np.add.at(count, self.owner, gone)
        left = total[self.owner] - finite
        closed = (count[self.owner] - gone > 0) | ~self.real[self.owner]
        left = np.where(closed, _NEVER, left)
        return np.maximum(left - left.max(1, keepdims=True, initial=_NEVER), _NEVER)

    def beliefs(self) -> list[Floats]:
        """Return the belief of each variable."""
        shares = _shares(self._sums())
        return [shares[v, :size] for v, size in enumerate(self.sizes)]

    def bethe(self) -> float:
        """Return the Bethe approximation of log Z: energy and entropy of factor beliefs, and a correction.

        sum_f E_b[log f] + sum_f H(b_f) - sum_i (degree_i - 1) H(b_i)   (equations 37 to 39).
        """
        total, to_factors = self.constant, self._to_factors()
        for group in self.groups:
            joint = group.joined(to_factors)
            flat = joint.reshape(len(joint), -1)
            belief = _shares(flat)
            logs = np.where(belief > 0, group.logs.reshape(flat.shape), 0.0)
            total += float((belief * logs).sum() + _entropy(belief).sum())
        degree = np.bincount(self.owner, minlength=len(self.sizes))
        return total - float(((degree - 1) * _entropy(_shares(self._sums()))).sum())


def _log_sum(logs: Floats) -> Floats:
    """Return the log of the sum over the last axis."""
    top = logs.max(-1, keepdims=True)
    with np.errstate(divide="ignore", under="ignore"):
        return np.maximum(np.log(np.exp(np.maximum(logs - top, -800)).sum(-1)) + top[..., 0], _NEVER)


def _shares(logs: Floats) -> Floats:
    """Return probabilities over the last axis of logs; the log of nothing is zero."""
    top = logs.max(-1, keepdims=True, initial=_NEVER)
    with np.errstate(under="ignore"):
        weights = np.where(logs > _GONE, np.exp(np.maximum(logs - top, -800)), 0.0)
    return weights / weights.sum(-1, keepdims=True)


def _entropy(shares: Floats) -> Floats:
    """Return the entropy over the last axis, in nats."""
    return -(shares * np.log(np.where(shares > 0, shares, 1.0))).sum(-1)
