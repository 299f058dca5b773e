"""A graph of variables as plain values: what a graphical model offers to be drawn."""

from dataclasses import dataclass, field

__all__ = ["Diagram"]


@dataclass(frozen=True)
class Diagram:
    """A directed graph, or a factor graph, with what is believed of its variables.

    A model offers one by `diagram(evidence=None)`.

    Args:
        names: Name of each variable.
        states: Names of the states of each variable.
        parents: Parents of each variable of a directed graph; None for a factor graph.
        scopes: Variables of each factor of a factor graph.
        marginals: Probability of each state of each variable, or None.
        observed: State of each variable that is evidence.
        kind: What the marginals are: "exact" or "estimate".
    """

    names: tuple[str, ...]
    states: tuple[tuple[str, ...], ...]
    parents: tuple[tuple[int, ...], ...] | None = None
    scopes: tuple[tuple[int, ...], ...] = ()
    marginals: tuple[tuple[float, ...], ...] | None = None
    observed: dict[int, int] = field(default_factory=dict)
    kind: str = ""
