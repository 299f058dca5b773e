"""Batches for a training: a new order each epoch that is a pure function of the seed.

A step sees a portion of the samples, in one part or in several whose gradients are added up; a portion may
be gone through more than once.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from leadline.core.randomness import generator_for
from leadline.data import Split
from leadline.training.machine import Crew

__all__ = ["Feed", "Portion"]

_MOST_ON_DEVICE = 0.25

Part = tuple[Tensor, Tensor | None, float]  # samples, labels, what their mean loss counts
Portion = Iterable[Part]


class Feed:
    """The batches of one split, from any step on.

    Args:
        split: Samples to learn from; ones in memory are indexed, streamed ones decoded ahead.
        batch: Samples of one step, over all processes; of one part of a step if `entire`.
        seed: Seed of the order.
        phase: Name of the phase; each has its own order.
        device: Where batches go.
        crew: The processes that share a batch.
        augment: Random change of a batch of samples, or None.
        parts: Parts that a batch is cut into.
        entire: Whether a step takes the whole split, part by part, in its own order.
    """

    def __init__(  # noqa: PLR0913
        self,
        split: Split,
        batch: int,
        *,
        seed: int,
        phase: str,
        device: torch.device,
        crew: Crew,
        augment: Callable[[Tensor], Tensor] | None = None,
        parts: int = 1,
        entire: bool = False,
    ) -> None:
        self.split = _on_device(split, device)
        self.batch = min(batch, max(len(split), 1))
        self.per_epoch = 1 if entire else -(-len(split) // self.batch)
        self._seed = (seed, phase)
        self._device = device
        self._crew = crew
        self._augment = augment
        self._parts = parts
        self._entire = entire

    def steps(self, start: int) -> Iterator[Portion]:
        """Return the portion of each step from step `start` on, without end.

        The weights of a portion are what each part's mean loss counts in the mean over all samples of the
        step and over the processes.
        """
        while self._entire:
            yield _Everything(self)
        for part in self._read(self._places(start)):
            yield [part] if self._parts == 1 else _cut(part, self._parts)

    def everything(self) -> Iterator[Part]:
        """Return the whole split once, a part at a time."""
        n = len(self.split)
        return self._read(iter(torch.arange(n).split(self.batch)), n)

    def _read(self, places: Iterator[Tensor], total: int | None = None) -> Iterator[Part]:
        """Return the samples at `places`; weights are shares of `total`, or each batch stands for itself."""
        source = self._ahead(places) if self.split.streamed else self._direct(places)
        for x, y, at in source:
            weight = 1.0 if self._crew.size == 1 else self._crew.weight(at)
            weight = weight if total is None else weight * len(at) / total
            yield (x if self._augment is None else self._augment(x)), y, weight

    def _places(self, start: int) -> Iterator[Tensor]:
        """Return the global sample numbers of each step from `start` on."""
        epoch, offset = divmod(start, self.per_epoch)
        while True:
            generator = generator_for(self._seed[0], self._seed[1], epoch)
            order = torch.randperm(len(self.split), generator=generator)
            pieces = order.split(self.batch)
            yield from pieces[offset:]
            epoch, offset = epoch + 1, 0

    def _direct(self, every: Iterator[Tensor]) -> Iterator[tuple[Tensor, Tensor | None, Tensor]]:
        """Return batches of samples that are in memory, with their places."""
        data_x, data_y = self.split.x, self.split.y
        if not isinstance(data_x, Tensor):
            return
        alone, here = self._crew.size == 1, data_x.device
        for places in every:
            mine = places if alone else self._crew.share(places)
            mine = mine if here.type == "cpu" else mine.to(here)
            x = data_x.index_select(0, mine)
            y = None if data_y is None else data_y.index_select(0, mine)
            if here != self._device:
                x, y = x.to(self._device), None if y is None else y.to(self._device)
            yield x, y, places

    def _ahead(self, every: Iterator[Tensor]) -> Iterator[tuple[Tensor, Tensor | None, Tensor]]:
        """Return batches of streamed samples with their places, the next decoded while one is used."""

        def load(places: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
            x, y = self.split.rows(self._crew.share(places))
            return x.to(self._device), None if y is None else y.to(self._device), places

        with ThreadPoolExecutor(1) as pool:
            coming = pool.submit(load, next(every))
            for places in every:
                ready, coming = coming.result(), pool.submit(load, places)
                yield ready
            yield coming.result()


class _Everything:
    """The whole split as a portion: read anew each time it is gone through."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed

    def __iter__(self) -> Iterator[Part]:
        return self._feed.everything()


def _cut(part: Part, pieces: int) -> list[Part]:
    """Return a part cut into at most `pieces`, each with its share of the weight."""
    x, y, weight = part
    ys = [None] * pieces if y is None else y.chunk(pieces)
    pairs = zip(x.chunk(pieces), ys, strict=False)
    return [(some, labels, weight * len(some) / len(x)) for some, labels in pairs]


def _on_device(split: Split, device: torch.device) -> Split:
    """Return the split with samples in memory moved to a GPU where they fit easily."""
    if device.type != "cuda" or not isinstance(split.x, Tensor):
        return split
    free, _ = torch.cuda.mem_get_info(device)
    if split.x.numel() * split.x.element_size() > _MOST_ON_DEVICE * free:
        return split
    return Split(split.x.to(device), None if split.y is None else split.y.to(device))
