"""What only a process of its own shows: start-up, signals, pipes, full disks."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

START = [sys.executable, "-c", "import sys; from leadline.cli import main; sys.exit(main())"]


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from leadline.cli import main; main(['--help']); main(['fit', '--help']);"
        "print(sorted({'torch','numpy','pandas','sklearn','matplotlib','rich','jinja2'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


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
    process = subprocess.Popen([*START, "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) == 141
    assert said == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_under_stdout_is_one_line() -> None:
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run(
            [*START, "--version"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
        )
    assert done.returncode == 2
    assert done.stderr == "error: No space left on device\n"


def test_ctrl_c_leaves_a_checkpoint_and_says_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from leadline.cli import main

    def press() -> None:
        while not (tmp_path / "run" / "run.json").exists():
            time.sleep(0.02)
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()
    words = ["fit", "mlp", "iris", "--epochs", "1000000", "--out", str(tmp_path / "run"), "--quiet"]
    assert main(words) == 130
    said = capsys.readouterr()
    assert said.out == ""
    assert "Traceback" not in said.err
    assert "--resume" in said.err


def test_the_help_of_fit_names_every_optimizer(capsys: pytest.CaptureFixture[str]) -> None:
    from leadline.cli import main
    from leadline.training.optimizers import OPTIMIZERS

    assert main(["fit", "--help"]) == 0
    told = " ".join(capsys.readouterr().out.partition("--optimizer ")[2].partition("--lr ")[0].split())
    assert set(re.findall(r"\w+", told)) >= {*OPTIMIZERS, "sam"}
