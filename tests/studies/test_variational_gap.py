"""variational_gap: the identity holds to rounding, and a wrong posterior or bound breaks it."""

import sys

import pytest
import torch

from leadline.core import OptionError
from leadline.studies import StudyError, variational_gap

MODULE = sys.modules["leadline.studies.variational_gap"]  # the name is that of its function too


def test_the_gap_is_the_divergence_and_grows_with_coupling() -> None:
    found = variational_gap(seeds=8, causes=5)
    table = found.table
    assert found.holds is True
    assert float(table["identity error"].abs().max()) < 1e-12
    assert float(table["distance to the posterior"].max()) < 1e-6
    assert bool((table["gap"] >= -1e-12).all())
    means = table.groupby("coupling")["gap"].mean()
    assert means[3.0] > means[0.3]
    assert len(found.figure.axes) == 2


def test_a_form_that_cannot_reach_the_posterior_is_not_called_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "RATE", 1e-3)  # mirror ascent stops half way
    found = variational_gap(seeds=3, causes=4)
    assert found.holds is False
    assert float(found.table["gap of any q"].max()) > 1e-3


def test_a_control_that_fails_stops_the_study(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        MODULE,
        "_divergence",
        lambda log_q, table: float((log_q.exp() * (log_q - table)).sum() + table.logsumexp(0) - table.mean()),
    )
    monkeypatch.setattr(MODULE, "_factorised", lambda table, z, seed: (0.0, torch.zeros(4)))
    with pytest.raises(StudyError, match="share no finding"):
        variational_gap(seeds=2, causes=2)
    for wrong in (1, 11):
        with pytest.raises(OptionError, match="causes"):
            variational_gap(causes=wrong)


def test_the_command_line_runs_it_on_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    from leadline.cli import main

    main(["study", "variational_gap", "--set", "seeds=3", "--set", "causes=4"])
    assert "The mean-field gap" in capsys.readouterr().out
