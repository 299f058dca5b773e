"""Annealed importance sampling against normal densities, whose constants are known."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from leadline.core import ShapeError
from leadline.inference.annealed import AISResult, Sandwich, annealed_importance

SCALE = 0.3  # exp(-x^2 / (2 SCALE^2)) integrates to SCALE sqrt(2 pi); the start's to sqrt(2 pi)
TRUTH = 3 * math.log(SCALE)


def precision(temperature: float) -> float:
    return (1 - temperature) + temperature / SCALE**2


def log_density(x: Tensor, temperature: float) -> Tensor:
    return -0.5 * precision(temperature) * x.square().sum(1)


def redraw(x: Tensor, temperature: float, generator: torch.Generator | None) -> Tensor:
    """Autoregressive kernel that leaves the normal of this temperature unchanged."""
    noise = torch.empty_like(x).normal_(generator=generator) / math.sqrt(precision(temperature))
    return 0.6 * x + 0.8 * noise


def run(*, temperatures: int, particles: int, backward: bool = False, seed: int = 0) -> AISResult:
    generator = torch.Generator().manual_seed(seed)
    start = torch.empty(particles, 3, dtype=torch.float64).normal_(generator=generator)
    path = torch.linspace(0, 1, temperatures, dtype=torch.float64)
    if backward:
        return annealed_importance(log_density, redraw, start * SCALE, path.flip(0), generator)
    return annealed_importance(log_density, redraw, start, path, generator)


def test_the_estimate_is_within_four_standard_errors() -> None:
    result = run(temperatures=60, particles=2000)
    assert abs(result.log_ratio - TRUTH) < 4 * result.stderr
    assert result.stderr < 0.05


def test_the_weights_are_unbiased_even_with_two_temperatures() -> None:
    result = run(temperatures=2, particles=200_000)
    mean = result.log_weights.exp().mean()
    spread = result.log_weights.exp().std() / math.sqrt(200_000)
    assert abs(mean - math.exp(TRUTH)) < 4 * spread


def test_the_stated_error_is_the_spread_of_repeated_runs() -> None:
    results = [run(temperatures=30, particles=100, seed=seed) for seed in range(200)]
    spread = torch.tensor([result.log_ratio for result in results]).std()
    stated = torch.tensor([result.stderr for result in results]).mean()
    assert 0.8 < float(stated / spread) < 1.25
    spread = torch.tensor([result.log_bound for result in results]).std()
    stated = torch.tensor([result.bound_stderr for result in results]).mean()
    assert 0.8 < float(stated / spread) < 1.25


def test_a_sandwich_is_only_as_good_as_the_worse_of_its_runs() -> None:
    good, poor = run(temperatures=40, particles=500), run(temperatures=3, particles=500, backward=True)
    assert poor.effective_sample_size < 0.5 * good.effective_sample_size
    for pair in (Sandwich(good, poor), Sandwich(poor, good)):
        assert pair.effective_sample_size == poor.effective_sample_size
        assert (pair.lower, pair.upper) == (pair.forward.log_bound, -pair.backward.log_bound)


def test_forward_and_backward_bounds_hold_the_truth_between_them() -> None:
    forward = run(temperatures=20, particles=2000)
    backward = run(temperatures=20, particles=2000, backward=True)
    assert forward.log_bound < TRUTH < -backward.log_bound
    assert abs(-backward.log_ratio - TRUTH) < 4 * backward.stderr


def test_more_temperatures_bring_the_bound_closer() -> None:
    gaps = [TRUTH - run(temperatures=size, particles=1000).log_bound for size in (3, 10, 60)]
    assert gaps[0] > gaps[1] > gaps[2] > 0


def test_a_path_that_stands_still_has_ratio_one_and_every_particle_counts() -> None:
    start = torch.randn(50, 3, dtype=torch.float64)
    result = annealed_importance(log_density, redraw, start, torch.tensor([0.5, 0.5, 0.5]))
    assert result.log_ratio == pytest.approx(0, abs=1e-12)
    assert result.stderr == pytest.approx(0, abs=1e-12)
    assert result.effective_sample_size == pytest.approx(50)


def test_the_weighted_particles_have_the_moments_of_the_end() -> None:
    result = run(temperatures=60, particles=4000)
    weights = torch.softmax(result.log_weights, 0)
    variance = (weights[:, None] * result.particles.square()).sum(0).mean()
    # var(x^2) = 2 s^4, three coordinates a particle
    error = math.sqrt(2 / (3 * result.effective_sample_size)) * SCALE**2
    assert abs(float(variance) - SCALE**2) < 4 * error


def test_two_runs_of_one_generator_agree_bit_for_bit() -> None:
    first, second = (run(temperatures=10, particles=20, seed=3) for _ in range(2))
    assert torch.equal(first.log_weights, second.log_weights)


def test_one_particle_claims_no_precision() -> None:
    assert run(temperatures=5, particles=1).stderr == math.inf


@pytest.mark.parametrize(("particles", "temperatures"), [(0, 5), (5, 1)])
def test_nothing_to_average_is_refused(particles: int, temperatures: int) -> None:
    with pytest.raises(ValueError, match="two temperatures and a particle"):
        run(temperatures=temperatures, particles=particles)


@pytest.mark.parametrize(("given", "said"), [(lambda x, t: -x, r"\(5, 2\)"), (lambda x, t: 1.0, "float")])
def test_a_density_that_gives_no_number_a_particle_is_refused(given: Any, said: str) -> None:
    with pytest.raises(ShapeError, match=rf"a number a particle, shape \(5,\), got {said}"):
        annealed_importance(given, lambda x, *_: x, torch.zeros(5, 2), torch.linspace(0, 1, 3))


def test_temperatures_may_stand_in_a_list() -> None:
    found = annealed_importance(lambda x, t: t * x[:, 0], lambda x, *_: x, torch.ones(5, 2), [0.0, 0.5, 1.0])  # type: ignore[arg-type]
    assert found.log_ratio == pytest.approx(1.0)
