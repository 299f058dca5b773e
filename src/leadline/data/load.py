"""From a name or a path to a data set, by one table of sources."""

import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from leadline.core import DataError, OptionError
from leadline.core.errors import nearest, unknown_name
from leadline.data.arrays import holds_arrays, read_arrays
from leadline.data.assemble import assembled, converted
from leadline.data.corpora import (
    holds_bags,
    holds_documents,
    read_bags,
    read_documents,
    read_windows_or_lines,
)
from leadline.data.dataset import Dataset
from leadline.data.embedded import EMBEDDED, read_embedded
from leadline.data.found import Ask, Faults, Found
from leadline.data.idx import holds_idx, read_idx
from leadline.data.images import read_images
from leadline.data.packed import holds_packed, read_packed
from leadline.data.sounds import holds_sounds, read_sounds
from leadline.data.tables import holds_table, read_table
from leadline.data.text import holds_text

__all__ = ["SOURCES", "Source", "load"]


@dataclass(frozen=True)
class Source:
    """A kind of source.

    Args:
        name: What messages call it.
        fits: Return whether a path that exists is of this kind.
        read: Return what is there; its keyword-only arguments are the options of the source.
    """

    name: str
    fits: Callable[[Path], bool]
    read: Callable[..., Found]

    @property
    def options(self) -> tuple[str, ...]:
        """Return the names of the options that only this kind of source has."""
        parameters = inspect.signature(self.read).parameters.values()
        return tuple(item.name for item in parameters if item.kind is item.KEYWORD_ONLY)


SOURCES: tuple[Source, ...] = (
    Source("an embedded name", lambda path: path.name in EMBEDDED, read_embedded),
    Source("a file of IDX (MNIST)", holds_idx, read_idx),
    Source("a corpus (.dat, .ldac, .mtx, sparse .npz)", holds_bags, read_bags),
    Source("packed clips of sound (.npz)", holds_packed, read_packed),
    Source("a file of arrays (.npz, .npy)", holds_arrays, read_arrays),
    Source("a text (.txt)", holds_text, read_windows_or_lines),
    Source("a table (.csv, .tsv, .parquet)", holds_table, read_table),
    Source("a folder of sounds (.wav)", holds_sounds, read_sounds),
    Source("a folder of texts, or a .cor file", holds_documents, read_documents),
    Source("a folder of pictures", Path.is_dir, read_images),
)
COMMON = ("seed", "labels", "limit", "binarize", "vectors", "convert", "skip_bad")


def load(
    name_or_path: str | Path,
    *,
    seed: int = 0,
    labels: str | None = None,
    limit: int | None = None,
    binarize: bool | float | None = None,
    vectors: bool = False,
    skip_bad: bool = False,
    **options: Any,
) -> Dataset:
    """Return the data set of an embedded name, a file or a folder.

    Args:
        name_or_path: "digits", "iris", "wine", "breast-cancer"; a folder of pictures, of sounds, of texts or
            of IDX files; a .npz, .npy, .csv, .tsv, .parquet, .txt, .dat, .ldac, .mtx or .cor file.
        seed: What the splits, and every other choice of samples, are a pure function of.
        labels: "5 per class" or "10%" hides the other training labels; "none" drops all labels.
        limit: Most samples to keep in all, every class in proportion.
        binarize: A threshold, or True for the middle: the data become Bits.
        vectors: Whether the data become real Vectors.
        skip_bad: Whether bad samples are left out and counted; else the first one stops the reading.
        **options: Options of the kind of source, such as `size=` of pictures, and `convert=`, a list
            of the steps "binarize", "binarize:THRESHOLD" and "vectors".

    Raises:
        DataError: If the source does not hold what it should; file and row are named.
        OptionError: If it is no name or path, or an option is unknown or out of range.

    Example:
        >>> load("digits").domain
        Images(channels=1, height=8, width=8, levels=17)
    """
    if not isinstance(name_or_path, (str, Path)):
        kind = type(name_or_path).__name__
        raise OptionError(
            f"load takes a name or a path, not {kind}: from_arrays(x, y) makes a data set of arrays in memory"
        )
    if limit is not None and limit < 1:
        raise OptionError(f"limit must be at least 1, got {limit}")
    source, place = _source(str(name_or_path))
    own = {key: value for key, value in options.items() if key != "convert"}
    for key, value in own.items():
        _check_option(source, key, value)
    for file in ("test", "vocab", "stop_words"):
        if isinstance(own.get(file), str) and not (file == "stop_words" and _names_words(own[file])):
            own[file] = str(_beside(Path(place), file, str(own[file])))
    ask = Ask(seed, limit, Faults(skip_bad))
    try:
        found = source.read(place, ask, **own)
    except OSError as error:
        raise DataError(f"{error.filename or place}: {error.strerror or error}") from error
    data = assembled(found, ask, labels)
    steps = (
        []
        if binarize is None or binarize is False
        else ["binarize" if binarize is True else f"binarize:{binarize}"]
    )
    data = converted(data, [*steps, *(["vectors"] if vectors else []), *options.get("convert", [])])
    given = own | found.chosen | {"labels": labels, "limit": limit, "convert": data.options.get("convert")}
    given |= {"skip_bad": skip_bad or None, "seed": seed or None}
    return replace(data, source=str(place), options=_plain(given))


