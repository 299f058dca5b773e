"""Optimisers and learning-rate schedules by name; the optimisers are torch's own.

`gd` is plain gradient descent on the whole training split, and `sam` takes the step of another optimiser with
a gradient that `leadline.training.sharpness` describes; `noisy_sgd` is that of `leadline.training.noise`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from leadline.core import OptionError
from leadline.core.errors import unknown_name
from leadline.training.noise import NoisySGD
from leadline.training.sharpness import Sharpness

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "make_optimizer",
    "needs_closure",
    "scheduled",
    "sharp_part",
    "stepper",
    "takes_all",
]

# Name: class, learning rate where none is given, fixed options.
OPTIMIZERS: dict[str, tuple[type[Optimizer], float, dict[str, Any]]] = {
    "sgd": (torch.optim.SGD, 0.05, {}),
    "momentum": (torch.optim.SGD, 0.05, {"momentum": 0.9}),
    "nesterov": (torch.optim.SGD, 0.05, {"momentum": 0.9, "nesterov": True}),
    "noisy_sgd": (NoisySGD, 0.05, {}),
    "adagrad": (torch.optim.Adagrad, 0.01, {}),
    "rmsprop": (torch.optim.RMSprop, 1e-3, {}),
    "adam": (torch.optim.Adam, 1e-3, {}),
    "adamw": (torch.optim.AdamW, 1e-3, {}),
    "lbfgs": (torch.optim.LBFGS, 1.0, {}),
    "gd": (torch.optim.SGD, 0.1, {}),
    "sam": (torch.optim.SGD, 0.05, {"momentum": 0.9}),  # the base optimiser, unless base= names another
}
_NO_BASES = ("sam", "lbfgs")
_FUSED = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.Adagrad)

# Name: factor of the learning rate at a fraction of the training in [0, 1].
SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda fraction: 1.0,
    "linear": lambda fraction: 1.0 - fraction,
    "cosine": lambda fraction: 0.5 * (1.0 + math.cos(math.pi * fraction)),
    "step": lambda fraction: 0.1 ** ((fraction >= 0.5) + (fraction >= 0.75)),
}


def sharp_part(name: str, options: Mapping[str, Any]) -> tuple[str, dict[str, Any], Sharpness | None]:
    """Return the optimiser that takes the step, its own options, and for `sam` how it climbs before.

    Raises:
        OptionError: If the base of `sam` is unknown, or rho or adaptive are out of range.
    """
    rest = dict(options)
    if name != "sam":
        return name, rest, None
    base = rest.pop("base", "momentum")
    if base not in OPTIMIZERS or base in _NO_BASES:
        raise unknown_name("base of sam", str(base), [key for key in OPTIMIZERS if key not in _NO_BASES])
    own = {key: rest.pop(key) for key in ("rho", "adaptive") if key in rest}
    return base, rest, Sharpness(**own)


def takes_all(name: str, options: Mapping[str, Any] | None) -> bool:
    """Return whether a step of the optimiser takes the whole training split: `gd`, or `sam` upon it."""
    return name == "gd" or (name == "sam" and (options or {}).get("base") == "gd")


def make_optimizer(
    name: str,
    groups: Sequence[tuple[Sequence[nn.Parameter], float | None]],
    *,
    lr: float | None,
    weight_decay: float,
    options: Mapping[str, Any],
    seed: int = 0,
) -> Optimizer:
    """Return the optimiser `name` over groups of parameters, fused into one kernel where torch can.

    Args:
        name: Key of `OPTIMIZERS`, which is that of the base for `sam`.
        groups: Parameters with their learning rate, None for the common one.
        lr: The common learning rate; a usual one if None.
        weight_decay: Weight decay.
        options: Further options of the torch optimiser.
        seed: What the noise of `noisy_sgd` is a function of, beside the step.

    Raises:
        OptionError: If it does not take an option.
    """
    kind, default, fixed = OPTIMIZERS[name]
    chosen: dict[str, Any] = {"lr": default if lr is None else lr, **fixed, **options}
    if kind is NoisySGD:
        chosen.setdefault("seed", seed)
    if weight_decay:
        if kind is torch.optim.LBFGS:
            raise OptionError("lbfgs takes no weight_decay")
        chosen["weight_decay"] = weight_decay
    parameters = [parameter for members, _ in groups for parameter in members]
    plain = all(p.is_floating_point() and type(p.data) is torch.Tensor for p in parameters)
    if issubclass(kind, _FUSED) and plain and all(p.device.type in ("cpu", "cuda") for p in parameters):
        chosen.setdefault("fused", True)
    told = [{"params": list(members)} | ({} if rate is None else {"lr": rate}) for members, rate in groups]
    try:
        return kind(told, **chosen)
    except (TypeError, ValueError) as error:
        raise OptionError(f"optimizer {name}: {error}") from error


def stepper(optimizer: Optimizer) -> Callable[[], object]:
    """Return what takes a step of `optimizer`, without the wrapper that looks for hooks if there are none.

    torch wraps every `step` to call hooks and to mark it for its profiler, at a tenth of the cost of a
    small step; where no hook is registered the wrapped function is called directly.
    """
    step = type(optimizer).step
    inner = getattr(step, "__wrapped__", None) if getattr(step, "hooked", False) else None
    hooks = (
        *optimizer._optimizer_step_pre_hooks,
        *optimizer._optimizer_step_post_hooks,
        *_global_optimizer_pre_hooks,
        *_global_optimizer_post_hooks,
    )
    return optimizer.step if inner is None or hooks else partial(inner, optimizer)


def needs_closure(optimizer: Optimizer) -> bool:
    """Return whether a step evaluates the loss itself, more than once (L-BFGS, your own)."""
    return isinstance(optimizer, torch.optim.LBFGS) or bool(getattr(optimizer, "needs_closure", False))


def scheduled(schedule: str, warmup: int, step: int, fraction: float) -> float:
    """Return the factor of the learning rate: a linear rise over `warmup` steps, then the schedule."""
    rise = min(1.0, (step + 1) / (warmup + 1))
    return rise * SCHEDULES[schedule](min(fraction, 1.0))
