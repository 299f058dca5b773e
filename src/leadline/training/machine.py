"""Where a training runs: device, threads, precision, and the processes it is spread over."""

import atexit
import ctypes
import gc
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from leadline.core import Batch, OptionError, Player
from leadline.core.verbs import has_verb

__all__ = [
    "Crew",
    "autocast",
    "choose_device",
    "choose_threads",
    "cpu_threads",
    "crew",
    "device_of",
    "fast_memory",
    "fast_precision",
    "fill",
    "kept_memory",
    "players_of",
    "whole",
]

# Below this many operations in a step two threads wait for each other longer than they work
# (measured on 2 cores with perceptrons of 10^4 to 10^7 parameters).
_SMALL_STEP = 2e8
# Nor do they help where each product is small: a hundred Langevin steps are a thousand waits, each of them
# long when another program has the second core.
_SMALL_PRODUCT = 1e7
_TRIM_ABOVE, _MOST_MAPPED = -1, -4  # of mallopt: M_TRIM_THRESHOLD, M_MMAP_MAX
_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(name: str) -> torch.device:
    """Return the device: for "auto" the first of cuda, mps and cpu that is there.

    Raises:
        OptionError: If the device that was asked for is not there.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, present in there.items() if present)
    if not there[name]:
        raise OptionError(f"device {name!r} is not on this machine; use one of auto, cpu")
    return (
        torch.device(name, int(os.environ.get("LOCAL_RANK", "0"))) if name == "cuda" else torch.device(name)
    )


def choose_threads(step: Callable[[], Tensor], device: torch.device, processes: int = 1) -> int:
    """Return the number of CPU threads for a training whose loss is computed by `step`.

    One thread where a step has little arithmetic, or splits it into many small products, else a fair share of
    the cores, of no more than torch has been allowed (`OMP_NUM_THREADS`) if there is one process. The choice
    depends on the arithmetic alone, never on a clock, so a run that is resumed makes it again.
    """
    share = max(1, (os.cpu_count() or 1) // processes)
    if processes == 1:
        share = min(share, torch.get_num_threads())
    if device.type != "cpu" or share == 1:
        return share
    with _Arithmetic() as counter, torch.random.fork_rng(devices=[]):
        step()
    least = max(_SMALL_STEP, _SMALL_PRODUCT * counter.products)
    return share if counter.operations > least else 1


class _Arithmetic(TorchDispatchMode):
    """Counts the operations of matrix products and convolutions inside the block, two a multiply-add."""

    def __init__(self) -> None:
        super().__init__()
        self.operations, self.products = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        counted = flop_registry.get(func._overloadpacket)
        if counted is not None:
            self.operations += counted(*args, **(kwargs or {}), out_val=out)
            self.products += 1
        return out


def device_of(model: nn.Module) -> torch.device:
    """Return where the first parameter or buffer of a model is."""
    for value in (*model.parameters(), *model.buffers()):
        return value.device
    return torch.device("cpu")


@contextmanager
def cpu_threads(count: int | None) -> Iterator[None]:
    """Use `count` CPU threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def kept_memory(*, wanted: bool = True) -> Iterator[None]:
    """Keep memory that tensors free, inside the block, instead of giving it back to the system at once.

    With glibc every large tensor is else mapped anew at each step, and its pages are cleared again: up to
    half the time of a net with wide layers. What was kept is given back at the end.
    """
    tune = getattr(ctypes.CDLL(None), "mallopt", None) if wanted and sys.platform == "linux" else None
    if tune is None:  # another system, or another library of C
        yield
        return
    tune(_TRIM_ABOVE, -1)
    tune(_MOST_MAPPED, 0)
    try:
        yield
    finally:
        tune(_TRIM_ABOVE, 128 << 10)
        tune(_MOST_MAPPED, 1 << 16)
        ctypes.CDLL(None).malloc_trim(0)


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Return the context in which a loss is computed in `precision`."""
    kind = _TYPES.get(precision)
    return nullcontext() if kind is None else torch.autocast(device.type, kind)


def fast_precision(device: torch.device) -> str:
    """Return "bf16" where the device has instructions for its products, else "fp32"."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    named = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    there = any(getattr(torch.cpu, name, bool)() for name in named)
    return "bf16" if device.type == "cpu" and there else "fp32"


def fast_memory(device: torch.device, precision: str, model: nn.Module) -> bool:
    """Return whether convolutions of pictures are faster with channels last: on CPUs, on GPUs in half."""
    pictures = any(isinstance(layer, nn.Conv2d) for layer in model.modules())
    return pictures and (device.type == "cpu" or (device.type == "cuda" and precision != "fp32"))


