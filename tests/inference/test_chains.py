"""Kernels on real columns: what they leave unchanged, their energies, their warm-up."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from leadline.core import LeadlineError
from leadline.core.randomness import generator_for
from leadline.inference import chains
from leadline.inference.chains import (
    NUTS,
    Hamiltonian,
    Langevin,
    Metric,
    Metropolis,
    Proposed,
    RandomWalk,
    State,
    Tempered,
    Tempering,
    Unadjusted,
    WithGradient,
)
from leadline.inference.chains.adaptation import Warmup, windows
from leadline.inference.chains.kernel import value_and_gradient
from leadline.inference.chains.metric import Moments
from leadline.inference.chains.moves import leapfrog
from leadline.inference.chains.nuts import _doubled, _root, _Walk

MEAN = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
COVARIANCE = torch.tensor([[1.0, 0.6, 0.0], [0.6, 2.0, -0.5], [0.0, -0.5, 0.5]], dtype=torch.float64)
PRECISION = torch.linalg.inv(COVARIANCE)
ROOT = torch.linalg.cholesky(COVARIANCE)


def normal_density(x: Tensor) -> Tensor:
    gap = x - MEAN
    return -0.5 * (gap @ PRECISION * gap).sum(1)


def quartic(x: Tensor) -> Tensor:
    """Not normal, not symmetric: exp(-x^4 / 4 + x / 2)."""
    return (-0.25 * x**4 + 0.5 * x).sum(1)


def exact_draws(n: int, generator: torch.Generator) -> Tensor:
    return MEAN + torch.randn(n, 3, generator=generator, dtype=torch.float64) @ ROOT.T


def exact_quartic(n: int, generator: torch.Generator) -> Tensor:
    """Draws of the quartic by its distribution function on a fine grid."""
    grid = torch.linspace(-5, 5, 20001, dtype=torch.float64)
    cdf = quartic(grid[:, None]).exp().cumsum(0)
    u = torch.rand(n, generator=generator, dtype=torch.float64) * cdf[-1]
    return grid[torch.searchsorted(cdf, u).clamp(max=20000)][:, None]


DENSE = Metric(torch.tensor([[0.8, 0.3, 0.0], [0.3, 1.5, 0.0], [0.0, 0.0, 0.6]], dtype=torch.float64))
DIAGONAL = Metric(torch.tensor([0.5, 2.0, 1.0], dtype=torch.float64))
KERNELS: dict[str, Callable[[Any], Any]] = {
    "random walk": lambda f: Metropolis(f, RandomWalk(0.9)),
    "random walk, dense": lambda f: Metropolis(f, RandomWalk(0.9, DENSE)),
    "mala": lambda f: Metropolis(f, Langevin(0.3)),
    "mala, diagonal": lambda f: Metropolis(f, Langevin(0.3, DIAGONAL)),
    "hmc": lambda f: Metropolis(f, Hamiltonian(0.4, leapfrogs=4)),
    "hmc, dense": lambda f: Metropolis(f, Hamiltonian(0.5, DENSE, leapfrogs=3)),
    "nuts": lambda f: NUTS(f, 0.35),
    "nuts, coarse": lambda f: NUTS(f, 0.9),
    "nuts, diagonal": lambda f: NUTS(f, 0.4, DIAGONAL),
    "nuts, dense": lambda f: NUTS(f, 0.5, DENSE),
    "nuts, all together": lambda f: NUTS(f, 0.35, per_chain=True),
    "nuts, shallow": lambda f: NUTS(f, 0.2, max_depth=2),
}


def quantile_test(before: Tensor, after: Tensor) -> float:
    """Return the largest normalised gap between two samples' shares below 19 fixed levels and of moments."""
    n, found = len(before), 0.0
    for column in range(before.shape[1]):
        levels = before[:, column].quantile(torch.linspace(0.05, 0.95, 19, dtype=before.dtype))
        for level in levels:
            a, b = (x[:, column] <= level for x in (before, after))
            p = float(a.double().mean())
            found = max(found, abs(float(b.double().mean()) - p) / math.sqrt(2 * p * (1 - p) / n))
    return found


