"""Commands that train, and join what was trained: fit, compare, ensemble."""

from pathlib import Path
from typing import Annotated, Any

import typer

from leadline.cli.flags import DataOptions, Json, ModelOptions, Quiet

__all__ = ["COMMANDS", "compare", "ensemble", "fit"]


def fit(  # noqa: PLR0913
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help="See `leadline models`.")] = None,
    data: Annotated[str | None, typer.Argument(metavar="DATA", help="See `leadline data`.")] = None,
    model_options: ModelOptions = None,
    data_options: DataOptions = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out samples that are broken.")] = False,
    out: Annotated[Path | None, typer.Option(help="Directory of the run [runs/MODEL-DATA-NUMBER].")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out; all but --out may be left away.")
    ] = False,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training split; most sweeps.")] = None,
    steps: Annotated[int | None, typer.Option(help="Most steps of each phase.")] = None,
    budget: Annotated[str | None, typer.Option(metavar="TIME", help="Most time, e.g. 60s, 2m.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Samples of a batch.")] = None,
    optimizer: Annotated[
        str | None,
        typer.Option(
            help="sgd, noisy_sgd, momentum, nesterov, adagrad, rmsprop, adam, adamw, lbfgs, gd or sam."
        ),
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    lr_groups: Annotated[
        list[str] | None,
        typer.Option("--lr-group", metavar="LAYER=RATE", help="Learning rate of a layer, by its name."),
    ] = None,
    freeze: Annotated[
        list[str] | None, typer.Option(metavar="LAYER", help="A layer that does not learn, by its name.")
    ] = None,
    optimizer_options: Annotated[
        list[str] | None,
        typer.Option("--optimizer-option", metavar="NAME=VALUE", help="A further option of the optimiser."),
    ] = None,
    schedule: Annotated[str | None, typer.Option(help="constant, linear, cosine or step.")] = None,
    warmup: Annotated[int | None, typer.Option(help="Steps over which the learning rate rises.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Weight decay.")] = None,
    clip: Annotated[float | None, typer.Option(help="Largest norm of the gradient.")] = None,
    accumulate: Annotated[int | None, typer.Option(help="Batches whose gradients make a step.")] = None,
    label_smoothing: Annotated[float | None, typer.Option(help="Weight moved to all classes.")] = None,
    patience: Annotated[int | None, typer.Option(help="Validations without gain, then stop.")] = None,
    select: Annotated[str | None, typer.Option(help="Keep the best weights or the last.")] = None,
    tolerance: Annotated[float | None, typer.Option(help="Relative gain that ends sweeping.")] = None,
    validate_every: Annotated[int | None, typer.Option(help="Epochs between validations.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the order and of all draws.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps.")] = None,
    precision: Annotated[str | None, typer.Option(help="fp32, bf16, fp16 or auto.")] = None,
    channels_last: Annotated[
        bool | None, typer.Option("--channels-last/--no-channels-last", help="Pictures channels-last.")
    ] = None,
    compiled: Annotated[bool, typer.Option("--compile", help="Compile the loss.")] = False,
    augment: Annotated[str | None, typer.Option(help="flip, crop or flip+crop.")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
    sharding: Annotated[str | None, typer.Option(help="full: over the processes of torchrun.")] = None,
    checkpoint_every: Annotated[float | None, typer.Option(help="Seconds between checkpoints.")] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Train a model on data and write a run.

    Example:
      leadline fit vae ./photos --set latent=32 --epochs 20 --out runs/a
      leadline fit --resume --out runs/a
    """
    from leadline.core.durations import seconds_of

    settings: dict[str, Any] = {
        "epochs": epochs, "steps": steps, "budget": budget and seconds_of(budget, "--budget"),
        "batch_size": batch_size,
        "optimizer": optimizer, "lr": lr, "lr_groups": _rates(lr_groups), "freeze": freeze,
        "optimizer_options": _optimizer_options(optimizer_options),
        "schedule": schedule, "warmup": warmup, "weight_decay": weight_decay, "clip": clip,
        "accumulate": accumulate, "label_smoothing": label_smoothing, "patience": patience,
        "select": select, "tolerance": tolerance, "validate_every": validate_every, "seed": seed,
        "device": device, "precision": precision, "channels_last": channels_last,
        "compile": compiled or None, "augment": augment, "threads": threads, "sharding": sharding,
        "checkpoint_every": checkpoint_every,
    }  # fmt: skip
    given = {key: value for key, value in settings.items() if value is not None}
    run = _fitted(
        model, data, model_options, data_options, given, out, resume=resume, quiet=quiet, skip_bad=skip_bad
    )
    if as_json:
        from leadline.cli.output import show_document

        last = run.metrics[-1] if run.metrics else {}
        show_document({"path": str(run.path), "last": last, **run.to_json()})
        return
    typer.echo(f"{run.path}")


def _optimizer_options(pairs: list[str] | None) -> dict[str, Any] | None:
    """Return further options of the optimiser, which checks their names itself."""
    from leadline.cli.values import parsed
    from leadline.core import OptionError

    if not pairs:
        return None
    for pair in pairs:
        if "=" not in pair:
            raise OptionError(f"--optimizer-option {pair}: give NAME=VALUE, e.g. --optimizer-option eps=1e-6")
    split = [pair.partition("=") for pair in pairs]
    return {name.strip(): parsed(text, Any, f"--optimizer-option {name}") for name, _, text in split}


def _rates(pairs: list[str] | None) -> dict[str, float] | None:
    """Return learning rates by layer."""
    from leadline.cli.values import parsed
    from leadline.core import OptionError

    for pair in pairs or ():
        if "=" not in pair:
            raise OptionError(f"--lr-group {pair}: give LAYER=RATE, e.g. --lr-group head=1e-3")
    split = [pair.rpartition("=") for pair in pairs or ()]
    return {name.strip(): parsed(text, float, f"--lr-group {name}") for name, _, text in split} or None


def _fitted(  # noqa: PLR0913
    model: str | None,
    source: str | None,
    model_pairs: list[str] | None,
    data_pairs: list[str] | None,
    settings: dict[str, Any],
    out: Path | None,
    *,
    resume: bool,
    quiet: bool,
    skip_bad: bool,
) -> Any:
    """Train, or go on training what the run in `out` describes."""
    import torch

    from leadline.catalog import build, options_of
    from leadline.cli.loading import load_options, loaded
    from leadline.cli.values import assigned
    from leadline.core import OptionError
    from leadline.data import load
    from leadline.training import fit as learn

    if resume and out is None:
        raise OptionError("--resume needs --out, the directory of the run to go on with")
    if resume and out is not None and (out / "run.json").exists():
        saved = _saved(out)
        options = saved["options"] | (assigned(model_pairs, options_of(saved["model"]), "option", "--set"))
        held = saved["data_options"] | assigned(data_pairs, load_options(), "option of the data", "--data")
        data = load(source or saved["source"], **held)
        name, settings = model or saved["model"], saved["settings"] | settings
    else:
        if model is None or source is None:
            raise OptionError("fit needs a model and data, e.g. leadline fit vae digits --out runs/a")
        name, options = model, assigned(model_pairs, options_of(model), f"option of {model}", "--set")
        data = loaded(source, data_pairs, skip_bad=skip_bad)
    torch.manual_seed(settings.get("seed", 0))
    made = build(name, data, **options)
    _tell_origin(made)
    return learn(made, data, out=out, resume=resume, progress=not quiet, **settings)


def _tell_origin(model: Any) -> None:
    """Tell where the first weights came from, and which layers do not have them."""
    from leadline.cli.output import note

    origin = model.recipe.origin
    if origin:
        new = f"; new: {', '.join(origin['new'])}" if origin["new"] else ""
        note(f"note: {origin['loaded']} tensors of {origin['weights']} (sha256 {origin['sha256'][:12]}){new}")


def _saved(out: Path) -> dict[str, Any]:
    """Return what the unfinished run in a directory was asked for.

    Raises:
        OptionError: If it cannot be started again from its description.
    """
    from leadline.core import OptionError, RunError
    from leadline.training.files import read_json

    held = read_json(out / "run.json")
    try:
        model, data = held["model"], held["data"]
        saved = {
            "model": str(model["name"]),
            "options": {k: tuple(v) if isinstance(v, list) else v for k, v in model["options"].items()},
            "source": str(data["source"]),
            "data_options": dict(data["options"]),
            "settings": {k: v for k, v in held["settings"].items() if v is not None},
            "catalog": bool(model["catalog"]),
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{out / 'run.json'} is not the description of a run: {error}") from error
    if not saved["catalog"] or not saved["source"]:
        raise OptionError(f"{out} holds a model or data of your own: resume it from Python")
    return saved


def compare(  # noqa: PLR0913
    data: Annotated[str, typer.Argument(metavar="DATA", help="See `leadline data`.")],
    task: Annotated[
        str,
        typer.Option(
            help="classification, density, generation, representation, structure (or several), or all."
        ),
    ] = "all",
    models: Annotated[
        str | None, typer.Option(help="Names with commas between; all that fit by default.")
    ] = None,
    budget: Annotated[
        str | None, typer.Option(metavar="TIME", help="Most time of each training, e.g. 60s, 2m [12s].")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Most epochs of each training.")] = None,
    steps: Annotated[int | None, typer.Option(help="Most steps of each training.")] = None,
    seeds: Annotated[int, typer.Option(help="Trainings of each model; intervals are over them.")] = 1,
    jobs: Annotated[int | None, typer.Option(help="Trainings at a time; one a core by default.")] = None,
    model_options: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="MODEL.NAME=VALUE", help="An option of one of the models."),
    ] = None,
    data_options: DataOptions = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out samples that are broken.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the runs, compare.json and report.html.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the comparison in --out.")] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Train several models on data under one budget and rank them.

    Example:
      leadline compare digits --out demo
      leadline compare table.csv --data target=price --models linear,mlp --budget 60s
    """
    from leadline.cli.loading import loaded
    from leadline.cli.output import note, show_document
    from leadline.comparison import compare as measure
    from leadline.reports import report

    tasks = [name.strip() for name in task.split(",") if name.strip()]
    shown = not (quiet or as_json)
    result = measure(
        loaded(data, data_options, skip_bad=skip_bad),
        task=tasks[0] if len(tasks) == 1 else tasks,
        models=[name.strip() for name in models.split(",") if name.strip()] if models else None,
        budget=budget, epochs=epochs, steps=steps, seeds=seeds, jobs=jobs,
        options=_options_by_model(model_options), out=out, resume=resume, progress=shown,
    )  # fmt: skip
    show_document(result.to_json()) if as_json else typer.echo(str(result))
    if not as_json:
        for name, reason in result.failures.items():
            typer.echo(f"failed: {name}: {reason}")
    if out is not None:
        note(f"wrote {report(result, out / 'report.html', progress=shown)}")


def _options_by_model(pairs: list[str] | None) -> dict[str, dict[str, Any]]:
    """Return options by model of MODEL.NAME=VALUE pairs."""
    from leadline.catalog import options_of
    from leadline.cli.values import assigned
    from leadline.core import OptionError

    found: dict[str, dict[str, Any]] = {}
    for pair in pairs or ():
        model, dot, rest = pair.partition(".")
        if not dot or "=" in model:
            raise OptionError(f"--set {pair}: give MODEL.NAME=VALUE, e.g. --set vae.latent=8")
        told = assigned([rest], options_of(model), f"option of {model}", f"--set {model}.")
        found.setdefault(model, {}).update(told)
    return found


def ensemble(
    runs: Annotated[list[Path], typer.Argument(metavar="RUNS", help="Directories of two runs or more.")],
    out: Annotated[Path | None, typer.Option(help="Where to write [runs/ensemble-DATA-NUMBER].")] = None,
    as_json: Json = False,
) -> None:
    """Join runs into one that predicts by their mean probability.

    Example:
      leadline ensemble runs/a runs/b runs/c --out runs/together
    """
    from leadline.cli.output import show_document
    from leadline.training import ensemble as join

    run = join(runs, out=out)
    show_document({"path": str(run.path), **run.to_json()}) if as_json else typer.echo(f"{run.path}")


COMMANDS = (fit, compare, ensemble)
