r"""What every undirected model learns and answers by: exact likelihood, pseudo-likelihood, persistent chains.

    exact        d/d theta mean log p = (share of rows in each state) - p(state)       by the junction tree
    pseudo       sum_v log p(x_v | all others), which needs no Z; consistent, and exact for one variable
    persistent   the same gradient with p(state) from Gibbs chains that go on from step to step

Symbols:
    n rows, d variables, x (n, d) states, c chains, theta all log-tables one after another, Z their partition.

Source:
    Besag (1975), Statistical Analysis of Non-Lattice Data, The Statistician 24. Persistent chains: Younes
    (1989), Parametric inference for imperfectly observed Gibbsian fields; Tieleman (2008), Training
    restricted Boltzmann machines using approximations to the likelihood gradient, ICML, section 3.
"""

import math
from abc import abstractmethod
from collections.abc import Iterable
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from leadline.core import Batch, Categories, Density, Domain, Quantity, counted
from leadline.core.errors import unknown_name
from leadline.core.randomness import generator_for
from leadline.inference.annealed import annealed_importance
from leadline.inference.chains.gibbs import Conditionals, Gibbs
from leadline.inference.factors import Factor, FactorGraph, Floats
from leadline.inference.gibbs_answers import IslandsError
from leadline.inference.graphs import separated
from leadline.inference.junction_tree import JunctionTree
from leadline.inference.orders import find_cliques
from leadline.models.graphical.labelled import LabelledModel
from leadline.models.graphical.questions import Evidence

__all__ = ["OBJECTIVES", "FieldModel"]

OBJECTIVES = ("auto", "exact", "pseudo", "persistent")
_EASY = 1 << 20  # numbers in all tables of a junction tree that a training may calibrate at every step
_MOST = 1 << 26  # and that an answer may
_CHAINS, _TEMPERATURES = 100, 500
_CELLS = 1 << 22  # entries looked up at a time
_LEAST = -1e30  # stands for the log of zero where a gradient must not be NaN


