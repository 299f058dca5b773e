"""Lanczos against dense matrices: values, errors that cover, restarts, spaces that are too small."""

import math

import pytest
import torch
from torch import Tensor

from leadline.core import DivergenceError, OptionError
from leadline.inference.lanczos import Krylov, _errors, eigenpairs
from leadline.inference.traces import spectral_density, trace


def rotated(values: Tensor, seed: int = 0) -> Tensor:
    """Return a symmetric matrix with the given eigenvalues."""
    source = torch.Generator().manual_seed(seed)
    d = len(values)
    q = torch.linalg.qr(torch.randn(d, d, generator=source, dtype=torch.float64))[0]
    return q @ torch.diag(values.double()) @ q.T


def start(d: int, seed: int = 1) -> Tensor:
    return torch.randn(d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


SPREAD = torch.cat([torch.tensor([9.0, 8.0, 7.5, -4.0]), torch.linspace(-1, 2, 196)])
CROWDED = torch.linspace(0, 1, 300) ** 2


@pytest.mark.parametrize("basis", [None, 8])
@pytest.mark.parametrize("tolerance", [1e-2, 1e-6, 1e-12])
def test_both_ends_are_found_to_the_tolerance(basis: int | None, tolerance: float) -> None:
    matrix = rotated(SPREAD)
    found = eigenpairs(
        lambda v: matrix @ v, start(200), largest=3, smallest=1, tolerance=tolerance, basis=basis
    )
    assert found.converged
    truth = torch.tensor([9.0, 8.0, 7.5, -4.0], dtype=torch.float64)
    assert ((found.values - truth).abs() <= tolerance * 9 + 1e-12).all()
    assert ((found.values - truth).abs() <= 1.01 * found.errors + 1e-12).all()
    assert (found.errors <= found.residuals).all()
    assert torch.allclose(found.vectors @ found.vectors.T, torch.eye(4).double(), atol=1e-10)


@pytest.mark.parametrize("basis", [None, 10])
def test_a_residual_is_that_of_its_vector_and_holds_an_eigenvalue(basis: int | None) -> None:
    matrix = rotated(CROWDED)
    found = eigenpairs(lambda v: matrix @ v, start(300), largest=2, tolerance=1e-3, basis=basis, most=40)
    left = (found.vectors @ matrix - found.values[:, None] * found.vectors).norm(dim=1)
    assert torch.allclose(left, found.residuals, rtol=1e-6, atol=1e-12)
    nearest = (CROWDED.double() - found.values[:, None]).abs().amin(1)
    assert (nearest <= found.residuals + 1e-7).all()


def test_too_few_products_are_said_to_be_too_few() -> None:
    matrix = rotated(CROWDED)
    found = eigenpairs(lambda v: matrix @ v, start(300), tolerance=1e-9, most=5)
    assert (found.products, found.converged) == (5, False)
    assert found.errors[0] > 1e-9


def test_a_small_basis_costs_products_and_no_accuracy() -> None:
    matrix = rotated(CROWDED)
    wide, narrow = (
        eigenpairs(lambda v: matrix @ v, start(300), tolerance=1e-8, basis=basis) for basis in (None, 6)
    )
    assert wide.converged
    assert narrow.converged
    assert len(narrow.space.vectors) <= 7
    assert abs(float(narrow.values[0]) - float(wide.values[0])) < 1e-8


@pytest.mark.parametrize("scale", [0.0, 3.0, -2.0])
def test_a_multiple_of_the_identity_is_seen_from_both_ends(scale: float) -> None:
    found = eigenpairs(lambda v: scale * v, start(50), largest=2, smallest=2)
    assert found.converged
    assert torch.allclose(found.values, torch.full((4,), scale, dtype=torch.float64), atol=1e-9)
    assert found.products < 10


def test_a_matrix_of_rank_one_has_zeros_beside_its_eigenvalue() -> None:
    u = torch.nn.functional.normalize(start(80, 3), dim=0)
    found = eigenpairs(lambda v: 5 * u * (u @ v), start(80), largest=3, smallest=1)
    assert found.converged
    assert torch.allclose(found.values, torch.tensor([5.0, 0.0, 0.0, 0.0]).double(), atol=1e-8)
    assert float((found.vectors[0] @ u).abs()) == pytest.approx(1)


@pytest.mark.parametrize("d", [1, 2, 5])
def test_a_space_smaller_than_the_basis_is_exact(d: int) -> None:
    matrix = rotated(torch.arange(d) - 1.0)
    found = eigenpairs(lambda v: matrix @ v, start(d), largest=1, smallest=d - 1, tolerance=1e-12)
    assert found.converged
    assert sorted(found.values.tolist()) == pytest.approx([i - 1.0 for i in range(d)], abs=1e-10)


def test_rounding_of_the_products_is_part_of_the_error() -> None:
    matrix = rotated(SPREAD)
    noise = torch.Generator().manual_seed(4)

    def rough(v: Tensor) -> Tensor:
        return matrix @ v + 1e-4 * torch.randn(len(v), generator=noise, dtype=torch.float64)

    found = eigenpairs(rough, start(200), tolerance=1e-9, most=30)
    assert not found.converged
    assert 1e-5 < float(found.errors[0]) < 1e-2


def test_impossible_questions_are_refused() -> None:
    with pytest.raises(OptionError, match="between 1 and 3"):
        eigenpairs(lambda v: v, start(3), largest=3, smallest=1)
    with pytest.raises(OptionError, match="tolerance"):
        eigenpairs(lambda v: v, start(3), tolerance=0)
    with pytest.raises(OptionError, match="not zero"):
        Krylov(lambda v: v, torch.zeros(3), 2)
    with pytest.raises(DivergenceError, match="not finite"):
        eigenpairs(lambda v: v * math.nan, start(3))
    with pytest.raises(OptionError, match="least"):
        trace(lambda v: v, start(3), least=1)
    with pytest.raises(OptionError, match="probes"):
        spectral_density(lambda v: v, start(3), probes=0)


@pytest.mark.parametrize("deflated", [False, True])
def test_traces_lie_within_their_errors_as_often_as_they_should(deflated: bool) -> None:
    # 60 sets of 20 probes: |z| > 2 about 5 % of the time (Student, 19 degrees: 6 %), four errors above: 19 %.
    matrix = rotated(SPREAD)
    space = eigenpairs(lambda v: matrix @ v, start(200), largest=3, smallest=1, tolerance=1e-6).space
    source = torch.Generator().manual_seed(2)
    outside = [0, 0]
    for _ in range(60):
        found = trace(
            lambda v: matrix @ v,
            start(200),
            space=space if deflated else None,
            tolerance=1e-9,
            least=20,
            most=20,
            generator=source,
        )
        outside[0] += abs(found.value - float(matrix.trace())) > 2 * found.stderr
        outside[1] += abs(found.square - float(matrix.square().sum())) > 2 * found.square_stderr
    assert max(outside) <= 0.19 * 60


def test_what_a_krylov_space_holds_is_not_sampled() -> None:
    matrix = rotated(torch.cat([torch.tensor([50.0, -40.0]), torch.linspace(0, 0.1, 198)]))
    space = eigenpairs(lambda v: matrix @ v, start(200), smallest=1, tolerance=1e-8).space
    plain, deflated = (
        trace(lambda v: matrix @ v, start(200), space=given, tolerance=1e-9, least=20, most=20)
        for given in (None, space)
    )
    assert deflated.stderr < plain.stderr / 20
    assert abs(deflated.value - float(matrix.trace())) < 4 * deflated.stderr
    assert abs(deflated.square - float(matrix.square().sum())) < 4 * deflated.square_stderr + 1e-6


def test_a_space_that_has_not_converged_is_still_taken_out_exactly() -> None:
    matrix = rotated(SPREAD)
    space = Krylov(lambda v: matrix @ v, start(200), 4)
    for _ in range(4):
        space.grow()
    assert space.left > 0.5  # what the space does not hold of H v is no rounding
    found = trace(
        lambda v: matrix @ v, start(200), space=space, tolerance=1e-9, least=20, most=20,
        generator=torch.Generator().manual_seed(3),
    )  # fmt: skip
    source, V = torch.Generator().manual_seed(3), space.basis
    signs = torch.stack([start(200).bernoulli_(0.5, generator=source) * 2 - 1 for _ in range(20)])
    outside = signs - signs @ V.T @ V  # the same probes, projected by hand
    value = (V @ matrix @ V.T).trace() + (outside @ matrix * outside).sum(1).mean()
    square = (V @ matrix).square().sum() + (outside @ matrix).square().sum(1).mean()
    assert found.value == pytest.approx(float(value), rel=1e-9)
    assert found.square == pytest.approx(float(square), rel=1e-9)


def test_a_trace_of_few_columns_is_exact() -> None:
    matrix = rotated(torch.arange(6.0))
    found = trace(lambda v: matrix @ v, start(6))
    assert (found.stderr, found.products) == (0.0, 6)
    assert found.value == pytest.approx(15)
    assert found.square == pytest.approx(55)


def test_quadrature_gives_traces_shares_and_a_density_of_one() -> None:
    matrix = rotated(SPREAD)
    found = spectral_density(lambda v: matrix @ v, start(200), probes=12, steps=30)
    for power, truth in ((0, 200.0), (1, float(SPREAD.sum())), (2, float(SPREAD.square().sum()))):
        value, stderr = found.moment(power)
        assert abs(value - truth) <= 4 * stderr + 1e-9
    low, high = found.share(-0.5, 1.0)
    inside = float(((SPREAD > -0.5) & (SPREAD < 1.0)).double().mean())
    spread = float(low.std()) / math.sqrt(12)
    assert float(low.mean()) - 4 * spread < inside < float(high.mean()) + 4 * spread
    assert float((high - low).mean()) < 0.25
    grid = torch.linspace(-8, 12, 2001).double()
    curve, _ = found.curve(grid, 0.2)
    assert float(torch.trapezoid(curve, grid)) == pytest.approx(1, abs=1e-3)


def test_bounds_of_a_share_hold_for_the_measure_of_each_probe() -> None:
    values = torch.linspace(-1, 1, 100).double()
    for steps in (3, 10, 40):
        source = torch.Generator().manual_seed(steps)
        found = spectral_density(lambda v: values * v, values, probes=5, steps=steps, generator=source)
        # At every place between two nodes: a bound that counts a node too few fails just below the next.
        for left, right in [(-0.3, 0.45), *((-2.0, x / 50 + 0.003) for x in range(-48, 49))]:
            low, high = found.share(left, right)
            inside = float(((values > left) & (values < right)).double().mean())  # equal weights: signs
            assert (low <= inside + 1e-12).all()
            assert (high >= inside - 1e-12).all()


def test_the_basis_stays_orthonormal_where_eigenvalues_differ_by_powers_of_ten() -> None:
    values = torch.cat([torch.logspace(-12, -6, 190), torch.tensor([1e3, 1e2, 1.0])]).double()
    space = Krylov(lambda v: values * v, start(193), 60)
    for _ in range(60):
        space.grow()
    assert (space.basis @ space.basis.T - torch.eye(60)).abs().max() < 1e-13


def test_an_error_is_the_residual_or_its_square_over_the_gap_to_where_a_neighbour_may_be() -> None:
    values = torch.tensor([0.0, 1.0, 1.5]).double()
    clear = _errors(values, torch.tensor([0.4, 0.2, 0.1]).double(), exact=False)
    # squares over the gaps: 0.16 over 1 - 0.2, 0.04 over 0.5 - 0.1 (not 1 - 0.4), 0.01 over 0.5 - 0.2
    assert clear.tolist() == pytest.approx([0.2, 0.1, 1 / 30])
    near = _errors(values, torch.tensor([0.4, 0.2, 0.35]).double(), exact=False)
    assert near.tolist() == pytest.approx([0.2, 0.2, 0.35])  # gaps below the residuals prove nothing more
    assert _errors(values, values, exact=True) is values


def test_a_start_inside_an_invariant_space_does_not_hide_what_lies_outside() -> None:
    values = torch.arange(1.0, 51.0).double()
    inside = torch.zeros(50).double()
    inside[:4] = 1.0
    found = eigenpairs(
        lambda v: values * v, inside, tolerance=1e-8, generator=torch.Generator().manual_seed(0)
    )
    assert float(found.values[0]) == pytest.approx(50.0)
