"""Learning by gradient steps: the loop over batches, and what one step is."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from leadline.core import Batch, DivergenceError, Player
from leadline.training.augment import augmenter
from leadline.training.checkpoint import Position, restore_optimizer
from leadline.training.feed import Feed
from leadline.training.machine import autocast, players_of
from leadline.training.optimizers import make_optimizer, needs_closure, scheduled, stepper
from leadline.training.session import Phase, Session
from leadline.training.settings import Settings
from leadline.training.validate import validate

__all__ = ["descend", "last_step"]


@dataclass
class _Turn:
    """A player with its optimiser, and how often it moves: on every `every`-th step."""

    number: int
    player: Player
    optimizer: Optimizer
    rate: float
    every: int
    step: Callable[[], object]


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
    last = last_step(settings, feed.per_epoch)
    labels, given = phase.labels, phase.train.y
    complete = labels is not None and given is not None and bool(labels.known(given).all())
    sums = {turn.player.name: 0.0 for turn in turns}
    taken = 0
    learner.train()
    for x, y, weight in feed.batches(position.step):
        if position.settled or position.step >= last or session.out_of_time():
            break
        done = _fraction(session, last)
        batch = Batch(x, y, settings.label_smoothing, done, complete)
        for turn in turns:
            if (position.step + 1) % turn.every == 0:
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
        turns.append(_Turn(number, player, optimizer, rate, most // player.steps, stepper(optimizer)))
    scaled = settings.precision == "fp16" and session.device.type == "cuda"
    session.scaler = torch.amp.GradScaler(session.device.type, enabled=scaled) if scaled else None
    if session.restore is not None and session.scaler is not None:
        session.scaler.load_state_dict(session.restore[1]["scaler"])
    session.restore = None
    session.optimizers = {turn.player.name: turn.optimizer for turn in turns}
    return turns


def _step(
    session: Session, losses: Callable[[int, Batch], Tensor], turn: _Turn, batch: Batch, weight: float
) -> float:
    """Move one player's parameters once, and return its loss."""
    settings, optimizer, scaler = session.settings, turn.optimizer, session.scaler
    if settings.schedule != "constant" or settings.warmup:
        factor = scheduled(settings.schedule, settings.warmup, session.position.step, batch.progress)
        for group in optimizer.param_groups:
            group["lr"] = turn.rate * factor
    if needs_closure(optimizer):
        step: Any = optimizer.step  # torch types a closure as returning a float; a tensor is as good
        value = float(step(lambda: _gradient(session, losses, turn, batch, weight)))
        _check(value, session.position, turn.player)
        return value
    value = float(_gradient(session, losses, turn, batch, weight))
    if not math.isfinite(value):
        session.checkpoint_if_finite()
    _check(value, session.position, turn.player)
    if scaler is None:
        turn.step()
    else:
        scaler.step(optimizer)
        scaler.update()
    return value


def _gradient(
    session: Session, losses: Callable[[int, Batch], Tensor], turn: _Turn, batch: Batch, weight: float
) -> Tensor:
    """Set the gradients of a player's parameters to those of its loss on a batch, and return the loss."""
    settings, scaler = session.settings, session.scaler
    for parameter in turn.player.parameters:
        parameter.grad = None
    total: Tensor | None = None
    for part, share in _parts(batch, settings.accumulate):
        with autocast(session.device, settings.precision):
            loss = losses(turn.number, part)
        scaled = loss if share * weight == 1.0 else loss * (share * weight)
        (scaled if scaler is None else scaler.scale(scaled)).backward()
        total = scaled.detach() if total is None else total + scaled.detach()
    if scaler is not None:
        scaler.unscale_(turn.optimizer)
    if settings.clip is not None:
        nn.utils.clip_grad_norm_(turn.player.parameters, settings.clip)
    return torch.zeros(()) if total is None else total


def _parts(batch: Batch, pieces: int) -> list[tuple[Batch, float]]:
    """Return the batch cut into at most `pieces`, each with its share of the samples."""
    if pieces == 1:
        return [(batch, 1.0)]
    n = len(batch.x)
    ys = [None] * pieces if batch.y is None else batch.y.chunk(pieces)
    pairs = zip(batch.x.chunk(pieces), ys, strict=False)
    return [(replace(batch, x=x, y=y), len(x) / n) for x, y in pairs]


def _check(value: float, position: Position, player: Player) -> None:
    if not math.isfinite(value):
        raise DivergenceError(
            f"the loss of {player.name} is {value} at step {position.total + 1}; "
            f"try a smaller lr, or clip=1.0"
        )


def last_step(settings: Settings, per_epoch: int) -> float:
    """Return the number of steps of a phase."""
    ends = [settings.steps] if settings.steps is not None else []
    ends += [settings.epochs * per_epoch] if settings.epochs is not None else []
    return min(ends) if ends else math.inf


def _fraction(session: Session, last: float) -> float:
    """Return how much of the training is done, by steps or by the clock."""
    return min(max(session.position.step / last, session.spent()), 1.0)


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