@pytest.mark.parametrize("name", KERNELS)
def test_exact_draws_stay_exact_draws_of_a_correlated_normal(name: str) -> None:
    generator, n = generator_for(3, name), 30_000
    kernel = KERNELS[name](normal_density)
    state = kernel.init(exact_draws(n, generator))
    for _ in range(6):
        state, _ = kernel.step(state, generator)
    x = state.position
    error = 4.5 / math.sqrt(n)
    assert ((x.mean(0) - MEAN).abs() / COVARIANCE.diagonal().sqrt()).max() < error
    gap = (x - MEAN).T @ (x - MEAN) / n - COVARIANCE
    scale = (COVARIANCE.diagonal()[:, None] * COVARIANCE.diagonal() + COVARIANCE.square()).sqrt()
    assert (gap.abs() / scale).max() < error


@pytest.mark.parametrize("name", ["random walk", "mala", "hmc", "nuts", "nuts, coarse", "nuts, shallow"])
def test_exact_draws_stay_exact_draws_of_a_skew_target(name: str) -> None:
    generator, n = generator_for(4, name), 20_000
    kernel = KERNELS[name](quartic)
    fresh = exact_quartic(n, generator)
    state = kernel.init(exact_quartic(n, generator))
    for _ in range(5):
        state, told = kernel.step(state, generator)
    assert quantile_test(fresh, state.position) < 4.5
    assert float(told.acceptance.mean()) > 0.3


@pytest.mark.parametrize("name", KERNELS)
def test_every_kernel_moves_and_repeats_under_one_generator(name: str) -> None:
    kernel = KERNELS[name](normal_density)
    ends = []
    for seed in (1, 1, 2):
        generator = generator_for(seed, "repeat")
        state = kernel.init(torch.zeros(20, 3, dtype=torch.float64))
        for _ in range(3):
            state, _ = kernel.step(state, generator)
        ends.append(state.position)
        assert torch.allclose(state.log_density, normal_density(state.position))
        if state.gradient is not None:
            assert torch.allclose(state.gradient, value_and_gradient(normal_density)(state.position)[1])
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])
    assert (ends[0] != 0).any(1).double().mean() > 0.8


def test_nuts_takes_joint_draws_of_parameter_and_data_as_the_model_does() -> None:
    """Geweke (2004): parameter given data and data given parameter in turn has the prior as its marginal."""
    generator, n = generator_for(0, "geweke"), 20_000
    theta = torch.randn(n, 1, generator=generator, dtype=torch.float64)
    for _ in range(4):
        y = theta + 0.5 * torch.randn(n, 1, generator=generator, dtype=torch.float64)

        def posterior(t: Tensor, y: Tensor = y) -> Tensor:
            return (-0.5 * t.square() - 0.5 * ((y - t) / 0.5).square()).sum(1)

        kernel = NUTS(posterior, 0.3, per_chain=True)
        theta = kernel.step(kernel.init(theta), generator)[0].position
    assert abs(float(theta.mean())) < 4 / math.sqrt(n)
    assert abs(float(theta.var()) - 1) < 4 * math.sqrt(2 / n)


def test_the_energy_error_of_the_leapfrog_is_of_second_order_and_it_reverses() -> None:
    unit = Metric.unit(MEAN)
    kernel = Metropolis(quartic, Hamiltonian())
    state = kernel.init(torch.linspace(-1.2, 1.4, 8, dtype=torch.float64)[:, None])
    p = torch.linspace(1.0, -0.7, 8, dtype=torch.float64)[:, None]

    def energy_error(step: float, count: int) -> float:
        end, q = leapfrog(quartic, unit, state, p, step, count)
        before, after = unit.kinetic(p) - state.log_density, unit.kinetic(q) - end.log_density
        return float((after - before).abs().mean())

    errors = [energy_error(0.8 / count, count) for count in (16, 32, 64)]
    orders = [math.log2(a / b) for a, b in pairwise(errors)]
    assert all(1.9 < order < 2.1 for order in orders), orders
    end, q = leapfrog(quartic, unit, state, p, 0.1, 9)
    back, r = leapfrog(quartic, unit, end, -q, 0.1, 9)
    assert torch.allclose(back.position, state.position, atol=1e-12)
    assert torch.allclose(-r, p, atol=1e-12)


