"""`compare`: train many models on one data set under one budget, measure them, and rank them."""

import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import joblib

from leadline.comparison.comparison import Comparison
from leadline.comparison.parcels import packed
from leadline.comparison.plan import Control, Models, Plan, Trial, planned, tasks_of
from leadline.comparison.trial import Terms, control_record, failed_record, record_path, trial_record
from leadline.core import InterruptedFit, LeadlineError, OptionError, RunError
from leadline.core.durations import seconds_of
from leadline.core.errors import no_data_set
from leadline.data import Dataset
from leadline.training.files import read_json

__all__ = ["BUDGET", "compare"]

BUDGET = 12.0


def compare(  # noqa: PLR0913
    data: Dataset,
    task: str | Sequence[str] = "all",
    models: Models | None = None,
    *,
    budget: float | str | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    seeds: int = 1,
    jobs: int | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: bool = True,
) -> Comparison:
    """Train models under the same budget, measure each in every task it has verbs for, and rank them.

    Trainings are independent and go through `joblib.Parallel`: inside `joblib.parallel_config` another
    backend (Ray, Dask) takes them over. A model that fails, or cannot hold the data, becomes a row
    that says why. How ranks are shared is told in `leadline.comparison.ranking`.

    Args:
        data: The data.
        task: A task of `leadline.measures.TASKS`, several, or "all".
        models: Catalog names, or a mapping from a name to a catalog name or to a function that builds a
            model for a data set; by default every model of the catalog that has the verbs.
        budget: Most seconds of training a model, a number or "60s", "2m", "1h"; 12 s where neither epochs
            nor steps are given.
        epochs: Most epochs of each training.
        steps: Most steps of each training.
        seeds: Trainings of each model; with several, intervals are over them.
        jobs: Trainings at once, each with one thread; as many as there are cores by default.
        options: Options of models by the name of the model.
        out: Folder for the runs and `compare.json`; without it nothing is written.
        resume: Go on with the comparison in `out`: what is done is not done again.
        progress: Write a line as each training ends, and one every 15 seconds of work that takes longer.

    Raises:
        OptionError: If there is no data set, or a task, model or option is unknown or out of range.
        RunError: If `out` holds a comparison already, or another one that is to be resumed.
        InterruptedFit: If Ctrl-C stopped it; the message says how to go on.
    """
    if not isinstance(data, Dataset):
        raise no_data_set("compare", data)
    if seeds < 1 or (jobs is not None and jobs < 1):
        raise OptionError(f"seeds and jobs must be at least 1, got {seeds} and {jobs}")
    limited = epochs is not None or steps is not None
    seconds = (None if limited else BUDGET) if budget is None else seconds_of(budget)
    tasks, dropped = tasks_of(task, data)
    plan = planned(data, tasks, models, options or {}, seeds)
    settings = {
        "tasks": list(tasks), "budget": seconds, "epochs": epochs, "steps": steps, "seeds": seeds,
        "options": json.loads(json.dumps({name: dict(values) for name, values in (options or {}).items()})),
    }  # fmt: skip
    result = _empty(data, settings, plan, dropped, out)
    done = _begin(result, resume=resume)
    count = jobs or _jobs()
    threads = 1 if count > 1 else None
    with tempfile.TemporaryDirectory(prefix="leadline-") as passing:
        place = None if out is None else str(out)
        critics = passing if place is None else str(Path(place) / "critics")
        terms = Terms(seconds, epochs, steps, threads, place, resume, progress, critics)
        _work(result, plan, done, _Crew(data, terms, count, progress=progress))
    return result


class _Crew:
    """Who does the work: workers of joblib, with what each of them needs."""

    def __init__(self, data: Dataset, terms: Terms, jobs: int, *, progress: bool) -> None:
        self.parcel = packed(data)
        self.terms = terms
        self.jobs = jobs
        self.progress = progress

    def records(self, work: Sequence[Trial | Control]) -> Iterator[dict[str, Any]]:
        """Return the record of each piece of work as it ends, or all at the end where the backend must.

        A worker that dies (out of memory) takes its neighbours with it: what was not done is then done
        again, each in a pool of its own, and the one that dies again becomes a record that says so.
        """
        left = {item.name: item for item in work}
        try:
            for record in self._together(work, self.jobs, self.terms):
                del left[record["name"]]
                yield record
        except BrokenExecutor:
            for item in left.values():
                yield self._alone(item)

    def _together(self, work: Sequence[Trial | Control], jobs: int, terms: Terms) -> Iterable[dict[str, Any]]:
        calls: list[Any] = [
            joblib.delayed(trial_record if isinstance(item, Trial) else control_record)(
                item, self.parcel, terms
            )
            for item in work
        ]
        try:
            crew = joblib.Parallel(n_jobs=jobs, batch_size=1, return_as="generator_unordered")
        except ValueError:  # this backend cannot give back one result at a time
            crew = joblib.Parallel(n_jobs=jobs, batch_size=1)
        found: Iterable[dict[str, Any]] = crew(calls)
        return found

    def _alone(self, item: Trial | Control) -> dict[str, Any]:
        try:
            return next(iter(self._together([item], 2, replace(self.terms, resume=True))))
        except BrokenExecutor:
            return failed_record(item, "its worker process died; perhaps there was too little memory")

    def say(self, text: str) -> None:
        """Write a line for a person who waits."""
        if self.progress:
            sys.stderr.write(text + "\n")


