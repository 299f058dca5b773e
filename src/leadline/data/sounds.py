"""Folders of .wav files, in memory or decoded on demand.

Symbols:
    n clips, k of them in a batch.
"""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from leadline.core import Audio, DataError, OptionError, Ragged
from leadline.data.dataset import Split, Stream
from leadline.data.folder import SUFFIXES as PICTURES
from leadline.data.folder import Listed, listed
from leadline.data.found import Ask, Found, Part
from leadline.data.groups import arranged
from leadline.data.memory import allowance
from leadline.data.pictures import mark
from leadline.data.wave import BROKEN, Header, decoded, header

__all__ = ["SOUNDS", "Waves", "holds_sounds", "read_sounds", "sounds_below"]

SOUNDS = (".wav", ".wave")


@dataclass(frozen=True)
class Waves(Stream):
    """Clips that are decoded when they are asked for.

    Args:
        root: The folder.
        files: Paths below it.
        domain: The rate and the encoding that every clip is brought to.
        sizes: Samples of each clip, as it is decoded.
    """

    root: Path
    files: tuple[str, ...]
    domain: Audio
    sizes: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: Tensor) -> Tensor:
        """Return the clips at `index` (k,) as a Ragged.

        Raises:
            DataError: If a file cannot be decoded.
        """
        rows = []
        for place in index.reshape(-1).tolist():
            try:
                rows.append(decoded(self.root / self.files[place], self.domain))
            except BROKEN as error:
                raise DataError(
                    f"{self.root / self.files[place]}: cannot be decoded ({error}); mend it, or leave it "
                    "out with skip_bad=True (--skip-bad)"
                ) from error
        return Ragged.of(rows or torch.zeros(0, 0, dtype=self.domain.dtype))

    @property
    def lengths(self) -> Tensor:
        """Return the samples of each clip, (n,)."""
        return torch.tensor(self.sizes)

    def digest(self) -> bytes:
        """Return a hash of the names and the contents of the files."""
        total = hashlib.sha256(repr(self.domain).encode())
        for file in self.files:
            total.update(file.encode() + b"\0" + mark(self.root / file))
        return total.digest()

    def select(self, index: Tensor) -> "Waves":
        """Return the stream of the clips at `index` (k,)."""
        rows = index.tolist()
        files, sizes = tuple(self.files[i] for i in rows), tuple(self.sizes[i] for i in rows)
        return Waves(self.root, files, self.domain, sizes)


def holds_sounds(path: Path) -> bool:
    """Return whether `path` is a .wav file, or a folder whose first sound or picture is a sound."""
    if not path.is_dir():
        return path.suffix.lower() in SOUNDS
    for _, _, files in os.walk(path, followlinks=False):
        for name in sorted(files):
            if Path(name).suffix.lower() in (*SOUNDS, *PICTURES):
                return Path(name).suffix.lower() in SOUNDS
    return False


def sounds_below(path: Path) -> list[Path]:
    """Return a .wav file itself, or all below a folder, sorted."""
    if not path.is_dir():
        return [path]
    return sorted(item for item in path.rglob("*") if item.suffix.lower() in SOUNDS)


def read_sounds(
    path: Path,
    ask: Ask,
    *,
    label: str | None = None,
    split: str | None = None,
    held: str | Sequence[str] | None = None,
    rate: int | None = None,
    stream: bool | None = None,
    memory: str | int | None = None,
) -> Found:
    """Return the clips of a folder of .wav files, laid out as `leadline.data.folder` says.

    Args:
        path: The folder. PCM of 8, 16, 24 or 32 bits and floats are read; channels are averaged.
        ask: What every reader is asked.
        label: What a file's name tells, such as "{label}_{speaker}_{index}.wav", or a regular expression
            with named groups; a pattern with "/" is held against the path below the folder. The field
            `label` is the class; without it the sub-folder is.
        split: A field of the pattern whose groups stay whole, such as "speaker"; "index<5" tests on the
            files whose field is below; "random". By default sub-folders train and test, else random.
        held: Groups of that field ("speaker" by default) to test on, with commas between; a tenth of
            them if not given.
        rate: Samples a second that clips are resampled to; without it all must have one rate.
        stream: Whether clips are decoded on demand; else if they do not fit into memory.
        memory: What they may take, such as "2GB"; a quarter of the available memory by default.

    Raises:
        DataError: If there are no clips, or their rates differ and `rate` was not given.
        OptionError: If an option is out of range.
    """
    if not path.is_dir():
        raise DataError(f"{path}: one clip is no data set; give the folder of the .wav files")
    there = listed(path, ask.faults, SOUNDS, "sounds")
    told = {side: _told(path, files, label, ask) for side, files in there.files.items()}
    heads = {side: _heads(path, list(named), ask) for side, named in told.items()}
    every = {file: item for found in heads.values() for file, item in found.items()}
    if not every:
        raise DataError(f"{path}: no sound can be read")
    domain = _domain(path, every, rate, ask)
    size = sum(item.length_at(domain.rate) for item in every.values()) * domain.dtype.itemsize
    streamed = size > allowance(memory) if stream is None else stream
    named = _labels(there, told)
    classes = tuple(sorted({name for row in named.values() for name in row.values() if name}))
    numbers = {name: i for i, name in enumerate(classes)}
    parts = {}
    for side, found in heads.items():
        y = {file: numbers.get(named[side][file], -1) for file in found} if classes else None
        parts[side] = _part(path, found, domain, y, ask, streamed=streamed)
    split = split or ("speaker" if held else None)
    if split is not None:
        if len(parts) > 1:
            raise OptionError(f"split={split}: the folder gives its own train and test; drop split=")
        parts = _arranged(parts["train"], path, told["train"], split, held, ask)
    return Found(path.name, parts, lambda train: domain, classes or None, chosen={"stream": streamed})


