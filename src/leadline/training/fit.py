"""`fit`: any model on any data set, by descending, sweeping or stacking."""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from leadline.core import (
    Classes,
    DataError,
    Domain,
    DomainError,
    InterruptedFit,
    LeadlineError,
    OptionError,
    Recipe,
    RunError,
)
from leadline.core.durations import seconds_of
from leadline.core.errors import no_data_set, unknown_name
from leadline.core.randomness import derive_seed
from leadline.core.verbs import has_verb, way_of
from leadline.data import Dataset
from leadline.training.augment import augmenter
from leadline.training.checkpoint import LAST, load_weights, restore_randomness, unpack, weights_of
from leadline.training.descend import descend
from leadline.training.files import free_directory, read_json, write_tensors
from leadline.training.groups import check_prefixes, frozen, still_layers
from leadline.training.machine import (
    Crew,
    choose_device,
    cpu_threads,
    crew,
    fast_memory,
    fast_precision,
    kept_memory,
)
from leadline.training.optimizers import takes_all
from leadline.training.phases import learnable, phases_of, threads_for
from leadline.training.progress import make_progress
from leadline.training.record import Record, versions
from leadline.training.run import Run
from leadline.training.session import Hook, Probe, Session, interrupts
from leadline.training.settings import Settings
from leadline.training.sweep import sweep

__all__ = ["fit"]

_EPOCHS, _STEPS, _SWEEPS = 20, 2000, 200
_USUAL = {
    "batch_size": 128, "optimizer": "adam", "schedule": "constant",
    "precision": "fp32", "channels_last": False, "weight_decay": 0.0, "warmup": 0,
}  # fmt: skip
_LENGTHS = {"epochs", "steps", "budget"}
_OF_OPTIMIZER = ("optimizer", "lr", "optimizer_options", "weight_decay", "warmup")


