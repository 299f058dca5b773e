"""Commands that judge: verify, study, report."""

from pathlib import Path
from typing import Annotated, Any

import typer

from leadline.cli.flags import DataOptions, Json, RunPath, Seed

__all__ = ["COMMANDS", "report", "verify"]

Data = Annotated[
    str | None, typer.Option("--on", metavar="DATA", help="Data to judge on, if not those of the run.")
]


def verify(
    run: RunPath, on: Data = None, options: DataOptions = None, seed: Seed = 0, as_json: Json = False
) -> None:
    r"""Say which laws a trained model obeys; exit status 1 if it breaks one.

    \b
    Example:
      leadline verify runs/a
    """
    from leadline.cli.output import show_document
    from leadline.laws import verify as judge
    from leadline.training import open_run

    trained = open_run(run)
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


def report(
    run: RunPath,
    out: Annotated[Path | None, typer.Option(help="Where to write [RUN/report.html].")] = None,
    on: Data = None,
    options: DataOptions = None,
    as_json: Json = False,
) -> None:
    r"""Write one HTML page about a run, to be read without a network.

    \b
    Example:
      leadline report runs/a --out report.html
    """
    from leadline.cli.loading import loaded
    from leadline.cli.output import show_document
    from leadline.report import report as write
    from leadline.training import open_run

    trained = open_run(run)
    data = None if on is None else loaded(on, options)
    path = write(trained, out or run / "report.html", data=data)
    show_document({"path": str(path), "bytes": path.stat().st_size}) if as_json else typer.echo(f"{path}")


COMMANDS = (verify, report)
