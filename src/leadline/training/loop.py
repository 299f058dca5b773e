"""The loop: one phase of learning, by gradient steps or by sweeps.

`descend` takes steps on the losses of the players; `sweep` calls the model's own full step. Both
keep `Session.position` true after every step, so that a checkpoint may be written at any of them.
"""

import copy
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

from leadline.core import Batch, Classes, DataError, DivergenceError, InterruptedFit, Labels, Player
from leadline.core.verbs import has_verb
from leadline.data import Split
from leadline.training.augment import augmenter
from leadline.training.checkpoint import LAST, Position, pack, restore_optimizer, weights_of
from leadline.training.feed import Feed
from leadline.training.machine import Crew, autocast, choose_threads, players_of
from leadline.training.optimizers import make_optimizer, needs_closure, scheduled
from leadline.training.progress import Progress
from leadline.training.record import Record
from leadline.training.settings import Settings

__all__ = ["Hook", "Phase", "Probe", "Session", "descend", "interrupts", "sweep", "threads_for"]

_SMALL_SWEEP = 200_000

Hook = Callable[[nn.Module, int], None]
Probe = Callable[[nn.Module, int], dict[str, float]]


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
    restore: tuple[dict[str, Tensor], dict[str, Any]] | None = None
    _optimizers: dict[str, Optimizer] = field(default_factory=dict)
    _scaler: Any = None
    _clock: float = field(default_factory=time.monotonic)
    _saved: float = field(default_factory=time.monotonic)
    _shown: float = 0.0

    def tick(self) -> None:
        """Bring the time spent up to now."""
        now = time.monotonic()
        self.position.seconds += now - self._clock
        self._clock = now

    def out_of_time(self) -> bool:
        """Return whether the budget is spent."""
        if self.settings.budget is None:
            return False
        spent = self.position.seconds + time.monotonic() - self._clock
        return self.crew.agreed(flag=spent >= self.settings.budget)

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
            optimizers=self._optimizers,
            position=self.position,
            scaler={} if self._scaler is None else self._scaler.state_dict(),
            writes=self.crew.leads,
        )

    def checkpoint_if_finite(self) -> None:
        """Write the state before a step that went wrong, unless the weights are lost already."""
        if self.crew.size == 1 and all(bool(value.isfinite().all()) for value in self.model.parameters()):
            self.checkpoint()

    def after_each(self, phase: Phase, done: float, sums: dict[str, float], taken: int) -> None:
        """Do what is due after a step: show progress, write a checkpoint, obey Ctrl-C."""
        now = time.monotonic()
        if now - self._shown > 0.2:
            self._shown = now
            self.tick()
            self._show(phase, done, {name: value / max(taken, 1) for name, value in sums.items()})
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
        """Show the losses since the last validation, the latest figures and the speed."""
        latest = self.record.run.metrics[-1] if self.record.run.metrics else {}
        told: dict[str, float] = {key: latest[key] for key in ("valid", "accuracy") if key in latest}
        rate = self.position.total * self.settings.batch_size / max(self.position.seconds, 1e-9)
        self.progress.update(phase.name, min(done, 1.0), {**figures, **told, "samples/s": rate})

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


def threads_for(session: Session, phase: Phase) -> int:
    """Return the number of CPU threads that suits a phase."""
    learner, batch = phase.learner, session.settings.batch_size
    if has_verb(learner, "sweep"):
        cells = len(phase.train) * math.prod(session.record.run.domain.shape)
        return 1 if cells < _SMALL_SWEEP else torch.get_num_threads()
    x, y = phase.train.rows(torch.arange(min(batch, len(phase.train))))
    trial = copy.deepcopy(learner)  # a loss may change buffers (running averages, chains)
    players = players_of(trial)
    labels = None if y is None else y.to(session.device)
    return choose_threads(
        lambda: players[0].loss(Batch(x.to(session.device), labels)), session.device, session.crew.size
    )


# --- gradient steps -------------------------------------------------------------------------------


@dataclass
class _Turn:
    """A player with its optimiser, and how often it moves: on every `every`-th step."""

    number: int
    player: Player
    optimizer: Optimizer
    rate: float
    every: int


