r"""Factors, evidence and results in the formats of the UAI inference competitions: read and written.

A model file says MARKOV or BAYES, the number of variables, their sizes, the number of functions, the scope of
each and then the values of each; the last variable of a scope runs fastest, and the last of a BAYES function
is the child, whose probabilities sum to one. Evidence is a count and pairs `variable state`. Results are MAR
(marginals), PR (log10 of the partition function) and MAP (the likeliest states).

Source:
    The UAI 2014 probabilistic inference competition, model, evidence and result formats.
"""

import math
import os
from collections.abc import Mapping, Sequence
from typing import NoReturn

import numpy as np

from leadline.core import DataError
from leadline.data.networks import FactorFile, Floats, path_text, write_path_text

__all__ = [
    "parse_uai",
    "read_evidence",
    "read_map",
    "read_marginals",
    "read_partition",
    "read_uai",
    "uai_of",
    "write_evidence",
    "write_map",
    "write_marginals",
    "write_partition",
    "write_uai",
]

_OFF = 0.02  # how far from one a distribution may sum: files are rounded


def read_uai(path: str | os.PathLike[str]) -> FactorFile:
    """Return the factors in a .uai file, compressed by gzip or not.

    Raises:
        DataError: If it is not one; the message names the file and the line.
    """
    return parse_uai(path_text(path), str(path))


def parse_uai(text: str, where: str = "UAI text") -> FactorFile:
    """Return the factors that a text describes.

    Args:
        text: The text.
        where: What messages call it.

    Raises:
        DataError: If it is not of this form; the message names the line.
    """
    words = _Words(text, where)
    kind = words.one("MARKOV or BAYES")
    if kind not in ("MARKOV", "BAYES"):
        words.fail(f"expected MARKOV or BAYES, got {kind!r}", -1)
    sizes = words.counts(
        words.count("the number of variables"), "the number of states of a variable", least=1
    )
    scopes: list[tuple[int, ...]] = []
    for _ in range(words.count("the number of functions")):
        scope = tuple(words.counts(words.count("the size of a scope"), "a variable"))
        if len(set(scope)) != len(scope) or any(v >= len(sizes) for v in scope):
            words.fail(
                f"the scope {' '.join(map(str, scope))} must name variables 0..{len(sizes) - 1} once each", -1
            )
        scopes.append(scope)
    tables = []
    for number, scope in enumerate(scopes):
        shape = [sizes[v] for v in scope]
        length = words.count(f"the number of values of function {number}")
        if length != math.prod(shape):
            words.fail(f"function {number} over {scope} has {math.prod(shape)} values, not {length}", -1)
        tables.append(words.values(length, f"function {number}").reshape(shape))
        if kind == "BAYES" and scope:
            _check_sums(tables[-1], number, words)
    words.end()
    return FactorFile(kind, tuple(sizes), tuple(scopes), tuple(tables))


def _check_sums(table: Floats, number: int, words: "_Words") -> None:
    """Fail unless the child's probabilities sum to one for all states of its parents."""
    off = np.abs(table.sum(-1) - 1)
    if (off > _OFF).any():
        total = table.sum(-1).flat[int(off.argmax())]
        words.fail(
            f"function {number} of a BAYES file is p(child | parents), but a row sums to {total:.6g}, not 1; "
            "factors without that are MARKOV",
            -1,
        )


def write_uai(model: FactorFile, path: str | os.PathLike[str]) -> None:
    """Write factors as a .uai file; reading it gives equal factors."""
    write_path_text(path, uai_of(model))


def uai_of(model: FactorFile) -> str:
    """Return factors as UAI text."""
    lines = [model.kind, str(len(model.sizes)), _row(model.sizes), str(len(model.scopes))]
    lines += [_row((len(scope), *scope)) for scope in model.scopes]
    for table in model.tables:
        width = table.shape[-1] if table.ndim else 1
        lines += ["", str(table.size)]
        lines += [" ".join(map(repr, row)) for row in table.reshape(-1, width).tolist()]
    return "\n".join(lines) + "\n"


def read_evidence(path: str | os.PathLike[str], sizes: Sequence[int]) -> dict[int, int]:
    """Return the observed states in a .evid file; an empty file means none.

    Args:
        path: The file; a leading count of samples, as older files have, must be one.
        sizes: Number of states of each variable of the model.

    Raises:
        DataError: If it is not of this form, or a variable or state is not in the model.
    """
    words = _Words(path_text(path), str(path))
    samples = _samples_of(words.words)
    if samples > 1:
        words.fail(
            f"{samples} samples of evidence, and a question has one; keep one in the file, without the "
            f"leading {samples}"
        )
    if samples == 1:
        words.count("the number of samples")
    count = words.count("the number of observed variables") if words.words else 0
    evidence: dict[int, int] = {}
    for _ in range(count):
        v, state = words.count("a variable"), words.count("a state")
        if v >= len(sizes) or state >= sizes[v]:
            states = f" of {sizes[v]} states" if v < len(sizes) else f", but there are {len(sizes)} variables"
            words.fail(f"evidence {state} on variable {v}{states}", -1)
        if evidence.setdefault(v, state) != state:
            words.fail(f"two states for variable {v}", -1)
    words.end()
    return evidence


def write_evidence(evidence: Mapping[int, int], path: str | os.PathLike[str]) -> None:
    """Write observed states as a .evid file."""
    pairs = [number for pair in evidence.items() for number in pair]
    write_path_text(path, _row((len(evidence), *pairs)) + "\n")