def _jobs() -> int:
    """Return the trainings at once that joblib's configuration asks for, else the number of cores."""
    configured = int(joblib.effective_n_jobs(None))
    return configured if configured > 1 else int(joblib.cpu_count())


def _work(result: Comparison, plan: Plan, done: dict[str, dict[str, Any]], crew: _Crew) -> None:
    """Do what is not done yet, and keep the result up to date after each piece."""
    work: list[Trial | Control] = [*plan.controls, *plan.trials]
    order = {item.name: place for place, item in enumerate(work)}
    for item in work:
        if item.name in done:
            _enter(result, done[item.name], order)
    left = [item for item in work if item.name not in done]
    try:
        for number, record in enumerate(crew.records(left), 1):
            _enter(result, record, order)
            if result.path is not None:
                result.save(result.path / "compare.json")
            crew.say(f"[{number}/{len(left)}] {_summary(record)}")
    except KeyboardInterrupt as stop:
        raise InterruptedFit(_how_to_resume(result)) from stop
    if result.path is not None:
        result.save(result.path / "compare.json")


def _enter(result: Comparison, record: dict[str, Any], order: dict[str, int]) -> None:
    """Put a record in its place; tables are made anew when they are next asked for."""
    records = result.records if "model" in record else result.controls
    records.append(record)
    records.sort(key=lambda item: order[item["name"]])
    for name in ("tables", "readings", "references"):
        vars(result).pop(name, None)


def _summary(record: dict[str, Any]) -> str:
    """Return what a person wants to know of a piece of work that ended."""
    failed = "; ".join(f"{what} failed: {why}" for what, why in record["failures"].items())
    figures = ", ".join(
        f"{reading['headline']} {_short(reading['quantities'][reading['headline']]['value'])}"
        for reading in record["readings"].values()
    )
    cost = f"{record['seconds']:.1f} s, " if record.get("seconds") is not None else ""
    return f"{record['name']}: {cost}" + "; ".join(part for part in (figures, failed) if part)


def _short(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"


def _how_to_resume(result: Comparison) -> str:
    done = len(result.records)
    if result.path is None:
        return f"interrupted after {done} trainings; nothing was written (no out=)"
    return f'interrupted after {done} trainings; to go on: resume=True with out="{result.path}" (--resume)'


def _empty(
    data: Dataset,
    settings: dict[str, Any],
    plan: Plan,
    dropped: list[str],
    out: str | os.PathLike[str] | None,
) -> Comparison:
    """Return the comparison before its first training."""
    return Comparison(
        data=_described(data),
        settings=settings,
        left_out=plan.left_out,
        left_tasks={name: list(plan.tasks[name]) for name in plan.left_out},
        notes=[*dropped, *plan.notes],
        path=None if out is None else Path(out),
    )


def _described(data: Dataset) -> dict[str, Any]:
    return {
        "name": data.name,
        "domain": str(data.domain),
        "train": len(data.train),
        "valid": len(data.valid),
        "test": len(data.test),
        "source": data.source,
        "options": data.options,
        "fingerprint": data.fingerprint,
    }


def _begin(result: Comparison, *, resume: bool) -> dict[str, dict[str, Any]]:
    """Return the records that are done already, by name; start `compare.json` where there is a folder.

    Raises:
        RunError: If the folder holds a comparison that is not to be resumed, or another one.
    """
    if result.path is None:
        return {}
    place = result.path / "compare.json"
    if place.is_file() and not resume:
        raise RunError(
            f"{result.path} already holds a comparison: give another out=, or resume=True (--resume) to go on"
        )
    done: dict[str, dict[str, Any]] = {}
    if place.is_file():
        before = Comparison.load(place)
        _same(before, result)
        done = _done(str(result.path))
    result.save(place)
    return done


def _same(before: Comparison, now: Comparison) -> None:
    """Check that a comparison to be resumed is this one."""
    if before.data["fingerprint"] != now.data["fingerprint"]:
        raise RunError(f"cannot resume {now.path}: it compared on other data")
    for name, value in now.settings.items():
        if before.settings.get(name) != value:
            raise RunError(
                f"cannot resume {now.path}: {name} was {before.settings.get(name)!r} and is now {value!r}"
            )


def _done(out: str) -> dict[str, dict[str, Any]]:
    """Return the records of a folder, those of failed trainings left out."""
    found = {}
    for path in sorted(record_path(out, "").parent.glob("*.json")):
        try:
            record = read_json(path)
        except LeadlineError:
            continue
        if not record["failures"]:
            found[str(record["name"])] = record
    return found
