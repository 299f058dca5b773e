"""What files a folder of pictures, sounds or texts holds: sub-folders are classes and splits.

The rules: sub-folders `train`, `valid` (or `val`, `validation`) and `test` are given splits; below
them, or below the folder itself, each sub-folder is a class with all files in it and under it; a
file that lies beside class folders has no known label; without class folders there are no labels.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from leadline.core import DataError
from leadline.data.found import Faults

__all__ = ["SUFFIXES", "Listed", "listed"]

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
SPLITS = {"train": "train", "valid": "valid", "val": "valid", "validation": "valid", "test": "test"}
UNKNOWN = -1


@dataclass(frozen=True)
class Listed:
    """The pictures, sounds or texts of a folder.

    Args:
        files: Paths below the folder, by split, in the order of their names.
        y: Class numbers beside them; None if there are no classes.
        classes: The names of the classes, sorted.
    """

    files: dict[str, list[str]]
    y: dict[str, list[int]] | None
    classes: tuple[str, ...]


def listed(
    root: Path, faults: Faults, suffixes: tuple[str, ...] = SUFFIXES, kind: str = "pictures"
) -> Listed:
    """Return the files of a folder whose names end in one of `suffixes`; messages call them `kind`.

    Raises:
        DataError: If there are none, or splits are given without `train`.
    """
    if not any(root.iterdir()):
        raise DataError(f"{root}: the folder is empty")
    folders = sorted(item for item in root.iterdir() if item.is_dir() and not item.name.startswith("."))
    given = {item.name: SPLITS[item.name.lower()] for item in folders if item.name.lower() in SPLITS}
    homes = given if "train" in given.values() else {"": "train"}
    found: dict[str, list[str]] = {}
    others: list[str] = []
    for home, split in homes.items():
        if split in found:
            raise DataError(f"{root}: two folders give the {split} split; keep one")
        found[split] = []
        for file in _files(root, root / home, faults):
            (found[split] if Path(file).suffix.lower() in suffixes else others).append(file)
        if not found[split]:
            raise DataError(f"{root / home}: holds no {kind} ({', '.join(suffixes)})")
    if others:
        faults.note(f"{root}: {len(others)} files are no {kind} and were not read (first: {others[0]})")
    depth = 1 if homes is given else 0
    names = {split: [_class(file, depth) for file in files] for split, files in found.items()}
    classes = tuple(sorted({name for split in names.values() for name in split if name}))
    numbers = {name: i for i, name in enumerate(classes)}
    y = {split: [numbers.get(name, UNKNOWN) for name in row] for split, row in names.items()}
    return Listed(found, y if classes else None, classes)


def _class(file: str, depth: int) -> str:
    """Return the class folder of a file below `depth` folders of splits, or an empty string."""
    parts = Path(file).parts
    return parts[depth] if len(parts) > depth + 1 else ""


def _files(root: Path, home: Path, faults: Faults) -> Iterator[str]:
    """Give the visible files below `home` by their paths below `root`, sorted; a folder is entered once."""
    entered: set[tuple[int, int]] = set()
    for folder, inner, files in os.walk(home, followlinks=True):
        mark = Path(folder).stat()
        if (mark.st_dev, mark.st_ino) in entered:
            faults.note(f"{folder}: is a link to a folder that was read already; it was not entered again")
            inner.clear()
            continue
        entered.add((mark.st_dev, mark.st_ino))
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and name != "Thumbs.db":
                yield str((Path(folder) / name).relative_to(root))
