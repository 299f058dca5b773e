"""Folders of pictures, in memory or decoded on demand.

Symbols:
    n pictures, k of them in a batch, c channels, h height, w width.
"""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from leadline.core import DataError, Images, OptionError
from leadline.data.assemble import kept
from leadline.data.dataset import Split, Stream
from leadline.data.folder import listed
from leadline.data.found import Ask, Found, Part
from leadline.data.memory import allowance
from leadline.data.pictures import DAMAGE, Head, decoded, head, mark

__all__ = ["Pictures", "read_images"]

CHUNK = 64
MOST_THREADS = 8


@dataclass(frozen=True)
class Pictures(Stream):
    """Pictures that are decoded when they are asked for, several at once.

    Args:
        root: The folder.
        files: Paths below it.
        domain: The size and the channels that every picture is brought to.
        crop: Whether pictures of another size are cropped at the centre and resized.
    """

    root: Path
    files: tuple[str, ...]
    domain: Images
    crop: bool

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: Tensor) -> Tensor:
        """Return the pictures at `index` (k,) -> (k, c, h, w) uint8.

        Raises:
            DataError: If a file cannot be decoded.
        """
        x, bad = self.decoded(index)
        for place, what in bad.values():
            raise DataError(f"{place}: {what}; mend it, or leave it out with skip_bad=True (--skip-bad)")
        return x

    def decoded(self, index: Tensor) -> tuple[Tensor, dict[int, tuple[str, str]]]:
        """Return the pictures at `index` (k, c, h, w), and the bad ones by place: file, fault."""
        rows = index.reshape(-1).tolist()
        out = torch.zeros(len(rows), *self.domain.shape, dtype=torch.uint8)
        bad: dict[int, tuple[str, str]] = {}
        size = (self.domain.channels, self.domain.height, self.domain.width)

        def one(place: int) -> None:
            path = self.root / self.files[rows[place]]
            try:
                out.numpy()[place] = decoded(path, *size, crop=self.crop)
            except DAMAGE as error:
                bad[place] = (str(path), f"cannot be decoded ({error})")

        list(_pool(os.getpid()).map(one, range(len(rows))))
        return out, dict(sorted(bad.items()))

    def digest(self) -> bytes:
        """Return a hash of the names and the contents of the files."""
        total = hashlib.sha256()
        marks = _pool(os.getpid()).map(mark, [self.root / file for file in self.files])
        for file, content in zip(self.files, marks, strict=True):
            total.update(file.encode() + b"\0" + content)
        return total.digest()

    def select(self, index: Tensor) -> "Pictures":
        """Return the stream of the pictures at `index` (k,)."""
        return Pictures(self.root, tuple(self.files[i] for i in index.tolist()), self.domain, self.crop)


def read_images(
    path: Path,
    ask: Ask,
    *,
    size: int | str | Sequence[int] | None = None,
    channels: int | None = None,
    stream: bool | None = None,
    memory: str | int | None = None,
) -> Found:
    """Return the pictures of a folder; `leadline.data.folder` says how it is laid out.

    Args:
        path: A folder of PNG, JPEG, WebP or BMP files.
        ask: What every reader is asked.
        size: Pixels of a side, or "HEIGHTxWIDTH": each picture is cut at its centre to that aspect
            and resized. Without it all pictures must have one size.
        channels: 1 for grey, 3 for colour; else colour if any file has colour.
        stream: Whether pictures are decoded on demand; else if they do not fit into memory.
        memory: What they may take, such as "2GB"; a quarter of the available memory by default.

    Raises:
        DataError: If there are no pictures, or they differ in size and `size` was not given.
        OptionError: If an option is out of range.
    """
    if channels not in (None, 1, 3):
        raise OptionError(f"channels must be 1 (grey) or 3 (colour), got {channels}")
    goal, there = None if size is None else _sides(size), listed(path, ask.faults)
    y = {split: torch.tensor(row) for split, row in there.y.items()} if there.y else {}
    index = kept({split: len(files) for split, files in there.files.items()}, y, ask)
    heads = {
        split: _heads(path, [there.files[split][i] for i in rows.tolist()], ask)
        for split, rows in index.items()
    }
    every = [(file, item) for found in heads.values() for file, item in found.items()]
    if not every:
        raise DataError(f"{path}: no picture can be read")
    sides = goal or _one_size(path, every)
    domain = Images(channels or max(item.channels for _, item in every), *sides)
    fits = len(every) * domain.dims <= allowance(memory)
    streamed = not fits if stream is None else stream
    parts = {}
    for split, found in heads.items():
        pictures = Pictures(path, tuple(found), domain, goal is not None)
        labels = dict(zip(there.files[split], y[split].tolist(), strict=True)) if split in y else None
        parts[split] = _part(pictures, labels, ask, streamed=streamed)
    classes = there.classes if y else None
    return Found(path.name, parts, lambda train: domain, classes, chosen={"stream": streamed})


