"""Text files: windows of characters or of words, in their order.

Symbols:
    n windows.
"""

import gzip
import re
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from leadline.core import DataError, OptionError, Tokens
from leadline.core.memory import available
from leadline.data.dataset import Split
from leadline.data.found import Ask, Found, Part, numbered
from leadline.data.meaning import Array
from leadline.data.memory import spoken

__all__ = ["UNKNOWN_TOKEN", "bytes_of_file", "coded", "holds_text", "read_text", "text_of"]

UNKNOWN_TOKEN = "<unk>"
LEVELS = {"char": "", "word": " "}
MOST_WORDS = 10_000
HELD_OUT = 0.1
_BLOCK = 1 << 20  # bytes
FEWEST = 3
PIECE = re.compile(r"\w+(?:'\w+)*|[^\w\s]")


def holds_text(path: Path) -> bool:
    """Return whether `path` is a text file by its name."""
    return bool(re.search(r"\.txt(\.gz)?$", path.name.lower()))


def read_text(
    path: Path, ask: Ask, *, level: str = "char", length: int = 128, vocabulary: int | None = None
) -> Found:
    """Return the windows of a text: the first 80 % to learn from, then 10 % to choose and 10 % to judge by.

    Windows follow each other without gap or overlap; the end of the text that fills none is left out.
    The tokens are those of the training windows; any other one is `<unk>`, token 0.

    Args:
        path: A .txt or .txt.gz file in UTF-8.
        ask: What every reader is asked; `limit` keeps the first windows.
        level: "char", or "word": words, and each mark of punctuation alone.
        length: Tokens in a window, at least 2.
        vocabulary: Most tokens, `<unk>` among them: the most frequent are kept; 10,000 for words.

    Raises:
        DataError: If the file is empty, too short or not UTF-8.
        OptionError: If an option is out of range.
    """
    if level not in LEVELS:
        raise OptionError(f'level={level!r}: give "char", "word" or "bags" (a document a line)')
    if length < 2 or (vocabulary is not None and vocabulary < 2):
        raise OptionError(f"length and vocabulary must be at least 2, got {length} and {vocabulary}")
    codes, spelt = coded(text_of(path), level)
    windows = min(len(codes) // length, ask.limit or len(codes))
    held = max(1, round(windows * HELD_OUT))
    if windows < FEWEST:
        raise DataError(
            f"{path}: {len(codes)} tokens fill {windows} windows of {length}; give a smaller length="
        )
    train, valid = windows - 2 * held, windows - held
    cuts = {"train": (0, train), "valid": (train, valid), "test": (valid, windows)}
    most = (vocabulary or (MOST_WORDS if level == "word" else len(codes) + 1)) - 1
    tokens = _frequent(codes[: train * length], most)
    numbers = _numbers(codes[: windows * length], tokens).view(windows, length)
    names = tuple(chr(code) if spelt is None else spelt[code] for code in tokens.tolist())
    domain = Tokens((UNKNOWN_TOKEN, *names), length, LEVELS[level])
    parts = {
        name: Part(Split(numbers[start:stop]), numbered(path.name, "window", start))
        for name, (start, stop) in cuts.items()
    }
    return Found(path.name.split(".")[0], parts, lambda train: domain)


def text_of(path: Path) -> str:
    """Return the text of a file, lines ended by one character.

    Raises:
        DataError: If the file is empty, damaged, too large or not UTF-8; the line is named.
    """
    data = bytes_of_file(path)
    if not data.strip():
        raise DataError(f"{path}: the file is empty")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}, line {line}: byte {data[error.start]:#04x} is not UTF-8; convert the file "
            f"(iconv -f latin1 -t utf-8 {path.name})"
        ) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def bytes_of_file(path: Path) -> bytes:
    """Return the bytes of a file, decompressed if its name ends in .gz.

    Raises:
        DataError: If it is damaged, or holds more than the memory that can be had.
    """
    most = available() // 4
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as stream:
            data = bytearray()
            # in blocks: memory for the whole size asked for would be set aside at once
            while len(data) <= most and (block := stream.read(_BLOCK)):
                data += block
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: damaged or cut off ({error}); fetch it again") from error
    if len(data) > most:
        raise DataError(f"{path}: holds more than {spoken(most)}, a quarter of the memory that can be had")
    return bytes(data)


def coded(text: str, level: str) -> tuple[Array, list[str] | None]:
    """Return a number for each token, and the tokens by number; None if numbers are code points."""
    if level == "char":
        return np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32).astype(np.int64), None
    table: dict[str, int] = {}
    codes = [table.setdefault(word, len(table)) for word in PIECE.findall(text)]
    return np.array(codes, dtype=np.int64), list(table)


def _frequent(codes: Array, most: int) -> Array:
    """Return the `most` frequent codes, sorted; among equals those that are smaller."""
    code, count = np.unique(codes, return_counts=True)
    return np.sort(code[np.lexsort((code, -count))[:most]])


def _numbers(codes: Array, tokens: Array) -> Tensor:
    """Return the number of each token, from 1; 0 for one that is not in the vocabulary."""
    place = np.searchsorted(tokens, codes).clip(max=len(tokens) - 1)
    return torch.from_numpy(np.where(tokens[place] == codes, place + 1, 0))
