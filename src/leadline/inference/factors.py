r"""Factors: non-negative tables over a few category variables, and graphs made of them.

    p(x) = 1/Z prod_f f(x_scope)

Everything exact or approximate in this room starts from a `FactorGraph`. Variables are numbers, a scope is
a tuple of them, and axis i of a table belongs to variable scope[i]; the last runs fastest, as in UAI files.
Tables are numpy arrays of float64. Most of them hold a few dozen numbers, where an operation costs its
overhead: a fraction of a microsecond in numpy, several in torch, and compiled loops take numpy arrays as
they are.

Symbols:
    d variables, n rows, x (n, d) states, f factor, Z partition function.

Source:
    Koller and Friedman (2009), Probabilistic Graphical Models, chapters 4 and 9.
"""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce

import numpy as np
from numpy.typing import NDArray

from leadline.core.errors import DataError, ResourceError

__all__ = ["Factor", "FactorGraph", "Floats", "Ints", "enumerated", "multiplied"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_MOST_STATES = 1 << 22


@dataclass(frozen=True, eq=False)
class Factor:
    """A table over the variables of its scope.

    Args:
        scope: The variables, each once.
        table: One axis a variable, in the order of the scope.
        child: The variable whose distribution given the others this is, if the table sums to one over
            it; then a child without evidence below can be left out of a question unasked.

    Example:
        >>> coin = Factor((0,), np.array([0.5, 0.5]))
        >>> noisy = Factor((0, 1), np.array([[1.0, 0.0], [0.25, 0.75]]), child=1)
        >>> coin.product(noisy).summed([0]).table.tolist()
        [0.625, 0.375]
    """

    scope: tuple[int, ...]
    table: Floats
    child: int | None = None

    def product(self, other: "Factor") -> "Factor":
        """Return the factor over both scopes; this one's variables come first."""
        scope = self.scope + tuple(v for v in other.scope if v not in self.scope)
        return Factor(scope, self._over(scope) * other._over(scope))

    def quotient(self, other: "Factor") -> "Factor":
        """Return this over `other`, whose scope must be a part; nothing over nothing is nothing."""
        below = np.broadcast_to(other._over(self.scope), self.table.shape)
        return Factor(
            self.scope, np.divide(self.table, below, out=np.zeros_like(self.table), where=below > 0)
        )

    def summed(self, variables: Iterable[int]) -> "Factor":
        """Return the factor with `variables` summed out."""
        return self._without(variables, np.sum)

    def maximised(self, variables: Iterable[int]) -> "Factor":
        """Return the factor with `variables` maximised out."""
        return self._without(variables, np.max)

    def onto(self, variables: Sequence[int]) -> "Factor":
        """Return the sum over all other variables, with the axes in the order of `variables`."""
        kept = self.summed(v for v in self.scope if v not in variables)
        order = [kept.scope.index(v) for v in variables]
        return Factor(tuple(variables), kept.table.transpose(order))

    def given(self, evidence: Mapping[int, int]) -> "Factor":
        """Return the slice at the observed states; observed variables leave the scope."""
        if not any(v in evidence for v in self.scope):
            return self
        index = tuple(evidence.get(v, slice(None)) for v in self.scope)
        child = None if self.child in evidence else self.child
        return Factor(tuple(v for v in self.scope if v not in evidence), np.asarray(self.table[index]), child)

    def normalised(self) -> "Factor":
        """Return the factor divided by its sum."""
        return Factor(self.scope, self.table / self.table.sum())

    def _without(self, variables: Iterable[int], reduction: "np.ufunc | object") -> "Factor":
        gone = set(variables)
        axes = tuple(i for i, v in enumerate(self.scope) if v in gone)
        kept = tuple(v for v in self.scope if v not in gone)
        return Factor(kept, np.asarray(reduction(self.table, axis=axes)))  # type: ignore[operator]

    def _over(self, scope: tuple[int, ...]) -> Floats:
        """Return the table as a view that broadcasts over `scope`, which holds all its variables."""
        order = sorted(range(len(self.scope)), key=lambda axis: scope.index(self.scope[axis]))
        moved = self.table.transpose(order)
        sizes = iter(moved.shape)
        return moved.reshape([next(sizes) if v in self.scope else 1 for v in scope])


@dataclass(frozen=True, eq=False)
class FactorGraph:
    """Variables with their numbers of states, and factors over them.

    Args:
        sizes: Number of states of each variable, at least 1.
        factors: The factors; a variable in none is uniform.

    Raises:
        DataError: If a factor's scope, shape or values do not fit; the message names it.
    """

    sizes: tuple[int, ...]
    factors: tuple[Factor, ...]

    def __post_init__(self) -> None:
        for number, factor in enumerate(self.factors):
            _check(number, factor, self.sizes)

    def given(self, evidence: Mapping[int, int]) -> "FactorGraph":
        """Return the graph of the unnormalised p(x, evidence); observed variables have one state left."""
        self.check_evidence(evidence)
        sizes = tuple(1 if v in evidence else size for v, size in enumerate(self.sizes))
        return FactorGraph(sizes, tuple(factor.given(evidence) for factor in self.factors))

    def check_evidence(self, evidence: Mapping[int, int]) -> None:
        """Check that every observed variable and state exists.

        Raises:
            DataError: If one does not.
        """
        for v, state in evidence.items():
            if not 0 <= v < len(self.sizes):
                raise DataError(f"evidence on variable {v}, but there are {len(self.sizes)}")
            if not 0 <= state < self.sizes[v]:
                raise DataError(f"evidence {state} on variable {v}, which has {self.sizes[v]} states")

    def log_weight(self, x: Ints) -> Floats:
        """Return the sum of the logs of all factors at each row, in nats: (n, d) -> (n,)."""
        total = np.zeros(len(x))
        with np.errstate(divide="ignore"):
            for factor in self.factors:
                total += np.log(factor.table[tuple(x[:, v] for v in factor.scope)])
        return total

    @cached_property
    def neighbours(self) -> tuple[frozenset[int], ...]:
        """Return, for each variable, those that share a factor with it."""
        found: list[set[int]] = [set() for _ in self.sizes]
        for factor in self.factors:
            for v in factor.scope:
                found[v].update(factor.scope)
        return tuple(frozenset(near - {v}) for v, near in enumerate(found))

    @cached_property
    def factors_of(self) -> tuple[tuple[int, ...], ...]:
        """Return, for each variable, the numbers of the factors that hold it."""
        found: list[list[int]] = [[] for _ in self.sizes]
        for number, factor in enumerate(self.factors):
            for v in factor.scope:
                found[v].append(number)
        return tuple(tuple(numbers) for numbers in found)


def multiplied(factors: Iterable[Factor]) -> Factor:
    """Return the product of all factors; of none, the number one."""
    return reduce(Factor.product, factors, Factor((), np.ones(())))


def enumerated(graph: FactorGraph) -> tuple[Factor, float]:
    """Return the joint distribution over all variables, one axis each, and log Z in nats.

    The oracle of every other method here: nothing is clever about it.

    Raises:
        ResourceError: If there are more than 4 million states.
        DataError: If every state has weight zero.
    """
    states = math.prod(graph.sizes)
    if states > _MOST_STATES:
        raise ResourceError(f"{states:.3g} states are too many to list; at most {_MOST_STATES}")
    table = np.zeros(graph.sizes)
    for x in itertools.product(*(range(size) for size in graph.sizes)):
        weights = [factor.table[tuple(x[v] for v in factor.scope)] for factor in graph.factors]
        table[x] = math.prod(float(weight) for weight in weights)
    total = float(table.sum())
    if total == 0:
        raise DataError("every state has weight zero")
    return Factor(tuple(range(len(graph.sizes))), table / total), math.log(total)


def _check(number: int, factor: Factor, sizes: Sequence[int]) -> None:
    """Check a factor against the graph's variables."""
    scope, table = factor.scope, factor.table
    if len(set(scope)) != len(scope) or not all(0 <= v < len(sizes) for v in scope):
        raise DataError(
            f"factor {number}: scope {scope} does not name variables of 0..{len(sizes) - 1} once each"
        )
    want = tuple(sizes[v] for v in scope)
    if table.shape != want:
        raise DataError(f"factor {number} over {scope}: table has shape {table.shape}, its variables {want}")
    if table.size and not (table.min() >= 0 and table.max() < math.inf):  # NaN fails both
        raise DataError(f"factor {number} over {scope}: a value is negative or not finite")
