"""Effective sample size and R-hat: against ArviZ on the same arrays, and on chains whose truth is known."""

import math
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

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
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


@pytest.mark.parametrize("bad", [torch.ones(4, 50), torch.full((4, 50), torch.nan)])
def test_constant_or_broken_chains_have_no_figures(bad: Tensor) -> None:
    for figure in (chains.ess, chains.tail_ess, chains.r_hat):
        assert bool(figure(bad).isnan())


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
    ],
)
def test_wrong_input_gets_one_clear_line(task: Callable[[], object], said: str) -> None:
    with pytest.raises(LeadlineError, match=said):
        task()
