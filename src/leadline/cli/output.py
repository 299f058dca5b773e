"""What the commands print and write: tables, JSON, CSV, arrays, pictures, texts."""

import csv
import io
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
from torch import Tensor

from leadline.core import Categories, Domain, OptionError, Table, Tokens
from leadline.training.files import whole_file

__all__ = [
    "FIGURES",
    "FINDINGS",
    "SAMPLES",
    "check_ending",
    "note",
    "plain",
    "records_of",
    "show_document",
    "show_table",
    "write_codes",
    "write_figure",
    "write_finding",
    "write_records",
    "write_samples",
]

ARRAYS = (".npy", ".npz")
PICTURES = (".png",)
FIGURES = (".png", ".svg")
FINDINGS = (".json", ".csv", ".png", ".gif", ".html")
SAMPLES = ("", ".npz", ".npy", ".png", ".csv", ".json", ".txt")
_MOST_PICTURES = 10_000


def note(text: str) -> None:
    """Tell the user something beside the output, on stderr."""
    sys.stderr.write(f"{text}\n")


def plain(value: Any) -> Any:
    """Return a value as JSON holds it: a number that is not finite becomes None."""
    if isinstance(value, Tensor):
        return plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int, bool)):
        return value
    item = getattr(value, "item", None)
    return plain(item()) if callable(item) else str(value)


def show_document(value: Any) -> None:
    """Print one JSON document."""
    typer.echo(json.dumps(plain(value), allow_nan=False, ensure_ascii=False))


