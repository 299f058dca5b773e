"""Effective sample size and R-hat: against ArviZ on the same arrays, and on chains whose truth is known."""

import math
import tempfile
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from leadline.core import LeadlineError
from leadline.core.randomness import generator_for
from leadline.inference import chains

with (
    warnings.catch_warnings(),
    tempfile.TemporaryDirectory() as cache,
    pytest.MonkeyPatch.context() as patched,
):
    warnings.simplefilter("ignore")
    patched.setenv("XDG_CACHE_HOME", cache)  # it stamps a file there, and workers would race for one name
    arviz: Any = pytest.importorskip("arviz")


def autoregressive(m: int, n: int, a: float, seed: int = 0) -> Tensor:
    """Return chains x_t = a x_t-1 + noise of variance 1 - a^2, from stationarity: (m, n)."""
    noise = torch.randn(m, n, generator=generator_for(seed, a), dtype=torch.float64)
    x = [noise[:, 0]]
    for t in range(1, n):
        x.append(a * x[-1] + math.sqrt(1 - a * a) * noise[:, t])
    return torch.stack(x, 1)


ARRAYS: dict[str, Tensor] = {
    "independent": torch.randn(4, 500, generator=generator_for(0), dtype=torch.float64),
    "slow": autoregressive(4, 501, 0.95),
    "antithetic": autoregressive(4, 400, -0.7),
    "one chain": autoregressive(1, 300, 0.5),
    "apart": autoregressive(4, 300, 0.5) + torch.arange(4.0)[:, None],
    "of other widths": autoregressive(4, 300, 0.5) * torch.tensor([1.0, 1.0, 1.0, 5.0])[:, None],
    "heavy": torch.randn(4, 300, generator=generator_for(1)).double() ** 9,
    "whole numbers": torch.randint(0, 3, (4, 300), generator=generator_for(2)).double(),
    "short": torch.randn(3, 7, generator=generator_for(3), dtype=torch.float64),
    "shortest": torch.randn(2, 4, generator=generator_for(4), dtype=torch.float64),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_every_figure_equals_that_of_arviz(name: str) -> None:
    x = ARRAYS[name]
    peer = x.numpy()
    assert float(chains.ess(x)) == pytest.approx(float(arviz.ess(peer, method="bulk")), rel=1e-9)
    assert float(chains.ess(x, "mean")) == pytest.approx(float(arviz.ess(peer, method="mean")), rel=1e-9)
    assert float(chains.tail_ess(x)) == pytest.approx(float(arviz.ess(peer, method="tail")), rel=1e-9)
    if len(x) > 1:  # the peer gives none for one chain
        assert float(chains.r_hat(x)) == pytest.approx(float(arviz.rhat(peer)), rel=1e-9)
    assert float(chains.mcse(x)) == pytest.approx(float(np.squeeze(arviz.mcse(peer))), rel=1e-9)


@pytest.mark.parametrize("a", [0.0, 0.6, 0.9, -0.5])
def test_the_effective_size_of_an_autoregressive_chain_is_its_closed_form(a: float) -> None:
    # sum of a^t over all lags: ESS = s (1 - a) / (1 + a)
    x = autoregressive(8, 20_000, a)
    want = x.numel() * (1 - a) / (1 + a)
    assert float(chains.ess(x)) == pytest.approx(want, rel=0.08)


@pytest.mark.parametrize("figure", [chains.ess, chains.tail_ess, chains.r_hat, chains.mcse])
def test_arrays_of_numpy_are_judged_as_tensors_are(figure: Callable[[Any], Tensor]) -> None:
    x = torch.randn(4, 50, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(figure(x.numpy()), figure(x))


def test_entries_are_judged_each_alone() -> None:
    x = torch.stack([ARRAYS["independent"], autoregressive(4, 500, 0.9)], -1)[..., None]  # (4, 500, 2, 1)
    for figure in (chains.ess, chains.tail_ess, chains.r_hat, chains.mcse):
        both = figure(x)
        assert both.shape == (2, 1)
        assert torch.allclose(both[:, 0], torch.stack([figure(x[..., 0, 0]), figure(x[..., 1, 0])]))


def test_r_hat_is_near_one_only_where_chains_agree_in_place_and_in_width() -> None:
    assert float(chains.r_hat(ARRAYS["independent"])) < 1.01
    assert float(chains.r_hat(ARRAYS["apart"])) > 1.5
    assert float(chains.r_hat(ARRAYS["of other widths"])) > 1.1
    trend = ARRAYS["independent"] + torch.linspace(0, 3, 500)
    assert float(chains.r_hat(trend)) > 1.1  # the halves of each chain disagree


def by_definition(x: np.ndarray[Any, Any], groups: list[list[int]]) -> float:
    """Return nested R-hat without ranks, term by term, of draws (m, n)."""
    chain = x.mean(1)
    top = np.array([chain[group].mean() for group in groups])
    between = top.var(ddof=1)
    inside = []
    for group in groups:
        apart = chain[group].var(ddof=1) if len(group) > 1 else 0.0
        inside.append(apart + (np.mean([x[m].var(ddof=1) for m in group]) if x.shape[1] > 1 else 0.0))
    return float(np.sqrt(1 + between / np.mean(inside)))


@pytest.mark.parametrize(("chains_a_point", "n"), [(2, 6), (3, 1), (1, 5)])
def test_nested_r_hat_is_that_of_its_definition_on_the_ranks(chains_a_point: int, n: int) -> None:
    from scipy.stats import norm, rankdata

    m = 4 * chains_a_point
    x = torch.randn(m, n, generator=generator_for(n), dtype=torch.float64) + 0.3 * torch.arange(m)[:, None]
    labels = torch.arange(m) % 4  # not side by side
    groups = [[i for i in range(m) if i % 4 == k] for k in range(4)]
    want = []
    for part in (x.numpy(), np.abs(x.numpy() - np.median(x.numpy()))):
        ranks = rankdata(part).reshape(m, n)
        want.append(by_definition(norm.ppf((ranks - 0.375) / (m * n + 0.25)), groups))
    assert float(chains.nested_r_hat(x, labels)) == pytest.approx(max(want), rel=1e-9)


def test_nested_r_hat_calls_many_short_chains_of_one_target_mixed_where_r_hat_cannot() -> None:
    x = autoregressive(16 * 128, 10, 0.5)
    labels = torch.arange(16).repeat_interleave(128)
    assert float(chains.r_hat(x)) > 1.05
    assert float(chains.nested_r_hat(x, labels)) < 1.01
    assert float(chains.nested_r_hat(x[:, :1], labels)) < 1.01  # a single draw each


def test_nested_r_hat_sees_modes_and_widths_that_groups_keep_from_their_start() -> None:
    x = autoregressive(16 * 64, 20, 0.5)
    labels = torch.arange(16).repeat_interleave(64)
    modes = x + 6.0 * (labels % 2)[:, None]
    assert float(chains.nested_r_hat(modes, labels)) > 1.5
    assert float(chains.nested_r_hat(modes, labels.flip(0))) > 1.5
    wide = x * (1 + 3.0 * (labels == 3))[:, None]
    assert float(chains.nested_r_hat(wide, labels)) > 1.05
    # Groups that each visit both modes agree, however far the modes are apart.
    anyhow = torch.randperm(16 * 64, generator=generator_for(0)) % 16
    assert float(chains.nested_r_hat(modes, anyhow)) < 1.02


def test_groups_may_have_any_names_and_entries_are_judged_each_alone() -> None:
    x = torch.stack([autoregressive(8, 20, 0.5), autoregressive(8, 20, 0.5) + torch.arange(8)[:, None]], -1)
    labels = torch.tensor([7, 7, -1, -1, 3, 3, 0, 0])
    found = chains.nested_r_hat(x, labels)
    order = torch.tensor([6, 2, 0, 4, 7, 3, 1, 5])
    assert torch.allclose(found, chains.nested_r_hat(x[order], labels[order]))
    assert torch.allclose(found[1], chains.nested_r_hat(x[..., 1], labels))
    assert float(found[1]) > 2 > float(found[0])


def test_a_run_knows_which_chains_shared_a_start_and_judges_itself_by_it() -> None:
    density = chains.WithGradient(lambda x: (-0.5 * x.square().sum(1), -x))
    points = torch.randn(4, 2, generator=generator_for(0)).double()
    shared = points[torch.arange(100) % 4]

    def drawn(start: Tensor) -> chains.Chains:
        return chains.sample(density, start, warmup=40, draws=20, generator=generator_for(1))

    run = drawn(shared)
    want = chains.nested_r_hat(run.draws, torch.arange(100) % 4)
    assert torch.allclose(run.nested_r_hat, want)
    assert torch.equal(run.agreement, run.nested_r_hat)
    assert run.trusted
    assert "nested R-hat" in str(run)
    assert run.summary()["nested_r_hat"].to_numpy() == pytest.approx(want.numpy())
    longer = chains.resume(run, 10, generator=generator_for(2))
    assert torch.equal(longer.nested_r_hat, chains.nested_r_hat(longer.draws, torch.arange(100) % 4))
    for start in (torch.randn(100, 2).double(), points[:1].expand(100, 2), shared[:99]):
        alone = drawn(start)
        assert torch.equal(alone.agreement, alone.r_hat)
        assert not alone.trusted
        assert "share starts" in str(alone)
        with pytest.raises(LeadlineError, match="share starts"):
            _ = alone.nested_r_hat


def test_on_the_funnel_groups_keep_their_starts_and_nested_r_hat_says_so() -> None:
    def funnel(z: Tensor) -> tuple[Tensor, Tensor]:
        v, x = z[:, :1], z[:, 1:]
        half = 0.5 * (x.square() * (-v).exp()).sum(1)
        slope = torch.cat([half[:, None] - v / 9 - 4.5, -x * (-v).exp()], 1)
        return -v[:, 0].square() / 18 - half - 4.5 * v[:, 0], slope

    v = torch.linspace(-6.0, 6.0, 8)[:, None]
    points = torch.cat([v, (v / 2).exp() * torch.randn(8, 9, generator=generator_for(3))], 1).double()
    start = points.repeat_interleave(32, 0)
    run = chains.sample(
        chains.WithGradient(funnel), start, "hmc", warmup=100, draws=60, generator=generator_for(4)
    )
    assert float(run.nested_r_hat[0]) > 1.05
    assert not run.trusted
    assert "chains of different starts disagree" in str(run)


@pytest.mark.parametrize("bad", [torch.ones(4, 50), torch.full((4, 50), torch.nan)])
def test_constant_or_broken_chains_have_no_figures(bad: Tensor) -> None:
    for figure in (chains.ess, chains.tail_ess, chains.r_hat):
        assert bool(figure(bad).isnan())
    assert bool(chains.nested_r_hat(bad, torch.tensor([0, 0, 1, 1])).isnan())


def test_the_standard_error_is_the_spread_of_repeated_means() -> None:
    runs = [autoregressive(4, 400, 0.7, seed) for seed in range(100)]
    spread = float(torch.stack([run.mean() for run in runs]).std())
    stated = float(torch.stack([chains.mcse(run) for run in runs]).mean())
    assert 0.8 < stated / spread < 1.25


def test_autocorrelation_is_that_of_the_definition() -> None:
    x = autoregressive(2, 50, 0.5)
    gap = x - x.mean(1, keepdim=True)
    direct = torch.stack([(gap[:, t:] * gap[:, : 50 - t]).sum(1) for t in range(50)], 1)
    assert torch.allclose(chains.autocorrelation(x), direct / direct[:, :1])


def tiny_run() -> chains.Chains:
    density = chains.WithGradient(lambda x: (-0.5 * x.square().sum((1, 2)), -x))
    return chains.sample(
        density, torch.zeros(3, 2, 1).double(), warmup=10, draws=8, generator=generator_for(0)
    )


def test_results_are_plain_arrays_by_chain_and_draw() -> None:
    run = tiny_run()
    groups = run.to_dict("theta")
    assert groups["posterior"]["theta"].shape == (3, 8, 2, 1)
    assert {key: value.shape for key, value in groups["sample_stats"].items()} == {
        "acceptance_rate": (3, 8), "diverging": (3, 8), "n_steps": (3, 8),
    }  # fmt: skip
    table = run.summary()
    assert list(table.index) == ["x[0, 0]", "x[1, 0]"]
    assert table["mean"].to_numpy() == pytest.approx(run.draws.double().mean((0, 1)).flatten().numpy())


def test_results_go_to_arviz_and_its_summary_agrees() -> None:
    run = tiny_run()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = run.to_arviz("theta")
        table = arviz.summary(data, round_to="none")
    assert data.posterior["theta"].shape == (3, 8, 2, 1)
    assert table["r_hat"].to_numpy() == pytest.approx(run.r_hat.flatten().numpy(), rel=1e-6)


def test_both_major_versions_of_arviz_are_spoken_to(monkeypatch: pytest.MonkeyPatch) -> None:
    class Peer:
        def __init__(self, version: str) -> None:
            self.__version__ = version

        def from_dict(self, *args: object, **groups: object) -> tuple[tuple[object, ...], dict[str, object]]:
            return args, groups

    run = tiny_run()
    for version, positional in (("0.17.1", 0), ("0.23.4", 0), ("1.2.0", 1)):
        monkeypatch.setattr("leadline.inference.chains.sampling.require_extra", lambda *_, v=version: Peer(v))
        args, groups = run.to_arviz()
        assert len(args) == positional
        held: Any = args[0] if args else groups
        assert set(held) == {"posterior", "sample_stats"}


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (lambda: chains.ess(torch.zeros(4)), "draw >= 4"),
        (lambda: chains.r_hat(torch.zeros(4, 3)), "draw >= 4"),
        (lambda: chains.ess(torch.zeros(0, 10)), "draw >= 4"),
        (lambda: chains.ess(torch.zeros(4, 10), "tail"), "tail_ess"),  # type: ignore[arg-type]
        (lambda: chains.nested_r_hat(torch.zeros(4, 0), torch.zeros(4)), "draw >= 1"),
        (lambda: chains.nested_r_hat(torch.zeros(4, 9), torch.zeros(3)), "4 chains need as many groups"),
        (lambda: chains.nested_r_hat(torch.zeros(4, 9), torch.zeros(4)), "two groups"),
        (lambda: chains.nested_r_hat(torch.zeros(4, 9), torch.tensor([0, 1, 1, 1])), r"sizes \[1, 3\]"),
    ],
)
def test_wrong_input_gets_one_clear_line(task: Callable[[], object], said: str) -> None:
    with pytest.raises(LeadlineError, match=said):
        task()
