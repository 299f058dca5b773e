r"""Questions asked of a factor graph: one door to every method, and answers that say what they are.

    p(x_v | e),    log sum_x prod_f f(x, e),    argmax_x prod_f f(x, e)

Source:
    Koller and Friedman (2009), Probabilistic Graphical Models, part II.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from leadline.core.errors import OptionError
from leadline.core.quantities import Kind, Quantity
from leadline.inference.factors import FactorGraph, Floats, Ints
from leadline.inference.junction_tree import JunctionTree

__all__ = ["METHODS", "Beliefs", "Likeliest", "Method", "believe", "likeliest"]

Method = Literal["auto", "exact"]
METHODS: tuple[str, ...] = ("auto", "exact")


@dataclass(frozen=True, eq=False)
class Beliefs:
    """Distributions of single variables given evidence, and the weight of the evidence.

    Args:
        marginals: Distribution of each variable that was asked for.
        log_partition: log of the weight of the evidence, in nats: log Z where there is none.
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
) -> Beliefs:
    """Return the distributions of the `wanted` variables given evidence.

    Args:
        graph: The factors.
        evidence: Observed states by variable.
        wanted: The variables asked for; all by default.
        method: "exact", or "auto": exact where memory allows.
        tree: A junction tree of the graph, if there is one already.
        limit: Most bytes of tables; half the free memory by default.

    Raises:
        OptionError: If the method is unknown.
        ResourceError: If the method is "exact" and the tables would take more than `limit`.
        DataError: If the evidence has probability zero.
    """
    _check(method)
    answer = (tree or JunctionTree(graph, limit=limit)).calibrate(evidence, wanted)
    return Beliefs(answer.marginals, Quantity(answer.log_partition, "nats"), "exact", "junction tree")


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
        method: "exact", or "auto": exact where memory allows.
        tree: A junction tree of the graph, if there is one already.
        limit: Most bytes of tables; half the free memory by default.

    Raises:
        OptionError: If the method is unknown.
        ResourceError: If the method is "exact" and the tables would take more than `limit`.
        DataError: If the evidence has probability zero.
    """
    _check(method)
    x, log_weight = (tree or JunctionTree(graph, limit=limit)).maximise(evidence)
    return Likeliest(x, log_weight, "exact", "junction tree")


def _check(method: str) -> None:
    """Check that there is such a method."""
    if method not in METHODS:
        raise OptionError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
