"""Data whose inputs or labels mean nothing any more, and a net that fits them by construction.

Source:
    Zhang, Bengio, Hardt, Recht and Vinyals (2017), Understanding deep learning requires rethinking
    generalization, ICLR, section 2 and Theorem 1.
"""

from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from leadline.core import Classes, Vectors
from leadline.core.randomness import generator_for
from leadline.data import Dataset, Split

__all__ = ["SETTINGS", "corrupted", "interpolation_error"]

SETTINGS = ("true labels", "shuffled pixels", "random pixels", "noise", "random labels")
INTERPOLATED = 500


def corrupted(data: Dataset, setting: str, seed: int) -> Dataset:
    """Return the data in one setting; test samples keep their true labels."""
    source = generator_for(seed, "changed")
    if setting == "true labels":
        return data
    if setting == "random labels":
        y = cast(Tensor, data.train.y)
        drawn = torch.randint(cast(Classes, data.labels).outputs, y.shape, generator=source)
        return replace(data, train=Split(data.train.x, drawn), valid=data.test)
    order = torch.randperm(data.domain.dims, generator=source)

    def rearranged(x: Tensor) -> Tensor:
        real = isinstance(data.domain, Vectors)
        flat = data.domain.features(x) if real else x.flatten(1).float()
        if setting == "shuffled pixels":
            flat = flat[:, order]
        elif setting == "random pixels":
            flat = flat.gather(1, torch.rand(flat.shape, generator=source).argsort(1))
        else:
            flat = flat.mean() + flat.std() * torch.randn(flat.shape, generator=source)
        if real:
            return data.domain.quantize(flat)
        top = cast(tuple[int, ...], data.domain.cardinalities)[0] - 1
        return flat.round().clamp(0, top).to(x.dtype).view_as(x)

    return replace(
        data, train=data.train.mapped(rearranged), test=data.test.mapped(rearranged), valid=data.test
    )


def interpolation_error(data: Dataset, most: int = INTERPOLATED) -> float:
    """Return the largest residual of the two-layer ReLU net with 2 n + d weights on random labels.

    With z = a . x sorted and b_1 < z_1 < b_2 < z_2 ..., relu(z_i - b_j) is lower triangular (Theorem 1).
    """
    x = data.domain.features(cast(Tensor, data.train.head(most).x)).double().unique(dim=0)
    source = generator_for(0, "interpolation")
    z = (x @ torch.randn(x.shape[1], generator=source).double()).sort().values  # d weights a
    y = torch.randint(2, (len(z),), generator=source).double() * 2 - 1
    b = torch.cat([z[:1] - 1, (z[1:] + z[:-1]) / 2])  # n biases
    hidden = (z[:, None] - b).clamp(min=0)  # (n, n)
    w = torch.linalg.solve_triangular(hidden, y[:, None], upper=False)  # n weights
    return float((hidden @ w - y[:, None]).abs().max())
