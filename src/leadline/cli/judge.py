"""Commands that judge: verify, study, report."""

from inspect import Parameter, signature
from pathlib import Path
from typing import Annotated, Any

import typer

from leadline.cli.flags import DataOptions, Json, Quiet, RunPath, Seed

__all__ = ["COMMANDS", "report", "study", "verify"]

Data = Annotated[
    str | None, typer.Option("--on", metavar="DATA", help="Data to judge on, if not those of the run.")
]


def verify(
    run: RunPath,
    on: Data = None,
    options: DataOptions = None,
    seed: Seed = 0,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Say which laws a trained model obeys; exit status 1 if it breaks one.

    Example:
      leadline verify runs/a
    """
    from leadline.cli.output import show_document
    from leadline.laws import verify as judge
    from leadline.training import open_run
    from leadline.training.progress import telling_progress

    trained = open_run(run)
    with telling_progress(shown=not (quiet or as_json)):
        found = judge(trained.model, _data_of(trained, on, options), seed=seed)
    show_document(found.to_json()) if as_json else typer.echo(str(found))
    if found.broken:
        raise typer.Exit(1)


def _data_of(run: Any, on: str | None, pairs: list[str] | None) -> Any:
    """Return the data to judge on; where the run's own are gone, what its samples and labels are."""
    from leadline.cli.loading import loaded
    from leadline.cli.output import note
    from leadline.core import LeadlineError, Signature

    if on is not None:
        return loaded(on, pairs)
    try:
        return run.load_data()
    except LeadlineError as error:
        note(f"note: {error}")
        return Signature(run.domain, run.labels)


def study(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="A name of the list.")] = None,
    subject: Annotated[
        str | None, typer.Argument(metavar="[DATA or RUN]", help="What the study is about.")
    ] = None,
    study_options: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="An option of the study.")
    ] = None,
    on: Data = None,
    options: DataOptions = None,
    out: Annotated[
        Path | None, typer.Option(help="A .json, .csv or .png file for the finding, its table or figure.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the studies with their claims, or run one on data or on a trained model.

    Example:
      leadline study
      leadline study random_labels digits
      leadline study birthday_paradox runs/a --out pairs.png
      leadline study stationary_point --set function=flat_saddle
    """
    from leadline.cli.output import FINDINGS, check_ending, show_document, show_table, write_finding
    from leadline.core.errors import unknown_name
    from leadline.studies import STUDIES

    if name is None:
        rows = [
            {"study": one.name, "on": _subject_of(one), "cost": one.cost, "claim": one.claim}
            for one in STUDIES.values()
        ]
        show_document(rows) if as_json else show_table(rows)
        return
    if name not in STUDIES:
        raise unknown_name("study", name, STUDIES)
    check_ending(out, FINDINGS)
    finding = _found(STUDIES[name], subject, study_options, on, options)
    show_document(finding.to_json()) if as_json else typer.echo(str(finding))
    if out is not None:
        write_finding(finding, out)


def _subject_of(study: Any) -> str:
    """Return what a study is given, in words."""
    if not study.needs:
        return "nothing"
    if "data" in study.needs:
        return "data"
    words = {"model": "a run", "function": "a function by name"}
    if set(study.needs) <= set(words):
        return " or ".join(words[need] for need in study.needs)
    return f"a run that can {' and '.join(study.needs)}"


def _found(
    study: Any, subject: str | None, pairs: list[str] | None, on: str | None, data_pairs: list[str] | None
) -> Any:
    """Run a study on data, or on the model of a run."""
    from leadline.cli.loading import loaded
    from leadline.cli.values import assigned, options_after
    from leadline.core import OptionError
    from leadline.training import open_run

    of_data = "data" in study.needs
    given = ("data",) if of_data else ("model", "data")
    known = options_after(study.run, given if study.needs else ())
    options = assigned(pairs, known, f"option of {study.name}", "--set")
    if not study.needs:
        if subject is not None or on is not None:
            raise OptionError(f"{study.name} needs no data and no run: leadline study {study.name}")
        return study(**options)
    if of_data:
        source = on or subject
        if source is None and signature(study.run).parameters["data"].default is Parameter.empty:
            raise OptionError(f"{study.name} needs data: leadline study {study.name} DATA")
        return study(*([] if source is None else [loaded(source, data_pairs)]), **options)
    if "function" in study.needs and (subject is None or "model" not in study.needs):
        return study(**({} if subject is None else {"function": subject}) | options)
    if subject is None:
        raise OptionError(f"{study.name} needs {_subject_of(study)}: leadline study {study.name} RUN")
    run = open_run(subject)
    return study(run.model, run.load_data() if on is None else loaded(on, data_pairs), **options)


def report(
    run: RunPath,
    out: Annotated[Path | None, typer.Option(help="Where to write [RUN/report.html].")] = None,
    on: Data = None,
    options: DataOptions = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Write one HTML page about a run, to be read without a network.

    Example:
      leadline report runs/a --out report.html
    """
    from leadline.cli.loading import loaded
    from leadline.cli.output import show_document
    from leadline.reports import report as write
    from leadline.training import open_run

    trained = open_run(run)
    data = None if on is None else loaded(on, options)
    path = write(trained, out or run / "report.html", data=data, progress=not (quiet or as_json))
    show_document({"path": str(path), "bytes": path.stat().st_size}) if as_json else typer.echo(f"{path}")


COMMANDS = (verify, study, report)
