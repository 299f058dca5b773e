r"""Markov random fields over categories.

    p(x) = 1/Z prod_f exp(theta_f[x_scope(f)])

The log-likelihood is concave in theta; how it is climbed, or what instead, stands in `fields`.

Symbols:
    n rows, d variables, x (n, d) states, f factor, theta_f its log-table, Z partition function.

Source:
    Kindermann and Snell (1980), Markov Random Fields and Their Applications; Koller and Friedman (2009),
    Probabilistic Graphical Models, chapters 4 and 20.
"""

import itertools
import math
import os
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from leadline.core import Categories, DataError, Described
from leadline.data import Dataset
from leadline.data.networks import FactorFile
from leadline.data.uai import read_uai, write_uai
from leadline.inference.structure import Table, chow_liu
from leadline.models.graphical.fields import FieldModel
from leadline.models.graphical.wording import beside_columns, joined, label_of, scopes_of

__all__ = ["MarkovRandomField"]

_MOST_ROWS, _MOST_STATES = 20_000, 5_000  # that a tree is sought in: rows, and states of all columns together


class MarkovRandomField(FieldModel):
    """Markov random field with given scopes.

    Where the data have classes, the label is a variable too, behind the columns: `predict` is its
    distribution given a row, which takes no partition function, and `log_prob` sums it out.

    Verbs:
        sample, log_prob, predict where there is a label

    Args:
        domain: The observed variables and their states.
        scopes: The variables of each factor.
        objective: "exact", "pseudo" or "persistent" (see `fields`); "auto" is exact where that is cheap.
        chains: Number of persistent chains.
        label: The label's name and classes, if there is one.

    Raises:
        DataError: If a scope names a variable twice, or one that does not exist.

    Example:
        >>> model = MarkovRandomField(Categories((2, 2)), scopes=((0,), (0, 1)))
        >>> round(float(model.log_partition().value), 4)  # ln 4: all weights are one
        1.3863
    """

    domain: Categories
    scope_at: Tensor
    scope_list: Tensor
    log_tables: nn.Parameter

    def __init__(
        self,
        domain: Categories,
        scopes: Sequence[Sequence[int]],
        objective: str = "auto",
        chains: int = 100,
        label: Categories | None = None,
    ) -> None:
        sizes = joined(domain.require(Categories), label).sizes
        for scope in scopes:
            if len(set(scope)) != len(scope) or not all(0 <= v < len(sizes) for v in scope):
                raise DataError(f"the scope {tuple(scope)} must name variables 0..{len(sizes) - 1} once each")
        super().__init__(domain, domain, tuple(tuple(scope) for scope in scopes), objective, chains, label)
        ends = np.cumsum([0, *(len(scope) for scope in scopes)])
        members = [v for scope in scopes for v in scope]
        self.register_buffer("scope_at", torch.from_numpy(ends))
        self.register_buffer("scope_list", torch.tensor(members, dtype=torch.int64))
        cells = sum(math.prod(sizes[v] for v in scope) for scope in scopes)
        self.log_tables = nn.Parameter(torch.zeros(cells))

    @classmethod
    def for_data(
        cls,
        data: Described,
        *,
        edges: tuple[str, ...] | None = None,
        objective: str = "auto",
        chains: int = 100,
    ) -> "MarkovRandomField":
        """Return a field over the columns of `data`, which must be categories, and the label of classes.

        The label is called "label". Where `edges` do not name it, it is joined to every column.

        Args:
            data: What the samples are.
            edges: Which columns share a factor, as "a - b" by name; "a - b - c" is one factor of three.
                Without, the tree that is likeliest for the training rows; each column is joined to the next
                where there are none. Every column has a factor of its own besides.
            objective: "exact" likelihood, "pseudo" likelihood, "persistent" chains; "auto" chooses.
            chains: Number of persistent chains.
        """
        domain = data.domain.require(Categories)
        label, count = label_of(data.labels, domain), len(domain.sizes)
        every = joined(domain, label)
        pairs = _likely_pairs(data, domain.sizes) if edges is None else scopes_of(every, edges)
        if label is not None:
            pairs = beside_columns(pairs, count)
        return cls(domain, [*((v,) for v in range(len(every.sizes))), *pairs], objective, chains, label)

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
        write_uai(FactorFile("MARKOV", self.variables.sizes, self.scopes, tables), path)

    def flat(self) -> Tensor:
        """Return the log-tables."""
        return self.log_tables

    def states(self, x: Tensor) -> Tensor:
        """Return checked rows: (n, d) -> (n, d)."""
        return self.domain.validated(x).long().to(self.device)

    def samples(self, states: Tensor) -> Tensor:
        """Return states as rows: (n, d) -> (n, d)."""
        return states

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


def _likely_pairs(data: Described, sizes: Sequence[int]) -> list[tuple[int, ...]]:
    """Return the edges of the likeliest tree of the training rows; a chain of the columns without rows."""
    x = data.train.head(_MOST_ROWS).x if isinstance(data, Dataset) else None
    if not isinstance(x, Tensor) or sum(sizes) > _MOST_STATES or not bool((x >= 0).all(1).any()):
        return list(itertools.pairwise(range(len(sizes))))
    parents = chow_liu(Table(x[(x >= 0).all(1)].cpu().numpy(), sizes))
    return sorted((min(v, *above), max(v, *above)) for v, above in enumerate(parents) if above)
