"""What a data set holds, in plain values and in words."""

import math
from dataclasses import asdict, dataclass
from textwrap import shorten
from typing import Any

import torch
from torch import Tensor

from leadline.core import Classes, Targets
from leadline.data.dataset import Dataset, Split, Stream

__all__ = ["Description", "describe"]

MOST_CLASSES = 20
MOST_PROBLEMS = 10
SHOWN = 2
LONGEST = 100


@dataclass(frozen=True)
class Description:
    """What a data set holds.

    Args:
        name: Short name.
        source: The name or path that was loaded.
        domain: What one sample is.
        labels: What a label is: "classes", "targets" or "none".
        sizes: Number of samples of each split.
        classes: Number of samples of each class in each split.
        unknown: Number of samples of each split without a known label.
        targets: Least and greatest value of each target.
        fingerprint: Changes when any sample or label changes.
        bytes: Size of all samples, decoded.
        streamed: Whether samples are decoded on demand.
        skipped: Number of bad samples left out.
        problems: What was found wrong or odd, a line each.
        samples: Two training samples as text.
    """

    name: str
    source: str
    domain: str
    labels: str
    sizes: dict[str, int]
    classes: dict[str, dict[str, int]]
    unknown: dict[str, int]
    targets: dict[str, tuple[float, float]]
    fingerprint: str
    bytes: int
    streamed: bool
    skipped: int
    problems: tuple[str, ...]
    samples: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the description as plain JSON values."""
        plain = asdict(self)
        plain["targets"] = {name: list(ends) for name, ends in self.targets.items()}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}

    def __str__(self) -> str:
        """Return the description as lines of text."""
        held = f"{self.bytes / 1e6:.1f} MB, " + ("decoded on demand" if self.streamed else "in memory")
        lines = [
            f"{self.name}: {self.domain}",
            "  samples      "
            + ", ".join(f"{split} {size}" for split, size in self.sizes.items())
            + f" ({held})",
            f"  labels       {self._labels()}",
            *(f"    {line}" for line in self._label_lines()),
            f"  fingerprint  {self.fingerprint}",
            *(f"  sample       {shorten(text, LONGEST)}" for text in self.samples),
        ]
        if self.skipped:
            lines.append(f"  left out     {self.skipped} bad samples")
        lines += [f"  problem      {line}" for line in self.problems[:MOST_PROBLEMS]]
        if len(self.problems) > MOST_PROBLEMS:
            lines.append(f"  and {len(self.problems) - MOST_PROBLEMS} more problems")
        return "\n".join(lines)

    def _labels(self) -> str:
        unknown = 0 if self.labels == "none" else sum(self.unknown.values())
        count = {"classes": f" ({len(self.classes)})", "targets": f" ({len(self.targets)})"}.get(
            self.labels, ""
        )
        return f"{self.labels}{count}" + (f", {unknown} unknown" if unknown else "")

    def _label_lines(self) -> list[str]:
        named = [f"{name}: {sum(counts.values())}" for name, counts in self.classes.items()]
        rest = [f"and {len(named) - MOST_CLASSES} more"] if len(named) > MOST_CLASSES else []
        ranges = [f"{name}: {low:.6g} to {high:.6g}" for name, (low, high) in self.targets.items()]
        return [*named[:MOST_CLASSES], *rest, *ranges]


def describe(data: Dataset) -> Description:
    """Return what `data` holds."""
    splits = {"train": data.train, "valid": data.valid, "test": data.test}
    kind = "none" if data.labels is None else "classes" if isinstance(data.labels, Classes) else "targets"
    return Description(
        name=data.name,
        source=data.source,
        domain=str(data.domain),
        labels=kind,
        sizes={name: len(split) for name, split in splits.items()},
        classes=_classes(data.labels, splits) if isinstance(data.labels, Classes) else {},
        unknown={name: _unknown(data, split) for name, split in splits.items()},
        targets=_targets(data.labels, splits) if isinstance(data.labels, Targets) else {},
        fingerprint=data.fingerprint,
        bytes=sum(_bytes(split, data.domain.dtype.itemsize, data.domain.shape) for split in splits.values()),
        streamed=data.train.streamed,
        skipped=data.skipped,
        problems=data.problems,
        samples=tuple(data.domain.show(sample) for sample in _tensor(data.train.head(SHOWN))),
    )


def _bytes(split: Split, size: int, shape: tuple[int, ...]) -> int:
    """Return the size of the samples of a split, decoded."""
    if isinstance(split.x, Stream):
        lengths = split.x.lengths
        return size * (len(split) * math.prod(shape) if lengths is None else int(lengths.sum()))
    return split.x.numel() * split.x.element_size()


def _tensor(split: Split) -> list[Tensor]:
    """Return the samples of a split in memory, one by one."""
    return list(split.x[torch.arange(len(split))])


def _classes(labels: Classes, splits: dict[str, Split]) -> dict[str, dict[str, int]]:
    """Return the number of samples of each class in each split."""
    counts = {
        name: split.y[split.y >= 0].bincount(minlength=len(labels.names)).tolist()
        for name, split in splits.items()
        if split.y is not None
    }
    return {title: {name: row[i] for name, row in counts.items()} for i, title in enumerate(labels.names)}


def _unknown(data: Dataset, split: Split) -> int:
    """Return the number of samples without a known label."""
    if data.labels is None or split.y is None:
        return len(split)
    return int((~data.labels.known(split.y)).sum())


def _targets(labels: Targets, splits: dict[str, Split]) -> dict[str, tuple[float, float]]:
    """Return the least and the greatest known value of each target."""
    y = torch.cat([split.y for split in splits.values() if split.y is not None])
    known = ~torch.isnan(y)
    low, high = torch.where(known, y, torch.inf).amin(0), torch.where(known, y, -torch.inf).amax(0)
    return {name: (float(low[i]), float(high[i])) for i, name in enumerate(labels.names)}
