"""Markov random fields as classifiers: the label is a variable, seen or summed out."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

import leadline as ll
from leadline.core import Batch, Categories, Classes, OptionError, ShapeError, has_verb
from leadline.data import Dataset, Split
from leadline.models.graphical.markov_random_field import MarkovRandomField

DOMAIN = Categories((3, 2, 2), ("a", "b", "c"))
CLASSES = Classes(("low", "mid", "high"))
LABEL = Categories((3,), ("label",), (CLASSES.names,))
SCOPES = ((0,), (3,), (0, 1), (1, 2), (0, 3), (2, 3), (1, 2, 3))
EVERY = DOMAIN.states()


def known(objective: str = "exact") -> MarkovRandomField:
    model = MarkovRandomField(DOMAIN, SCOPES, objective, chains=20_000, label=LABEL).double()
    with torch.no_grad():
        model.log_tables.normal_(generator=torch.Generator().manual_seed(0))
    return model


def joint(model: MarkovRandomField) -> Tensor:
    """Return the log-weight of every state and class by the tables themselves, (12, 3), with gradient."""
    sizes, flat = (*DOMAIN.sizes, 3), model.log_tables
    total = flat.new_zeros(sizes)
    start = 0
    for scope in SCOPES:
        shape = [sizes[v] if v in scope else 1 for v in range(4)]
        cells = int(torch.tensor(shape).prod())
        total = total + flat[start : start + cells].view(shape)  # scopes name their variables in order
        start += cells
    return total.view(-1, 3)


def rows(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return draws of rows and labels from the known field."""
    p = joint(known()).detach().flatten().softmax(0)
    at = torch.multinomial(p, n, replacement=True, generator=torch.Generator().manual_seed(seed))
    return EVERY[at // 3], at % 3


def data_of(n: int) -> Dataset:
    x, y = rows(n)
    third = n // 6
    cut = slice(2 * third, None), slice(0, third), slice(third, 2 * third)
    return Dataset("rows", DOMAIN, CLASSES, *(Split(x[part], y[part]) for part in cut))


def test_predict_and_log_prob_are_those_of_the_enumerated_table() -> None:
    model, table = known(), joint(known()).detach()
    torch.testing.assert_close(model.predict(EVERY), table.log_softmax(1))
    log_z = table.flatten().logsumexp(0)
    torch.testing.assert_close(model.log_prob(EVERY), table.logsumexp(1) - log_z)
    assert float(model.log_partition().value) == pytest.approx(float(log_z))
    assert model.sample(4).shape == (4, 3)
    given = model.marginals({"a": 0, "b": 1, "c": 1})["label"]
    row = table.softmax(1)[int((torch.tensor([0, 1, 1]) == EVERY).all(1).int().argmax())]
    assert list(given.values()) == pytest.approx(row.tolist())


def test_the_exact_gradient_is_that_of_the_joint_likelihood_with_unknown_labels_summed_out() -> None:
    x, y = rows(40)
    y[::3] = -1
    model, other = known(), known()
    model.loss(Batch(x, y)).backward()
    table, place = joint(other), (x @ torch.tensor([4, 2, 1])).long()
    seen = torch.where(y >= 0, table[place, y.clamp(min=0)], table[place].logsumexp(1))
    (table.flatten().logsumexp(0) - seen.mean()).backward()
    torch.testing.assert_close(model.log_tables.grad, other.log_tables.grad)
    blind, plain = known(), known()
    blind.loss(Batch(x)).backward()
    plain.loss(Batch(x, torch.full_like(y, -1))).backward()
    torch.testing.assert_close(blind.log_tables.grad, plain.log_tables.grad)


def test_the_pseudo_likelihood_conditions_on_a_known_label_and_sums_an_unknown_one_out() -> None:
    model = known("pseudo")
    table = joint(model).view(3, 2, 2, 3)
    summed = table.logsumexp(3)
    by_label = sum(table.log_softmax(axis) for axis in range(4))
    without = sum(summed.log_softmax(axis) for axis in range(3))
    y = torch.arange(12) % 3
    y[::2] = -1
    wanted = torch.where(
        y >= 0, by_label.reshape(12, 3).gather(1, y.clamp(min=0)[:, None])[:, 0], without.flatten()
    )
    torch.testing.assert_close(model.pseudo_log_likelihood(EVERY, y), wanted)
    (found,) = torch.autograd.grad(model.loss(Batch(EVERY, y)), model.log_tables)
    (by_hand,) = torch.autograd.grad(-wanted.mean(), model.log_tables)
    torch.testing.assert_close(found, by_hand)
    assert bool(torch.isfinite(found).all())


def test_persistent_chains_hold_the_label_and_give_the_exact_gradient_on_average() -> None:
    x, y = rows(60)
    model = known("persistent")
    with torch.no_grad():
        for _ in range(30):  # until 20,000 chains have forgotten their start
            model.loss(Batch(x, y))
    assert model.particles.shape == (20_000, 4)
    model.loss(Batch(x, y)).backward()
    exact = known()
    exact.loss(Batch(x, y)).backward()
    # an entry is a share of 20,000 independent chains: four standard errors are at most 4 * 0.5 / sqrt(20000)
    torch.testing.assert_close(model.log_tables.grad, exact.log_tables.grad, atol=0.0142, rtol=0)


@pytest.mark.parametrize("objective", ["exact", "pseudo"])
def test_a_run_classifies_as_well_as_the_truth_and_opens_to_equal_answers(
    objective: str, tmp_path: Path
) -> None:
    data = data_of(3000)
    model = ll.build(
        "markov_random_field", data, edges=("a - b", "b - c - label", "a - label"), objective=objective
    )
    run = ll.fit(model, data, steps=150, lr=0.1, out=tmp_path / "run", progress=False)
    x, y = data.test.x, data.test.y
    nats = [float(m.predict(x).detach().gather(1, y[:, None]).mean()) for m in (run.model, known())]
    shares = y.bincount() / len(y)
    assert nats[0] > nats[1] - 0.02
    assert nats[0] > float((shares * shares.log()).sum()) + 0.04
    again = ll.open(tmp_path / "run").model
    assert isinstance(again, MarkovRandomField)
    assert torch.equal(again.predict(data.test.x), run.model.predict(data.test.x))


def test_without_its_name_the_label_is_joined_to_every_column() -> None:
    data = data_of(60)
    model = ll.build("markov_random_field", data)
    assert isinstance(model, MarkovRandomField)
    assert model.scopes[:4] == ((0,), (1,), (2,), (3,))
    assert model.scopes[6:] == ((0, 3), (1, 3), (2, 3))  # behind the two edges of a tree
    given = ll.build("markov_random_field", data, edges=("a - label", "a - b"))
    assert given.scopes == ((0,), (1,), (2,), (3,), (0, 3), (0, 1))
    named = Dataset("rows", Categories((2,), ("label",)), CLASSES, *[Split(EVERY[:, 1:2], EVERY[:, 0])] * 3)
    with pytest.raises(OptionError, match='called "label"'):
        ll.build("markov_random_field", named)


def test_a_field_takes_part_in_classification_where_there_are_classes() -> None:
    models = "markov_random_field,bayesian_network"
    table = ll.compare(data_of(600), task="classification", models=models, steps=30, jobs=1)
    assert "markov_random_field" in str(table)
    plain = Dataset("rows", DOMAIN, None, *(Split(rows(60)[0]) for _ in range(3)))
    assert not has_verb(ll.build("markov_random_field", plain), "predict")
    with pytest.raises(ShapeError, match="one a row"):
        known().loss(Batch(EVERY, torch.zeros(2).long()))


def test_an_ising_model_is_not_put_among_classifiers() -> None:
    from leadline.measures import TASKS

    assert "markov_random_field" in TASKS["classification"].models
    assert "ising" not in TASKS["classification"].models
