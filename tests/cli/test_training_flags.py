"""The settings of a training on the command line: given, kept with the run, and told again."""

import shlex
from pathlib import Path

import pytest

import leadline as ll
from leadline.cli import main
from leadline.reports.run_card import card_of, command_of
from leadline.training.files import read_json
from tests.cli.test_commands import failed


def test_rates_frozen_layers_and_the_climb_are_kept_on_resume_and_told_again(tmp_path: Path) -> None:
    told = (
        "fit mlp digits --data limit=80 --set hidden=8,8 --steps 2 --freeze net.0 --lr-group net.2=0.01 "
        "--optimizer sam --optimizer-option rho=0.1 --optimizer-option base=adam --precision bf16"
    )
    assert main([*shlex.split(told), "--out", str(tmp_path / "a"), "--quiet"]) == 0
    settings = read_json(tmp_path / "a" / "run.json")["settings"]
    assert settings["freeze"] == ["net.0"]
    assert settings["lr_groups"] == {"net.2": 0.01}
    assert settings["optimizer_options"] == {"rho": 0.1, "base": "adam"}
    assert main(["fit", "--resume", "--out", str(tmp_path / "a"), "--steps", "4", "--quiet"]) == 0
    run = ll.open(tmp_path / "a")
    assert run.steps == 4
    command = command_of(run)
    for words in ("--freeze net.0", "--lr-group net.2=0.01", "--optimizer-option base=adam"):
        assert words in command
    assert ("Notes", "frozen: 520 of 682 parameters") in card_of(run, None).facts  # 64 x 8 + 8
    again = [*shlex.split(command)[1:], "--out", str(tmp_path / "b"), "--quiet"]
    assert main(again) == 0
    one, two = ((tmp_path / name / "model.safetensors").read_bytes() for name in "ab")
    assert one == two


def test_a_wrong_flag_gets_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit = ("fit", "mlp", "digits", "--steps", "1", "--quiet", "--out", tmp_path / "r")
    assert "give LAYER=RATE" in failed(capsys, *fit, "--lr-group", "net")
    assert "wants a number" in failed(capsys, *fit, "--lr-group", "net=fast")
    assert 'is called "nett"' in failed(capsys, *fit, "--freeze", "nett")
