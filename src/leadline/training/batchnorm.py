"""Statistics of batch normalisation as they are for the weights of now, not as they were on the way.

In training a layer keeps moving averages of its batches' statistics. Averages of the last steps lag behind
weights that move fast, and a deep net multiplies what each layer is off: a net that has learned may then
predict at chance. Plain averages over some thousand samples, with the weights held still, do not lag.

Source:
    Ioffe and Szegedy (2015), Batch Normalization, ICML, algorithm 2 (statistics of the trained net). Wu and
    Johnson (2021), Rethinking "Batch" in BatchNorm, section 3 (moving averages against precise ones).
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from leadline.core import Batch
from leadline.core.randomness import generator_for
from leadline.data import Dataset, Split
from leadline.training.machine import device_of, players_of

__all__ = ["averaging", "measure_statistics", "refresh_batchnorm"]

_Norm = nn.modules.batchnorm._BatchNorm


def refresh_batchnorm(model: nn.Module, data: Dataset, *, batch_size: int = 256, most: int = 10_000) -> None:
    """Estimate the running statistics of batch normalisation again, over at most `most` training samples.

    Needed wherever weights were not reached by training: averages, points on a curve, pruned nets. `fit`
    does it itself before each validation.

    Args:
        model: A model with `loss` or `players`; one without batch normalisation is left as it is.
        data: Samples to estimate from.
        batch_size: Samples of a batch.
        most: Samples to use.
    """
    measure_statistics(model, averaging(model), data.train, batch_size=batch_size, most=most)


def averaging(model: nn.Module, *, moving: bool = False) -> list[_Norm]:
    """Return the layers that keep running statistics; those alone that training moves if `moving`."""
    norms = [
        layer for layer in model.modules() if isinstance(layer, _Norm) and layer.running_mean is not None
    ]
    return [layer for layer in norms if layer.training or not moving]


@torch.no_grad()
def measure_statistics(
    model: nn.Module, norms: Sequence[_Norm], split: Split, *, batch_size: int, most: int
) -> None:
    """Set the running statistics of `norms` to plain averages over whole batches of at most `most` samples.

    Nothing else changes: modes, momenta, counts of batches and the state of random numbers are put back, and
    a layer that no batch reaches keeps its statistics. Layers read random samples, the same each time, in
    training mode; everything else is in evaluation mode.

    Args:
        model: What learns by losses.
        norms: Its layers to measure.
        split: Samples to measure on.
        batch_size: Samples of a batch.
        most: Samples to use.
    """
    if not norms or len(split) < 2:
        return
    modes = [(layer, layer.training) for layer in model.modules()]
    kept = [
        (layer.momentum, {name: value.clone() for name, value in layer.named_buffers()}) for layer in norms
    ]
    model.eval()
    for layer in norms:
        layer.reset_running_stats()
        layer.momentum = None  # a plain average over the batches
        layer.train()
    _pass_through(model, split, batch_size, most)
    for layer, (momentum, buffers) in zip(norms, kept, strict=True):
        reached = int(layer.get_buffer("num_batches_tracked")) > 0
        layer.momentum = momentum
        for name, value in buffers.items():
            if name == "num_batches_tracked" or not reached:
                layer.get_buffer(name).copy_(value)
    for part, mode in modes:
        part.training = mode


def _pass_through(model: nn.Module, split: Split, batch_size: int, most: int) -> None:
    """Evaluate every loss of the model on whole batches of random samples."""
    order = torch.randperm(len(split), generator=generator_for(0, "statistics of batches"))[:most]
    if len(order) > batch_size:  # the rest would count as much as a whole batch
        order = order[: len(order) - len(order) % batch_size]
    device = device_of(model)
    losses: list[Callable[[Batch], Tensor]] = [player.loss for player in players_of(model)]
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        for index in order.split(batch_size):
            x, y = split.rows(index)
            batch = Batch(x.to(device), None if y is None else y.to(device), progress=1.0)
            for loss in losses:
                loss(batch)
