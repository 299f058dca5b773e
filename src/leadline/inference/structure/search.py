r"""Hill climbing over directed acyclic graphs: add, take out or turn the edge that gains most.

Two ways lead on from a top among single changes. A search with a tabu list goes on by the best change that
leads to none of the graphs it saw last, though it loses, and gives up after so many changes without a better
graph. A restart first walks through the class of the best graph by turning covered edges (a -> b where b's
other parents are those of a), which changes no score that is equal for equivalent graphs; two restarts of
three then take random changes, a quarter or a half of d.

Symbols:
    d variables, a -> b an edge, gain (d, d) of adding (or taking out) it.

Source:
    Heckerman, Geiger and Chickering (1995), Learning Bayesian networks, Machine Learning 20, section 7.
    Covered edges: Chickering (1995), A transformational characterization of equivalent Bayesian network
    structures, UAI, theorem 2; as a move of the search: Castelo and Kocka (2003), On inclusion-driven
    learning of Bayesian networks, JMLR 4, section 4. Tabu lists: Glover (1986), Future paths for integer
    programming and links to artificial intelligence, Computers and Operations Research 13; of graphs, as
    here, in `tabu` of bnlearn.
"""

import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from leadline.core.errors import OptionError
from leadline.inference.graphs import Parents, topological_order

__all__ = ["hill_climbing"]

Score = Callable[[int, Iterable[int]], float]
_LEAST = 1e-9  # a gain below rounding is none


