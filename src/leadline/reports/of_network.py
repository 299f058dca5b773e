"""`draw`: the graph of a graphical model with its marginals, or one graph over another.

A graph too large to be read is drawn with names alone, or without them; what is left out is said above it.
A learned graph over a given one has the distance between them above it, and with data the score of both.

Symbols:
    d variables.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import combinations
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from leadline.core import Categories, Diagram, LeadlineError, OptionError, VerbError
from leadline.core.errors import nearest
from leadline.data import Dataset
from leadline.inference.graphs import essential_graph
from leadline.inference.structure import FamilyScore, Table
from leadline.reports.factor_graphs import factor_graph
from leadline.reports.networks import compared_networks, network
from leadline.reports.parts import Block, figure_block
from leadline.training import Run

__all__ = ["draw", "network_block"]

Graph = Sequence[Sequence[int]]

_MOST_ON_A_PAGE = 60  # variables of a network with bars, and of one in a report
_MOST_NAMED = 300  # variables of a factor graph that is drawn with their names
_MOST_NEAR = 30  # variables of a neighbourhood of more than one step


def draw(
    model: Any,
    against: Any = None,
    evidence: Mapping[Any, Any] | None = None,
    *,
    around: Sequence[str] | None = None,
    data: Dataset | None = None,
) -> Figure:
    """Return a figure of a graphical model, or of what it has in common with another.

    Args:
        model: A model with `diagram(evidence)`, or a run of one.
        against: Another directed model over the same variables, such as the one that made the data; edges
            are then marked as found, turned, missed or extra, and the title has their number.
        evidence: What is known, by names or numbers; marginals are given it.
        around: Names of variables: they are drawn with their neighbours (parents of a child are neighbours
            too) and with the neighbours of these, as long as there are no more than 30 variables.
        data: Rows on whose training split two graphs get their score (BIC); those of the run by default,
            if they are at hand.

    Raises:
        VerbError: If the model offers no diagram.
        OptionError: If the two have other variables, or one is not directed; if a variable is unknown;
            if `around` is one text.
    """
    if isinstance(around, str):
        raise OptionError(f'around must be a list of names, e.g. ["{around}"], got a text')
    mine = _diagram(model, evidence)
    if against is None:
        return _alone(*(_near(mine, around) if around else (mine, "")))
    if around:
        raise OptionError("the neighbourhood of variables is drawn of one network, not of two")
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
    told = (
        f"{apart} {'pair is' if apart == 1 else 'pairs are'} joined or directed otherwise, up to equivalence"
    )
    return _titled(figure, [told, *_scores(model, data, other.names, learned, other.parents)])


def _scores(
    model: Any, data: Dataset | None, names: Sequence[str], learned: Graph, given: Graph
) -> list[str]:
    """Return a line with the score of two graphs over `names`; none without rows of these variables."""
    if data is None and isinstance(model, Run):
        with suppress(LeadlineError):
            data = model.load_data()
    if data is None or not isinstance(data.domain, Categories) or set(data.domain.columns) != set(names):
        return []
    order = [data.domain.columns.index(name) for name in names]
    x = data.train.head(len(data.train)).x
    whole = x[(x >= 0).all(1)][:, order] if isinstance(x, Tensor) else torch.empty(0)
    if not len(whole):
        return []
    score = FamilyScore(Table(whole.numpy(), [data.domain.sizes[v] for v in order]))
    mine, true = score.total(learned), score.total(given)
    return [f"BIC on {len(whole):,} training rows: learned {mine:,.1f}, given {true:,.1f} nats"]


def network_block(model: Any) -> Block:
    """Return the part of a page that shows a model's graph.

    Raises:
        OptionError: If it does not fit a page.
    """
    found = _diagram(model, None)
    if len(found.names) > _MOST_ON_A_PAGE:
        raise OptionError(
            f"{len(found.names)} variables do not fit a page: `leadline draw` writes a file, "
            "whole or --around some"
        )
    lone = "A square is a factor." if found.parents is None else "A box a variable, an arrow from a parent."
    told = f"{lone} Marginals are {found.kind}." if found.marginals else lone
    return figure_block("Network", told, _alone(found))


def _alone(found: Diagram, told: str = "") -> Figure:
    """Return a figure of one graph, with what is said above it."""
    count = len(found.names)
    if found.parents is None:
        names = found.names if count <= _MOST_NAMED else ("",) * count
        figure = factor_graph(names, found.scopes, found.states, found.marginals, found.observed)
        left = "" if count <= _MOST_NAMED else "names"
    else:
        bars = None if count > _MOST_ON_A_PAGE else found.marginals
        figure = network(found.names, found.parents, found.states, bars, found.observed)
        left = "marginals" if bars is None and found.marginals is not None else ""
    if left:
        lacking = f"{left} are left out"
        whole = f"{count} variables: {lacking}; the neighbourhood of some is drawn with them"
        told = f"{told}; {lacking}" if told else whole
    if found.marginals and not left.startswith("marginals") and found.kind not in ("", "exact"):
        told = f"{told}; marginals are an {found.kind}" if told else f"marginals are an {found.kind}"
    return _titled(figure, [told] if told else [])


def _titled(figure: Figure, lines: Sequence[str]) -> Figure:
    """Return a figure with lines above it, as wide as they are."""
    if lines:
        figure.set_figheight(figure.get_figheight() + 0.2 + 0.2 * len(lines))
        figure.set_figwidth(max(figure.get_figwidth(), 0.4 + 0.085 * max(map(len, lines))))
        figure.axes[0].set_title("\n".join(lines), fontsize=10)
    return figure


def _near(found: Diagram, around: Sequence[str]) -> tuple[Diagram, str]:
    """Return the part of a graph near some variables, and what it is."""
    for name in around:
        if name not in found.names:
            raise OptionError(
                f"unknown variable {name}{nearest(name, found.names)}; there are {len(found.names)}"
            )
    families = found.scopes
    if found.parents is not None:
        families = tuple((*above, v) for v, above in enumerate(found.parents))
    kept, steps = _reached(families, [found.names.index(name) for name in around])
    inside = set(kept)
    if found.parents is None:
        ties, what = [set(scope) for scope in found.scopes], "factor"
    else:
        ties, what = [{u, v} for v, above in enumerate(found.parents) for u in above], "edge"
    cut = sum(bool(tie & inside) and not tie <= inside for tie in ties)
    if steps == 0:
        lone = f"{', '.join(around)}, of {len(found.names)} variables"
        return _part(found, kept), f"{lone}: no {what} joins {'it' if len(kept) == 1 else 'them'} to others"
    return _part(found, kept), (
        f"{len(kept)} of {len(found.names)} variables, within {steps} step{'s' * (steps != 1)} of "
        f"{', '.join(around)}; {cut} {what}{'s' * (cut != 1)} to others left out"
    )


def _reached(families: Sequence[Sequence[int]], centre: Sequence[int]) -> tuple[list[int], int]:
    """Return the variables nearest to some, by whole steps, and the number of steps."""
    near: dict[int, set[int]] = {v: set() for v in centre}
    for a, b in (pair for family in families for pair in combinations(family, 2)):
        near.setdefault(a, set()).add(b)
        near.setdefault(b, set()).add(a)
    kept, layer, steps = set(centre), set(centre), 0
    while True:
        layer = {u for v in layer for u in near[v]} - kept
        if not layer or (steps > 0 and len(kept | layer) > _MOST_NEAR):
            return sorted(kept), steps
        kept |= layer
        steps += 1


def _part(found: Diagram, kept: Sequence[int]) -> Diagram:
    """Return the graph of some variables: the edges between them, the factors over them alone."""
    number = {v: i for i, v in enumerate(kept)}
    above = found.parents
    return replace(
        found,
        names=tuple(found.names[v] for v in kept),
        states=tuple(found.states[v] for v in kept),
        parents=above and tuple(tuple(number[u] for u in above[v] if u in number) for v in kept),
        scopes=tuple(
            tuple(number[v] for v in scope) for scope in found.scopes if number.keys() >= set(scope)
        ),
        marginals=found.marginals and tuple(found.marginals[v] for v in kept),
        observed={number[v]: state for v, state in found.observed.items() if v in number},
    )


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
