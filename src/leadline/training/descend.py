"""Learning by gradient steps: the loop over batches; `leadline.training.step` says what one step is."""

import math
from functools import partial
from typing import Any

import torch

from leadline.core import Batch
from leadline.training.augment import augmenter
from leadline.training.batchnorm import averaging, measure_statistics
from leadline.training.feed import Feed
from leadline.training.machine import autocast
from leadline.training.optimizers import takes_all
from leadline.training.session import Phase, Session
from leadline.training.settings import Settings
from leadline.training.step import set_rates, take_step, turns_of
from leadline.training.validate import validate

__all__ = ["descend", "last_step"]

_ENOUGH = 512  # samples for statistics: 1,024 gave no better figures in six nets on digits, at twice the time
_SMALLEST = 16  # batch for statistics


def descend(session: Session, phase: Phase) -> None:
    """Take gradient steps on the losses of the phase's learner until its end.

    Raises:
        DivergenceError: If a loss is not finite; the message names step and player.
        InterruptedFit: If Ctrl-C was pressed.
    """
    settings, position, learner = session.settings, session.position, phase.learner
    losses = session.crew.losses(learner, settings.sharding)
    losses = torch.compile(losses, dynamic=False) if settings.compile else losses
    turns = turns_of(session, learner)
    if not turns:
        return
    feed = _feed(session, phase)
    last = last_step(settings, feed.per_epoch)
    labels, given = phase.labels, phase.train.y
    complete = labels is not None and given is not None and bool(labels.known(given).all())
    sums = {turn.player.name: 0.0 for turn in turns}
    taken = 0
    session.practise(learner)
    for portion in feed.steps(position.step):
        if position.settled or position.step >= last or session.out_of_time():
            break
        done = _fraction(session, last)
        batch = partial(Batch, label_smoothing=settings.label_smoothing, progress=done, complete=complete)
        for turn in turns:
            if (position.step + 1) % turn.every == 0:
                set_rates(session, turn, done)
                sums[turn.player.name] += take_step(session, losses, turn, portion, batch)
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
    """Return the batches of a phase: `accumulate` batches make a step, or all of them do."""
    settings = session.settings
    domain = getattr(phase.learner, "domain", None)
    return Feed(
        phase.train,
        settings.batch_size * settings.accumulate,
        parts=settings.accumulate,
        entire=takes_all(settings.optimizer, settings.optimizer_options),
        seed=settings.seed,
        phase=phase.name,
        device=session.device,
        crew=session.crew,
        augment=augmenter(settings.augment, domain) if domain is not None else None,
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
    session.practise(phase.learner)
    return {"phase": phase.name, "step": session.position.total, **values}


def _settle_statistics(session: Session, phase: Phase) -> None:
    """Bring the running statistics that training moves to those of the weights of now."""
    settings, learner = session.settings, phase.learner
    if settings.sharding is not None:
        return
    size = max(_SMALLEST, settings.batch_size // session.crew.size)
    with autocast(session.device, settings.precision):
        norms = averaging(learner, moving=True)
        measure_statistics(learner, norms, phase.train, batch_size=size, most=_ENOUGH)


def _close_epoch(session: Session, phase: Phase, feed: Feed, losses: dict[str, float]) -> bool:
    """Validate, write a record, keep the best; return whether to stop early."""
    position = session.position
    _settle_statistics(session, phase)
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
    session.practise(phase.learner)
    return session.judge(phase, figures.get("valid"))
