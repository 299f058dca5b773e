"""What long work says of how far it has come, and to whom."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from rich.progress import TextColumn

import leadline as ll
from leadline.core.telling import each_told, listening, tell, told_of
from leadline.measures import critic
from leadline.measures.answers import draw
from leadline.training import progress
from leadline.training.progress import make_progress, telling_progress

Heard = list[tuple[str, float]]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Return how to put the clock of progress forward by seconds; it stands still otherwise."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])

    def forward(seconds: float) -> None:
        now[0] += seconds

    return forward


def test_what_is_told_is_heard_under_the_names_of_all_it_is_part_of() -> None:
    heard: Heard = []
    with listening(lambda name, done: heard.append((name, done))), told_of("page"), told_of("density"):
        assert list(each_told("rows", "ab")) == ["a", "b"]
    tell("later", 1.0)
    expected = [("page", 0.0), ("page: density", 0.0), ("page: density: rows", 0.0)]
    assert heard == [*expected, ("page: density: rows", 0.5)]


def test_work_that_nobody_listens_to_goes_on_alike() -> None:
    with told_of("page"):
        tell("density", 0.5)
        assert list(each_told("rows", [3, 4])) == [3, 4]


def test_lines_come_after_a_silence_and_say_what_is_left_of_the_work_of_now(
    clock: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    with telling_progress(shown=True, prefix="rbm: ", every=15.0):
        tell("samples", 0.0)
        clock(14)
        tell("samples", 0.5)
        assert capsys.readouterr().err == ""
        clock(2)
        tell("log Z", 0.0)
        assert capsys.readouterr().err == "rbm: log Z:   0%\n"
        clock(6)
        tell("log Z", 0.25)
        clock(10)
        tell("log Z", 0.25)  # 16 s for a quarter: 48 s are left, whatever the samples took
    assert capsys.readouterr().err == "rbm: log Z:  25%  48 s left\n"
    tell("nothing", 0.5)
    assert capsys.readouterr().err == ""


def test_work_that_starts_over_under_its_name_is_reckoned_anew(
    clock: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    with telling_progress(shown=True, every=5.0):
        tell("annealing", 0.0)
        clock(100)
        tell("annealing", 0.9)
        tell("annealing", 0.0)
        clock(10)
        tell("annealing", 0.5)
    assert capsys.readouterr().err.splitlines()[-1] == "annealing:  50%  10 s left"


def test_a_training_shows_what_is_left_of_its_phase(
    clock: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    shown = make_progress(shown=True)
    shown.update("stage 1", 0.0, {})
    clock(100)
    shown.update("stage 2", 0.0, {"loss": 2.0})
    clock(10)
    shown.update("stage 2", 0.5, {"loss": 1.0})
    shown.close("done")
    lines = capsys.readouterr().err.splitlines()
    assert lines[1:] == ["stage 2:   0%  loss 2", "stage 2:  50%  loss 1  10 s left", "done"]


def test_a_silent_training_tells_whoever_waits_for_more_than_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(critic, "_critics", {})  # one trained by an earlier test would have nothing to tell
    data = ll.load("iris")
    heard: Heard = []
    with listening(lambda name, done: heard.append((name, done))):
        critic.critic_for(data)
    assert heard[0] == ("training the critic", 0.0)
    assert any(name.startswith("training the critic: ") and done > 0 for name, done in heard)


def test_draws_are_told_in_shares_of_all_that_are_asked_for() -> None:
    heard: Heard = []
    model = ll.build("pca", ll.load("iris"))
    with listening(lambda name, done: heard.append((name, done))):
        draw(model, 8, batch=2)
    assert heard == [("sample", 0.0), ("sample", 0.25), ("sample", 0.5), ("sample", 0.75)]


def test_a_page_names_what_it_measures_only_where_it_is_to(
    clock: Callable[[float], None], capsys: pytest.CaptureFixture[str], tmp_path: object
) -> None:
    data = ll.load("iris", limit=60)
    run = ll.fit(ll.build("pca", data), data, epochs=1, out=False, progress=False)
    heard: Heard = []
    with listening(lambda name, done: heard.append((name, done))):
        ll.report(run, f"{tmp_path}/page.html", data=data, progress=False)
    names = {name for name, _ in heard}
    assert {"representation", "Representation: beside it", "Laws"} <= names
    assert any(re.fullmatch("Laws: decode inverts encode.*", name) for name in names)
    assert capsys.readouterr().err == ""


def test_annealing_is_told_by_its_temperatures() -> None:
    heard: Heard = []
    model = ll.build("rbm", ll.load("digits", limit=100, binarize=True), hidden=30)
    with listening(lambda name, done: heard.append((name, done))), torch.no_grad():
        model.log_partition("ais", chains=2, temperatures=5)  # type: ignore[operator]
    assert heard == [("annealing", k / 4) for k in range(4)] * 2


def test_what_is_not_done_is_never_called_a_hundred_percent(
    clock: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    lines = make_progress(shown=True)
    for done in (0.0, 0.29, 0.57, 0.996, 1.0):
        clock(6)
        lines.update("rbm", done, {})
    told = re.findall(r"(\d+)%", capsys.readouterr().err)
    assert told == ["0", "29", "57", "99", "100"]


def test_the_bar_shows_the_share_rounded_down(
    monkeypatch: pytest.MonkeyPatch, clock: Callable[[float], None]
) -> None:
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True)
    bar: Any = make_progress(shown=True)
    clock(1)
    bar.update("rbm", 0.996, {})
    task = bar._bar.tasks[0]
    shown = [str(column.render(task)) for column in bar._bar.columns if isinstance(column, TextColumn)]
    bar.close("")
    assert " 99%" in shown
    assert not any("100" in text for text in shown)
