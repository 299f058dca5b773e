"""Noisy-OR against sums over all states, its bounds on both sides, and causes that were planted."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

import leadline as ll
from leadline.core import Bits, DataError, DomainError, OptionError, ShapeError
from leadline.inference.noisy_or import (
    Net,
    field_moments,
    joint_table,
    mean_field,
    quickscore,
    series,
    upper_bound,
)
from leadline.models.graphical.noisy_or import NoisyOr
from tests.tiny import tiny


def net(causes: int = 4, findings: int = 5, leak: float = 0.08) -> Net:
    source = torch.Generator().manual_seed(2)
    weights = 2 * torch.rand(findings, causes, generator=source, dtype=torch.float64)
    prior = 0.1 + 0.6 * torch.rand(causes, generator=source, dtype=torch.float64)
    return Net(weights, torch.full((findings,), leak, dtype=torch.float64), prior)


def states(size: int) -> Tensor:
    return torch.tensor(list(itertools.product((0.0, 1.0), repeat=size)), dtype=torch.float64)


def by_enumeration(x: Tensor, layer: Net) -> tuple[float, Tensor]:
    """Return log p(x) and the probability of each cause, one state after the other."""
    total, on = 0.0, torch.zeros(layer.causes, dtype=torch.float64)
    for z in states(layer.causes):
        p = math.prod(float(q if b else 1 - q) for q, b in zip(layer.prior, z, strict=True))
        for i, bit in enumerate(x):
            dark = math.exp(-float(layer.leak[i] + layer.weights[i] @ z))
            p *= 1 - dark if bit else dark
        total, on = total + p, on + p * z
    return math.log(total), on / total


def test_three_ways_to_the_posterior_agree() -> None:
    layer, x = net(), states(5)
    table = joint_table(x, layer)
    marginals = torch.softmax(table, 1) @ layer.states()
    for row in range(0, 32, 3):
        evidence, on = by_enumeration(x[row], layer)
        quick, shown = quickscore(x[row], layer)
        assert float(torch.logsumexp(table[row], 0)) == pytest.approx(evidence, abs=1e-12)
        assert float(quick) == pytest.approx(evidence, abs=1e-10)
        assert torch.allclose(marginals[row], on, atol=1e-12)
        assert torch.allclose(shown, on, atol=1e-10)


def test_probabilities_sum_to_one_and_bounds_enclose_them() -> None:
    for leak in (0.5, 0.05, 1e-4):
        layer, x = net(leak=leak), states(5)
        exact = torch.logsumexp(joint_table(x, layer), 1)
        assert float(exact.exp().sum()) == pytest.approx(1, abs=1e-12)
        low, high = mean_field(x, layer).bound, upper_bound(x, layer)
        assert bool((low <= exact + 1e-9).all())
        assert bool((high >= exact - 1e-9).all())
        assert float((exact - low).max()) > 0.01
        assert float((high - exact).max()) > 0.01
        assert float(exact[0]) == pytest.approx(
            float(low[0]), abs=1e-9
        )  # without positive findings q is exact


def test_the_bound_of_a_single_cause_misses_little_more_than_the_trapezoids() -> None:
    layer, x = net(causes=1), states(5)
    gap = torch.logsumexp(joint_table(x, layer), 1) - mean_field(x, layer).bound
    assert float(gap.min()) >= -1e-9
    assert float(gap.max()) < 0.05


def test_the_bound_and_the_sums_of_the_m_step_are_expectations_under_the_factorised_posterior() -> None:
    layer, x = net(leak=0.3), states(5)[::3]
    field, shown = field_moments(x, layer)
    z, wanted = layer.states(), torch.zeros(5, 5, dtype=torch.float64)
    lit = -torch.expm1(-(layer.leak + z @ layer.weights.T))  # (16, 5)
    for row, mean, bound in zip(x, field.mean, field.bound, strict=True):
        q = torch.where(z > 0, mean, 1 - mean).prod(1)
        joint = joint_table(row[None], layer)[0]
        assert float(bound) == pytest.approx(float(q @ (joint - q.log())), abs=0.02)
        assert float(bound) <= float(q @ (joint - q.log())) + 1e-9
        every = torch.cat([z, torch.ones(16, 1)], 1)  # (16, K + 1)
        wanted += row * torch.einsum("s,sk,si->ki", q, every.double(), 1 / lit)
    assert torch.allclose(shown, wanted, rtol=0.02)


def test_each_sample_is_explained_alone_and_none_by_nothing() -> None:
    layer, x = net(), states(5)
    whole = mean_field(x, layer)
    alone = [mean_field(row[None], layer) for row in x]
    assert torch.equal(whole.bound, torch.cat([one.bound for one in alone]))
    assert torch.equal(whole.mean, torch.cat([one.mean for one in alone]))
    assert mean_field(x[:0], layer).mean.shape == (0, 4)


def test_only_the_leak_makes_independent_bits() -> None:
    layer = Net(
        torch.zeros(3, 2).double(), torch.tensor([0.1, 0.7, 2.0]).double(), torch.tensor([0.3, 0.6]).double()
    )
    on = -torch.expm1(-layer.leak)
    x = states(3)
    wanted = (x * on.log() + (1 - x) * torch.log1p(-on)).sum(1)
    assert torch.allclose(torch.logsumexp(joint_table(x, layer), 1), wanted, atol=1e-12)


def test_the_series_is_never_below_the_sum_and_close_to_it() -> None:
    leak = torch.tensor([1e-3, 0.1, 2.0], dtype=torch.float64)
    m, weights = series(leak)
    told = (weights / m * torch.exp(-leak[:, None] * m)).sum(1)
    true = -torch.log(-torch.expm1(-leak))
    assert bool((told >= true - 1e-12).all())
    assert torch.allclose(told, true, rtol=0.02)


def bars(n: int, side: int = 3) -> tuple[Tensor, Tensor]:
    """Return pictures of rows and columns, each there one time in five, and the causes (2 side, pixels)."""
    source = torch.Generator().manual_seed(1)
    eye = torch.eye(side)
    causes = torch.cat([eye[:, :, None].expand(-1, -1, side), eye[:, None, :].expand(-1, side, -1)]).flatten(
        1
    )
    z = (torch.rand(n, 2 * side, generator=source) < 0.2).float()
    dark = 0.98 * torch.exp(z @ torch.log1p(-0.9 * causes))
    return (torch.rand(dark.shape, generator=source) > dark).to(torch.uint8).view(n, 1, side, side), causes


@pytest.mark.parametrize(("posterior", "restarts", "least"), [("exact", 8, 0.98), ("mean field", 3, 0.9)])
def test_planted_causes_are_found(posterior: Any, restarts: int, least: float) -> None:
    x, causes = bars(400)
    torch.manual_seed(2)
    model = NoisyOr(Bits((1, 3, 3)), causes=6, posterior=posterior, restarts=restarts, tolerance=1e-3)
    while not model.converged:
        model.sweep(x)
    alike = torch.nn.functional.cosine_similarity(model.means.flatten(1)[:, None], causes[None], dim=-1)
    assert float(alike.max(0).values.mean()) > least
    assert float(model.best.prior.mean()) == pytest.approx(0.2, abs=0.05)
    truth = model.posterior(x[:40], "exact")
    assert float((model.encode(x[:40]) - truth).abs().mean()) < (1e-6 if posterior == "exact" else 0.08)


@pytest.mark.parametrize("posterior", ["exact", "mean field"])
def test_the_objective_never_falls(posterior: Any) -> None:
    x, _ = bars(150)
    model = NoisyOr(Bits((1, 3, 3)), causes=4, posterior=posterior, tolerance=-math.inf).double()
    told = []
    for _ in range(12):
        model.sweep(x)
        told.append(float(model.objectives[1].sum()))
    slack = 1e-9 if posterior == "exact" else 1e-4  # a fresh factorised posterior may be a little worse
    assert all(after >= before - slack for before, after in itertools.pairwise(told))
    assert model.sweep(x) == pytest.approx(float(model.log_prob(x).mean()), abs=1e-9)


def test_gibbs_agrees_with_the_exact_posterior(generator: torch.Generator) -> None:
    model = NoisyOr(Bits((5,)), causes=4).double()
    x = states(5).to(torch.uint8)[::5]
    exact, chain = model.posterior(x, "exact"), model.posterior(x, "gibbs", generator)
    assert float((exact - chain).abs().max()) < 0.06
    assert float((exact - chain).abs().mean()) < 0.02


def test_many_causes_are_exact_for_few_positive_findings() -> None:
    model = NoisyOr(Bits((30,)), causes=18).double()
    assert model.density.kind == "lower bound"
    x = torch.zeros(3, 30, dtype=torch.uint8)
    x[1, :4], x[2, 5:11] = 1, 1
    exact = model.exact_log_prob(x)
    assert bool((model.log_prob(x) <= exact + 1e-9).all())
    assert bool((model.upper_bound(x) >= exact - 1e-9).all())
    assert float((model.posterior(x, "exact") - model.posterior(x, "mean field")).abs().mean()) < 0.1
    with pytest.raises(DataError, match="30 are positive"):
        model.posterior(torch.ones(1, 30, dtype=torch.uint8), "exact")
    with pytest.raises(ValueError, match="gibbs"):
        model.posterior(x, "magic")


def test_samples_have_the_probabilities_of_all_states(generator: torch.Generator) -> None:
    model, n = NoisyOr(Bits((4,)), causes=3), 20_000
    model.best.strength.copy_(torch.rand(4, 3, generator=generator))
    x = model.sample(n, generator)
    p = model.log_prob(states(4).to(torch.uint8)).exp()
    seen = torch.bincount((x.long() @ torch.tensor([8, 4, 2, 1])), minlength=16) / n
    assert float((seen - p).abs().max()) < 4 * math.sqrt(0.25 / n)
    lit = 1 - 0.95 * (1 - model.best.strength.T)  # the leak is 0.05
    assert torch.equal(model.decode(torch.eye(3)), (lit > 0.5).to(torch.uint8))


def test_the_upper_bound_takes_the_best_slope() -> None:
    layer, x = net(causes=3, findings=1), torch.ones(1, 1, dtype=torch.float64)
    slopes = torch.logspace(-4, 3, 20_000, dtype=torch.float64)[:, None]
    conjugate = slopes * slopes.log() - (slopes + 1) * torch.log1p(slopes)
    causes = torch.logaddexp(layer.prior.log() + slopes * layer.weights, torch.log1p(-layer.prior))
    bounds = conjugate[:, 0] + slopes[:, 0] * layer.leak + causes.sum(1)
    assert float(upper_bound(x, layer)) == pytest.approx(float(bounds.min()), abs=1e-5)


def test_a_leak_alone_becomes_the_frequency_in_one_step() -> None:
    model = NoisyOr(Bits((2,)), causes=1).double()
    x = torch.tensor([[1, 0], [1, 1], [0, 0], [1, 0]], dtype=torch.uint8)
    model.trial.become(torch.tensor([0.5]), torch.full((2, 1), 1e-4), torch.tensor([0.2, 0.9]))
    _, moments = model._expect(x)
    model._maximise(moments)
    assert model.trial.leak.tolist() == pytest.approx([0.75, 0.25], abs=1e-3)


def test_causes_are_ranked_names_of_what_they_turn_on() -> None:
    model = NoisyOr(Bits((3,), ("sea", "line", "lead")), causes=2)
    model.best.strength.copy_(torch.tensor([[0.1, 0.5], [0.7, 0.2], [0.3, 0.9]]))
    first, second = model.top_words(2)
    assert [word for word, _ in first] == ["line", "lead"]
    assert [word for word, _ in second] == ["lead", "sea"]
    assert second[0][1] == pytest.approx(0.9)
    with pytest.raises(DomainError, match="no names"):
        NoisyOr(Bits((3,)), causes=2).top_words()


def test_degenerate_data_stay_finite() -> None:
    for x in (torch.zeros(6, 4, dtype=torch.uint8), torch.ones(6, 4, dtype=torch.uint8)):
        for posterior in ("exact", "mean field"):
            model = NoisyOr(Bits((4,)), causes=2, posterior=posterior, max_sweeps=5)  # type: ignore[arg-type]
            for _ in range(6):
                model.sweep(x)
            assert bool(torch.isfinite(model.log_prob(x)).all())


def test_what_cannot_be_learned_gets_a_clear_error() -> None:
    with pytest.raises(DomainError, match="binarize"):
        ll.build("noisy_or", tiny("images"))
    for options in ({"causes": 0}, {"posterior": "magic"}, {"causes": 17, "posterior": "exact"}):
        with pytest.raises(OptionError, match=r"causes|posterior"):
            ll.build("noisy_or", tiny("bits"), **options)
    with pytest.raises(ShapeError, match="sample 1, dimension 0: 2"):
        NoisyOr(Bits((2,)), causes=1).sweep(torch.tensor([[0, 1], [2, 0]]))
    for wrong in (255.0, math.nan, 0.5, -1.0):
        for verb in ("log_prob", "encode", "exact_log_prob", "upper_bound"):
            with pytest.raises(ShapeError, match="is not a value of Bits"):
                getattr(NoisyOr(Bits((2,)), causes=1), verb)(torch.full((1, 2), wrong))
    with pytest.raises(DataError, match="at least as many samples"):
        NoisyOr(Bits((2,)), causes=5).sweep(torch.zeros(3, 2, dtype=torch.uint8))
