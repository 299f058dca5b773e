"""Ways to find the graph of a Bayesian network from rows: objects that a network is given.

Each is called with the complete rows and returns the parents of each variable.

Source:
    See `inference.structure`: Chow and Liu (1968); Heckerman, Geiger and Chickering (1995); Spirtes, Glymour
    and Scheines (2000), Colombo and Maathuis (2014).
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from leadline.core.errors import OptionError, unknown_name
from leadline.inference.graphs import Parents
from leadline.inference.structure import (
    FamilyScore,
    Table,
    chow_liu,
    hill_climbing,
    independence_at,
    pc,
)

__all__ = ["STRUCTURES", "Climber", "GraphLearner", "Tester", "Tree", "chosen", "learner_of"]

_ALPHA = 0.01
STRUCTURES = ("auto", "given", "tree", "bic", "bdeu", "pc")
_MOST = 100  # variables that "auto" climbs for; beyond, pairs alone are looked at


class GraphLearner(Protocol):
    """Rows of categories -> the parents of each variable."""

    @property
    def way(self) -> str:
        """Return the name of the way."""
        ...

    def __call__(self, table: Table) -> Parents:
        """Return the parents of each variable."""
        ...


@dataclass(frozen=True)
class Tree:
    """The likeliest tree."""

    way = "the likeliest tree"

    def __call__(self, table: Table) -> Parents:
        """Return the tree of Chow and Liu, hung from the first variable."""
        return chow_liu(table)


@dataclass(frozen=True)
class Climber:
    """A climb by single edges to a graph of high score, from no edges and from the graph that tests leave.

    Tests of many variables that all depend on each other take too long; then there is the first start alone.
    Both starts are worth their time: on draws of alarm the second ends 300 nats higher under BIC, on some of
    insurance the first 100.

    How many edges "bdeu" finds depends on its equivalent samples: of 3,000 rows of hepar2 (123 edges) a climb
    makes 9 edges too many with one of them, 52 with ten; "bic" 4. The score is as it is defined; it is the
    prior that asks for them (Silander, Kontkanen and Myllymäki, 2007).

    Args:
        score: "bic" or "bdeu".
        max_parents: Most parents of a variable.
        restarts: How often the best graph is shaken and climbed from again.
        equivalent_samples: Weight of the prior of "bdeu", in rows, positive.
        tabu: How many of the last graphs are avoided while the search goes on from a top.
        seconds: Time of the search, a third of it at most for the tests; only the first climb from a start
            may take longer.
    """

    score: str = "bic"
    max_parents: int = 4
    restarts: int = 30
    equivalent_samples: float = 1.0
    tabu: int = 100
    seconds: float = 60.0

    @property
    def way(self) -> str:
        """Return the name of the way."""
        return f"hill climbing by {'BIC' if self.score == 'bic' else 'BDeu'}"

    def __call__(self, table: Table) -> Parents:
        """Return the best graph that was found."""
        score, size = FamilyScore(table, self.score, self.equivalent_samples), len(table.sizes)
        end = time.monotonic() + self.seconds
        starts = [None, *self._tested(table)]
        tops = []
        for left in range(len(starts), 0, -1):
            top = hill_climbing(
                score,
                size,
                start=starts[-left],
                max_parents=self.max_parents,
                restarts=self.restarts,
                tabu=self.tabu,
                seconds=max((end - time.monotonic()) / left, 1e-3),
            )
            tops.append(top)
        return max(tops, key=score.total)

    def _tested(self, table: Table) -> list[Parents]:
        """Return the graph that tests of independence leave, or none where they would take too long."""
        end, independent = time.monotonic() + self.seconds / 3, independence_at(table, _ALPHA)

        def in_time(a: int, b: int, given: Sequence[int]) -> bool:
            if time.monotonic() > end:
                raise TimeoutError
            return independent(a, b, given)

        try:
            parents = pc(in_time, len(table.sizes), 2)
        except TimeoutError:
            return []
        return [tuple(above[: self.max_parents] for above in parents)]


@dataclass(frozen=True)
class Tester:
    """The PC algorithm with the G test.

    Args:
        alpha: Level of each test, in (0, 1).
        most_given: Most variables that a test conditions on.
    """

    alpha: float = 0.01
    most_given: int = 4
    way = "the PC algorithm"

    def __call__(self, table: Table) -> Parents:
        """Return a graph of the pattern that the tests leave."""
        return pc(independence_at(table, self.alpha), len(table.sizes), self.most_given)


def chosen(structure: str, size: int, *, stated: bool) -> str:
    """Return which way "auto" is: "given" where the graph is stated, else "bic", or "tree" of many variables.

    Raises:
        OptionError: If the word is unknown.
    """
    if structure not in STRUCTURES:
        raise unknown_name("structure", structure, STRUCTURES)
    if structure != "auto":
        return structure
    return "given" if stated else "bic" if size <= _MOST else "tree"


def learner_of(
    structure: str,
    max_parents: int,
    alpha: float,
    equivalent_samples: float = 1.0,
    restarts: int = 30,
    tabu: int = 100,
) -> GraphLearner | None:
    """Return the way to find a graph that a word stands for; None for a given one.

    Raises:
        OptionError: If a number is out of range.
    """
    if max_parents < 1:
        raise OptionError(f"max_parents must be at least 1, got {max_parents}")
    if not 0 < alpha < 1:
        raise OptionError(f"alpha must be in (0, 1), got {alpha}")
    if not equivalent_samples > 0:
        raise OptionError(f"equivalent_samples must be positive, got {equivalent_samples}")
    if min(restarts, tabu) < 0:
        raise OptionError(f"restarts and tabu must be at least 0, got {restarts} and {tabu}")
    if structure == "given":
        return None
    if structure == "tree":
        return Tree()
    if structure == "pc":
        return Tester(alpha, max_parents)
    return Climber(structure, max_parents, restarts, equivalent_samples, tabu)
