"""Graphs from data, against enumeration of all graphs, exact independences, and the definitions."""

import itertools
import math
import random
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import gammaln
from scipy.stats import chi2_contingency

from leadline.core import DataError, LeadlineError, OptionError
from leadline.inference.graphs import Parents, acyclic, d_separated, essential_graph, topological_order
from leadline.inference.structure import (
    FamilyScore,
    Table,
    chow_liu,
    hill_climbing,
    independence_at,
    mutual_information,
    pc,
    pc_pattern,
    search,
)
from leadline.inference.structure.independence import g_test
from leadline.inference.structure.search import _equivalent
from leadline.models.graphical.bayesian_network import BayesianNetwork
from leadline.models.graphical.graph_learners import Climber, learner_of
from tests.inference.test_graphs import all_dags, random_dag

SIZES = (2, 3, 2, 2)
HEPAR2 = Path(__file__).parents[3] / "shared/data/bayesnets/hepar2.bif.gz"
TRUE: Parents = ((), (0,), (0, 1), (2,))


def drawn(parents: Parents, sizes: tuple[int, ...], n: int, seed: int = 0) -> NDArray[np.int64]:
    """Return ancestral draws of a random network with strong dependences."""
    source = np.random.default_rng(seed)
    x = np.zeros((n, len(sizes)), dtype=np.int64)
    for child in topological_order(parents):
        q = math.prod(sizes[v] for v in parents[child])
        tables = source.dirichlet(np.full(sizes[child], 0.4), size=q).cumsum(1)
        code = np.zeros(n, dtype=np.int64)
        for v in parents[child]:
            code = code * sizes[v] + x[:, v]
        x[:, child] = (source.random(n)[:, None] > tables[code]).sum(1).clip(0, sizes[child] - 1)
    return x


@pytest.fixture(scope="module")
def table() -> Table:
    return Table(drawn(TRUE, SIZES, 3000, seed=4), SIZES)


def test_counts_of_a_family_are_the_rows_with_that_state(table: Table) -> None:
    counts = table.family(1, (0, 3))
    x = table.columns.T
    for a, c, b in itertools.product(range(2), range(2), range(3)):
        assert counts[a * 2 + c, b] == ((x[:, 0] == a) & (x[:, 3] == c) & (x[:, 1] == b)).sum()


def test_counts_kept_to_seen_states_are_the_same_numbers() -> None:
    wide = Table(drawn(TRUE, SIZES, 40, seed=1), SIZES)
    big = Table(
        np.concatenate([wide.columns.T, wide.columns.T], 1), (*SIZES[:3], 1 << 40, *SIZES[:3], 1 << 40)
    )
    few = big.family(0, (1, 2, 3, 7))
    all_states = wide.family(0, (1, 2, 3))
    assert sorted(map(tuple, few[few.sum(1) > 0])) == sorted(map(tuple, all_states[all_states.sum(1) > 0]))


def test_bic_is_the_likelihood_less_its_penalty(table: Table) -> None:
    counts = table.family(2, (0, 1))
    fit = sum(n * math.log(n / row.sum()) for row in counts for n in row if n)
    penalty = 0.5 * math.log(len(table)) * 6 * 1  # 2 x 3 configurations, one free number each
    assert FamilyScore(table, "bic")(2, (1, 0)) == pytest.approx(fit - penalty, rel=1e-12)