def descend(session: Session, phase: Phase) -> None:
    """Take gradient steps on the losses of the phase's learner until its end.

    Raises:
        DivergenceError: If a loss is not finite; the message names step and player.
        InterruptedFit: If Ctrl-C was pressed.
    """
    settings, position, learner = session.settings, session.position, phase.learner
    losses = session.crew.losses(learner, settings.sharding)
    losses = torch.compile(losses, dynamic=False) if settings.compile else losses
    turns = _turns(session, phase)
    feed = _feed(session, phase)
    last = _last_step(settings, feed.per_epoch)
    varies = settings.schedule != "constant" or settings.warmup > 0
    sums = {turn.player.name: 0.0 for turn in turns}
    taken = 0
    learner.train()
    for x, y, weight in feed.batches(position.step):
        if position.settled or position.step >= last or session.out_of_time():
            break
        done = _fraction(session, last)
        for turn in turns:
            if (position.step + 1) % turn.every:
                continue
            if varies:
                factor = scheduled(settings.schedule, settings.warmup, position.step, done)
                for group in turn.optimizer.param_groups:
                    group["lr"] = turn.rate * factor
            batch = Batch(x, y, settings.label_smoothing, done)
            sums[turn.player.name] += _step(session, losses, turn, batch, weight)
        position.step += 1
        position.total += 1
        taken += 1
        if session.after_step is not None:
            session.after_step(session.model, position.total)
        if session.probe is not None and session.probe_every and position.step % session.probe_every == 0:
            session.record.add(_probed(session, phase))
        if position.step % (feed.per_epoch * settings.validate_every) == 0 or position.step == last:
            tired = _close_epoch(session, phase, feed, {k: v / taken for k, v in sums.items()})
            sums, taken = dict.fromkeys(sums, 0.0), 0
            position.settled = tired
        session.after_each(phase, done, sums, taken)
    if taken:
        _close_epoch(session, phase, feed, {k: v / taken for k, v in sums.items()})


def _feed(session: Session, phase: Phase) -> Feed:
    """Return the batches of a phase: `accumulate` batches make a step."""
    settings = session.settings
    domain = getattr(phase.learner, "domain", None)
    return Feed(
        phase.train,
        settings.batch_size * settings.accumulate,
        seed=settings.seed,
        phase=phase.name,
        device=session.device,
        crew=session.crew,
        augment=augmenter(settings.augment, domain) if domain is not None else None,
    )


