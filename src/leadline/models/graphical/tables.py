"""Where the tables of a Bayesian network lie, one after another, and their product at given states."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Family", "families_of", "family_counts", "log_product"]


class Family(NamedTuple):
    """A variable, its parents with their sizes, and where its table lies among all."""

    child: int
    parents: tuple[int, ...]
    start: int
    length: int
    sizes: tuple[int, ...]

    def rows(self, x: Tensor) -> Tensor:
        """Return which row of the table the parents' states choose: (n, d) -> (n,)."""
        row = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        for p, size in zip(self.parents, self.sizes, strict=True):
            row = row * size + x[:, p]
        return row

    def places(self, x: Tensor) -> Tensor:
        """Return which entry of the table the states of all its variables choose: (n, d) -> (n,)."""
        return self.rows(x) * (self.length // math.prod(self.sizes)) + x[:, self.child]


def families_of(parents: Sequence[Sequence[int]], sizes: Sequence[int]) -> list[Family]:
    """Return each variable with its parents and where its table lies."""
    found, start = [], 0
    for v, above in enumerate(parents):
        length = math.prod(sizes[u] for u in (*above, v))
        found.append(Family(v, tuple(above), start, length, tuple(sizes[p] for p in above)))
        start += length
    return found


def family_counts(families: Sequence[Family], x: Tensor) -> list[Tensor]:
    """Return how many complete rows (n, d) are in each entry of each table, float64, one after another."""
    return [torch.bincount(family.places(x), minlength=family.length).double() for family in families]


def log_product(families: Sequence[Family], logs: Tensor, x: Tensor) -> Tensor:
    """Return the sum of the tables' logs (one flat tensor) at complete rows, in nats: (n, d) -> (n,)."""
    total = torch.zeros(len(x), dtype=logs.dtype, device=logs.device)
    for family in families:
        total += logs[family.start + family.places(x)]
    return total
