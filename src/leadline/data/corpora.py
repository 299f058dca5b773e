"""Corpora: LDA-C files, sparse matrices, folders of texts, texts with a document a line.

Symbols:
    n documents.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.sparse import csr_matrix

from leadline.core import Counts, DataError, OptionError
from leadline.data.bags import Bags
from leadline.data.dataset import Split
from leadline.data.folder import SUFFIXES, listed
from leadline.data.found import Ask, Faults, Found, Part, numbered
from leadline.data.matrices import is_sparse, market, scipy_sparse
from leadline.data.text import bytes_of_file, read_text, text_of
from leadline.data.vocabulary import MOST_LISTED, Cut, bagged, cut, listed_words, words_of

__all__ = [
    "bags_of_file",
    "holds_bags",
    "holds_documents",
    "read_bags",
    "read_documents",
    "read_lines",
    "read_windows_or_lines",
    "text_documents",
]

LDAC = re.compile(r"\.(dat|ldac|lda-c)(\.gz)?$", re.IGNORECASE)
MATRIX = re.compile(r"\.mtx$", re.IGNORECASE)
TEXTS = (".txt", ".text")
LINE = re.compile(r"\d+(?:[ \t]+\d{1,9}:\d{1,9})*")


def holds_bags(path: Path) -> bool:
    """Return whether `path` is an LDA-C file, a Matrix Market file or a sparse matrix of scipy."""
    if not path.is_file():
        return False
    return bool(LDAC.search(path.name) or MATRIX.search(path.name)) or is_sparse(path)


def holds_documents(path: Path) -> bool:
    """Return whether `path` is a .cor file, or a folder of texts (two sub-folders down) without pictures."""
    if path.is_dir():
        levels = (path.glob("*"), path.glob("*/*"), path.glob("*/*/*"))
        ends = {item.suffix.lower() for level in levels for item in level}
        return any(end in TEXTS for end in ends) and not ends & set(SUFFIXES)
    return path.suffix.lower() == ".cor"


def read_bags(
    path: Path,
    ask: Ask,
    *,
    vocab: str | None = None,
    vocabulary: int | None = None,
    min_df: int | float = 1,
    max_df: int | float = 1.0,
    stop_words: bool | str = False,
    transpose: bool = False,
) -> Found:
    """Return the documents of an LDA-C file or of a sparse matrix.

    Args:
        path: A .dat or .ldac file, a line `M word:count ...` a document; a .mtx (Matrix Market) or a .npz
            of scipy.sparse, whose rows are documents.
        ask: What every reader is asked.
        vocab: A file with a word a line; else NAME.vocab, NAME.tokens or vocab.txt beside it; else numbers.
        vocabulary: Most words: the most frequent are kept.
        min_df: Fewest documents that a word must occur in: a number, or a share below 1.
        max_df: Most documents that it may occur in: a number, or a share.
        stop_words: Words that are left out: true or "english" for common English ones, words with commas
            between, or a file.
        transpose: Whether the rows of a matrix are words, its columns documents.

    Raises:
        DataError: If a line or value is wrong; file and line are named.
    """
    how = Cut(vocabulary, min_df, max_df, stop_words=stop_words)
    bags, words, place = bags_of_file(path, ask.faults, vocab, transpose=transpose)
    return _found(path.name.split(".")[0], {"train": (bags, place)}, words, how, ask)


def read_documents(
    path: Path,
    ask: Ask,
    *,
    vocabulary: int | None = None,
    min_df: int | float = 1,
    max_df: int | float = 1.0,
    stop_words: bool | str = False,
) -> Found:
    """Return the texts of a folder as bags of words: a file a document, a sub-folder a class.

    Args:
        path: A folder of .txt files, with sub-folders for classes and splits as for pictures; or a .cor
            file, a document a line.
        ask: What every reader is asked.
        vocabulary: Most words: the most frequent are kept.
        min_df: Fewest documents that a word must occur in: a number, or a share below 1.
        max_df: Most documents that it may occur in: a number, or a share.
        stop_words: Words that are left out: true or "english" for common English ones, words with commas
            between, or a file.

    Raises:
        DataError: If a file is not UTF-8, or there are no words.
    """
    if not path.is_dir():
        return read_lines(path, ask, Cut(vocabulary, min_df, max_df, stop_words=stop_words))
    how = Cut(vocabulary, min_df, max_df, stop_words=stop_words)
    there = listed(path, ask.faults, TEXTS, "texts")
    parts, texts, labels = {}, [], {}
    for split, files in there.files.items():
        good = []
        for number, file in enumerate(files):
            try:
                texts.append(text_documents(path / file))
                good.append(number)
            except DataError as error:
                where, _, what = str(error).partition(": ")
                ask.faults.bad([where], what)
        parts[split] = [files[i] for i in good]
        labels[split] = None if there.y is None else torch.tensor([there.y[split][i] for i in good])
    bags, words = bagged(texts)
    ends = np.cumsum([0, *(len(files) for files in parts.values())])
    pieces: dict[str, tuple[Bags, Callable[[int], str]]] = {}
    for split, start, end in zip(parts, ends[:-1], ends[1:], strict=True):
        pieces[split] = (bags.select(torch.arange(start, end)), _paths(path, parts[split]))
    found = _found(path.name, pieces, words, how, ask)
    labelled = {
        split: replace(part, data=Split(part.data.x, labels[split])) for split, part in found.parts.items()
    }
    return replace(found, parts=labelled, classes=there.classes if there.y is not None else None)


def read_lines(path: Path, ask: Ask, how: Cut) -> Found:
    """Return the lines of a text as bags of words: each line that is not blank is a document."""
    lines = [(i, line) for i, line in enumerate(text_of(path).split("\n"), 1) if line.strip()]
    bags, words = bagged([words_of(line) for _, line in lines])
    place: Callable[[int], str] = lambda i: f"{path.name}, line {lines[i][0]}"  # noqa: E731
    return _found(path.name.split(".")[0], {"train": (bags, place)}, words, how, ask)


def read_windows_or_lines(
    path: Path,
    ask: Ask,
    *,
    level: str = "char",
    length: int = 128,
    vocabulary: int | None = None,
    min_df: int | float = 1,
    max_df: int | float = 1.0,
    stop_words: bool | str = False,
) -> Found:
    """Return the windows of a text, or with `level="bags"` its lines as documents.

    Args:
        path: A .txt or .txt.gz file in UTF-8.
        ask: What every reader is asked.
        level: "char" or "word" for windows of tokens; "bags" for a bag of words a line.
        length: Tokens in a window, at least 2.
        vocabulary: Most tokens or words.
        min_df: Fewest lines that a word must occur in: a number, or a share below 1; for bags.
        max_df: Most lines that it may occur in: a number, or a share; for bags.
        stop_words: Words that are left out: true or "english" for common English ones, words with commas
            between, or a file; for bags.
    """
    if level == "bags":
        return read_lines(path, ask, Cut(vocabulary, min_df, max_df, stop_words=stop_words))
    if (min_df, max_df, stop_words) != (1, 1.0, False):
        raise OptionError('min_df, max_df and stop_words are for level="bags", a document a line')
    return read_text(path, ask, level=level, length=length, vocabulary=vocabulary)


def text_documents(path: Path) -> list[str]:
    """Return the words of one text file."""
    return words_of(text_of(path))


def bags_of_file(
    path: Path, faults: Faults, vocab: str | None = None, *, transpose: bool = False
) -> tuple[Bags, tuple[str, ...], Callable[[int], str]]:
    """Return the bags of a file, the words, and the function that names a document.

    Raises:
        DataError: If the file is damaged, or names a word that its vocabulary does not hold.
    """
    names = listed_words(path, vocab)
    place: Callable[[int], str]
    if LDAC.search(path.name):
        if transpose:
            raise OptionError("transpose is for matrices; an LDA-C file holds a document a line")
        matrix, lines = _ldac(path, faults, names)
        place = lambda i: f"{path.name}, line {lines[i]}"  # noqa: E731
    else:
        matrix = market(path) if MATRIX.search(path.name) else scipy_sparse(path)
        matrix = csr_matrix(matrix.T) if transpose else matrix
        place = numbered(path.name, "row")
    if 0 in matrix.shape:
        raise DataError(f"{path}: holds no documents or no words: shape {matrix.shape}")
    if names is not None and matrix.shape[1] != len(names[1]):
        hint = "; is it transposed? transpose=true" if matrix.shape[0] == len(names[1]) else ""
        raise DataError(
            f"{path}: has {matrix.shape[1]} words, but {names[0].name} lists {len(names[1])}{hint}"
        )
    if names is None:
        if matrix.shape[1] > MOST_LISTED:
            raise DataError(f"{path}: names word {matrix.shape[1] - 1}; give the vocabulary file with vocab=")
        faults.note(f"{path.name}: no vocabulary lies beside it, words are called by their numbers; vocab=")
    words = names[1] if names else tuple(str(i) for i in range(matrix.shape[1]))
    return Bags.of(matrix), words, place


def _found(
    name: str,
    pieces: dict[str, tuple[Bags, Callable[[int], str]]],
    words: tuple[str, ...],
    how: Cut,
    ask: Ask,
) -> Found:
    """Return what was found, the vocabulary cut by the documents of all parts."""
    every = csr_matrix(np.zeros((0, len(words)), np.int64))
    for bags, _ in pieces.values():
        every = _stacked(every, bags.matrix)
    if not words or every.nnz == 0:
        raise DataError(f"{name}: no document holds a word")
    all_bags, kept = cut(Bags.of(every), words, how, name)
    domain, start, parts = Counts(kept), 0, {}
    empty = int((np.diff(all_bags.starts) == 0).sum())
    if empty:
        ask.faults.note(f"{name}: {empty} of {len(all_bags)} documents hold none of the words")
    for split, (bags, place) in pieces.items():
        rows = torch.arange(start, start + len(bags))
        parts[split] = Part(Split(all_bags.select(rows)), place)
        start += len(bags)
    return Found(name, parts, lambda train: domain)


def _stacked(top: csr_matrix, bottom: csr_matrix) -> csr_matrix:
    from scipy.sparse import vstack

    return csr_matrix(vstack([top, bottom]))


def _paths(root: Path, files: list[str]) -> Callable[[int], str]:
    return lambda i: str(root / files[i])


def _ldac(
    path: Path, faults: Faults, names: tuple[Path, tuple[str, ...]] | None
) -> tuple[csr_matrix, list[int]]:
    """Return the counts of an LDA-C file, and the line of each document."""
    size = len(names[1]) if names else None
    data = bytes_of_file(path)
    if not data.strip():
        raise DataError(f"{path}: the file is empty; a line is M word:count word:count ..., a document")
    starts, lines, pairs = [0], [], []
    for number, raw in enumerate(data.decode("ascii", "replace").splitlines(), 1):
        line = raw.strip()
        if not line:
            continue
        fault = _fault(line)
        row = np.empty((0, 2), np.int64)
        if not fault:
            row = np.array(line.replace(":", " ").split()[1:], np.int64).reshape(-1, 2)
            if size is not None and len(row) and row[:, 0].max() >= size:
                fault = f"names word {row[:, 0].max()}, but {_last(names)}; is it the right file? vocab="
        if fault:
            faults.bad([f"{path}, line {number}"], fault)
            continue
        pairs.append(row)
        lines.append(number)
        starts.append(starts[-1] + len(row))
    if not lines:
        raise DataError(f"{path}: holds no documents")
    table = np.concatenate(pairs)
    last = int(table[:, 0].max()) + 1 if len(table) else 0
    width = size or last
    if names is not None and last < len(names[1]):
        faults.note(
            f"{path.name}: {_last(names)}, but no document names one beyond {last - 1}; is it its vocabulary?"
        )
    if width > MOST_LISTED and size is None:
        raise DataError(f"{path}: names word {width - 1}; give the vocabulary file with vocab=")
    return csr_matrix((table[:, 1], table[:, 0], starts), (len(lines), width)), lines


def _last(names: tuple[Path, tuple[str, ...]] | None) -> str:
    """Return the number of the last word of a vocabulary, in words."""
    return f"{names[0].name} lists words 0 to {len(names[1]) - 1}" if names else ""


def _fault(line: str) -> str:
    """Return what is wrong with a line of LDA-C, or an empty string."""
    if not LINE.fullmatch(line):
        bad = next((item for item in line.split()[1:] if not re.fullmatch(r"\d{1,9}:\d{1,9}", item)), None)
        return f'"{(bad or line.split()[0])[:40]}" is not word:count; a line is M word:count word:count ...'
    said, held = int(line.split()[0]), line.count(":")
    return "" if said == held else f"says {said} words but holds {held} (is it cut off?)"
