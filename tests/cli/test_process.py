"""What only a process of its own shows: start-up, signals, pipes, full disks."""

import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.programs import ENVIRONMENT, PATIENCE, program

START = ("-m", "leadline")


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from leadline.cli import main; main(['--help']); main(['fit', '--help']);"
        "print(sorted({'torch','numpy','pandas','sklearn','matplotlib','rich','jinja2'} & set(sys.modules)))"
    )
    assert program("-c", code, check=True).stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "command",
    [
        "models",
        "data",
        "fit",
        "compare",
        "predict",
        "sample",
        "score",
        "encode",
        "decode",
        "verify",
        "study",
        "report",
    ],
)
def test_every_help_shows_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    from leadline.cli import main

    assert main([command, "--help"]) == 0
    assert f"\n    leadline {command}" in capsys.readouterr().out


def test_a_pipe_that_nobody_reads_ends_the_command_quietly() -> None:
    command = [sys.executable, *START, "--help"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(PATIENCE) == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_under_stdout_is_one_line() -> None:
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = program(*START, "--version", stdout=full)
    assert done.returncode == 2
    assert done.stderr == "error: No space left on device\n"


def test_ctrl_c_leaves_a_checkpoint_and_says_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from leadline.cli import main
    from leadline.training.session import Session

    after_each = Session.after_each

    def pressed(session: Session, *step: Any) -> None:
        if session.position.total == 3:
            signal.raise_signal(signal.SIGINT)
        after_each(session, *step)

    monkeypatch.setattr(Session, "after_each", pressed)
    words = ["fit", "mlp", "iris", "--epochs", "1000000", "--out", str(tmp_path / "run"), "--quiet"]
    assert main(words) == 130
    said = capsys.readouterr()
    assert said.out == ""
    assert "Traceback" not in said.err
    assert "interrupted after step 3" in said.err
    assert "--resume" in said.err


def test_the_help_of_fit_names_every_optimizer(capsys: pytest.CaptureFixture[str]) -> None:
    from leadline.cli import main
    from leadline.training.optimizers import OPTIMIZERS

    assert main(["fit", "--help"]) == 0
    told = " ".join(capsys.readouterr().out.partition("--optimizer ")[2].partition("--lr ")[0].split())
    assert set(re.findall(r"\w+", told)) >= {*OPTIMIZERS, "sam"}
