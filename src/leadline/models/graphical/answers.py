"""What a model over categories answers, by the names of variables and states."""

import itertools
from dataclasses import dataclass, field, replace
from math import isnan, log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leadline.core import Kind, Quantity
from leadline.core.errors import nearest

__all__ = ["Assignment", "Joint", "Marginals"]


@dataclass(frozen=True)
class Marginals:
    """Distributions by name of variable and state.

    Args:
        kind: "exact" or "estimate".
        method: How they were found.
        states: p of each state of each variable that was asked for.
        log_partition: Log of the weight of the evidence, in nats: log p(evidence) of a Bayesian network.
        error: How far a probability may be off, and how that is known; NaN where nothing is.
        stderr: Standard error of each probability, where the method knows one.
        bounds: Certain lower and upper bound of each probability, where the method knows them.
        needs: What an exact answer would have taken, where that was too much.
    """

    kind: Kind
    method: str
    states: dict[str, dict[str, float]]
    log_partition: Quantity
    error: Quantity = field(default_factory=lambda: Quantity(0.0))
    stderr: dict[str, dict[str, float]] = field(default_factory=dict)
    bounds: dict[str, dict[str, tuple[float, float]]] = field(default_factory=dict)
    needs: str = ""

    def __getitem__(self, variable: str) -> dict[str, float]:
        if variable not in self.states:
            raise KeyError(f"no answer on {variable!r}{nearest(str(variable), self.states)}")
        return self.states[variable]

    def __str__(self) -> str:
        width = max((len(name) for name in self.states), default=0)
        whole = self.log_partition.scaled(1 / log(10), "")
        lines = [
            f"{self.kind}, by {self.method}; log10 partition {replace(whole, value=_rounded(whole.value))}"
        ]
        if self.needs:
            lines.append(self.needs)
        if self.kind != "exact":
            size = "" if isnan(self.error.value) else f" {self.error.value:.2g}"
            spread = "" if self.error.stderr is None else f" ± {self.error.stderr:.1g}"
            lines.append(f"error: {self.error.protocol}{size}{spread}")
        for name, states in self.states.items():
            cells = [f"{state} {p:.4f}{self._spread(name, state)}" for state, p in states.items()]
            lines.append(f"{name.ljust(width)}  {'  '.join(cells)}")
        return "\n".join(lines)

    def _spread(self, name: str, state: str) -> str:
        if name in self.bounds:
            return " in [{:.4f}, {:.4f}]".format(*self.bounds[name][state])
        return f" ± {self.stderr[name][state]:.1g}" if name in self.stderr else ""

    def to_json(self) -> dict[str, Any]:
        """Return plain values; the partition function as log10, as inference competitions have it."""
        told: dict[str, Any] = {
            "kind": self.kind,
            "method": self.method,
            "marginals": self.states,
            "log10_partition": self.log_partition.value / log(10),
            "log_partition": self.log_partition.to_json(),
            "error": self.error.to_json(),
        }
        more = {"stderr": self.stderr, "bounds": self.bounds, "needs": self.needs}
        return told | {name: value for name, value in more.items() if value}


@dataclass(frozen=True, eq=False)
class Joint:
    """The joint distribution of some variables.

    Args:
        method: How it was found.
        variables: Their names.
        states: The states of each.
        table: p of each combination of states, an axis a variable.
        log_partition: Log of the weight of the evidence, in nats.
    """

    method: str
    variables: tuple[str, ...]
    states: tuple[tuple[str, ...], ...]
    table: NDArray[np.float64]
    log_partition: float
    kind: Kind = "exact"

    def __getitem__(self, states: str | tuple[str, ...]) -> float:
        """Return p of a combination of states, in the order of the variables."""
        wanted = (states,) if isinstance(states, str) else states
        place = tuple(known.index(state) for known, state in zip(self.states, wanted, strict=True))
        return float(self.table[place])

    def rows(self) -> list[tuple[tuple[str, ...], float]]:
        """Return each combination of states with its probability."""
        return [(states, self[states]) for states in itertools.product(*self.states)]

    def __str__(self) -> str:
        lines = [
            f"{self.kind}, by {self.method}; log10 partition {_rounded(self.log_partition / log(10)):.4g}"
        ]
        cells = [
            [f"{name}={state}" for state in known]
            for name, known in zip(self.variables, self.states, strict=True)
        ]
        widths = [max(map(len, column)) for column in cells]
        for combination, (_, p) in zip(itertools.product(*cells), self.rows(), strict=True):
            lines.append(
                "  ".join(cell.ljust(width) for cell, width in zip(combination, widths, strict=True))
                + f"  {p:.4f}"
            )
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return plain values, the probabilities as nested lists, an axis a variable."""
        return {
            "kind": self.kind,
            "method": self.method,
            "variables": list(self.variables),
            "states": [list(known) for known in self.states],
            "joint": self.table.tolist(),
            "log10_partition": self.log_partition / log(10),
        }


@dataclass(frozen=True)
class Assignment:
    """A state of all variables, by name.

    Args:
        kind: "exact", or "lower bound" where a likelier state may exist.
        method: How it was found.
        states: The state of each variable.
        log_weight: Log of the product of all factors there, in nats: log p(x) of a Bayesian network.
    """

    kind: Kind
    method: str
    states: dict[str, str]
    log_weight: float

    def __str__(self) -> str:
        pairs = ", ".join(f"{name}={state}" for name, state in self.states.items())
        return f"{self.kind}, by {self.method}; log10 weight {self.log_weight / log(10):.6g}\n{pairs}"

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "kind": self.kind,
            "method": self.method,
            "map": self.states,
            "log10_weight": self.log_weight / log(10),
        }


def _rounded(value: float) -> float:
    """Return a number without what rounding errors leave of zero."""
    return round(value, 12) + 0.0