@lru_cache(maxsize=1)
def _pool(process: int) -> ThreadPoolExecutor:
    """Return the threads that decode in this process; a forked one makes its own."""
    return ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1), "leadline-decode")


def _sides(size: int | str | Sequence[int]) -> tuple[int, int]:
    """Return height and width.

    Raises:
        OptionError: If `size` is neither a side nor a height and a width.
    """
    text = "x".join(str(side) for side in size) if isinstance(size, (list, tuple)) else str(size)
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    height, width = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not (0 < height <= 1 << 14 and 0 < width <= 1 << 14):
        raise OptionError(f'size must be pixels of a side, or "HEIGHTxWIDTH", got {size!r}')
    return height, width


def _heads(root: Path, files: list[str], ask: Ask) -> dict[str, Head]:
    """Return what each good file says of itself."""
    found = {}
    for file in files:
        try:
            found[file] = head(root / file)
        except DAMAGE as error:
            ask.faults.bad([str(root / file)], f"cannot be read ({error})")
    return found


def _one_size(root: Path, every: list[tuple[str, Head]]) -> tuple[int, int]:
    """Return the height and width that all pictures have.

    Raises:
        DataError: If they differ; one of each of two sizes is named.
    """
    sizes = Counter((item.height, item.width) for _, item in every)
    usual = sizes.most_common(1)[0][0]
    for file, item in every:
        if (item.height, item.width) != usual:
            raise DataError(
                f"{root / file}: is {item.width}x{item.height}, but most pictures are {usual[1]}x{usual[0]} "
                f"({len(sizes)} sizes in all); give size=, such as size={min(usual)}"
            )
    return usual


def _part(pictures: Pictures, labels: dict[str, int] | None, ask: Ask, *, streamed: bool) -> Part:
    """Return the good pictures of a split; all are decoded now if they are kept, or to find bad ones."""
    good = list(range(len(pictures)))
    x: Tensor | Pictures = pictures
    if not streamed:
        x = torch.empty(len(pictures), *pictures.domain.shape, dtype=torch.uint8)
    if not streamed or ask.faults.skip:
        for start in range(0, len(pictures), CHUNK):
            index = torch.arange(start, min(start + CHUNK, len(pictures)))
            batch, bad = pictures.decoded(index)
            for place, what in bad.values():
                ask.faults.bad([place], what)
            good = [i for i in good if i - start not in bad]
            if isinstance(x, Tensor):
                x[start : start + len(index)] = batch
    pictures = pictures.select(torch.tensor(good, dtype=torch.long))
    if isinstance(x, Tensor) and len(good) < len(x):
        x = x[torch.tensor(good)]
    y = None if labels is None else torch.tensor([labels[file] for file in pictures.files], dtype=torch.long)
    return Part(
        Split(x if isinstance(x, Tensor) else pictures, y), lambda i: str(pictures.root / pictures.files[i])
    )
