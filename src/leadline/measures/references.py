r"""Density without training: an independent histogram per dimension, and the uniform distribution.

Finite dimensions are counted with one more of every value. A real column takes a histogram h whose bins
numpy's rule "auto" chooses on the train split, and one more observation spread as a normal, so that no
value is impossible: p(x) = (n h(x) + N(x; mean, scale^2)) / (n + 1). A count above the largest seen in
training takes the mass of that one more, halved at each step. Tokens are counted over all places.

Symbols:
    n training samples, d dimensions, v a value, q the number of values of a dimension.

Source:
    Add-one smoothing: Laplace (1814). Bins: Freedman and Diaconis (1981); Sturges (1926).
"""

import math
from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor, nn

from leadline.core import Density, Domain, Tokens
from leadline.data import Dataset
from leadline.measures.answers import answers, split_of
from leadline.measures.density import density_of_rows
from leadline.measures.reading import Reading

__all__ = ["Histogram", "Uniform", "density_references"]

_LOG_2PI = math.log(2 * math.pi)
MOST_TRAIN = 20_000


def density_references(data: Dataset) -> dict[str, Reading]:
    """Return the readings of "histogram" and "uniform" on the test split.

    The uniform distribution of real columns lives on the box of the train split: a test sample outside
    makes its mean minus infinity, and the notes count them. Unbounded counts have no uniform line.
    """
    if -1 in data.domain.shape:  # samples of unequal lengths have no dimension in common
        return {}
    lines: dict[str, nn.Module] = {"histogram": Histogram(data)}
    if data.domain.cardinalities is not None or data.domain.dtype.is_floating_point:
        lines["uniform"] = Uniform(data)
    part = split_of(data, "test")
    return {
        name: density_of_rows(answers(line, "log_prob", part), data.domain, line.density)  # type: ignore[arg-type]
        for name, line in lines.items()
    }


class _Column(ABC):
    """One dimension of a histogram."""

    @abstractmethod
    def log_prob(self, x: Tensor) -> Tensor:
        """Return log p of raw values in nats: (n,) -> (n,)."""

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator | None) -> Tensor:
        """Return raw values, (n,)."""


class _Counted(_Column):
    """Add-one counts of q values; `open_ended` gives the last one a tail that halves at each step."""

    def __init__(self, x: Tensor, values: int, *, open_ended: bool = False) -> None:
        share = torch.bincount(x.long().flatten(), minlength=values).double() + 1
        self.share = share / share.sum()
        self.open_ended = open_ended

    def log_prob(self, x: Tensor) -> Tensor:
        last = len(self.share) - 1
        log_share = self.share.log()[x.long().clamp(max=last)]
        if not self.open_ended:
            return log_share
        # p(last + t) = share(last) / 2^(t + 1), t = 0, 1, ...
        return log_share - torch.where(x >= last, (x - last + 1).double() * math.log(2), 0.0)

    def sample(self, n: int, generator: torch.Generator | None) -> Tensor:
        return torch.multinomial(self.share, n, replacement=True, generator=generator)


class _Binned(_Column):
    """A histogram density of a real column with one more observation spread as a normal."""

    def __init__(self, x: Tensor) -> None:
        values = x.double()
        self.count = len(values)
        self.mean = float(values.mean())
        deviation = float(values.std()) if self.count > 1 else 0.0
        self.scale = deviation if deviation > 0 else 1.0
        edges = np.histogram_bin_edges(values.numpy(), bins="auto")
        heights = np.histogram(values.numpy(), bins=edges)[0]
        self.edges = torch.from_numpy(edges)
        self.heights = torch.from_numpy(heights).double() / self.count  # mass of each bin

    def log_prob(self, x: Tensor) -> Tensor:
        values = x.double()
        cell = (torch.bucketize(values, self.edges, right=True) - 1).clamp(0, len(self.heights) - 1)
        inside = (values >= self.edges[0]) & (values <= self.edges[-1])
        binned = torch.where(inside, (self.heights / self.edges.diff())[cell], 0.0)
        normal = -0.5 * ((values - self.mean) / self.scale).square() - math.log(self.scale) - 0.5 * _LOG_2PI
        return torch.logaddexp(binned.log() + math.log(self.count), normal) - math.log(self.count + 1)

    def sample(self, n: int, generator: torch.Generator | None) -> Tensor:
        cell = torch.multinomial(self.heights, n, replacement=True, generator=generator)
        place = torch.rand(n, generator=generator, dtype=torch.float64)
        return self.edges[cell] + place * self.edges.diff()[cell]


