"""Arrays of numpy: .npz and .npy files, pairs of them, and arrays in memory."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from leadline.core import Bits, Counts, DataError, Domain
from leadline.data.assemble import assembled
from leadline.data.bags import Bags
from leadline.data.dataset import Dataset, Split
from leadline.data.found import Ask, Found, Part, vectors_of
from leadline.data.matrices import holds_sparsely, matrix_of
from leadline.data.meaning import Array, Meaning, labels_of, meaning_of
from leadline.data.npy import read_npy, read_npz

__all__ = ["found_arrays", "from_arrays", "holds_arrays", "read_arrays"]

KEYS = {
    "x": ("x", "X", "x_train", "X_train", "train_images", "images", "data"),
    "y": ("y", "y_train", "train_labels", "labels", "target", "targets"),
    "x_valid": ("x_valid", "x_val", "X_valid", "X_val", "val_images"),
    "y_valid": ("y_valid", "y_val", "val_labels"),
    "x_test": ("x_test", "X_test", "test_images"),
    "y_test": ("y_test", "test_labels"),
    "classes": ("classes", "class_names", "target_names"),
    "columns": ("columns", "feature_names"),
}
SUFFIXES = (".npz", ".npy")
PARTS = {"train": "", "valid": "_valid", "test": "_test"}


def holds_arrays(path: Path) -> bool:
    """Return whether `path` is a .npz or .npy file, or a folder that holds one."""
    if path.is_dir():
        return any(item.suffix in SUFFIXES for item in path.iterdir())
    return path.suffix in SUFFIXES


def read_arrays(
    path: Path,
    ask: Ask,
    *,
    test: str | None = None,
    kind: str | None = None,
    layout: str | None = None,
    levels: int | None = None,
    task: str | None = None,
) -> Found:
    """Return the samples and labels of a file, or of a folder with one file or a train and a test file.

    Args:
        path: A .npz with `x` and perhaps `y`, `x_test`, `y_test`, `x_valid`, `y_valid`, `classes`; a .npy
            of samples; or a folder with NAME_train.npz and NAME_test.npz, or with x.npy, y.npy, ....
        ask: What every reader is asked.
        test: Another file, whose samples are the test split.
        kind: "images", "bits", "vectors", "categories", "counts" or "tokens"; else from type and shape.
        layout: "NCHW", "NHWC", "NHW", or "CxHxW" of flat rows such as "1x28x28".
        levels: Number of levels of a pixel, 256 by default.
        task: "classification" or "regression"; else integers and texts are classes.
    """
    name, arrays = path.name, _folder(path) if path.is_dir() else _file(path)
    if test is not None:
        extra = _file(Path(test).expanduser().resolve())
        arrays |= {f"{key}_test": extra[key] for key in ("x", "y") if key in extra}
    elif not path.is_dir() and "x_test" not in arrays:
        beside = path.with_name(path.name.replace("train", "test"))
        if beside != path and beside.exists():
            ask.faults.note(
                f'{path.name}: {beside.name} lies beside it; test="{beside.name}" makes it the test split'
            )
    means = meaning_of(arrays["x"], name, kind, layout, levels)
    return replace(found_arrays(arrays, means, ask, name=name, task=task), name=path.stem)


def found_arrays(
    arrays: dict[str, Array], means: Meaning, ask: Ask, name: str, task: str | None = None
) -> Found:
    """Return what arrays by the names `x`, `y`, `x_test`, ... hold, when `x` means `means`.

    Raises:
        DataError: If shapes do not agree, or a sample is not finite.
    """
    if means.note:
        ask.faults.note(means.note)
    held = {part: end for part, end in PARTS.items() if f"x{end}" in arrays}
    named = {part: name if part == "train" else f"{name} ({part})" for part in held}
    for part, end in held.items():
        _agree(arrays, end, named[part])
    y, classes, targets = _labels(arrays, held, name, task)
    parts = {}
    for part, end in held.items():
        good = _finite(arrays[f"x{end}"], named[part], ask)
        x = arrays[f"x{end}"] if good is None else arrays[f"x{end}"][good]
        labels = y.get(part) if good is None or part not in y else y[part][torch.from_numpy(good)]
        try:
            parts[part] = Part(Split(means.tensor(x), labels), _places(named[part], good))
        except DataError as error:
            raise DataError(f"{named[part]}, {error}") from None
    return Found(name, parts, _domain(arrays, means, parts), classes, targets)


def from_arrays(
    x: Any,
    y: Any = None,
    *,
    domain: Domain | None = None,
    x_test: Any = None,
    y_test: Any = None,
    classes: Sequence[str] | None = None,
    name: str = "arrays",
    seed: int = 0,
) -> Dataset:
    """Return the data set of arrays or tensors in memory, split like a file without or with a test part.

    Args:
        x: Samples (n, *shape). A sparse matrix of scipy, or a sparse tensor, holds counts of words
            (documents, words) and stays sparse; `domain=Counts(words)` names the words.
        y: Labels: integers or texts (n,) are classes, -1 unknown; real numbers (n,) or (n, D) are targets.
        domain: What a sample is; else it follows from type and shape as for a .npz file.
        x_test: Samples of a given test split.
        y_test: Their labels.
        classes: Names of the classes.
        name: Short name.
        seed: What the splits are a pure function of.

    Raises:
        DataError: If arrays do not fit together, or a value is not of the domain.
    """
    given = {"x": x, "y": y, "x_test": x_test, "y_test": y_test, "classes": classes}
    ask = Ask(seed)
    if holds_sparsely(x):
        return assembled(_bags(given, domain, name, ask), ask)
    arrays = {key: _array(value, f"{name}: {key}") for key, value in given.items() if value is not None}
    if domain is None:
        return assembled(found_arrays(arrays, meaning_of(arrays["x"], name), ask, name), ask)
    found = found_arrays(arrays, Meaning("as it is"), ask, name)
    for part in found.parts.values():
        if isinstance(part.data.x, Tensor):
            domain.validated(part.data.x)
    parts = {
        key: Part(Split(part.data.x.to(domain.dtype), part.data.y), part.place)
        for key, part in found.parts.items()
        if isinstance(part.data.x, Tensor)
    }
    return assembled(replace(found, parts=parts, domain=lambda train: domain), ask)


def _bags(given: dict[str, Any], domain: Domain | None, name: str, ask: Ask) -> Found:
    """Return the documents of sparse counts of words, by the names that `from_arrays` calls its arrays.

    Raises:
        DataError: If parts do not fit together, or a value is no count.
    """
    counts = {
        key: matrix_of(given[key], f"{name}: {key}") for key in ("x", "x_test") if given[key] is not None
    }
    arrays = {
        key: _array(value, f"{name}: {key}")
        for key, value in given.items()
        if value is not None and key not in counts
    }
    arrays |= {
        key: np.broadcast_to(np.int8(0), each.shape) for key, each in counts.items()
    }  # for their shapes
    held = {part: end for part, end in PARTS.items() if f"x{end}" in counts}
    for part, end in held.items():
        _agree(arrays, end, name if part == "train" else f"{name} ({part})")
    y, classes, targets = _labels(arrays, held, name, None)
    size = counts["x"].shape[1]
    words = domain if isinstance(domain, Counts) else Counts(tuple(str(i) for i in range(size)))
    if domain is not None:
        words.require(type(domain))
    if words.dims != size:
        raise DataError(f"{name}: x has {size} words, but the domain has {words.dims}")
    bags = {part: Bags.of(counts[f"x{end}"]) for part, end in held.items()}
    empty, total = (
        sum(int((np.diff(one.starts) == 0).sum()) for one in bags.values()),
        sum(map(len, bags.values())),
    )
    if empty == total:
        raise DataError(f"{name}: no document holds a word")
    if empty:
        ask.faults.note(f"{name}: {empty} of {total} documents hold none of the words")
    parts = {part: Part(Split(one, y.get(part)), _places(name, None)) for part, one in bags.items()}
    return Found(name, parts, lambda train: words, classes, targets)


def _array(value: Any, name: str) -> Array:
    """Return an array of a tensor, an array or a list."""
    array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
    if array.dtype.hasobject:
        raise DataError(f"{name} holds Python objects; give numbers or texts")
    return array


def _file(path: Path) -> dict[str, Array]:
    """Return the arrays of one file."""
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    return read_npz(path, KEYS) if path.suffix == ".npz" else {"x": read_npy(path)}


def _folder(path: Path) -> dict[str, Array]:
    """Return the arrays of x.npy, y.npy, ... or of one data set in .npz files.

    Raises:
        DataError: If the folder holds several data sets.
    """
    loose = {item.stem: item for item in path.glob("*.npy")}
    found = {
        key: read_npy(loose[next(name for name in names if name in loose)])
        for key, names in KEYS.items()
        if any(name in loose for name in names)
    }
    if "x" in found:
        return found
    files = sorted(item for item in path.iterdir() if item.suffix in SUFFIXES)
    trains = [item for item in files if "test" not in item.stem]
    if len(trains) != 1:
        names = ", ".join(item.name for item in files[:8])
        raise DataError(f"{path}: holds {len(trains)} data sets ({names}); give one of the files, and test=")
    arrays = _file(trains[0])
    tests = [
        item for item in files if item.stem == trains[0].stem.replace("train", "test") and item != trains[0]
    ]
    for test in tests[:1]:
        extra = _file(test)
        arrays |= {f"{key}_test": extra[key] for key in ("x", "y") if key in extra}
    return arrays


def _agree(arrays: dict[str, Array], end: str, name: str) -> None:
    """Check that a part has a label for each sample, and samples like those of train."""
    x, y = arrays[f"x{end}"], arrays.get(f"y{end}")
    if x.ndim == 0 or len(x) == 0:
        raise DataError(f"{name}: x has the shape {x.shape}: there are no samples")
    if x.shape[1:] != arrays["x"].shape[1:]:
        raise DataError(f"{name}: samples of shape {x.shape[1:]}, those of train are {arrays['x'].shape[1:]}")
    if y is not None and (y.ndim == 0 or len(y) != len(x)):
        raise DataError(f"{name}: {len(x)} samples but labels of shape {y.shape}; give one label a sample")


def _labels(
    arrays: dict[str, Array], held: dict[str, str], name: str, task: str | None
) -> tuple[dict[str, Tensor], tuple[str, ...] | None, tuple[str, ...] | None]:
    """Return the labels of each part, by one table of classes; unknown where a part has none."""
    given = [part for part, end in held.items() if f"y{end}" in arrays]
    if not given:
        return {}, None, None
    classes = [str(item) for item in arrays["classes"]] if "classes" in arrays else None
    y, names, targets = labels_of(
        np.concatenate([arrays[f"y{held[part]}"] for part in given]), name, classes, task
    )
    sizes = [len(arrays[f"x{held[part]}"]) for part in given]
    labels = dict(zip(given, torch.from_numpy(y).split(sizes), strict=True))
    for part, end in held.items():
        if part not in labels:
            shape = (len(arrays[f"x{end}"]), *y.shape[1:])
            labels[part] = torch.from_numpy(np.full(shape, np.nan if targets else -1, dtype=y.dtype))
    return labels, names, targets


def _finite(x: Array, name: str, ask: Ask) -> Array | None:
    """Return the numbers of the samples that are finite in float32, or None if all are."""
    if x.dtype.kind != "f":
        return None
    with np.errstate(over="ignore"):
        bad = ~np.isfinite(x.astype(np.float32)).reshape(len(x), -1)
    rows = np.flatnonzero(bad.any(1))
    if len(rows) == 0:
        return None
    column = int(bad[rows[0]].argmax())
    what = f"value {column} is {x[rows[0]].flat[column]}, not a finite float32 number"
    ask.faults.bad([f"{name}, sample {row}" for row in rows], what)
    good = np.flatnonzero(~bad.any(1))
    if len(good) == 0:
        raise DataError(f"{name}: no sample is finite")
    return good


def _places(name: str, good: Array | None) -> Callable[[int], str]:
    """Return the function that names a sample by its number in the file."""
    return lambda i: f"{name}, sample {i if good is None else int(good[i])}"


def _domain(arrays: dict[str, Array], means: Meaning, parts: dict[str, Part]) -> Callable[[Split], Domain]:
    """Return the function that makes the domain; what categories there are follows from all parts."""
    samples = [part.data.x for part in parts.values() if isinstance(part.data.x, Tensor)]
    names, size = tuple(str(item) for item in arrays.get("columns", np.arange(0))), samples[0][0].numel()
    if means.kind == "vectors":
        return vectors_of(names if len(names) == size else tuple(f"x{i}" for i in range(size)))
    domain = means.domain(samples)
    if isinstance(domain, Bits) and len(names) == size:
        domain = replace(domain, columns=names)
    return lambda train: domain
