"""Variables and states by their names, and what a graph over them states."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from operator import index
from typing import Any

from torch import nn

from leadline.core import Categories, OptionError
from leadline.core.errors import nearest
from leadline.inference.factors import FactorGraph
from leadline.inference.graphs import maximal_cliques

__all__ = ["Evidence", "NamedGraph", "Variables"]

Evidence = Mapping[str, str | int] | Mapping[int, str | int]
Variables = str | int | Sequence[str | int]


class NamedGraph(nn.Module, ABC):
    """A graph over variables that have names, as have their states.

    Args:
        variables: All variables and their states.
    """

    variables: Categories
    label: int | None = None

    def __init__(self, variables: Categories) -> None:
        super().__init__()
        self.variables = variables

    @abstractmethod
    def factor_graph(self) -> FactorGraph:
        """Return the factors as they now stand."""

    @abstractmethod
    def separates(self, a: Iterable[int], b: Iterable[int], given: Iterable[int]) -> bool:
        """Return whether the graph states that `a` and `b` are independent given those."""

    def independent(self, a: Variables, b: Variables, given: Variables = ()) -> bool:
        """Return whether the graph states that `a` and `b` are independent given `given`.

        False says that the graph does not: the numbers in its tables may still make them so.

        Args:
            a: A variable, or several, by name or number.
            b: Others.
            given: What is known.

        Raises:
            OptionError: If a variable is unknown.
        """
        return self.separates(self._several(a), self._several(b), self._several(given))

    def edges(self) -> list[tuple[str, str]]:
        """Return the edges by name: (parent, child), or the two that share a factor in a field."""
        parents = getattr(self, "parents", None)
        if parents is None:
            near = self.factor_graph().neighbours
            pairs = [(a, b) for a, others in enumerate(near) for b in sorted(others) if a < b]
        else:
            pairs = [(a, b) for b, above in enumerate(parents) for a in above]
        return [(self.variable_name(a), self.variable_name(b)) for a, b in pairs]

    def markov_blanket(self, variable: str | int) -> list[str]:
        """Return whom to know so that nothing else tells more of a variable: neighbours, parents married.

        Raises:
            OptionError: If the variable is unknown.
        """
        near = self.factor_graph().neighbours[self._variable(variable)]
        return [self.variable_name(v) for v in sorted(near)]

    def extra_repr(self) -> str:
        """Return what stands between the brackets when the model is printed."""
        count = len(self.variables.sizes)
        parents = getattr(self, "parents", None)
        return f"{count} variables" + ("" if parents is None else f", {sum(map(len, parents))} edges")

    def cliques(self) -> list[tuple[str, ...]]:
        """Return the maximal cliques of the undirected graph (parents married), by name."""
        found = maximal_cliques([set(near) for near in self.factor_graph().neighbours])
        return [tuple(self.variable_name(v) for v in clique) for clique in found]

    def observed(self, evidence: Evidence | None) -> dict[int, int]:
        """Return evidence as numbers of variables and states.

        Raises:
            OptionError: If a variable or state is unknown; the message names the nearest.
        """
        if not isinstance(evidence, Mapping | None):
            raise OptionError(
                f"evidence must map variables to states, got {evidence!r}; on the command line give "
                "--evidence VARIABLE=STATE"
            )
        found: dict[int, int] = {}
        for variable, state in (evidence or {}).items():
            v = self._variable(variable)
            s = self._state(v, state)
            if found.setdefault(v, s) != s:
                both = " and as ".join(self.state_name(v, one) for one in (found[v], s))
                raise OptionError(f"{self.variable_name(v)} is observed twice, as {both}")
        return found

    def variable_name(self, v: int) -> str:
        """Return the name of a variable."""
        return self.variables.columns[v] if self.variables.columns else f"x{v}"

    def state_name(self, v: int, state: int) -> str:
        """Return the name of a state of a variable."""
        return self.variables.values[v][state] if self.variables.values else str(state)

    def _several(self, variables: Variables) -> list[int]:
        """Return the numbers of one or more variables."""
        some = (
            variables if isinstance(variables, Iterable) and not isinstance(variables, str) else [variables]
        )
        return [self._variable(v) for v in some]

    def _variable(self, variable: str | int) -> int:
        """Return the number of a variable."""
        count, number = len(self.variables.sizes), _whole(variable)
        if number is not None:
            if not 0 <= number < count:
                raise OptionError(f"no variable {number}; there are {count}, from 0")
            return number
        names = [self.variable_name(v) for v in range(count)]
        if variable in names:
            return names.index(variable)
        if not self.variables.columns and str(variable).isdecimal():
            return self._variable(int(variable))
        label = "" if self.label is None else f', the label among them as "{names[self.label]}"'
        raise OptionError(
            f"unknown variable {variable}{nearest(str(variable), names)}; there are {count}{label}"
        )

    def _state(self, v: int, state: str | int) -> int:
        """Return the number of a state of a variable."""
        names = [self.state_name(v, s) for s in range(self.variables.sizes[v])]
        number = _whole(state)
        if number is not None and 0 <= number < len(names):
            return number
        if isinstance(state, str | bool) and str(state) in names:
            return names.index(str(state))
        known = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
        hint = nearest(state, names) if isinstance(state, str) else ""
        raise OptionError(f"{self.variable_name(v)} has no state {state!s}{hint}; it has {known}")


def _whole(value: Any) -> int | None:
    """Return a whole number of any kind (of Python, NumPy or torch) as an int, None of anything else."""
    if isinstance(value, bool):
        return None
    try:
        return index(value)
    except TypeError:
        return None
