r"""Markov random fields over categories.

    p(x) = 1/Z prod_f exp(theta_f[x_scope(f)])

The log-likelihood is concave in theta, and its gradient is the difference of two expectations,

    d/d theta_f[s] mean log p = (share of rows in state s) - p(x_scope(f) = s),

the second of which the junction tree finds exactly.

Symbols:
    n rows, d variables, x (n, d) states, f factor, theta_f its log-table, Z partition function.

Source:
    Kindermann and Snell (1980), Markov Random Fields and Their Applications; Koller and Friedman (2009),
    Probabilistic Graphical Models, chapters 4 and 20.
"""

import itertools
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from leadline.core import Batch, Categories, DataError, Described
from leadline.data.networks import FactorFile
from leadline.data.uai import read_uai, write_uai
from leadline.inference.factors import Factor, FactorGraph, Floats
from leadline.inference.graphs import separated
from leadline.models.graphical.questions import FactorModel
from leadline.models.graphical.wording import scopes_of

__all__ = ["MarkovRandomField"]


class MarkovRandomField(FactorModel):
    """Markov random field with given scopes; descends on the exact likelihood.

    Verbs:
        sample, log_prob

    Args:
        domain: The variables and their states.
        scopes: The variables of each factor.

    Raises:
        DataError: If a scope names a variable twice, or one that does not exist.

    Example:
        >>> model = MarkovRandomField(Categories((2, 2)), scopes=((0,), (0, 1)))
        >>> round(float(model.log_partition().value), 4)  # ln 4: all weights are one
        1.3863
    """

    scope_at: Tensor
    scope_list: Tensor
    log_tables: nn.Parameter

    def __init__(self, domain: Categories, scopes: Sequence[Sequence[int]]) -> None:
        super().__init__(domain.require(Categories))
        for scope in scopes:
            if len(set(scope)) != len(scope) or not all(0 <= v < len(domain.sizes) for v in scope):
                raise DataError(
                    f"the scope {tuple(scope)} must name variables 0..{len(domain.sizes) - 1} once each"
                )
        ends = np.cumsum([0, *(len(scope) for scope in scopes)])
        members = [v for scope in scopes for v in scope]
        self.register_buffer("scope_at", torch.from_numpy(ends))
        self.register_buffer("scope_list", torch.tensor(members, dtype=torch.int64))
        cells = sum(math.prod(domain.sizes[v] for v in scope) for scope in scopes)
        self.log_tables = nn.Parameter(torch.zeros(cells))

    @classmethod
    def for_data(cls, data: Described, *, edges: tuple[str, ...] | None = None) -> "MarkovRandomField":
        """Return a field over the columns of `data`, which must be categories.

        Args:
            data: What the samples are.
            edges: Which columns share a factor, as "a - b" by name; "a - b - c" is one factor of three.
                Without, each column is joined to the next. Every column has a factor of its own besides.
        """
        domain = data.domain.require(Categories)
        count = len(domain.sizes)
        pairs = list(itertools.pairwise(range(count))) if edges is None else scopes_of(domain, edges)
        return cls(domain, [*((v,) for v in range(count)), *pairs])

    @classmethod
    def of(cls, file: FactorFile) -> "MarkovRandomField":
        """Return the float64 model of factors as a UAI file states them."""
        model = cls(Categories(file.sizes), file.scopes).double()
        with torch.no_grad(), np.errstate(divide="ignore"):
            flat = np.concatenate([np.empty(0), *(np.log(table).ravel() for table in file.tables)])
            model.log_tables.copy_(torch.from_numpy(flat))
        return model

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> "MarkovRandomField":
        """Return the float64 model in a .uai file, MARKOV or BAYES, compressed by gzip or not.

        Raises:
            DataError: If the file does not hold one; the message names the line.
        """
        return cls.of(read_uai(path))

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write a .uai file."""
        tables = tuple(factor.table for factor in self.factor_graph().factors)
        write_uai(FactorFile("MARKOV", self.domain.sizes, self.scopes, tables), path)

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean negative log-likelihood in nats, shape (); its gradient is exact.

        Raises:
            ResourceError: If memory does not allow the junction tree.
        """
        return -self.log_prob(batch.x).mean()

    def log_prob(self, x: Tensor) -> Tensor:
        """Return log p(x) of each row, in nats: (n, d) -> (n,).

        Raises:
            ShapeError: If a value is not of the domain.
            ResourceError: If memory does not allow the junction tree that log Z takes.
        """
        return self.log_weight(x) - _LogPartition.apply(self.log_tables, self)

    def log_weight(self, x: Tensor) -> Tensor:
        """Return the sum of all log-tables at each row, log p(x) but for log Z: (n, d) -> (n,).

        Raises:
            ShapeError: If a value is not of the domain.
        """
        x = self.domain.validated(x).to(self.device)
        total, start = self.log_tables.new_zeros(len(x)), 0
        for scope in self.scopes:
            place = torch.zeros(len(x), dtype=torch.int64, device=self.device)
            for v in scope:
                place = place * self.domain.sizes[v] + x[:, v]
            total = total + self.log_tables[start + place]
            start += math.prod(self.domain.sizes[v] for v in scope)
        return total

    @property
    def device(self) -> torch.device:
        """Return where the model lives."""
        return self.log_tables.device

    @property
    def scopes(self) -> tuple[tuple[int, ...], ...]:
        """Return the variables of each factor."""
        ends, members = self.scope_at.tolist(), self.scope_list.tolist()
        return tuple(tuple(members[a:b]) for a, b in itertools.pairwise(ends))

    def make_room(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Give scopes and tables the sizes of saved ones, so that these can be copied in."""
        for name in ("scope_at", "scope_list"):
            if name in shapes and getattr(self, name).shape != shapes[name]:
                setattr(self, name, torch.zeros(shapes[name], dtype=torch.int64, device=self.device))
        if "log_tables" in shapes and self.log_tables.shape != shapes["log_tables"]:
            self.log_tables = nn.Parameter(self.log_tables.new_zeros(shapes["log_tables"]))

    def factor_graph(self) -> FactorGraph:
        """Return the exponentials of the log-tables as factors."""
        flat = self.log_tables.detach().double().exp().cpu().numpy()
        factors, start = [], 0
        for scope in self.scopes:
            shape = [self.domain.sizes[v] for v in scope]
            end = start + math.prod(shape)
            factors.append(Factor(scope, flat[start:end].reshape(shape)))
            start = end
        return FactorGraph(self.domain.sizes, tuple(factors))

    def separates(self, a: Iterable[int], b: Iterable[int], given: Iterable[int]) -> bool:
        """Return whether every path from `a` to `b` goes through `given`."""
        return separated(self.factor_graph().neighbours, a, b, given)

    def expected(self) -> tuple[float, Floats]:
        """Return log Z in nats, and the probability of each entry of each table, one after another."""
        log_partition, beliefs = self._junction_tree(None).beliefs()
        return log_partition, np.concatenate([np.empty(0), *(belief.ravel() for belief in beliefs)])


class _LogPartition(torch.autograd.Function):
    """log Z as a function of the log-tables; its gradient is the probability of each entry."""

    @staticmethod
    def forward(ctx: Any, log_tables: Tensor, model: MarkovRandomField) -> Tensor:
        if log_tables.requires_grad:
            log_partition, expected = model.expected()
            ctx.save_for_backward(torch.from_numpy(expected).to(log_tables))
        else:
            log_partition = model._junction_tree(None).log_partition()
        return log_tables.new_tensor(log_partition)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (expected,) = ctx.saved_tensors
        return grad * expected, None
