"""Learning by sweeps: the model's own full improvement step, until it no longer improves."""

import math

import torch
from torch import Tensor, nn

from leadline.core import DataError, DivergenceError, swept
from leadline.data import Split
from leadline.training.descend import last_step
from leadline.training.session import Phase, Session

__all__ = ["sweep"]


def sweep(session: Session, phase: Phase) -> None:
    """Call the learner's full step until it no longer improves.

    Raises:
        DivergenceError: If the objective is not finite.
        DataError: If streamed samples do not fit in memory.
    """
    settings, position, learner = session.settings, session.position, phase.learner
    last = last_step(settings, 1)
    enough = getattr(learner, "enough", None)  # samples from which it learns as well as from more
    train = phase.train if enough is None else phase.train.head(enough)
    x = _in_memory(train, learner).to(session.device)
    y = None if train.y is None else train.y.to(session.device)
    learner.eval()
    session.restore = None
    session.optimizers = {}
    while not position.settled and position.step < last and not session.out_of_time():
        with torch.no_grad():
            objective = swept(learner, x, y)
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
        done = 1.0 if position.settled else max(position.step / last, session.spent())
        session.after_each(phase, done, {"objective": objective}, 1)
    if finding := getattr(learner, "finding", None):  # a line of what it found, beside its parameters
        session.say(finding)


def _settled(learner: nn.Module, objective: float, previous: float | None, tolerance: float) -> bool:
    """Return whether sweeping is over: as the learner says, or by a relative gain below the tolerance."""
    told = getattr(learner, "converged", None)  # None: the gain decides
    if told is not None:
        return bool(told)
    return previous is not None and objective - previous < tolerance * (1 + abs(objective))


def _in_memory(split: Split, learner: nn.Module) -> Tensor:
    """Return all samples of a split as a tensor; sparse ones stay so for a learner that reads them."""
    if isinstance(split.x, Tensor):
        return split.x
    if getattr(learner, "reads_sparse", False):
        sparse = split.x.sparse()
        if sparse is not None:
            return sparse
    try:
        return torch.cat([x for x, _ in split.batches(1024)])
    except (MemoryError, RuntimeError) as error:
        raise DataError(
            f"a sweep needs all {len(split)} samples in memory; load fewer with limit="
        ) from error
