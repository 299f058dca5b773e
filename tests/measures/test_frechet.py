import math

import pytest
import torch

from leadline.measures import frechet_distance, inception_score, precision_recall
from leadline.measures.frechet import nearest_distances


def rows(n: int, f: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, f, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def exactly(mean: torch.Tensor, root: torch.Tensor, n: int = 60, seed: int = 0) -> torch.Tensor:
    """Return rows whose sample mean is `mean` and whose sample covariance is root root^T, to rounding."""
    z = rows(n, len(mean), seed)
    z = z - z.mean(0)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(z.T @ z / (n - 1)), z.T, upper=False).T
    return white @ root.T + mean


def test_two_normals_with_commuting_covariances_by_the_closed_form() -> None:
    # covariances diag(a^2), diag(b^2): |mu|^2 + sum (a - b)^2 = 9 + 16 + (1-2)^2 + (3-0.5)^2
    a = exactly(torch.zeros(2).double(), torch.diag(torch.tensor([1.0, 3.0]).double()))
    b = exactly(torch.tensor([3.0, -4.0]).double(), torch.diag(torch.tensor([2.0, 0.5]).double()), seed=1)
    assert frechet_distance(a, b) == pytest.approx(25 + 1 + 6.25, abs=1e-9)


def test_two_normals_that_do_not_commute_by_the_matrix_root() -> None:
    first, second = rows(3, 3, 5), rows(3, 3, 6)
    a, b = exactly(torch.zeros(3).double(), first), exactly(torch.ones(3).double(), second, seed=2)
    # tr (S1 S2)^(1/2) as the sum of the roots of the eigenvalues of the plain product
    product = (first @ first.T) @ (second @ second.T)
    root = torch.linalg.eigvals(product).real.clamp(min=0).sqrt().sum()
    truth = 3 + (first @ first.T).trace() + (second @ second.T).trace() - 2 * root
    assert frechet_distance(a, b) == pytest.approx(float(truth), rel=1e-8)


def test_a_set_has_no_distance_to_itself_even_if_it_spans_little() -> None:
    x = rows(20, 50)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-6 * float(x.var(0).sum()))
    flat = torch.ones(5, 3)
    assert frechet_distance(flat, flat) == 0
    assert frechet_distance(flat, flat + 2) == pytest.approx(12)


def test_a_rotation_of_both_changes_nothing() -> None:
    a, b = rows(80, 6), rows(70, 6, 1) * 2 + 1
    turn = torch.linalg.qr(rows(6, 6, 2)).Q
    assert frechet_distance(a @ turn, b @ turn) == pytest.approx(frechet_distance(a, b), rel=1e-10)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-10)


def test_few_samples_make_the_distance_too_large() -> None:
    many = frechet_distance(rows(4000, 8), rows(4000, 8, 1))
    few = frechet_distance(rows(4000, 8), rows(40, 8, 1))
    assert few > 10 * many


def test_the_inception_score_lies_between_one_and_the_number_of_classes() -> None:
    sure = torch.eye(7).repeat(5, 1).log()
    assert inception_score(sure) == pytest.approx(7)
    assert inception_score(sure[:1].expand(30, -1)) == pytest.approx(1)
    assert inception_score(torch.full((30, 7), 1 / 7).log()) == pytest.approx(1)
    mixed = torch.log_softmax(rows(200, 7) * 3, 1)
    assert 1 < inception_score(mixed) < 7


def test_precision_and_recall_of_the_same_and_of_far_sets() -> None:
    x = rows(60, 4)
    assert precision_recall(x, x) == (1, 1)
    assert precision_recall(x, x + 100) == (0, 0)


def test_a_collapsed_set_is_precise_and_recalls_little() -> None:
    x = rows(200, 2)
    collapsed = x[:1] + 0.01 * rows(200, 2, 1)
    precision, recall = precision_recall(x, collapsed)
    assert precision > 0.95
    assert recall < 0.1
    # and the other way round: a spread-out set reaches the data and much else
    precision, recall = precision_recall(x, 8 * rows(200, 2, 2))
    assert precision < 0.3


def test_the_radius_reaches_to_the_third_neighbour() -> None:
    # on a line 0, 1, 2, 3, 4: balls of 0 and 4 have radius 3, of 1 and 3 radius 2, of 2 radius 2
    line = torch.arange(5.0)[:, None]
    inside = torch.tensor([[-3.0], [7.0], [6.9], [-3.1], [7.1]])
    assert precision_recall(line, inside)[0] == pytest.approx(3 / 5)


def test_nearest_distances_find_the_row_itself() -> None:
    x = rows(700, 3)
    distance, place = nearest_distances(x, x)
    assert float(distance.max()) == 0
    assert torch.equal(place, torch.arange(700))
    assert nearest_distances(torch.zeros(1, 2), torch.tensor([[3.0, 4.0], [6.0, 8.0]]))[0].item() == 5
    assert math.isfinite(float(distance.sum()))
