r"""What every model over categories that is a product of factors can be asked.

    marginals   p(x_v | evidence)            map    argmax_x p(x | evidence)
    log_partition   log sum_x f(x, evidence)      sample    x ~ p(x | evidence)

Source:
    Koller and Friedman (2009), Probabilistic Graphical Models, chapters 9 to 11.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from leadline.core import (
    Categories,
    DataError,
    Diagram,
    Domain,
    OptionError,
    Quantity,
    ResourceError,
    counted,
)
from leadline.core.errors import unknown_name
from leadline.inference.asking import Beliefs, believe, likeliest, sample_states
from leadline.inference.budget import Budget, checked_memory
from leadline.inference.contradictions import contradiction
from leadline.inference.elimination import eliminate
from leadline.inference.gibbs_answers import IslandsError, gibbs_draws
from leadline.inference.junction_tree import JunctionTree
from leadline.models.graphical.answers import Assignment, Joint, Marginals
from leadline.models.graphical.naming import Evidence, NamedGraph, Variables

Answer = TypeVar("Answer")
_TOGETHER = 1_000_000  # entries of a joint distribution
_KEPT = 2e8  # bytes of a tree that is kept from question to question

__all__ = ["Assignment", "Evidence", "FactorModel", "Marginals"]


class FactorModel(NamedGraph):
    """A distribution over categories that is a product of factors.

    Args:
        domain: What a sample is: the observed variables and their states.
        variables: All variables and their states, the observed ones first.
    """

    domain: Domain

    def __init__(self, domain: Domain, variables: Categories) -> None:
        super().__init__(variables)
        self.domain = domain
        self._tree: tuple[list[Tensor], JunctionTree] | None = None
        self._last: list[Tensor] = []  # the state that the last question was asked of

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Return where the model lives."""

    @abstractmethod
    def make_room(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Give the state the sizes of a saved one, so that it can be copied in."""

    def marginals(
        self,
        evidence: Evidence | None = None,
        variables: Variables | None = None,
        *,
        method: str = "auto",
        limit: float | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> Marginals:
        """Return the distribution of each of `variables` (all by default) given evidence.

        Args:
            evidence: Observed states: names, or numbers, of variables and states.
            variables: What is asked for, one or several; fewer cost less.
            method: How to find them (`inference.asking.METHODS`); "auto" is exact where memory allows.
            limit: Most bytes of tables; half the free memory by default.
            tell: Is called with what an exact answer takes before it takes more than 100 MB, or cannot.

        Raises:
            OptionError: If a variable, a state or the method is unknown, a variable is in two states, the
                method is not for this model, or `limit` is not above zero.
            ResourceError: If the method is "exact" and memory does not allow it.
            DataError: If the evidence has probability zero.
        """
        seen = self.observed(evidence)
        wanted = None if variables is None else self._several(variables)
        tree = self._kept_tree(method, limit)
        graph = self.factor_graph() if tree is None else tree.graph

        def answer() -> Beliefs:
            return believe(graph, seen, wanted, method=method, tree=tree, limit=limit, tell=tell)

        try:
            return self._named(self._asked(seen, answer))
        except IslandsError as error:
            raise IslandsError(error.scope, [self.variable_name(v) for v in error.scope]) from None

    def joint(
        self, variables: Variables, evidence: Evidence | None = None, *, limit: float | None = None
    ) -> Joint:
        """Return the joint distribution of some variables given evidence, exactly, by variable elimination.

        Args:
            variables: What is asked for, one or several; each combination of their states gets its number.
            evidence: Observed states by variable, others than these.
            limit: Most bytes of tables; half the free memory by default.

        Raises:
            OptionError: If a variable or a state is unknown, or a variable is observed, or asked for twice;
                if there are more than a million combinations.
            ResourceError: If memory does not allow it.
            DataError: If the evidence has probability zero.
        """
        kept, seen = self._several(variables), self.observed(evidence)
        if not kept:
            raise OptionError("joint: name at least one variable")
        for v in kept:
            if v in seen or kept.count(v) > 1:
                why = "observed" if v in seen else "asked for twice"
                raise OptionError(f"joint: {self.variable_name(v)} is {why}")
        cells = math.prod(self.variables.sizes[v] for v in kept)
        if cells > _TOGETHER:
            raise OptionError(
                f"joint: {len(kept)} variables have {cells:.3g} combinations of states, more than "
                f"{_TOGETHER:,}: ask for fewer"
            )
        found = self._asked(seen, lambda: eliminate(self.factor_graph(), kept, seen, limit=limit))
        names = tuple(self.variable_name(v) for v in kept)
        states = tuple(tuple(self.state_name(v, s) for s in range(self.variables.sizes[v])) for v in kept)
        return Joint("variable elimination", names, states, found.factor.table, found.log_partition)

    def map(
        self, evidence: Evidence | None = None, *, method: str = "auto", limit: float | None = None
    ) -> Assignment:
        """Return the likeliest state of all variables given evidence; arguments as of `marginals`."""
        tree = self._kept_tree(method, limit)
        graph = self.factor_graph() if tree is None else tree.graph
        seen = self.observed(evidence)
        found = self._asked(seen, lambda: likeliest(graph, seen, method=method, tree=tree, limit=limit))
        states = {self.variable_name(v): self.state_name(v, int(s)) for v, s in enumerate(found.x)}
        return Assignment(found.kind, found.method, states, found.log_weight)

    def log_partition(
        self, evidence: Evidence | None = None, *, method: str = "auto", limit: float | None = None
    ) -> Quantity:
        """Return log of the weight of the evidence, in nats (log Z without); arguments as of `marginals`."""
        tree = self._kept_tree(method, limit)
        seen = self.observed(evidence)
        if tree is not None:
            found = self._asked(seen, lambda: tree.log_partition(seen))
            return Quantity(found, "nats", protocol="junction tree")
        graph = self.factor_graph()
        return self._asked(seen, lambda: believe(graph, seen, (), method=method, limit=limit)).log_partition

    @counted
    def sample(
        self,
        n: int,
        generator: torch.Generator | None = None,
        *,
        evidence: Evidence | None = None,
        method: str = "auto",
    ) -> Tensor:
        """Return `n` independent draws given evidence, (n, d).

        Args:
            n: How many.
            generator: Where chance comes from.
            evidence: Observed states by variable.
            method: "auto" or "exact" walk down a junction tree; "gibbs" are the ends of chains of 1,000
                sweeps each, which need no tree and are only as good as the chains mix.

        Raises:
            OptionError: If a variable, a state or the method is unknown, or chains could be cut off.
            ResourceError: If memory does not allow the tree.
            DataError: If the evidence has probability zero.
        """
        if method not in ("auto", "exact", "gibbs"):
            raise unknown_name("method", method, ("auto", "exact", "gibbs"))
        if method == "gibbs":
            return self._chain_ends(n, generator, evidence)[:, : self.domain.dims]
        seen, chance = self.observed(evidence), _on_cpu(generator)

        def uniforms(columns: int) -> NDArray[np.float64]:
            return torch.rand(n, columns, dtype=torch.float64, generator=chance).numpy()

        def drawn() -> NDArray[np.int64]:
            try:
                tree = self._junction_tree(None)
                return tree.sample(uniforms(len(tree.cliques.own)), seen)
            except ResourceError:  # evidence, and what cannot be, may make it fit
                return sample_states(self.factor_graph(), seen, uniforms)

        x = self._asked(seen, drawn)
        return torch.from_numpy(x).to(self.device)[:, : self.domain.dims]

    def diagram(self, evidence: Evidence | None = None) -> Diagram:
        """Return the graph with the marginals given evidence, to be drawn.

        Raises:
            OptionError: If a variable or state is unknown.
            DataError: If the evidence has probability zero.
        """
        found = self.marginals(evidence)
        graph: dict[str, Any] = {"scopes": tuple(factor.scope for factor in self.factor_graph().factors)}
        parents = getattr(self, "parents", None)
        return Diagram(
            names=tuple(found.states),
            states=tuple(tuple(states) for states in found.states.values()),
            marginals=tuple(tuple(states.values()) for states in found.states.values()),
            observed=self.observed(evidence),
            kind=found.kind,
            **(graph if parents is None else {"parents": parents}),
        )

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        shapes = {
            name.removeprefix(prefix): tuple(v.shape) for name, v in state.items() if name.startswith(prefix)
        }
        self.make_room(shapes)
        super()._load_from_state_dict(state, prefix, *rest)

    def _chain_ends(self, n: int, generator: torch.Generator | None, evidence: Evidence | None) -> Tensor:
        """Return the ends of `n` Gibbs chains given evidence, all variables: (n, d)."""
        try:
            found = gibbs_draws(self.factor_graph(), n, self.observed(evidence), _on_cpu(generator))
        except IslandsError as error:
            raise IslandsError(error.scope, [self.variable_name(v) for v in error.scope]) from None
        return found.to(self.device)

    def _asked(self, seen: Mapping[int, int], answer: Callable[[], Answer]) -> Answer:
        """Return an answer; where the evidence is impossible say which part of it is so already.

        Raises:
            DataError: If the evidence has probability zero.
        """
        try:
            return answer()
        except DataError as error:
            if not seen or "probability zero" not in str(error):
                raise
            try:
                least = contradiction(self._junction_tree(_KEPT), seen)
            except ResourceError:
                raise error from None
            told = " and ".join(f"{self.variable_name(v)}={self.state_name(v, s)}" for v, s in least.items())
            why = "cannot be" if len(least) == 1 else "cannot be at once"
            raise DataError(f"the evidence has probability zero: {told} {why}") from None

    def _named(self, found: Beliefs) -> Marginals:
        """Return beliefs with the names of variables and states."""

        def by_name(tables: dict[int, Any]) -> dict[str, dict[str, float]]:
            return {
                self.variable_name(v): {self.state_name(v, s): float(p) for s, p in enumerate(table)}
                for v, table in tables.items()
            }

        low, high = by_name(found.low), by_name(found.high)
        return Marginals(
            found.kind,
            found.method,
            by_name(found.marginals),
            found.log_partition,
            found.error,
            by_name(found.stderr),
            {name: {s: (p, high[name][s]) for s, p in states.items()} for name, states in low.items()},
            found.needs,
        )

    def _kept_tree(self, method: str, limit: float | None) -> JunctionTree | None:
        """Return the junction tree kept for later questions, from the second question on, if it is small.

        None sends the question to an answer of its own, which evidence makes narrower.
        """
        most = Budget(limit).memory
        if method not in ("auto", "exact"):
            return None
        state = list(self.state_dict(keep_vars=True).values())
        asked_before, self._last = self._last, [value.detach().clone() for value in state]
        if not _same(asked_before, state):
            return None
        try:
            return self._junction_tree(_KEPT if most is None else min(most, _KEPT))
        except ResourceError:
            return None

    def _junction_tree(self, limit: float | None) -> JunctionTree:
        """Return a junction tree of the factors as they now stand."""
        state = list(self.state_dict(keep_vars=True).values())
        if self._tree is None or not _same(self._tree[0], state):
            graph = self.factor_graph()
            scopes = [factor.scope for factor in graph.factors]
            known = self._tree[1] if self._tree is not None else None
            alike = known is not None and scopes == [factor.scope for factor in known.graph.factors]
            tree = JunctionTree(graph, known.cliques if alike and known else "min_fill", limit)
            self._tree = [value.detach().clone() for value in state], tree
        checked_memory(self._tree[1].cliques, limit)
        return self._tree[1]


def _same(some: list[Tensor], others: list[Tensor]) -> bool:
    """Return whether two lists of tensors hold the same values."""
    pairs = zip(some, others, strict=False)
    return len(some) == len(others) and all(a.shape == b.shape and torch.equal(a, b.to(a)) for a, b in pairs)


def _on_cpu(generator: torch.Generator | None) -> torch.Generator | None:
    """Return a generator that draws on the CPU, seeded by one of another device."""
    if generator is None or generator.device.type == "cpu":
        return generator
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    return torch.Generator().manual_seed(seed)
