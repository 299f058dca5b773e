"""One training with its measurements, or the lines that need none: what a worker process does.

What comes back is plain: the path of the run, figures, or reasons. No model travels.
"""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from leadline.comparison.parcels import Parcel
from leadline.comparison.plan import Control, Trial, make, reason
from leadline.core import LeadlineError
from leadline.core.telling import told_of
from leadline.data import Dataset
from leadline.measures import TASKS, critics_kept
from leadline.measures.answers import members_of
from leadline.training import fit
from leadline.training.files import write_json
from leadline.training.progress import telling_progress

__all__ = ["Terms", "control_record", "failed_record", "record_path", "trial_record"]

_LINE_EVERY = 15.0


@dataclass(frozen=True)
class Terms:
    """What every training of a comparison shares.

    Args:
        budget: Most seconds of training, or None.
        epochs: Most epochs, or None.
        steps: Most steps, or None.
        threads: CPU threads of a worker, or None to let `fit` choose.
        out: Folder of the comparison, or None to write nothing.
        resume: Whether trainings that were broken off go on.
        progress: Whether a worker says now and then what it does.
        critics: Folder of the critics that workers share, or None.
    """

    budget: float | None
    epochs: int | None
    steps: int | None
    threads: int | None
    out: str | None
    resume: bool
    progress: bool = False
    critics: str | None = None


def record_path(out: str, name: str) -> Path:
    """Return where the record of a trial or of controls is kept."""
    return Path(out) / "records" / f"{name}.json"


def trial_record(trial: Trial, parcel: Parcel, terms: Terms) -> dict[str, Any]:
    """Train and measure one model; what fails becomes a reason, never an exception."""
    record = _blank(trial)
    try:
        with _threads(terms.threads), _said(trial, terms), critics_kept(terms.critics):
            _train_and_measure(trial, parcel.opened(trial.conversion), terms, record)
    except Exception as error:  # noqa: BLE001  one model that fails must not stop the others
        record["failures"]["training"] = reason(error)
    return _kept(record, terms)


def control_record(control: Control, parcel: Parcel, terms: Terms) -> dict[str, Any]:
    """Measure the lines of a table that need no training; what fails becomes a reason."""
    record = _blank(control)
    try:
        with _threads(terms.threads), _said(control, terms), critics_kept(terms.critics):
            readings = TASKS[control.task].controls(parcel.opened(control.conversion))
        record["readings"] = {name: reading.to_json() for name, reading in readings.items()}
    except Exception as error:  # noqa: BLE001  a table stands without its reference lines
        record["failures"]["controls"] = reason(error)
    return _kept(record, terms)


def failed_record(item: Trial | Control, why: str) -> dict[str, Any]:
    """Return the record of a piece of work that could not be done."""
    record = _blank(item)
    record["failures"]["training" if isinstance(item, Trial) else "controls"] = why
    return record


def _blank(item: Trial | Control) -> dict[str, Any]:
    """Return the record of work that has not begun."""
    record: dict[str, Any] = {
        "name": item.name,
        "conversion": item.conversion,
        "readings": {},
        "members": {},
        "failures": {},
    }
    if isinstance(item, Control):
        return record | {"task": item.task}
    cost = dict.fromkeys(("path", "seconds", "steps", "parameters"))
    return record | {"model": item.model, "seed": item.seed, "tasks": list(item.tasks), **cost}


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Use `count` threads of torch inside the block; as many as before if None."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _said(item: Trial | Control, terms: Terms) -> AbstractContextManager[None]:
    """Return a block in which lines now and then say what of `item` is being done."""
    return telling_progress(shown=terms.progress, prefix=f"{item.name}: ", every=_LINE_EVERY)


def _train_and_measure(trial: Trial, data: Dataset, terms: Terms, record: dict[str, Any]) -> None:
    """Fill the record of one model."""
    model = make(trial.source, data, trial.options, trial.seed)
    record["parameters"] = _count(model)
    folder = None if terms.out is None else Path(terms.out) / "runs" / trial.name
    run = fit(
        model,
        data,
        budget=terms.budget,
        epochs=terms.epochs,
        steps=terms.steps,
        seed=trial.seed,
        threads=terms.threads,
        out=folder if folder is not None else False,
        resume=terms.resume,
        progress=False,
    )
    record |= {"path": None if folder is None else str(folder.relative_to(str(terms.out)))}
    record |= {"seconds": run.seconds, "steps": run.steps, "parameters": _count(run.model)}
    for task in trial.tasks:
        started = time.monotonic()
        try:
            with told_of(task):
                record["readings"][task] = TASKS[task].measure(run.model, data).to_json()
            record["members"][task] = {
                name: TASKS[task].measure(one, data).to_json()
                for name, one in members_of(run.model).items()
                if TASKS[task].fits(one)
            }
        except Exception as error:  # noqa: BLE001  the other tasks can still be measured
            record["failures"][task] = reason(error)
        record.setdefault("measuring", {})[task] = time.monotonic() - started


def _count(model: nn.Module) -> int:
    """Return how many numbers a model learned: as it says, its parameters, or buffers where it has none."""
    said = getattr(model, "free_parameters", None)
    if isinstance(said, int):
        return said
    tensors = list(model.parameters()) or list(model.state_dict().values())
    return sum(tensor.numel() for tensor in tensors)


def _kept(record: dict[str, Any], terms: Terms) -> dict[str, Any]:
    """Write the record where the comparison has a folder, so that a kill loses nothing done."""
    if terms.out is not None:
        with suppress(LeadlineError):  # the record still goes back to the caller
            write_json(record_path(terms.out, record["name"]), record)
    return record
