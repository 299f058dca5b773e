r"""Questions asked of a factor graph: one door to every method, and answers that say what they are.

    p(x_v | e),    log sum_x prod_f f(x, e),    argmax_x prod_f f(x, e)

Source:
    Koller and Friedman (2009), Probabilistic Graphical Models, part II.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from leadline.core.errors import DataError, OptionError, ResourceError
from leadline.core.quantities import Kind, Quantity
from leadline.inference.belief_propagation import is_forest, propagate
from leadline.inference.elimination import eliminate, relevant
from leadline.inference.factors import FactorGraph, Floats, Ints
from leadline.inference.junction_tree import JunctionTree
from leadline.inference.mean_field import mean_field
from leadline.inference.pruning import pruned
from leadline.inference.weighting import likelihood_weighting

__all__ = ["METHODS", "Beliefs", "Likeliest", "believe", "likeliest"]

METHODS = ("auto", "exact", "loopy", "mean_field", "weighting")
_DAMPING = 0.3
_CAP = 1 << 16  # entries of a table of the mini-bucket bound
_LITTLE, _SMALL = 2500, 1e6  # factors times questions, and bytes of tables, that numpy answers in no time
_FEW = 100.0  # effective draws below which weighted ones are not trusted


@dataclass(frozen=True, eq=False)
class Beliefs:
    """Distributions of single variables given evidence, and the weight of the evidence.

    Args:
        marginals: Distribution of each variable that was asked for.
        log_partition: log of the weight of the evidence, in nats: log Z where there is none. Of an estimate
            the interval is a certain one, between a lower and an upper bound, unless it has a standard error.
        kind: What the marginals are: "exact" or "estimate".
        method: How they were found.
        stderr: Standard error of each probability, where the method knows one.
    """

    marginals: dict[int, Floats]
    log_partition: Quantity
    kind: Kind
    method: str
    stderr: dict[int, Floats] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Likeliest:
    """A state of all variables that is the likeliest, or the best that a method found.

    Args:
        x: The state of each variable (d,).
        log_weight: Log of the product of all factors there, in nats; a lower bound of the largest where
            `kind` is not "exact".
        kind: "exact" or "lower bound".
        method: How it was found.
    """

    x: Ints
    log_weight: float
    kind: Kind
    method: str


def believe(
    graph: FactorGraph,
    evidence: Mapping[int, int] | None = None,
    wanted: Iterable[int] | None = None,
    *,
    method: str = "auto",
    tree: JunctionTree | None = None,
    limit: float | None = None,
    seed: int = 0,
) -> Beliefs:
    """Return the distributions of the `wanted` variables given evidence.

    Args:
        graph: The factors.
        evidence: Observed states by variable.
        wanted: The variables asked for; all by default.
        method: "exact" (junction tree), "loopy" (belief propagation), "mean_field", "weighting" (importance
            sampling of a Bayesian network), or "auto": exact where memory allows, else weighting where enough
            draws agree with the evidence, else loopy.
        tree: A junction tree of the graph, if there is one already.
        limit: Most bytes of tables; half the free memory by default.
        seed: Seed of the draws of "weighting".

    Raises:
        OptionError: If the method is unknown, or not for this graph.
        ResourceError: If the method is "exact" and the tables would take more than `limit`.
        DataError: If the evidence has probability zero.
    """
    _check(method)
    seen = dict(evidence or {})
    graph.check_evidence(seen)
    asked = list(range(len(graph.sizes)) if wanted is None else wanted)
    if method in ("auto", "exact"):
        try:
            return _exactly(graph, seen, asked, tree, limit)
        except ResourceError:
            if method == "exact":
                raise
        return _roughly(graph, seen, asked, seed)
    ways: dict[str, Callable[[], Beliefs]] = {
        "loopy": lambda: _by_propagation(graph, seen, asked),
        "mean_field": lambda: _by_mean_field(graph, seen, asked),
        "weighting": lambda: _by_weighting(graph, seen, asked, seed)[0],
    }
    return ways[method]()


def likeliest(
    graph: FactorGraph,
    evidence: Mapping[int, int] | None = None,
    *,
    method: str = "auto",
    tree: JunctionTree | None = None,
    limit: float | None = None,
) -> Likeliest:
    """Return the likeliest state of all variables given evidence.

    Args:
        graph: The factors.
        evidence: Observed states by variable.
        method: "exact" (junction tree), "loopy" (max-product), or "auto": exact where memory allows.
        tree: A junction tree of the graph, if there is one already.
        limit: Most bytes of tables; half the free memory by default.

    Raises:
        OptionError: If the method is unknown, or finds no likeliest state.
        ResourceError: If the method is "exact" and the tables would take more than `limit`.
        DataError: If the evidence has probability zero.
    """
    _check(method)
    seen = dict(evidence or {})
    graph.check_evidence(seen)
    if method in ("auto", "exact"):
        try:
            if tree is not None:
                return Likeliest(*tree.maximise(seen), "exact", "junction tree")
            small = pruned(graph.given(seen))
            found, log_weight = JunctionTree(small.graph, limit=limit).maximise()
            x = np.array([seen.get(v, small.states[v][state]) for v, state in enumerate(found)])
            return Likeliest(x, log_weight, "exact", "junction tree")
        except ResourceError:
            if method == "exact":
                raise
    elif method != "loopy":
        raise OptionError(f"method {method!r} finds no likeliest state; use 'exact' or 'loopy'")
    damping = 0.0 if is_forest(graph.given(seen)) else _DAMPING
    best = propagate(graph, seen, maxima=True, damping=damping)
    told = f"max-product belief propagation, {best.rounds} rounds"
    return Likeliest(best.x, best.log_partition, "exact" if best.exact else "lower bound", told)


def _check(method: str) -> None:
    """Check that there is such a method."""
    if method not in METHODS:
        raise OptionError(f"method must be one of {', '.join(METHODS)}, got {method!r}")


def _exactly(
    graph: FactorGraph,
    seen: Mapping[int, int],
    asked: list[int],
    tree: JunctionTree | None,
    limit: float | None,
) -> Beliefs:
    """Return exact beliefs: from the tree that there is, or by the way that suits one question."""
    if tree is not None:
        answer = tree.calibrate(seen, asked)
        marginals = {v: answer.marginals[v] for v in asked}
        return Beliefs(marginals, Quantity(answer.log_partition, "nats"), "exact", "junction tree")
    # evidence, and what cannot matter or cannot be, leave the graph before its cliques are sought
    small = pruned(relevant(graph, asked, seen).given(seen))
    found, log_partition, told = _once(small.graph, asked, limit)
    marginals = {
        v: np.eye(graph.sizes[v])[seen[v]] if v in seen else small.widened(v, found[v], graph.sizes[v])
        for v in asked
    }
    return Beliefs(marginals, Quantity(log_partition, "nats"), "exact", told)


def _once(
    graph: FactorGraph, asked: list[int], limit: float | None
) -> tuple[Mapping[int, Floats], float, str]:
    """Return marginals and log Z: of little by elimination, which needs no compiled loops, else by a tree."""
    if (1 + len(asked)) * len(graph.factors) <= _LITTLE:
        most = _SMALL if limit is None else min(limit, _SMALL)
        try:
            log_partition = eliminate(graph, limit=most).log_partition
            tables = {v: eliminate(graph, [v], limit=most).factor.table for v in asked}
        except ResourceError:
            pass
        else:
            return tables, log_partition, "variable elimination"
    answer = JunctionTree(graph, limit=limit).calibrate(None, asked)
    return answer.marginals, answer.log_partition, "junction tree"


def _roughly(graph: FactorGraph, seen: Mapping[int, int], asked: list[int], seed: int) -> Beliefs:
    """Return weighted draws if there are enough that agree with the evidence, else loopy beliefs."""
    try:
        found, effective = _by_weighting(graph, seen, asked, seed)
    except (OptionError, DataError):
        effective = 0.0
    if effective >= _FEW:
        return found
    return _by_propagation(graph, seen, asked)


def _by_weighting(
    graph: FactorGraph, seen: Mapping[int, int], asked: list[int], seed: int
) -> tuple[Beliefs, float]:
    """Return beliefs of weighted draws, and how many effective ones there were."""
    found = likelihood_weighting(graph, seen, seed=seed)
    effective = found.effective_sample_size
    log_partition = Quantity(
        found.log_partition,
        "nats",
        "estimate",
        stderr=found.log_stderr,
        interval=(
            found.log_partition - 1.96 * found.log_stderr,
            found.log_partition + 1.96 * found.log_stderr,
        ),
        protocol="likelihood weighting",
    )
    told = f"likelihood weighting, {effective:.0f} effective draws"
    marginals = {v: found.marginals[v] for v in asked}
    stderr = {v: found.stderr[v] for v in asked}
    return Beliefs(marginals, log_partition, "estimate", told, stderr), effective


def _by_propagation(graph: FactorGraph, seen: Mapping[int, int], asked: list[int]) -> Beliefs:
    """Return beliefs of messages, with log Z between the mean-field and the mini-bucket bound."""
    damping = 0.0 if is_forest(graph.given(seen)) else _DAMPING
    found = propagate(graph, seen, damping=damping, tolerance=1e-8)
    settled = "settled" if found.converged else "NOT settled"
    told = f"belief propagation, {settled} after {found.rounds} rounds"
    kind: Kind = "exact" if found.exact else "estimate"
    interval = None
    if not found.exact:
        interval = (mean_field(graph, seen, start=found.marginals).bound, _upper_bound(graph, seen))
        told += ", error unknown"
    log_partition = Quantity(
        found.log_partition, "nats", kind, interval=interval, protocol="Bethe free energy"
    )
    return Beliefs({v: found.marginals[v] for v in asked}, log_partition, kind, told)


def _by_mean_field(graph: FactorGraph, seen: Mapping[int, int], asked: list[int]) -> Beliefs:
    """Return mean-field beliefs, and the bound as log Z with the mini-bucket bound above it."""
    found = mean_field(graph, seen)
    interval = (found.bound, _upper_bound(graph, seen))
    log_partition = Quantity(found.bound, "nats", "lower bound", interval=interval, protocol="mean field")
    told = f"naive mean field, {len(found.bounds) - 1} rounds, error unknown"
    return Beliefs({v: found.marginals[v] for v in asked}, log_partition, "estimate", told)


def _upper_bound(graph: FactorGraph, seen: Mapping[int, int]) -> float:
    """Return an upper bound of log Z in nats."""
    try:
        return eliminate(graph, (), seen, cap=_CAP).log_partition
    except ResourceError:
        return math.inf
