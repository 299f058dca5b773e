r"""Sharpness of a minimum: how far the loss rises nearby, by three meanings of "nearby".

    Keskar:    phi = 100 (max_z L(p + z) - L(p)) / (1 + L(p)),  |z_i| <= eps (|p_i| + 1)
    adaptive:  max_z L(p + z) - L(p),  |z / |p|| <= rho

The maximum is sought by generalised power steps: go to the point of the region that is furthest along the
gradient, again and again. For a convex loss that never goes down. What is found is a lower bound.

Multiplying one layer of rectified units by a and the next by 1 / a changes no output. The eigenvalues of H
change without limit, and phi with them; the adaptive rise does not change at all.

Symbols:
    p (d,) parameters, L loss, z (d,) a move, g (d,) gradient, H (d, d) Hessian,
    eps, rho sizes of the region.

Source:
    Keskar et al. (2017), On large-batch training for deep learning, ICLR, metric 2.1. Kwon, Kim, Park and
    Choi (2021), ASAM, ICML, definition 1. Rescaling: Dinh, Pascanu, Bengio and Bengio (2017), Sharp minima
    can generalize for deep nets, ICML. Power steps: Journee, Nesterov, Richtarik and Sepulchre (2010),
    Generalized power method for sparse principal component analysis, JMLR 11.

Departs from the source:
    Power steps from several starts, instead of ten iterations of L-BFGS-B from one; and the whole space,
    instead of a random subspace as an option.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from leadline.core import OptionError
from leadline.core.randomness import generator_for
from leadline.measures.surface import Surface

__all__ = ["adaptive", "keskar"]


def keskar(surface: Surface, eps: float = 1e-3, *, starts: int = 3, steps: int = 10, seed: int = 0) -> float:
    """Return Keskar's phi, in per cent of 1 + L: a lower bound of the rise in a box around the point.

    Args:
        surface: A loss at a point.
        eps: Size of the box, relative to |p| + 1, above 0.
        starts: Random corners to start from, at least 1.
        steps: Power steps from each.
        seed: Seed of the corners.

    Raises:
        OptionError: If a number is out of range.
    """
    radius = eps * (surface.point.detach().abs() + 1)
    here = surface.value()

    def furthest(gradient: Tensor) -> Tensor:
        return radius * gradient.sign()

    return 100 * (_highest(surface, furthest, eps, starts, steps, seed) - here) / (1 + here)


def adaptive(surface: Surface, rho: float = 0.5, *, starts: int = 3, steps: int = 10, seed: int = 0) -> float:
    """Return the adaptive sharpness: a lower bound of the rise of L over moves relative to each parameter.

    Args:
        surface: A loss at a point.
        rho: Size of the region, above 0.
        starts: Random moves to start from, at least 1.
        steps: Power steps from each.
        seed: Seed of the starts.

    Raises:
        OptionError: If a number is out of range.
    """
    scale = surface.point.detach().abs()

    def furthest(gradient: Tensor) -> Tensor:
        along = scale * gradient
        return rho * scale * along / along.norm().clamp(min=torch.finfo(along.dtype).tiny)

    return _highest(surface, furthest, rho, starts, steps, seed) - surface.value()


def _highest(
    surface: Surface,
    furthest: Callable[[Tensor], Tensor],
    size: float,
    starts: int,
    steps: int,
    seed: int,
) -> float:
    """Return the largest loss met on power steps from random starts; not below that of the point."""
    if not size > 0 or starts < 1 or steps < 1:
        raise OptionError(f"size, starts and steps must be above 0, got {size}, {starts} and {steps}")
    generator = generator_for(seed, "starts", device=surface.point.device)
    point = surface.point.detach()
    best = surface.value()
    for _ in range(starts):
        # The gradient of the point itself leads nowhere at a minimum: start from a random move.
        move = furthest(surface.direction(generator))
        last = -float("inf")
        for _step in range(steps):
            value, gradient = surface.slope(point + move)
            if not value > last or not bool(torch.isfinite(gradient).all()):
                break
            last = value
            best = max(best, value)
            move = furthest(gradient)
        else:
            best = max(best, surface.value(point + move))
    return best
