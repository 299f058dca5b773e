r"""Bayesian networks over categories.

    p(x) = prod_v p(x_v | x_parents(v))

Each conditional distribution is a table. Its maximum-likelihood estimate is a ratio of counts, and with a
symmetric Dirichlet prior of `smoothing` pseudo-counts an entry its posterior mean is

    p(x_v = k | parents = j) = (n_jk + a) / (n_j + a K).

Where values are missing, or variables hidden, the counts are expected ones, and sweeps are steps of EM. The
graph is given, or found in the first sweep (`graph_learners`), from rows made whole by draws where values are
missing (`completing`).

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

import numpy as np
import torch
from scipy.special import xlogy
from torch import Tensor

from leadline.core import Categories, DataError, Described, OptionError, counted
from leadline.core.randomness import uniform
from leadline.data.networks import Network
from leadline.inference.expectation import expected_counts, log_evidence
from leadline.inference.factors import Factor, FactorGraph, Floats
from leadline.inference.graphs import Parents, d_separated, topological_order
from leadline.inference.structure import Table
from leadline.models.graphical.completing import drawn_alone, drawn_given_the_rest
from leadline.models.graphical.graph_learners import GraphLearner, chosen, learner_of
from leadline.models.graphical.labelled import LabelledModel
from leadline.models.graphical.network_files import read_network, write_network
from leadline.models.graphical.questions import Evidence
from leadline.models.graphical.tables import Family, families_of, family_counts, log_product
from leadline.models.graphical.wording import above_columns, hidden_of, joined, label_of, parents_of

__all__ = ["BayesianNetwork"]

_ROUNDS, _DRAWS = 4, 10  # of finding the graph where values are missing; sweeps over these in each


class BayesianNetwork(LabelledModel):
    """Bayesian network; one sweep learns its graph, where that is not given, and its tables.

    With missing values or hidden variables a sweep is a step of EM, started from random tables. Where the
    data have classes, the label is a variable too, behind the columns: `predict` is its distribution given a
    row, `log_prob` sums it out, and an unknown label is a missing value.

    Verbs:
        sample, log_prob, predict where there is a label

    Args:
        domain: The observed variables and their states.
        parents: Numbers of the parents of each variable, hidden ones last; none by default.
        smoothing: Pseudo-counts added to each entry, at least 0; 0 is maximum likelihood.
        learner: How the graph is found from rows, see `graph_learners`; it is given by default.
        hidden: Variables that no row shows, the last ones.
        label: The label's name and classes, if there is one.
        tolerance: EM is done when a step gains less than this, in nats per row.

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
    may_lack = ("reached",)
    domain: Categories
    parent_at: Tensor
    parent_list: Tensor
    bits: Tensor
    reached: Tensor
    unit: Tensor
    found: Tensor

    def __init__(
        self,
        domain: Categories,
        parents: Sequence[Sequence[int]] = (),
        smoothing: float = 1.0,
        learner: GraphLearner | None = None,
        hidden: Categories | None = None,
        label: Categories | None = None,
        tolerance: float = 1e-5,
    ) -> None:
        super().__init__(domain.require(Categories), domain, label, hidden)
        if not smoothing >= 0:
            raise ValueError(f"smoothing must be at least 0, got {smoothing}")
        if learner is not None and hidden is not None:
            raise ValueError(
                "the graph over hidden variables must be given: name its edges, structure='given'"
            )
        self.smoothing, self.learner, self.tolerance = smoothing, learner, tolerance
        self._gaps = hidden is not None  # whether the last rows left anything open
        self.register_buffer("found", torch.tensor(learner is None))  # whether there is a graph already
        self.register_buffer("parent_at", torch.zeros(len(self.variables.sizes) + 1, dtype=torch.int64))
        self.register_buffer("parent_list", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("bits", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("reached", _bits_of(-math.inf, -math.inf))  # by the last two steps of EM
        self.register_buffer("unit", torch.zeros(()))  # tells the type and device of answers
        self.connect(parents or [()] * len(self.variables.sizes))
        if hidden is not None:
            self._shuffle()

    @classmethod
    def for_data(  # noqa: PLR0913 - a way to learn each
        cls,
        data: Described,
        *,
        edges: tuple[str, ...] = (),
        structure: str = "auto",
        hidden: tuple[str, ...] = (),
        smoothing: float = 1.0,
        max_parents: int = 4,
        alpha: float = 0.01,
        equivalent_samples: float = 1.0,
        restarts: int = 30,
        tabu: int = 100,
        tolerance: float = 1e-5,
    ) -> "BayesianNetwork":
        """Return a network over the columns of `data`, which must be categories, and the label of classes.

        The label is called "label". Where `edges` do not name it, it points to every column (naive Bayes if
        there are no edges); where the graph is to be found, it is a variable like the others.

        Args:
            data: What the samples are.
            edges: The graph, as "cause -> effect" by the names of the columns; "a -> b -> c" is two edges.
            structure: "given" by `edges`; or found from rows: "tree" (Chow-Liu), "bic" or "bdeu"
                (hill climbing by that score), "pc" (tests of independence). "auto" is "given" where there are
                edges, hidden variables or a label, else "bic", or "tree" beyond 100 columns.
            hidden: Variables that no row shows, as "name=3" with their number of states.
            smoothing: Pseudo-counts added to each entry; 0 is maximum likelihood.
            max_parents: Most parents of a variable, and most variables that "pc" conditions on.
            alpha: Level of the tests of "pc".
            equivalent_samples: Weight of the prior of "bdeu", in rows; more of them find more edges.
            restarts: How often "bic" and "bdeu" shake the best graph and climb again, for a minute at most.
            tabu: How many of the last graphs are avoided while that search goes on from a top.
            tolerance: EM, of missing values and hidden variables, is done when a step gains less than this,
                in nats per row.
        """
        domain = data.domain.require(Categories)
        if structure not in ("auto", "given") and edges:
            raise OptionError(f"edges are given, so structure must be 'given', got {structure!r}")
        unseen, label = hidden_of(hidden), label_of(data.labels, domain)
        parents = parents_of(joined(joined(domain, label), unseen), edges)
        stated = bool(edges) or unseen is not None or label is not None
        structure = chosen(structure, domain.dims, stated=stated)
        if label is not None and structure == "given":
            parents = above_columns(parents, domain.dims)
        learner = learner_of(structure, max_parents, alpha, equivalent_samples, restarts, tabu)
        return cls(domain, parents, smoothing, learner, unseen, label, tolerance)

    @classmethod
    def of(cls, network: Network) -> "BayesianNetwork":
        """Return the model of a network as a BIF file states it."""
        sizes = tuple(table.shape[-1] for table in network.tables)
        model = cls(Categories(sizes, network.columns, network.values), network.parents)
        model.set_tables(network.tables)
        return model

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> "BayesianNetwork":
        """Return the model in a .bif or .uai file (kind BAYES), compressed by gzip or not.

        Raises:
            DataError: If the file does not hold one; the message names the line.
        """
        return cls.of(read_network(path))

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write a .bif or .uai file; reading it gives an equal model."""
        columns = tuple(self.variable_name(v) for v in range(len(self.parents)))
        values = tuple(
            tuple(self.state_name(v, s) for s in range(k)) for v, k in enumerate(self.variables.sizes)
        )
        write_network(Network("leadline", columns, values, self.parents, tuple(self.tables())), path)

    def sweep(self, x: Tensor, y: Tensor | None = None) -> float:
        """Set every table to its estimate from rows (n, d), -1 where missing; find the graph first if asked.

        Args:
            x: Rows.
            y: The label of each (n,), -1 where unknown; unknown throughout if there is none.

        Returns:
            The mean log-likelihood of complete rows after the step, in nats; where something is missing,
            that of what is known before the step, with the log of the prior, which no step of EM lowers.

        Raises:
            ShapeError: If a value is not of the domain.
            DataError: If there is no row, nothing is known in any where the graph is to be found, or one
                has probability zero.
        """
        s = self.states(x).to(self.device)
        if len(s) == 0:
            raise DataError("a Bayesian network needs at least one row to learn from")
        full = self.with_label(s, y)
        if self.learner is not None and not bool(self.found):
            self._find(full, self.learner)
        self._gaps = bool((full < 0).any())
        if self._gaps:
            return self._expect_and_maximise(full)
        self._divide(family_counts(self._families(), full))
        return float(self._log_prob(full).mean())

    @property
    def converged(self) -> bool:
        """Return whether the estimate is found: by one sweep, or where EM gains less than the tolerance."""
        before, now = self.reached.view(torch.float64).tolist()
        return not self._gaps or now - before < self.tolerance

    @property
    def finding(self) -> str | None:
        """Return a line about the graph that was found from rows; None where it was given."""
        if self.learner is None or not bool(self.found):
            return None
        return f"graph found by {self.learner.way}: {sum(map(len, self.parents))} edges"

    @counted
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
        s = self.states(x)
        if self.label is None:
            return self.known_weight(self.with_label(s)).to(self.unit)
        return self.class_weights(s).logsumexp(1).to(self.unit)

    def predict(self, x: Tensor) -> Tensor:
        """Return log p(label | x) of each class, or given what is known of x, as `LabelledModel` does."""
        return super().predict(x).to(self.unit)

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

    def states(self, x: Tensor) -> Tensor:
        """Return checked rows, -1 where missing: (n, d) -> (n, d)."""
        return self.domain.validated(x).long()

    def known_weight(self, s: Tensor) -> Tensor:
        """Return log p of what is known of rows of all variables, float64: (n, d) -> (n,)."""
        if not bool((s < 0).any()):
            return self._log_prob(s)
        found = log_evidence(self._junction_tree(None), s.cpu().numpy())
        return torch.from_numpy(found).to(self.device)

    def factor_graph(self) -> FactorGraph:
        """Return the tables as factors."""
        pairs = zip(self.parents, self.tables(), strict=True)
        factors = (Factor((*above, v), table, child=v) for v, (above, table) in enumerate(pairs))
        return FactorGraph(self.variables.sizes, tuple(factors))

    def separates(self, a: Iterable[int], b: Iterable[int], given: Iterable[int]) -> bool:
        """Return whether `given` d-separates `a` from `b`."""
        return d_separated(self.parents, a, b, given)

    def _find(self, x: Tensor, learner: GraphLearner) -> None:
        """Find the graph from rows, where values are missing in rounds: a graph, its tables, new draws."""
        x = x[(x >= 0).any(1)]
        whole, rounds = drawn_alone(x, self.variables.sizes), _ROUNDS if bool((x < 0).any()) else 1
        for left in reversed(range(rounds)):
            self.connect(learner(Table(whole.cpu().numpy(), self.variables.sizes)))
            self._divide(family_counts(self._families(), whole))
            if left:
                whole = drawn_given_the_rest(x, whole, self._families(), self._flat().log(), _DRAWS)
        self.found.fill_(True)  # noqa: FBT003

    def _expect_and_maximise(self, x: Tensor) -> float:
        """Take a step of EM; return the mean log-likelihood before it with the log of the prior, in nats."""
        counts, total = expected_counts(self._junction_tree(None), x.cpu().numpy())
        flat = self._flat().cpu().numpy()
        prior = float(xlogy(self.smoothing, flat).sum()) if self.smoothing else 0.0
        self._divide([torch.from_numpy(count).flatten().to(self.device) for count in counts])
        objective = (total + prior) / len(x)
        self.reached.copy_(_bits_of(self.reached.view(torch.float64)[1].item(), objective))
        return objective

    def _divide(self, counts: Sequence[Tensor]) -> None:
        """Set the tables from the counts of each family, one after another."""
        parts = []
        for family, found in zip(self._families(), counts, strict=True):
            size = self.variables.sizes[family.child]
            smooth = found.view(-1, size) + self.smoothing
            rows = smooth.sum(1, keepdim=True)
            parts.append(torch.where(rows > 0, smooth / rows.clamp(min=1e-300), 1 / size).flatten())
        self.bits.copy_(torch.cat(parts).view(torch.int64))

    def _shuffle(self) -> None:
        """Draw all tables, rows uniform on the simplex: equal ones would keep a hidden variable idle."""
        draws = -torch.rand(len(self.bits), dtype=torch.float64).clamp(min=1e-12).log()
        self._divide([draws[f.start : f.start + f.length] for f in self._families()])

    def _flat(self) -> Tensor:
        """Return all tables one after another, float64."""
        return self.bits.view(torch.float64)

    def _log_prob(self, x: Tensor) -> Tensor:
        """Return log p(x) of complete rows in float64: (n, d) -> (n,)."""
        return log_product(self._families(), self._flat().log(), x.to(self.device))

    def _families(self) -> list[Family]:
        """Return each variable with its parents and where its table lies."""
        return families_of(self.parents, self.variables.sizes)


def _bits_of(*numbers: float) -> Tensor:
    """Return the bits of float64 numbers, which no change of the model's type rounds."""
    return torch.tensor(numbers, dtype=torch.float64).view(torch.int64)
