"""A run: what was trained, on what, how, and how it went; a directory that opens without being told."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from leadline.catalog import build
from leadline.core import (
    DataError,
    Domain,
    Labels,
    LeadlineError,
    RunError,
    Signature,
    domain_from_json,
    labels_from_json,
)
from leadline.data import Dataset
from leadline.training.checkpoint import LAST, load_weights, unpack
from leadline.training.files import read_json, read_tensors

__all__ = ["FORMAT", "Run", "open_run"]

FORMAT = 1


@dataclass
class Run:
    """A training and its result.

    Args:
        path: Its directory, or None where nothing was written.
        model: The model, in evaluation mode.
        name: Catalog name of the model, or its class.
        options: Options that the model was built with.
        origin: Where its first weights came from, if from a file: name, sha256, what stayed new.
        domain: What one sample is.
        labels: What a label is, or None.
        settings: What `fit` was asked for.
        status: "done", "interrupted", "running" or "failed".
        steps: Steps or sweeps taken.
        seconds: Time spent learning.
        data_name: Name of the data set.
        data_source: What `load` was given, or an empty string for data made in memory.
        data_options: The options that `load` was given.
        fingerprint: Fingerprint of the data.
        versions: Versions of what made the run.
        metrics: One record a validation: step, epoch, loss, valid, seconds and more.
        message: Why it ended early, or an empty string.
        in_catalog: Whether the model can be built from its name and options.
        notes: What `fit` decided or found, a line each.
    """

    path: Path | None
    model: nn.Module
    name: str
    options: dict[str, Any]
    domain: Domain
    labels: Labels | None
    settings: dict[str, Any]
    status: str = "running"
    steps: int = 0
    seconds: float = 0.0
    data_name: str = ""
    data_source: str = ""
    data_options: dict[str, Any] = field(default_factory=dict)
    fingerprint: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    message: str = ""
    in_catalog: bool = True
    origin: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return what `run.json` holds: all but weights and metrics."""
        return {
            "format": FORMAT,
            "model": {
                "name": self.name,
                "options": self.options,
                "catalog": self.in_catalog,
                "origin": self.origin,
            },
            "domain": self.domain.to_json(),
            "labels": None if self.labels is None else self.labels.to_json(),
            "data": {
                "name": self.data_name,
                "source": self.data_source,
                "options": self.data_options,
                "fingerprint": self.fingerprint,
            },
            "settings": self.settings,
            "status": self.status,
            "message": self.message,
            "steps": self.steps,
            "seconds": self.seconds,
            "versions": self.versions,
            "notes": self.notes,
        }

    def load_data(self) -> Dataset:
        """Return the data set that the run learned from, loaded again.

        Raises:
            DataError: If it was made in memory, or is no longer the same.
        """
        if not self.data_source:
            raise DataError(f"{self.name} learned from data made in memory: pass the data set along")
        from leadline.data import load

        data = load(self.data_source, **self.data_options)
        if data.fingerprint != self.fingerprint:
            raise DataError(
                f"{self.data_source} has changed since the run was made (fingerprint {data.fingerprint})"
            )
        return data

    def __str__(self) -> str:
        where = f" in {self.path}" if self.path else ""
        spent = f"{self.steps} steps, {self.seconds:.1f} s"
        return f"{self.name} on {self.data_name}: {self.status} after {spent}{where}"


def open_run(path: str | os.PathLike[str], model: nn.Module | None = None) -> Run:
    """Return the run in a directory, with its weights; an unfinished one with its last good ones.

    Args:
        path: The directory that `fit` wrote.
        model: The model itself, needed only if it is not in the catalog.

    Raises:
        RunError: If there is no run, or a file of it is damaged.
    """
    folder = Path(path)
    if not (folder / "run.json").is_file():
        raise RunError(f"no run in {folder}: run.json is missing; give the folder that fit wrote")
    try:
        run = _from_json(folder, read_json(folder / "run.json"), model)
    except (KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{folder / 'run.json'} is not the description of a run: {error}") from error
    done, last = folder / "model.safetensors", folder / LAST
    if done.is_file():
        weights = read_tensors(done)[0]
    elif last.is_file():
        sections = unpack(last)[0]
        weights = sections["best"] or sections["model"]
    else:
        raise RunError(f"the run in {folder} has no weights yet; resume it or start again")
    load_weights(run.model, weights, str(folder))
    run.model.eval()
    run.metrics = read_metrics(folder / "metrics.jsonl")
    return run


def _from_json(folder: Path, values: dict[str, Any], model: nn.Module | None) -> Run:
    if values["format"] != FORMAT:
        raise RunError(
            f"{folder} has format {values['format']}, this version reads {FORMAT}: update leadline"
        )
    domain, labels = domain_from_json(values["domain"]), labels_from_json(values["labels"])
    named, data = values["model"], values["data"]
    if model is None:
        model = _rebuilt(folder, named, Signature(domain, labels))
    return Run(
        path=folder,
        model=model,
        name=str(named["name"]),
        options=dict(named["options"]),
        in_catalog=bool(named["catalog"]),
        origin=dict(named.get("origin", {})),
        domain=domain,
        labels=labels,
        settings=dict(values["settings"]),
        status=str(values["status"]),
        message=str(values["message"]),
        steps=int(values["steps"]),
        seconds=float(values["seconds"]),
        data_name=str(data["name"]),
        data_source=str(data["source"]),
        data_options=dict(data["options"]),
        fingerprint=str(data["fingerprint"]),
        versions=dict(values["versions"]),
        notes=[str(note) for note in values.get("notes", [])],
    )


def _rebuilt(folder: Path, named: dict[str, Any], signature: Signature) -> nn.Module:
    """Return the catalog model a run describes; global randomness is left as it was."""
    if not named["catalog"]:
        raise RunError(f"{folder} holds your own {named['name']}: pass the model, ll.open(path, model=...)")
    options = {key: tuple(v) if isinstance(v, list) else v for key, v in named["options"].items()}
    try:
        with torch.random.fork_rng(devices=[]):
            return build(named["name"], signature, **options)
    except RunError:
        raise
    except LeadlineError as error:
        raise RunError(f"cannot build the model of {folder}: {error}") from error


def read_metrics(path: Path, most: int | None = None) -> list[dict[str, Any]]:
    """Return the records of a metrics file up to step `most`; a last line cut short is left out."""
    records: list[dict[str, Any]] = []
    if not path.is_file():
        return records
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            break
        if most is not None and record.get("step", 0) > most:
            break
        records.append(record)
    return records
