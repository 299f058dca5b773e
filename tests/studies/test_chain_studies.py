"""The studies of Markov chains at their smallest, and their figures."""

import json
import math
import sys

import pytest
import torch
from matplotlib.figure import Figure

from leadline.cli import main
from leadline.core import LeadlineError
from leadline.core.randomness import generator_for
from leadline.inference import chains
from leadline.studies import StudyError, chain_convergence, langevin_bias
from leadline.studies.traces import seed_interval, trace_figure


def test_the_gap_predicts_the_rate_and_the_cold_lattice_is_told() -> None:
    found = chain_convergence(side_length=2, couplings=(0.35,), large=16, cold=1.0, seeds=3)
    assert found.holds is True
    assert abs(found.value.value - 1) < 0.1
    assert float(found.table["r_hat"].dropna().min()) > 1.5
    assert isinstance(found.figure, Figure)
    json.dumps(found.to_json())


def test_a_lattice_that_does_mix_makes_the_claim_false() -> None:
    found = chain_convergence(side_length=2, couplings=(0.35,), large=16, cold=0.1, seeds=2)
    assert found.holds is not True


def test_the_bias_grows_without_the_accept_step_and_is_none_with_it() -> None:
    found = langevin_bias(steps=(0.4, 0.8), chains=8000, seeds=4)
    assert found.holds is True
    # normal target: 1 / (1 - e / 2) - 1 is 0.25 and 0.6667
    mine = found.table[(found.table["target"] == "normal") & (found.table["kernel"] == "unadjusted")]
    mean = mine.groupby("step")["bias"].mean()
    assert mean[0.4] == pytest.approx(0.25, abs=0.02)
    assert mean[0.8] == pytest.approx(2 / 3, abs=0.03)
    assert isinstance(found.figure, Figure)


def test_a_sampler_whose_control_fails_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["leadline.studies.langevin_bias"], "HALF", 1e-9)
    with pytest.raises(StudyError, match="half the noise"):
        langevin_bias(steps=(0.4, 0.8), chains=200, seeds=2)


def test_one_seed_decides_nothing() -> None:
    assert seed_interval([1.0])[1] == (-math.inf, math.inf)
    low, high = seed_interval([1.0, 2.0, 3.0])[1]
    assert low == pytest.approx(2 - 4.3027 / math.sqrt(3), abs=1e-3)  # t(0.975, 2) = 4.3027
    assert high == pytest.approx(2 + 4.3027 / math.sqrt(3), abs=1e-3)


def test_traces_say_which_entries_disagree() -> None:
    x = torch.randn(4, 2000, 2, generator=generator_for(0))
    x[..., 1] += 3 * torch.arange(4.0)[:, None]
    titles = [axis.get_title(loc="left") for axis in trace_figure(x, ["a", "b"]).axes]
    told = [title for title in titles if title]
    assert "disagree" not in told[0]
    assert "R-hat" in told[0]
    assert "disagree" in told[1]
    assert len(trace_figure(torch.ones(1, 10)).axes) == 2


def test_of_many_entries_the_worst_are_traced_and_the_title_says_so() -> None:
    x = torch.randn(9, 40, 11, generator=generator_for(1))
    x[:, :, 10] += torch.arange(9.0)[:, None]  # its chains disagree most
    figure = trace_figure(x)
    told = [axis.get_title(loc="left") for axis in figure.axes[::2]]
    assert len(told) == 8
    assert told[-1].startswith("x[10]: ")
    numbers = [int(title[2 : title.index("]")]) for title in told]
    shrink = chains.r_hat(x.double())
    assert numbers == sorted(shrink.argsort(descending=True)[:8].tolist())
    assert figure.get_suptitle() == (
        "8 of 11 entries, those with the largest R-hat; 6 of 9 chains; ESS and R-hat are of all"
    )
    assert trace_figure(x[:6, :, :8]).get_suptitle() == ""


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (lambda: chain_convergence(side_length=5), "side_length"),
        (lambda: chain_convergence(couplings=()), "couplings"),
        (lambda: chain_convergence(large=9), "even"),
        (lambda: langevin_bias(steps=(0.1,)), "two different"),
        (lambda: langevin_bias(steps=(0.1, 2.0)), "two different"),
        (lambda: langevin_bias(chains=5), "chains"),
        (lambda: trace_figure(torch.ones(3)), "draw >= 4"),
        (lambda: trace_figure(torch.ones(3, 5, 2), ["a"]), "names"),
    ],
)
def test_wrong_input_gets_one_clear_line(task, said: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(LeadlineError, match=said):
        task()


def test_a_study_that_needs_nothing_runs_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["study", "langevin_bias", "--set", "chains=300", "--set", "seeds=2", "--set", "steps=0.5,1"])
        == 0
    )
    assert "bias" in capsys.readouterr().out
    assert main(["study", "langevin_bias", "digits"]) == 2
    assert "needs no data" in capsys.readouterr().err