def _source(name: str) -> tuple[Source, str | Path]:
    """Return the kind of source of a name or a path, and the name or the absolute path.

    Raises:
        DataError: If there is nothing of that name, or nothing that can be read.
    """
    if name in EMBEDDED:
        return SOURCES[0], name
    path = Path(name).expanduser().resolve()
    if not path.exists():
        beside = [item.name for item in path.parent.iterdir()] if path.parent.is_dir() else []
        hint = nearest(path.name, [*EMBEDDED, *beside])
        raise DataError(
            f"{name}: no such file or folder, and no embedded data set{hint}; those are {_embedded()}"
        )
    for kind in SOURCES[1:]:
        if kind.fits(path):
            return kind, path
    raise DataError(f"{name}: {_unreadable(path)}; known are {', '.join(source.name for source in SOURCES)}")


def _check_option(source: Source, key: str, value: object) -> None:
    """Check that a source has an option, and that the value is of its type.

    Raises:
        OptionError: If not.
    """
    if key not in source.options:
        raise unknown_name(f"option of {source.name}", key, [*COMMON, *source.options])
    hint = get_type_hints(source.read)[key]
    kinds = [
        get_origin(kind) or kind for kind in (get_args(hint) if isinstance(hint, UnionType) else (hint,))
    ]
    truth = isinstance(value, bool) and bool not in kinds
    if truth or not isinstance(value, tuple(kinds)):
        raise OptionError(
            f"{key}={value!r} should be {hint if isinstance(hint, UnionType) else hint.__name__}"
        )


def _names_words(text: str) -> bool:
    """Return whether stop words are given by themselves and not by a file."""
    return text == "english" or "," in text


def _beside(path: Path, option: str, name: str) -> Path:
    """Return another file by its path, or by its name beside `path`.

    Raises:
        DataError: If there is none.
    """
    for file in (Path(name).expanduser().resolve(), path.parent / name):
        if file.is_file():
            return file
    hint = nearest(Path(name).name, [item.name for item in path.parent.iterdir()])
    other = "; or give true for English ones, or words with commas between" if option == "stop_words" else ""
    raise DataError(f"{option}={name!r}: no such file{hint}{other}")


def _embedded() -> str:
    return ", ".join(EMBEDDED)


def _unreadable(path: Path) -> str:
    """Return why no kind of source fits a path that exists."""
    if not path.is_dir():
        return f'files that end in "{path.suffix}" are not read'
    held = sorted(item.name for item in path.iterdir())
    return (
        f"the folder holds nothing that can be read (first: {', '.join(held[:3])})"
        if held
        else "the folder is empty"
    )


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that were given, as JSON would give them back.

    Raises:
        OptionError: If one of them is not made of numbers, texts and lists.
    """
    try:
        return json.loads(
            json.dumps({key: value for key, value in options.items() if value is not None}, default=str)
        )
    except (TypeError, ValueError) as error:
        raise OptionError(f"options must be numbers, texts or lists of them: {error}") from error
