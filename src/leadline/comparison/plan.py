"""What is to be trained: every model that can hold the data, or the data in another form.

A model that cannot hold the domain is tried on the data as Bits, then as real columns. What it reaches there
stands in tables of its own: bits of another data set are another unit. On real columns that were made of
something else no density and no samples are compared at all.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from leadline.catalog import CATALOG, build, model_class
from leadline.comparison.parcels import CONVERSIONS, converted
from leadline.core import DomainError, LeadlineError, OptionError
from leadline.core.errors import unknown_name
from leadline.core.randomness import derive_seed
from leadline.data import Dataset
from leadline.measures import TASKS

__all__ = [
    "Builder",
    "Control",
    "Models",
    "Plan",
    "Trial",
    "make",
    "planned",
    "reason",
    "table_name",
    "tasks_of",
]

Builder = Callable[[Dataset], nn.Module]
Models = Sequence[str] | Mapping[str, str | Builder]

_OF_CONTENT = ("classification", "representation", "structure")


@dataclass(frozen=True)
class Trial:
    """One training and the tasks to measure it in.

    Args:
        model: What the table calls it.
        source: Catalog name, or what builds the model for a data set.
        options: Options of the catalog's model.
        conversion: Form of the data: "", "binarized" or "vectors".
        tasks: Tasks to be measured in.
        seed: Seed of weights and training.
    """

    model: str
    source: str | Builder
    options: dict[str, Any]
    conversion: str
    tasks: tuple[str, ...]
    seed: int

    @property
    def name(self) -> str:
        """Return the name of its folder and of its record."""
        return f"{self.model}-{self.seed}"


@dataclass(frozen=True)
class Control:
    """The lines of a table that need no training."""

    task: str
    conversion: str

    @property
    def name(self) -> str:
        """Return the name of its record."""
        return f"controls-{table_name(self.task, self.conversion).replace(' ', '-')}"


@dataclass
class Plan:
    """Everything to be done, and what was left out for a reason.

    Args:
        trials: The trainings.
        controls: The lines that need none.
        left_out: Why a model cannot hold the data as they are, by model.
        tasks: Tasks that the left-out models would have stood in, by model.
        notes: Lines to be read beside the tables.
    """

    trials: list[Trial] = field(default_factory=list)
    controls: list[Control] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    tasks: dict[str, tuple[str, ...]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def table_name(task: str, conversion: str = "") -> str:
    """Return the name of a table: "density", or "density (binarized)"."""
    return f"{task} ({conversion})" if conversion else task


def tasks_of(task: str | Sequence[str], data: Dataset) -> tuple[tuple[str, ...], list[str]]:
    """Return the tasks that "all", a name, or several names stand for, and why others were dropped.

    Raises:
        OptionError: If a name is unknown, or the only task needs labels that the data lack.
    """
    names = tuple(TASKS) if task == "all" else (task,) if isinstance(task, str) else tuple(task)
    for name in names:
        if name not in TASKS:
            raise unknown_name("task", name, [*TASKS, "all"])
    wanted = tuple(name for name in names if data.labels is not None or not TASKS[name].labelled)
    if not wanted:
        raise OptionError(f"{', '.join(names)} needs labels, and {data.name} has none")
    return wanted, [f"{name} is left out: {data.name} has no labels" for name in names if name not in wanted]


def planned(
    data: Dataset,
    tasks: tuple[str, ...],
    models: Models | None,
    options: Mapping[str, Mapping[str, Any]],
    seeds: int,
) -> Plan:
    """Return what is to be trained and what cannot be.

    Raises:
        OptionError: If a model or an option is unknown.
    """
    sources = _sources(models, tasks)
    for name in options:
        if name not in sources:
            raise unknown_name("model", name, sources)
    plan, used = Plan(), set()
    for name, source in sources.items():
        conversion = _place(plan, data, name, source, dict(options.get(name, {})), tasks)
        if conversion is None:
            continue
        found = plan.tasks[name] if not conversion else _kept(plan.tasks[name], conversion)
        plan.trials += [
            Trial(name, source, dict(options.get(name, {})), conversion, found, seed) for seed in range(seeds)
        ]
        used |= {(task, conversion) for task in found}
    used |= {(task, "") for task in tasks}
    plan.controls = [
        Control(task, form) for form in ("", *CONVERSIONS) for task in tasks if (task, form) in used
    ]
    return plan


def make(source: str | Builder, data: Dataset, options: Mapping[str, Any], seed: int) -> nn.Module:
    """Return a new model whose weights are a function of `seed`; global randomness is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "compare"))
        return build(source, data, **options) if isinstance(source, str) else source(data)


def _sources(models: Models | None, tasks: tuple[str, ...]) -> dict[str, str | Builder]:
    """Return what builds each model, by the name that tables call it."""
    if models is None:
        found = {name for task in tasks for name in TASKS[task].models}
        return {name: name for name in CATALOG if name in found}
    if isinstance(models, str):
        models = [part.strip() for part in models.split(",")]
    pairs = models.items() if isinstance(models, Mapping) else [(name, name) for name in models]
    sources: dict[str, str | Builder] = dict(pairs)
    for source in sources.values():
        if isinstance(source, str):
            model_class(source)
    return sources


def _place(
    plan: Plan,
    data: Dataset,
    name: str,
    source: str | Builder,
    options: dict[str, Any],
    tasks: tuple[str, ...],
) -> str | None:
    """Return the form of the data that a model can hold, None for none; enter in the plan what else."""
    plan.tasks[name] = _spoken(model_class(source), tasks) if isinstance(source, str) else tasks
    try:
        if plan.tasks[name]:
            plan.tasks[name] = _spoken(make(source, data, options, 0), tasks)
    except Exception as error:
        if isinstance(error, OptionError) and options:
            raise
        plan.left_out[name] = reason(error).removeprefix(f"{source}: ")  # the table names the model
        return _form(plan, data, name, source, options) if isinstance(error, DomainError) else None
    if not plan.tasks[name]:
        plan.notes.append(f"{name} is left out: it has the verbs of none of these tasks")
        return None
    return ""


def _spoken(model: object, tasks: tuple[str, ...]) -> tuple[str, ...]:
    """Return the tasks that a model, or its class, has the verbs for."""
    return tuple(task for task in tasks if TASKS[task].fits(model))


def reason(error: Exception) -> str:
    """Return one line that says what went wrong."""
    text = " ".join(str(error).split())
    return text if isinstance(error, LeadlineError) else f"{type(error).__name__}: {text}"


def _form(plan: Plan, data: Dataset, name: str, source: str | Builder, options: dict[str, Any]) -> str | None:
    """Return the first conversion of the data that the model can hold and that leaves it a task."""
    for conversion in CONVERSIONS:
        if not _kept(plan.tasks[name], conversion):
            continue
        try:
            make(source, converted(data, conversion), options, 0)
        except LeadlineError:
            continue
        plan.left_out[name] += f'; see the tables "({conversion})"'
        return conversion
    return None


def _kept(tasks: tuple[str, ...], conversion: str) -> tuple[str, ...]:
    """Return the tasks that mean something on converted data."""
    return tasks if conversion != "vectors" else tuple(task for task in tasks if task in _OF_CONTENT)