def test_bdeu_is_the_log_of_the_marginal_likelihood_under_a_dirichlet_prior(table: Table) -> None:
    counts, weight = table.family(2, (0, 1)), 5.0
    expected = 0.0
    for row in counts:  # chain rule: each row of data predicted from those before it, in closed form
        prior = np.full(2, weight / 12)
        expected += gammaln(prior.sum()) - gammaln(prior.sum() + row.sum())
        expected += (gammaln(prior + row) - gammaln(prior)).sum()
    assert FamilyScore(table, "bdeu", weight)(2, (0, 1)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", ["bic", "bdeu"])
def test_equivalent_graphs_score_alike_and_the_search_finds_the_best_of_all(table: Table, name: str) -> None:
    score = FamilyScore(table, name)
    totals: dict[object, list[float]] = {}
    for parents in all_dags(4):
        totals.setdefault(essential_graph(parents), []).append(score.total(parents))
    for group in totals.values():
        assert max(group) - min(group) < 1e-7
    best = max(totals, key=lambda pattern: totals[pattern][0])
    found = hill_climbing(score, 4, restarts=3)
    assert essential_graph(found) == best == essential_graph(TRUE)


def test_a_climb_ends_where_no_single_change_gains(table: Table) -> None:
    x = drawn(random_dag(7, 3), (2,) * 7, 800, seed=2)
    score = FamilyScore(Table(x, (2,) * 7), "bdeu")
    found = [set(above) for above in hill_climbing(score, 7, max_parents=2)]
    best = score.total(found)
    assert max(map(len, found)) <= 2
    for a, b in itertools.permutations(range(7), 2):
        for turned in (False, True):
            other = [set(above) for above in found]
            other[b] ^= {a}
            if turned and a in found[b]:
                other[a] |= {b}
            if acyclic(other) and max(map(len, other)) <= 2:
                assert score.total(other) <= best + 1e-7


def test_restarts_never_lose() -> None:
    x = drawn(random_dag(9, 5), (2,) * 9, 300, seed=8)
    score = FamilyScore(Table(x, (2,) * 9))
    totals = [score.total(hill_climbing(score, 9, restarts=r, tabu=5)) for r in (0, 3, 6, 12)]
    assert totals == sorted(totals)


def _changed(parents: list[set[int]], most: int) -> list[list[set[int]]]:
    """Return every graph one change of an edge away."""
    found = []
    for a, b in itertools.permutations(range(len(parents)), 2):
        for turned in (False, True):
            if a not in parents[b] and (turned or b in parents[a]):
                continue
            other = [set(above) for above in parents]
            other[b] ^= {a}
            other[a] |= {b} if turned else set()
            if acyclic(other) and max(map(len, other)) <= most:
                found.append(other)
    return found


def _tabu(score: FamilyScore, graph: list[set[int]], length: int, most: int) -> float:
    """Return the best score seen by a search that scores every graph whole."""
    recent, best, idle = [graph], score.total(graph), 0
    while idle < length:
        options = [other for other in _changed(graph, most) if other not in recent[-length:]]
        graph = max(options, key=score.total)
        recent.append(graph)
        idle += 1
        if score.total(graph) > best + 1e-9:
            best, idle = score.total(graph), 0
    return best


def test_a_tabu_list_goes_where_a_search_that_scores_whole_graphs_goes() -> None:
    gains, sizes = [], (2, 3, 2, 2, 3, 2, 2)
    for seed in range(25):
        x = drawn(random_dag(7, seed), sizes, 150, seed=seed)
        score = _Uneven(FamilyScore(Table(x, sizes)))
        top = hill_climbing(score, 7, max_parents=3)
        found = hill_climbing(score, 7, max_parents=3, tabu=12)
        assert acyclic([set(above) for above in found])
        assert max(map(len, found)) <= 3
        assert score.total(found) == pytest.approx(_tabu(score, [set(a) for a in top], 12, 3), abs=1e-7)
        gains.append(score.total(found) - score.total(top))
    assert min(gains) >= 0
    assert max(gains) > 1  # it does lead on from some tops


class _Uneven(FamilyScore):
    """A score with a little more for each family, its own, so that there are no ties to be broken."""

    def __init__(self, score: FamilyScore) -> None:
        super().__init__(score.table)

    def __call__(self, child: int, parents: Iterable[int]) -> float:
        """Return the score of one family."""
        above = sorted(parents)
        return super().__call__(child, above) + 1e-3 * math.sin(1 + 7 * child + sum(3.7**v for v in above))


def test_time_cuts_off_restarts_and_list_but_not_the_first_climb(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count()  # each look at it is a second
    monkeypatch.setattr(time, "monotonic", clock.__next__)
    x = drawn(random_dag(9, 5), (2,) * 9, 300, seed=8)
    score = FamilyScore(Table(x, (2,) * 9))
    plain = hill_climbing(score, 9)
    assert hill_climbing(score, 9, restarts=10**9, tabu=10**9, seconds=1e-9) == plain
    for tabu, looks in ((10**9, 100), (0, 20)):  # time ends the list, and where there is none the restarts
        began = next(clock)
        hill_climbing(score, 9, restarts=10**9, tabu=tabu, seconds=looks)
        assert looks <= next(clock) - began < looks + 5


def test_the_tree_is_the_likeliest_of_all_sixteen(table: Table) -> None:
    score = FamilyScore(table)
    trees = {frozenset(t) for t in itertools.combinations(itertools.combinations(range(4), 2), 3)}
    likelihoods = []
    for tree in trees:
        parents = _hung(tree)
        if parents is not None:
            likelihoods.append(_likelihood(score, parents))
    assert len(likelihoods) == 16  # Cayley: 4^2
    for root in range(4):
        found = chow_liu(table, root)
        assert found[root] == ()
        assert _likelihood(score, found) == pytest.approx(max(likelihoods), rel=1e-12)


def _hung(edges: frozenset[tuple[int, int]]) -> Parents | None:
    """Return the tree hung from variable 0, or None if the edges make no tree."""
    parents: list[tuple[int, ...]] = [()] * 4
    seen, stack = {0}, [0]
    while stack:
        v = stack.pop()
        for a, b in edges:
            other = b if a == v else a
            if v in (a, b) and other not in seen:
                parents[other] = (v,)
                seen.add(other)
                stack.append(other)
    return tuple(parents) if len(seen) == 4 else None


def _likelihood(score: FamilyScore, parents: Parents) -> float:
    total = score.total(parents)
    sizes = score.table.sizes
    free = sum((sizes[c] - 1) * math.prod(sizes[a] for a in above) for c, above in enumerate(parents))
    return total + 0.5 * math.log(len(score.table)) * free


def test_mutual_information_is_symmetric_and_half_the_g_statistic_over_n(table: Table) -> None:
    found = mutual_information(table)
    np.testing.assert_allclose(found, found.T, atol=1e-12)
    for a, b in itertools.combinations(range(4), 2):
        statistic, _ = g_test(table, a, b)
        assert found[a, b] == pytest.approx(statistic / (2 * len(table)), abs=1e-12)


def test_the_g_statistic_is_scipys_and_adds_over_strata(table: Table) -> None:
    counts = table.cube(0, 1, ())[0]
    theirs = chi2_contingency(counts, correction=False, lambda_="log-likelihood")
    statistic, free = g_test(table, 0, 1)
    assert (statistic, free) == (pytest.approx(theirs.statistic), theirs.dof)
    strata = [chi2_contingency(c, correction=False, lambda_="log-likelihood") for c in table.cube(0, 3, (2,))]
    statistic, free = g_test(table, 0, 3, (2,))
    assert statistic == pytest.approx(sum(s.statistic for s in strata))
    assert free == sum(s.dof for s in strata)


def test_pc_with_exact_answers_finds_the_essential_graph() -> None:
    for seed in range(15):
        true = random_dag(7, seed)

        def exact(a: int, b: int, given: object, parents: Parents = true) -> bool:
            return d_separated(parents, [a], [b], given)  # type: ignore[arg-type]

        assert pc_pattern(exact, 7) == essential_graph(true)
        assert essential_graph(pc(exact, 7)) == essential_graph(true)


def test_pc_finds_the_graph_that_made_the_data(table: Table) -> None:
    assert essential_graph(pc(independence_at(table, 0.001), 4)) == essential_graph(TRUE)


def test_independent_columns_stay_apart() -> None:
    x = np.random.default_rng(0).integers(0, 3, (2000, 5))
    table = Table(x, (3,) * 5)
    assert not any(pc(independence_at(table, 1e-3), 5))
    assert not any(hill_climbing(FamilyScore(table), 5))


def test_contradicting_tests_still_give_an_acyclic_graph() -> None:
    source = np.random.default_rng(1)
    for _ in range(20):
        answers = {
            (a, b, g): source.random() < 0.4
            for a, b in itertools.combinations(range(5), 2)
            for k in range(4)
            for g in itertools.combinations([v for v in range(5) if v not in (a, b)], k)
        }
        assert acyclic(pc(lambda a, b, g, known=answers: known[a, b, tuple(sorted(g))], 5))


def test_wrong_input_gets_one_line() -> None:
    x = np.zeros((3, 2), dtype=np.int64)
    calls = [
        lambda: Table(x[:0], (2, 2)),
        lambda: Table(x - 1, (2, 2)),
        lambda: Table(x + 2, (2, 2)),
        lambda: Table(x, (2,)),
        lambda: FamilyScore(Table(x, (2, 2)), "aic"),
        lambda: FamilyScore(Table(x, (2, 2)), "bdeu", 0.0),
        lambda: independence_at(Table(x, (2, 2)), 1.0),
        lambda: chow_liu(Table(x, (2, 2)), 2),
        lambda: hill_climbing(FamilyScore(Table(x, (2, 2))), 2, tabu=-1),
        lambda: hill_climbing(FamilyScore(Table(x, (2, 2))), 2, seconds=0.0),
        lambda: learner_of("bic", 2, 0.01, tabu=-1),
        lambda: learner_of("bic", 2, 0.01, restarts=-1),
        lambda: hill_climbing(FamilyScore(Table(x, (2, 2))), 2, max_parents=0),
    ]
    for call in calls:
        with pytest.raises(LeadlineError) as caught:
            call()
        assert isinstance(caught.value, (DataError, OptionError))
        assert "\n" not in str(caught.value)


def test_constant_columns_and_one_row_are_no_trouble() -> None:
    table = Table(np.zeros((1, 3), dtype=np.int64), (2, 1, 3))
    assert not any(hill_climbing(FamilyScore(table, "bdeu"), 3))
    assert pc(independence_at(table), 3) == ((), (), ())
    assert sum(map(len, chow_liu(table))) == 2


def test_turning_covered_edges_stays_in_the_class_and_reaches_all_of_it() -> None:
    start = random_dag(5, 2)
    source = random.Random(0)
    reached = {start}
    for _ in range(300):
        found = tuple(tuple(sorted(above)) for above in _equivalent([set(a) for a in start], source))
        assert essential_graph(found) == essential_graph(start)
        reached.add(found)
    members = [p for p in all_dags(4) if essential_graph(p) == essential_graph(((), (0,), (1,), (2,)))]
    assert len(members) == 4  # a chain of four has four roots
    chain = {tuple(map(tuple, _equivalent([set(), {0}, {1}, {2}], source))) for _ in range(200)}
    assert len(chain) == 4


@pytest.mark.parametrize(("name", "weight"), [("bic", 1.0), ("bdeu", 1.0), ("bdeu", 10.0), ("bdeu", 0.3)])
def test_scores_of_a_public_network_are_pgmpys(name: str, weight: float) -> None:
    structure_score = pytest.importorskip("pgmpy.structure_score", reason="needs the extra bench")
    pandas = pytest.importorskip("pandas")
    if not HEPAR2.is_file():
        pytest.skip("needs ../shared/data")
    model = BayesianNetwork.read(HEPAR2)
    sizes, x = model.variables.sizes, model.sample(3000, torch.Generator().manual_seed(0)).numpy()
    states = {v: list(range(k)) for v, k in enumerate(sizes)}
    frame = pandas.DataFrame(x)
    if name == "bic":
        peer = structure_score.BIC(frame, state_names=states)
    else:
        peer = structure_score.BDeu(frame, equivalent_sample_size=weight, state_names=states)
    score = FamilyScore(Table(x, sizes), name, weight)
    assert all(len(np.unique(x[:, v])) == k for v, k in enumerate(sizes))  # the peer drops unseen states
    for v, above in enumerate(model.parents):  # of 72 configurations of parents some are unseen
        assert score(v, above) == pytest.approx(peer.local_score(v, above), abs=1e-9)


def test_more_equivalent_samples_find_more_edges() -> None:
    if not HEPAR2.is_file():
        pytest.skip("needs ../shared/data")
    model = BayesianNetwork.read(HEPAR2)
    sizes, x = model.variables.sizes, model.sample(1000, torch.Generator().manual_seed(0)).numpy()
    weights = (0.1, 1.0, 10.0)
    found = [hill_climbing(FamilyScore(Table(x, sizes), "bdeu", w), len(sizes)) for w in weights]
    edges = [sum(map(len, parents)) for parents in found]
    assert edges[0] < edges[1] < edges[2] - 40
    by_default = hill_climbing(FamilyScore(Table(x, sizes), "bdeu"), len(sizes))
    assert by_default == found[1]
    few = Climber("bdeu", restarts=0, equivalent_samples=1.0)(Table(x, sizes))
    many = Climber("bdeu", restarts=0, equivalent_samples=10.0)(Table(x, sizes))
    assert sum(map(len, few)) < sum(map(len, many)) - 40
    assert Climber("bdeu").equivalent_samples == 1.0


def test_restarts_lead_on_from_tops_among_single_changes() -> None:
    gains, sizes = [], (2, 3, 2, 3, 2, 3, 2, 3, 2)
    for seed in range(8):
        score = _Uneven(FamilyScore(Table(drawn(random_dag(9, seed), sizes, 150, seed=seed), sizes)))
        top = score.total(hill_climbing(score, 9))
        found = hill_climbing(score, 9, restarts=9)
        assert acyclic([set(above) for above in found])
        assert hill_climbing(score, 9, start=found) == found  # no single change of it gains
        gains.append(score.total(found) - top)
    assert min(gains) >= 0
    assert sum(gain > 1 for gain in gains) >= 3


def test_a_restart_walks_through_the_class_of_the_best_and_shakes_a_quarter_or_a_half_of_d(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes = (2, 3, 2, 3, 2, 3, 2, 3, 2)
    score = _Uneven(FamilyScore(Table(drawn(random_dag(9, 1), sizes, 150, seed=1), sizes)))
    shaken, led = [], []
    shake, wander = search._Climb.shake, search._Climb.wandered

    def shaking(self: search._Climb, times: int, source: random.Random) -> None:
        before = [set(above) for above in self.parents]
        shake(self, times, source)
        shaken.append((times, before, [set(above) for above in self.parents]))

    def wandering(self: search._Climb, most: int, end: float) -> search._Climb:
        better = wander(self, most, end)
        led.append((len(shaken), most, better.parents, better.total()))
        return better

    monkeypatch.setattr(search._Climb, "shake", shaking)
    monkeypatch.setattr(search._Climb, "wandered", wandering)
    found = hill_climbing(score, 9, restarts=9, tabu=4)
    assert [times for times, _, _ in shaken] == [0, 2, 4] * 3
    moved = 0
    for number, (times, before, after) in enumerate(shaken):
        best = [parents for count, _, parents, _ in led if count <= number][-1]
        assert essential_graph(before) == essential_graph(best)
        moved += before != best
        assert (before != after) == (times > 0)
    assert moved > 0
    assert [most for _, most, _, _ in led] == [4] * len(led)
    totals = [total for *_, total in led]
    assert len(totals) > 1
    assert totals == sorted(totals)
    assert score.total(found) == totals[-1]
