"""Figures on the validation split, by which weights are chosen and training stops early."""

import torch
from torch import Tensor, nn

from leadline.core import Batch, Classes
from leadline.core.verbs import has_verb
from leadline.training.machine import autocast
from leadline.training.session import Phase, Session

__all__ = ["validate"]


@torch.no_grad()
def validate(session: Session, phase: Phase) -> dict[str, float]:
    """Return figures on the validation split: "valid" (lower is better) and, for classes, accuracy.

    Random draws are the same at every validation and leave the training's own draws alone.
    """
    learner, split = phase.learner, phase.valid
    if len(split) == 0 or not has_verb(learner, "loss") or session.settings.sharding is not None:
        return {}
    learner.eval()
    devices = [session.device] if session.device.type == "cuda" else []
    total = torch.zeros(3, dtype=torch.float64)  # summed loss, right predictions, rows that count
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(0)
        for rows, answers in split.batches(4 * session.settings.batch_size):
            x, y = rows.to(session.device), None if answers is None else answers.to(session.device)
            with autocast(session.device, session.settings.precision):
                total += _sums(phase, x, y)
    loss, right, count = total.tolist()
    if count == 0:
        return {}
    classes = isinstance(phase.labels, Classes) and has_verb(learner, "predict")
    return {"valid": loss / count} | ({"accuracy": right / count} if classes else {})


def _sums(phase: Phase, x: Tensor, y: Tensor | None) -> Tensor:
    """Return the summed loss, the right predictions and the rows that count of a batch, shape (3,)."""
    known = torch.ones(len(x), dtype=torch.bool, device=x.device)
    if phase.labels is not None and y is not None and has_verb(phase.learner, "predict"):
        known = phase.labels.known(y)
        if isinstance(phase.labels, Classes):
            scores = phase.learner.predict(x).float()  # type: ignore[operator]
            loss = nn.functional.nll_loss(scores, y, ignore_index=-1, reduction="sum")
            return torch.stack([loss, (scores.argmax(-1) == y)[known].sum(), known.sum()]).double().cpu()
    count = int(known.sum())
    mean = phase.learner.loss(Batch(x, y, progress=1.0))  # type: ignore[operator]
    return torch.tensor([float(mean) * count, 0.0, count], dtype=torch.float64)
