"""Runs on disk: they open, resume bit for bit after a kill, survive a full disk and hostile files."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from leadline.catalog import build
from leadline.core import DataError, InterruptedFit, OptionError, RunError
from leadline.data import Split
from leadline.training import fit, open_run, refresh_batchnorm
from leadline.training.files import read_tensors, write_json
from tests.programs import program
from tests.tiny import tiny
from tests.training.learners import MODELS, Adversaries, Classifier

QUIET = ("-W", "ignore", "-m")
LAUNCH = (
    *QUIET,
    "torch.distributed.run",
    "--standalone",
    "--nproc-per-node=2",
    "-m",
    "tests.training.spread",
)
KILLS = {"descend": 20, "players": 6, "sweep": 6, "stack": 8}


@pytest.mark.parametrize("way", MODELS)
def test_a_training_killed_at_random_moments_ends_with_the_same_bytes(way: str, tmp_path: Path) -> None:
    done = program(*QUIET, "tests.training.killed", way, str(tmp_path), str(KILLS[way]))
    assert done.stdout.split() == [str(KILLS[way]), "True"], done.stderr[-2000:]


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    data = tiny("images")
    torch.manual_seed(0)
    fit(Classifier(data), data, epochs=2, out=tmp_path / "run", progress=False, threads=1)
    return tmp_path / "run"


def test_a_run_opens_with_the_weights_and_metrics_it_ended_with(finished: Path) -> None:
    data = tiny("images")
    run = open_run(finished, model=Classifier(data))
    again = Classifier(data)
    fit(again, data, epochs=2, out=False, progress=False, threads=1)
    for mine, theirs in zip(run.model.parameters(), again.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert run.status == "done"
    assert len(run.metrics) == 2
    assert run.fingerprint == data.fingerprint
    assert any(path.name.startswith("events.out.tfevents") for path in finished.iterdir())


def test_a_run_is_extended_by_more_epochs_as_if_it_had_had_them_from_the_start(tmp_path: Path) -> None:
    data = tiny("images")
    settings: dict[str, Any] = {"progress": False, "threads": 1, "select": "last"}
    fit(Classifier(data), data, epochs=2, out=tmp_path / "a", **settings)
    fit(Classifier(data), data, epochs=5, out=tmp_path / "a", resume=True, **settings)
    fit(Classifier(data), data, epochs=5, out=tmp_path / "b", **settings)
    a, b = ((tmp_path / name / "model.safetensors").read_bytes() for name in "ab")
    assert a == b
    assert len(open_run(tmp_path / "a", model=Classifier(data)).metrics) == 5


def test_control_c_stops_after_the_step_with_a_checkpoint_and_says_how_to_resume(tmp_path: Path) -> None:
    data = tiny("images")

    def press(model: nn.Module, step: int) -> None:
        if step == 7:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(InterruptedFit, match=r"after step 7; .*resume=True with out="):
        fit(Classifier(data), data, steps=10**6, out=tmp_path, progress=False, threads=1, after_step=press)
    run = open_run(tmp_path, model=Classifier(data))
    assert run.status == "interrupted"
    assert run.steps == 7
    done = fit(
        Classifier(data), data, steps=run.steps + 3, out=tmp_path, resume=True, progress=False, threads=1
    )
    assert (done.status, done.steps) == ("done", run.steps + 3)


def test_settings_that_decided_the_steps_taken_cannot_change_on_resume(finished: Path) -> None:
    data = tiny("images")
    with pytest.raises(OptionError, match="batch_size was 128 and is now 7"):
        fit(Classifier(data), data, epochs=3, batch_size=7, out=finished, resume=True, progress=False)
    other = replace(data, train=Split(data.train.x.flip(0), data.train.y))
    with pytest.raises(RunError, match="other data"):
        fit(Classifier(data), other, epochs=3, out=finished, resume=True, progress=False)


def test_a_failing_write_is_one_line_and_keeps_the_last_good_state(tmp_path: Path) -> None:
    script = f"""
import resource, signal
from leadline.core import RunError
from leadline.training import fit
from tests.tiny import tiny
from tests.training.learners import Classifier
data = tiny("images")
fit(Classifier(data), data, epochs=1, out={str(tmp_path / "r")!r}, progress=False)
resource.setrlimit(resource.RLIMIT_FSIZE, (900, 900))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
try:
    fit(Classifier(data), data, epochs=3, out={str(tmp_path / "r")!r}, resume=True, progress=False)
