r"""Bayesian networks over categories.

    p(x) = prod_v p(x_v | x_parents(v))

Each conditional distribution is a table. Its maximum-likelihood estimate is a ratio of counts, and with a
symmetric Dirichlet prior of `smoothing` pseudo-counts an entry its posterior mean is

    p(x_v = k | parents = j) = (n_jk + a) / (n_j + a K).

Where values are missing, or variables hidden, the counts are expected ones, and sweeps are steps of EM. The
graph is given, or found from the complete rows in the first sweep (`graph_learners`).

Symbols:
    n rows, d variables, x (n, d) states, K states of a variable, j states of its parents, a smoothing.

Source:
    Pearl (1988), Probabilistic Reasoning in Intelligent Systems; Koller and Friedman (2009), Probabilistic
    Graphical Models, chapters 3, 17, 18 and 19.

Departs from the source:
    The tables are kept as the bits of float64 numbers, so that a model in float32 answers as exactly as the
    file it came from; what `log_prob` returns has the model's type.
"""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import xlogy
from torch import Tensor

from leadline.core import Categories, DataError, Described, OptionError
from leadline.core.randomness import uniform
from leadline.data.bif import read_bif, write_bif
from leadline.data.networks import FactorFile, Network
from leadline.data.uai import read_uai, write_uai
from leadline.inference.expectation import expected_counts, log_evidence
from leadline.inference.factors import Factor, FactorGraph, Floats, Ints
from leadline.inference.graphs import Parents, d_separated, topological_order
from leadline.inference.structure import Table
from leadline.models.graphical.graph_learners import GraphLearner, learner_of
from leadline.models.graphical.questions import Evidence, FactorModel
from leadline.models.graphical.wording import hidden_of, joined, parents_of

__all__ = ["BayesianNetwork"]


