"""Markov random fields: normalisation, exact gradients, files."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

import leadline as ll
from leadline.core import Batch, Categories, DataError, OptionError, ResourceError, Signature
from leadline.data import Dataset, Split
from leadline.data.uai import parse_uai
from leadline.models.graphical.markov_random_field import MarkovRandomField

DOMAIN = Categories((2, 3, 2), ("a", "b", "c"))
SCOPES = ((0,), (0, 1), (2, 1), (0, 1, 2))


def known() -> MarkovRandomField:
    model = MarkovRandomField(DOMAIN, SCOPES).double()
    with torch.no_grad():
        model.log_tables.normal_(generator=torch.Generator().manual_seed(0))
    return model


def test_probabilities_are_products_of_factors_over_their_sum() -> None:
    model, x = known(), DOMAIN.states()
    one, two, three, four = (factor.table for factor in model.factor_graph().factors)
    weights = np.array([one[a] * two[a, b] * three[c, b] * four[a, b, c] for a, b, c in x.tolist()])
    np.testing.assert_allclose(model.log_prob(x).exp().detach().numpy(), weights / weights.sum(), rtol=1e-12)
    assert model.log_partition().value == pytest.approx(math.log(weights.sum()), abs=1e-12)


def test_the_gradient_of_the_loss_is_that_of_the_enumerated_likelihood() -> None:
    model, x = known(), DOMAIN.states()
    rows = x[[0, 3, 3, 7, 11]]
    model.loss(Batch(rows)).backward()
    exact = known()
    weights = exact.log_weight(x)
    (torch.logsumexp(weights, 0) - exact.log_weight(rows).mean()).backward()
    torch.testing.assert_close(model.log_tables.grad, exact.log_tables.grad)


def test_answers_follow_the_tables_even_where_a_fused_optimiser_moves_them() -> None:
    data = Dataset(
        name="abc",
        domain=DOMAIN,
        labels=None,
        train=Split(DOMAIN.states()[:7]),
        valid=Split(DOMAIN.states()),
        test=Split(DOMAIN.states()),
    )
    model = ll.build("markov_random_field", data, edges=("a - b", "a - b - c"))
    assert isinstance(model, MarkovRandomField)
    assert model.scopes == ((0,), (1,), (2,), (0, 1), (0, 1, 2))
    run = ll.fit(model, data, steps=60, lr=0.2, out=False, progress=False, select="last")
    # the field can hold any distribution: 7 of 12 states are seen, once each
    with torch.no_grad():
        log_p = run.model.log_prob(DOMAIN.states())  # type: ignore[operator]
    assert float(log_p[:7].mean()) > -math.log(7) - 0.2
    assert float(log_p.exp().sum()) == pytest.approx(1, abs=1e-5)


def test_a_file_is_read_written_and_zeros_stay_zeros(tmp_path: Path) -> None:
    text = "MARKOV 2 2 2 2 1 0 2 0 1 2 1 3 4 1 0 0.5 2"
    model = MarkovRandomField.of(parse_uai(text))
    assert model.map().states == {"x0": "1", "x1": "1"}
    # 1*1 + 1*0 + 3*0.5 + 3*2 = 8.5
    assert model.log_partition().value == pytest.approx(math.log(8.5), abs=1e-12)
    assert model.marginals()["x1"]["0"] == pytest.approx(2.5 / 8.5, abs=1e-12)
    model.write(tmp_path / "m.uai")
    again = MarkovRandomField.read(tmp_path / "m.uai")
    torch.testing.assert_close(again.log_tables, model.log_tables, rtol=1e-14, atol=0)
    assert model.log_prob(torch.tensor([[0, 1]])).tolist() == [-math.inf]
    assert (model.sample(1000, torch.Generator().manual_seed(0)) != torch.tensor([0, 1])).any(1).all()


def test_a_run_carries_its_scopes(tmp_path: Path) -> None:
    x = known().sample(60, torch.Generator().manual_seed(0))
    data = Dataset(name="abc", domain=DOMAIN, labels=None, train=Split(x), valid=Split(x), test=Split(x))
    model = ll.build("markov_random_field", data)
    assert isinstance(model, MarkovRandomField)
    model.load_state_dict(MarkovRandomField(DOMAIN, SCOPES).state_dict())
    run = ll.fit(model, data, steps=3, out=tmp_path / "run", progress=False)
    opened = ll.open(tmp_path / "run").model
    assert isinstance(opened, MarkovRandomField)
    assert opened.scopes == SCOPES
    assert torch.equal(opened.log_prob(x), run.model.log_prob(x))  # type: ignore[operator]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(DataError, match="once each"):
        MarkovRandomField(DOMAIN, ((0, 0),))
    data = Dataset(
        name="abc",
        domain=DOMAIN,
        labels=None,
        train=Split(DOMAIN.states()),
        valid=Split(DOMAIN.states()),
        test=Split(DOMAIN.states()),
    )
    with pytest.raises(OptionError, match="unknown column 'd'"):
        ll.build("markov_random_field", data, edges=("a - d",))
    with pytest.raises(OptionError, match="a - b"):
        ll.build("markov_random_field", data, edges=("a",))
    grid = MarkovRandomField(
        Categories((2,) * 900), [(i, j) for i in range(900) for j in (i + 1, i + 30) if j < 900]
    )
    with pytest.raises(ResourceError, match="treewidth"):
        grid.marginals(method="exact")


def test_a_field_without_edges_is_the_likeliest_tree_of_the_rows(tmp_path: Path) -> None:
    source = torch.Generator().manual_seed(0)
    a, c = (torch.randint(2, (600,), generator=source) for _ in range(2))
    noise = (torch.rand(600, 2, generator=source) < 0.1).long()
    x = torch.stack([a, c, a ^ noise[:, 0], c ^ noise[:, 1]], 1)  # 0 - 2 and 1 - 3, not their neighbours
    x[:300, 1] = x[:300, 2]  # and 1 - 2
    data = Dataset("rows", Categories((2,) * 4), None, Split(x), Split(x[:60]), Split(x[:60]))
    model = ll.build("markov_random_field", data)
    assert {("x0", "x2"), ("x1", "x3"), ("x1", "x2")} >= set(model.edges()) - {("x2", "x3")}
    assert ("x0", "x2") in model.edges()
    assert len(model.edges()) == 3
    run = ll.fit(model, data, steps=30, lr=0.1, out=tmp_path / "run", progress=False)
    opened = ll.open(tmp_path / "run").model
    assert opened.edges() == model.edges()
    assert torch.equal(opened.log_prob(x), run.model.log_prob(x))
    assert ll.build("markov_random_field", Signature(data.domain)).edges() == [
        ("x0", "x1"), ("x1", "x2"), ("x2", "x3"),
    ]  # fmt: skip
