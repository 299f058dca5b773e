"""Arguments and options that several commands share, each written once."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["DataOptions", "Files", "Json", "ModelOptions", "Out", "Quiet", "RunPath", "Seed", "VerbOptions"]

RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="Directory of a run, written by fit.")]
Files = Annotated[
    list[str],
    typer.Argument(
        metavar="FILES",
        help="Pictures, folders, .csv, .parquet, .npy, .npz or .txt files, or the name of built-in data "
        "(its test split).",
    ),
]
ModelOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="NAME=VALUE", help="An option of the model; `leadline models MODEL` lists them."
    ),
]
DataOptions = Annotated[
    list[str] | None,
    typer.Option("--data", metavar="NAME=VALUE", help="An option of the data; `leadline data` lists them."),
]
VerbOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="NAME=VALUE", help="An option of the model's own verb, e.g. temperature=0.8."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
Out = Annotated[Path | None, typer.Option("--out", help="Where to write; the ending says in which form.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of the draws.")]