def test_the_leapfrog_keeps_volume() -> None:
    unit = Metric.unit(MEAN)

    def flow(z: Tensor) -> Tensor:
        state = Metropolis(quartic, Hamiltonian()).init(z[None, :1])
        end, q = leapfrog(quartic, unit, state, z[None, 1:], 0.3, 5)
        return torch.cat([end.position[0], q[0]])

    z, h = torch.tensor([0.7, -0.4], dtype=torch.float64), 1e-6
    jacobian = torch.stack([(flow(z + h * e) - flow(z - h * e)) / (2 * h) for e in torch.eye(2).double()], 1)
    assert float(torch.linalg.det(jacobian)) == pytest.approx(1.0, abs=1e-8)


@pytest.mark.parametrize(("eta", "rate"), [(0.5, 1.0), (0.2, 1.0), (0.1, 1.0), (0.05, 1.0), (0.2, 3.0)])
def test_unadjusted_langevin_has_its_known_bias_and_mala_none(eta: float, rate: float) -> None:
    # x' = (1 - eta l) x + sqrt(2 eta) xi is stationary at variance 1 / (l (1 - eta l / 2)), l the precision.
    generator, n = generator_for(0, eta), 40_000
    biased = 1 / (rate * (1 - eta * rate / 2))
    variances = {}
    for kind in (Unadjusted, Metropolis):
        kernel = kind(lambda x: -0.5 * rate * x.square().sum(1), Langevin(eta))
        scale = biased**0.5 if kind is Unadjusted else rate**-0.5
        state = kernel.init(scale * torch.randn(n, 1, generator=generator, dtype=torch.float64))
        for _ in range(20):
            state, _ = kernel.step(state, generator)
        variances[kind] = float(state.position.var())
    assert abs(variances[Unadjusted] - biased) < 4.5 * biased * math.sqrt(2 / n)
    assert abs(variances[Metropolis] - 1 / rate) < 4.5 / rate * math.sqrt(2 / n)


def test_unadjusted_langevin_leaves_a_target_steeper_than_its_step() -> None:
    kernel = Unadjusted(lambda x: -0.5 * 5.0 * x.square().sum(1), Langevin(0.5))  # eta lambda = 2.5 >= 2
    state = kernel.init(torch.ones(10, 1, dtype=torch.float64))
    for _ in range(2000):
        state, told = kernel.step(state)
    assert bool(told.divergent.all())


