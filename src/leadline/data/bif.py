r"""Bayesian networks in the Bayesian Interchange Format (BIF): read and written.

    network alarm { }
    variable Burglary { type discrete [ 2 ] { True, False }; }
    probability ( Alarm | Burglary, Earthquake ) { (True, True) 0.95, 0.05; ... }

Names may stand in quotes and then hold anything but a quote. A distribution is given by rows, one for each
combination of the parents' states, by `default` for the combinations without a row, or as one `table`.

Source:
    Cozman (1998), The Interchange Format for Bayesian Networks, version 0.15.

Departs from the source:
    A `table` runs over the child's states slowest, as in the source; where its columns do not sum to one in
    that order but do with the child's states fastest, it is read that way, as some writers meant it.
"""

import itertools
import math
import os
import re
from typing import NoReturn

import numpy as np

from leadline.core import DataError
from leadline.core.errors import nearest
from leadline.data.networks import Floats, Network, path_text, write_path_text

__all__ = ["parse_bif", "read_bif", "write_bif"]

_TOKEN = re.compile(r'"[^"\n]*"|[{}()\[\]|,;]|[^\s{}()\[\]|,;"]+|"')
_COMMENT = re.compile(r'"[^"\n]*"|//[^\n]*|/\*.*?(?:\*/|\Z)', re.DOTALL)
_PLAIN = re.compile(r'[^\s{}()\[\]|,;"/]+')
_OFF = 0.02  # how far from one a distribution may sum: files are rounded


def read_bif(path: str | os.PathLike[str]) -> Network:
    """Return the network in a BIF file, compressed by gzip or not.

    Raises:
        DataError: If it is not one; the message names the file and the line.
    """
    return parse_bif(path_text(path), str(path))


def parse_bif(text: str, where: str = "BIF text") -> Network:
    """Return the network that a text describes.

    Args:
        text: The text.
        where: What messages call it.

    Raises:
        DataError: If it is not one; the message names the line.
    """
    return _Reader(text, where).network()


def write_bif(network: Network, path: str | os.PathLike[str]) -> None:
    """Write a network as a BIF file; reading it gives an equal network.

    Raises:
        DataError: If a name holds a quote or a line break, which BIF cannot say.
    """
    write_path_text(path, bif_of(network))


def bif_of(network: Network) -> str:
    """Return a network as BIF text.

    Raises:
        DataError: If a name holds a quote or a line break.
    """
    lines = [f"network {_quoted(network.name)} {{", *_properties(network, ""), "}"]
    states = [[_quoted(value) for value in values] for values in network.values]
    names = [_quoted(name) for name in network.columns]
    for v, name in enumerate(names):
        lines += [
            f"variable {name} {{",
            f"  type discrete [ {len(states[v])} ] {{ {', '.join(states[v])} }};",
        ]
        lines += [*_properties(network, f"variable {network.columns[v]}"), "}"]
    for v, (parents, table) in enumerate(zip(network.parents, network.tables, strict=True)):
        given = f" | {', '.join(names[p] for p in parents)}" if parents else ""
        lines.append(f"probability ( {names[v]}{given} ) {{")
        rows = table.reshape(-1, table.shape[-1]).tolist()
        if parents:
            for combination, row in zip(itertools.product(*(states[p] for p in parents)), rows, strict=True):
                lines.append(f"  ({', '.join(combination)}) {', '.join(map(repr, row))};")
        else:
            lines.append(f"  table {', '.join(map(repr, rows[0]))};")
        lines += [*_properties(network, f"probability {network.columns[v]}"), "}"]
    return "\n".join(lines) + "\n"


def _properties(network: Network, place: str) -> list[str]:
    return [f"  property {text};" for text in network.properties.get(place, ())]


def _quoted(name: str) -> str:
    """Return a name as it stands in a file."""
    if '"' in name or "\n" in name:
        raise DataError(f"BIF cannot hold the name {name!r}: it has a quote or a line break")
    return name if _PLAIN.fullmatch(name) else f'"{name}"'


