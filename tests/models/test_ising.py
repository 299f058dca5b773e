"""Ising models and what fields learn by, against enumeration, closed forms and each other."""

import itertools
import math

import pytest
import torch
from torch import Tensor

import leadline as ll
from leadline.core import Batch, Bits, Categories, LeadlineError
from leadline.data import Dataset, Split
from leadline.models.graphical import fields
from leadline.models.graphical.ising import Ising
from leadline.models.graphical.markov_random_field import MarkovRandomField

RING = ((0, 1), (1, 2), (2, 3), (0, 3), (0, 2))


def moved_ising(domain: Bits, edges: tuple[tuple[int, int], ...], objective: str = "exact") -> Ising:
    model = Ising(domain, edges, objective).double()
    source = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(generator=source).mul_(0.4)
    return model


def field(objective: str) -> MarkovRandomField:
    torch.manual_seed(1)
    model = MarkovRandomField(Categories((2, 3, 2)), ((0,), (0, 1), (0, 1, 2)), objective).double()
    with torch.no_grad():
        model.log_tables.normal_()
    return model


def every_state(domain: Bits) -> Tensor:
    return torch.tensor(list(itertools.product((0, 1), repeat=domain.dims)), dtype=torch.uint8).view(
        -1, *domain.shape
    )


def test_log_z_of_a_chain_a_grid_and_a_torus_are_the_closed_forms() -> None:
    chain = Ising(Bits((10,)), tuple((i, i + 1) for i in range(9))).double()
    with torch.no_grad():
        chain.coupling.fill_(0.5)
    exact = math.log(2) + 9 * math.log(2 * math.cosh(0.5))
    assert chain.log_partition().value == pytest.approx(exact, abs=1e-9)
    data = ll.load("digits").binarize()
    for periodic, value in ((False, 13.6763152414), (True, 15.5219154588)):  # 4 x 4 at the critical point
        grid = Ising.for_data(
            type(data)("g", Bits((1, 4, 4)), None, data.train, data.valid, data.test), periodic=periodic
        )
        with torch.no_grad():
            grid.double().coupling.fill_(0.4406867935)
        assert len(grid.coupling) == (32 if periodic else 24)
        assert grid.log_partition().value == pytest.approx(value, abs=1e-8)


def test_probabilities_sum_to_one_and_follow_couplings_and_fields() -> None:
    model = moved_ising(Bits((4,)), RING)
    x = every_state(model.domain)
    s = 2.0 * x.double() - 1
    energy = sum(model.coupling[e] * s[:, i] * s[:, j] for e, (i, j) in enumerate(RING)) + s @ model.field
    torch.testing.assert_close(model.log_prob(x), energy - energy.logsumexp(0))
    assert model.density.kind == "exact"


