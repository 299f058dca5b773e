r"""Questions asked of a factor graph: one door to every method, and answers that say what they are.

    p(x_v | e),    log sum_x prod_f f(x, e),    argmax_x prod_f f(x, e)

Source:
    Koller and Friedman (2009), Probabilistic Graphical Models, part II.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from leadline.core.errors import OptionError, ResourceError
from leadline.core.quantities import Kind, Quantity
from leadline.inference.approximate import DAMPING, WAYS, Beliefs, roughly
from leadline.inference.belief_propagation import is_forest, propagate
from leadline.inference.elimination import eliminate, relevant
from leadline.inference.factors import FactorGraph, Floats, Ints
from leadline.inference.junction_tree import JunctionTree, checked_memory, told_need
from leadline.inference.orders import find_cliques
from leadline.inference.pruning import pruned

__all__ = ["METHODS", "Beliefs", "Likeliest", "believe", "likeliest"]

METHODS = ("auto", "exact", *WAYS)
_LITTLE, _SMALL = 2500, 1e6  # factors times questions, and bytes of tables, that numpy answers in no time
_TOLD = 1e8  # bytes of tables that are told before they are made
Tell = Callable[[str], None]


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
    tell: Tell | None = None,
) -> Beliefs:
    """Return the distributions of the `wanted` variables given evidence.

    Args:
        graph: The factors.
        evidence: Observed states by variable.
        wanted: The variables asked for; all by default.
        method: "exact" (junction tree), "loopy" (belief propagation), "mean_field", "mini_bucket" (certain
            bounds), "weighting" (importance sampling of a Bayesian network), "gibbs" (chains), or "auto":
            exact where memory allows, else weighting where enough draws agree with the evidence, else chains
            where they agree with each other, else loopy.
        tree: A junction tree of the graph, if there is one already.
        limit: Most bytes of tables: of all for an exact answer (half the free memory by default), of one
            for "mini_bucket".
        seed: Seed of the draws of "weighting" and "gibbs".
        tell: Is called with what an exact answer takes, in words, before it takes more than 100 MB, or where
            it does not fit.

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
            return _exactly(graph, seen, asked, tree, limit, tell)
        except ResourceError as error:
            if method == "exact":
                raise
            needs, _, _ = str(error).partition(";")
        if tell is not None:
            tell(f"{needs}; approximating")
        return replace(roughly(graph, seen, asked, seed), needs=needs)
    return WAYS[method](graph, seen, asked, seed, limit)


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
    damping = 0.0 if is_forest(graph.given(seen)) else DAMPING
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
    tell: Tell | None,
) -> Beliefs:
    """Return exact beliefs: from the tree that there is, or by the way that suits one question."""
    if tree is not None:
        answer = tree.calibrate(seen, asked)
        marginals = {v: answer.marginals[v] for v in asked}
        weight = Quantity(answer.log_partition, "nats", protocol="junction tree")
        return Beliefs(marginals, weight, "exact", "junction tree")
    # evidence, and what cannot matter or cannot be, leave the graph before its cliques are sought
    small = pruned(relevant(graph, asked, seen).given(seen))
    found, log_partition, told = _once(small.graph, asked, limit, tell)
    marginals = {
        v: np.eye(graph.sizes[v])[seen[v]] if v in seen else small.widened(v, found[v], graph.sizes[v])
        for v in asked
    }
    return Beliefs(marginals, Quantity(log_partition, "nats", protocol=told), "exact", told)


def _once(
    graph: FactorGraph, asked: list[int], limit: float | None, tell: Tell | None
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
    cliques = find_cliques(graph)
    checked_memory(cliques, limit)
    if tell is not None and cliques.states * 8 > _TOLD:
        tell(told_need(cliques))
    answer = JunctionTree(graph, cliques, limit).calibrate(None, asked)
    return answer.marginals, answer.log_partition, "junction tree"