def test_an_asymmetric_proposal_needs_its_ratio() -> None:
    """Multiplying by a log-normal factor on x > 0: q(x | x') / q(x' | x) = x' / x."""
    n, generator = 20_000, generator_for(0, "scale")

    def exponential(x: Tensor) -> Tensor:
        return torch.where(x > 0, -x, -torch.inf).sum(1)

    def scaled(x: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        factor = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        return x * factor.exp(), factor.sum(1)

    def wrong(x: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        return scaled(x, generator)[0], torch.zeros(len(x), dtype=x.dtype)

    means = []
    for proposal in (scaled, wrong):
        kernel = Metropolis(exponential, Proposed(proposal))
        state = kernel.init(torch.empty(n, 1, dtype=torch.float64).exponential_(generator=generator))
        for _ in range(10):
            state, _ = kernel.step(state, generator)
        means.append(float(state.position.mean()))
    assert abs(means[0] - 1) < 4 / math.sqrt(n)
    assert abs(means[1] - 1) > 0.2


def test_nuts_doubles_until_it_turns_and_not_a_period_later() -> None:
    # Half a period of a unit normal is pi: 31 steps of 0.1 may turn or not, 63 must. A whole period is
    # 63 steps: a check of the ends alone would then see no turn at 63, 127, 255, ...
    kernel = NUTS(lambda x: -0.5 * x.square().sum(1), 0.1)
    state = kernel.init(torch.randn(500, 8, dtype=torch.float64))
    _, told = kernel.step(state, generator_for(0))
    assert float(told.steps.max()) <= 63
    assert 15 <= float(told.steps.median()) <= 63
    assert float(told.acceptance.min()) > 0.97
    shallow = NUTS(kernel.log_density, 0.05, max_depth=3)
    assert float((shallow.step(state)[1].steps == 7).double().mean()) > 0.98


def test_a_step_far_too_long_is_told_as_divergent() -> None:
    for kernel in (NUTS(quartic, 1e3), Metropolis(quartic, Hamiltonian(1e3))):
        state, told = kernel.step(kernel.init(torch.ones(5, 2, dtype=torch.float64)))
        assert bool(told.divergent.all())
        assert bool((state.position == 1).all())


def test_a_gradient_by_hand_gives_the_same_chain_as_autograd() -> None:
    by_hand = WithGradient(lambda x: (normal_density(x), -(x - MEAN) @ PRECISION))
    start = torch.zeros(10, 3, dtype=torch.float64)
    ends = []
    for density in (normal_density, by_hand):
        kernel = NUTS(density, 0.3)
        ends.append(kernel.step(kernel.init(start), generator_for(0))[0].position)
    assert torch.allclose(ends[0], ends[1], atol=1e-12)


def test_chains_of_matrices_are_those_of_their_entries() -> None:
    def density(x: Tensor) -> Tensor:
        return normal_density(x.flatten(1))

    start = torch.zeros(10, 3, dtype=torch.float64)
    for make in (KERNELS["nuts, dense"], KERNELS["hmc, dense"], KERNELS["mala, diagonal"]):
        flat, square = make(density), make(density)
        one, _ = flat.step(flat.init(start), generator_for(0))
        two, _ = square.step(square.init(start.view(10, 3, 1)), generator_for(0))
        assert torch.allclose(one.position, two.position.view(10, 3), atol=1e-12)


@pytest.mark.parametrize("metric", [Metric(torch.tensor(2.0).double()), DIAGONAL, DENSE])
def test_momentum_has_the_covariance_whose_inverse_is_the_metric(metric: Metric) -> None:
    C = metric.covariance
    full = C * torch.eye(3).double() if C.dim() == 0 else (C.diag() if C.dim() == 1 else C)
    like = torch.zeros(200_000, 3, dtype=torch.float64)
    p, x = metric.momentum(like, generator_for(0)), metric.noise(like, generator_for(1))
    assert torch.allclose(p.T @ p / len(p), torch.linalg.inv(full), atol=0.03)
    assert torch.allclose(x.T @ x / len(x), full, atol=0.03)
    assert torch.allclose(metric.kinetic(p), 0.5 * (p @ full * p).sum(1))


def test_moments_pooled_batch_by_batch_are_those_of_all() -> None:
    x = torch.randn(60, 3, dtype=torch.float64) @ ROOT.T + MEAN
    for dense in (True, False):
        moments = Moments(dense=dense)
        for part in x.split([7, 20, 33]):
            moments.add(part)
        covariance = x.T.cov() if dense else x.var(0)
        share = 60 / 65
        floor = 1e-3 * 5 / 65
        want = share * covariance + (floor * torch.eye(3) if dense else floor)
        assert torch.allclose(moments.metric(x).covariance, want)


@pytest.mark.parametrize("kernel", ["nuts", "hmc", "mala", "random walk"])
def test_the_warm_up_finds_the_target_acceptance_and_the_scales(kernel: str) -> None:
    scales = torch.tensor([0.1, 1.0, 10.0], dtype=torch.float64)
    found = chains.sample(
        lambda x: -0.5 * (x / scales).square().sum(1), torch.zeros(30, 3, dtype=torch.float64), kernel,
        warmup=400, draws=200, generator=generator_for(0, kernel),
    )  # fmt: skip
    part = getattr(found.kernel, "move", found.kernel)
    assert abs(float(found.acceptance.mean()) - part.target_acceptance) < 0.15
    ratio = part.metric.covariance.sqrt() / scales
    assert float(ratio[:2].max()) < 1.4
    assert float(ratio[:2].min()) > 0.7
    assert float(found.r_hat.max()) < 1.1


def test_a_dense_metric_learns_the_correlations() -> None:
    found = chains.sample(
        normal_density, torch.zeros(100, 3, dtype=torch.float64), warmup=150, draws=50, metric="dense",
        generator=generator_for(0),
    )  # fmt: skip
    assert torch.allclose(found.kernel.metric.covariance, COVARIANCE, atol=0.2)


def test_windows_cover_the_middle_of_the_warm_up_and_double() -> None:
    ends = windows(1000)
    sizes = [b - a for a, b in zip([75, *ends], ends, strict=False)]
    assert ends[-1] == 950
    assert all(b >= 2 * a for a, b in pairwise(sizes))
    assert windows(0) == []
    for steps in range(1, 60):
        assert all(0 < end <= steps for end in windows(steps))
        tuning = Warmup(NUTS(normal_density), steps)
        assert tuning.end() is tuning.kernel


def test_draws_go_on_where_they_stood() -> None:
    start = torch.zeros(4, 3, dtype=torch.float64)
    whole = chains.sample(normal_density, start, warmup=20, draws=12, generator=generator_for(0))
    generator = generator_for(0)
    first = chains.sample(normal_density, start, warmup=20, draws=5, generator=generator)
    rest = chains.resume(first, 7, generator=generator)
    assert torch.equal(whole.draws, torch.cat([first.draws, rest.draws], 1))


@pytest.mark.parametrize("warmup", [10, 20, 50])
@pytest.mark.parametrize("kernel", ["nuts", "hmc", "mala", "random walk"])
def test_a_warm_up_of_a_few_steps_of_many_chains_leaves_a_step_that_works(kernel: str, warmup: int) -> None:
    found = chains.sample(
        lambda x: -0.5 * x.square().sum(1), torch.zeros(300, 3).double(), kernel, warmup=warmup, draws=20,
        generator=generator_for(warmup, kernel),
    )  # fmt: skip
    part = getattr(found.kernel, "move", found.kernel)
    assert abs(float(found.acceptance.mean()) - part.target_acceptance) < 0.35


@pytest.mark.parametrize("warmup", [1, 3, 5])
@pytest.mark.parametrize("kernel", ["nuts", "hmc", "mala", "random walk"])
def test_not_even_a_warm_up_of_a_step_or_five_freezes_the_chains(kernel: str, warmup: int) -> None:
    start = torch.randn(300, 3, generator=generator_for(warmup, kernel)).double()
    found = chains.sample(
        lambda x: -0.5 * x.square().sum(1), start, kernel, warmup=warmup, draws=20,
        generator=generator_for(warmup, kernel),
    )  # fmt: skip
    assert float(found.acceptance.mean()) > 0.1


def test_a_warm_up_leaves_the_step_of_unadjusted_langevin_alone() -> None:
    found = chains.sample(normal_density, torch.zeros(50, 3).double(), "langevin", warmup=60, draws=20)
    assert found.kernel.move == Langevin(0.01)
    assert not bool(found.divergent.any())


def test_chains_of_plain_numbers_need_no_further_axis() -> None:
    def density(x: Tensor) -> Tensor:
        return -0.5 * x.square().reshape(len(x), -1).sum(1)

    for name in chains.KERNELS:
        ends = [
            chains.sample(density, start, name, warmup=12, draws=6, generator=generator_for(0)).draws
            for start in (torch.zeros(6).double(), torch.zeros(6, 1).double())
        ]
        assert torch.equal(ends[0], ends[1][..., 0])


def test_ctrl_c_between_draws_keeps_the_draws_and_they_go_on() -> None:
    class Stopped:
        def __init__(self, inner: Any, at: int) -> None:
            self.inner, self.left = inner, at
            self.init = inner.init

        def step(self, state: Any, generator: torch.Generator | None = None) -> Any:
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
            return self.inner.step(state, generator)

    start, kernel = torch.zeros(4, 3, dtype=torch.float64), NUTS(normal_density, 0.3)
    whole = chains.run(kernel, start, draws=9, thin=2, generator=generator_for(0))
    generator = generator_for(0)
    with pytest.raises(KeyboardInterrupt, match="after 5 of 9 draws") as stop:
        chains.run(Stopped(kernel, 10), start, draws=9, thin=2, generator=generator)
    assert isinstance(stop.value, chains.InterruptedChains)
    kept = stop.value.chains
    assert torch.equal(kept.draws, whole.draws[:, :5])
    assert torch.equal(kept.steps, whole.steps[:, :5])
    kept.kernel.left = 99
    rest = chains.resume(kept, 4, thin=2, generator=generator)
    assert torch.equal(rest.draws, whole.draws[:, 5:])
    with pytest.raises(KeyboardInterrupt) as early:
        chains.run(Stopped(kernel, 1), start, draws=9, thin=2)
    assert not isinstance(early.value, chains.InterruptedChains)


def test_one_chain_or_one_draw_is_said_to_be_too_little() -> None:
    alone = chains.sample(normal_density, torch.zeros(1, 3).double(), warmup=30, draws=20, metric="dense")
    assert alone.draws.shape == (1, 20, 3)
    assert not alone.trusted
    assert "too short to tell" in str(alone)
    once = chains.sample(normal_density, torch.zeros(5, 3).double(), warmup=0, draws=1)
    assert "too few draws to judge" in str(once)
    assert not once.trusted
    stuck = chains.sample(lambda x: -1e9 * x.square().sum(1), torch.randn(4, 3).double(), warmup=0, draws=9)
    assert "R-hat inf" in str(stuck)


def test_a_start_that_asks_for_gradients_gives_draws_that_hold_no_graph() -> None:
    start = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
    for kernel in ("nuts", "random walk"):
        assert not chains.sample(normal_density, start, kernel, warmup=2, draws=2).draws.requires_grad


def test_a_density_that_is_nan_beyond_an_edge_is_never_left_for_it() -> None:
    def edged(x: Tensor) -> Tensor:
        return torch.where(x.sum(1) > 1, torch.nan, normal_density(x))

    for kernel in ("nuts", "hmc", "mala", "random walk"):
        run = chains.sample(edged, torch.zeros(20, 3).double(), kernel, warmup=30, draws=30)
        assert float(run.draws.sum(2).max()) <= 1
        assert bool(torch.isfinite(run.draws).all())
        assert float(run.draws.std()) > 0.2


REVERSIBLE = [
    "random walk",
    "mala",
    "hmc",
    "nuts",
    "nuts, coarse",
    "nuts, shallow",
    "mala, diagonal",
    "hmc, dense",
]


@pytest.mark.parametrize("name", REVERSIBLE)
def test_every_refusing_kernel_is_in_detailed_balance(name: str) -> None:
    """From exact draws, E[f(x) g(x')] = E[g(x) f(x')] for all f and g if and only if the chain reverses."""
    generator, n = generator_for(5, name), 40_000
    flat = name in ("mala, diagonal", "hmc, dense")
    kernel = KERNELS[name](normal_density if flat else quartic)
    x = exact_draws(n, generator) if flat else exact_quartic(n, generator)
    y = kernel.step(kernel.init(x), generator)[0].position
    a, b = x[:, 0], y[:, 0]
    for f, g in (
        (torch.sin, torch.square),
        (torch.sigmoid, torch.cos),
        (lambda z: (z > 0.5).double(), torch.exp),
    ):
        flow = f(a) * g(b) - g(a) * f(b)
        assert abs(float(flow.mean())) < 4.5 * float(flow.std()) / math.sqrt(n)


def test_unadjusted_langevin_is_not_in_balance_with_its_target() -> None:
    generator, n = generator_for(5), 40_000
    kernel = Unadjusted(quartic, Langevin(0.6))
    x = exact_quartic(n, generator)
    y = kernel.step(kernel.init(x), generator)[0].position
    flow = ((y.abs() > 2).double() - (x.abs() > 2).double()).flatten()  # f = 1
    assert abs(float(flow.mean())) > 8 * float(flow.std()) / math.sqrt(n)


@pytest.mark.parametrize("name", ["random walk", "mala", "hmc"])
def test_joint_draws_of_parameter_and_data_keep_the_prior(name: str) -> None:
    """Geweke (2004), as for the no-U-turn sampler above: each chain has a posterior of its own."""
    generator, n = generator_for(0, "geweke", name), 20_000
    theta = torch.randn(n, 1, generator=generator, dtype=torch.float64)
    for _ in range(5):
        y = theta + 0.5 * torch.randn(n, 1, generator=generator, dtype=torch.float64)

        def posterior(t: Tensor, y: Tensor = y) -> Tensor:
            return (-0.5 * t.square() - 0.5 * ((y - t) / 0.5).square()).sum(1)

        kernel = KERNELS[name](posterior)
        theta = kernel.step(kernel.init(theta), generator)[0].position
    assert abs(float(theta.mean())) < 4 / math.sqrt(n)
    assert abs(float(theta.var()) - 1) < 4 * math.sqrt(2 / n)


def test_every_tensor_of_a_step_follows_the_device_of_its_state() -> None:
    """On the meta device a tensor that was made elsewhere cannot meet those of the state."""
    meta = torch.device("meta")
    x = torch.empty(6, 3, device=meta)
    state = State(x, torch.empty(6, device=meta), torch.empty_like(x))
    for C in (torch.ones(3), torch.eye(3)):
        metric = Metric(C)
        object.__setattr__(metric, "covariance", metric.covariance.to(meta))
        object.__setattr__(metric, "_inverse_root", metric._inverse_root.to(meta))
        moves = (RandomWalk(0.5, metric), Langevin(0.1, metric), Hamiltonian(0.1, metric, 3, jitter=0.0))
        for kernel in [make(quartic, move) for make in (Metropolis, Unadjusted) for move in moves]:
            after, told = kernel.step(state)
            assert after.position.device == told.acceptance.device == told.steps.device == meta
    copies = State(x, torch.empty(6, device=meta), None)
    swapped, _ = Tempering(quartic, (1.0, 0.5, 0.2)).step(Tempered(copies, 3, torch.empty(2, device=meta)))
    assert swapped.state.position.device == meta
    scalar = Metric.unit(torch.empty(()))
    tree, _, done = _doubled(_root(state, x, scalar), _Walk(quartic, scalar, 0.1), 1, None)
    assert tree.draw.position.device == done.device == meta


def test_parallel_tempering_crosses_what_a_random_walk_cannot() -> None:
    # Two normals of width 1 at -8 and 8 with weights 1 and 3.
    def two(x: Tensor) -> Tensor:
        return torch.logaddexp(-0.5 * (x + 8).square(), math.log(3.0) - 0.5 * (x - 8).square()).sum(1)

    start = torch.full((100, 1), -8.0, dtype=torch.float64)
    kernel = Tempering(two, (1.0, 0.25, 0.06), RandomWalk(2.0))
    found = chains.run(kernel, start, draws=1500, generator=generator_for(0))
    right = (found.draws[:, 500:] > 0).double().mean((1, 2))
    assert abs(float(right.mean()) - 0.75) < 4 * float(right.std()) / 10
    assert float(right.std()) < 0.2
    alone = chains.run(Metropolis(two, RandomWalk(2.0)), start, draws=500, generator=generator_for(0))
    assert float((alone.draws > 0).double().mean()) < 0.02
    hamiltonian = Tempering(two, (1.0, 0.3, 0.1, 0.03), Hamiltonian(0.5, leapfrogs=5))
    quick = chains.run(hamiltonian, start, draws=400, generator=generator_for(0))
    assert 0.5 < float((quick.draws[:, 200:] > 0).double().mean()) < 0.95


def test_on_the_funnel_r_hat_says_that_the_chains_do_not_mix() -> None:
    """Neal's funnel: v ~ N(0, 9), x_i | v ~ N(0, e^v), nine of them."""

    def funnel(z: Tensor) -> Tensor:
        v, x = z[:, 0], z[:, 1:]
        return -v.square() / 18 - 0.5 * x.square().sum(1) * (-v).exp() - 4.5 * v

    start = torch.randn(40, 10, generator=generator_for(0), dtype=torch.float64) * 2
    found = chains.sample(funnel, start, "hmc", warmup=300, draws=300, generator=generator_for(1))
    assert float(found.r_hat[0]) > 1.01
    assert not found.trusted
    assert "the chains disagree" in str(found)


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (lambda: chains.sample(normal_density, torch.zeros(0, 3)), "with a chain"),
        (lambda: chains.sample(normal_density, torch.tensor(1.0)), "with a chain"),
        (lambda: chains.sample(normal_density, torch.zeros(2, 3).long()), "real numbers"),
        (lambda: chains.sample(lambda x: -x.square(), torch.ones(2, 3)), "a number a chain"),
        (lambda: chains.sample(lambda x: x.sum(1).log(), -torch.ones(2, 3)), "at the start of chain 0"),
        (lambda: chains.sample(lambda x: x.sum(1) - torch.inf, torch.ones(2, 3)), "-inf at the start"),
        (lambda: chains.sample(lambda x: x.sum(1) * torch.nan, torch.ones(2, 3)), "nan at the start"),
        (lambda: chains.sample(lambda x: -x.norm(dim=1).sqrt(), torch.zeros(2, 3)), "gradient .* not finite"),
        (lambda: chains.sample(lambda x: x.sum(), torch.ones(2, 3)), r"shape \(2,\), got \(\)"),
        (lambda: chains.sample(lambda x: x.detach().sum(1), torch.ones(2, 3)), "has no gradient"),
        (lambda: chains.sample(lambda _: 1.0, torch.ones(2, 3)), "has no gradient"),  # type: ignore[arg-type,return-value]
        (lambda: chains.sample(lambda _: 1.0, torch.ones(2, 3), "random walk"), "got float"),  # type: ignore[arg-type,return-value]
        (lambda: chains.sample(normal_density, [[0.0]]), "not list"),  # type: ignore[arg-type]
        (lambda: chains.sample(normal_density, torch.zeros(3, 0)), "with a chain"),
        (
            lambda: chains.sample(WithGradient(lambda x: (x.sum(1), x.sum(1))), torch.ones(2, 3)),
            r"shape of x, \(2, 3\), got \(2,\)",
        ),
        (lambda: chains.sample(WithGradient(lambda x: x.sum(1)), torch.ones(2, 3)), "two tensors"),  # type: ignore[arg-type,return-value]
        (lambda: chains.sample(normal_density, torch.zeros(2, 3), "nut"), "did you mean"),
        (lambda: chains.sample(normal_density, torch.zeros(2, 3), warmup=-1), "warmup >= 0"),
        (lambda: chains.sample(normal_density, torch.zeros(2, 3), draws=0), "draws >= 1"),
        (lambda: chains.sample(normal_density, MEAN[None], metric="full"), "dense"),  # type: ignore[arg-type]
        (lambda: NUTS(normal_density, -1.0), "step_size > 0"),
        (lambda: NUTS(normal_density, max_depth=0), "max_depth"),
        (lambda: Hamiltonian(leapfrogs=0), "leapfrogs"),
        (lambda: Metric(torch.tensor([1.0, -1.0])), "positive definite"),
        (lambda: Metric(torch.tensor([[1.0, 2.0], [2.0, 1.0]])), "positive definite"),
        (lambda: Metric(torch.tensor([1.0, torch.nan])), "positive definite"),
        (lambda: Metric(torch.ones(2, 3)), "has shape"),
        (lambda: Tempering(normal_density, (1.0, 1.0)), "fall from 1"),
        (lambda: Tempering(normal_density, (0.5, 0.1)), "fall from 1"),
        (
            lambda: chains.run(
                Metropolis(normal_density, Proposed(lambda x, _: (x, x))), MEAN[None], draws=1
            ),
            "a log ratio",
        ),
    ],
)
def test_wrong_input_gets_one_clear_line(task: Callable[[], object], said: str) -> None:
    with pytest.raises(LeadlineError, match=said) as error:
        task()
    assert "\n" not in str(error.value)
