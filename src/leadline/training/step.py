"""One step of a training: gradients of a portion of the samples, and what an optimiser does with them."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from leadline.core import Batch, DivergenceError, OptionError, Player
from leadline.core.randomness import derive_seed
from leadline.training.checkpoint import restore_optimizer
from leadline.training.feed import Portion
from leadline.training.groups import grouped
from leadline.training.machine import autocast, players_of
from leadline.training.optimizers import make_optimizer, needs_closure, scheduled, sharp_part, stepper
from leadline.training.session import Session
from leadline.training.sharpness import Memory, Sharpness

__all__ = ["Turn", "set_rates", "take_step", "turns_of"]

Losses = Callable[[int, Batch], Tensor]
MakeBatch = Callable[[Tensor, Tensor | None], Batch]


@dataclass
class Turn:
    """A player with its optimiser.

    Args:
        number: Number of the player.
        player: The player.
        parameters: The parameters it moves: its own without the frozen ones.
        optimizer: What moves them.
        rates: Learning rate of each group of parameters before the schedule.
        every: It moves on every `every`-th step.
        step: Takes a step of the optimiser.
        learner: The module whose buffers its loss may change.
        sharpness: How it climbs before a step, or None.
    """

    number: int
    player: Player
    parameters: list[nn.Parameter]
    optimizer: Optimizer
    rates: list[float]
    every: int
    step: Callable[[], object]
    learner: nn.Module
    sharpness: Sharpness | None


def turns_of(session: Session, learner: nn.Module) -> list[Turn]:
    """Return each player that moves anything with a new optimiser, its state put back on resume.

    Raises:
        OptionError: If an option of the optimiser is unknown or out of range.
    """
    settings, players = session.settings, players_of(learner)
    name, options, sharpness = sharp_part(settings.optimizer, settings.optimizer_options or {})
    most = max(player.steps for player in players)
    turns = []
    for number, player in enumerate(players):
        moving = [parameter for parameter in player.parameters if parameter.requires_grad]
        if not moving:
            continue
        optimizer = make_optimizer(
            name,
            grouped(session.model, moving, settings.lr_groups or {}),
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            options=options,
            seed=derive_seed(settings.seed, "noise", player.name),
        )
        if session.restore is not None:
            restore_optimizer(optimizer, player.name, *session.restore)
        rates = [float(group["lr"]) for group in optimizer.param_groups]
        every, step = most // player.steps, stepper(optimizer)
        turns.append(Turn(number, player, moving, optimizer, rates, every, step, learner, sharpness))
    scaled = settings.precision == "fp16" and session.device.type in ("cpu", "cuda")
    if scaled and any(needs_closure(turn.optimizer) for turn in turns):
        raise OptionError(f"{settings.optimizer} cannot take scaled losses: use fp32 or bf16, not fp16")
    session.scaler = torch.amp.GradScaler(session.device.type) if scaled else None
    if session.restore is not None and session.scaler is not None and session.restore[1]["scaler"]:
        session.scaler.load_state_dict(session.restore[1]["scaler"])
    session.restore = None
    session.optimizers = {turn.player.name: turn.optimizer for turn in turns}
    return turns


def set_rates(session: Session, turn: Turn, done: float) -> None:
    """Set the learning rate of each group to what the schedule makes of it when `done` in [0, 1] is done."""
    settings = session.settings
    if settings.schedule != "constant" or settings.warmup:
        factor = scheduled(settings.schedule, settings.warmup, session.position.step, done)
        for group, rate in zip(turn.optimizer.param_groups, turn.rates, strict=True):
            group["lr"] = rate * factor


def take_step(session: Session, losses: Losses, turn: Turn, portion: Portion, batch: MakeBatch) -> float:
    """Move one player's parameters once, and return its loss at the start of the step.

    Raises:
        DivergenceError: If a loss is not finite; the message names step and player.
    """
    if needs_closure(turn.optimizer):
        return _by_closure(session, losses, turn, portion, batch)
    sharp = turn.sharpness is not None
    memory = Memory(turn.learner, turn.parameters, session.device) if sharp else None
    value = float(_gradient(session, losses, turn, portion, batch))
    _check(session, turn.player, value, kept=True)
    if turn.sharpness is not None and memory is not None:
        memory.keep()
        try:
            turn.sharpness.climb(turn.parameters)
            memory.replay()
            above = float(_gradient(session, losses, turn, portion, batch))
        finally:
            memory.restore()
        _check(session, turn.player, above, "after the climb by rho ", kept=True)
    _finish(session, turn)
    if session.scaler is None:
        turn.step()
    else:
        session.scaler.step(turn.optimizer)
        session.scaler.update()
    return value


def _by_closure(session: Session, losses: Losses, turn: Turn, portion: Portion, batch: MakeBatch) -> float:
    """Take the step of an optimiser that evaluates the loss itself."""

    def closure() -> Tensor:
        loss = _gradient(session, losses, turn, portion, batch)
        _finish(session, turn)
        return loss

    step: Any = turn.optimizer.step  # torch types a closure as returning a float; a tensor is as good
    value = float(step(closure))
    _check(session, turn.player, value)
    return value


def _gradient(session: Session, losses: Losses, turn: Turn, portion: Portion, batch: MakeBatch) -> Tensor:
    """Set the gradients of a player's parameters to those of its loss, and return the loss.

    Under a scaler the gradients are still multiplied by its factor.
    """
    precision, scaler = session.settings.precision, session.scaler
    for parameter in turn.parameters:
        parameter.grad = None
    total: Tensor | None = None
    for x, y, weight in portion:
        with autocast(session.device, precision):
            loss = losses(turn.number, batch(x, y))
        weighed = loss if weight == 1.0 else loss * weight
        (weighed if scaler is None else scaler.scale(weighed)).backward()
        total = weighed.detach() if total is None else total + weighed.detach()
    return torch.zeros(()) if total is None else total


def _finish(session: Session, turn: Turn) -> None:
    """Make the gradients those that the optimiser is to see: without the scaler's factor, and clipped."""
    if session.scaler is not None:
        session.scaler.unscale_(turn.optimizer)
    if session.settings.clip is not None:
        nn.utils.clip_grad_norm_(turn.parameters, session.settings.clip)


def _check(session: Session, player: Player, value: float, where: str = "", *, kept: bool = False) -> None:
    """Check a loss; `kept` says that the weights are still those before the step, which are then saved."""
    if math.isfinite(value):
        return
    if kept:
        session.checkpoint_if_finite()
    raise DivergenceError(
        f"the loss of {player.name} is {value} {where}at step {session.position.total + 1}; "
        f"try a smaller lr, or clip=1.0"
    )