def fit(  # noqa: PLR0913
    model: nn.Module,
    data: Dataset,
    *,
    epochs: int | None = None,
    steps: int | None = None,
    budget: float | str | None = None,
    batch_size: int | None = None,
    optimizer: str | None = None,
    lr: float | None = None,
    lr_groups: Mapping[str, float] | None = None,
    optimizer_options: Mapping[str, Any] | None = None,
    freeze: str | Sequence[str] = (),
    schedule: str | None = None,
    warmup: int | None = None,
    weight_decay: float | None = None,
    clip: float | None = None,
    accumulate: int = 1,
    label_smoothing: float = 0.0,
    patience: int | None = None,
    select: Literal["best", "last"] = "best",
    tolerance: float = 1e-4,
    validate_every: int = 1,
    seed: int = 0,
    device: str = "auto",
    precision: str | None = None,
    channels_last: bool | Literal["auto"] | None = None,
    compile: bool = False,  # noqa: A002
    augment: str | None = None,
    threads: int | None = None,
    sharding: str | None = None,
    after_step: Hook | None = None,
    probe: Probe | None = None,
    probe_every: int = 0,
    checkpoint_every: float = 30.0,
    out: str | os.PathLike[str] | Literal[False] | None = None,
    resume: bool = False,
    progress: bool = True,
) -> Run:
    """Train `model` on `data` the way it learns, and return the run.

    A model with `stages()` is learned stage by stage, then as a whole; one with `sweep(x)` by full
    steps until they no longer improve it; one with `loss(batch)` or `players()` by gradient steps.
    Where a setting is None the model's own `recommended` dictionary decides, else a default.

    Args:
        model: Any module that learns in one of these ways.
        data: What it learns from; a model that only predicts learns from labelled rows alone.
        epochs: Passes over the training split in each phase, or most sweeps. Without epochs, steps
            and budget: 20, or as many as make 2,000 steps; 200 sweeps.
        steps: Most steps of each phase; with `epochs` too, whichever ends first.
        budget: Most seconds of training after the first step (in which code is compiled), a number or "60s",
            "2m", "1h"; each phase may take an even share of what those before it left. A run with a budget
            depends on the machine's speed.
        batch_size: Samples of a batch (128), over all processes together.
        optimizer: sgd, noisy_sgd, momentum, nesterov, adagrad, rmsprop, adam, adamw, lbfgs, gd or sam
            ("adam"). `gd` descends on the whole training split, read in parts of `batch_size`; `sam` climbs
            by `rho` before each step of its `base`; `noisy_sgd` adds noise that falls to each gradient.
        lr: Learning rate; a usual one for the optimiser by default.
        lr_groups: Learning rates of layers, by the prefix of their parameters' names; the longest decides.
        optimizer_options: Further options of the torch optimiser; for sam also rho, base and adaptive,
            for noisy_sgd noise and anneal.
        freeze: Prefixes of layers that do not learn; their batch normalisation stays in evaluation mode.
        schedule: constant, linear, cosine or step, over the whole phase ("constant").
        warmup: Steps over which the learning rate rises from zero (0).
        weight_decay: Weight decay of the optimiser (0).
        clip: Largest norm of the gradient.
        accumulate: Batches whose gradients make one step.
        label_smoothing: Weight moved from the given class to all, in [0, 1).
        patience: Validations without a better figure after which to stop.
        select: Keep the "best" weights by the validation figure, or the "last".
        tolerance: Relative gain of a sweep below which sweeping ends.
        validate_every: Epochs between validations.
        seed: Seed of the order of samples and of all draws while training.
        device: auto, cpu, cuda or mps.
        precision: fp32, bf16, fp16, or auto: bf16 where the machine has it ("fp32"); weights stay in fp32.
        channels_last: Keep pictures and convolutions in channels-last order; "auto" where that is faster.
        compile: Compile the loss with torch.compile.
        augment: Random changes of training pictures: "flip", "crop" or "flip+crop".
        threads: CPU threads; few where steps are small by default.
        sharding: "full" spreads parameters over the processes of torchrun (FSDP2).
        after_step: Called as after_step(model, step) after every step.
        probe: Called as probe(model, step) every `probe_every` steps; returns numbers to record.
        probe_every: Steps between probes; 0 for never.
        checkpoint_every: Seconds between checkpoints; 0 for one after every step.
        out: Directory of the run; runs/<model>-<data>-<number> by default; False writes nothing.
        resume: Go on with the run in `out`; starts it if it is not there.
        progress: Show a live bar on a terminal, plain lines elsewhere.

    Returns:
        The run; its model is `model` itself, trained, in evaluation mode.

    Raises:
        OptionError: If a setting is unknown or out of range.
        DivergenceError: If a loss is not finite; the last good checkpoint stays.
        RunError: If the run cannot be written or resumed.
        InterruptedFit: If Ctrl-C stopped it, after a checkpoint.
    """
    wanted: dict[str, Any] = {
        "epochs": epochs, "batch_size": batch_size, "optimizer": optimizer, "lr": lr,
        "optimizer_options": dict(optimizer_options) if optimizer_options is not None else None,
        "schedule": schedule, "clip": clip, "steps": steps,
        "budget": None if budget is None else seconds_of(budget),
        "precision": precision, "channels_last": channels_last, "weight_decay": weight_decay,
        "warmup": warmup,
    }  # fmt: skip
    settings = Settings(
        **_resolved(model, wanted, data),
        accumulate=accumulate, label_smoothing=label_smoothing, patience=patience, select=select,
        tolerance=tolerance, validate_every=validate_every, seed=seed, device=device, compile=compile,
        augment=augment, threads=threads, sharding=sharding, checkpoint_every=checkpoint_every,
        lr_groups=None if lr_groups is None else dict(lr_groups),
        freeze=(freeze,) if isinstance(freeze, str) else tuple(freeze),
    )  # fmt: skip
    _suits(model, data, settings)
    place = choose_device(settings.device)
    team = crew(place)
    folder = _folder(model, data, out, team, resume=resume)
    session = Session(
        model=model, settings=settings, device=place, crew=team, folder=folder,
        record=Record(_described(model, data, settings, folder), writes=team.leads),
        progress=make_progress(shown=progress and team.leads),
        after_step=after_step, probe=probe, probe_every=probe_every,
    )  # fmt: skip
    devices = [place] if place.type == "cuda" else []
    held = frozen(model, settings.freeze)
    with torch.random.fork_rng(devices=devices), cpu_threads(settings.threads), held as count:
        if count:
            session.say(f"frozen: {count:,} of {sum(p.numel() for p in model.parameters()):,} parameters")
        return _train(session, data, resume=resume)