class Histogram(nn.Module):
    """Independent dimensions, each with the histogram of at most 20,000 training samples.

    Verbs:
        log_prob, sample

    Args:
        data: The data whose train split is counted.
    """

    def __init__(self, data: Dataset) -> None:
        super().__init__()
        self.domain = data.domain
        x = split_of(data, "train").head(MOST_TRAIN).x
        rows: Tensor = x.flatten(1)  # type: ignore[union-attr]
        self.columns = _columns(data.domain, rows)
        bins = " (real columns: bins by numpy's auto rule)" if data.domain.dtype.is_floating_point else ""
        self.density = Density(
            protocol=f"independent dimensions, add-one counts of {len(rows)} samples{bins}"
        )

    def log_prob(self, x: Tensor) -> Tensor:
        """Return log p(x) of each row, in nats: (n, *shape) -> (n,)."""
        rows = self.domain.checked(x).flatten(1)
        each = [column.log_prob(rows[:, place]) for place, column in enumerate(self.columns)]
        return torch.stack(each, 1).sum(1)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Return `n` independent draws of raw samples, (n, *shape)."""
        each = [column.sample(n, generator) for column in self.columns]
        return torch.stack(each, 1).to(self.domain.dtype).view(n, *self.domain.shape)


def _columns(domain: Domain, rows: Tensor) -> list[_Column]:
    """Return the histogram of every dimension of training samples (n, d)."""
    if isinstance(domain, Tokens):
        return [_Counted(rows, len(domain.vocabulary))] * domain.dims
    return [_column(domain.column(place), rows[:, place]) for place in range(domain.dims)]


def _column(domain: Domain, x: Tensor) -> _Column:
    if domain.cardinalities is not None:
        return _Counted(x, domain.cardinalities[0])
    if domain.dtype.is_floating_point:
        return _Binned(x)
    return _Counted(x, int(x.max()) + 2, open_ended=True)


class Uniform(nn.Module):
    """Every value of a finite domain alike; of real columns, every point in the box of the train split.

    Verbs:
        log_prob

    Args:
        data: The data whose domain or box is meant.
    """

    def __init__(self, data: Dataset) -> None:
        super().__init__()
        self.domain = data.domain
        x = split_of(data, "train").head(MOST_TRAIN).x
        rows: Tensor = x.flatten(1)  # type: ignore[union-attr]
        self.low, self.high, log_volume = _box(data.domain, rows)
        self.log_density = -log_volume
        real = data.domain.dtype.is_floating_point
        self.density = Density(protocol="uniform over " + ("the train box" if real else "all values"))

    def log_prob(self, x: Tensor) -> Tensor:
        """Return log p(x) of each row, in nats: (n, *shape) -> (n,)."""
        rows = self.domain.checked(x).flatten(1).double()
        inside = ((rows >= self.low) & (rows <= self.high)).all(1)
        return torch.where(inside, rows.new_tensor(self.log_density), -math.inf)


def _box(domain: Domain, rows: Tensor) -> tuple[Tensor, Tensor, float]:
    """Return the ends of each dimension and the log of the number of values, or of the volume."""
    low, high, log_volume = [], [], 0.0
    for place in range(domain.dims):
        values = domain.column(place).cardinalities
        ends = (
            (0.0, values[0] - 1.0) if values else (float(rows[:, place].min()), float(rows[:, place].max()))
        )
        low.append(ends[0])
        high.append(ends[1])
        log_volume += math.log(values[0]) if values else _log_length(ends)
    return torch.tensor(low).double(), torch.tensor(high).double(), log_volume


def _log_length(ends: tuple[float, float]) -> float:
    """Return the log of a length; a constant column counts as length 1."""
    return math.log(ends[1] - ends[0]) if ends[1] > ends[0] else 0.0
