"""Commands that use a trained model, one a verb: predict, sample, score, encode, decode."""

from pathlib import Path
from typing import Annotated

import typer

from leadline.cli.flags import Files, Json, Out, RunPath, Seed, VerbOptions

__all__ = ["COMMANDS", "decode", "encode", "predict", "sample", "score"]


def predict(  # noqa: PLR0913
    run: RunPath,
    files: Files,
    crops: Annotated[
        int | None,
        typer.Option(help="Mean over 1, 5 or 10 crops of each picture (centre, corners, mirrored)."),
    ] = None,
    flip: Annotated[bool, typer.Option("--flip", help="Mean over mirror images of pictures too.")] = False,
    crop_size: Annotated[
        int | None, typer.Option(help="Side of a crop in pixels [the model's own, or 7/8 of the picture].")
    ] = None,
    picture_size: Annotated[
        int | None,
        typer.Option(
            min=1, help="Shorter side at which pictures are read before they are cut [the model's]."
        ),
    ] = None,
    options: VerbOptions = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Predict classes with their probabilities, or targets, as CSV.

    Example:
      leadline predict runs/a new.csv --out predictions.csv
      leadline predict runs/a photos --crops 10 --json
      leadline predict runs/a photos --crops 10 --picture-size 256
    """
    from leadline.cli.loading import answered
    from leadline.cli.output import write_records
    from leadline.core import Classes

    cut = crops is not None or flip or crop_size is not None or picture_size is not None
    views = {"crops": 1 if crops is None else crops, "flip": flip, "size": crop_size} if cut else None
    trained, told, names = answered(run, "predict", files, options, views, picture_size)
    labels = trained.labels
    columns = labels.names if labels is not None else tuple(f"y{i}" for i in range(told.shape[1]))
    if isinstance(labels, Classes):
        rows = [
            {"sample": name, "class": columns[int(p.argmax())], "probability": float(p.max())}
            | {f"p({column})": value for column, value in zip(columns, p.tolist(), strict=True)}
            for name, p in zip(names, told.exp(), strict=True)
        ]
    else:
        rows = [
            {"sample": name} | dict(zip(columns, row, strict=True))
            for name, row in zip(names, told.tolist(), strict=True)
        ]
    write_records(rows, out, as_json=as_json)


def sample(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="Directory of a run, written by fit, or a .bif or .uai file."),
    ],
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="Number of samples.")] = 64,
    seed: Seed = 0,
    evidence: Annotated[
        list[str] | None,
        typer.Option(help="What is known, of a graphical model, e.g. CVP=LOW,BP=HIGH; may be given again."),
    ] = None,
    options: VerbOptions = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Draw samples: pictures as one PNG or a folder, text as text, rows as CSV.

    Example:
      leadline sample runs/a -n 64 --seed 1 --out samples.png
      leadline sample runs/lm -n 3 --set temperature=0.8
      leadline sample alarm.bif -n 5000 --evidence CVP=LOW --out rows.csv
    """
    from leadline.cli.loading import drawn
    from leadline.cli.output import SAMPLES, check_ending, write_samples

    check_ending(out, SAMPLES)
    domain, x = drawn(run, count, seed, options, evidence)
    write_samples(domain, x, out, default=run / "samples.png", as_json=as_json)


def score(
    run: RunPath, files: Files, options: VerbOptions = None, out: Out = None, as_json: Json = False
) -> None:
    """Score samples by their log-likelihood, as CSV; the mean and its kind go to stderr.

    Example:
      leadline score runs/a new.csv --out scores.csv
    """
    from math import log

    from leadline.cli.loading import answered
    from leadline.cli.output import note, show_document, write_records
    from leadline.core import Density, mean_quantity

    trained, told, names = answered(run, "log_prob", files, options)
    about = getattr(trained.model, "density", None) or Density()
    dims = trained.domain.dims
    rows = [
        {"sample": name, "log_prob": value, "bits_per_dim": -value / (dims * log(2))}
        for name, value in zip(names, told.tolist(), strict=True)
    ]
    mean = mean_quantity(
        told, unit="nats", kind=about.kind, shared_stderr=about.stderr, protocol=about.protocol
    )
    if as_json and out is None:
        show_document({"mean": mean.to_json(), "scores": rows})
        return
    write_records(rows, out, as_json=as_json)
    bits = mean.scaled(-1 / (dims * log(2)), "bits/dim")
    note(f"mean of {len(rows)}: {mean} a sample, {bits} ({about.kind})")


def encode(
    run: RunPath, files: Files, options: VerbOptions = None, out: Out = None, as_json: Json = False
) -> None:
    """Write the codes of samples: .npz, .npy or CSV.

    Example:
      leadline encode runs/a photos --out codes.npz
    """
    from leadline.cli.loading import answered
    from leadline.cli.output import write_codes

    _, told, names = answered(run, "encode", files, options)
    write_codes(told, names, out, as_json=as_json)


def decode(
    run: RunPath,
    codes: Annotated[Path, typer.Argument(metavar="CODES", help="What encode wrote: .npz, .npy or CSV.")],
    options: VerbOptions = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Decode codes to samples: pictures as one PNG or a folder, text as text, rows as CSV.

    Example:
      leadline encode runs/a photos --out codes.npz
      leadline decode runs/a codes.npz --out decoded.png
    """
    from leadline.cli.loading import decoded
    from leadline.cli.output import write_samples

    trained, x = decoded(run, codes, options)
    write_samples(trained.domain, x, out, default=run / "decoded.png", as_json=as_json)


COMMANDS = (predict, sample, score, encode, decode)