@pytest.mark.parametrize("make", [lambda o: moved_ising(Bits((4,)), RING, o), field])
def test_the_exact_gradient_is_that_of_enumeration(make) -> None:
    model = make("exact")
    rows = model.sample(40, torch.Generator().manual_seed(3))
    model.loss(Batch(rows)).backward()
    mine = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    states = torch.tensor(list(itertools.product(*(range(k) for k in model.variables.sizes))))
    by_hand = model._log_weight(states).logsumexp(0) - model.log_weight(rows).mean()
    by_hand.backward()
    for a, p in zip(mine, model.parameters(), strict=True):
        torch.testing.assert_close(a, p.grad, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("make", [lambda o: moved_ising(Bits((4,)), RING, o), field])
def test_the_pseudo_likelihood_is_the_product_of_conditionals(make) -> None:
    model = make("pseudo")
    sizes = model.variables.sizes
    states = torch.tensor(list(itertools.product(*(range(k) for k in sizes))))
    logs = model._log_weight(states).view(sizes)
    by_hand = sum(logs.log_softmax(v) for v in range(len(sizes))).flatten()
    torch.testing.assert_close(model.pseudo_log_likelihood(model.samples(states)), by_hand)
    assert torch.autograd.gradcheck(
        lambda *_: model.loss(Batch(model.samples(states))), tuple(model.parameters())
    )


def test_persistent_chains_estimate_the_exact_gradient() -> None:
    torch.manual_seed(0)
    exact, model = (
        moved_ising(Bits((4,)), RING),
        Ising(Bits((4,)), RING, "persistent", chains=20_000).double(),
    )
    model.load_state_dict(exact.state_dict(), strict=False)
    rows = every_state(model.domain)[:5]
    for _ in range(15):
        model.zero_grad()
        model.loss(Batch(rows)).backward()
    mine = [p.grad.clone() for p in model.parameters()]
    exact.loss(Batch(rows)).backward()
    for a, p in zip(mine, exact.parameters(), strict=True):
        assert float((a - p.grad).abs().max()) < 4 / math.sqrt(20_000) + 0.005  # four standard errors


@pytest.mark.parametrize("objective", ["exact", "pseudo", "persistent"])
def test_couplings_and_fields_are_found_again(objective: str) -> None:
    torch.manual_seed(0)
    true = moved_ising(Bits((1, 3, 3)), tuple((i, i + 1) for i in range(8)))
    x = true.sample(6000, torch.Generator().manual_seed(1))
    data = ll.load("digits").binarize()
    split = type(data.train)
    data = type(data)("planted", true.domain, None, split(x[:5000]), split(x[5000:5500]), split(x[5500:]))
    model = Ising(true.domain, tuple((i, i + 1) for i in range(8)), objective, chains=500)
    ll.fit(
        model,
        data,
        epochs=12,
        lr=0.03,
        schedule="linear",
        batch_size=500,
        select="last",
        out=False,
        progress=False,
    )
    model.requires_grad_(requires_grad=False)
    true.requires_grad_(requires_grad=False)
    assert float((model.coupling - true.coupling).abs().max()) < 0.12
    assert float((model.field - true.field).abs().max()) < 0.12


def test_where_the_tree_is_too_large_log_z_is_an_estimate_that_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    model = moved_ising(Bits((1, 4, 4)), tuple((i, i + 1) for i in range(15)))
    exact = model._log_partition().value
    before = model.log_prob(every_state(Bits((1, 4, 4)))[:4]).detach()
    monkeypatch.setattr(fields, "_MOST", 1)
    monkeypatch.setattr(fields, "_TEMPERATURES", 100)
    model._partition = None
    found = model._log_partition()
    assert found.kind == "estimate"
    assert found.stderr is not None
    assert abs(found.value - exact) < 4 * found.stderr + 1e-3
    assert model.density.kind == "estimate"
    rows = every_state(Bits((1, 4, 4)))[:4]
    torch.testing.assert_close(model.log_prob(rows).detach(), before, atol=4 * found.stderr + 1e-3, rtol=0)
    draws = model.sample(2000, torch.Generator().manual_seed(0)).flatten(1).double()
    means = torch.tensor([model.marginals()[f"x{v}"]["1"] for v in range(16)], dtype=torch.float64)
    assert float((draws.mean(0) - means).abs().max()) < 4 * 0.5 / math.sqrt(2000)
    with_evidence = model.sample(50, torch.Generator().manual_seed(0), evidence={"x3": 1})
    assert bool((with_evidence.flatten(1)[:, 3] == 1).all())


@pytest.mark.parametrize("cells", [1, 40, 1 << 22])
def test_the_weight_of_a_row_is_what_its_tables_say_however_many_are_looked_up_at_once(
    cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fields, "_CELLS", cells)
    model = MarkovRandomField(Categories((2, 3, 4)), ((2, 0), (1,), (0, 1, 2), (2,), (1, 2))).double()
    tables = torch.arange(8 + 3 + 24 + 4 + 12).double().square()
    with torch.no_grad():
        model.log_tables.copy_(tables)
    rows = torch.tensor(list(itertools.product(range(2), range(3), range(4))))
    a, b, c = rows.T
    entries = torch.stack([2 * c + a, 8 + b, 11 + 12 * a + 4 * b + c, 35 + c, 39 + 4 * b + c])
    found = model.log_weight(rows)
    torch.testing.assert_close(found.detach(), tables[entries].sum(0))
    (slope,) = torch.autograd.grad(found.sum(), model.log_tables)
    torch.testing.assert_close(slope, torch.bincount(entries.flatten(), minlength=51).double())


def test_a_chain_of_thousands_of_words_is_built_without_listing_every_pair(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    domain = Bits((4000,))
    data = Dataset("words", domain, None, *(Split(torch.zeros(2, 4000, dtype=torch.uint8)),) * 3)
    monkeypatch.setattr(itertools, "combinations", lambda *_: pytest.fail("eight million pairs"))
    assert len(Ising.for_data(data).coupling) == 3999


def test_wrong_wishes_get_one_line() -> None:
    data = ll.load("digits").binarize()
    for wish in ({"graph": "ring"}, {"objective": "best"}, {"chains": 0}):
        with pytest.raises(LeadlineError) as caught:
            ll.build("ising", data, **wish)
        assert "\n" not in str(caught.value)
    with pytest.raises(LeadlineError, match="two different bits"):
        Ising(Bits((3,)), ((0, 3),))
    with pytest.raises(LeadlineError, match="Bits"):
        ll.build("ising", ll.load("iris"))
