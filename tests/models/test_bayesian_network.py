"""Bayesian networks: files, learning, questions by name, runs that carry their graph."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import leadline as ll
from leadline.core import Categories, DomainError, OptionError, ResourceError, Vectors
from leadline.data import Dataset, Split
from leadline.models.graphical.bayesian_network import BayesianNetwork

SHARED = Path(__file__).parents[3] / "shared/data/bayesnets"
needs_files = pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data/bayesnets")
DOMAIN = Categories(
    (2, 3, 2), ("Rain", "Sprinkler", "Wet"), (("no", "yes"), ("off", "low", "high"), ("no", "yes"))
)
PARENTS = ((), (0,), (1, 0))


def known() -> BayesianNetwork:
    """Return a small network whose tables are all different."""
    model, rng = BayesianNetwork(DOMAIN, PARENTS), np.random.default_rng(0)
    model.set_tables([rng.random(table.shape) for table in model.tables()])
    return model


def test_the_probabilities_of_all_states_are_the_product_of_the_tables_and_sum_to_one() -> None:
    model = known()
    x = DOMAIN.states()
    rain, sprinkler, wet = model.tables()
    by_hand = [math.log(rain[a] * sprinkler[a, b] * wet[b, a, c]) for a, b, c in x.tolist()]
    np.testing.assert_allclose(model.double().log_prob(x).numpy(), by_hand, rtol=1e-12)
    assert float(model.log_prob(x).exp().sum()) == pytest.approx(1, abs=1e-12)


def test_questions_are_answered_as_by_the_table_of_all_states() -> None:
    model = known().double()
    x = DOMAIN.states()
    p = model.log_prob(x).exp()
    agree = x[:, 2] == 1
    answer = model.marginals({"Wet": "yes"})
    assert answer.kind == "exact"
    for state, name in enumerate(DOMAIN.values[1]):
        by_hand = float(p[agree & (x[:, 1] == state)].sum() / p[agree].sum())
        assert answer["Sprinkler"][name] == pytest.approx(by_hand, abs=1e-12)
    assert answer["Wet"] == {"no": 0.0, "yes": 1.0}
    assert answer.log_partition.value == pytest.approx(math.log(float(p[agree].sum())), abs=1e-12)
    assert model.log_partition({"Wet": 1}).value == pytest.approx(answer.log_partition.value, abs=1e-12)
    best = model.map({"Wet": "yes"})
    row = x[int(p.where(agree, 0).argmax())]
    assert list(best.states.values()) == [DOMAIN.values[v][int(s)] for v, s in enumerate(row)]
    assert best.log_weight == pytest.approx(math.log(float(p[agree].max())), abs=1e-12)
    assert list(model.marginals(variables=["Rain"]).states) == ["Rain"]


@pytest.mark.parametrize("evidence", [None, {"Wet": "yes"}])
def test_draws_follow_the_distribution_given_the_evidence(evidence: dict[str, str] | None) -> None:
    model, n = known().double(), 20_000
    x = DOMAIN.states()
    p = model.log_prob(x).exp() * (1 if evidence is None else x[:, 2] == 1)
    p = p / p.sum()
    draws = model.sample(n, torch.Generator().manual_seed(0), evidence=evidence)
    places = draws @ torch.tensor([6, 2, 1])
    share = torch.bincount(places, minlength=12) / n
    assert (share - p).abs().le(4 * (p * (1 - p) / n).sqrt() + 1e-9).all()
    again = model.sample(n, torch.Generator().manual_seed(0), evidence=evidence)
    assert torch.equal(draws, again)


def test_a_sweep_is_a_ratio_of_counts_and_smoothing_adds_to_each() -> None:
    x = torch.tensor([[0, 0, 0], [0, 0, 1], [0, 2, 1], [1, 1, 1]])
    exact, smooth = BayesianNetwork(DOMAIN, PARENTS, 0.0), BayesianNetwork(DOMAIN, PARENTS, 1.0)
    objective = exact.sweep(x)
    assert exact.tables()[0].tolist() == [0.75, 0.25]
    np.testing.assert_allclose(exact.tables()[1], [[2 / 3, 0, 1 / 3], [0, 1, 0]])
    assert exact.tables()[2][2, 1].tolist() == [0.5, 0.5]  # never seen
    smooth.sweep(x)
    np.testing.assert_allclose(smooth.tables()[1][0], [3 / 6, 1 / 6, 2 / 6])
    assert objective == pytest.approx(float(exact.log_prob(x).mean()), abs=1e-6)
    # maximum likelihood: no other tables do better on these rows
    assert objective > smooth.sweep(x)
    assert objective >= max(float(known().log_prob(x).mean()), objective)


def test_a_network_is_learned_back_from_its_draws() -> None:
    model = known()
    learned = BayesianNetwork(DOMAIN, PARENTS)
    learned.sweep(model.sample(200_000, torch.Generator().manual_seed(1)))
    for true, found in zip(model.tables(), learned.tables(), strict=True):
        np.testing.assert_allclose(found, true, atol=0.03)


def test_a_run_carries_a_graph_that_its_options_do_not_name(tmp_path: Path) -> None:
    x = known().sample(300, torch.Generator().manual_seed(0))
    data = Dataset(
        name="rain",
        domain=DOMAIN,
        labels=None,
        train=Split(x[:200]),
        valid=Split(x[200:250]),
        test=Split(x[250:]),
    )
    model = ll.build("bayesian_network", data, structure="given")
    assert isinstance(model, BayesianNetwork)
    model.connect(PARENTS)  # as structure learning would
    run = ll.fit(model, data, out=tmp_path / "run", progress=False)
    opened = ll.open(tmp_path / "run").model
    assert isinstance(opened, BayesianNetwork)
    assert opened.parents == PARENTS
    assert torch.equal(opened.log_prob(x), run.model.log_prob(x))
    plain = BayesianNetwork(DOMAIN)
    plain.load_state_dict(run.model.state_dict())
    assert plain.parents == PARENTS
    assert nn.Module.state_dict(plain).keys() == run.model.state_dict().keys()


def test_edges_name_columns_and_a_cycle_is_told_by_name() -> None:
    data = Dataset(
        name="rain",
        domain=DOMAIN,
        labels=None,
        train=Split(DOMAIN.states()),
        valid=Split(DOMAIN.states()),
        test=Split(DOMAIN.states()),
    )
    model = ll.build("bayesian_network", data, edges=("Rain -> Sprinkler -> Wet", "Rain -> Wet"))
    assert isinstance(model, BayesianNetwork)
    assert model.parents == ((), (0,), (1, 0))
    with pytest.raises(OptionError, match="cycle: Rain -> Wet -> Rain"):
        ll.build("bayesian_network", data, edges=("Rain -> Wet", "Wet -> Rain"))
    with pytest.raises(OptionError, match=r"unknown column 'Rian' \(did you mean \"Rain\"\?\)"):
        ll.build("bayesian_network", data, edges=("Rian -> Wet",))
    with pytest.raises(OptionError, match="cause -> effect"):
        ll.build("bayesian_network", data, edges=("Rain",))
    with pytest.raises(OptionError, match="smoothing"):
        ll.build("bayesian_network", data, smoothing=-1.0)
    with pytest.raises(DomainError, match="Categories"):
        BayesianNetwork(Vectors.standard(2))  # type: ignore[arg-type]


def test_names_that_do_not_exist_get_the_nearest() -> None:
    model = known()
    with pytest.raises(OptionError, match=r'unknown variable rian \(did you mean "Rain"\?\)'):
        model.marginals({"rian": "yes"})
    with pytest.raises(
        OptionError, match=r'Sprinkler has no state LOW \(did you mean "low"\?\); it has off, low, high'
    ):
        model.marginals({"Sprinkler": "LOW"})
    with pytest.raises(OptionError, match="no variable 7"):
        model.marginals({7: 0})
    with pytest.raises(OptionError, match="no state 9"):
        model.map({"Wet": 9})
    with pytest.raises(OptionError, match="method must be one of"):
        model.marginals(method="magic")
    with pytest.raises(ResourceError, match="limit of 1 bytes"):
        model.marginals(method="exact", limit=1)


def test_variables_and_states_may_be_numbers_of_any_kind_or_names_alone() -> None:
    model = known()
    wanted = model.marginals({"Wet": "yes"}, ["Rain"])["Rain"]
    for variable, state in ((np.int64(2), np.int64(1)), (torch.tensor(2), torch.tensor(1)), ("Wet", 1)):
        assert model.marginals({variable: state}, np.int64(0))["Rain"] == pytest.approx(wanted)
    assert list(model.marginals(variables="Rain").states) == ["Rain"]
    assert model.map(dict.fromkeys(range(3), 1)).log_weight == pytest.approx(
        float(model.double().log_prob(torch.ones(1, 3)))  # whole numbers of another type are states too
    )
    truth = Categories((2,), ("Sunny",), (("False", "True"),))
    assert BayesianNetwork(truth).marginals({"Sunny": True})["Sunny"] == {"False": 0.0, "True": 1.0}


def test_what_is_no_evidence_or_no_limit_gets_one_line() -> None:
    model = known()
    for state in (math.nan, None, -1, 0.0, True):
        with pytest.raises(OptionError, match=r"Wet has no state .*; it has no, yes"):
            model.marginals({"Wet": state})
    with pytest.raises(OptionError, match="Wet is observed twice, as yes and as no"):
        model.marginals({"Wet": "yes", 2: "no"})
    for evidence in ("Wet=yes", ["Wet"], [("Wet", "yes")]):
        with pytest.raises(OptionError, match="evidence must map variables to states"):
            model.marginals(evidence)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="unknown variable None"):
        model.marginals(None, [None])  # type: ignore[list-item]
    for limit in (0, -1.0, math.nan, "4GB"):
        for ask in (model.marginals, model.map, model.log_partition):
            with pytest.raises(OptionError, match="limit must be a number of bytes above zero"):
                ask(limit=limit)
    with pytest.raises(OptionError, match=r"written as \.bif or \.uai"):
        model.write("model.net")


def test_new_tables_give_new_answers() -> None:
    model = known()
    before = model.marginals()["Wet"]
    model.sweep(DOMAIN.states()[:5])
    assert model.marginals()["Wet"] != before


@needs_files
def test_a_model_read_from_bif_is_written_and_read_equal_in_both_formats(tmp_path: Path) -> None:
    model = BayesianNetwork.read(SHARED / "alarm.bif.gz")
    for name in ("alarm.bif", "alarm.uai"):
        model.write(tmp_path / name)
        again = BayesianNetwork.read(tmp_path / name)
        assert again.parents == model.parents
        assert torch.equal(again.bits, model.bits)
    x = model.sample(50, torch.Generator().manual_seed(0))
    assert bool(model.log_prob(x).isfinite().all())
    answer = model.marginals({"CVP": "LOW", "BP": "HIGH"}, ["HYPOVOLEMIA"])
    assert sum(answer["HYPOVOLEMIA"].values()) == pytest.approx(1)