def hill_climbing(
    score: Score,
    size: int,
    *,
    start: Sequence[Iterable[int]] | None = None,
    max_parents: int = 4,
    restarts: int = 0,
    tabu: int = 0,
    seconds: float | None = None,
    seed: int = 0,
) -> Parents:
    """Return parents of each variable in a graph that no single change of an edge improves.

    More restarts never end lower; time cuts off them and the list, but not the first climb.

    Args:
        score: (child, parents) -> score of the family, higher is better; see `scores.FamilyScore`.
        size: Number d of variables.
        start: Parents to start from; no edges by default.
        max_parents: Most parents of a variable, at least 1.
        restarts: How often the best graph is climbed from again after a random walk through its class and
            random changes.
        tabu: How many of the last graphs are not gone back to after a climb, and how many changes in a row
            may bring no better graph; 0 is to stop at the top.
        seconds: Time after which no restart is begun and no list followed further; None is no end.
        seed: Seed of walks and changes.

    Raises:
        OptionError: If `max_parents`, `restarts`, `tabu` or `seconds` is out of range.
        DataError: If `start` has a cycle.
    """
    if max_parents < 1 or restarts < 0:
        raise OptionError(
            f"max_parents must be at least 1 and restarts at least 0, got {max_parents} and {restarts}"
        )
    if tabu < 0 or not (seconds is None or seconds > 0):
        raise OptionError(f"tabu must be at least 0 and seconds above 0, got {tabu} and {seconds}")
    end = float("inf") if seconds is None else time.monotonic() + seconds
    source = random.Random(seed)
    best = _Climb(score, [set(above) for above in start or [()] * size], max_parents).climbed()
    best = best.wandered(tabu, end)
    for number in range(restarts):
        if time.monotonic() > end:
            break
        again = _Climb(score, _equivalent(best.parents, source), max_parents)
        again.shake(size * (number % 3) // 4, source)
        again.climbed()
        if again.total() > best.total() + _LEAST:
            best = again.wandered(tabu, end)
    return tuple(tuple(sorted(above)) for above in best.parents)


def _equivalent(parents: Sequence[set[int]], source: random.Random) -> list[set[int]]:
    """Return an equivalent graph some random turns of covered edges away."""
    found = [set(above) for above in parents]
    for _ in range(source.randrange(3 * len(found) + 1)):
        covered = [(a, b) for b, above in enumerate(found) for a in sorted(above) if above - {a} == found[a]]
        if not covered:
            break
        a, b = source.choice(covered)
        found[b].discard(a)
        found[a].add(b)
    return found


class _Climb:
    """A graph on its way up: its parents, what reaches what, and what each change would gain."""

    def __init__(self, score: Score, parents: list[set[int]], max_parents: int) -> None:
        self.score, self.parents, self.max_parents = score, parents, max_parents
        d = len(parents)
        self.gain = np.zeros((d, d))  # of adding a -> b, or of taking it out where it is there
        self.edge = np.zeros((d, d), dtype=bool)
        for child, above in enumerate(parents):
            self.edge[sorted(above), child] = True
        self._reach()
        for child in range(d):
            self._weigh(child)

    def total(self) -> float:
        """Return the score of the whole graph."""
        return sum(self.score(child, above) for child, above in enumerate(self.parents))

    def climbed(self) -> "_Climb":
        """Take the best change until none gains, and return the climb itself."""
        while True:
            gain, *change = self._best(self._changes())
            if gain <= _LEAST:
                return self
            self._change(*change)

    def wandered(self, most: int, end: float) -> "_Climb":
        """Go on by the best change to none of the last `most` graphs, and return the best graph found.

        It ends after `most` changes in a row that bring no better graph, or at the time `end`.
        """
        signs = np.random.default_rng(0).integers(1 << 62, size=self.edge.shape)  # a graph: xor of its edges
        here = int(np.bitwise_xor.reduce(signs[self.edge], initial=0))
        recent = deque([here], maxlen=max(most, 1))
        top = above = 0.0  # gains over the first graph
        best, idle = [set(parents) for parents in self.parents], 0
        while idle < most and time.monotonic() < end:
            places = (here ^ signs, here ^ signs, here ^ signs ^ signs.T)  # add, take out, turn
            changes = [
                (mask & ~np.isin(place, list(recent)), gain)
                for (mask, gain), place in zip(self._changes(), places, strict=True)
            ]
            gain, kind, a, b = self._best(changes)
            if gain == -np.inf:
                break
            here = int(places[kind][a, b])
            recent.append(here)
            self._change(kind, a, b)
            above, idle = above + gain, idle + 1
            if above > top + _LEAST:
                top, best, idle = above, [set(parents) for parents in self.parents], 0
        return self if best == self.parents else _Climb(self.score, best, self.max_parents)

    def _best(self, changes: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[float, int, int, int]:
        """Return the largest gain among allowed changes, minus infinity without any, and the change."""
        options = [np.where(mask, gain, -np.inf) for mask, gain in changes]
        kind = int(np.argmax([option.max() for option in options]))
        a, b = np.unravel_index(options[kind].argmax(), options[kind].shape)
        return float(options[kind][a, b]), kind, int(a), int(b)

    def shake(self, times: int, source: random.Random) -> None:
        """Take random changes that leave the graph acyclic."""
        for _ in range(times):
            allowed = [
                (kind, *edge) for kind, (mask, _) in enumerate(self._changes()) for edge in np.argwhere(mask)
            ]
            if allowed:
                kind, a, b = source.choice(allowed)
                self._change(kind, int(a), int(b))

    def _changes(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return which edges may be added, taken out, turned, each with the gains (d, d)."""
        room = np.array([len(above) < self.max_parents for above in self.parents])
        apart = ~self.edge & ~self.edge.T & ~np.eye(len(room), dtype=bool)
        add = apart & ~self.reach.T & room[None, :]
        # a -> b may turn if no other way leads from a to b, and a has room for a parent
        detour = (self.edge.astype(np.float32) @ self.reach.astype(np.float32)) > 0
        turn = self.edge & ~detour & room[:, None]
        return [(add, self.gain), (self.edge, self.gain), (turn, self.gain + self.gain.T)]

    def _change(self, kind: int, a: int, b: int) -> None:
        if kind == 0:
            self._set(a, b, there=True)
        else:
            self._set(a, b, there=False)
            if kind == 2:
                self._set(b, a, there=True)
        self._reach()
        for child in {b} if kind < 2 else {a, b}:
            self._weigh(child)

    def _set(self, a: int, b: int, *, there: bool) -> None:
        (self.parents[b].add if there else self.parents[b].discard)(a)
        self.edge[a, b] = there

    def _weigh(self, child: int) -> None:
        """Find what each edge into `child` would gain, or lose."""
        above, now = self.parents[child], self.score(child, self.parents[child])
        full = len(above) >= self.max_parents
        for a in range(len(self.parents)):
            if a != child and (a in above or not full):
                self.gain[a, child] = self.score(child, above ^ {a}) - now

    def _reach(self) -> None:
        """Find which variables each one leads to by at least one edge."""
        self.reach = np.zeros_like(self.edge)
        for v in reversed(topological_order(self.parents)):
            below = np.flatnonzero(self.edge[v])
            self.reach[v] = self.edge[v] | self.reach[below].any(0)
