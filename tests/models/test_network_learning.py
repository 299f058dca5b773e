"""Networks learned from rows: with gaps, with hidden variables, with the graph unknown."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import leadline as ll
from leadline.core import Categories, DataError, LeadlineError
from leadline.data import Dataset, Split
from leadline.inference import expectation
from leadline.inference.expectation import expected_counts, log_evidence
from leadline.inference.graphs import essential_graph
from leadline.inference.junction_tree import JunctionTree
from leadline.inference.structure import FamilyScore, Table, hill_climbing
from leadline.models.graphical.bayesian_network import BayesianNetwork
from leadline.models.graphical.completing import drawn_alone, drawn_given_the_rest
from leadline.models.graphical.graph_learners import Climber, Tree
from leadline.models.graphical.markov_random_field import MarkovRandomField

SHARED = Path(__file__).parents[3] / "shared/data/bayesnets"
DOMAIN = Categories((2, 3, 2, 2), ("a", "b", "c", "d"), missing=True)
PARENTS = ((), (0,), (0, 1), (2,))


def planted(seed: int = 7) -> BayesianNetwork:
    model, rng = BayesianNetwork(DOMAIN, PARENTS), np.random.default_rng(seed)
    model.set_tables([rng.dirichlet(np.full(t.shape[-1], 0.5), t.shape[:-1]) for t in model.tables()])
    return model.double()


def gappy(model: BayesianNetwork, n: int, share: float = 0.3) -> Tensor:
    source = torch.Generator().manual_seed(5)
    x = model.sample(n, source)
    return torch.where(torch.rand(x.shape, generator=source) < share, -1, x)


def completions(row: list[int]) -> Tensor:
    options = [range(k) if s < 0 else [s] for s, k in zip(row, DOMAIN.sizes, strict=True)]
    return torch.tensor(list(itertools.product(*options)))


def data_of(x: Tensor, domain: Categories = DOMAIN) -> Dataset:
    third = len(x) // 6
    return Dataset("rows", domain, None, Split(x[2 * third :]), Split(x[:third]), Split(x[third : 2 * third]))


def test_what_is_known_of_a_row_has_the_weight_of_all_its_completions() -> None:
    model = planted()
    x = gappy(model, 40, 0.5)
    by_hand = [float(model.log_prob(completions(row)).logsumexp(0)) for row in x.tolist()]
    np.testing.assert_allclose(model.log_prob(x).numpy(), by_hand, rtol=1e-10)
    tree = JunctionTree(model.factor_graph())
    np.testing.assert_allclose(log_evidence(tree, x.numpy()), by_hand, rtol=1e-10)


def test_expected_counts_weigh_each_completion_by_its_posterior() -> None:
    model = planted()
    x = gappy(model, 30, 0.5)
    counts, total = expected_counts(JunctionTree(model.factor_graph()), x.numpy())
    by_hand = [np.zeros(count.shape) for count in counts]
    for row in x.tolist():
        full = completions(row)
        for state, p in zip(full.tolist(), model.log_prob(full).softmax(0).tolist(), strict=True):
            for v, above in enumerate(PARENTS):
                by_hand[v][tuple(state[u] for u in (*above, v))] += p
    for mine, right in zip(counts, by_hand, strict=True):
        np.testing.assert_allclose(mine, right, atol=1e-10)
    assert total == pytest.approx(float(model.log_prob(x).sum()), rel=1e-10)


@pytest.mark.parametrize("smoothing", [0.0, 1.0])
def test_em_never_lowers_its_objective_and_ends_where_its_gradient_is_zero(smoothing: float) -> None:
    x = gappy(planted(), 300)
    model = BayesianNetwork(DOMAIN, PARENTS, smoothing).double()
    values = [model.sweep(x) for _ in range(60)]
    assert all(b >= a - 1e-10 for a, b in itertools.pairwise(values))
    for _ in range(200):
        model.sweep(x)
    assert model.converged
    after = [table.copy() for table in model.tables()]
    model.sweep(x)
    for a, b in zip(after, model.tables(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.parametrize(("most", "block"), [(0, 1 << 20), (2, 1 << 20), (4096, 7)])
def test_rows_in_parts_are_counted_as_completions_are(
    most: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tree for all parts, for those of two variables, and sums of few rows at a time."""
    model = planted(3)
    x = np.concatenate([gappy(model, 60, 0.4).numpy(), np.full((1, 4), -1)])
    tree = JunctionTree(model.factor_graph())
    counts, total = expected_counts(tree, x)
    logs = log_evidence(tree, x)
    assert sum(float(c.sum()) for c in counts) == pytest.approx(4 * len(x), rel=1e-12)
    monkeypatch.setattr(expectation, "_MOST", most)
    monkeypatch.setattr(expectation, "_BLOCK", block)
    others, again = expected_counts(tree, x)
    assert again == pytest.approx(total, rel=1e-12)
    np.testing.assert_allclose(log_evidence(tree, x), logs, rtol=1e-12, atol=1e-12)
    for mine, right in zip(counts, others, strict=True):
        np.testing.assert_allclose(mine, right, atol=1e-10)


