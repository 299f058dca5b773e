"""k-means."""

from itertools import pairwise

import pytest
import torch
from sklearn.cluster import KMeans as Peer
from torch import Tensor

from leadline.catalog import build
from leadline.core import Classes, DataError, DomainError, OptionError, Signature, Vectors
from leadline.models.structure.kmeans import KMeans
from tests.tiny import tiny


def _run(model: KMeans, x: Tensor) -> list[float]:
    objectives = []
    while not model.converged:
        objectives.append(model.sweep(x))
        assert len(objectives) < 100
    return objectives


@pytest.mark.parametrize("kind", ["images", "bits", "vectors"])
def test_from_the_same_start_it_ends_where_scikit_learn_ends(kind: str) -> None:
    data = tiny(kind)
    x = data.train.x
    u = data.domain.continuous(x, like=torch.empty(0, dtype=torch.float64)).flatten(1)
    model = KMeans(data.domain, clusters=4, restarts=1).double()
    model.centres.copy_(u[:4])
    model.inertia.fill_(1.0)  # a run that has begun
    objectives = _run(model, x)
    peer = Peer(4, init=u[:4].numpy(), n_init=1, tol=0).fit(u.numpy())
    torch.testing.assert_close(model.centres[0], torch.from_numpy(peer.cluster_centers_))
    assert objectives[-1] == pytest.approx(-peer.inertia_ / len(x))
    assert model.assign(x).tolist() == peer.labels_.tolist()


def test_no_sweep_makes_the_objective_worse() -> None:
    data = tiny("vectors")
    objectives = _run(build("kmeans", data, clusters=6).double(), data.train.x)
    assert len(objectives) > 2
    assert all(later >= earlier - 1e-12 for earlier, later in pairwise(objectives))


def test_the_objective_is_minus_the_mean_squared_distance_to_the_nearest_centre() -> None:
    data = tiny("images")
    model = build("kmeans", data, clusters=5).double()
    objective = _run(model, data.train.x)[-1]
    u = data.train.x.double().add(0.5).div(4).flatten(1)
    distances = (u[:, None] - model.centres[model.inertia.argmin()]).square().sum(-1)
    assert objective == pytest.approx(-float(distances.min(1).values.mean()))
    torch.testing.assert_close(model.encode(data.train.x), -distances.sqrt())
    assert torch.equal(model.assign(data.train.x), distances.argmin(1))


def test_the_best_of_the_restarts_answers() -> None:
    # Two pairs of far points: a start in one pair alone ends in a worse minimum.
    x = torch.tensor([[0.0, 0.0], [0.0, 1.0], [10.0, 0.0], [10.0, 1.0]])
    model = KMeans(Vectors.standard(2), clusters=2, restarts=2)
    model.centres[0] = torch.tensor([[5.0, 0.0], [5.0, 1.0]])
    model.centres[1] = torch.tensor([[0.0, 0.0], [10.0, 0.0]])
    model.inertia.fill_(1.0)
    # worse minimum: every point 5 away, mean square 25; better one: 0.5 away, mean square 0.25
    assert _run(model, x)[-1] == pytest.approx(-0.25)
    torch.testing.assert_close(model.inertia, torch.tensor([25.0, 0.25]))
    assert model.assign(x)[0] == model.assign(x)[1]


def test_decoding_a_code_gives_the_nearest_centre_in_raw_values() -> None:
    data = tiny("vectors")
    model = build("kmeans", data, clusters=3).double()
    _run(model, data.train.x)
    back = model.decode(model.encode(data.train.x))
    members = model.assign(data.train.x)
    for k in range(3):
        expected = data.train.x[members == k].double().mean(0)
        torch.testing.assert_close(back[members == k][0], expected, rtol=1e-5, atol=1e-4)
    pictures = tiny("images")
    model = build("kmeans", pictures)
    _run(model, pictures.train.x)
    pictures.domain.validated(model.decode(model.encode(pictures.test.x)))


def test_a_run_saved_between_sweeps_goes_on_bit_for_bit() -> None:
    data = tiny("vectors")
    first, second = (build("kmeans", data, clusters=6) for _ in range(2))
    first.sweep(data.train.x)
    second.load_state_dict(first.state_dict())
    torch.manual_seed(5)
    _run(first, data.train.x)
    torch.manual_seed(6)
    _run(second, data.train.x)
    assert torch.equal(first.centres, second.centres)


def test_the_start_is_a_function_of_the_global_seed() -> None:
    data = tiny("vectors")
    models = [build("kmeans", data, clusters=6) for _ in range(3)]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        torch.manual_seed(seed)
        model.sweep(data.train.x)
    assert torch.equal(models[0].centres, models[1].centres)
    assert not torch.equal(models[0].centres, models[2].centres)


def test_equal_samples_leave_clusters_empty_without_harm() -> None:
    x = torch.tensor([[0.0], [0.0], [0.0], [4.0], [4.0]])
    model = KMeans(Vectors.standard(1), clusters=4)
    assert _run(model, x)[-1] == pytest.approx(0, abs=1e-10)
    assert model.centres.isfinite().all()
    torch.testing.assert_close(model.decode(model.encode(x)), x)
    alike = KMeans(Vectors.standard(1), clusters=2)
    assert _run(alike, torch.ones(3, 1))[-1] == pytest.approx(0, abs=1e-10)


def test_as_many_clusters_as_classes_unless_told_otherwise() -> None:
    data = tiny("vectors")
    assert build("kmeans", data).centres.shape[1] == 3
    assert build("kmeans", Signature(data.domain)).centres.shape[1] == 10
    assert build("kmeans", Signature(data.domain, Classes(tuple("abcd"))), clusters=2).centres.shape[1] == 2


def test_what_it_cannot_hold_is_named() -> None:
    with pytest.raises(DomainError, match=r"data.vectors\(\) gives Vectors"):
        build("kmeans", tiny("categories"))
    with pytest.raises(OptionError, match="at least 1"):
        build("kmeans", tiny("vectors"), clusters=0)
    with pytest.raises(DataError, match="clusters=3 needs as many samples, got 2"):
        build("kmeans", tiny("vectors")).sweep(tiny("vectors").train.x[:2])
