"""`ensemble`: finished runs as one model that predicts by their mean, kept as a run of its own."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch

from leadline.catalog import build
from leadline.core import DomainError, OptionError, RunError, Signature, has_verb
from leadline.training.checkpoint import load_weights, weights_of
from leadline.training.files import free_directory, write_json, write_tensors
from leadline.training.record import versions
from leadline.training.run import Run, open_run

__all__ = ["ensemble"]


def ensemble(
    runs: Sequence[str | os.PathLike[str] | Run],
    *,
    out: str | os.PathLike[str] | Literal[False] | None = None,
) -> Run:
    """Return several runs joined: the mean probability of their models, or the mean of their means.

    The result holds the weights of all of them: it opens, moves and reports without them.

    Args:
        runs: Directories of runs, or runs; two or more, of classifiers or regressors of the same data.
        out: Directory of the result; runs/ensemble-<data>-<number> by default; False writes nothing.

    Raises:
        OptionError: If there are fewer than two, or a model is not in the catalog.
        DomainError: If a run cannot predict, or has other samples or labels than the first.
        RunError: If a run cannot be opened, or the result cannot be written.
    """
    if isinstance(runs, (str, os.PathLike)) or len(runs) < 2:
        raise OptionError('ensemble joins two runs or more, e.g. ll.ensemble(["runs/a", "runs/b"])')
    opened = [run if isinstance(run, Run) else open_run(run) for run in runs]
    for run in opened:
        _fits(run, opened[0])
    first = opened[0]
    folder = _folder(out, first)
    with torch.random.fork_rng(devices=[]):
        model = build(
            "ensemble",
            Signature(first.domain, first.labels),
            members=tuple((run.name, run.options) for run in opened),
        )
    weights = {
        f"members.{number}.{name}": value
        for number, run in enumerate(opened)
        for name, value in weights_of(run.model).items()
    }
    load_weights(model, weights, "the runs")
    joined = _described(model.eval(), opened, folder)
    if folder is not None:
        write_tensors(folder / "model.safetensors", weights_of(model))
        write_json(folder / "run.json", joined.to_json())  # last: a folder without it is no run
    return joined


def _fits(run: Run, first: Run) -> None:
    """Check that a run can stand beside the first.

    Raises:
        OptionError: If its model is not in the catalog.
        DomainError: If it cannot predict, or has other samples or labels.
    """
    where = run.path or run.name
    if not has_verb(run.model, "predict") or run.labels is None:
        raise DomainError(f"{where} cannot predict Classes or Targets: an ensemble needs runs that do")
    if not run.in_catalog:
        raise OptionError(f"{where} holds your own {run.name}, which a run of its own could not build again")
    if run.domain != first.domain or run.labels != first.labels:
        raise DomainError(
            f"{where} and {first.path or first.name} learned from samples or labels of other kinds "
            f"({run.domain} and {first.domain}): join runs of the same data"
        )


def _folder(out: str | os.PathLike[str] | Literal[False] | None, first: Run) -> Path | None:
    """Return the directory of the result, made; None to write nothing."""
    if out is False:
        return None
    if out is None:
        return free_directory(Path("runs") / f"ensemble-{first.data_name}")
    folder = Path(out)
    if (folder / "run.json").exists():
        raise RunError(f"{folder} already holds a run: give another out=")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make {folder}: {error.strerror}; choose another out=") from error
    return folder


def _described(model: torch.nn.Module, runs: Sequence[Run], folder: Path | None) -> Run:
    """Return the run that stands for all."""
    first, recipe = runs[0], model.recipe
    same = len({run.fingerprint for run in runs}) == 1
    names = " ".join(str(run.path or run.name) for run in runs)
    return Run(
        path=folder,
        model=model,
        name=str(recipe.name),  # type: ignore[union-attr]
        options=dict(recipe.options),  # type: ignore[union-attr, arg-type]
        domain=first.domain,
        labels=first.labels,
        settings={},
        status="done",
        steps=sum(run.steps for run in runs),
        seconds=sum(run.seconds for run in runs),
        data_name=first.data_name,
        data_source=first.data_source if same else "",
        data_options=dict(first.data_options) if same else {},
        fingerprint=first.fingerprint if same else "",
        versions=versions(),
        notes=[f"joined by: leadline ensemble {names}"]
        + ([] if same else ["its members learned from different samples"]),
    )