class BayesianNetwork(FactorModel):
    """Bayesian network; one sweep learns its graph, where that is not given, and its tables.

    With missing values or hidden variables a sweep is a step of EM, started from random tables.

    Verbs:
        sample, log_prob

    Args:
        domain: The observed variables and their states.
        parents: Numbers of the parents of each variable, hidden ones last; none by default.
        smoothing: Pseudo-counts added to each entry, at least 0; 0 is maximum likelihood.
        learner: How the graph is found from rows, see `graph_learners`; it is given by default.
        hidden: Variables that no row shows.

    Raises:
        ValueError: If smoothing is negative, or a graph is to be found with hidden variables.
        DataError: If the graph has a cycle; the message goes round it.

    Example:
        >>> rain = Categories((2, 2), ("rain", "wet"), (("no", "yes"), ("no", "yes")))
        >>> model = BayesianNetwork(rain, parents=((), (0,)))
        >>> _ = model.sweep(torch.tensor([[0, 0], [0, 0], [1, 1], [0, 1]]))
        >>> {state: round(p, 2) for state, p in model.marginals({"wet": "yes"})["rain"].items()}
        {'no': 0.55, 'yes': 0.45}
    """

    takes_missing = True
    domain: Categories
    parent_at: Tensor
    parent_list: Tensor
    bits: Tensor
    unit: Tensor
    found: Tensor

    def __init__(
        self,
        domain: Categories,
        parents: Sequence[Sequence[int]] = (),
        smoothing: float = 1.0,
        learner: GraphLearner | None = None,
        hidden: Categories | None = None,
    ) -> None:
        super().__init__(domain.require(Categories), joined(domain, hidden))
        if not smoothing >= 0:
            raise ValueError(f"smoothing must be at least 0, got {smoothing}")
        if learner is not None and hidden is not None:
            raise ValueError(
                "the graph over hidden variables must be given: name its edges, structure='given'"
            )
        self.smoothing, self.learner = smoothing, learner
        self._gaps = hidden is not None  # whether the last rows left anything open
        self.register_buffer("found", torch.tensor(learner is None))  # whether there is a graph already
        self.register_buffer("parent_at", torch.zeros(len(self.variables.sizes) + 1, dtype=torch.int64))
        self.register_buffer("parent_list", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("bits", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("unit", torch.zeros(()))  # tells the type and device of answers
        self.connect(parents or [()] * len(self.variables.sizes))
        if hidden is not None:
            self._shuffle()

    @classmethod
    def for_data(
        cls,
        data: Described,
        *,
        edges: tuple[str, ...] = (),
        structure: str = "given",
        hidden: tuple[str, ...] = (),
        smoothing: float = 1.0,
        max_parents: int = 4,
        alpha: float = 0.01,
    ) -> "BayesianNetwork":
        """Return a network over the columns of `data`, which must be categories.

        Args:
            data: What the samples are.
            edges: The graph, as "cause -> effect" by the names of the columns; "a -> b -> c" is two edges.
            structure: "given" by `edges`; or found from complete rows: "tree" (Chow-Liu), "bic" or "bdeu"
                (hill climbing by that score), "pc" (tests of independence).
            hidden: Variables that no row shows, as "name=3" with their number of states.
            smoothing: Pseudo-counts added to each entry; 0 is maximum likelihood.
            max_parents: Most parents of a variable, and most variables that "pc" conditions on.
            alpha: Level of the tests of "pc".
        """
        domain = data.domain.require(Categories)
        if structure != "given" and edges:
            raise OptionError(f"edges are given, so structure must be 'given', got {structure!r}")
        unseen = hidden_of(hidden)
        parents = parents_of(joined(domain, unseen), edges)
        return cls(domain, parents, smoothing, learner_of(structure, max_parents, alpha), unseen)

    @classmethod
    def of(cls, network: Network) -> "BayesianNetwork":
        """Return the model of a network as a BIF file states it."""
        sizes = tuple(len(values) for values in network.values)
        model = cls(Categories(sizes, network.columns, network.values), network.parents)
        model.set_tables(network.tables)
        return model

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> "BayesianNetwork":
        """Return the model in a .bif or .uai file (kind BAYES), compressed by gzip or not.

        Raises:
            DataError: If the file does not hold one; the message names the line.
        """
        if _suffix(path) != ".uai":
            return cls.of(read_bif(path))
        file = read_uai(path)
        children = [scope[-1] for scope in file.scopes if scope]
        if file.kind != "BAYES" or sorted(children) != list(range(len(file.sizes))):
            raise DataError(
                f"{path}: a Bayesian network needs kind BAYES and one function a variable, its child last; "
                "read it as a markov_random_field"
            )
        functions = {scope[-1]: i for i, scope in enumerate(file.scopes)}
        order = [functions[v] for v in range(len(file.sizes))]
        model = cls(Categories(file.sizes), [file.scopes[i][:-1] for i in order])
        model.set_tables([file.tables[i] for i in order])
        return model

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write a .bif or .uai file; reading it gives an equal model."""
        parents, tables = self.parents, tuple(self.tables())
        if _suffix(path) == ".uai":
            scopes = tuple((*above, v) for v, above in enumerate(parents))
            write_uai(FactorFile("BAYES", self.variables.sizes, scopes, tables), path)
            return
        columns = tuple(self.variable_name(v) for v in range(len(parents)))
        values = tuple(
            tuple(self.state_name(v, s) for s in range(k)) for v, k in enumerate(self.variables.sizes)
        )
        write_bif(Network("leadline", columns, values, parents, tables), path)

    def sweep(self, x: Tensor) -> float:
        """Set every table to its estimate from rows (n, d), -1 where missing; find the graph first if asked.

        Returns:
            The mean log-likelihood of complete rows after the step, in nats; where something is missing,
            that of what is known before the step, with the log of the prior, which no step of EM lowers.

        Raises:
            ShapeError: If a value is not of the domain.
            DataError: If there is no row, none is complete where the graph is to be found, or one has
                probability zero.
        """
        self.domain.validated(x)
        if len(x) == 0:
            raise DataError("a Bayesian network needs at least one row to learn from")
        x = x.to(self.device)
        if self.learner is not None and not bool(self.found):
            whole = x[(x >= 0).all(1)]
            self.connect(self.learner(Table(whole.cpu().numpy(), self.variables.sizes)))
            self.found.fill_(True)  # noqa: FBT003
        self._gaps = self.variables is not self.domain or bool((x < 0).any())
        if self._gaps:
            return self._expect_and_maximise(x)
        counts = []
        for family in self._families():
            v, size = family.child, self.variables.sizes[family.child]
            place = family.rows(x) * size + x[:, v]
            counts.append(torch.bincount(place, minlength=family.length).double())
        self._divide(counts)
        return float(self._log_prob(x).mean())

    @property
    def converged(self) -> bool | None:
        """Return True once one sweep has found the estimate; None where gains must tell (EM)."""
        return None if self._gaps else True

    def sample(
        self,
        n: int,
        generator: torch.Generator | None = None,
        *,
        evidence: Evidence | None = None,
        method: str = "auto",
    ) -> Tensor:
        """Return `n` independent draws (n, d): parents first; given evidence as `FactorModel.sample` does."""
        if evidence or method != "auto":
            return super().sample(n, generator, evidence=evidence, method=method)
        x = torch.zeros(n, len(self.variables.sizes), dtype=torch.int64, device=self.device)
        flat, families = self._flat(), self._families()
        for v in topological_order(self.parents):
            start, length, size = families[v].start, families[v].length, self.variables.sizes[v]
            rows = flat[start : start + length].view(-1, size)[families[v].rows(x)]
            cumulative = rows.cumsum(1)
            threshold = uniform((n, 1), cumulative, generator) * cumulative[:, -1:]
            x[:, v] = (cumulative <= threshold).sum(1).clamp(max=size - 1)
        return x[:, : self.domain.dims]

    def log_prob(self, x: Tensor) -> Tensor:
        """Return log p(x) of each row, or of what is known of it (-1 is missing), in nats: (n, d) -> (n,).

        Raises:
            ShapeError: If a value is not of the domain.
        """
        x = self.domain.validated(x)
        if self.variables is self.domain and not (self.domain.missing and bool((x < 0).any())):
            return self._log_prob(x).to(self.unit.dtype)
        found = log_evidence(self._junction_tree(None), self._with_hidden(x))
        return torch.from_numpy(found).to(self.unit)

    @property
    def device(self) -> torch.device:
        """Return where the model lives."""
        return self.unit.device

    @property
    def parents(self) -> Parents:
        """Return the numbers of the parents of each variable."""
        ends, numbers = self.parent_at.tolist(), self.parent_list.tolist()
        return tuple(tuple(numbers[ends[v] : ends[v + 1]]) for v in range(len(ends) - 1))

    def connect(self, parents: Sequence[Sequence[int]]) -> None:
        """Let the graph be this, with uniform tables.

        Raises:
            DataError: If it has a cycle.
        """
        topological_order(parents, [self.variable_name(v) for v in range(len(self.variables.sizes))])
        sizes = self.variables.sizes
        ends = np.cumsum([0, *(len(above) for above in parents)])
        cells = [math.prod(sizes[u] for u in (*above, v)) for v, above in enumerate(parents)]
        shapes = {"parent_at": len(ends), "parent_list": int(ends[-1]), "bits": sum(cells)}
        self.make_room({name: (length,) for name, length in shapes.items()})
        self.parent_at.copy_(torch.from_numpy(ends))
        self.parent_list.copy_(torch.tensor([p for above in parents for p in above], dtype=torch.int64))
        flat = [torch.full((count,), 1 / sizes[v], dtype=torch.float64) for v, count in enumerate(cells)]
        self.bits.copy_(torch.cat(flat).view(torch.int64))

    def make_room(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Give the graph and the tables the sizes of saved ones, so that these can be copied in."""
        for name in ("parent_at", "parent_list", "bits"):
            held = getattr(self, name)
            if name in shapes and held.shape != shapes[name]:
                setattr(self, name, torch.zeros(shapes[name], dtype=torch.int64, device=self.device))

    def tables(self) -> list[Floats]:
        """Return p(child | parents) of each variable, one axis a parent and the child's last."""
        flat = self._flat().cpu().numpy()
        return [
            flat[family.start : family.start + family.length].reshape(
                [self.variables.sizes[u] for u in (*family.parents, family.child)]
            )
            for family in self._families()
        ]

    def set_tables(self, tables: Sequence[Floats]) -> None:
        """Let the tables be these, each row divided by its sum where that is not one."""
        flat: list[Floats] = []
        for table in tables:
            total = table.sum(-1, keepdims=True)
            flat.append(np.where(np.abs(total - 1) > 1e-12, table / total, table).ravel())
        self.bits.copy_(torch.from_numpy(np.concatenate(flat)).view(torch.int64))

    def factor_graph(self) -> FactorGraph:
        """Return the tables as factors."""
        pairs = zip(self.parents, self.tables(), strict=True)
        factors = (Factor((*above, v), table, child=v) for v, (above, table) in enumerate(pairs))
        return FactorGraph(self.variables.sizes, tuple(factors))

    def separates(self, a: Iterable[int], b: Iterable[int], given: Iterable[int]) -> bool:
        """Return whether `given` d-separates `a` from `b`."""
        return d_separated(self.parents, a, b, given)

    def _expect_and_maximise(self, x: Tensor) -> float:
        """Take a step of EM; return the mean log-likelihood before it with the log of the prior, in nats."""
        counts, total = expected_counts(self._junction_tree(None), self._with_hidden(x))
        flat = self._flat().cpu().numpy()
        prior = float(xlogy(self.smoothing, flat).sum()) if self.smoothing else 0.0
        self._divide([torch.from_numpy(count).flatten().to(self.device) for count in counts])
        return (total + prior) / len(x)

    def _divide(self, counts: Sequence[Tensor]) -> None:
        """Set the tables from the counts of each family, one after another."""
        parts = []
        for family, found in zip(self._families(), counts, strict=True):
            size = self.variables.sizes[family.child]
            smooth = found.view(-1, size) + self.smoothing
            rows = smooth.sum(1, keepdim=True)
            parts.append(torch.where(rows > 0, smooth / rows.clamp(min=1e-300), 1 / size).flatten())
        self.bits.copy_(torch.cat(parts).view(torch.int64))

    def _with_hidden(self, x: Tensor) -> Ints:
        """Return rows with a column a hidden variable, -1 throughout."""
        unseen = x.new_full((len(x), len(self.variables.sizes) - x.shape[1]), -1)
        return torch.cat([x, unseen], 1).cpu().numpy()

    def _shuffle(self) -> None:
        """Draw all tables, rows uniform on the simplex: equal ones would keep a hidden variable idle."""
        draws = -torch.rand(len(self.bits), dtype=torch.float64).clamp(min=1e-12).log()
        self._divide([draws[f.start : f.start + f.length] for f in self._families()])

    def _flat(self) -> Tensor:
        """Return all tables one after another, float64."""
        return self.bits.view(torch.float64)

    def _log_prob(self, x: Tensor) -> Tensor:
        """Return log p(x) in float64: (n, d) -> (n,)."""
        logs, total = self._flat().log(), torch.zeros(len(x), dtype=torch.float64, device=self.device)
        x = x.to(self.device)
        for family in self._families():
            v = family.child
            total += logs[family.start + family.rows(x) * self.variables.sizes[v] + x[:, v]]
        return total

    def _families(self) -> list["_Family"]:
        """Return each variable with its parents and where its table lies."""
        found, start, sizes = [], 0, self.variables.sizes
        for v, above in enumerate(self.parents):
            length = math.prod(sizes[u] for u in (*above, v))
            found.append(_Family(v, above, start, length, tuple(sizes[p] for p in above)))
            start += length
        return found


class _Family(NamedTuple):
    """A variable, its parents with their sizes, and where its table lies among all."""

    child: int
    parents: tuple[int, ...]
    start: int
    length: int
    sizes: tuple[int, ...]

    def rows(self, x: Tensor) -> Tensor:
        """Return which row of the table the parents' states choose: (n, d) -> (n,)."""
        row = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        for p, size in zip(self.parents, self.sizes, strict=True):
            row = row * size + x[:, p]
        return row


def _suffix(path: str | os.PathLike[str]) -> str:
    """Return the ending of a path, that of gzip left out."""
    plain = Path(path).name.removesuffix(".gz")
    return Path(plain).suffix.lower()
