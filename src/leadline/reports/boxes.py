"""A variable as a box with its name and its marginal as bars."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from leadline.reports.drawing import INK, PALETTE

__all__ = ["MARKED", "Box", "Shape", "bare", "cut", "percent"]

MARKED = PALETTE[5]
_MOST_STATES = 5
_LINE, _LEAST_WIDE, _MOST_WIDE = 0.19, 1.5, 2.6  # inches: a line of a box; least and most width
_LETTER, _POINTS, _LEAST_POINTS = (
    0.083,
    8.0,
    6.5,
)  # inches a letter of a name takes at most, in bold of 8 points
_SMALL, _BAR, _SHARE = 0.06, 0.38, 0.30  # inches: a letter of a state, a full bar at least, a share as text


@dataclass(frozen=True)
class Shape:
    """The size that all boxes of a figure share, in inches, and what of their texts fits.

    Args:
        wide: Width of a box.
        lines: Lines under the name, one a bar.
        points: Size of the names, in points.
        letters: Most letters of a name.
        room: Width for the names of states.
    """

    wide: float
    lines: int
    points: float
    letters: int
    room: float

    @classmethod
    def of(cls, names: Sequence[str], states: Sequence[Sequence[str]] = ()) -> "Shape":
        """Return a shape for these names, and where there are states for a bar each; long ones are cut."""
        most = _MOST_WIDE
        while (shape := cls._within(most, names, states))._confuses(names, states):
            most += 0.3
        return shape

    @classmethod
    def _within(cls, most: float, names: Sequence[str], states: Sequence[Sequence[str]]) -> "Shape":
        """Return a shape of at most that width."""
        longest = max(map(len, names), default=0)
        wide = min(max(_LEAST_WIDE, 0.15 + _LETTER * longest), most)
        points = _POINTS * (wide - 0.1) / max(_LETTER * longest, 1e-9)
        points = max(_LEAST_POINTS, min(_POINTS, points))
        letters = int((wide - 0.1) / (_LETTER * points / _POINTS))
        label = max((len(str(s)) for some in states for s in some), default=0)
        if states:
            wide = min(max(wide, 0.18 + _SMALL * (label + 1) + _BAR + _SHARE), most)
        lines = min(_MOST_STATES, max(map(len, states), default=0))
        if any(len(some) > _MOST_STATES for some in states):
            label = max(label, len("999 others"))
        room = min(_SMALL * (label + 1), wide - 0.18 - _BAR - _SHARE)
        return cls(wide, lines, points, letters, room)

    def _confuses(self, names: Sequence[str], states: Sequence[Sequence[str]]) -> bool:
        """Return whether two variables, or two states of one, look the same once they are cut."""
        few = int(self.room / _SMALL)
        lists = [(names, self.letters), *((tuple(map(str, some)), few) for some in states)]
        return any(len({cut(one, most) for one in some}) < len(set(some)) for some, most in lists)

    @property
    def above(self) -> float:
        """Return the way from the middle of the name up to the edge of the box."""
        return _LINE * 0.65

    @property
    def below(self) -> float:
        """Return the way from the middle of the name down to the edge of the box."""
        return _LINE * (0.65 + self.lines)


class Box:
    """A variable on the page; its place is the middle of its name."""

    def __init__(self, place: Any, x: float, y: float, shape: Shape, *, marked: bool = False) -> None:
        self.place, self.x, self.y, self.shape = place, x, y, shape
        place.add_patch(
            FancyBboxPatch(
                (x - shape.wide / 2, y - shape.below), shape.wide, shape.above + shape.below,
                boxstyle="round,pad=0,rounding_size=0.05", facecolor="white",
                edgecolor=MARKED if marked else INK, linewidth=1.6 if marked else 0.8, zorder=2,
            )
        )  # fmt: skip

    def title(self, text: str) -> None:
        """Write the name."""
        self._write(self.x, self.y, cut(text, self.shape.letters), self.shape.points, "center", weight="bold")

    def bars(self, states: Sequence[str], shares: Sequence[float], seen: int | None) -> None:
        """Draw a bar a state; where there are many, the likeliest and the sum of the rest."""
        rows = [(str(s), float(p), i == seen) for i, (s, p) in enumerate(zip(states, shares, strict=True))]
        if len(rows) > _MOST_STATES:
            rows = sorted(rows, key=lambda row: -row[1])
            rest = rows[_MOST_STATES - 1 :]
            rows = [*rows[: _MOST_STATES - 1], (f"{len(rest)} others", sum(row[1] for row in rest), False)]
        left, room = self.x - self.shape.wide / 2 + 0.06, self.shape.room
        start = left + room + 0.04
        full = self.shape.wide - room - 0.13 - _SHARE
        for line, (name, share, marked) in enumerate(rows):
            y = self.y - _LINE * (line + 1)
            self._write(left, y, cut(name, int(room / _SMALL)), 6.5, "left")
            for wide, colour in ((full, "#E8E8E8"), (full * share, MARKED if marked else PALETTE[0])):
                self.place.fill_between(
                    [start, start + wide], y - 0.06, y + 0.06, color=colour, linewidth=0, zorder=3
                )
            self._write(start + full + 0.03, y, percent(share), 6, "left")

    def _write(self, x: float, y: float, text: str, points: float, side: str, **look: Any) -> None:
        self.place.text(
            x, y, text, ha=side, va="center", fontsize=points, zorder=3, color="black", **look
        )  # fmt: skip


def cut(text: str, most: int) -> str:
    """Return a text of at most `most` letters: of a long one both ends, which tell it apart."""
    if len(text) <= most:
        return text
    end = (most - 1) // 2
    return f"{text[: most - 1 - end]}…{text[len(text) - end :]}"


def percent(share: float) -> str:
    """Return a share in whole percent that calls only what is certain 0% or 100%."""
    if 0 < share < 0.005:
        return "<1%"
    return ">99%" if 0.995 <= share < 1 else f"{100 * share:.0f}%"


def bare(figure: Figure) -> Any:
    """Return axes without any frame, a unit as long across as up."""
    place = figure.subplots()
    place.set_facecolor("none")
    place.set_aspect("equal")
    place.set_axis_off()
    return place
