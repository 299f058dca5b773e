"""What a graph states, joint distributions, and evidence that cannot be, by name."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

import leadline as ll
from leadline.core import Categories, Classes, DataError, OptionError, ResourceError
from leadline.data import Dataset, Split
from leadline.inference.contradictions import contradiction
from leadline.inference.factors import Factor, FactorGraph
from leadline.inference.graphs import d_separated
from leadline.inference.junction_tree import JunctionTree
from leadline.models.graphical.bayesian_network import BayesianNetwork
from leadline.models.graphical.markov_random_field import MarkovRandomField
from tests.inference.test_graphs import random_dag

DOMAIN = Categories((2, 3, 2, 2), ("a", "b", "c", "d"))
PARENTS = ((), (0,), (0, 1), (2,))


def planted(seed: int = 0) -> BayesianNetwork:
    model, rng = BayesianNetwork(DOMAIN, PARENTS), np.random.default_rng(seed)
    model.set_tables([rng.dirichlet(np.ones(t.shape[-1]), t.shape[:-1]) for t in model.tables()])
    return model.double()


def test_edges_are_told_by_name_with_their_direction_where_they_have_one() -> None:
    model = planted()
    assert model.edges() == [("a", "b"), ("a", "c"), ("b", "c"), ("c", "d")]
    assert str(model) == "BayesianNetwork(4 variables, 4 edges)"
    again = ll.build(
        "bayesian_network",
        Dataset("rows", DOMAIN, None, *[Split(torch.zeros(3, 4, dtype=torch.int64))] * 3),
        edges=tuple(f"{a} -> {b}" for a, b in model.edges()),
    )
    assert again.parents == PARENTS
    field = MarkovRandomField(DOMAIN, ((3, 1), (0, 2, 3)))
    assert field.edges() == [("a", "c"), ("a", "d"), ("b", "d"), ("c", "d")]


@pytest.mark.parametrize("seed", range(5))
def test_a_markov_blanket_is_the_least_that_cuts_a_variable_off(seed: int) -> None:
    parents = random_dag(7, seed)
    model = BayesianNetwork(Categories((2,) * 7, tuple("abcdefg")), parents)
    for v, name in enumerate("abcdefg"):
        blanket = ["abcdefg".index(other) for other in model.markov_blanket(name)]
        rest = set(range(7)) - {v} - set(blanket)
        assert not rest or d_separated(parents, [v], rest, blanket)
        for other in blanket:  # all of it is needed
            assert not d_separated(parents, [v], [other], set(blanket) - {other})
    with pytest.raises(OptionError, match="unknown variable"):
        model.markov_blanket("zz")


def test_a_joint_distribution_is_that_of_the_table_of_all_states() -> None:
    model, x = planted(3), DOMAIN.states()
    p = model.log_prob(x).exp()
    found = model.joint(["d", "b"], {"a": 1})
    agree = x[:, 0] == 1
    for d, b in itertools.product(range(2), range(3)):
        right = float(p[agree & (x[:, 3] == d) & (x[:, 1] == b)].sum() / p[agree].sum())
        assert found[str(d), str(b)] == pytest.approx(right, abs=1e-12)
        assert found.table[d, b] == found[str(d), str(b)]
    assert found.log_partition == pytest.approx(float(p[agree].sum().log()), abs=1e-12)
    assert [states for states, _ in found.rows()][:2] == [("0", "0"), ("0", "1")]
    assert model.joint("d")["1"] == pytest.approx(model.marginals()["d"]["1"], abs=1e-12)
    for wrong, why in ((["a", "a"], "asked for twice"), (["a", "b"], "observed"), (["x"], "unknown")):
        with pytest.raises(OptionError, match=why):
            model.joint(wrong, {"b": 0})
    with pytest.raises(OptionError, match="at least one"):
        model.joint([])
    many = BayesianNetwork(Categories((10,) * 7))
    with pytest.raises(OptionError, match=r"7 variables have 1e\+07 combinations of states.*ask for fewer"):
        many.joint(range(7))
    with pytest.raises(ResourceError):
        model.joint(["a", "b", "c"], limit=8)


def test_of_impossible_evidence_the_part_is_named_that_cannot_be() -> None:
    model = planted()
    tables = model.tables()
    tables[2][1, 2] = (1.0, 0.0)  # a = 1 and b = 2 rule out c = 1
    model.set_tables(tables)
    seen = {"d": 0, "a": 1, "b": 2, "c": 1}
    for ask in (model.marginals, model.map, model.log_partition):
        for _ in range(3):  # at the first question, and with a tree that is kept
            with pytest.raises(DataError, match="probability zero: a=1 and b=2 and c=1 cannot be at once"):
                ask(seen)
    for ask in (lambda: model.sample(3, evidence=seen), lambda: model.joint("d", {"a": 1, "b": 2, "c": 1})):
        with pytest.raises(DataError, match="cannot be at once"):
            ask()
    tables[0][:] = (1.0, 0.0)
    model.set_tables(tables)
    with pytest.raises(DataError, match=r"probability zero: a=1 cannot be$"):
        model.marginals({"d": 0, "a": 1})


def test_every_smaller_part_of_a_contradiction_is_possible() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        factors = tuple(
            Factor((a, b), (rng.random((2, 2)) < 0.7) * 1.0) for a, b in itertools.combinations(range(6), 2)
        )
        tree = JunctionTree(FactorGraph((2,) * 6, factors))

        def possible(seen: dict[int, int], tree: JunctionTree = tree) -> bool:
            try:
                tree.log_partition(seen)
            except DataError:
                return False
            return True

        evidence = {v: int(rng.integers(2)) for v in range(6)}
        if possible({}) and not possible(evidence):
            least = contradiction(tree, evidence)
            assert least.items() <= evidence.items()
            assert not possible(least)
            for v in least:
                assert possible({u: s for u, s in least.items() if u != v})


def test_an_answer_that_was_not_asked_for_is_told_with_the_nearest() -> None:
    with pytest.raises(KeyError, match='did you mean "a"'):
        planted().marginals()["A"]


def test_an_unknown_variable_is_told_how_the_label_is_called() -> None:
    data = Dataset(
        "rows",
        Categories((2, 2), ("u", "v")),
        Classes(("no", "yes")),
        *[Split(torch.zeros(3, 2, dtype=torch.int64), torch.zeros(3, dtype=torch.int64))] * 3,
    )
    model = ll.build("bayesian_network", data)
    with pytest.raises(OptionError, match='there are 3, the label among them as "label"'):
        model.marginals(variables="disease")


def test_a_run_from_before_steps_of_em_were_kept_opens(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    x = planted().sample(60, torch.Generator().manual_seed(0))
    data = Dataset("rows", DOMAIN, None, Split(x), Split(x), Split(x))
    run = ll.fit(ll.build("bayesian_network", data), data, out=tmp_path / "run", progress=False)
    weights = load_file(tmp_path / "run" / "model.safetensors")
    del weights["reached"]
    save_file(weights, tmp_path / "run" / "model.safetensors")
    assert torch.equal(ll.open(tmp_path / "run").model.log_prob(x), run.model.log_prob(x))
