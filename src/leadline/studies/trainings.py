"""Trainings that studies share: on labelled samples in memory, until a goal is reached."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from leadline.catalog import build
from leadline.core import Classes, DomainError, OptionError
from leadline.core.randomness import derive_seed
from leadline.data import Dataset, Split
from leadline.training import fit

__all__ = ["accuracy_of", "fit_until", "labelled", "started"]

TESTED = 10_000


class _Reached(Exception):  # noqa: N818 - it ends a training that has reached its goal
    """The goal is reached."""


def labelled(data: Dataset, study: str, samples: int) -> Dataset:
    """Return the labelled part of the data in memory, at most `samples` of its training split.

    Raises:
        DomainError: If the data have no classes.
        OptionError: If `samples` is below 1.
    """
    if not isinstance(data.labels, Classes):
        raise DomainError(f"{study} needs classes, but {data.name} has none; load data with labels")
    if samples < 1:
        raise OptionError(f"samples must be at least 1, got {samples}")
    parts = []
    for split, most in ((data.train, samples), (data.test, TESTED)):
        kept = split.head(most)
        known = cast(Tensor, kept.y) >= 0
        parts.append(Split(cast(Tensor, kept.x)[known], cast(Tensor, kept.y)[known]))
    return replace(data, train=parts[0], test=parts[1], valid=Split(*parts[1].rows(torch.arange(1))))


def started(data: Dataset, model: str, options: dict[str, Any], seed: int) -> nn.Module:
    """Return a new model of the catalog, a pure function of the seed."""
    torch.manual_seed(derive_seed(seed, "start"))
    return build(model, data, **options)


def fit_until(
    net: nn.Module,
    data: Dataset,
    goal: Callable[[nn.Module], bool],
    *,
    steps: int,
    every: int,
    seed: int,
    **training: Any,
) -> int | None:
    """Train a net in place until it reaches a goal; return the steps taken, None if it never did.

    Args:
        net: The net.
        data: What it learns from.
        goal: Whether the goal is reached, asked every `every` steps.
        steps: Most steps.
        every: Steps between two questions.
        seed: Seed of the training.
        **training: Further options of `leadline.fit`.
    """
    reached: list[int] = []

    def probe(net: nn.Module, step: int) -> dict[str, float]:
        if goal(net):
            reached.append(step)
            raise _Reached
        return {}

    try:
        fit(
            net, data, steps=steps, seed=seed, select="last", out=False, progress=False, threads=1,
            probe=probe, probe_every=every, **training,
        )  # fmt: skip
    except _Reached:
        net.eval()
    return reached[0] if reached else None


def accuracy_of(net: nn.Module, split: Split, rows: int = 1024) -> float:
    """Return the share of samples whose most probable class is their label."""
    with torch.no_grad():
        right = [
            cast(Any, net).predict(x).argmax(1) == y
            for x, y in zip(cast(Tensor, split.x).split(rows), cast(Tensor, split.y).split(rows), strict=True)
        ]
    return float(torch.cat(right).double().mean())
