"""Softmax and least-squares regression."""

from collections.abc import Callable

import pytest
import torch
from sklearn.linear_model import LinearRegression, LogisticRegression
from torch import Tensor, nn
from torch.nn import functional as F

from leadline.catalog import build
from leadline.core import Batch, DataError, DomainError, Signature
from tests.tiny import tiny

LABELLED = ("images", "bits", "vectors", "targets", "categories", "table", "counts")


def _descend(model: nn.Module, batch: Batch, penalty: float = 0.0) -> None:
    """Minimise a convex loss to its minimum."""
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=300, line_search_fn="strong_wolfe", lr=1)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = model.loss(batch) + penalty * model.net[0].weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)


@pytest.mark.parametrize("kind", LABELLED)
def test_the_scores_are_affine_in_the_features(kind: str, moved: Callable[[nn.Module], nn.Module]) -> None:
    data = tiny(kind)
    model = moved(build("linear", data)).double()
    layer = model.net[0]
    f = data.domain.features(data.test.x, torch.empty(0, dtype=torch.float64))
    scores = f @ layer.weight.T + layer.bias
    torch.testing.assert_close(model.predict(data.test.x), data.labels.predict(scores))


def test_softmax_regression_ends_where_scikit_learn_ends() -> None:
    data = tiny("vectors")
    model = build("linear", data).double()
    x, y = data.train.x, data.train.y
    # scikit-learn minimises sum of losses + |w|^2 / (2 C); ours the mean of them
    _descend(model, Batch(x, y), penalty=1 / (2 * len(x)))
    peer = LogisticRegression(tol=1e-10, max_iter=1000).fit(data.domain.features(x.double()), y)
    expected = torch.from_numpy(peer.predict_log_proba(data.domain.features(data.test.x.double())))
    torch.testing.assert_close(model.predict(data.test.x), expected, atol=1e-4, rtol=1e-4)


def test_regression_ends_at_least_squares() -> None:
    data = tiny("targets")
    model = build("linear", data).double()
    noise = torch.randn(len(data.train), 1, generator=torch.Generator().manual_seed(3))
    goal = data.train.y + noise
    _descend(model, Batch(data.train.x, goal))
    peer = LinearRegression().fit(data.train.x.double(), goal)
    expected = torch.from_numpy(peer.predict(data.test.x.double().numpy()))
    torch.testing.assert_close(model.predict(data.test.x).detach(), expected, atol=1e-3, rtol=1e-3)


def test_rows_without_a_label_add_nothing() -> None:
    data = tiny("bits")
    model = build("linear", data).double()
    x, y = data.train.x, data.train.y.clone()
    y[::2] = -1
    torch.testing.assert_close(model.loss(Batch(x, y)), model.loss(Batch(x[1::2], y[1::2])))
    nothing = model.loss(Batch(x, torch.full_like(y, -1)))
    nothing.backward()
    assert nothing == 0
    assert model.net[0].weight.grad.abs().sum() == 0


def test_label_smoothing_is_that_of_torch() -> None:
    data = tiny("vectors")
    model = build("linear", data).double()
    x, y = data.train.x, data.train.y
    expected = F.cross_entropy(model.scores(x), y, label_smoothing=0.2)
    torch.testing.assert_close(model.loss(Batch(x, y, label_smoothing=0.2)), expected)
    assert model.loss(Batch(x, y)) != expected


def test_data_without_labels_are_refused_with_advice() -> None:
    with pytest.raises(DomainError, match=r"needs labels.*load data with labels"):
        build("linear", tiny("tokens"))
    with pytest.raises(DomainError, match="needs labels"):
        build("linear", Signature(tiny("vectors").domain))
    with pytest.raises(DataError, match="this batch has none"):
        build("linear", tiny("vectors")).loss(Batch(tiny("vectors").train.x))
