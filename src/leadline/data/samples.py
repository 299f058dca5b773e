"""New samples for an old domain: files read as the data that a model learned from were read.

Vocabularies, columns, sizes and levels are those of the domain, never those of the new files.

Symbols:
    n samples, d columns.
"""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix, hstack
from torch import Tensor

from leadline.core import (
    Audio,
    Bits,
    Categories,
    Counts,
    DataError,
    Domain,
    Images,
    LeadlineError,
    Ragged,
    ShapeError,
    Table,
    Tokens,
    Vectors,
)
from leadline.core.errors import nearest, require_extra
from leadline.data.arrays import KEYS, holds_arrays
from leadline.data.assemble import converted
from leadline.data.corpora import bags_of_file, holds_bags, holds_documents, text_documents
from leadline.data.dataset import Dataset, Split
from leadline.data.embedded import EMBEDDED
from leadline.data.found import Ask, Faults
from leadline.data.idx import holds_idx, read_idx
from leadline.data.load import load
from leadline.data.meaning import Array, meaning_of
from leadline.data.npy import read_npy, read_npz
from leadline.data.packed import clips_in, holds_packed
from leadline.data.pictures import DAMAGE, decoded
from leadline.data.rows import MISSING, rows_of
from leadline.data.sounds import holds_sounds, sounds_below
from leadline.data.tables import holds_table
from leadline.data.text import UNKNOWN_TOKEN, coded, holds_text, text_of
from leadline.data.vocabulary import bagged, words_of
from leadline.data.wave import BROKEN
from leadline.data.wave import decoded as heard

__all__ = ["samples_for"]

PICTURES = re.compile(r"\.(png|jpe?g|webp|bmp)$", re.IGNORECASE)
TOP = 255

Read = tuple[Tensor, list[str]]


def samples_for(
    domain: Domain,
    names_or_paths: Sequence[str | Path],
    *,
    source: str = "",
    options: Mapping[str, Any] | None = None,
) -> Read:
    """Return raw samples of `domain` (n, *shape) read from files, and what each is called.

    Args:
        domain: What a sample must be.
        names_or_paths: Pictures, .wav files, folders of them, corpora, .csv, .tsv, .parquet, .npy, .npz,
            IDX or .txt files, or the name of an embedded data set, which stands for its test split.
        source: What the data set of the domain was loaded from.
        options: The options it was loaded with; conversions among them are done again.

    Raises:
        DataError: If a file does not hold such samples; file, row and column are named.
    """
    given = dict(options or {})
    steps = given.pop("convert", None)
    if not names_or_paths:
        raise DataError("give at least one file")
    raw = _raw_domain(source, given) if steps else domain
    parts = [_read(raw, str(name), given) for name in names_or_paths]
    x, names = torch.cat([part for part, _ in parts]), [name for _, called in parts for name in called]
    if steps:
        every = Split(x)
        x = converted(Dataset("new", raw, None, every, every, every), list(steps)).test.x  # type: ignore[assignment]
    try:
        return domain.validated(x), names
    except ShapeError as error:
        row = re.match(r"sample (\d+), (.*)", str(error))
        raise DataError(f"{names[int(row[1])]}, {row[2]}" if row else str(error)) from error


def _raw_domain(source: str, options: dict[str, Any]) -> Domain:
    """Return the domain before conversions.

    Raises:
        DataError: If the data that were converted are gone.
    """
    try:
        return load(source, **options).domain
    except LeadlineError as error:
        raise DataError(
            f"the data were converted before training, and to convert these alike: {error}"
        ) from error


