"""How phases share a budget, by a clock that moves only when a learner works."""

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from leadline.core import Batch, Described, InterruptedFit, OptionError
from leadline.training import Run, fit
from leadline.training.checkpoint import LAST, Position
from leadline.training.files import read_tensors, write_tensors
from leadline.training.session import Session
from tests.tiny import tiny
from tests.training.learners import Classifier, Tower

BUDGET = 101.0  # seconds after the first step, which is free


class Clock:
    """A clock that moves only when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(time, "monotonic", found)
    return found


class Timed(nn.Module):
    """A phase whose steps take a second each, and whose weight becomes the sum of the progress it saw."""

    def __init__(self, data: Described, clock: Clock) -> None:
        super().__init__()
        self.domain, self.clock = data.domain, (clock,)
        self.weight = nn.Parameter(torch.zeros(()))
        self.seen: list[float] = []

    def encode(self, x: Tensor) -> Tensor:
        return x

    def loss(self, batch: Batch) -> Tensor:
        if self.training:
            self.clock[0].now += 1
            self.seen.append(batch.progress)
        return -self.weight * batch.progress


class Counting(nn.Module):
    """A stage of one sweep, which takes a tenth of a second."""

    converged = True

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = (clock,)

    def encode(self, x: Tensor) -> Tensor:
        return x

    def sweep(self, x: Tensor) -> float:
        self.clock[0].now += 0.1
        return 0.0


class Stacked(Timed):
    """A stage of one sweep, a stage that descends, and the whole."""

    def __init__(self, data: Described, clock: Clock) -> None:
        super().__init__(data, clock)
        self.first, self.second = Counting(clock), Timed(data, clock)

    def stages(self) -> list[nn.Module]:
        return [self.first, self.second]


def learned(clock: Clock, **settings: Any) -> Stacked:
    """Return what a training with a budget made; every step is the sum of gradients so far."""
    data = tiny("vectors")
    model = Stacked(data, clock)
    usual = {"budget": BUDGET, "optimizer": "sgd", "lr": 1.0, "batch_size": 60, "select": "last"}
    fit(model, data, **{"out": False, "progress": False, "threads": 1} | usual | settings)
    return model


def timed(model: nn.Module, clock: Clock, budget: float | str) -> Run:
    """Return the run of a training whose steps each take a second beside what the model takes."""

    def second(model: nn.Module, step: int) -> None:
        clock.now += 1

    return fit(model, tiny("images"), budget=budget, after_step=second, out=False, progress=False, threads=1)


def test_a_budget_is_shared_by_the_phases_and_kept(clock: Clock) -> None:
    run = timed(Tower(tiny("images")), clock, budget=30)
    ends = {record["phase"]: record["seconds"] for record in run.metrics}
    assert ends == pytest.approx({"stage 1": 11, "stage 2": 21, "Tower": 31}, abs=1.01)
    assert run.seconds == 31  # the first step is free


def test_a_first_step_that_compiles_is_not_charged_to_the_budget(clock: Clock) -> None:
    class Slow(Classifier):
        late = True

        def loss(self, batch: Batch) -> Tensor:
            clock.now += 600 * self.late
            self.late = False
            return super().loss(batch)

    run = timed(Slow(tiny("images")), clock, budget=30)
    assert run.steps == 31
    assert run.seconds == 631


def test_what_a_short_stage_leaves_is_shared_by_the_phases_that_remain(clock: Clock) -> None:
    model = learned(clock)
    steps = [len(model.second.seen), len(model.seen)]
    assert sum(steps) in (101, 102)  # the last step may end behind the budget
    assert abs(steps[0] - steps[1]) <= 1


def test_each_phase_sees_the_whole_of_its_schedule_in_even_steps(clock: Clock) -> None:
    model = learned(clock)
    for seen in (model.second.seen, model.seen):
        even = torch.arange(len(seen), dtype=torch.float64) / len(seen)
        assert torch.allclose(torch.tensor(seen, dtype=torch.float64), even, atol=0.03)


def test_a_run_that_is_interrupted_shares_its_budget_as_if_it_had_not_been(
    clock: Clock, tmp_path: Path
) -> None:
    whole = learned(clock)
    stop = Stop(at=40)
    with pytest.raises(InterruptedFit):
        learned(clock, out=tmp_path, after_step=stop)
    clock.now += 5000  # nobody is charged for the time between two processes
    rest = learned(clock, out=tmp_path, resume=True)
    # the first step of a process is free: there is one more of them
    assert 39 + len(rest.second.seen) == len(whole.second.seen) + 1
    assert len(rest.seen) == len(whole.seen)
    before = len(whole.second.seen) - len(rest.second.seen) + 1
    assert rest.second.seen[0] == pytest.approx(whole.second.seen[before], abs=0.03)


class Stop:
    """A hook that presses Ctrl-C at a step."""

    def __init__(self, at: int) -> None:
        self.at = at

    def __call__(self, model: nn.Module, step: int) -> None:
        import signal

        if step == self.at:
            signal.raise_signal(signal.SIGINT)


def test_the_state_of_an_older_version_goes_on(clock: Clock, tmp_path: Path) -> None:
    with pytest.raises(InterruptedFit):
        learned(clock, out=tmp_path, after_step=Stop(at=40))
    tensors, note = read_tensors(tmp_path / LAST)
    for name in ("free", "begun"):  # it did not know them
        del note["position"][name]
    write_tensors(tmp_path / LAST, tensors, note)
    rest = learned(clock, out=tmp_path, resume=True)
    # its second phase was to end at two thirds of the budget; the rest is the third's
    assert 39 + len(rest.second.seen) == pytest.approx(BUDGET * 2 / 3, abs=2)
    assert len(rest.seen) == pytest.approx(BUDGET / 3, abs=2)


@pytest.mark.parametrize(
    ("position", "spent"),
    [
        (Position(phase=0, seconds=15), 15 / 30),
        (Position(phase=1, seconds=15, begun=0.0), 15 / 45),
        (Position(phase=1, seconds=45, begun=10.0, free=5), 30 / 40),
        (Position(phase=2, seconds=80, begun=60.0), 20 / 30),
        (Position(phase=2, seconds=80), 20 / 30),  # an older version's: 60 of 90 were due
        (Position(phase=1, seconds=12), 0.0),  # an older version's that began before its time
        (Position(phase=2, seconds=95, begun=92.0), 1.0),  # nothing was left
    ],
)
def test_the_share_of_a_phase_is_what_was_left_over_the_phases_that_were_left(
    clock: Clock, position: Position, spent: float
) -> None:
    class Settings:
        budget = 90.0

    session = Session.__new__(Session)
    session.settings, session.position, session.phases = Settings(), position, 3  # type: ignore[assignment]
    session.clock = session._began = clock.now - 7  # seconds before the first step of this process
    session._stepped = False
    assert session.spent() == pytest.approx(spent)


def test_a_budget_may_be_told_in_words(clock: Clock) -> None:
    run = timed(Tower(tiny("images")), clock, budget="0.5m")
    assert run.settings["budget"] == 30.0
    with pytest.raises(OptionError, match="budget must be"):
        timed(Tower(tiny("images")), clock, budget="soon")
