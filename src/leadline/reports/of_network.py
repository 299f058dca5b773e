"""`draw`: the graph of a graphical model with its marginals, or one graph over another.

Symbols:
    d variables.
"""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from leadline.core import Diagram, LeadlineError, OptionError, VerbError
from leadline.inference.graphs import essential_graph
from leadline.reports.networks import compared_networks, factor_graph, network
from leadline.reports.parts import Block, figure_block

__all__ = ["draw", "network_block"]

_MOST_ON_A_PAGE = 60


def draw(model: Any, against: Any = None, evidence: Mapping[Any, Any] | None = None) -> Figure:
    """Return a figure of a graphical model, or of what it has in common with another.

    Args:
        model: A model with `diagram(evidence)`, or a run of one.
        against: Another directed model over the same variables, such as the one that made the data; edges
            are then marked as found, turned, missed or extra, and the title has their number.
        evidence: What is known, by names or numbers; marginals are given it.

    Raises:
        VerbError: If the model offers no diagram.
        OptionError: If the two have other variables, or one is not directed.
    """
    mine = _diagram(model, evidence)
    if against is None:
        return _alone(mine)
    other = _diagram(against, None)
    if mine.parents is None or other.parents is None:
        raise OptionError("only two directed networks can be drawn over each other")
    if sorted(mine.names) != sorted(other.names):
        lone = sorted(set(mine.names) ^ set(other.names))[:5]
        raise OptionError(
            f"the networks have different variables: {', '.join(lone)} are in one of them alone"
        )
    place = [other.names.index(name) for name in mine.names]
    learned: list[tuple[int, ...]] = [()] * len(place)
    for v, above in enumerate(mine.parents):
        learned[place[v]] = tuple(place[u] for u in above)
    figure = compared_networks(other.names, learned, other.parents)
    apart = essential_graph(learned).distance(essential_graph(other.parents))
    figure.axes[0].set_title(f"{apart} pairs are joined or directed otherwise, up to equivalence")
    return figure


def network_block(model: Any) -> Block:
    """Return the part of a page that shows a model's graph.

    Raises:
        OptionError: If it does not fit a page.
    """
    found = _diagram(model, None)
    if len(found.names) > _MOST_ON_A_PAGE:
        raise OptionError(f"{len(found.names)} variables do not fit a page: `leadline draw` writes a file")
    lone = "A circle a variable, a square a factor." if found.parents is None else "A box a variable."
    told = f"{lone} Marginals are {found.kind}." if found.marginals else lone
    return figure_block("Network", told, _alone(found))


def _alone(found: Diagram) -> Figure:
    if found.parents is None:
        return factor_graph(found.names, found.scopes, found.states, found.marginals)
    return network(found.names, found.parents, found.states, found.marginals, found.observed)


def _diagram(model: Any, evidence: Mapping[Any, Any] | None) -> Diagram:
    """Return the diagram of a model, or of the model of a run."""
    held = getattr(model, "model", model)
    offer = getattr(held, "diagram", None)
    if not callable(offer):
        raise VerbError(f"{type(held).__name__} has no graph to draw")
    found = offer(evidence)
    if not isinstance(found, Diagram):
        raise LeadlineError(
            f"{type(held).__name__}.diagram must return a Diagram, got {type(found).__name__}"
        )
    return found