def _train(session: Session, data: Dataset, *, resume: bool) -> Run:
    """Prepare or restore the session, learn every phase, and leave the run as it should be found."""
    model, run = session.model, session.record.run
    seed, rank = session.settings.seed, session.crew.rank
    torch.manual_seed(seed if rank == 0 else derive_seed(seed, rank))
    model.to(session.device)
    session.still = still_layers(model, session.settings.freeze)
    there = resume and session.folder is not None and (session.folder / LAST).is_file()
    resumed = session.crew.told("yes" if there else "no") == "yes"  # before anyone writes
    if resumed:
        _restore(session)
    _choose(session, resumed=resumed)
    if session.settings.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    try:
        session.record.start(session.position.total if resumed else None)
        session.record.save("running")
        kept = kept_memory(wanted=bool(session.settings.channels_last) and session.device.type == "cpu")
        with interrupts(session), kept:
            _learn(session, data, resumed=resumed)
        session.record.close()  # a disk that is full may say so now
    except InterruptedFit as stop:
        _settle(session, "interrupted", str(stop))
        raise InterruptedFit(f"{stop}; {_how_to_resume(session)}") from None
    except LeadlineError as error:
        _settle(session, "failed", str(error))
        raise type(error)(f"{error}; {_how_to_resume(session)}") from error
    finally:
        with suppress(RunError):
            session.record.close()
    session.progress.close(str(run))
    return run


def _learn(session: Session, data: Dataset, *, resumed: bool) -> None:
    """Learn every phase from the session's position on, then write the finished model."""
    settings, position, model = session.settings, session.position, session.model
    if not resumed:
        session.checkpoint()
    phases = phases_of(session, data)
    session.phases = len(phases)
    for number, make in enumerate(phases):
        if number < position.phase:
            continue
        phase = make()
        with cpu_threads(settings.threads or threads_for(session, phase)):
            (sweep if has_verb(phase.learner, "sweep") else descend)(session, phase)
            if phase.join is not None:
                phase.join()
        if number < len(phases) - 1:
            position.next_phase(session.charged())
            session.best = None
    session.tick()
    session.checkpoint()
    if session.best is not None and settings.select == "best":
        load_weights(model, session.best, "memory")
    if settings.channels_last:  # in plain order it answers to the bit as when its run is opened
        model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    model.eval()
    run = session.record.run
    run.steps, run.seconds = position.total, position.seconds
    if session.folder is not None:
        weights = weights_of(model)
        if session.crew.leads:
            write_tensors(session.folder / "model.safetensors", weights)
    session.record.save("done")


def _choose(session: Session, *, resumed: bool) -> None:
    """Put the leading process's choice for its machine where a setting is "auto", and tell it."""
    settings, told = session.settings, session.crew.told
    precision, order = settings.precision, settings.channels_last
    fast = told(fast_precision(session.device))
    if precision == "auto":
        precision = fast
        session.say(f"precision: {precision}, chosen for this machine")
    elif resumed and precision == "bf16" and fast != "bf16":
        session.say("precision: bf16 as at the start of this run, which is slow on this machine")
    if order == "auto":
        order = told(str(fast_memory(session.device, precision, session.model))) == "True"
    session.settings = replace(settings, precision=precision, channels_last=order)
    session.record.run.settings = session.settings.to_json()


def _restore(session: Session) -> None:
    """Put the state of an earlier start of this run back.

    Raises:
        RunError: If the state is damaged.
        OptionError: If a setting differs that decided the steps already taken.
    """
    if session.folder is None:
        return
    saved = read_json(session.folder / "run.json")
    failed = saved.get("status") == "failed"
    session.settings = session.settings.resumed_from(saved.get("settings", {}), after_failure=failed)
    if saved.get("data", {}).get("fingerprint") != session.record.run.fingerprint:
        raise RunError(f"cannot resume {session.folder}: it learned from other data")
    sections, position, note = unpack(session.folder / LAST)
    load_weights(session.model, sections["model"], str(session.folder / LAST))
    session.position, session.best = position, sections["best"] or None
    restore_randomness(sections["random"])
    if note["optimizers"]:
        session.restore = (sections["optimizer"], note)


def _settle(session: Session, status: str, message: str) -> None:
    """Write how the run ended, as far as that is possible."""
    session.model.eval()
    run = session.record.run
    run.steps, run.seconds = session.position.total, session.position.seconds
    with suppress(RunError):  # the disk may be full: the first error is the one to tell
        session.record.save(status, message)
    told = (
        message if status == "interrupted" else f"{status} after {run.steps} steps"
    )  # what failed is raised
    session.progress.close(f"{run.name}: {told}")


def _how_to_resume(session: Session) -> str:
    """Return the advice that ends a message about a run that stopped early."""
    if session.folder is None:
        return "nothing was written (out=False)"
    if not session.position.total:
        return f'nothing was learned: begin anew with another out=, or remove "{session.folder}"'
    return f'the last checkpoint is kept; to go on: resume=True with out="{session.folder}" (--resume)'