def test_em_goes_on_while_a_hidden_cause_is_worth_more(tmp_path: Path) -> None:
    """Its first steps gain less than 2e-4 nats a row, and yet most of what there is to gain is to come."""
    source = torch.Generator().manual_seed(2)
    cause = torch.rand(2000, generator=source) < 0.4
    p = torch.where(cause[:, None], 0.65, 0.35).expand(-1, 3)
    data = data_of((torch.rand(2000, 3, generator=source) < p).long(), Categories((2,) * 3, tuple("uvw")))
    edges = tuple(f"cause -> {c}" for c in "uvw")

    def learned(out: Path, **more: float) -> tuple[BayesianNetwork, list[float]]:
        torch.manual_seed(3)
        model = ll.build("bayesian_network", data, hidden=("cause=2",), edges=edges)
        run = ll.fit(model, data, out=out, progress=False, **more)
        return run.model, [float(r["objective"]) for r in run.metrics]

    model, values = learned(tmp_path / "whole")
    slow = [b - a for a, b in itertools.pairwise(values)]
    assert min(slow[:-1]) >= 1e-5 > slow[-1]
    best = values[-1]
    for _ in range(300):
        best = model.sweep(data.train.x)
    assert best - values[-1] < 1e-3
    part = tmp_path / "part"
    learned(part, epochs=4)
    resumed, rest = learned(part, resume=True)
    assert rest == values
    assert resumed.reached.tolist() == learned(tmp_path / "again")[0].reached.tolist()