def read_marginals(path: str | os.PathLike[str]) -> list[Floats]:
    """Return the distribution of each variable in a .MAR file.

    Raises:
        DataError: If it is not of this form.
    """
    words = _result(path, "MAR")
    count = words.count("the number of variables")
    found = [words.values(words.count("a number of states"), "a marginal") for _ in range(count)]
    words.end()
    return found


def write_marginals(marginals: Sequence[Floats], path: str | os.PathLike[str]) -> None:
    """Write the distribution of each variable as a .MAR file."""
    parts = [f"{len(p)} {' '.join(map(repr, p.tolist()))}" for p in marginals]
    write_path_text(path, f"MAR\n{len(marginals)} {' '.join(parts)}\n")


def read_partition(path: str | os.PathLike[str]) -> float:
    """Return log10 of the partition function in a .PR file.

    Raises:
        DataError: If it is not of this form.
    """
    words = _result(path, "PR")
    value = float(words.values(1, "the partition function", signed=True)[0])
    words.end()
    return value


def write_partition(log10_partition: float, path: str | os.PathLike[str]) -> None:
    """Write log10 of the partition function as a .PR file."""
    write_path_text(path, f"PR\n{log10_partition!r}\n")


def read_map(path: str | os.PathLike[str]) -> list[int]:
    """Return the states in a .MAP file.

    Raises:
        DataError: If it is not of this form.
    """
    words = _result(path, "MAP")
    states = words.counts(words.count("the number of variables"), "a state")
    words.end()
    return states


def write_map(states: Sequence[int], path: str | os.PathLike[str]) -> None:
    """Write the likeliest states as a .MAP file."""
    write_path_text(path, f"MAP\n{_row((len(states), *states))}\n")


def _row(numbers: Sequence[int]) -> str:
    return " ".join(str(int(number)) for number in numbers)


def _samples_of(words: Sequence[str]) -> int:
    """Return how many samples of evidence a file announces and holds, in the older form; else 0."""
    if not all(word.isdecimal() and len(word) < 19 for word in words):
        return 0
    numbers = list(map(int, words))
    if len(numbers) == 1 + 2 * sum(numbers[:1]):
        return 0  # one count and its pairs
    at = 1
    for _ in range(min(sum(numbers[:1]), len(numbers))):
        at += 1 + 2 * sum(numbers[at : at + 1])
    return numbers[0] if numbers and at == len(numbers) else 0


def _result(path: str | os.PathLike[str], kind: str) -> "_Words":
    """Return the words of a result file after its first, which must be its kind."""
    words = _Words(path_text(path), str(path))
    found = words.one(kind)
    if found != kind:
        words.fail(f"expected {kind}, got {found!r}", -1)
    return words


class _Words:
    """The words of a text, taken one after another."""

    def __init__(self, text: str, where: str) -> None:
        self.text, self.where = text, where
        self.words = text.split()
        self.at = 0

    def one(self, what: str) -> str:
        """Return the next word."""
        if self.at >= len(self.words):
            self.fail(f"the file ends where {what} should stand")
        self.at += 1
        return self.words[self.at - 1]

    def count(self, what: str, least: int = 0) -> int:
        """Return the next word as a whole number."""
        word = self.one(what)
        if not (word.isdecimal() and word.isascii() and int(word) >= least and len(word) < 19):
            self.fail(f"expected {what}, got {word!r}", -1)
        return int(word)

    def counts(self, number: int, what: str, least: int = 0) -> list[int]:
        """Return the next words as whole numbers."""
        self._need(number, what)
        return [self.count(what, least) for _ in range(number)]

    def values(self, number: int, what: str, *, signed: bool = False) -> Floats:
        """Return the next words as finite numbers, not negative unless `signed`."""
        self._need(number, what)
        words = self.words[self.at : self.at + number]
        try:
            values = np.array(words, dtype=np.float64)
        except ValueError:
            values = np.full(number, np.nan)
        bad = ~np.isfinite(values) if signed else ~((values >= 0) & (values < math.inf))
        if bad.any():
            self._blame(words, what, signed=signed)
        self.at += number
        return values

    def _blame(self, words: Sequence[str], what: str, *, signed: bool) -> None:
        """Fail at the first word that is no finite number, or negative where that may not be."""
        for word in words:
            self.at += 1
            try:
                good = math.isfinite(float(word)) and (signed or float(word) >= 0)
            except ValueError:
                good = False
            if not good:
                self.fail(
                    f"{what}: expected a finite number{'' if signed else ', 0 or more'}, got {word!r}", -1
                )

    def end(self) -> None:
        """Check that no word is left."""
        if self.at < len(self.words):
            self.fail(f"{len(self.words) - self.at} words too many, the first is {self.words[self.at]!r}")

    def _need(self, number: int, what: str) -> None:
        if number > len(self.words) - self.at:
            self.at = len(self.words)
            self.fail(f"the file ends within {what}: {number} numbers are announced")

    def fail(self, message: str, offset: int = 0) -> NoReturn:
        """Raise the error that names the line of the word at the present place plus `offset`."""
        left = self.at + offset
        line = 1
        for line, row in enumerate(self.text.splitlines(), 1):  # noqa: B007
            left -= len(row.split())
            if left < 0:
                break
        raise DataError(f"{self.where}, line {line}: {message}")
