"""Words of documents: how a text is cut into them, which of them are kept, and files that list them."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix

from leadline.core import DataError, OptionError
from leadline.data.bags import Bags
from leadline.data.text import text_of

__all__ = ["MOST_LISTED", "Cut", "bagged", "cut", "listed_words", "words_of"]

WORD = re.compile(r"[^\W\d_]{2,}(?:['’][^\W\d_]+)*")
BESIDE = ("{stem}.vocab", "{stem}.tokens", "{stem}.vocab.txt", "vocab.txt", "vocabulary.txt")
MOST_LISTED = 10_000_000


class Cut:
    """Which words of a corpus are kept.

    Args:
        most: Most words: the most frequent are kept; None for all.
        min_df: Fewest documents that a word must occur in, at least 1.
        stop_words: Whether common English words are left out.

    Raises:
        OptionError: If a number is out of range.
    """

    def __init__(self, most: int | None, min_df: int, *, stop_words: bool) -> None:
        if min_df < 1 or (most is not None and most < 1):
            raise OptionError(f"min_df and vocabulary must be at least 1, got {min_df} and {most}")
        self.most = most
        self.min_df = min_df
        self.stop_words = stop_words


def words_of(text: str) -> list[str]:
    """Return the words of a text in lower case: two letters or more; digits and marks are left out."""
    return [word.replace("’", "'") for word in WORD.findall(text.lower())]


def bagged(documents: Iterable[Sequence[str]]) -> tuple[Bags, tuple[str, ...]]:
    """Return the bags of documents of words, and the vocabulary, sorted."""
    table: dict[str, int] = {}
    starts, words, counts = [0], [], []
    for document in documents:
        for word, count in Counter(document).items():
            words.append(table.setdefault(word, len(table)))
            counts.append(count)
        starts.append(len(words))
    names = sorted(table)
    place = np.empty(len(table), np.int64)
    place[[table[name] for name in names]] = np.arange(len(table))
    columns = place[np.array(words, np.int64)]
    shape = (len(starts) - 1, len(table))
    return Bags.of(csr_matrix((np.array(counts, np.int64), columns, np.array(starts)), shape)), tuple(names)


def cut(bags: Bags, vocabulary: tuple[str, ...], how: Cut, name: str) -> tuple[Bags, tuple[str, ...]]:
    """Return the bags of the words that `how` keeps, and those words in their old order.

    Raises:
        DataError: If none is left.
    """
    matrix = bags.matrix
    keep = np.bincount(bags.words, minlength=bags.size) >= how.min_df
    if how.stop_words:
        from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

        keep &= np.array([word.lower() not in ENGLISH_STOP_WORDS for word in vocabulary], dtype=bool)
    if how.most is not None and keep.sum() > how.most:
        total = np.where(keep, np.asarray(matrix.sum(0)).ravel(), -1)
        keep = np.zeros_like(keep)
        keep[np.argsort(-total, kind="stable")[: how.most]] = True
    if not keep.any():
        raise DataError(f"{name}: no word is left; give a smaller min_df= or stop_words=false")
    if keep.all():
        return bags, vocabulary
    columns = np.flatnonzero(keep)
    return bags.only(columns), tuple(vocabulary[i] for i in columns)


def listed_words(path: Path, given: str | None) -> tuple[Path, tuple[str, ...]] | None:
    """Return the vocabulary of a corpus, a word a line: the file `given`, or one that lies beside it.

    Raises:
        DataError: If the file has an empty or repeated line; the line is named.
    """
    names = (given,) if given else tuple(name.format(stem=path.name.split(".")[0]) for name in BESIDE)
    file = next((path.parent / name for name in names if (path.parent / name).is_file()), None)
    if file is None:
        if given:
            raise DataError(f"vocab={given!r}: no such file")
        return None
    lines = text_of(file).rstrip("\n").split("\n")
    words = tuple(line.strip() for line in lines)
    seen: dict[str, int] = {}
    for number, word in enumerate(words, 1):
        if not word:
            raise DataError(f"{file}, line {number}: is empty; each line is a word")
        if seen.setdefault(word, number) != number:
            raise DataError(f'{file}, line {number}: "{word}" stands in line {seen[word]} already')
    return file, words