def test_em_on_whole_rows_is_the_ratio_of_counts() -> None:
    x = planted().sample(200, torch.Generator().manual_seed(1))
    plain, em = BayesianNetwork(DOMAIN, PARENTS), BayesianNetwork(DOMAIN, PARENTS)
    plain.sweep(x)
    em._expect_and_maximise(x)
    for a, b in zip(plain.tables(), em.tables(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)
    assert plain.converged is True


def test_gaps_at_random_bias_em_less_than_leaving_rows_out() -> None:
    true = planted(8)
    x = gappy(true, 4000, 0.4)
    em = BayesianNetwork(DOMAIN, PARENTS, 0.1)
    for _ in range(30):
        em.sweep(x)
    whole = BayesianNetwork(DOMAIN, PARENTS, 0.1)
    whole.sweep(x[(x >= 0).all(1)])
    fresh = true.sample(4000, torch.Generator().manual_seed(9))
    assert float(em.double().log_prob(fresh).mean()) > float(whole.double().log_prob(fresh).mean())


def test_a_hidden_cause_is_a_mixture_and_is_found_again() -> None:
    torch.manual_seed(0)
    sizes, generator = (2,) * 6, torch.Generator().manual_seed(2)
    cause = torch.rand(3000, generator=generator) < 0.4
    p = torch.where(cause[:, None], 0.9, 0.15).expand(-1, 6)
    x = (torch.rand(3000, 6, generator=generator) < p).long()
    data = data_of(x, Categories(sizes, tuple("uvwxyz")))
    model = ll.build(
        "bayesian_network", data, hidden=("cause=2",), edges=tuple(f"cause -> {c}" for c in "uvwxyz")
    )
    values = [model.sweep(x) for _ in range(80)]
    assert all(b >= a - 1e-9 for a, b in itertools.pairwise(values))
    model.double()
    states = Categories(sizes).states()
    assert float(model.log_prob(states).exp().sum()) == pytest.approx(1, abs=1e-9)
    tables = model.tables()
    share, means = tables[6], tables[0][:, 1]
    by_hand = torch.tensor(share).log() + sum(
        torch.tensor(tables[v][:, :]).log()[:, states[:, v]].T for v in range(6)
    )
    torch.testing.assert_close(model.log_prob(states), by_hand.logsumexp(1))
    high = int(means.argmax())
    assert share[high] == pytest.approx(0.4, abs=0.06)
    assert means[high] == pytest.approx(0.9, abs=0.06)
    assert means[1 - high] == pytest.approx(0.15, abs=0.06)
    answer = model.marginals(dict.fromkeys("uvwxyz", 1), ["cause"])
    assert answer["cause"][str(high)] > 0.99
    assert model.sample(5, torch.Generator().manual_seed(0)).shape == (5, 6)
    assert model.sample(5, torch.Generator().manual_seed(0), evidence={"cause": high}).shape == (5, 6)


def test_a_run_learned_with_gaps_opens_to_equal_answers(tmp_path: Path) -> None:
    data = data_of(gappy(planted(), 240))
    model = ll.build("bayesian_network", data, structure="bdeu")
    run = ll.fit(model, data, epochs=15, out=tmp_path / "run", progress=False)
    opened = ll.open(tmp_path / "run").model
    assert opened.parents == run.model.parents
    x = data.test.x
    assert torch.equal(opened.log_prob(x), run.model.log_prob(x))
    assert opened.marginals({"a": 1}).states == run.model.marginals({"a": 1}).states


@pytest.mark.parametrize("structure", ["auto", "bic", "bdeu", "pc"])
def test_the_graph_that_made_the_rows_is_found(structure: str) -> None:
    x = planted().sample(6000, torch.Generator().manual_seed(4))
    data = data_of(x, Categories(DOMAIN.sizes, DOMAIN.columns))
    model = ll.build("bayesian_network", data, structure=structure, alpha=0.001)
    model.sweep(data.train.x)
    assert essential_graph(model.parents) == essential_graph(PARENTS)
    assert model.converged is True
    before = model.parents
    model.sweep(data.train.x[:50])  # the graph is found once
    assert model.parents == before


def test_a_graph_is_looked_for_only_where_none_is_stated() -> None:
    data = data_of(planted().sample(60, torch.Generator().manual_seed(4)))
    found = ll.build("bayesian_network", data)
    assert isinstance(found.learner, Climber)
    run = ll.fit(found, data, out=False, progress=False)
    edges = sum(map(len, run.model.parents))
    assert run.notes == [f"graph found by hill climbing by BIC: {edges} edges"]
    assert ll.build("bayesian_network", data, edges=("a -> b",)).learner is None
    assert ll.build("bayesian_network", data, hidden=("h=2",)).learner is None
    assert ll.build("bayesian_network", data, structure="given").parents == ((),) * 4
    wide = Categories((2,) * 101)
    many = data_of(torch.zeros((60, 101), dtype=torch.int64), wide)
    assert isinstance(ll.build("bayesian_network", many).learner, Tree)


def test_a_climb_without_time_for_tests_still_ends_where_no_edge_gains() -> None:
    x = planted().sample(6000, torch.Generator().manual_seed(4)).numpy()
    table = Table(x, DOMAIN.sizes)
    assert Climber("bic", seconds=1e-9)(table) == hill_climbing(FamilyScore(table), 4)


@pytest.mark.parametrize("structure", ["bic", "bdeu", "pc"])
def test_the_graph_is_found_where_no_row_is_complete(structure: str) -> None:
    torch.manual_seed(0)
    source = torch.Generator().manual_seed(4)
    x = planted().sample(6000, source)
    x[torch.arange(6000), torch.randint(4, (6000,), generator=source)] = -1
    model = ll.build("bayesian_network", data_of(x), structure=structure, alpha=0.001)
    model.sweep(x)
    assert essential_graph(model.parents) == essential_graph(PARENTS)
    fresh = planted().sample(4000, source)
    gap = (planted().log_prob(fresh) - model.double().log_prob(fresh)).mean()
    assert abs(float(gap)) < 0.01


def test_missing_values_are_drawn_as_the_rest_of_the_row_has_them() -> None:
    torch.manual_seed(0)
    model = planted(3)
    row = torch.tensor([[1, -1, 0, -1]])
    x = row.expand(20_000, -1)
    whole = drawn_given_the_rest(
        x, drawn_alone(x, DOMAIN.sizes), model._families(), model._flat().log(), sweeps=3
    )
    assert torch.equal(whole[:, [0, 2]], x[:, [0, 2]])
    answer = model.marginals({"a": 1, "c": 0})
    for v, name in ((1, "b"), (3, "d")):
        for state, p in answer[name].items():
            share = float((whole[:, v] == int(state)).double().mean())
            assert share == pytest.approx(p, abs=4 * (p * (1 - p) / 20_000) ** 0.5 + 1e-9)


def test_values_drawn_alone_are_as_frequent_as_in_their_column() -> None:
    torch.manual_seed(0)
    x = torch.tensor([[0, 2], [1, -1], [1, -1], [-1, -1]]).repeat(5000, 1)
    whole = drawn_alone(x, (2, 3))
    assert torch.equal(whole[x >= 0], x[x >= 0])
    assert (whole[:, 1] == 2).all()
    assert float(whole[3::4, 0].double().mean()) == pytest.approx(2 / 3, abs=4 * (2 / 9 / 5000) ** 0.5)


def test_a_tree_has_an_edge_less_than_variables() -> None:
    data = data_of(planted().sample(600, torch.Generator().manual_seed(4)))
    model = ll.build("bayesian_network", data, structure="tree")
    model.sweep(data.train.x)
    assert sum(map(len, model.parents)) == 3


def test_independences_are_those_of_the_graph() -> None:
    model = planted()
    assert model.independent("a", "d", "c")
    assert not model.independent("a", "d")
    assert not model.independent(["a", "b"], "d", [])
    assert model.cliques() == [("a", "b", "c"), ("c", "d")]
    field = MarkovRandomField(Categories((2,) * 4), ((0, 1), (1, 2), (2, 3), (3, 0)))
    assert field.independent(0, 2, [1, 3])
    assert not field.independent(0, 2, 1)
    assert field.cliques() == [("x0", "x1"), ("x0", "x3"), ("x1", "x2"), ("x2", "x3")]


def test_wrong_wishes_get_one_line() -> None:
    data = data_of(planted().sample(60, torch.Generator().manual_seed(4)))
    wishes = [
        {"structure": "best"},
        {"structure": "bic", "edges": ("a -> b",)},
        {"structure": "bic", "hidden": ("h=2",)},
        {"hidden": ("h",)},
        {"hidden": ("a=2",)},
        {"hidden": ("h=2", "h=3")},
        {"edges": ("h -> a",)},
        {"edges": ("a -> b -> a",)},
        {"structure": "pc", "alpha": 2.0},
        {"structure": "bic", "max_parents": 0},
    ]
    for wish in wishes:
        with pytest.raises(LeadlineError) as caught:
            ll.build("bayesian_network", data, **wish)
        assert "\n" not in str(caught.value)
    never = torch.full((5, 4), -1)
    with pytest.raises(DataError, match="name its edges"):
        ll.build("bayesian_network", data, structure="bic").sweep(never)
    certain = BayesianNetwork(DOMAIN, PARENTS, 0.0)
    certain.set_tables([np.eye(t.shape[-1])[np.zeros(t.shape[:-1], int)] for t in certain.tables()])
    with pytest.raises(DataError, match="probability zero"):
        certain.sweep(torch.tensor([[1, -1, 0, 0]]))


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data/bayesnets")
def test_alarm_is_learned_back_from_its_own_samples() -> None:
    true = BayesianNetwork.read(SHARED / "alarm.bif.gz")
    x = true.sample(10_000, torch.Generator().manual_seed(0))
    learned = BayesianNetwork(true.domain, learner=Climber("bic"))
    learned.sweep(x)
    given = essential_graph(true.parents)
    assert essential_graph(learned.parents).distance(given) <= 8  # of 46 edges
    shared = essential_graph(learned.parents).skeleton & given.skeleton
    assert len(shared) >= 41
    fresh = true.sample(2000, torch.Generator().manual_seed(1))
    gap = float(true.double().log_prob(fresh).mean() - learned.double().log_prob(fresh).mean())
    assert 0 <= gap < 0.2
