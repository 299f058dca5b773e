"""What a net costs, found in a fitting room: torch's meta device works out shapes and computes nothing.

A multiply-add is one multiplication with its addition, counted in convolutions and matrix products alone;
biases, normalisation, activations and pools are left out. Activations are the numbers that those same layers
give. Peak memory is that of the tensors of eager training or prediction: every tensor that an operation makes
is entered when it is made and struck off when nothing holds it any more. Memory that kernels take for
themselves (weights in another order, work space) and that of the allocator and of libraries comes on top.

Source:
    Activations as a measure of cost: Radosavovic et al. (2020), Designing Network Design Spaces, CVPR,
    section 3.1.
"""

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

__all__ = ["Cost", "cost"]


@dataclass(frozen=True)
class Cost:
    """What a net costs at one size of batch.

    Args:
        parameters: Numbers that training moves.
        multiply_adds: Of one sample, forward.
        activations: Of one sample: numbers that convolutions and matrix products give.
        inference_bytes: Peak of prediction, weights included.
        training_bytes: Peak of a training step, weights, gradients and the optimiser's state included.
        batch: Samples of a batch.
    """

    parameters: int
    multiply_adds: int
    activations: int
    inference_bytes: int
    training_bytes: int
    batch: int


def cost(
    model: nn.Module,
    predict: Callable[[], Tensor],
    loss: Callable[[], Tensor],
    batch: int,
    state: int = 1,
) -> Cost:
    """Return what `model`, which is on the meta device, costs.

    Args:
        model: The net.
        predict: Returns its answer to a batch on the meta device.
        loss: Returns its loss on a batch on the meta device.
        batch: Samples of either.
        state: Numbers that the optimiser keeps for each parameter: 1 with momentum, 2 with Adam.
    """
    training = model.training
    weights = sum(_bytes(value) for value in (*model.parameters(), *model.buffers()))
    moved = sum(_bytes(value) for value in model.parameters() if value.requires_grad)
    model.eval()
    with torch.no_grad(), _Ledger() as answering:
        predict()
    model.train()
    with _Ledger() as learning:
        loss().backward()
    model.train(training)
    model.zero_grad()
    return Cost(
        parameters=sum(value.numel() for value in model.parameters() if value.requires_grad),
        multiply_adds=answering.operations // (2 * batch),
        activations=answering.activations // batch,
        inference_bytes=weights + answering.peak,
        training_bytes=weights + state * moved + learning.peak,
        batch=batch,
    )


class _Ledger(TorchDispatchMode):
    """Counts arithmetic and the bytes of the tensors that are alive inside the block."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = self.activations = self.live = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = kwargs or {}
        out = func(*args, **named)
        counted = flop_registry.get(func._overloadpacket)
        if counted is not None:
            self.operations += counted(*args, **named, out_val=out)
            self.activations += out.numel() if isinstance(out, Tensor) else 0  # backward gives several
        given = {_key(value) for value in tree_leaves((args, named)) if isinstance(value, Tensor)}
        for value in tree_leaves(out):
            if isinstance(value, Tensor) and _key(value) not in given:
                self._enter(value)
        return out

    def _enter(self, value: Tensor) -> None:
        storage = value.untyped_storage()
        key, size = _key(value), storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._strike, key, size).atexit = False

    def _strike(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


def _key(value: Tensor) -> int:
    """Return what tells the memory of a tensor from that of another."""
    return value.untyped_storage()._cdata


def _bytes(value: Tensor) -> int:
    return value.numel() * value.element_size()
