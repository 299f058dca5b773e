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
from leadline.inference.budget import OTHERWISE, Budget
from leadline.inference.elimination import eliminate, relevant
from leadline.inference.factors import FactorGraph, Floats, Ints
from leadline.inference.junction_tree import JunctionTree
from leadline.inference.pruning import pruned
from leadline.inference.trees import Tell, Tree, fitting_tree

__all__ = ["METHODS", "Beliefs", "Likeliest", "believe", "likeliest", "sample_states"]

METHODS = ("auto", "exact", *WAYS)
_LITTLE, _SMALL = 2500, 1e6  # factors times questions, and bytes of tables, that numpy answers in no time
_PATIENCE = 2e9  # states to walk through before other methods are tried: some minutes
_UNSURE = 2e8  # the same where they may be in vain


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
        method: "exact" (junction tree; of possible states alone where whole tables do not fit), "loopy"
            (belief propagation), "mean_field", "mini_bucket" (certain bounds), "weighting" (importance
            sampling of a Bayesian network), "gibbs" (chains), "tempered" (chains with copies at higher
            temperatures), or "auto": exact where memory allows, else weighting where enough draws agree with
            the evidence, else chains, then tempered ones, where they agree with each other, else loopy.
        tree: A junction tree of the graph, if there is one already.
        limit: Most bytes of tables: of all for an exact answer (half the free memory by default), of one
            for "mini_bucket".
        seed: Seed of the draws of "weighting", "gibbs" and "tempered".
        tell: Is called with what an exact answer takes, in words, before it takes more than 100 MB, or where
            it does not fit.

    Raises:
        OptionError: If the method is unknown, or not for this graph, or the limit is not above zero.
        ResourceError: If the method is "exact" and the tables would take more than `limit`.
        DataError: If the evidence has probability zero.
    """
    budget, seen = _budget(method, limit), dict(evidence or {})
    graph.check_evidence(seen)
    asked = list(range(len(graph.sizes)) if wanted is None else wanted)
    if method in ("auto", "exact"):
        try:
            return _exactly(graph, seen, asked, tree, budget, tell)
        except MemoryError as error:  # a ResourceError, or less may be had than the system tells
            needs, _, _ = str(error).partition(";")
            if method == "exact":
                raise ResourceError(f"{needs}; {OTHERWISE}") from error
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
        OptionError: If the method is unknown, or finds no likeliest state, or the limit is not above zero.
        ResourceError: If the method is "exact" and the tables would take more than `limit`.
        DataError: If the evidence has probability zero.
    """
    budget, seen = _budget(method, limit), dict(evidence or {})
    graph.check_evidence(seen)
    if method in ("auto", "exact"):
        try:
            if tree is not None:
                return Likeliest(*tree.maximise(seen), "exact", "junction tree")
            small = pruned(graph.given(seen))
            fitting = fitting_tree(small.graph, budget)
            found, log_weight = fitting.maximise()
            x = np.array([seen.get(v, small.states[v][state]) for v, state in enumerate(found)])
            return Likeliest(x, log_weight, "exact", _told(fitting))
        except MemoryError as error:
            if method == "exact":
                needs, _, _ = str(error).partition(";")
                raise ResourceError(f"{needs}; {OTHERWISE}") from error
    elif method != "loopy":
        raise OptionError(f"method {method!r} finds no likeliest state; use 'exact' or 'loopy'")
    damping = 0.0 if is_forest(graph.given(seen)) else DAMPING
    best = propagate(graph, seen, maxima=True, damping=damping)
    told = f"max-product belief propagation, {best.rounds} rounds"
    return Likeliest(best.x, best.log_partition, "exact" if best.exact else "lower bound", told)


def sample_states(
    graph: FactorGraph,
    evidence: Mapping[int, int],
    uniforms: Callable[[int], Floats],
    limit: float | None = None,
) -> Ints:
    """Return independent exact draws of all variables given evidence, (n, d).

    Args:
        graph: The factors.
        evidence: Observed states by variable.
        uniforms: Returns draws from U[0, 1), (n, c), for a number of columns c.
        limit: Most bytes of tables; half the free memory by default.

    Raises:
        OptionError: If the limit is not above zero.
        ResourceError: If no exact tree fits.
        DataError: If the evidence has probability zero.
    """
    graph.check_evidence(evidence)
    small = pruned(graph.given(evidence))
    tree = fitting_tree(small.graph, Budget(limit))
    x = tree.sample(uniforms(len(tree.cliques.own)))
    for v, states in enumerate(small.states):
        x[:, v] = evidence[v] if v in evidence else states[x[:, v]]
    return x


def _exactly(
    graph: FactorGraph,
    seen: Mapping[int, int],
    asked: list[int],
    tree: JunctionTree | None,
    budget: Budget,
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
    found, log_partition, told = _once(small.graph, asked, budget, tell)
    marginals = {
        v: np.eye(graph.sizes[v])[seen[v]] if v in seen else small.widened(v, found[v], graph.sizes[v])
        for v in asked
    }
    return Beliefs(marginals, Quantity(log_partition, "nats", protocol=told), "exact", told)


def _once(
    graph: FactorGraph, asked: list[int], budget: Budget, tell: Tell | None
) -> tuple[Mapping[int, Floats], float, str]:
    """Return marginals and log Z: of little by elimination, which needs no compiled loops, else by a tree."""
    if (1 + len(asked)) * len(graph.factors) <= _LITTLE:
        small = _SMALL if budget.memory is None else min(budget.memory, _SMALL)
        try:
            log_partition = eliminate(graph, limit=small).log_partition
            tables = {v: eliminate(graph, [v], limit=small).factor.table for v in asked}
        except ResourceError:
            pass
        else:
            return tables, log_partition, "variable elimination"
    tree = fitting_tree(graph, budget, tell=tell)
    answer = tree.calibrate(wanted=asked)
    return answer.marginals, answer.log_partition, _told(tree)


def _budget(method: str, limit: float | None) -> Budget:
    """Return what an exact answer may take; check the method and the limit."""
    if method not in METHODS:
        raise OptionError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    return Budget(limit) if method == "exact" else Budget(limit, _PATIENCE, _UNSURE, probed=True)


def _told(tree: Tree) -> str:
    """Return the name of a tree."""
    return "junction tree" if isinstance(tree, JunctionTree) else "junction tree of possible states"
