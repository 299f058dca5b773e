"""What every Markov chain kernel is made of: a target, a state, what a step tells, and the accept step.

Chains run side by side: the first axis of every tensor is the chain.

Symbols:
    c chains, f unnormalised target, q proposal density.

Source:
    Hastings (1970), Monte Carlo sampling methods using Markov chains and their applications, Biometrika 57.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from leadline.core.errors import OptionError, ShapeError
from leadline.core.randomness import uniform

__all__ = [
    "Information",
    "Kernel",
    "LogDensity",
    "State",
    "WithGradient",
    "accepted",
    "along",
    "start_at",
    "value_and_gradient",
]

LogDensity = Callable[[Tensor], Tensor]
ValueAndGradient = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class State:
    """Where the chains stand.

    Args:
        position: Points (c, *shape).
        log_density: Unnormalised log f of each (c,), in nats.
        gradient: Its gradient (c, *shape), or None for kernels that need none.
    """

    position: Tensor
    log_density: Tensor
    gradient: Tensor | None = None


@dataclass(frozen=True)
class Information:
    """What a step tells beside its state.

    Args:
        acceptance: Probability of acceptance of each chain (c,); for NUTS its mean over the trajectory.
        divergent: Whether the energy error was so large that the integrator has left the target (c,).
        steps: Evaluations of the target or its gradient that each chain took (c,).
    """

    acceptance: Tensor
    divergent: Tensor
    steps: Tensor


class Placed(Protocol):
    """A state that knows where its chains stand."""

    @property
    def position(self) -> Tensor:
        """Return the points (c, *shape)."""
        ...


S = TypeVar("S", bound=Placed)


class Kernel(Protocol[S]):
    """A Markov transition of many chains at once."""

    def init(self, position: Tensor) -> S:
        """Return the state of chains that start at `position` (c, *shape)."""
        ...

    def step(self, state: S, generator: torch.Generator | None = None) -> tuple[S, Information]:
        """Return the next state, and what the step tells."""
        ...


class WithGradient:
    """A log-density whose gradient is written by hand, which spares the cost of automatic differentiation.

    Args:
        value_and_gradient: x (c, *shape) -> log f (c,) in nats and its gradient (c, *shape).

    Example:
        >>> normal = WithGradient(lambda x: (-0.5 * x.square().sum(1), -x))
        >>> normal(torch.ones(2, 3))
        tensor([-1.5000, -1.5000])
    """

    def __init__(self, value_and_gradient: ValueAndGradient) -> None:
        self.value_and_gradient = value_and_gradient

    def __call__(self, x: Tensor) -> Tensor:
        """Return log f of each point, in nats: (c, *shape) -> (c,)."""
        return self.value_and_gradient(x)[0]


def value_and_gradient(log_density: LogDensity) -> ValueAndGradient:
    """Return the function that gives log f and its gradient: the density's own, or by differentiation.

    It raises OptionError where there is nothing to differentiate.
    """
    own: Any = getattr(log_density, "value_and_gradient", None)
    if own is not None:
        return own

    def differentiated(x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            value = log_density(x)
            if not (isinstance(value, Tensor) and value.requires_grad):
                raise OptionError(
                    "log_density has no gradient: compute it from x by torch operations, "
                    'give it WithGradient, or take the kernel "random walk"'
                )
            (gradient,) = torch.autograd.grad(value.sum(), x)
        return value.detach(), gradient

    return differentiated


def start_at(log_density: LogDensity, position: Tensor, *, gradient: bool) -> State:
    """Return the state of chains that start at `position` (c, *shape).

    Raises:
        ShapeError: If log_density does not give one number a chain, or a gradient of another shape than x.
        OptionError: If it is not finite at a start, or has no gradient there.
    """
    if not isinstance(position, Tensor):
        raise ShapeError(f"start must be a tensor (chains, *shape), not {type(position).__name__}")
    if position.dim() < 1 or not position.numel():
        raise ShapeError(f"start must have shape (chains, *shape) with a chain, got {tuple(position.shape)}")
    position = position.detach()
    if gradient and not position.is_floating_point():
        raise ShapeError(f"this kernel follows gradients: start must hold real numbers, not {position.dtype}")
    value, slope = _first(log_density, position, gradient=gradient)
    if not isinstance(value, Tensor) or value.shape != position.shape[:1]:
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ShapeError(f"log_density must give a number a chain, shape ({len(position)},), got {shape}")
    lost = ~torch.isfinite(value)
    if bool(lost.any()):
        at = int(lost.int().argmax())
        raise OptionError(
            f"log_density is {float(value[at])} at the start of chain {at}: start where it is finite"
        )
    if slope is not None:
        _check_slope(slope, position)
    return State(position, value, slope)


def _first(log_density: LogDensity, position: Tensor, *, gradient: bool) -> tuple[Any, Any]:
    """Return what a user's density gives at a start, and its gradient where one is needed."""
    if not gradient:
        with torch.no_grad():
            return log_density(position), None
    pair: Any = value_and_gradient(log_density)(position)
    if not isinstance(pair, tuple) or len(pair) != 2:
        raise ShapeError("a density WithGradient gives two tensors, log f (chains,) and its gradient like x")
    return pair


def _check_slope(slope: Any, position: Tensor) -> None:
    """Refuse a gradient that does not fit the points, or that no chain can follow."""
    if not isinstance(slope, Tensor) or slope.shape != position.shape:
        shape = tuple(slope.shape) if isinstance(slope, Tensor) else type(slope).__name__
        raise ShapeError(
            f"the gradient of log_density must have the shape of x, {tuple(position.shape)}, got {shape}"
        )
    lost = ~torch.isfinite(slope).reshape(len(slope), -1).all(1)
    if bool(lost.any()):
        at = int(lost.int().argmax())
        raise OptionError(
            f"the gradient of log_density is not finite at the start of chain {at}: start elsewhere"
        )


def along(flags: Tensor, like: Tensor) -> Tensor:
    """Return flags of the chains, shaped to act on `like`: (c,) -> (c, 1, ...)."""
    return flags.view(-1, *(1,) * (like.dim() - 1))


def accepted(
    state: State, proposed: State, log_ratio: Tensor, generator: torch.Generator | None
) -> tuple[State, Tensor]:
    """Return the state after the accept step, and the acceptance probability (c,).

    Args:
        state: Where the chains stand.
        proposed: Where they would go.
        log_ratio: Log of f(x') q(x | x') / (f(x) q(x' | x)) of each chain (c,); NaN is a rejection.
        generator: Source of the uniforms.
    """
    chance = log_ratio.nan_to_num(nan=-torch.inf).clamp(max=0.0).exp()
    take = uniform((len(chance),), chance, generator) < chance
    return chosen(take, proposed, state), chance


def chosen(take: Tensor, new: State, old: State) -> State:
    """Return the state that is `new` where `take` (c,) holds and `old` elsewhere."""
    wide = along(take, new.position)
    gradient = None
    if new.gradient is not None and old.gradient is not None:
        gradient = torch.where(wide, new.gradient, old.gradient)
    return State(
        torch.where(wide, new.position, old.position),
        torch.where(take, new.log_density, old.log_density),
        gradient,
    )
