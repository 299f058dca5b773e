"""What a reader is asked for, and what it found, before it becomes a data set.

Symbols:
    n samples, D targets.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from leadline.core import DataError, Domain, Vectors
from leadline.data.dataset import MOST_MEASURED, Split, moments

__all__ = ["Ask", "Faults", "Found", "Part", "numbered", "vectors_of"]

MOST_LINES, MOST_ALIKE = 20, 3


@dataclass
class Faults:
    """What is wrong with a source: a bad sample stops the reading, or is left out and counted.

    Args:
        skip: Whether to go on without bad samples.
        skipped: How many were left out.
        lines: The first of them, and notes, a line each.
    """

    skip: bool = False
    skipped: int = 0
    lines: list[str] = field(default_factory=list)

    def bad(self, where: Sequence[str], what: str, otherwise: str = "") -> None:
        """Leave out the samples at the places `where`, which share one fault; say what else could be done.

        Raises:
            DataError: If bad samples are not to be left out; the first place is named.
        """
        if not where:
            return
        if not self.skip:
            more = f" (and {len(where) - 1} more)" if len(where) > 1 else ""
            raise DataError(
                f"{where[0]}: {what}{more}; mend it, {otherwise}{', ' * bool(otherwise)}or leave it out with "
                "skip_bad=True (--skip-bad)"
            )
        self.skipped += len(where)
        named = where[: min(MOST_ALIKE, MOST_LINES - len(self.lines))]
        self.lines += [f"{place}: {what}" for place in named]
        if named and len(where) > len(named):
            self.lines[-1] += f" (and {len(where) - len(named)} more)"

    def note(self, line: str) -> None:
        """Write down what is worth knowing and stops nothing."""
        self.lines.append(line)


@dataclass(frozen=True)
class Ask:
    """What is asked of every reader.

    Args:
        seed: What the choice of samples is a pure function of.
        limit: Most samples to keep, or None.
        faults: Where to tell of bad samples.
    """

    seed: int = 0
    limit: int | None = None
    faults: Faults = field(default_factory=Faults)


@dataclass(frozen=True)
class Part:
    """Samples that a source keeps together: all of them, or a split that it gives.

    Args:
        data: Samples and labels.
        place: Return the file and the row of a sample, for messages.
    """

    data: Split
    place: Callable[[int], str]


@dataclass(frozen=True)
class Found:
    """What a reader found.

    Args:
        name: Short name.
        parts: By "train", "valid" and "test"; "train" alone if the source gives no splits.
        domain: Return the domain, given the training split.
        classes: Names of the classes, if the labels are classes.
        targets: Names of the targets, if the labels are real numbers.
        chosen: Options that the reader settled, to be settled alike another time.
    """

    name: str
    parts: dict[str, Part]
    domain: Callable[[Split], Domain]
    classes: tuple[str, ...] | None = None
    targets: tuple[str, ...] | None = None
    chosen: dict[str, bool] = field(default_factory=dict)


def numbered(name: str, kind: str = "sample", start: int = 0) -> Callable[[int], str]:
    """Return the function that calls sample i of a file `name, sample (start + i)`."""
    return lambda i: f"{name}, {kind} {start + i}"


def vectors_of(columns: tuple[str, ...]) -> Callable[[Split], Domain]:
    """Return the function that makes the domain of real columns, moments from the training split."""

    def domain(train: Split) -> Domain:
        x = train.x if isinstance(train.x, Tensor) else train.head(MOST_MEASURED).x
        return Vectors(columns, *moments(x))  # type: ignore[arg-type]

    return domain