def show_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows as columns of text, numbers to the right."""
    if not rows:
        return
    names = list(rows[0])
    cells = [[_cell(row.get(name)) for name in names] for row in rows]
    widths = [max(len(line[i]) for line in [names, *cells]) for i in range(len(names))]
    right = [all(isinstance(row.get(name), (int, float, type(None))) for row in rows) for name in names]
    for line in [names, *cells]:
        parts = [
            text.rjust(w) if r else text.ljust(w) for text, w, r in zip(line, widths, right, strict=True)
        ]
        typer.echo("  ".join(parts).rstrip())


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("\n", " ")


def records_of(frame: Any) -> list[dict[str, Any]]:
    """Return the rows of a pandas table as dictionaries, its index first where that has a name."""
    shown = frame.reset_index() if frame.index.name is not None else frame
    return [
        dict(zip((str(c) for c in shown.columns), row, strict=True)) for row in shown.itertuples(index=False)
    ]


def write_records(rows: Sequence[Mapping[str, Any]], out: Path | None, *, as_json: bool = False) -> None:
    """Write rows as CSV, or as one JSON document, to a file or to stdout."""
    if as_json and out is None:
        show_document(list(rows))
        return
    if as_json or (out is not None and out.suffix == ".json"):
        text = json.dumps(plain(list(rows)), indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    else:
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(list(rows[0]) if rows else [])
        writer.writerows([row.values() for row in rows])
        text = buffer.getvalue()
    if out is None:
        typer.echo(text, nl=False)
        return
    with whole_file(out) as temporary:
        temporary.write_text(text, encoding="utf-8")
    note(f"wrote {out} ({len(rows)} rows)")


def write_codes(codes: Tensor, names: Sequence[str], out: Path | None, *, as_json: bool) -> None:
    """Write codes (n, D) as .npz, .npy, .json or CSV."""
    if out is not None and out.suffix in ARRAYS:
        _write_array(out, {"codes": codes, "sample": list(names)})
        return
    flat = codes.flatten(1).tolist()
    width = len(str(max(len(flat[0]) - 1, 0))) if flat else 1
    rows = [
        {"sample": name} | {f"z{i:0{width}}": value for i, value in enumerate(code)}
        for name, code in zip(names, flat, strict=True)
    ]
    write_records(rows, out, as_json=as_json)


def write_samples(domain: Domain, x: Tensor, out: Path | None, *, default: Path, as_json: bool) -> None:
    """Write raw samples (n, *shape) in the form that suits the domain and the ending of `out`.

    Pictures become one PNG, or a folder of them where `out` has no ending; text and tables go to
    stdout without `out`; pictures then go to `default`.

    Raises:
        OptionError: If the ending fits no form of these samples.
    """
    if as_json and out is None:
        show_document({"domain": str(domain), "samples": x.tolist()})
        return
    if out is None:
        out = default if domain.planes else None
    suffix = "" if out is None else out.suffix.lower()
    if out is not None and suffix in ARRAYS:
        _write_array(out, {"x": x})
    elif out is not None and domain.planes and suffix in ("", *PICTURES):
        _write_pictures(domain, x, out)
    elif suffix in ("", ".csv", ".json", ".txt"):
        _write_rows(domain, x, out, as_text=suffix == ".txt" or (out is None and isinstance(domain, Tokens)))
    else:
        fits = [".npz", ".npy", *([".png", "a folder"] if domain.planes else [".txt"]), ".csv", ".json"]
        raise OptionError(f"--out {out}: samples of {domain} are written as {', '.join(fits)}")


def _write_rows(domain: Domain, x: Tensor, out: Path | None, *, as_text: bool) -> None:
    """Write samples as CSV or JSON with named columns, or as text, one after the other."""
    if not as_text:
        write_records([_record(domain, sample) for sample in x], out)
        return
    text = "\n----\n".join(domain.show(sample) for sample in x) + "\n"
    if out is None:
        typer.echo(text, nl=False)
        return
    with whole_file(out) as temporary:
        temporary.write_text(text, encoding="utf-8")
    note(f"wrote {out} ({len(x)} samples)")


def _record(domain: Domain, sample: Tensor) -> dict[str, Any]:
    """Return one sample as named values, as a file of the data would hold them."""
    if isinstance(domain, Tokens):
        return {"text": domain.show(sample)}
    if isinstance(domain, Table):
        split = domain.reals.dims
        return _record(domain.reals, sample[:split]) | _record(domain.categories, sample[split:])
    values = sample.flatten().tolist()
    names = domain.names or [f"x{i}" for i in range(len(values))]
    if isinstance(domain, Categories) and domain.values:
        values = [known[int(value)] for known, value in zip(domain.values, values, strict=True)]
    elif isinstance(domain, Categories):
        values = [int(value) for value in values]
    return dict(zip(names, values, strict=True))


def check_ending(out: Path | None, endings: Sequence[str]) -> None:
    """Check what a file is to be called before the work that would fill it.

    Raises:
        OptionError: If it has none of the endings.
    """
    if out is not None and out.suffix.lower() not in endings:
        raise OptionError(f"--out {out}: its name must end in {', '.join(filter(None, endings))}")


def write_figure(figure: Any, out: Path) -> None:
    """Write a figure, as one of `FIGURES`."""
    from leadline.reports.drawing import png_bytes, svg_bytes

    data = png_bytes(figure) if out.suffix.lower() == ".png" else svg_bytes(figure)
    with whole_file(out) as temporary:
        temporary.write_bytes(data)
    note(f"wrote {out}")


def write_finding(finding: Any, out: Path) -> None:
    """Write what a study found as .json, its table as .csv, its figure as .png, moving as .gif or .html.

    Raises:
        OptionError: If the ending is none of these.
    """
    if out.suffix == ".json":
        data = (json.dumps(plain(finding.to_json()), indent=1, ensure_ascii=False) + "\n").encode()
    elif out.suffix == ".csv":
        data = finding.table.to_csv(index=False).encode()
    elif out.suffix == ".png":
        from leadline.reports.drawing import png_bytes

        data = png_bytes(finding.figure)
    elif out.suffix in (".gif", ".html") and finding.animate is not None:
        data = finding.animate(finding, out.suffix)
    else:
        raise OptionError(f"--out {out}: {finding.study} is written as .json, .csv (table) or .png (figure)")
    with whole_file(out) as temporary:
        temporary.write_bytes(data)
    note(f"wrote {out}")


def _write_array(out: Path, arrays: Mapping[str, Any]) -> None:
    import numpy as np

    held: dict[str, Any] = {name: np.asarray(value) for name, value in arrays.items()}
    first = next(iter(held.values()))
    with whole_file(out) as temporary, temporary.open("wb") as file:
        if out.suffix == ".npy":
            np.save(file, first, allow_pickle=False)
        else:
            np.savez_compressed(file, **held)
    note(f"wrote {out} {first.shape}")


def _write_pictures(domain: Domain, x: Tensor, out: Path) -> None:
    from leadline.reports.pictures import grid_png, picture_png

    if out.suffix:
        with whole_file(out) as temporary:
            temporary.write_bytes(grid_png(domain, x))
    else:
        width = len(str(max(len(x) - 1, 0)))
        for number, sample in enumerate(x):
            with whole_file(out / f"{number:0{width}}.png") as temporary:
                temporary.write_bytes(picture_png(domain, sample))
    note(f"wrote {out} ({len(x)} pictures)")
