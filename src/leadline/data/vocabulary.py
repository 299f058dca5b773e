"""Words of documents: how a text is cut into them, which of them are kept, and files that list them."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix

from leadline.core import DataError, OptionError
from leadline.data.bags import Bags
from leadline.data.meaning import Array
from leadline.data.text import text_of

__all__ = ["MOST_LISTED", "Cut", "bagged", "cut", "listed_words", "words_of"]

WORD = re.compile(r"[^\W\d_]{2,}(?:['’][^\W\d_]+)*")
BESIDE = ("{stem}.vocab", "{stem}.tokens", "{stem}.vocab.txt", "vocab.txt", "vocabulary.txt")
MOST_LISTED = 10_000_000


class Cut:
    """Which words of a corpus are kept.

    Args:
        most: Most words: the most frequent are kept; None for all.
        min_df: Fewest documents that a word must occur in: a number, at least 1, or a share of them, below 1.
        max_df: Most documents that it may occur in: a whole number, or a share of them, at most 1.0.
        stop_words: Words to leave out: True or "english" for common English ones, words with commas between,
            or the path of a file with a word a line.

    Raises:
        OptionError: If a number is out of range, or a text is none of these.
        DataError: If the file of stop words cannot be read.
    """

    def __init__(
        self, most: int | None, min_df: float = 1, max_df: float = 1.0, *, stop_words: bool | str = False
    ) -> None:
        if most is not None and most < 1:
            raise OptionError(f"vocabulary must be at least 1, got {most}")
        for name, value in (("min_df", min_df), ("max_df", max_df)):
            if value < 0 or (value == 0 and name == "max_df") or not _number_or_share(value):
                raise OptionError(f"{name} is a whole number from 1, or a share from 0.0 to 1.0, got {value}")
        self.most = most
        self.min_df = min_df
        self.max_df = max_df
        self.stop_words = _stop_words(stop_words)

    def kept(self, held: Array, vocabulary: Sequence[str]) -> Array:
        """Return which words are neither too rare, too common nor stop words, (words,) bool.

        Args:
            held: In how many documents each word occurs (words,), the number of documents last.
            vocabulary: The words.
        """
        occurs, documents = held[:-1], held[-1]
        least, most = (
            value if isinstance(value, int) else value * documents for value in (self.min_df, self.max_df)
        )
        wanted = np.array([word.lower() not in self.stop_words for word in vocabulary], dtype=bool)
        return (occurs >= least) & (occurs <= most) & wanted


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
    held = np.append(np.bincount(bags.words, minlength=bags.size), len(bags))
    keep = how.kept(held, vocabulary)
    if how.most is not None and keep.sum() > how.most:
        total = np.where(keep, np.asarray(matrix.sum(0)).ravel(), -1)
        keep = np.zeros_like(keep)
        keep[np.argsort(-total, kind="stable")[: how.most]] = True
    if not keep.any():
        raise DataError(
            f"{name}: no word is left; give a smaller min_df=, a larger max_df= or fewer stop_words="
        )
    if keep.all():
        return bags, vocabulary
    columns = np.flatnonzero(keep)
    return bags.only(columns), tuple(vocabulary[i] for i in columns)


def _number_or_share(value: float) -> bool:
    """Return whether a value is a whole number, or a share of documents."""
    return isinstance(value, int) or 0 <= value <= 1


def _stop_words(given: str | bool) -> frozenset[str]:  # noqa: FBT001 - an option of either kind
    """Return the words to leave out, in lower case."""
    if given in (True, "english"):
        from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

        return ENGLISH_STOP_WORDS
    if not given:
        return frozenset()
    if Path(str(given)).is_file():
        return frozenset(text_of(Path(str(given))).lower().split())
    words = [word.strip().lower() for word in str(given).split(",")]
    if len(words) < 2:
        raise OptionError(
            f'stop_words={given!r}: no such file; give true, "english", words with commas between, or a file'
        )
    return frozenset(words)


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
