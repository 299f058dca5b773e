"""A training in progress: what every phase shares, and what is due after every step."""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from leadline.core import InterruptedFit, Labels
from leadline.data import Split
from leadline.training.checkpoint import LAST, Position, pack, weights_of
from leadline.training.machine import Crew
from leadline.training.progress import Progress
from leadline.training.record import Record
from leadline.training.settings import Settings

__all__ = ["Hook", "Phase", "Probe", "Session", "interrupts"]

Hook = Callable[[nn.Module, int], None]
Probe = Callable[[nn.Module, int], dict[str, float]]


def _now() -> float:
    """Return seconds on a clock that never goes back."""
    return time.monotonic()


@dataclass
class Phase:
    """One part of a training.

    Args:
        name: What progress and metrics call it.
        learner: The module that learns.
        train: Samples to learn from, as the learner takes them.
        valid: Samples to choose by.
        labels: What a label is, or None.
        choose: Whether the best weights are kept.
        join: Called once the phase is over, or None.
    """

    name: str
    learner: nn.Module
    train: Split
    valid: Split
    labels: Labels | None
    choose: bool = True
    join: Callable[[], None] | None = None


@dataclass
class Session:
    """A training in progress: what every phase shares."""

    model: nn.Module
    settings: Settings
    device: torch.device
    crew: Crew
    record: Record
    progress: Progress
    folder: Path | None
    after_step: Hook | None = None
    probe: Probe | None = None
    probe_every: int = 0
    position: Position = field(default_factory=Position)
    best: dict[str, Tensor] | None = None
    stop_asked: bool = False
    phases: int = 1
    restore: tuple[dict[str, Tensor], dict[str, Any]] | None = None
    still: list[nn.Module] = field(default_factory=list)
    optimizers: dict[str, Optimizer] = field(default_factory=dict)
    scaler: Any = None
    clock: float = field(default_factory=_now)
    _saved: float = field(default_factory=_now)
    _shown: float = 0.0
    _began: float = field(default_factory=_now)
    _stepped: bool = False  # whether this process has done its first step

    def practise(self, learner: nn.Module) -> None:
        """Put a learner in training mode, but for the frozen layers that keep running statistics."""
        learner.train()
        for layer in self.still:
            layer.eval()

    def say(self, text: str) -> None:
        """Tell the user something that `fit` decided or found, and keep it with the run."""
        if text not in self.record.run.notes:
            self.record.run.notes.append(text)
        self.progress.note(text)

    def tick(self) -> None:
        """Bring the time spent up to now."""
        now = time.monotonic()
        self.position.seconds += now - self.clock
        self.clock = now

    def spent(self) -> float:
        """Return the fraction of this phase's share of the budget that is spent; 0 without a budget.

        The share is what the budget had left when the phase began, divided by the phases that were left.
        """
        if self.settings.budget is None:
            return 0.0
        budget, position = self.settings.budget, self.position
        charged, left = self.charged(), self.phases - position.phase
        begun = (
            min(budget * position.phase / self.phases, charged) if position.begun is None else position.begun
        )
        share = (budget - begun) / left
        return max(0.0, (charged - begun) / share) if share > 0 else 1.0

    def charged(self) -> float:
        """Return the seconds of training up to now that a budget is charged for.

        The first step of a process, in which code is compiled and memory is found, is free.
        """
        now = time.monotonic()
        free = self.position.free + (0.0 if self._stepped else now - self._began)
        return self.position.seconds + now - self.clock - free

    def out_of_time(self) -> bool:
        """Return whether this phase's share of the budget is spent."""
        return self.settings.budget is not None and self.crew.agreed(flag=self.spent() >= 1)

    def checkpoint(self) -> None:
        """Write the whole state, if the run has a directory."""
        self._saved = time.monotonic()
        if self.folder is None:
            return
        self.record.save()
        pack(
            self.folder / LAST,
            model=self.model,
            best=self.best,
            optimizers=self.optimizers,
            position=self.position,
            scaler={} if self.scaler is None else self.scaler.state_dict(),
            writes=self.crew.leads,
        )

    def checkpoint_if_finite(self) -> None:
        """Write the state before a step that went wrong, unless the weights are lost already."""
        if self.crew.size == 1 and all(bool(value.isfinite().all()) for value in self.model.parameters()):
            self.checkpoint()

    def after_each(self, phase: Phase, done: float, sums: dict[str, float], taken: int) -> None:
        """Do what is due after a step: show progress, write a checkpoint, obey Ctrl-C."""
        now = time.monotonic()
        if not self._stepped:
            self._stepped = True
            self.position.free += now - self._began
        if now - self._shown > 0.2:
            self._shown = now
            self.tick()
            means = {name: value / taken for name, value in sums.items()} if taken else {}
            self._show(
                phase, done, {"loss" if name == "model" else name: mean for name, mean in means.items()}
            )
        due = now - self._saved >= self.settings.checkpoint_every
        if self.crew.size > 1:  # collective: every process must agree to write
            due = self.crew.agreed(flag=due and self.crew.leads)
        if due:
            self.tick()
            self.checkpoint()
        if self.crew.agreed(flag=self.stop_asked):
            self.tick()
            self.checkpoint()
            raise InterruptedFit(f"interrupted after step {self.position.total}")

    def _show(self, phase: Phase, done: float, figures: dict[str, float]) -> None:
        """Show the losses since the last validation (or those up to it), the latest figures and the speed."""
        latest = self.record.run.metrics[-1] if self.record.run.metrics else {}
        losses = figures or {key: latest[key] for key in ("loss",) if key in latest}
        told: dict[str, float] = {key: latest[key] for key in ("valid", "accuracy") if key in latest}
        rate = self.position.total * self.settings.batch_size / max(self.position.seconds, 1e-9)
        self.progress.update(phase.name, min(done, 1.0), {**losses, **told, "samples/s": rate})

    def judge(self, phase: Phase, figure: float | None) -> bool:
        """Keep the best weights by a validation figure, and return whether patience has run out."""
        if figure is None or not phase.choose:
            return False
        position = self.position
        if math.isfinite(figure) and (position.best is None or figure < position.best):
            position.best, position.stale = figure, 0
            if self.settings.select == "best":
                self.best = {name: value.clone() for name, value in weights_of(self.model).items()}
        else:
            position.stale += 1
        return self.settings.patience is not None and position.stale >= self.settings.patience


@contextmanager
def interrupts(session: Session) -> Iterator[None]:
    """Inside the block, Ctrl-C and SIGTERM ask the session to stop after its step."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, frame: object) -> None:
        session.stop_asked = True

    before = {kind: signal.signal(kind, ask) for kind in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
