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

from leadline.core import Batch, Categories, Density, Domain, Quantity
from leadline.core.errors import unknown_name
from leadline.core.randomness import generator_for
from leadline.inference.annealed import annealed_importance
from leadline.inference.chains.gibbs import Conditionals, Gibbs
from leadline.inference.factors import Factor, FactorGraph, Floats
from leadline.inference.graphs import separated
from leadline.inference.orders import find_cliques
from leadline.models.graphical.questions import Evidence, FactorModel

__all__ = ["OBJECTIVES", "FieldModel"]

OBJECTIVES = ("auto", "exact", "pseudo", "persistent")
_EASY = 1 << 20  # numbers in all tables of a junction tree that a training may calibrate at every step
_MOST = 1 << 26  # and that an answer may
_CHAINS, _TEMPERATURES = 100, 500


class FieldModel(FactorModel):
    """An undirected model over states, p(x) = exp(sum of log-tables) / Z.

    Args:
        domain: What a sample is.
        variables: The variables and their states.
        scopes: The variables of each factor.
        objective: "exact", "pseudo", "persistent"; "auto" is exact where the junction tree is small, else
            pseudo.
        chains: Number of persistent chains.

    Raises:
        OptionError: If the objective is unknown.
    """

    particles: Tensor

    def __init__(
        self,
        domain: Domain,
        variables: Categories,
        scopes: tuple[tuple[int, ...], ...],
        objective: str = "auto",
        chains: int = 100,
    ) -> None:
        super().__init__(domain, variables)
        if objective not in OBJECTIVES:
            raise unknown_name("objective", objective, OBJECTIVES)
        if chains < 1:
            raise ValueError(f"chains must be at least 1, got {chains}")
        if objective == "auto":
            objective = "exact" if self._tree_size(scopes) <= _EASY else "pseudo"
        self.objective = objective
        self._partition: tuple[Tensor, Quantity] | None = None
        if objective == "persistent":
            sizes = torch.tensor(variables.sizes)
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
    def states(self, x: Tensor) -> Tensor:
        """Return checked samples as states of the variables: (n, *shape) -> (n, d) int64."""

    @abstractmethod
    def samples(self, states: Tensor) -> Tensor:
        """Return states of the variables as samples: (n, d) -> (n, *shape)."""

    def loss(self, batch: Batch) -> Tensor:
        """Return what the objective makes of a batch, a mean over rows in nats, shape ().

        Its gradient is that of the mean negative log-likelihood ("exact"), its estimate ("persistent": the
        value is a difference of energies and tells nothing), or that of the pseudo-likelihood.

        Raises:
            ResourceError: If the objective is "exact" and memory does not allow the junction tree.
        """
        s = self.states(batch.x)
        if self.objective == "exact":
            return _LogPartition.apply(self.flat(), self) - self._log_weight(s).mean()
        if self.objective == "pseudo":
            return -self.pseudo_log_likelihood(batch.x).mean()
        kernel = Gibbs(self.factor_graph())
        state, _ = kernel.step(kernel.init(self.particles.cpu()))
        self.particles.copy_(state.position)
        return self._log_weight(self.particles).mean() - self._log_weight(s).mean()

    def sample(
        self,
        n: int,
        generator: torch.Generator | None = None,
        *,
        evidence: Evidence | None = None,
        method: str = "auto",
    ) -> Tensor:
        """Return `n` draws given evidence, as `FactorModel.sample` does; "auto" turns to chains by itself.

        Where the tree would be large each draw is the state of a Gibbs chain of its own after 1,000 sweeps.

        Raises:
            OptionError: If a variable, a state or the method is unknown, or chains could be cut off.
            ResourceError: If the method is "exact" and memory does not allow the tree.
            DataError: If the evidence has probability zero.
        """
        if method == "auto" and self._tree_size(self.scopes) > _MOST:
            method = "gibbs"
        return self.samples(super().sample(n, generator, evidence=evidence, method=method))

    def log_prob(self, x: Tensor) -> Tensor:
        """Return log p(x) of each row, in nats; `density` says how Z was found: (n, *shape) -> (n,).

        Raises:
            ShapeError: If a value is not of the domain.
        """
        weight = self._log_weight(self.states(x))
        found = self._log_partition()
        if found.kind == "exact" and torch.is_grad_enabled():
            return weight - _LogPartition.apply(self.flat(), self)
        return weight - found.value

    @property
    def density(self) -> Density:
        """Return whether log Z, and so log p(x), is exact or estimated, and its standard error."""
        found = self._log_partition()
        return Density(found.kind, found.protocol, found.stderr or 0.0)

    def pseudo_log_likelihood(self, x: Tensor) -> Tensor:
        """Return sum_v log p(x_v | all others) of each row, in nats: (n, *shape) -> (n,)."""
        s, flat = self.states(x), self.flat()
        every = torch.arange(s.shape[1], device=s.device)[None]
        logits = self._conditionals.logits(s, every, torch.cat([flat, flat.new_zeros(1)]))  # (n, d, k)
        return logits.log_softmax(-1).gather(2, s[..., None]).sum((1, 2))

    def log_weight(self, x: Tensor) -> Tensor:
        """Return the sum of all log-tables at each row, log p(x) but for log Z: (n, *shape) -> (n,).

        Raises:
            ShapeError: If a value is not of the domain.
        """
        return self._log_weight(self.states(x))

    def factor_graph(self) -> FactorGraph:
        """Return the exponentials of the log-tables as factors."""
        return self._tempered(self.flat().detach().double().cpu().numpy())

    def separates(self, a: Iterable[int], b: Iterable[int], given: Iterable[int]) -> bool:
        """Return whether every path from `a` to `b` goes through `given`."""
        return separated(self.factor_graph().neighbours, a, b, given)

    def expected(self) -> tuple[float, Floats]:
        """Return log Z in nats, and the probability of each entry of each table, one after another."""
        log_partition, beliefs = self._junction_tree(None).beliefs()
        return log_partition, np.concatenate([np.empty(0), *(belief.ravel() for belief in beliefs)])

    @cached_property
    def _conditionals(self) -> Conditionals:
        """Return where the entries of each variable's conditional stand among all log-tables."""
        return Conditionals(self._tempered(np.zeros(len(self.flat()))))

    def _log_weight(self, s: Tensor) -> Tensor:
        flat, sizes = self.flat(), self.variables.sizes
        total, start = flat.new_zeros(len(s)), 0
        for scope in self.scopes:
            place = torch.zeros(len(s), dtype=torch.int64, device=s.device)
            for v in scope:
                place = place * sizes[v] + s[:, v]
            total = total + flat[start + place]
            start += math.prod(sizes[v] for v in scope)
        return total

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