def _turns(session: Session, phase: Phase) -> list[_Turn]:
    """Return each player with a new optimiser, its state put back if the phase is resumed."""
    settings, players = session.settings, players_of(phase.learner)
    most = max(player.steps for player in players)
    turns = []
    for number, player in enumerate(players):
        optimizer = make_optimizer(
            settings.optimizer,
            player.parameters,
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            options=settings.optimizer_options or {},
        )
        if session.restore is not None:
            restore_optimizer(optimizer, player.name, *session.restore)
        rate = float(optimizer.param_groups[0]["lr"])
        turns.append(_Turn(number, player, optimizer, rate, most // player.steps))
    scaled = settings.precision == "fp16" and session.device.type == "cuda"
    session._scaler = torch.amp.GradScaler(session.device.type, enabled=scaled) if scaled else None
    if session.restore is not None and session._scaler is not None:
        session._scaler.load_state_dict(session.restore[1]["scaler"])
    session.restore = None
    session._optimizers = {turn.player.name: turn.optimizer for turn in turns}
    return turns


def _step(
    session: Session, losses: Callable[[int, Batch], Tensor], turn: _Turn, batch: Batch, weight: float
) -> float:
    """Move one player's parameters once, and return its loss."""
    settings, optimizer, scaler = session.settings, turn.optimizer, session._scaler

    def evaluate() -> Tensor:
        for parameter in turn.player.parameters:
            parameter.grad = None
        total = None
        for part, share in _parts(batch, settings.accumulate):
            with autocast(session.device, settings.precision):
                loss = losses(turn.number, part)
            scaled = loss if share * weight == 1.0 else loss * (share * weight)
            (scaled if scaler is None else scaler.scale(scaled)).backward()
            total = scaled.detach() if total is None else total + scaled.detach()
        if scaler is not None:
            scaler.unscale_(optimizer)
        if settings.clip is not None:
            nn.utils.clip_grad_norm_(turn.player.parameters, settings.clip)
        return total if total is not None else torch.zeros(())

    if needs_closure(optimizer):
        value = float(optimizer.step(evaluate))  # type: ignore[arg-type]
        _check(value, session.position, turn.player)
        return value
    value = float(evaluate())
    if not math.isfinite(value):
        session.checkpoint_if_finite()
    _check(value, session.position, turn.player)
    if scaler is None:
        optimizer.step()
    else:
        scaler.step(optimizer)
        scaler.update()
    return value


def _parts(batch: Batch, pieces: int) -> list[tuple[Batch, float]]:
    """Return the batch cut into at most `pieces`, each with its share of the samples."""
    if pieces == 1:
        return [(batch, 1.0)]
    n = len(batch.x)
    ys = [None] * pieces if batch.y is None else batch.y.chunk(pieces)
    pairs = zip(batch.x.chunk(pieces), ys, strict=False)
    return [(Batch(x, y, batch.label_smoothing, batch.progress), len(x) / n) for x, y in pairs]


def _check(value: float, position: Position, player: Player) -> None:
    if not math.isfinite(value):
        raise DivergenceError(
            f"the loss of {player.name} is {value} at step {position.total + 1}; "
            f"try a smaller lr, or clip=1.0"
        )


def _last_step(settings: Settings, per_epoch: int) -> float:
    """Return the number of steps of a phase."""
    ends = [settings.steps] if settings.steps is not None else []
    ends += [settings.epochs * per_epoch] if settings.epochs is not None else []
    return min(ends) if ends else math.inf


def _fraction(session: Session, last: float) -> float:
    """Return how much of the training is done, by steps or by the clock."""
    done = session.position.step / last
    if session.settings.budget is not None:
        spent = session.position.seconds + time.monotonic() - session._clock
        done = max(done, spent / session.settings.budget)
    return min(done, 1.0)


def _probed(session: Session, phase: Phase) -> dict[str, Any]:
    """Return a record of what the probe measured, with the model in evaluation mode."""
    if session.probe is None:
        return {}
    phase.learner.eval()
    with torch.random.fork_rng(devices=[]):
        values = session.probe(session.model, session.position.total)
    phase.learner.train()
    return {"phase": phase.name, "step": session.position.total, **values}


def _close_epoch(session: Session, phase: Phase, feed: Feed, losses: dict[str, float]) -> bool:
    """Validate, write a record, keep the best; return whether to stop early."""
    position = session.position
    figures = validate(session, phase)
    session.tick()
    named = losses if len(losses) > 1 else {"loss": next(iter(losses.values()))}
    record: dict[str, Any] = {
        "phase": phase.name,
        "epoch": position.step / feed.per_epoch,
        "step": position.total,
        **{key: session.crew.mean(value) for key, value in named.items()},
        **figures,
        "seconds": position.seconds,
    }
    session.record.add(record)
    phase.learner.train()
    return session.judge(phase, figures.get("valid"))


@torch.no_grad()
def validate(session: Session, phase: Phase) -> dict[str, float]:
    """Return figures on the validation split: "valid" (lower is better) and, for classes, accuracy.

    Random draws are the same at every validation and leave the training's own draws alone.
    """
    learner, split = phase.learner, phase.valid
    if len(split) == 0 or not has_verb(learner, "loss") or session.settings.sharding is not None:
        return {}
    learner.eval()
    total = torch.zeros(2, dtype=torch.float64)
    count = 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for rows, answers in split.batches(4 * session.settings.batch_size):
            x, y = rows.to(session.device), None if answers is None else answers.to(session.device)
            with autocast(session.device, session.settings.precision):
                total += _valid_sums(phase, x, y)
            count += len(x) if y is None or phase.labels is None else int(phase.labels.known(y).sum())
    mean = (total / max(count, 1)).tolist()
    classes = isinstance(phase.labels, Classes) and has_verb(learner, "predict")
    return {"valid": mean[0]} | ({"accuracy": mean[1]} if classes else {})


def _valid_sums(phase: Phase, x: Tensor, y: Tensor | None) -> Tensor:
    """Return the summed loss and the number of right predictions of a batch."""
    if isinstance(phase.labels, Classes) and y is not None and has_verb(phase.learner, "predict"):
        scores = phase.learner.predict(x).float()  # type: ignore[operator]
        known = phase.labels.known(y)
        loss = nn.functional.nll_loss(scores, y, ignore_index=-1, reduction="sum")
        return torch.stack([loss, (scores.argmax(-1) == y)[known].sum()]).double().cpu()
    rows = len(x) if y is None or phase.labels is None else int(phase.labels.known(y).sum())
    loss = phase.learner.loss(Batch(x, y, progress=1.0))  # type: ignore[operator]
    return torch.tensor([float(loss) * rows, 0.0], dtype=torch.float64)


# --- sweeps ---------------------------------------------------------------------------------------


def sweep(session: Session, phase: Phase) -> None:
    """Call the learner's full step until it no longer improves.

    Raises:
        DivergenceError: If the objective is not finite.
        DataError: If streamed samples do not fit in memory.
    """
    settings, position, learner = session.settings, session.position, phase.learner
    last = _last_step(settings, 1)
    x = _in_memory(phase.train).to(session.device)
    learner.eval()
    session.restore = None
    session._optimizers = {}
    while not position.settled and position.step < last and not session.out_of_time():
        with torch.no_grad():
            objective = float(learner.sweep(x))  # type: ignore[operator]
        if not math.isfinite(objective):
            raise DivergenceError(
                f"the objective of {phase.name} is {objective} at sweep {position.step + 1}"
            )
        position.step += 1
        position.total += 1
        session.tick()
        session.record.add(
            {
                "phase": phase.name,
                "epoch": float(position.step),
                "step": position.total,
                "objective": objective,
                "seconds": position.seconds,
            }
        )
        position.settled = _settled(learner, objective, position.previous, settings.tolerance)
        position.previous = objective
        done = position.step / last if last < math.inf else 0.0
        session.after_each(phase, done, {"objective": objective}, 1)


def _settled(learner: nn.Module, objective: float, previous: float | None, tolerance: float) -> bool:
    """Return whether sweeping is over: as the learner says, or by a relative gain below the tolerance."""
    if hasattr(learner, "converged"):
        return bool(learner.converged)
    return previous is not None and objective - previous < tolerance * (1 + abs(objective))


def _in_memory(split: Split) -> Tensor:
    """Return all samples of a split as a tensor."""
    if isinstance(split.x, Tensor):
        return split.x
    try:
        return torch.cat([x for x, _ in split.batches(1024)])
    except (MemoryError, RuntimeError) as error:
        raise DataError(
            f"a sweep needs all {len(split)} samples in memory; load fewer with limit="
        ) from error
