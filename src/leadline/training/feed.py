"""Batches for a training: a new order each epoch that is a pure function of the seed."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from leadline.core.randomness import generator_for
from leadline.data import Split
from leadline.training.machine import Crew

__all__ = ["Feed"]

_MOST_ON_DEVICE = 0.25


class Feed:
    """The batches of one split, from any step on.

    Args:
        split: Samples to learn from; ones in memory are indexed, streamed ones decoded ahead.
        batch: Samples of one step, over all processes.
        seed: Seed of the order.
        phase: Name of the phase; each has its own order.
        device: Where batches go.
        crew: The processes that share a batch.
        augment: Random change of a batch of samples, or None.
    """

    def __init__(
        self,
        split: Split,
        batch: int,
        *,
        seed: int,
        phase: str,
        device: torch.device,
        crew: Crew,
        augment: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.split = _on_device(split, device)
        self.batch = min(batch, max(len(split), 1))
        self.per_epoch = -(-len(split) // self.batch)
        self._seed = (seed, phase)
        self._device = device
        self._crew = crew
        self._augment = augment

    def batches(self, start: int) -> Iterator[tuple[Tensor, Tensor | None, float]]:
        """Return (x, y, weight) of each step from step `start` on, without end.

        The weight is what this process's mean loss counts in the mean over the processes.
        """
        source = self._ahead(start) if self.split.streamed else self._direct(start)
        for x, y, weight in source:
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

    def _direct(self, start: int) -> Iterator[tuple[Tensor, Tensor | None, float]]:
        """Return batches of samples that are in memory."""
        data_x, data_y = self.split.x, self.split.y
        if not isinstance(data_x, Tensor):
            return
        alone, here = self._crew.size == 1, data_x.device
        for places in self._places(start):
            mine = places if alone else self._crew.share(places)
            mine = mine if here.type == "cpu" else mine.to(here)
            x = data_x.index_select(0, mine)
            y = None if data_y is None else data_y.index_select(0, mine)
            if here != self._device:
                x, y = x.to(self._device), None if y is None else y.to(self._device)
            yield x, y, 1.0 if alone else self._crew.weight(places)

    def _ahead(self, start: int) -> Iterator[tuple[Tensor, Tensor | None, float]]:
        """Return batches of streamed samples, the next one decoded while this one is used."""

        def load(places: Tensor) -> tuple[Tensor, Tensor | None, float]:
            x, y = self.split.rows(self._crew.share(places))
            moved = None if y is None else y.to(self._device)
            return x.to(self._device), moved, self._crew.weight(places)

        places = self._places(start)
        with ThreadPoolExecutor(1) as pool:
            coming = pool.submit(load, next(places))
            while True:
                ready = coming.result()
                coming = pool.submit(load, next(places))
                yield ready


def _on_device(split: Split, device: torch.device) -> Split:
    """Return the split with samples in memory moved to a GPU where they fit easily."""
    if device.type != "cuda" or not isinstance(split.x, Tensor):
        return split
    free, _ = torch.cuda.mem_get_info(device)
    if split.x.numel() * split.x.element_size() > _MOST_ON_DEVICE * free:
        return split
    return Split(split.x.to(device), None if split.y is None else split.y.to(device))