def whole(value: Tensor) -> Tensor:
    """Return a tensor that may be spread over processes as one plain tensor."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def fill(target: Tensor, value: Tensor) -> None:
    """Copy a plain tensor into `target`, which may be spread over processes."""
    if isinstance(target, DTensor):
        target.copy_(distribute_tensor(value.to(target.device), target.device_mesh, target.placements))
    else:
        target.copy_(value)


class _Losses(nn.Module):
    """The losses of a model as one forward call, which is what data-parallel wrappers hook into."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.losses = [player.loss for player in players_of(model)]

    def forward(self, player: int, batch: Batch) -> Tensor:
        return self.losses[player](batch)


def players_of(model: nn.Module) -> list[Player]:
    """Return the players of a model; one with a plain loss is its only player."""
    if has_verb(model, "players"):
        return list(model.players())  # type: ignore[operator]
    movable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [Player("model", movable, model.loss)]  # type: ignore[arg-type]


class Crew:
    """The processes of one training: this one alone, or all that `torchrun` started.

    Args:
        rank: Number of this process.
        size: Number of processes.
    """

    def __init__(self, rank: int, size: int) -> None:
        self.rank = rank
        self.size = size

    @property
    def leads(self) -> bool:
        """Return whether this process writes files and prints."""
        return self.rank == 0

    def share(self, index: Tensor) -> Tensor:
        """Return this process's part of a global batch; never empty."""
        part = index[self.rank :: self.size]
        return part if len(part) else index[:1]

    def weight(self, index: Tensor) -> float:
        """Return what this process's mean loss counts, so that the processes' mean is the batch's mean."""
        part = len(index[self.rank :: self.size])
        return part * self.size / max(len(index), 1)

    def losses(self, model: nn.Module, sharding: str | None) -> Callable[[int, Batch], Tensor]:
        """Return (player, batch) -> loss with gradients averaged over the processes.

        Raises:
            OptionError: If sharding is asked for without processes to shard over.
        """
        plain = _Losses(model)
        if self.size == 1:
            if sharding is not None:
                raise OptionError("sharding needs several processes: start with torchrun --nproc-per-node=N")
            return plain.forward
        several = len(plain.losses) > 1
        if sharding == "full":
            from torch.distributed.fsdp import fully_shard

            fully_shard(plain)
            return plain
        wrapped: nn.Module = nn.parallel.DistributedDataParallel(plain, find_unused_parameters=several)
        return wrapped

    def told(self, text: str) -> str:
        """Return the text that the leading process gives."""
        if self.size == 1:
            return text
        room = torch.zeros(4096, dtype=torch.uint8, device=_vote_device())
        data = torch.tensor(list(text.encode()), dtype=torch.uint8, device=room.device)
        room[: len(data)] = data
        torch.distributed.broadcast(room, 0)
        return bytes(room[room > 0].tolist()).decode()

    def agreed(self, *, flag: bool) -> bool:
        """Return whether any process raises the flag."""
        if self.size == 1:
            return flag
        votes = torch.tensor([float(flag)], device=_vote_device())
        torch.distributed.all_reduce(votes)
        return bool(votes > 0)

    def mean(self, value: float) -> float:
        """Return the mean of a number over the processes."""
        if self.size == 1:
            return value
        votes = torch.tensor([value], dtype=torch.float64, device=_vote_device())
        torch.distributed.all_reduce(votes)
        return float(votes) / self.size


def _vote_device() -> str:
    return "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"


def _forget() -> None:
    """Make PyTorch forget the meshes that weights were sharded over: its caches hold on to the group."""
    getattr(importlib.import_module("torch.distributed.tensor.debug"), "_clear_sharding_prop_cache", bool)()
    planner = importlib.import_module("torch.distributed.tensor._redistribute")
    getattr(planner, "clear_redistribute_planner_cache", bool)()
    caches = [held for held in gc.get_objects() if type(held) is type(lru_cache(bool))]
    for cache in caches:
        if str(cache.__module__).startswith("torch.distributed"):
            cache.cache_clear()


def _leave() -> None:
    """Leave the processes, with all that holds on to their group gone first, so that its threads end.

    A thread of the group that outlives the interpreter aborts the process.
    """
    _forget()
    gc.collect()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def crew(device: torch.device) -> Crew:
    """Return the processes that `torchrun` started, joined, or this one alone."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or "RANK" not in os.environ:
        return Crew(0, 1)
    if not torch.distributed.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(device)
        importlib.import_module("torch._dynamo")  # imported later, it would hold on to the group for good
        torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
        atexit.register(_leave)
    return Crew(torch.distributed.get_rank(), size)
