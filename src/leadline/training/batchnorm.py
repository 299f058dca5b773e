"""Statistics of batch normalisation, estimated again where training did not leave them."""

import torch
from torch import nn

from leadline.core import Batch
from leadline.data import Dataset
from leadline.training.machine import device_of

__all__ = ["refresh_batchnorm"]


def refresh_batchnorm(model: nn.Module, data: Dataset, *, batch_size: int = 256, most: int = 10_000) -> None:
    """Estimate the running statistics of batch normalisation again, over at most `most` training samples.

    Needed wherever weights were not reached by training: averages, points on a curve, pruned nets.

    Args:
        model: A model with `loss`; one without batch normalisation is left as it is.
        data: Samples to estimate from.
        batch_size: Samples of a batch.
        most: Samples to use.
    """
    norms = [layer for layer in model.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    before = [(layer.momentum, layer.training) for layer in norms]
    model_mode = model.training
    model.eval()
    for layer in norms:
        layer.reset_running_stats()
        layer.momentum = None  # a plain average over the batches
        layer.train()
    device = device_of(model)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        for x, y in data.train.head(most).batches(batch_size):
            if len(x) > 1:
                model.loss(Batch(x.to(device), None if y is None else y.to(device)))  # type: ignore[operator]
    model.train(model_mode)
    for layer, (momentum, mode) in zip(norms, before, strict=True):
        layer.momentum = momentum
        layer.train(mode)
