"""The phases of a training: each stage on the codes of the ones below, then the model as a whole."""

import copy
import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from leadline.core import Batch
from leadline.core.verbs import has_verb, way_of
from leadline.data import Dataset, Split
from leadline.training.machine import choose_threads, device_of, players_of
from leadline.training.session import Phase, Session

__all__ = ["learnable", "phases_of", "threads_for"]

_SMALL_SWEEP = 200_000


def threads_for(session: Session, phase: Phase) -> int:
    """Return the number of CPU threads that suits a phase."""
    learner, batch = phase.learner, session.settings.batch_size
    if has_verb(learner, "sweep"):
        x = phase.train.x
        sizes = abs(math.prod(session.record.run.domain.shape))
        cells = x.numel() if isinstance(x, Tensor) else len(phase.train) * sizes
        return 1 if cells < _SMALL_SWEEP else torch.get_num_threads()
    x, y = phase.train.rows(torch.arange(min(batch, len(phase.train))))
    trial = copy.deepcopy(learner)  # a loss may change buffers (running averages, chains)
    players = players_of(trial)
    labels = None if y is None else y.to(session.device)
    return choose_threads(
        lambda: players[0].loss(Batch(x.to(session.device), labels)), session.device, session.crew.size
    )


def phases_of(session: Session, data: Dataset) -> list[Callable[[], Phase]]:
    """Return how to make each phase, in order: the stages, then the whole model."""
    model = session.model
    stages: list[nn.Module] = list(model.stages()) if way_of(model) == "stack" else []  # type: ignore[operator]
    train, valid = learnable(model, data.train, data), learnable(model, data.valid, data)

    def stage(number: int) -> Phase:
        learner, below = stages[number], stages[:number]
        join = getattr(model, "join", None) if number == len(stages) - 1 else None
        return Phase(
            f"stage {number + 1}",
            learner,
            _coded(train, below),
            _coded(valid, below),
            None,
            choose=False,
            join=join,
        )

    makers: list[Callable[[], Phase]] = [partial(stage, number) for number in range(len(stages))]
    if not stages or has_verb(model, "loss") or has_verb(model, "players") or has_verb(model, "sweep"):
        makers.append(lambda: Phase(session.record.run.name, model, train, valid, data.labels))
    return makers


def learnable(model: nn.Module, split: Split, data: Dataset) -> Split:
    """Return the rows a model can learn from: labelled ones alone if all it does is predict."""
    generates = any(has_verb(model, verb) for verb in ("sample", "log_prob", "decode"))
    if generates or not has_verb(model, "predict") or split.y is None or data.labels is None:
        return split
    known = data.labels.known(split.y)
    if bool(known.all()):
        return split
    places = known.nonzero().squeeze(1)
    if isinstance(split.x, Tensor):
        return Split(*split.rows(places))
    return Split(split.x.select(places), split.y[places])


def _coded(split: Split, below: list[nn.Module]) -> Split:
    """Return the split as the stages `below` encode it, one after the other."""

    @torch.no_grad()
    def encode(x: Tensor) -> Tensor:
        for stage in below:
            x = stage.eval().encode(x.to(device_of(stage)))  # type: ignore[operator]
        return x

    if not below:
        return split
    if isinstance(split.x, Tensor):
        parts = [encode(x).cpu() for x, _ in split.batches(1024)]
        return Split(torch.cat(parts) if parts else split.x, split.y)
    return split.mapped(encode)