class FieldModel(LabelledModel):
    """An undirected model over states, p(x) = exp(sum of log-tables) / Z.

    Args:
        domain: What a sample is.
        columns: The variables that a sample shows, and their states.
        scopes: The variables of each factor; the label, if there is one, comes behind the columns.
        objective: "exact", "pseudo", "persistent"; "auto" is exact where the junction tree is small, else
            pseudo.
        chains: Number of persistent chains.
        label: The label's name and classes, if there is one.

    Raises:
        OptionError: If the objective is unknown.
    """

    particles: Tensor

    def __init__(
        self,
        domain: Domain,
        columns: Categories,
        scopes: tuple[tuple[int, ...], ...],
        objective: str = "auto",
        chains: int = 100,
        label: Categories | None = None,
    ) -> None:
        super().__init__(domain, columns, label)
        if objective not in OBJECTIVES:
            raise unknown_name("objective", objective, OBJECTIVES)
        if chains < 1:
            raise ValueError(f"chains must be at least 1, got {chains}")
        if objective == "auto":
            objective = "exact" if self._tree_size(scopes) <= _EASY else "pseudo"
        self.objective = objective
        self._partition: tuple[Tensor, Quantity] | None = None
        self._calibrated: tuple[tuple[tuple[int, ...], ...], JunctionTree] | None = None
        if objective == "persistent":
            sizes = torch.tensor(self.variables.sizes)
            start = (torch.rand(chains, len(sizes)) * sizes).long()
            self.register_buffer("particles", start)

    @property
    @abstractmethod
    def scopes(self) -> tuple[tuple[int, ...], ...]:
        """Return the variables of each factor."""

    @abstractmethod
    def flat(self) -> Tensor:
        """Return all log-tables one after another, the last variable of a scope fastest; with gradient."""

    @abstractmethod
    def samples(self, states: Tensor) -> Tensor:
        """Return states of the columns as samples: (n, d) -> (n, *shape)."""

    def loss(self, batch: Batch) -> Tensor:
        """Return what the objective makes of a batch, a mean over rows in nats, shape ().

        Its gradient is that of the mean negative log-likelihood ("exact"), its estimate ("persistent": the
        value is a difference of energies and tells nothing), or that of the pseudo-likelihood. A label that
        is unknown is summed out.

        Raises:
            ResourceError: If the objective is "exact" and memory does not allow the junction tree.
        """
        if self.objective == "pseudo":
            return -self.pseudo_log_likelihood(batch.x, batch.y).mean()
        s = self.states(batch.x)
        known = self.known_weight(self.with_label(s, batch.y)).mean()
        if self.objective == "exact":
            return _LogPartition.apply(self.flat(), self) - known
        kernel = Gibbs(self.factor_graph())
        state, _ = kernel.step(kernel.init(self.particles.cpu()))
        self.particles.copy_(state.position)
        return self._log_weight(self.particles).mean() - known

    @counted
    def sample(
        self,
        n: int,
        generator: torch.Generator | None = None,
        *,
        evidence: Evidence | None = None,
        method: str = "auto",
    ) -> Tensor:
        """Return `n` draws given evidence, as `FactorModel.sample` does; "auto" turns to chains by itself.

        Where the tree would be large each draw is the state of a Gibbs chain of its own after 1,000 sweeps;
        where zeros could cut chains off, draws are exact.

        Raises:
            OptionError: If a variable, a state or the method is unknown, or "gibbs" chains could be cut off.
            ResourceError: If memory does not allow the tree of exact draws.
            DataError: If the evidence has probability zero.
        """
        if method == "auto" and self._tree_size(self.scopes) > _MOST:
            try:
                return self.samples(super().sample(n, generator, evidence=evidence, method="gibbs"))
            except IslandsError:  # zeros that cut chains off leave few states possible
                method = "exact"
        return self.samples(super().sample(n, generator, evidence=evidence, method=method))

    def log_prob(self, x: Tensor) -> Tensor:
        """Return log p(x) of each row, in nats; `density` says how Z was found: (n, *shape) -> (n,).

        Raises:
            ShapeError: If a value is not of the domain.
        """
        weight = self.log_weight(x)
        found = self._log_partition()
        if found.kind == "exact" and torch.is_grad_enabled():
            return weight - _LogPartition.apply(self.flat(), self)
        return weight - found.value

    @property
    def density(self) -> Density:
        """Return whether log Z, and so log p(x), is exact or estimated, and its standard error."""
        found = self._log_partition()
        return Density(found.kind, found.protocol, found.stderr or 0.0)

    def pseudo_log_likelihood(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return sum_v log p(x_v | all others) of each row, in nats: (n, *shape) -> (n,).

        A known label is one of the variables; an unknown one is summed out of what the columns say of
        each other.
        """
        full = self.with_label(self.states(x), y)
        whole = (full >= 0).all(1)
        if bool(whole.all()):
            return self._pseudo(full)
        total = self.flat().new_zeros(len(full))
        total[whole] = self._pseudo(full[whole])
        total[~whole] = self._pseudo_summed(full[~whole, : self.label])
        return total

    def log_weight(self, x: Tensor) -> Tensor:
        """Return the sum of all log-tables at each row, log p(x) but for log Z: (n, *shape) -> (n,).

        Raises:
            ShapeError: If a value is not of the domain.
        """
        return self.known_weight(self.with_label(self.states(x)))

    def known_weight(self, s: Tensor) -> Tensor:
        """Return the log-weight of rows of all variables, a label of -1 summed out: (n, d) -> (n,)."""
        whole = (s >= 0).all(1)
        if bool(whole.all()):
            return self._log_weight(s)
        total = self.flat().new_zeros(len(s))
        total[whole] = self._log_weight(s[whole])
        total[~whole] = self.class_weights(s[~whole, : self.label]).logsumexp(1)
        return total

    def factor_graph(self) -> FactorGraph:
        """Return the exponentials of the log-tables as factors."""
        return self._tempered(self.flat().detach().double().cpu().numpy())

    def separates(self, a: Iterable[int], b: Iterable[int], given: Iterable[int]) -> bool:
        """Return whether every path from `a` to `b` goes through `given`."""
        return separated(self.factor_graph().neighbours, a, b, given)

    def expected(self) -> tuple[float, Floats]:
        """Return log Z in nats, and the probability of each entry of each table, one after another."""
        scopes = self.scopes
        if self._calibrated is None or self._calibrated[0] != scopes:
            self._calibrated = scopes, JunctionTree(self._tempered(np.zeros(len(self.flat()))))
        return self._calibrated[1].entries(logs=self.flat().detach().double().cpu().numpy())

    @cached_property
    def _conditionals(self) -> Conditionals:
        """Return where the entries of each variable's conditional stand among all log-tables."""
        return Conditionals(self._tempered(np.zeros(len(self.flat()))))

    def _pseudo(self, s: Tensor) -> Tensor:
        """Return the pseudo-likelihood of rows of all variables, in nats: (n, d) -> (n,)."""
        return self._others(s).log_softmax(-1).gather(2, s[..., None]).sum((1, 2))

    def _pseudo_summed(self, s: Tensor) -> Tensor:
        """Return that of rows of columns, the label summed out, in nats: (n, d) -> (n,)."""
        weights, place = self.class_weights(s), s[..., None]
        joint = []
        for k in range(weights.shape[1]):
            others = self._others(self.with_label(s, s.new_full((len(s),), k)))[:, : s.shape[1]]
            joint.append(weights[:, k, None, None] + others - others.gather(2, place))  # (n, d, k)
        logits = torch.stack(joint).clamp(min=_LEAST).logsumexp(0)
        return logits.log_softmax(-1).gather(2, place).sum((1, 2))

    def _others(self, s: Tensor) -> Tensor:
        """Return log p(v = k | all others) of every variable, not normalised: (n, d) -> (n, d, k)."""
        flat = self.flat()
        every = torch.arange(s.shape[1], device=s.device)[None]
        return self._conditionals.logits(s, every, torch.cat([flat, flat.new_zeros(1)]))

    def _log_weight(self, s: Tensor) -> Tensor:
        """Return the sum of the log-tables at rows of all variables, in nats: (n, d) -> (n,)."""
        flat, at_once = self.flat(), max(1, _CELLS // max(len(s), 1))
        total = flat.new_zeros(len(s))
        for scopes, strides, starts in self._addresses:
            for some, stride, start in zip(
                scopes.split(at_once), strides.split(at_once), starts.split(at_once), strict=True
            ):
                place = start.to(s.device).repeat(len(s), 1)  # (n, factors)
                for v, each in zip(some.T.to(s.device), stride.T.to(s.device), strict=True):
                    place.addcmul_(s.index_select(1, v), each)
                total = total + flat.index_select(0, place.flatten()).view(place.shape).sum(1)
        return total

    @cached_property
    def _addresses(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Return where tables stand among all: for factors of k variables each, (f, k), (f, k) and (f,).

        They are the variables, how far apart entries are whose variable differs by one, and the first entry.
        """
        sizes, start = self.variables.sizes, 0
        rows: dict[int, list[tuple[tuple[int, ...], list[int], int]]] = {}
        for scope in self.scopes:
            strides = [math.prod(sizes[v] for v in scope[place + 1 :]) for place in range(len(scope))]
            rows.setdefault(len(scope), []).append((scope, strides, start))
            start += math.prod(sizes[v] for v in scope)
        return [
            (
                torch.tensor([scope for scope, _, _ in group], dtype=torch.int64).view(len(group), k),
                torch.tensor([strides for _, strides, _ in group], dtype=torch.int64).view(len(group), k),
                torch.tensor([first for _, _, first in group]),
            )
            for k, group in rows.items()
        ]

    def _tempered(self, logs: Floats, t: float = 1.0) -> FactorGraph:
        """Return the factors exp(t theta)."""
        values, sizes = np.exp(t * logs), self.variables.sizes
        factors, start = [], 0
        for scope in self.scopes:
            shape = [sizes[v] for v in scope]
            end = start + math.prod(shape)
            factors.append(Factor(scope, values[start:end].reshape(shape)))
            start = end
        return FactorGraph(sizes, tuple(factors))

    def _tree_size(self, scopes: Iterable[tuple[int, ...]]) -> float:
        """Return how many numbers the tables of a junction tree would hold."""
        sizes = self.variables.sizes
        ones = (Factor(scope, np.ones([sizes[v] for v in scope])) for scope in scopes)
        return find_cliques(FactorGraph(sizes, tuple(ones))).states

    def _log_partition(self) -> Quantity:
        """Return log Z, found once for each setting of the log-tables."""
        logs = self.flat().detach()
        if self._partition is None or not torch.equal(self._partition[0], logs):
            easy = self._tree_size(self.scopes) <= _MOST
            found = self.log_partition(method="exact") if easy else self._annealed()
            self._partition = (logs.clone(), found)
        return self._partition[1]

    def _annealed(self) -> Quantity:
        """Return an estimate of log Z along p_t ~ exp(t theta), from uniform states."""
        logs, sizes = self.flat().detach().double().cpu().numpy(), self.variables.sizes
        generator = generator_for(0, "annealed log Z of a field")
        start = (torch.rand(_CHAINS, len(sizes), generator=generator) * torch.tensor(sizes)).long()

        def log_density(x: Tensor, t: float) -> Tensor:
            return t * self._log_weight(x.to(self.device)).detach()

        def transition(x: Tensor, t: float, source: torch.Generator | None) -> Tensor:
            kernel = Gibbs(self._tempered(logs, t))
            state, _ = kernel.step(kernel.init(x), source)
            return state.position

        found = annealed_importance(
            log_density, transition, start, torch.linspace(0, 1, _TEMPERATURES), generator
        )
        value = found.log_ratio + sum(math.log(size) for size in sizes)
        spread = 1.96 * found.stderr
        protocol = (
            f"annealed importance sampling, {_CHAINS} chains, {_TEMPERATURES} temperatures, "
            f"effective sample size {found.effective_sample_size:.0f}"
        )
        interval = (value - spread, value + spread)
        return Quantity(value, "nats", "estimate", found.stderr, interval, _CHAINS, protocol)


class _LogPartition(torch.autograd.Function):
    """log Z as a function of the log-tables; its gradient is the probability of each entry."""

    @staticmethod
    def forward(ctx: Any, flat: Tensor, model: FieldModel) -> Tensor:
        if flat.requires_grad:
            log_partition, expected = model.expected()
            ctx.save_for_backward(torch.from_numpy(expected).to(flat))
        else:
            log_partition = model._junction_tree(None).log_partition()
        return flat.new_tensor(log_partition)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (expected,) = ctx.saved_tensors
        return grad * expected, None