class _Reader:
    """One reading of a text, token by token."""

    def __init__(self, text: str, where: str) -> None:
        self.where = where
        if "//" in text or "/*" in text:
            text = _COMMENT.sub(_blanked, text)
        self.text = text
        self.tokens: list[str] = _TOKEN.findall(text)
        self.tokens.append("")
        self.at = 0
        self.name = ""
        self.states: dict[str, tuple[str, ...]] = {}
        self.numbers: dict[str, dict[str, int]] = {}
        self.families: dict[str, tuple[tuple[str, ...], Floats]] = {}
        self.properties: dict[str, tuple[str, ...]] = {}

    def network(self) -> Network:
        """Return the whole network."""
        readers = {"network": self._network, "variable": self._variable, "probability": self._probability}
        while self.tokens[self.at]:
            word = self.tokens[self.at]
            if word not in readers:
                self._fail(f"expected network, variable or probability, got {word!r}")
            self.at += 1
            readers[word]()
        if not self.states:
            self._fail("no variable: a network in BIF has blocks variable NAME { ... }")
        for name in self.states:
            if name not in self.families:
                self._fail(f"no probability block for the variable {name}")
        number = {name: v for v, name in enumerate(self.states)}
        return Network(
            name=self.name,
            columns=tuple(self.states),
            values=tuple(self.states.values()),
            parents=tuple(tuple(number[p] for p in self.families[name][0]) for name in self.states),
            tables=tuple(self.families[name][1] for name in self.states),
            properties=self.properties,
        )

    def _network(self) -> None:
        self.name = self._word("the name of the network")
        self._expect("{")
        while self.tokens[self.at] != "}":
            self._property("")
        self.at += 1

    def _variable(self) -> None:
        name = self._word("the name of a variable")
        if name in self.states:
            self._fail(f"a second variable {name}", self.at - 1)
        self._expect("{")
        values: tuple[str, ...] = ()
        while self.tokens[self.at] != "}":
            if self.tokens[self.at] == "type":
                values = self._type()
            else:
                self._property(f"variable {name}")
        if not values:
            self._fail(f"the variable {name} has no states")
        self.at += 1
        self.states[name] = values
        self.numbers[name] = {value: i for i, value in enumerate(values)}

    def _type(self) -> tuple[str, ...]:
        """Return the states of a variable."""
        self.at += 1
        for mark in ("discrete", "["):
            self._expect(mark)
        count = self._word("a number of states")
        for mark in ("]", "{"):
            self._expect(mark)
        values = [self._word("a state")]
        while self.tokens[self.at] != "}":
            self._expect(",")
            values.append(self._word("a state"))
        self.at += 1
        self._expect(";")
        if count != str(len(values)) or len(set(values)) != len(values):
            self._fail(f"expected {count} different states, got {', '.join(values)}", self.at - 1)
        return tuple(values)

    def _probability(self) -> None:
        self._expect("(")
        names = [self._known()]
        if self.tokens[self.at] == "|":
            self.at += 1
            names.append(self._known())
            while self.tokens[self.at] == ",":
                self.at += 1
                names.append(self._known())
        self._expect(")")
        child, parents = names[0], tuple(names[1:])
        if child in self.families:
            self._fail(f"a second probability block for {child}")
        if len(set(names)) != len(names):
            self._fail(f"{', '.join(names)}: a variable stands twice")
        self._expect("{")
        self.families[child] = parents, self._distribution(child, parents)

    def _known(self) -> str:
        name = self._word("a variable")
        if name not in self.states:
            self._fail(f"unknown variable {name}{nearest(name, self.states)}", self.at - 1)
        return name

    def _distribution(self, child: str, parents: tuple[str, ...]) -> Floats:
        """Return p(child | parents), one axis a parent and the child's last."""
        sizes = [len(self.states[p]) for p in parents]
        width, start = len(self.states[child]), self.at
        if math.prod(sizes) * width > 4 * len(self.tokens) + 1_000_000:
            self._fail(
                f"a table of {math.prod(sizes) * width:.3g} numbers for {child} cannot be in this file"
            )
        table = np.full((math.prod(sizes), width), np.nan)
        default: list[float] | None = None
        while self.tokens[self.at] != "}":
            word = self.tokens[self.at]
            if word == "(":
                place = self._row(parents)
                if not np.isnan(table[place, 0]):
                    self._fail(f"a second row for the same states of {', '.join(parents)}")
                table[place] = self._values(width)
            elif word == "default":
                self.at += 1
                default = self._values(width)
            elif word == "table":
                self.at += 1
                table[:] = _as_rows(np.array(self._values(table.size)), table.shape)
            else:
                self._property(f"probability {child}")
        self.at += 1
        return self._complete(table, default, child, parents, start).reshape(*sizes, width)

    def _complete(
        self, table: Floats, default: list[float] | None, child: str, parents: tuple[str, ...], start: int
    ) -> Floats:
        """Return the table with its defaults, once every row is there and sums to one."""
        missing = np.isnan(table[:, 0])
        if default is not None:
            table[missing] = default
        elif missing.any():
            combination = self._named(int(missing.argmax()), parents)
            self._fail(f"no row of {child} for {combination or 'its states'}", start)
        bad = ~(np.abs(table.sum(1) - 1) < _OFF) | (table < 0).any(1)
        if bad.any():
            row = int(bad.argmax())
            least = table[row].min()
            wrong = f"has the negative number {least:.6g}" if least < 0 else f"sums to {table[row].sum():.6g}"
            given = f"{' given ' if parents else ''}{self._named(row, parents)}"
            self._fail(f"the distribution of {child}{given} {wrong}", start)
        return table

    def _named(self, row: int, parents: tuple[str, ...]) -> str:
        """Return the states of the parents that a row belongs to, in words."""
        states = np.unravel_index(row, [len(self.states[p]) for p in parents]) if parents else ()
        return ", ".join(f"{p}={self.states[p][int(s)]}" for p, s in zip(parents, states, strict=True))

    def _row(self, parents: tuple[str, ...]) -> int:
        """Return the row that `(state, ...)` names."""
        row = 0
        for i, parent in enumerate(parents):
            self._expect("," if i else "(")
            word = self._word(f"a state of {parent}")
            if word not in self.numbers[parent]:
                self._fail(
                    f"{parent} has no state {word}{nearest(word, self.states[parent])}; "
                    f"it has {', '.join(self.states[parent][:8])}",
                    self.at - 1,
                )
            row = row * len(self.states[parent]) + self.numbers[parent][word]
        if not parents:
            self._fail("a row of states, but there is no parent")
        self._expect(")")
        return row

    def _values(self, count: int) -> list[float]:
        """Return numbers up to the semicolon, with or without commas."""
        start = self.at
        try:
            end = self.tokens.index(";", start)
        except ValueError:
            self._fail("the file ends within a row of numbers", len(self.tokens) - 1)
        words = [word for word in self.tokens[start:end] if word != ","]
        try:
            values = [float(word) for word in words]
        except ValueError:
            bad = next(i for i in range(start, end) if not _is_number(self.tokens[i]))
            self._fail(f"expected a number, got {self.tokens[bad]!r}", bad)
        if len(values) != count:
            self._fail(f"expected {count} numbers, got {len(values)}", start)
        if not all(map(math.isfinite, values)):
            self._fail(
                f"expected a finite number, got {next(v for v in values if not math.isfinite(v))}", start
            )
        self.at = end + 1
        return values

    def _property(self, place: str) -> None:
        if self.tokens[self.at] != "property":
            self._fail(f"expected property or }}, got {self.tokens[self.at] or 'the end of the file'!r}")
        try:
            end = self.tokens.index(";", self.at)
        except ValueError:
            self._fail("the file ends within a property", len(self.tokens) - 1)
        text = " ".join(self.tokens[self.at + 1 : end])
        self.properties[place] = (*self.properties.get(place, ()), text)
        self.at = end + 1

    def _word(self, what: str) -> str:
        """Return the next token as a name, without its quotes."""
        token = self.tokens[self.at]
        if token in ("", '"') or token in "{}()[]|,;":
            self._fail(f"expected {what}, got {token or 'the end of the file'!r}")
        self.at += 1
        return token[1:-1] if token[0] == '"' else token

    def _expect(self, mark: str) -> None:
        token = self.tokens[self.at]
        if token != mark:
            self._fail(f"expected {mark!r}, got {token or 'the end of the file'!r}")
        self.at += 1

    def _fail(self, message: str, token: int | None = None) -> NoReturn:
        """Raise the error that names the line of a token, the present one by default."""
        index = self.at if token is None else token
        place = next(itertools.islice(_TOKEN.finditer(self.text), index, None), None)
        end = len(self.text.rstrip()) if place is None else place.start()
        raise DataError(f"{self.where}, line {self.text.count(chr(10), 0, end) + 1}: {message}")


def _blanked(match: re.Match[str]) -> str:
    """Return a quoted name as it is, and of a comment its line breaks only."""
    text = match.group()
    return text if text[0] == '"' else "\n" * text.count("\n") or " "


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return word == ","
    return True


def _as_rows(values: Floats, shape: tuple[int, ...]) -> Floats:
    """Return a `table`, child slowest, as rows; child fastest where only that sums to one."""
    slowest, fastest = values.reshape(shape[1], shape[0]).T, values.reshape(shape)
    off = [np.abs(rows.sum(1) - 1).max() for rows in (slowest, fastest)]
    return fastest if off[0] >= _OFF > off[1] else slowest
