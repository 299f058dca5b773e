"""Which samples are learned from, chosen by and judged by: pure functions of the seed.

Symbols:
    n samples, k of them kept.
"""

import re

import torch
from torch import Tensor

from leadline.core import DataError, OptionError
from leadline.core.randomness import generator_for

__all__ = ["divided", "hidden", "stratified_order"]

HELD_OUT = 0.1
UNKNOWN = -1


def stratified_order(y: Tensor | None, n: int, seed: int, purpose: str) -> Tensor:
    """Return an order of n samples, each beginning of which holds the classes in proportion.

    Labels y (n,) are class numbers (unknown ones are a class here); None or real targets do not
    stratify. A class of one sample comes last. The order is a pure function of the arguments.
    """
    generator = generator_for(seed, purpose, n)
    noise = torch.rand(n, generator=generator, dtype=torch.float64)
    if y is None or y.is_floating_point():
        return noise.argsort(stable=True)
    shuffled = noise.argsort(stable=True)
    _, group = y.unique(return_inverse=True)
    sizes = group.bincount()
    by_class = shuffled[group[shuffled].argsort(stable=True)]  # class after class, random inside
    owner = group[by_class]
    rank = torch.arange(n) - (sizes.cumsum(0) - sizes)[owner]
    offset = torch.rand(len(sizes), generator=generator, dtype=torch.float64)
    key = (rank + offset[owner]) / sizes[owner]  # evenly spread over (0, 1) within each class
    key[sizes[owner] == 1] = 1.0
    return by_class[key.argsort(stable=True)]


def divided(y: Tensor | None, n: int, seed: int, parts: int) -> list[Tensor]:
    """Return the sorted indices of train and of `parts` held-out splits of a tenth each.

    Raises:
        DataError: If there are fewer samples than splits.
    """
    if n < parts + 1:
        few = "1 sample is" if n == 1 else f"{n} samples are"
        raise DataError(f"{few} too few for {parts + 1} splits; give at least {parts + 1}")
    size = max(1, round(n * HELD_OUT))
    order = stratified_order(y, n, seed, "split")
    held = [order[i * size : (i + 1) * size] for i in range(parts)]
    return [order[parts * size :].sort().values, *(index.sort().values for index in held)]


def hidden(y: Tensor, keep: str, seed: int) -> Tensor:
    """Return labels of which only some are known: `keep` is "5 per class" or "10%".

    Raises:
        OptionError: If `keep` has neither form, or asks for classes where there are none.
    """
    per_class = re.fullmatch(r"\s*(\d+)\s*per\s*class\s*", keep)
    percent = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", keep)
    classes = not y.is_floating_point()
    known = (y != UNKNOWN if classes else ~torch.isnan(y).any(-1)).nonzero().flatten()
    order = known[stratified_order(y[known], len(known), seed, "labels")]
    if per_class and classes:
        most = int(per_class[1])
        chosen = torch.cat([order[y[order] == value][:most] for value in y[known].unique()] or [order])
    elif percent and float(percent[1]) <= 100:
        chosen = order[: max(1, round(len(order) * float(percent[1]) / 100))]
    else:
        other = 'real targets take "10%"' if per_class else 'give "5 per class", "10%" or "none"'
        raise OptionError(f"labels={keep!r}: {other}")
    shown = torch.full_like(y, UNKNOWN if classes else torch.nan)
    shown[chosen] = y[chosen]
    return shown
