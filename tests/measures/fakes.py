"""Models whose figures are known: each says what it is told."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from leadline.core import Bits, Classes, Domain, Labels, Vectors
from leadline.data import Dataset, Split


class Says(nn.Module):
    """A model with the verbs that it is given as functions of x."""

    def __init__(self, **verbs: Callable[..., Tensor]) -> None:
        super().__init__()
        for name, function in verbs.items():
            setattr(self, name, function)


class Repeats(nn.Module):
    """A sampler that gives rows of `x`, in their order."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.x = x

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return self.x[:n]


class Picks(nn.Module):
    """A sampler that gives rows of `x`, drawn with replacement."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.x = x

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return self.x[torch.randint(len(self.x), (n,), generator=generator)]


def dataset(
    x: Tensor,
    y: Tensor | None = None,
    *,
    domain: Domain | None = None,
    labels: Labels | None = None,
    test: int = 0,
    name: str = "made",
) -> Dataset:
    """Return data whose last `test` rows (a third if 0) are for test, as many before them for valid."""
    count = test or len(x) // 3
    first, second = len(x) - 2 * count, len(x) - count
    if y is not None and labels is None:
        labels = Classes(tuple(f"c{i}" for i in range(max(int(y.max()) + 1, 1))))
    return Dataset(
        name,
        domain or (Vectors.standard(x.shape[1]) if x.is_floating_point() else Bits(tuple(x.shape[1:]))),
        labels,
        *(
            Split(x[start:stop], None if y is None else y[start:stop])
            for start, stop in ((0, first), (first, second), (second, len(x)))
        ),
    )
