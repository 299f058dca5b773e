"""Neural energies: what is normalised, what the chains leave alone, what a step descends on."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from leadline.core import Batch, DomainError, Images, OptionError, Vectors
from leadline.data import Dataset, Split
from leadline.models.boltzmann.energy import Energy
from leadline.training import fit
from tests.tiny import tiny


def energy(dims: int, size: float = 1.0, **options: float) -> Energy:
    """Return a float64 model whose score is far from zero."""
    model = Energy(Vectors.standard(dims), (16,), **options).double()  # type: ignore[arg-type]
    source = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(size * torch.empty(parameter.shape).normal_(generator=source))
    return model


def grid(dims: int, points: int) -> tuple[Tensor, float]:
    axis = torch.linspace(-7, 7, points, dtype=torch.float64)
    return torch.cartesian_prod(*(axis,) * dims).view(-1, dims), (14 / (points - 1)) ** dims


@pytest.mark.parametrize("dims", [1, 2])
def test_the_density_over_one_or_two_columns_sums_to_one(dims: int) -> None:
    model = energy(dims)
    x, cell = grid(dims, 501)
    with torch.no_grad():
        assert float(model.log_prob(x).exp().sum()) * cell == pytest.approx(1, abs=1e-6)
    assert model.density.kind == "exact"


@pytest.mark.parametrize("dims", [1, 2])
def test_annealing_from_the_reference_finds_the_sum_on_the_grid(dims: int) -> None:
    model = energy(dims)
    found = model.log_partition("ais", chains=400, temperatures=100)
    assert found.kind == "estimate"
    assert found.stderr is not None
    assert found.stderr < 0.1
    assert abs(found.value - model.log_partition("exact").value) < 4 * found.stderr


def test_a_network_of_zero_is_the_reference_and_more_columns_are_an_estimate() -> None:
    model = energy(3, 0.0)
    x = torch.randn(4, 3, dtype=torch.float64)
    normal = torch.distributions.Normal(0.0, 1.0).log_prob(x).sum(1)
    assert torch.allclose(model.log_prob(x), normal, atol=1e-10)
    assert model.density.kind == "estimate"
    with pytest.raises(ValueError, match="at most 2 dimensions"):
        model.log_partition("exact")
    with pytest.raises(RuntimeError, match="estimate"):
        model.log_prob(x).sum().backward()


def test_samples_have_the_moments_of_log_prob(generator: torch.Generator) -> None:
    model, n = energy(1, 0.7, chains=4000, step_size=0.2), 4000
    x, cell = grid(1, 4001)
    with torch.no_grad():
        p = model.log_prob(x).exp() * cell
    mean = float(p @ x[:, 0])
    spread = math.sqrt(float(p @ x[:, 0].square()) - mean**2)
    found = model.sample(n, generator)
    assert abs(float(found.mean()) - mean) < 4 * spread / math.sqrt(n)
    fourth = float(p @ (x[:, 0] - mean) ** 4) / spread**4
    assert abs(float(found.var()) - spread**2) < 4 * spread**2 * math.sqrt((fourth - 1) / n)


def test_the_gradient_of_the_loss_is_that_of_the_energies_and_chains_are_constants() -> None:
    model = energy(2, 0.5, chains=30)
    x = torch.randn(20, 2)
    torch.manual_seed(0)
    found = torch.autograd.grad(model.loss(Batch(x)), list(model.parameters()))
    torch.manual_seed(0)
    v = x.double()
    v = v + 0.03 * torch.randn_like(v)
    places = torch.randperm(30)[:20]
    end = model.buffer[places]  # the first loss has put the ends there
    real, made = model._score(v), model._score(end)
    slow = made.mean() - real.mean() + 1e-2 * (real.square().mean() + made.square().mean())
    wanted = torch.autograd.grad(slow, list(model.parameters()))
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(found, wanted, strict=True))


def test_chains_move_by_the_gradient_and_the_noise_of_their_temperature() -> None:
    # log p = -v^2 / 2 alone: a step is v' = (1 - e) v + (2 e)^(1/2) noise, of variance (1 - e)^2 + 2 e
    n, e = 40_000, 0.1
    model = energy(1, 0.0, chains=n, steps=1, step_size=e)
    before = model.buffer.clone()
    places = torch.arange(n)
    end = model._refreshed(n)
    assert end.shape == (n, 1)
    assert not torch.equal(model.buffer, before)
    kept = model.buffer[places]
    slope = float((kept * before).mean() / before.square().mean())
    # a twentieth of the chains is begun anew and forgets: 0.95 (1 - e)
    assert slope == pytest.approx(0.95 * (1 - e), abs=4 / math.sqrt(n))
    assert float(kept.var()) == pytest.approx((1 - e) ** 2 + 2 * e, abs=4 * math.sqrt(2 / n))


def test_the_figure_to_choose_by_is_score_matching_on_the_mean() -> None:
    model = energy(2, 0.7).eval()
    x = torch.randn(3, 2)
    total = 0.0
    for row in x.double():
        score = torch.func.grad(lambda v: model.log_unnormalised(v[None])[0])
        hessian = torch.func.jacrev(score)(row)
        total += float((hessian.trace() + 0.5 * score(row).square().sum()).detach()) / 3
    draws = torch.tensor([model.loss(Batch(x)).item() for _ in range(400)])
    assert abs(float(draws.mean()) - total) < 4 * float(draws.std()) / 20


def ring(n: int) -> Dataset:
    source = torch.Generator().manual_seed(0)
    angle = 2 * math.pi * torch.rand(n, generator=source)
    x = torch.stack([angle.cos(), angle.sin()], 1) + 0.15 * torch.randn(n, 2, generator=source)
    domain = Vectors(("a", "b"), tuple(x.mean(0).tolist()), tuple(x.std(0).tolist()))
    third = n // 3
    return Dataset("ring", domain, None, Split(x[:third]), Split(x[third:-third]), Split(x[-third:]))


def test_it_learns_a_ring_that_no_normal_fits() -> None:
    data = ring(3000)
    torch.manual_seed(0)
    model = Energy(data.domain, (32, 32), steps=10, step_size=0.05)
    normal = torch.distributions.MultivariateNormal(data.train.x.mean(0), data.train.x.T.cov())
    run = fit(model, data, steps=300, lr=2e-3, select="last", out=False, progress=False, threads=1)
    found = float(run.model.log_prob(data.test.x).mean().detach())
    assert found > float(normal.log_prob(data.test.x).mean()) + 0.3
    radius = run.model.sample(300, torch.Generator().manual_seed(1), steps=100).norm(dim=1)
    assert float((radius < 0.4).double().mean()) < 0.05


def test_a_run_that_was_cut_goes_on_bit_for_bit(tmp_path: Path) -> None:
    data = tiny("vectors")

    def learn(steps: int, folder: str, *, resume: bool = False) -> Energy:
        torch.manual_seed(0)
        model = Energy(data.domain, (8,), steps=3, chains=50)
        fit(
            model, data, steps=steps, select="last", threads=1, out=tmp_path / folder, progress=False,
            resume=resume,
        )  # fmt: skip
        return model

    whole = learn(12, "whole")
    learn(5, "cut")
    again = learn(12, "cut", resume=True)
    mine, other = whole.state_dict(), again.state_dict()
    assert "buffer" in mine
    assert all(torch.equal(mine[key], other[key]) for key in mine)


def test_pictures_get_a_convolutional_network_and_a_bound() -> None:
    model = Energy(Images(1, 16, 16, 4), chains=5, burn_in=2)
    x = model.sample(3, torch.Generator().manual_seed(0))
    assert x.shape == (3, 1, 16, 16)
    assert x.dtype == torch.uint8
    assert any(isinstance(module, torch.nn.Conv2d) for module in model.modules())
    small = Energy(Images(1, 1, 2, 3), (8,), chains=5, pixels="standard")
    assert small.density.kind == "lower bound"
    assert small.log_prob(small.domain.states(), samples=500).exp().sum().item() < 1


def test_what_it_cannot_hold_is_refused() -> None:
    with pytest.raises(DomainError, match="needs Images or Vectors"):
        Energy.for_data(tiny("bits"))
    for options in ({"steps": 0}, {"chains": 0}, {"burn_in": 0}, {"step_size": 0.0}, {"step_size": math.inf}):
        with pytest.raises(OptionError, match=next(iter(options))):
            Energy(Vectors.standard(2), **options)  # type: ignore[arg-type]
    with pytest.raises(DomainError, match="pictures"):
        Energy(Vectors.standard(2), architecture="conv")