except RunError as error:
    print(error)
"""
    done = program("-B", "-W", "ignore", "-c", script)  # cut off, compiled code would stay
    assert done.stdout.startswith("cannot write"), done.stderr
    assert "last checkpoint is kept" in done.stdout
    data = tiny("images")
    assert open_run(tmp_path / "r", model=Classifier(data)).steps == 1
    assert not list((tmp_path / "r").rglob("*.tmp"))


@pytest.mark.parametrize(
    "damage", ["missing", "empty", "text", "list", "no weights", "cut", "garbage", "format"]
)
def test_a_damaged_run_gets_one_clear_line(damage: str, finished: Path) -> None:
    weights, note = finished / "model.safetensors", finished / "run.json"
    if damage == "missing":
        note.unlink()
    elif damage in ("empty", "text", "list"):
        note.write_text({"empty": "", "text": "{", "list": "[1]"}[damage])
    elif damage == "no weights":
        weights.unlink()
        (finished / "state" / "last.safetensors").unlink()
    elif damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-10])
    elif damage == "garbage":
        weights.write_bytes(b"\xff" * 100)
    else:
        write_json(note, json.loads(note.read_text()) | {"format": 99})
    with pytest.raises(RunError) as caught:
        open_run(finished, model=Classifier(tiny("images")))
    assert str(finished) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_of_another_model_are_refused_by_name(finished: Path) -> None:
    with pytest.raises(RunError, match="missing: critic"):
        open_run(finished, model=Adversaries(tiny("images")))
    with pytest.raises(RunError, match="your own Classifier"):
        open_run(finished)


def test_a_run_killed_before_its_end_opens_with_its_last_good_weights(finished: Path) -> None:
    (finished / "model.safetensors").unlink()
    run = open_run(finished, model=Classifier(tiny("images")))
    assert len(run.metrics) == 2


@pytest.mark.parametrize(
    ("kind", "sharding"), [("classifier", "none"), ("players", "none"), ("classifier", "full")]
)
def test_two_processes_end_with_the_weights_of_one(kind: str, sharding: str, tmp_path: Path) -> None:
    alone = program(*QUIET, "tests.training.spread", kind, "none", str(tmp_path / "one"))
    assert alone.returncode == 0, alone.stderr[-2000:]
    both = program(*LAUNCH, kind, sharding, str(tmp_path / "two"))
    assert both.returncode == 0, both.stderr[-3000:]
    assert both.stdout.count("left:") == 2
    assert "gloo" not in both.stdout  # a thread that outlives Python may abort the process
    one = read_tensors(tmp_path / "one" / "model.safetensors")[0]
    two = read_tensors(tmp_path / "two" / "model.safetensors")[0]
    assert one.keys() == two.keys()
    if kind == "players":  # each process draws its own noise, so only the course is alike
        assert all(torch.isfinite(value).all() for value in two.values())
        return
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-6)
    assert len((tmp_path / "two" / "metrics.jsonl").read_text().splitlines()) == 3


def test_two_processes_measure_the_statistics_of_the_weights_that_they_write(tmp_path: Path) -> None:
    both = program(*LAUNCH, "normalised", "none", str(tmp_path / "two"))
    assert both.returncode == 0, both.stderr[-3000:]
    data = tiny("images")
    two, model = read_tensors(tmp_path / "two" / "model.safetensors")[0], Classifier(data, 1e-9)
    model.load_state_dict(two)
    refresh_batchnorm(model, data, batch_size=25)  # half of 50, as each process took them
    torch.testing.assert_close(model.net[1].running_mean, two["net.1.running_mean"])
    torch.testing.assert_close(model.net[1].running_var, two["net.1.running_var"])
    assert int(two["net.1.num_batches_tracked"]) == 9  # three epochs of three steps


def test_a_failure_before_the_first_step_is_told_once_and_offers_nothing_to_go_on_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = build("gmm", tiny("vectors"), components=500)
    with pytest.raises(DataError, match=r"components \(500\).*; nothing was learned: begin anew") as found:
        fit(model, tiny("vectors"), out=tmp_path / "run")
    assert "resume" not in str(found.value)
    told = capsys.readouterr().err
    assert told.strip().endswith("failed after 0 steps")
    assert "500" not in told
