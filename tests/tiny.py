"""Small data sets, one of each domain, made in memory; models moved off their start."""

from typing import TypeVar

import torch
from torch import Tensor, nn

from leadline.core import (
    Audio,
    Bits,
    Categories,
    Classes,
    Counts,
    Domain,
    Images,
    Labels,
    Ragged,
    Table,
    Targets,
    Tokens,
    Vectors,
)
from leadline.data import Dataset, Split

TRAIN, REST = 120, 30
EVEN = ("images", "bits", "vectors", "targets", "categories", "table", "tokens", "counts")  # of one size
KINDS = (*EVEN, "audio")


M = TypeVar("M", bound=nn.Module)


def moved(model: M, scale: float = 1.0) -> M:
    """Return a model in float64 whose parameters are draws, so that zeros and ones hide nothing."""
    source = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(scale * torch.empty(parameter.shape).normal_(generator=source))
    return model.double()


def tiny(kind: str) -> Dataset:
    """Return 120 + 30 + 30 samples whose distribution depends on one of three classes."""
    generator = torch.Generator().manual_seed(7)
    n = TRAIN + 2 * REST
    y = torch.arange(n) % 3
    noise = torch.randn(n, 16, generator=generator)
    level = noise + (y - 1.0)[:, None]  # (n, 16), shifted by class
    domain, x = _samples(kind, level)
    labels: Labels | None = Classes(("low", "middle", "high"))
    target: Tensor | None = y
    if kind == "targets":
        target = (3 * x[:, :1] + 5).float()
        labels = Targets(("t",), (float(target.mean()),), (float(target.std()),))
    if kind == "tokens":
        labels, target = None, None

    def split(start: int, stop: int) -> Split:
        return Split(x[start:stop], None if target is None else target[start:stop])

    return Dataset(
        name=f"tiny-{kind}",
        domain=domain,
        labels=labels,
        train=split(0, TRAIN),
        valid=split(TRAIN, TRAIN + REST),
        test=split(TRAIN + REST, n),
    )


def _samples(kind: str, level: Tensor) -> tuple[Domain, Tensor]:
    if kind == "images":
        return Images(1, 4, 4, 4), level.add(2).clamp(0, 3).to(torch.uint8).view(-1, 1, 4, 4)
    if kind == "bits":
        return Bits((1, 3, 3)), (level[:, :9] > 0).to(torch.uint8).view(-1, 1, 3, 3)
    if kind in ("vectors", "targets"):
        x = torch.stack([level[:, 0], level[:, 0] + 0.5 * level[:, 1], level[:, 2]], 1)
        x = x * torch.tensor([2.0, 0.5, 10.0]) + torch.tensor([0.0, 100.0, -30.0])
        return Vectors(("a", "b", "c"), tuple(x.mean(0).tolist()), tuple(x.std(0).tolist())), x
    sizes = torch.tensor([2, 3, 4])
    codes = (level[:, :3].add(1.5).clamp(0, 2.99) / 3 * sizes).long()
    categories = Categories((2, 3, 4), ("p", "q", "r"), (("a", "b"), ("a", "b", "c"), ("a", "b", "c", "d")))
    if kind == "categories":
        return categories, codes
    if kind == "table":
        reals = level[:, 4:6] * 3 + 20
        vectors = Vectors(("u", "v"), tuple(reals.mean(0).tolist()), tuple(reals.std(0).tolist()))
        return Table(vectors, categories), torch.cat([reals, codes.float()], 1)
    return _sounds(level) if kind == "audio" else _words(kind, level)


def _sounds(level: Tensor) -> tuple[Domain, Tensor]:
    """Return tones whose pitch follows the class, 30 to 80 ms long, at 1000 samples a second."""
    rows = []
    for row in level:
        length = 30 + int(row[0].abs().clamp(max=2.5) * 20)
        pitch = 60 + 60 * (row.mean() + 1.5)
        wave = (
            torch.sin(2 * torch.pi * pitch * torch.arange(length) / 1000)
            + 0.05 * row[torch.arange(length) % 16]
        )
        rows.append((wave * 8000).to(torch.int16))
    return Audio(1000), Ragged.of(rows)


def _words(kind: str, level: Tensor) -> tuple[Domain, Tensor]:
    if kind == "tokens":
        return Tokens(tuple("abcde"), 6), level[:, :6].add(2.5).clamp(0, 4).long()
    return Counts(tuple("abcd")), level[:, :4].exp().round().long()
