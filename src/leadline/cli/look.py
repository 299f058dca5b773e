"""Commands that look before anything is trained: models, data."""

import re
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from leadline.cli.flags import DataOptions, Json, ModelOptions

__all__ = ["COMMANDS", "data", "models"]


def models(
    name: Annotated[str | None, typer.Argument(metavar="[MODEL]", help="A name of the list.")] = None,
    cost: Annotated[bool, typer.Option("--cost", help="Say what a classifier costs instead.")] = False,
    size: Annotated[
        str, typer.Option("--input", metavar="CxHxW", help="Channels, height and width of a picture.")
    ] = "3x224x224",
    batch: Annotated[int, typer.Option(help="Samples of a batch.")] = 8,
    classes: Annotated[int, typer.Option(help="Number of classes.")] = 1000,
    options: ModelOptions = None,
    as_json: Json = False,
) -> None:
    """List the models, or the options of one, or what it costs on pictures of a size.

    Example:
      leadline models
      leadline models vae
      leadline models resnet50 --cost --input 3x224x224 --batch 8
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
    if cost:
        _show_cost(name, size, batch, classes, options, as_json=as_json)
        return
    kind = model_class(name)
    entry = CATALOG[name]
    rows = plain_values(options_of(name), kind.for_data, kind)  # type: ignore[attr-defined]
    if as_json:
        show_document(
            {
                "model": name, "family": entry.family, "summary": entry.summary, "source": entry.source,
                "verbs": list(verbs_of(kind)), "fixed": dict(entry.fixed), "options": rows,
            }
        )  # fmt: skip
        return
    typer.echo(f"{name}: {entry.summary} ({entry.source})")
    typer.echo(f"verbs: {', '.join(verbs_of(kind))}")
    typer.echo(f"options (--set NAME=VALUE):{'' if rows else ' none'}")
    _show_options(rows)


def _show_cost(
    name: str, size: str, batch: int, classes: int, pairs: list[str] | None, *, as_json: bool
) -> None:
    """Print what a model costs."""
    from dataclasses import asdict

    from leadline.catalog import options_of
    from leadline.cli.output import show_document
    from leadline.cli.values import assigned
    from leadline.core import Images, OptionError
    from leadline.measures.cost import model_cost

    sides = re.fullmatch(r"(\d{1,5})x(\d{1,5})x(\d{1,5})", size)
    if sides is None or "0" in sides.groups():
        raise OptionError(f"--input {size}: give CHANNELSxHEIGHTxWIDTH, e.g. 3x224x224")
    options: dict[str, Any] = assigned(pairs, options_of(name), f"option of {name}", "--set")
    domain = Images(*(int(side) for side in sides.groups()))
    found = model_cost(name, domain, classes=classes, batch=batch, **options)
    if as_json:
        show_document({"model": name, "input": size, "classes": classes, **asdict(found)})
        return
    typer.echo(f"{name} on {size} pictures of {classes} classes, batches of {batch}, float32")
    for what, value, how in (
        ("parameters", f"{found.parameters:,}", ""),
        ("multiply-adds", _counted(found.multiply_adds), "a picture, in convolutions and products"),
        ("activations", _counted(found.activations), "numbers a picture, that those give"),
        ("predicting", f"{_counted(found.inference_bytes)}B", "peak, weights included"),
        ("training", f"{_counted(found.training_bytes)}B", "peak, gradients and optimiser included"),
    ):
        typer.echo(f"  {what:<14}{value:>14}  {how}".rstrip())
    typer.echo(
        "memory is that of tensors alive at once, worked out by shapes; kernels and libraries add theirs"
    )


def _counted(number: int) -> str:
    """Return a number in thousands, millions or thousands of millions."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3f} {letter}"
    return f"{number} "


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

    found = describe(loaded(source, options, skip_bad=skip_bad, tell=False))
    show_document(found.to_json()) if as_json else typer.echo(str(found))


def _list_sources(*, as_json: bool) -> None:
    from leadline.cli.loading import load_options
    from leadline.cli.output import show_document, show_table
    from leadline.cli.values import plain_values
    from leadline.data import load
    from leadline.data.assemble import converted
    from leadline.data.embedded import EMBEDDED
    from leadline.data.load import SOURCES

    files = {
        "folder": "pictures; sub-folders are classes",
        "folder of .wav": "sounds; sub-folders are classes, or --data label={label}_{speaker}.wav",
        ".npz .npy": "arrays x, y, x_test, y_test",
        ".csv .parquet": "rows of a table; --data target=COLUMN names the label",
        ".txt": "text; --data level=char or word",
        "idx files": "MNIST-style, gzipped or not: a file or their folder",
    }
    options = plain_values(load_options(), load, *(source.read for source in SOURCES), converted)
    if as_json:
        show_document({"built in": sorted(EMBEDDED), "files": files, "options": options})
        return
    typer.echo(f"built in: {', '.join(sorted(EMBEDDED))}\n")
    show_table([{"files": key, "read as": value} for key, value in files.items()])
    typer.echo("\noptions (--data NAME=VALUE):")
    _show_options(options)


def _show_options(rows: Sequence[Mapping[str, str]]) -> None:
    """Print options with their defaults and what each takes, and below it what it means."""
    width = min(shutil.get_terminal_size((100, 24)).columns, 110)
    for row in rows:
        typer.echo(f"  {row['option']}={row['default']}  ({row['takes']})")
        for line in textwrap.wrap(row["meaning"], width - 6):
            typer.echo(f"      {line}")


COMMANDS = (models, data)
