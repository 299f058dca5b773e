"""Commands that look before anything is trained: models, data."""

from typing import Annotated

import typer

from leadline.cli.flags import DataOptions, Json

__all__ = ["COMMANDS", "data", "models"]


def models(
    name: Annotated[str | None, typer.Argument(metavar="[MODEL]", help="A name of the list.")] = None,
    as_json: Json = False,
) -> None:
    """List the models, or the options of one.

    Example:
      leadline models
      leadline models vae
    """
    from leadline.catalog import CATALOG, model_class, options_of
    from leadline.cli.output import show_document, show_table
    from leadline.cli.values import plain_values
    from leadline.core import verbs_of

    if name is None:
        rows = [
            {
                "model": key,
                "family": entry.family,
                "verbs": " ".join(verbs_of(model_class(key))),
                "summary": entry.summary,
                "source": entry.source,
            }
            for key, entry in CATALOG.items()
        ]
        show_document(rows) if as_json else show_table([{k: r[k] for k in list(r)[:4]} for r in rows])
        return
    kind = model_class(name)
    entry = CATALOG[name]
    options = [
        dict(zip(("option", "takes", "default"), row, strict=True)) for row in plain_values(options_of(name))
    ]
    if as_json:
        show_document(
            {
                "model": name, "family": entry.family, "summary": entry.summary, "source": entry.source,
                "verbs": list(verbs_of(kind)), "options": options,
            }
        )  # fmt: skip
        return
    typer.echo(f"{name}: {entry.summary} ({entry.source})")
    typer.echo(f"verbs: {', '.join(verbs_of(kind))}")
    typer.echo(f"options (--set NAME=VALUE):{'' if options else ' none'}")
    show_table(options)


def data(
    source: Annotated[
        str | None, typer.Argument(metavar="[DATA]", help="A built-in name, a file or a folder.")
    ] = None,
    options: DataOptions = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out samples that are broken.")] = False,
    as_json: Json = False,
) -> None:
    """Describe data: what a sample is, splits, classes, problems; or list what can be read.

    Example:
      leadline data digits
      leadline data ./photos --data size=32 --skip-bad
    """
    from leadline.cli.output import show_document

    if source is None:
        _list_sources(as_json=as_json)
        return
    from leadline.cli.loading import loaded
    from leadline.data import describe

    found = describe(loaded(source, options, skip_bad=skip_bad))
    show_document(found.to_json()) if as_json else typer.echo(str(found))


def _list_sources(*, as_json: bool) -> None:
    from leadline.cli.loading import load_options
    from leadline.cli.output import show_document, show_table
    from leadline.cli.values import plain_values
    from leadline.data.embedded import EMBEDDED

    files = {
        "folder": "pictures; sub-folders are classes",
        "folder of .wav": "sounds; sub-folders are classes, or --data label={label}_{speaker}.wav",
        ".npz .npy": "arrays x, y, x_test, y_test",
        ".csv .parquet": "rows of a table; --data target=COLUMN names the label",
        ".txt": "text; --data level=char or word",
        "idx files": "MNIST-style, gzipped or not: a file or their folder",
    }
    options = [
        dict(zip(("option", "takes", "default"), r, strict=True)) for r in plain_values(load_options())
    ]
    if as_json:
        show_document({"built in": sorted(EMBEDDED), "files": files, "options": options})
        return
    typer.echo(f"built in: {', '.join(sorted(EMBEDDED))}\n")
    show_table([{"files": key, "read as": value} for key, value in files.items()])
    typer.echo("\noptions (--data NAME=VALUE):")
    show_table(options)


COMMANDS = (models, data)
