r"""The PC algorithm: a graph from tests of conditional independence.

    G2 = 2 sum_z sum_ab n_abz log( n_abz n_z / (n_az n_bz) )  ~  chi-square under independence

Pairs start joined, and are parted once a set of their neighbours makes them independent; colliders are
directed by what parted their ends, the rest by Meek's rules.

Symbols:
    n counts, a and b two variables, z a configuration of the given ones.

Source:
    Spirtes, Glymour and Scheines (2000), Causation, Prediction, and Search, section 5.4.2.
    Order-independent skeleton: Colombo and Maathuis (2014), Order-independent constraint-based causal
    structure learning, JMLR 15, algorithm 4.1.

Departs from the source:
    Degrees of freedom count only states that occur in a stratum; where two colliders disagree about an
    edge, the first in the order of variables keeps it.
"""

import itertools
from collections.abc import Callable, Sequence

from scipy.special import chdtrc, xlogy

from leadline.core.errors import OptionError
from leadline.inference.graphs import Parents, Pattern, acyclic, extension, oriented
from leadline.inference.structure.counting import Table

__all__ = ["g_test", "independence_at", "pc", "pc_pattern"]

Independent = Callable[[int, int, Sequence[int]], bool]


def g_test(table: Table, a: int, b: int, given: Sequence[int] = ()) -> tuple[float, int]:
    """Return the statistic G2 and its degrees of freedom for the independence of two variables."""
    cube = table.cube(a, b, given)
    rows, columns, whole = cube.sum(2), cube.sum(1), cube.sum((1, 2))
    nats = xlogy(cube, cube).sum() - xlogy(rows, rows).sum() - xlogy(columns, columns).sum()
    nats += xlogy(whole, whole).sum()
    free = ((rows > 0).sum(1) - 1).clip(0) * ((columns > 0).sum(1) - 1).clip(0)
    return max(2.0 * float(nats), 0.0), int(free.sum())


def independence_at(table: Table, alpha: float = 0.01) -> Independent:
    """Return the test that two variables are independent unless G2 is significant at level `alpha`.

    Raises:
        OptionError: If `alpha` is not in (0, 1).
    """
    if not 0 < alpha < 1:
        raise OptionError(f"alpha must be in (0, 1), got {alpha}")

    def independent(a: int, b: int, given: Sequence[int]) -> bool:
        statistic, free = g_test(table, a, b, given)
        return free == 0 or float(chdtrc(free, statistic)) > alpha

    return independent


def pc_pattern(independent: Independent, size: int, most_given: int | None = None) -> Pattern:
    """Return the pattern of a graph whose independences are those that a test reports.

    Args:
        independent: (a, b, given) -> whether a and b are independent given those.
        size: Number of variables.
        most_given: Most variables to condition on; all that are needed by default.
    """
    beside = [set(range(size)) - {v} for v in range(size)]
    parted: dict[tuple[int, int], set[int]] = {}
    for count in range(size - 1 if most_given is None else most_given + 1):
        before = [sorted(near) for near in beside]
        if all(len(near) <= count for near in before):
            break
        for a, b in itertools.combinations(range(size), 2):
            found = _parting(independent, a, b, before, count) if b in before[a] else None
            if found is not None:
                beside[a].discard(b)
                beside[b].discard(a)
                parted[a, b] = set(found)
    arrows: set[tuple[int, int]] = set()
    for a, b in sorted(parted):
        for c in sorted(beside[a] & beside[b] - parted[a, b]):
            if (c, a) not in arrows and (c, b) not in arrows:
                arrows |= {(a, c), (b, c)}
    edges = {(a, b) for a in range(size) for b in beside[a] if a < b}
    return oriented(size, edges, arrows)


def pc(independent: Independent, size: int, most_given: int | None = None) -> Parents:
    """Return the parents in a directed acyclic graph of the pattern that `pc_pattern` finds.

    Where tests contradict each other and no graph has that pattern, its arrows are kept as far as they
    make no cycle, and its lines point from lower to higher variables as far as they make none.
    """
    pattern = pc_pattern(independent, size, most_given)
    return extension(pattern) or _forced(pattern)


def _parting(
    independent: Independent, a: int, b: int, beside: Sequence[Sequence[int]], count: int
) -> tuple[int, ...] | None:
    """Return `count` neighbours of a, or of b, that make the two independent; None if there are none."""
    tried: set[tuple[int, ...]] = set()
    for end, other in ((a, b), (b, a)):
        near = [v for v in beside[end] if v != other]
        for given in itertools.combinations(near, count):
            if given not in tried and independent(a, b, given):
                return given
            tried.add(given)
    return None


def _forced(pattern: Pattern) -> Parents:
    parents: list[set[int]] = [set() for _ in range(pattern.size)]
    for a, b in [*sorted(pattern.arrows), *sorted(pattern.lines)]:
        for tail, head in ((a, b), (b, a)):
            parents[head].add(tail)
            if acyclic(parents):
                break
            parents[head].discard(tail)
    return tuple(tuple(sorted(above)) for above in parents)
