r"""Gradient descent with normal noise on the gradient, whose variance falls as the training goes on.

    w <- w - lr (g + e),  e ~ N(0, noise / (1 + t)^anneal I),  t = 0, 1, ... the number of the step

The noise of a step is a pure function of the seed and of t: the same on every process of a data-parallel
training, and after a resume what it would have been.

Symbols:
    w weights, g gradient (after clipping), e noise, t number of the step, T temperature.

Source:
    Neelakantan et al. (2015), Adding gradient noise improves learning for very deep networks,
    arXiv:1511.06807. With anneal=0 and noise = 2 T / lr on the gradient of a whole energy it is unadjusted
    Langevin dynamics at temperature T: Welling and Teh (2011), Bayesian learning via stochastic gradient
    Langevin dynamics, ICML.
"""

import math
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from torch.optim import SGD

from leadline.core.randomness import generator_for

__all__ = ["NoisySGD"]


class NoisySGD(SGD):
    """torch's gradient descent, with momentum if you say, on gradients with noise.

    Args:
        params: Parameters or groups of them.
        lr: Learning rate.
        noise: Variance of the noise of the first step, on each partial derivative, at least 0.
        anneal: Power by which the variance falls with the number of the step, at least 0.
        seed: What the noise is a function of, beside the step.
        **options: Of `torch.optim.SGD`.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        *,
        noise: float = 0.01,
        anneal: float = 0.55,
        seed: int = 0,
        **options: Any,
    ) -> None:
        if not (0 <= noise < math.inf and 0 <= anneal < math.inf):
            raise ValueError(f"noise and anneal must be at least 0, got {noise} and {anneal}")
        super().__init__(params, lr=lr, **options)
        self.noise, self.anneal, self.seed = noise, anneal, seed

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Add the noise of this step to the gradients, and take the step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for number, parameter in enumerate(p for group in self.param_groups for p in group["params"]):
            if parameter.grad is None:
                continue
            done = int(self.state[parameter].get("noisy_steps", 0))
            self.state[parameter]["noisy_steps"] = done + 1
            scale = math.sqrt(self.noise / (1 + done) ** self.anneal)
            spread = isinstance(parameter.grad, DTensor)
            gradient = parameter.grad.to_local() if spread else parameter.grad
            part = torch.distributed.get_rank() if spread else 0  # each shard has noise of its own
            source = generator_for(self.seed, "gradient noise", number, done, part, device=gradient.device)
            gradient.add_(torch.empty_like(gradient).normal_(generator=source), alpha=scale)
        super().step()
        return loss