def _read(domain: Domain, name: str, options: Mapping[str, Any]) -> Read:
    """Return the samples of one file, folder or embedded data set."""
    path = Path(name).expanduser()
    if not path.exists():
        if name in EMBEDDED:
            return _embedded(domain, name)
        beside = [item.name for item in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(f"{name}: no such file or folder{nearest(path.name, [*beside, *EMBEDDED])}")
    for fits, read in READERS:
        if fits(path):
            return read(domain, path, options)
    ends = (
        ".png, .jpg, .webp, .bmp, .wav, .csv, .tsv, .parquet, .npy, .npz, .txt, .dat, .ldac, .mtx, .cor, "
        "idx-ubyte"
    )
    raise DataError(f"{name}: cannot be read; files end in {ends}")


def _embedded(domain: Domain, name: str) -> Read:
    data = load(name)
    if data.domain.kind != domain.kind or data.domain.shape != domain.shape:
        raise DataError(f"{name} holds {data.domain}, but {domain} is wanted")
    x = data.test.head(len(data.test)).x[torch.arange(len(data.test))]
    return x, [f"{name}, test sample {i}" for i in range(len(x))]


def _holds_pictures(path: Path) -> bool:
    """Return whether `path` is a picture by its name, or a folder that holds one, however deep."""
    if not path.is_dir():
        return bool(PICTURES.search(path.name))
    return any(PICTURES.search(item.name) for item in path.rglob("*"))


def _pictures(domain: Domain, path: Path, options: Mapping[str, Any]) -> Read:
    """Return pictures as levels of the domain: the brightest is its highest level."""
    if not isinstance(domain, (Images, Bits)) or domain.planes is None:
        raise DataError(f"{path}: is a picture, but {domain} is wanted")
    files = (
        sorted(item for item in path.rglob("*") if PICTURES.search(item.name)) if path.is_dir() else [path]
    )
    levels = domain.levels if isinstance(domain, Images) else 2
    x = np.empty((len(files), *domain.shape), np.uint8)
    for place, file in enumerate(files):
        try:
            shades = decoded(file, *domain.planes, crop="size" in options)
        except DAMAGE as error:
            raise DataError(f"{file}: cannot be read as {domain} ({error})") from error
        x[place] = shades if levels == TOP + 1 else np.rint(shades * ((levels - 1) / TOP)).astype(np.uint8)
    return torch.from_numpy(x), [str(file) for file in files]


def _sounds(domain: Domain, path: Path, options: Mapping[str, Any]) -> Read:
    """Return clips at the rate of the domain, resampled where theirs is another."""
    if not isinstance(domain, Audio):
        raise DataError(f"{path}: is a sound, but {domain} is wanted")
    files, rows = sounds_below(path), []
    for file in files:
        try:
            rows.append(heard(file, domain))
        except BROKEN as error:
            raise DataError(f"{file}: cannot be read as {domain} ({error})") from error
    return Ragged.of(rows), [str(file) for file in files]


def _packed(domain: Domain, path: Path, options: Mapping[str, Any]) -> Read:
    """Return all clips of a packed file, in their order."""
    clips, held, _ = clips_in(path)
    if held != domain:
        raise DataError(f"{path}: holds {held}, but {domain} is wanted")
    return clips, [f"{path}, clip {i}" for i in range(len(clips))]


def _arrays(domain: Domain, path: Path, options: Mapping[str, Any]) -> Read:
    """Return the samples in a .npy or .npz file: all parts of it, in their order."""
    if path.is_dir():
        raise DataError(f"{path}: give the .npz or .npy file itself")
    held = read_npz(path, KEYS) if path.suffix == ".npz" else {"x": read_npy(path)}
    parts = [_meant(domain, held[key], path, options) for key in ("x", "x_valid", "x_test") if key in held]
    x = torch.cat(parts)
    return x, [f"{path}, sample {i}" for i in range(len(x))]


def _meant(domain: Domain, array: Array, path: Path, options: Mapping[str, Any]) -> Tensor:
    """Return an array as raw samples of the domain; one without a row axis is one sample."""
    if array.shape == domain.shape:
        array = array[None]
    levels = domain.levels if isinstance(domain, Images) else None
    if domain.planes is not None:
        layout = options.get("layout") or _layout(domain, array.shape[1:])
        means = meaning_of(array, path.name, domain.kind, layout, levels)
    else:
        means = meaning_of(array, path.name, "vectors" if isinstance(domain, Table) else domain.kind)
    try:
        x = means.tensor(array)
    except DataError as error:
        raise DataError(f"{path}, {error}") from None
    if tuple(x.shape[1:]) != domain.shape:
        raise DataError(f"{path}: samples of shape {tuple(array.shape[1:])}, but {domain} is wanted")
    return x


def _layout(domain: Domain, shape: tuple[int, ...]) -> str | None:
    """Return the order of axes that makes samples of `shape` those of the domain, if that is plain."""
    c, h, w = domain.planes or (0, 0, 0)
    if shape == (c, h, w):
        return "NCHW"
    if shape == (h, w, c):
        return "NHWC"
    return "NHW" if shape == (h, w) else f"{c}x{h}x{w}" if shape == (c * h * w,) else None


def _idx(domain: Domain, path: Path, options: Mapping[str, Any]) -> Read:
    """Return the pictures in IDX files."""
    found = read_idx(path, Ask(), levels=domain.levels if isinstance(domain, Images) else None)
    rows = [(part.data.x, part.place) for part in found.parts.values()]
    x = torch.cat([part for part, _ in rows if isinstance(part, Tensor)])
    return x, [place(i) for part, place in rows for i in range(len(part))]


def _bags(domain: Domain, path: Path, options: Mapping[str, Any]) -> Read:
    """Return the documents of a corpus in the words of the domain; other words are left aside."""
    if not isinstance(domain, Counts):
        raise DataError(f"{path}: is a corpus, but {domain} is wanted")
    place: Callable[[int], str]
    if path.is_dir():
        files = sorted(item for item in path.rglob("*.txt") if item.is_file())
        bags, words = bagged([text_documents(file) for file in files])
        place = lambda i: str(files[i])  # noqa: E731
    elif holds_bags(path):
        transpose = bool(options.get("transpose", False))
        bags, words, place = bags_of_file(path, Faults(), options.get("vocab"), transpose=transpose)
    else:
        lines = [line for line in text_of(path).split("\n") if line.strip()]
        bags, words = bagged([words_of(line) for line in lines])
        place = lambda i: f"{path}, document {i}"  # noqa: E731
    there = {word: number for number, word in enumerate(words)}
    missing = len(words)  # a column of zeros, for words that these documents do not hold
    matrix = hstack([bags.matrix, csr_matrix((len(bags), 1), dtype=np.int64)], format="csr")
    columns = [there.get(word, missing) for word in domain.vocabulary]
    if min(columns) == missing:
        raise DataError(f"{path}: holds none of the {len(columns)} words of {domain}; is vocab= right?")
    return torch.from_numpy(matrix[:, columns].toarray()), [place(i) for i in range(len(bags))]


def _text(domain: Domain, path: Path, options: Mapping[str, Any]) -> Read:
    """Return the windows of a text in the tokens of the domain, without gap or overlap."""
    if isinstance(domain, Counts):
        return _bags(domain, path, options)
    if not isinstance(domain, Tokens):
        raise DataError(f"{path}: is a text, but {domain} is wanted")
    codes, spelt = coded(text_of(path), "word" if domain.joiner else "char")
    count = len(codes) // domain.length
    if not count:
        raise DataError(f"{path}: {len(codes)} tokens do not fill one window of {domain.length}")
    place = {token: number for number, token in enumerate(domain.vocabulary)}
    other = place.get(UNKNOWN_TOKEN, 0)
    kinds, inverse = np.unique(codes[: count * domain.length], return_inverse=True)
    tokens = [chr(kind) if spelt is None else spelt[kind] for kind in kinds.tolist()]
    numbers = np.array([place.get(token, other) for token in tokens], np.int64)[inverse]
    return torch.from_numpy(numbers.reshape(count, domain.length)), [
        f"{path}, window {i}" for i in range(count)
    ]


def _table(domain: Domain, path: Path, options: Mapping[str, Any]) -> Read:
    """Return the rows of a table, its columns found by name; other columns are left aside."""
    if not isinstance(domain, (Vectors, Categories, Table)):
        raise DataError(f"{path}: is a table, but {domain} is wanted")
    frame, places = _frame(path, options)
    columns = _columns_of(domain)
    if not _named(frame) and frame.shape[1] == len(columns):
        frame.columns = list(columns)
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        there = ", ".join(str(name) for name in list(frame.columns)[:12])
        raise DataError(
            f'{path}: has no column "{missing[0]}"; needed are {", ".join(columns[:12])}; there are {there}'
        )
    reals, values_of = _real_columns(domain), _values_of(domain)
    gaps = isinstance(domain, Categories) and domain.missing
    values = [
        _real(frame[name], places)
        if place < reals
        else _category(frame[name], values_of[place - reals], places, gaps=gaps)
        for place, name in enumerate(columns)
    ]
    return torch.stack(values, 1).to(domain.dtype), places


def _frame(path: Path, options: Mapping[str, Any]) -> tuple[Any, list[str]]:
    """Return the fields of a table as texts, and what each row is called."""
    import pandas as pd

    if path.suffix == ".parquet":
        require_extra("pyarrow", "parquet")
        try:
            frame = pd.read_parquet(path).astype(str)
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: cannot be read ({error})") from error
        return frame, [f"{path}, row {i}" for i in range(len(frame))]
    rows = rows_of(path, Faults(), header=options.get("header"))
    frame = pd.read_csv(
        io.BytesIO(rows.data), sep=rows.separator, header=None, skiprows=1 if rows.named else 0,
        dtype=str, keep_default_na=False, skipinitialspace=True, skip_blank_lines=True,
    )  # fmt: skip
    frame.columns = pd.Index(rows.names)
    frame.attrs["named"] = rows.named
    return frame, [f"{path}, row {line}" for line in rows.lines]


def _named(frame: Any) -> bool:
    return bool(frame.attrs.get("named", True))


def _columns_of(domain: Vectors | Categories | Table) -> tuple[str, ...]:
    """Return the names of the columns."""
    if isinstance(domain, Table):
        return _columns_of(domain.reals) + _columns_of(domain.categories)
    return domain.columns or tuple(f"x{i}" for i in range(domain.dims))


def _real_columns(domain: Vectors | Categories | Table) -> int:
    """Return the number of real columns, which come first."""
    if isinstance(domain, Table):
        return domain.reals.dims
    return domain.dims if isinstance(domain, Vectors) else 0


def _real(column: Any, places: list[str]) -> Tensor:
    """Return a column of numbers (n,) float32.

    Raises:
        DataError: If a field is none; row and column are named.
    """
    import pandas as pd

    values = pd.to_numeric(column.str.strip(), errors="coerce").to_numpy(np.float64)
    with np.errstate(over="ignore"):
        bad = ~np.isfinite(values.astype(np.float32))
    if bad.any():
        row = int(bad.argmax())
        text = column.iloc[row].strip()
        what = "a number is missing" if text in MISSING else f"{text!r} is no finite number"
        raise DataError(f'{places[row]}, column "{column.name}": {what}')
    return torch.from_numpy(values.astype(np.float32))


def _values_of(domain: Vectors | Categories | Table) -> list[Sequence[str]]:
    """Return the values of each category column."""
    if isinstance(domain, Vectors):
        return []
    held = domain.categories if isinstance(domain, Table) else domain
    return [held.values[i] if held.values else [str(v) for v in range(n)] for i, n in enumerate(held.sizes)]


def _category(column: Any, known: Sequence[str], places: list[str], *, gaps: bool = False) -> Tensor:
    """Return a column of category numbers (n,) float32; with `gaps` a missing value is -1.

    Raises:
        DataError: If a field is none of the values that were learned from.
    """
    numbers = {value: number for number, value in enumerate(known)}
    fields = list(column.str.strip())
    told = [numbers.get(text, numbers.get(_short(text), -1)) for text in fields]
    wrong = [row for row, code in enumerate(told) if code < 0 and not (gaps and fields[row] in MISSING)]
    if wrong:
        row = wrong[0]
        text = column.iloc[row].strip()
        what = "a value is missing" if text in MISSING else f"unknown value {text!r}{nearest(text, known)}"
        raise DataError(f'{places[row]}, column "{column.name}": {what}; known: {", ".join(known[:12])}')
    return torch.tensor(told, dtype=torch.float32)


def _short(text: str) -> str:
    """Return a whole number without its decimals: 3.0 as 3."""
    return re.sub(r"\.0+$", "", text)


READERS: tuple[tuple[Callable[[Path], bool], Callable[[Domain, Path, Mapping[str, Any]], Read]], ...] = (
    (holds_idx, _idx),
    (holds_idx, _idx),
    (holds_bags, _bags),
    (holds_packed, _packed),
    (holds_arrays, _arrays),
    (holds_table, _table),
    (holds_text, _text),
    (holds_sounds, _sounds),
    (holds_documents, _bags),
    (_holds_pictures, _pictures),
)
