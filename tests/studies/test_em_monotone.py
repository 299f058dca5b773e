"""em_monotone: true of the models here, false of one whose sweeps fall, and it knows what it cannot judge."""

import sys
from typing import Any

import pytest
import torch
from torch import Tensor

import leadline as ll
from leadline.core import OptionError
from leadline.models.graphical.mixture import Mixture
from leadline.studies import StudyError, em_monotone
from leadline.studies import em_monotone as run
from tests.tiny import tiny

MODULE = sys.modules["leadline.studies.em_monotone"]  # the name is that of its function too


@pytest.mark.parametrize(
    ("kind", "models"), [("bits", {"mixture", "gmm", "noisy_or"}), ("counts", {"mixture", "lda"})]
)
def test_the_models_of_the_catalog_never_fall(kind: str, models: set[str]) -> None:
    found = em_monotone(tiny(kind), seeds=2, sweeps=12)
    assert found.holds is True
    assert set(found.table["model"]) == models
    assert found.table["change"].notna().sum() > 20 * len(models) - 10
    assert len(found.figure.axes) == 2
    assert set(found.controls) == {"bound after the E-step", "steps five times too long"}
    assert found.to_json()["holds"] is True


def test_a_faulty_update_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Mixture._maximise

    def overshoot(self: Any, moments: Tensor) -> Tensor:
        before = self.trial.log_p.clone()
        empty = honest(self, moments)
        p = (before.exp() + 6 * (self.trial.log_p.exp() - before.exp())).clamp(0.01, 0.99)
        self.trial.log_p.copy_(
            p.view(len(p), -1, 2).div(p.view(len(p), -1, 2).sum(2, keepdim=True)).flatten(1).log()
        )
        return empty

    monkeypatch.setattr(Mixture, "_maximise", overshoot)
    found = em_monotone(tiny("bits"), models=["mixture"], seeds=2, sweeps=12)
    assert found.holds is False
    assert found.value.value < -1e-4


def test_what_cannot_be_judged_gets_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OptionError, match="none of"):
        run(tiny("tokens"))
    with pytest.raises(OptionError, match="vae"):
        run(tiny("bits"), models=["vae"])
    with pytest.raises(OptionError, match="sweeps"):
        run(tiny("bits"), sweeps=1)
    with pytest.raises(OptionError, match="seeds"):
        run(tiny("bits"), seeds=0)
    monkeypatch.setattr(MODULE, "TOO_LONG", 1.0)
    with pytest.raises(StudyError, match="too long"):
        run(tiny("bits"))


def test_the_command_line_runs_it(capsys: pytest.CaptureFixture[str]) -> None:
    from leadline.cli import main

    assert main(["study", "em_monotone", "iris", "--set", "seeds=1", "--set", "sweeps=4"]) in (0, None)
    assert "No sweep lowers the objective. True." in capsys.readouterr().out
    assert torch.get_default_dtype() == torch.float32
    assert "em_monotone" in ll.studies.STUDIES
