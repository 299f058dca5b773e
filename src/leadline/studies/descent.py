r"""Paths of optimisers, taken by name from the training, over functions of few variables.

Symbols:
    p (n, 2) points that move independently, beta momentum, L and mu the largest and smallest curvature.

Source:
    Polyak (1964), Some methods of speeding up the convergence of iteration methods, USSR Comput. Math. 4(5).
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from leadline.training.optimizers import make_optimizer

__all__ = ["FAR", "path_of", "quadratic_steps", "tuned"]

FAR = 1e3  # where a path has left every picture


def path_of(
    function: Callable[[Tensor], Tensor],
    start: Tensor,
    optimizer: str,
    *,
    steps: int,
    done: Callable[[Tensor], Tensor],
    options: Mapping[str, Any],
) -> Tensor:
    """Return the places of a descent, step by step, until all are `done`, far off or at `steps`.

    Args:
        function: p (n, 2) -> (n,), each row alone.
        start: First places (n, 2).
        optimizer: Name of an optimiser that moves each number alone.
        steps: Most steps.
        done: p (n, 2) -> (n,) bool, where a path may end.
        options: Of the optimiser; `lr` among them.

    Returns:
        Places (steps taken + 1, n, 2).
    """
    p = nn.Parameter(start.clone())
    rest = {key: value for key, value in options.items() if key != "lr"}
    stepping = make_optimizer(optimizer, [([p], None)], lr=options["lr"], weight_decay=0.0, options=rest)
    places = [start]
    for _ in range(steps):
        (p.grad,) = torch.autograd.grad(function(p).sum(), p)
        stepping.step()
        last = places[-1]
        ended = done(last) | ~(p.detach().abs() <= FAR).all(1)  # NaN ends a path too
        if bool(ended.all()):
            break
        with torch.no_grad():
            p.copy_(torch.where(ended[:, None], last, p))
        places.append(p.detach().clone())
    return torch.stack(places)


def steps_until(path: Tensor, done: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the number of steps until each row is done (n,), infinite where it never is."""
    hits = torch.stack([done(place) for place in path])  # (steps + 1, n)
    first = hits.double().argmax(0).double()
    return torch.where(hits.any(0), first, math.inf)


def tuned(
    function: Callable[[Tensor], Tensor],
    start: Tensor,
    optimizer: str,
    *,
    rates: tuple[float, ...],
    steps: int,
    done: Callable[[Tensor], Tensor],
    options: Mapping[str, Any],
) -> tuple[float, Tensor, Tensor]:
    """Return the learning rate of fewest steps (the lowest end where none arrives), its path and steps."""
    best: tuple[tuple[float, float], float, Tensor, Tensor] | None = None
    for lr in rates:
        path = path_of(function, start, optimizer, steps=steps, done=done, options={**options, "lr": lr})
        taken = steps_until(path, done)
        end = float(function(path[-1]).mean())
        rank = (float(taken.median()), end if math.isfinite(end) else math.inf)
        if best is None or rank < best[0]:
            best = (rank, lr, path, taken)
    if best is None:
        raise ValueError("no learning rate was given")
    return best[1:]


def quadratic_steps(method: str, kappa: float, start: Tensor, near: float, most: int) -> Tensor:
    """Return the steps of a method with its best constants on (x^2 + kappa y^2) / 2, from each start (n,).

    Gradient descent with lr = 2 / (L + mu); momentum with lr = 4 / (sqrt L + sqrt mu)^2 and
    beta = ((sqrt kappa - 1) / (sqrt kappa + 1))^2. The goal is a distance of `near` times that of the start.
    """
    weights = torch.tensor([1.0, kappa], dtype=start.dtype)
    root = math.sqrt(kappa)
    options = {
        "gd": {"lr": 2 / (kappa + 1)},
        "momentum": {"lr": 4 / (root + 1) ** 2, "momentum": ((root - 1) / (root + 1)) ** 2},
    }[method]
    goal = near * start.norm(dim=1)

    def done(p: Tensor) -> Tensor:
        return p.norm(dim=1) <= goal

    def function(p: Tensor) -> Tensor:
        return 0.5 * (weights * p.square()).sum(-1)

    return steps_until(path_of(function, start, method, steps=most, done=done, options=options), done)
