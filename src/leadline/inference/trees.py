"""The tree that answers exactly: of whole tables where they fit and are quicker, else of possible states.

Source:
    See `junction_tree` and `sparse_tree`.
"""

from collections.abc import Callable, Iterable
from typing import Protocol

from leadline.core.errors import ResourceError
from leadline.inference.budget import Budget, checked_memory, told_need, told_size
from leadline.inference.factors import FactorGraph, Floats, Ints
from leadline.inference.junction_tree import Calibrated, JunctionTree
from leadline.inference.orders import Cliques, find_cliques
from leadline.inference.sparse_tree import SparseTree

__all__ = ["Tell", "Tree", "fitting_tree"]

Tell = Callable[[str], None]
_TOLD = 1e8  # bytes of tables that are told before they are made
_ENTRIES = 3  # entries of whole tables that take as long as one state of a walk


class Tree(Protocol):
    """A forest of cliques that answers exactly, evidence taken out of its graph."""

    @property
    def cliques(self) -> Cliques:
        """Return the cliques."""
        ...

    def calibrate(self, *, wanted: Iterable[int] | None = None) -> Calibrated:
        """Return log Z in nats, and the distribution of each of the `wanted` variables (all by default)."""
        ...

    def maximise(self) -> tuple[Ints, float]:
        """Return the state of all variables (d,) of the largest weight, and its log weight in nats."""
        ...

    def sample(self, uniforms: Floats) -> Ints:
        """Return independent draws, from U[0, 1) a column a clique: (n, c) -> (n, d)."""
        ...


def fitting_tree(graph: FactorGraph, budget: Budget, *, tell: Tell | None = None) -> Tree:
    """Return a tree over a graph, calibrated by `calibrate(wanted=...)`.

    Args:
        graph: The factors, evidence and impossible states taken out (`pruned`).
        budget: What it may take.
        tell: Is called with what it takes, in words, before it takes more than 100 MB.

    Raises:
        ResourceError: If neither tree fits; the message says what they would take. Where it is not certain
            that the tree of possible states fits, its answers may raise it still.
    """
    cliques = find_cliques(graph)
    large = cliques.states * 8 > _TOLD
    try:
        checked_memory(cliques, budget.memory)
    except ResourceError as error:
        whole: ResourceError | None = error
    else:
        whole = None
    if large or whole is not None:
        try:
            tree = SparseTree(graph, cliques, budget)
        except ResourceError as error:
            if whole is not None:
                raise error from whole
        else:
            if whole is not None or (tree.certain and tree.states * _ENTRIES < cliques.states):
                if tell is not None and large:
                    tell(_told(tree))
                return tree
    if tell is not None and large:
        tell(told_need(cliques))
    return JunctionTree(graph, cliques, budget.memory)


def _told(tree: SparseTree) -> str:
    """Return in words what a tree of possible states takes."""
    if tree.certain:
        return told_need(tree.cliques, tree.memory)
    return (
        f"{told_need(tree.cliques)}; trying without impossible states, up to {told_size(tree.budget.bytes)}"
    )