def _resolved(model: nn.Module, wanted: dict[str, Any], data: Dataset) -> dict[str, Any]:
    """Return settings with what the model recommends, or a default, in place of None.

    Raises:
        OptionError: If there is no model or no data set, or the model recommends what is no setting.
    """
    if not isinstance(model, nn.Module):
        raise OptionError(f"fit needs a model, not {type(model).__name__}: build(name, data) makes one")
    if not hasattr(data, "train"):
        raise no_data_set("fit", data)
    recommended = dict(getattr(model, "recommended", {}))
    for key in recommended:
        if key not in wanted:
            raise unknown_name("recommended setting", key, wanted)
    given = {key: value for key, value in wanted.items() if value is not None}
    if _LENGTHS & set(given):
        recommended = {key: value for key, value in recommended.items() if key not in _LENGTHS}
    if given.get("optimizer", recommended.get("optimizer")) != recommended.get("optimizer"):
        recommended = {key: value for key, value in recommended.items() if key not in _OF_OPTIMIZER}
    chosen: dict[str, Any] = _USUAL | recommended | given
    if not _LENGTHS & set(chosen):
        sweeps = way_of(model) == "sweep" or takes_all(chosen["optimizer"], chosen.get("optimizer_options"))
        per_epoch = max(1, -(-len(data.train) // max(chosen["batch_size"], 1)))
        chosen["epochs"] = _SWEEPS if sweeps else max(_EPOCHS, -(-_STEPS // per_epoch))
    return {key: chosen.get(key) for key in wanted}


def _suits(model: nn.Module, data: Dataset, settings: Settings) -> None:
    """Check that model, data and settings fit together.

    Raises:
        DataError: If there is nothing to learn from.
        DomainError: If the model was built for other samples.
        OptionError: If a setting does not apply.
    """
    way_of(model)
    if len(learnable(model, data.train, data)) == 0:
        raise DataError(f"{data.name} has no sample to learn from in its training split")
    domain = getattr(model, "domain", None)
    if isinstance(domain, Domain) and (domain.kind, domain.shape) != (data.domain.kind, data.domain.shape):
        raise DomainError(f"the model was built for {domain}, but the data are {data.domain}")
    if settings.label_smoothing and not (isinstance(data.labels, Classes) and has_verb(model, "predict")):
        raise OptionError("label_smoothing applies to classifiers; this model does not predict classes")
    if settings.compile and -1 in data.domain.shape:
        raise OptionError(f"compile needs samples of one shape, but the data are {data.domain}; leave it off")
    if settings.augment:
        augmenter(settings.augment, data.domain)
    for name, prefixes in (("freeze", settings.freeze), ("lr_groups", tuple(settings.lr_groups or ()))):
        check_prefixes(model, prefixes, name)
        if prefixes and way_of(model) == "sweep":
            raise OptionError(f"{name} applies to models that learn by gradient steps; this one sweeps")


def _folder(
    model: nn.Module,
    data: Dataset,
    out: str | os.PathLike[str] | Literal[False] | None,
    team: Crew,
    *,
    resume: bool,
) -> Path | None:
    """Return the directory of the run, made by the leading process; None to write nothing.

    Raises:
        RunError: If it holds a run that is not to be resumed, or cannot be made.
    """
    if out is False:
        return None
    if out is None:
        stem = Path("runs") / f"{_name(model)}-{data.name}"
        return Path(team.told(str(free_directory(stem)) if team.leads else ""))
    folder = Path(out)
    if not team.leads:
        return folder
    if (folder / "run.json").exists() and not resume:
        raise RunError(f"{folder} already holds a run: give another out=, or resume=True (--resume) to go on")
    if (folder / "model.safetensors").exists() and not (folder / LAST).exists():
        raise RunError(f"{folder} holds a finished model without the state of a training: it cannot go on")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make {folder}: {error.strerror}; choose another out=") from error
    return folder


def _name(model: nn.Module) -> str:
    recipe = getattr(model, "recipe", None)
    return recipe.name if isinstance(recipe, Recipe) else type(model).__name__


def _described(model: nn.Module, data: Dataset, settings: Settings, folder: Path | None) -> Run:
    """Return the run before its first step."""
    recipe = getattr(model, "recipe", None)
    known = isinstance(recipe, Recipe)
    return Run(
        path=folder,
        model=model,
        name=_name(model),
        options=dict(recipe.options) if isinstance(recipe, Recipe) else {},
        origin=dict(recipe.origin) if isinstance(recipe, Recipe) else {},
        in_catalog=known,
        domain=data.domain,
        labels=data.labels,
        settings=settings.to_json(),
        data_name=data.name,
        data_source=data.source,
        data_options=dict(data.options),
        fingerprint=data.fingerprint,
        versions=versions(),
    )
