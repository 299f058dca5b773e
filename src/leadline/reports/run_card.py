"""What was trained on what, and how to repeat it: the head of a run's page."""

import shlex
from dataclasses import fields
from typing import Any

from leadline.core import Classes, Labels, verbs_of
from leadline.data import Dataset
from leadline.reports.parts import Card
from leadline.training import Run
from leadline.training.settings import Settings

__all__ = ["card_of", "command_of"]

_MOST_NAMES = 12
_SINGULAR = {"optimizer_options": "optimizer_option", "lr_groups": "lr_group"}  # given once an entry


def command_of(run: Run) -> str:
    """Return the command that repeats the run; Python where data or model are the user's own."""
    if not run.settings:
        return "\n".join(run.notes)  # it was not trained, and its notes say how it was made
    if not run.data_source or not run.in_catalog:
        return _python_of(run)
    words = ["leadline", "fit", run.name, run.data_source]
    words += [word for name, value in run.options.items() for word in ("--set", f"{name}={_text(value)}")]
    words += [
        word for name, value in run.data_options.items() for word in ("--data", f"{name}={_text(value)}")
    ]
    for name, value in _told(run).items():
        flag = f"--{_SINGULAR.get(name, name).replace('_', '-')}"
        if isinstance(value, dict):
            words += [word for key, inner in value.items() for word in (flag, f"{key}={_text(inner)}")]
        elif isinstance(value, (list, tuple)):
            words += [word for item in value for word in (flag, str(item))]
        else:
            words += (
                [flag] if value is True else [flag, f"{value:g}" if isinstance(value, float) else str(value)]
            )
    return shlex.join(words)


def _told(run: Run) -> dict[str, Any]:
    """Return the settings that are not what they are by default."""
    usual = {item.name: getattr(Settings, item.name, None) for item in fields(Settings)}
    return {
        name: value
        for name, value in run.settings.items()
        if value not in (None, False, [], ()) and value != usual.get(name) and name != "checkpoint_every"
    }


def _python_of(run: Run) -> str:
    model = f'll.build("{run.name}", data{_keywords(run.options)})' if run.in_catalog else f"{run.name}(...)"
    source = (
        f'll.load("{run.data_source}"{_keywords(run.data_options)})'
        if run.data_source
        else f"...  # {run.data_name}"
    )
    return f"import leadline as ll\ndata = {source}\nrun = ll.fit({model}, data{_keywords(_told(run))})"


def _keywords(values: dict[str, Any]) -> str:
    return "".join(f", {name}={value!r}" for name, value in values.items())


def _text(value: Any) -> str:
    """Return a value as the command line takes it."""
    if isinstance(value, (list, tuple)):
        return ",".join(str(item) for item in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def card_of(run: Run, data: Dataset | None) -> Card:
    """Return what was trained on what, and how."""
    weights = sum(parameter.numel() for parameter in run.model.parameters())
    sizes = {} if data is None else {"train": data.train, "valid": data.valid, "test": data.test}
    facts = {
        "Model": run.name + (" with " if run.options else "") + _pairs(run.options),
        "It can": ", ".join(verbs_of(run.model)),
        "Parameters": f"{weights:,}" if weights else "none that gradients move",
        "Data": f"{run.data_name} ({run.data_source or 'made in memory'})",
        "Read with": _pairs(run.data_options),
        "One sample": str(run.domain),
        "Labels": _labels(run.labels),
        "Samples": ", ".join(f"{len(split):,} {name}" for name, split in sizes.items()),
        "Fingerprint": run.fingerprint,
        "Training": _pairs(_told(run)) or "all settings as by default",
        "Took": f"{_steps(run)} in {run.seconds:.1f} s; {run.status}",
        "Message": run.message,
        "Notes": "; ".join(run.notes),
        "Seed": str(run.settings.get("seed", 0)),
        "Versions": _pairs(run.versions),
    }
    return Card(
        f"{run.name} on {run.data_name}",
        f"What a {run.name} learned from {run.data_name}: {_steps(run)}, {run.seconds:.1f} seconds.",
        tuple((word, value) for word, value in facts.items() if value),
        command_of(run),
    )


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {_text(value)}" for name, value in values.items())


def _steps(run: Run) -> str:
    return f"{run.steps:,} step" + ("" if run.steps == 1 else "s")


def _labels(labels: Labels | None) -> str:
    if labels is None:
        return "none"
    kind = "classes" if isinstance(labels, Classes) else "targets"
    names = ", ".join(labels.names[:_MOST_NAMES]) + (", …" if len(labels.names) > _MOST_NAMES else "")
    return f"{len(labels.names)} {kind}: {names}"
