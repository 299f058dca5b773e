"""Clips of sound packed into one .npz: all waveforms one after another, and what is known of each.

Symbols:
    n clips, total samples of all clips together.
"""

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from leadline.core import Audio, DataError, Ragged
from leadline.data.dataset import Split
from leadline.data.found import Ask, Found, Part, numbered
from leadline.data.groups import arranged
from leadline.data.meaning import Array, labels_of
from leadline.data.npy import read_npz

__all__ = ["clips_in", "holds_packed", "read_packed"]

KEYS: dict[str, tuple[str, ...]] = {
    "x": ("audio",),
    "offsets": ("offsets",),
    "rate": ("rate",),
    "label": ("label",),
    "speaker": ("speaker",),
    "speakers": ("speakers",),
    "index": ("index",),
    "classes": ("classes",),
}
OFFICIAL = "index<5"


def holds_packed(path: Path) -> bool:
    """Return whether `path` is a .npz archive with arrays `audio` and `offsets`."""
    if path.suffix != ".npz" or not path.is_file():
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return {"audio.npy", "offsets.npy"} <= set(archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False


def read_packed(
    path: Path, ask: Ask, *, split: str | None = None, held: str | Sequence[str] | None = None
) -> Found:
    """Return the clips of a .npz with `audio`, `offsets` and `rate`, perhaps `label`, `speaker`, `index`.

    Args:
        path: The file. `speaker` holds numbers into `speakers`, or names.
        ask: What every reader is asked.
        split: "speaker" keeps each speaker whole, "index<5" tests on the first recordings of each,
            "random" on any; by default "index<5" where there is an `index`, as the spoken digits say.
        held: Names of the speakers to test on, with commas between; a tenth of them by default.

    Raises:
        DataError: If arrays do not fit together, or a clip holds no sound.
    """
    clips, domain, arrays = clips_in(path)
    fields = _fields(path, arrays, len(clips))
    y, classes = None, None
    if "label" in arrays:
        named = [str(item) for item in arrays["classes"]] if "classes" in arrays else None
        numbers, classes, _ = labels_of(_one_each(path, "label", arrays, len(clips)), path.name, named)
        y = torch.from_numpy(numbers)
    good = (clips.lengths > 0).nonzero().flatten()
    empty = (clips.lengths == 0).nonzero().flatten().tolist()
    ask.faults.bad([f"{path.name}, clip {row}" for row in empty], "holds no sound")
    rows = good.tolist()
    part = Part(Split(clips, y), numbered(path.name, "clip"))
    if empty:
        part = Part(part.data.select(good), lambda i: f"{path.name}, clip {rows[i]}")
    kept = {name: [values[i] for i in rows] for name, values in fields.items()}
    usual = "speaker" if held else OFFICIAL if "index" in fields else None
    parts = arranged(part, kept, split or usual, held, ask.seed)
    return Found(path.stem, parts, lambda train: domain, classes)


def clips_in(path: Path) -> tuple[Ragged, Audio, dict[str, Array]]:
    """Return the clips of a file, what they are, and its other arrays.

    Raises:
        DataError: If arrays are missing or do not fit together.
    """
    arrays = read_npz(path, KEYS)
    audio, offsets, rate = arrays["x"], arrays.get("offsets"), arrays.get("rate")
    if offsets is None or rate is None:
        raise DataError(f"{path}: packed clips need the arrays audio, offsets and rate")
    if rate.size != 1 or rate.dtype.kind not in "iuf" or not float(rate.reshape(-1)[0]).is_integer():
        raise DataError(f"{path}: rate must be one whole number, samples a second")
    if audio.ndim != 1 or not (audio.dtype == np.int16 or audio.dtype.kind == "f"):
        raise DataError(f"{path}: audio must be int16 or floats (total,), got {audio.dtype} {audio.shape}")
    whole = offsets.ndim == 1 and offsets.dtype.kind in "iu" and len(offsets) > 1
    steps = offsets.astype(np.int64) if whole else np.zeros(0, np.int64)
    if not whole or steps[0] != 0 or steps[-1] != len(audio) or (np.diff(steps) < 0).any():
        raise DataError(f"{path}: offsets must rise from 0 to {len(audio)}, the number of samples")
    encoding = "int16" if audio.dtype == np.int16 else "float32"
    values = audio if encoding == "int16" else audio.astype(np.float32)
    if not np.isfinite(values).all():
        row = int(np.searchsorted(steps, int((~np.isfinite(values)).argmax()), side="right")) - 1
        raise DataError(f"{path}, clip {row}: holds a number that is not finite")
    domain = Audio(int(rate.reshape(-1)[0]), encoding)
    return Ragged(torch.from_numpy(np.ascontiguousarray(values)), torch.from_numpy(steps)), domain, arrays


def _fields(path: Path, arrays: dict[str, Array], n: int) -> dict[str, list[str]]:
    """Return what is known of each clip as texts: the speaker's name, the number of the recording."""
    fields: dict[str, list[str]] = {
        name: [str(value) for value in _one_each(path, name, arrays, n).tolist()]
        for name in ("speaker", "index")
        if name in arrays
    }
    if "speakers" in arrays and "speaker" in fields:
        names = [str(name) for name in arrays["speakers"].tolist()]
        numbers = arrays["speaker"]
        if numbers.dtype.kind not in "iu" or int(numbers.min()) < 0 or int(numbers.max()) >= len(names):
            raise DataError(f"{path}: speaker must hold numbers into the {len(names)} names of speakers")
        fields["speaker"] = [names[int(i)] for i in numbers]
    return fields


def _one_each(path: Path, name: str, arrays: dict[str, Array], n: int) -> Array:
    """Return an array that must hold one value a clip."""
    if arrays[name].shape != (n,):
        raise DataError(f'{path}: array "{name}" has the shape {arrays[name].shape}, but there are {n} clips')
    return arrays[name]
