"""Bayesian networks as classifiers: the label is a variable, seen or not."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import leadline as ll
from leadline.core import Categories, Classes, ShapeError, has_verb
from leadline.data import Dataset, Split
from leadline.models.graphical.bayesian_network import BayesianNetwork

DOMAIN = Categories((3, 2, 2), ("a", "b", "c"), missing=True)
CLASSES = Classes(("low", "mid", "high"))
TABLES = (
    np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]]),
    np.array([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8]]),
    np.array([[0.6, 0.4], [0.3, 0.7], [0.9, 0.1]]),
)
PRIOR = np.array([0.5, 0.2, 0.3])


def rows(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    y = rng.choice(3, n, p=PRIOR)
    x = np.stack([[rng.choice(len(t[k]), p=t[k]) for t in TABLES] for k in y])
    return torch.from_numpy(x), torch.from_numpy(y)


def data_of(n: int = 1200) -> Dataset:
    x, y = rows(n)
    third = n // 6
    cut = slice(2 * third, None), slice(0, third), slice(third, 2 * third)
    return Dataset("rows", DOMAIN, CLASSES, *(Split(x[part], y[part]) for part in cut))


def bayes(x: Tensor) -> Tensor:
    """Return log p(label | x) of the naive Bayes model by hand; -1 is missing."""
    logs = torch.from_numpy(np.log(PRIOR)).repeat(len(x), 1)
    for i, row in enumerate(x.tolist()):
        for v, state in enumerate(row):
            if state >= 0:
                logs[i] += torch.from_numpy(np.log(TABLES[v][:, state]))
    return logs.log_softmax(1)


def planted() -> BayesianNetwork:
    model = ll.build("bayesian_network", data_of()).double()
    model.set_tables([*TABLES, PRIOR])
    return model


def test_without_edges_the_label_points_to_every_column_and_is_found_by_bayes_rule() -> None:
    model = planted()
    assert model.parents == ((3,), (3,), (3,), ())
    x, _ = rows(50, 1)
    torch.testing.assert_close(model.predict(x), bayes(x))
    gaps = torch.where(torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) < 0.4, -1, x)
    torch.testing.assert_close(model.predict(gaps), bayes(gaps))
    assert list(model.marginals({"a": 0})["label"]) == ["low", "mid", "high"]


def test_log_prob_sums_the_label_out_and_over_all_rows_to_one() -> None:
    model = planted()
    every = torch.cartesian_prod(torch.arange(3), torch.arange(2), torch.arange(2))
    assert float(model.log_prob(every).exp().sum()) == pytest.approx(1)
    x = every[:1]
    by_hand = sum(PRIOR[k] * TABLES[0][k, 0] * TABLES[1][k, 0] * TABLES[2][k, 0] for k in range(3))
    assert float(model.log_prob(x)) == pytest.approx(math.log(by_hand))
    assert model.sample(4).shape == (4, 3)


def test_labels_are_counted_and_unknown_ones_are_a_step_of_em() -> None:
    x, y = rows(400)
    model = ll.build("bayesian_network", data_of(), smoothing=0.0).double()
    model.sweep(x, y)
    assert model.converged
    np.testing.assert_allclose(model.tables()[3], np.bincount(y, minlength=3) / 400)
    share = ((x[:, 1] == 1) & (y == 2)).sum() / (y == 2).sum()
    assert model.tables()[1][2, 1] == pytest.approx(float(share))
    half = torch.where(torch.arange(400) % 2 == 0, y, -1)
    objectives = [model.sweep(x, half) for _ in range(8)]
    assert all(b >= a - 1e-12 for a, b in zip(objectives, objectives[1:], strict=False))  # noqa: RUF007
    assert model.tables()[3].sum() == pytest.approx(1)


def test_a_run_classifies_as_well_as_the_truth_and_opens_to_equal_answers(tmp_path: Path) -> None:
    data = data_of(3000)
    run = ll.fit(ll.build("bayesian_network", data), data, out=tmp_path / "run", progress=False)
    right = [
        float((logs.argmax(1) == data.test.y).double().mean())
        for logs in (run.model.predict(data.test.x), bayes(data.test.x))
    ]
    assert right[0] > right[1] - 0.03
    assert right[0] > 0.6
    again = ll.open(tmp_path / "run").model
    assert torch.equal(again.predict(data.test.x), run.model.predict(data.test.x))


def test_the_graph_with_the_label_is_found_or_given_by_its_name() -> None:
    data = data_of(3000)
    found = ll.build("bayesian_network", data, structure="tree")
    found.sweep(data.train.x, data.train.y)
    assert any(3 in above for above in found.parents) or found.parents[3]
    given = ll.build("bayesian_network", data, edges=("label -> a", "b -> label"))
    assert given.parents == ((3,), (), (), (1,))
    kept = ll.build("bayesian_network", data, edges=("a -> b",))
    assert kept.parents == ((3,), (0, 3), (3,), ())


def test_a_network_takes_part_in_classification_where_there_are_classes() -> None:
    table = ll.compare(data_of(600), task="classification", models="bayesian_network", steps=30, jobs=1)
    assert "bayesian_network" in str(table)
    plain = Dataset("rows", DOMAIN, None, *(Split(rows(60)[0]) for _ in range(3)))
    model = ll.build("bayesian_network", plain)
    assert not has_verb(model, "predict")
    with pytest.raises(ShapeError, match="one a row"):
        planted().sweep(torch.zeros(3, 3).long(), torch.zeros(2).long())


def test_a_row_that_every_class_rules_out_leaves_all_equally_likely() -> None:
    model = planted()
    first = np.array([[1.0, 0.0, 0.0]] * 3)
    model.set_tables([first, *TABLES[1:], PRIOR])
    logs = model.predict(torch.tensor([[1, 0, 0], [0, 0, 0]]))
    torch.testing.assert_close(logs[0].exp(), torch.full((3,), 1 / 3, dtype=torch.float64))
    assert float(logs[1].exp().sum()) == pytest.approx(1)