def _pattern(label: str) -> re.Pattern[str]:
    """Return the regular expression of a pattern with fields in braces, or of one written as such.

    Raises:
        OptionError: If it is none, or names no field.
    """
    text = label
    if "(?P<" not in label:
        pieces = re.split(r"\{(\w+)\}", label)
        text = "".join(
            f"(?P<{piece}>[^/]+?)" if i % 2 else re.escape(piece) for i, piece in enumerate(pieces)
        )
        text += "" if Path(label).suffix.lower() in SOUNDS else r"\.[wW][aA][vV][eE]?"
    try:
        found = re.compile(text)
    except re.error as error:
        raise OptionError(f"label={label!r} is no pattern ({error})") from None
    if not found.groupindex:
        raise OptionError(f'label={label!r} names no field; write it as "{{label}}_{{speaker}}.wav"')
    return found


def _told(root: Path, files: list[str], label: str | None, ask: Ask) -> dict[str, dict[str, str]]:
    """Return what the name of each file tells, by field; files that the pattern does not fit are bad."""
    if label is None:
        return {file: {} for file in files}
    pattern = _pattern(label)
    matches = {file: pattern.fullmatch(file if "/" in label else Path(file).name) for file in files}
    bad = [str(root / file) for file, match in matches.items() if match is None]
    ask.faults.bad(bad, f"its name does not fit label={label!r}")
    return {file: match.groupdict("") for file, match in matches.items() if match is not None}


def _labels(there: Listed, told: dict[str, dict[str, dict[str, str]]]) -> dict[str, dict[str, str]]:
    """Return the class name of each file, empty where unknown: from its name, else from its folder."""
    found = {}
    for side, fields in told.items():
        row = there.y[side] if there.y else [-1] * len(there.files[side])
        folders = dict(zip(there.files[side], row, strict=True))
        found[side] = {
            file: known.get("label", there.classes[folders[file]] if folders[file] >= 0 else "")
            for file, known in fields.items()
        }
    return found


def _heads(root: Path, files: list[str], ask: Ask) -> dict[str, Header]:
    """Return what each good file says of itself."""
    found = {}
    for file in files:
        try:
            found[file] = header(root / file)
        except BROKEN as error:
            ask.faults.bad([str(root / file)], f"cannot be read ({error})")
    return found


def _domain(root: Path, every: dict[str, Header], rate: int | None, ask: Ask) -> Audio:
    """Return what a clip is: one rate, and 16 bits unless a file holds more.

    Raises:
        DataError: If rates differ and none was asked for.
    """
    rates = Counter(item.rate for item in every.values())
    usual = rates.most_common(1)[0][0]
    if len(rates) > 1 and rate is None:
        odd = next(file for file, item in every.items() if item.rate != usual)
        raise DataError(
            f"{root / odd}: has {every[odd].rate} samples a second, but most files have {usual} "
            f"({len(rates)} rates in all); give rate=, such as rate={usual}, to resample"
        )
    changed = sum(count for found, count in rates.items() if rate not in (None, found))
    if changed:
        ask.faults.note(f"{root}: {changed} of {len(every)} clips were resampled to {rate} samples a second")
    small = all(item.encoding == "int16" for item in every.values())
    return Audio(usual if rate is None else rate, "int16" if small else "float32")


def _part(
    root: Path, found: dict[str, Header], domain: Audio, y: dict[str, int] | None, ask: Ask, *, streamed: bool
) -> Part:
    """Return the good clips of a split; all are decoded now if they are kept, or to find bad ones."""
    rows: dict[str, Tensor] = {}
    good = list(found)
    if not streamed or ask.faults.skip:
        good = []
        for file, clip in _decoded(root, list(found), domain, ask):
            good.append(file)
            if not streamed:
                rows[file] = clip
    sizes = tuple(found[file].length_at(domain.rate) for file in good)
    x = Waves(root, tuple(good), domain, sizes) if streamed else Ragged.of(list(rows.values()))
    labels = None if y is None else torch.tensor([y[file] for file in good], dtype=torch.long)
    return Part(Split(x, labels), lambda i: str(root / good[i]))


def _decoded(root: Path, files: list[str], domain: Audio, ask: Ask) -> Iterator[tuple[str, Tensor]]:
    """Give each good file with its clip."""
    for file in files:
        try:
            yield file, decoded(root / file, domain)
        except BROKEN as error:
            ask.faults.bad([str(root / file)], f"cannot be decoded ({error})")


def _arranged(
    part: Part,
    root: Path,
    told: dict[str, dict[str, str]],
    split: str,
    held: str | Sequence[str] | None,
    ask: Ask,
) -> dict[str, Part]:
    """Return the parts that a split by a field of the names makes."""
    known = {str(root / file): fields for file, fields in told.items()}
    rows = [known[part.place(i)] for i in range(len(part.data))]
    names = list(rows[0]) if rows else []
    return arranged(part, {name: [row[name] for row in rows] for name in names}, split, held, ask.seed)
