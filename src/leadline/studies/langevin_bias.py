r"""The bias of Langevin sampling without an accept step.

Claim:
    The bias of unadjusted Langevin sampling grows with its step; with the accept step there is none.

Instrument:
    Chains start from exact draws of a target whose second moment is known, and run for some relaxation
    times at each step size e. The relative error of the mean of x^2 is the bias. Its slope over e must lie
    above zero for the unadjusted sampler on each target; at every e that of the adjusted one must stay
    within 2 % of zero.

Controls:
    positive: on N(0, 1) the unadjusted variance is 1 / (1 - e / 2) to four standard errors.
    negative: a sampler with noise e instead of 2 e, a bug of real codes, must be seen to halve the variance.

Source:
    Roberts and Tweedie (1996), Exponential convergence of Langevin distributions and their discrete
    approximations, Bernoulli 2(4), section 1.4.

Cost:
    Seconds: 16,000 chains in one dimension at four step sizes.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from leadline.core import OptionError, Quantity
from leadline.core.randomness import generator_for, uniform
from leadline.inference.chains import Langevin, Metropolis, Unadjusted, WithGradient
from leadline.studies.finding import Finding
from leadline.studies.study import Control, all_of, passed, readings, side
from leadline.studies.traces import bias_figure, seed_interval

__all__ = ["langevin_bias"]

WITHIN, SIGMAS, HALF = 0.02, 4.0, 0.1
BURN_IN, KEPT = 6.0, 12.0  # relaxation times, 1 / e steps each
CHAINS = 16_000
KERNELS: dict[str, type[Unadjusted] | type[Metropolis]] = {"unadjusted": Unadjusted, "adjusted": Metropolis}


def _normal(n: int, generator: torch.Generator) -> Tensor:
    return torch.randn(n, 1, generator=generator, dtype=torch.float64)


def _logistic(n: int, generator: torch.Generator) -> Tensor:
    return torch.logit(uniform((n, 1), torch.zeros(1, dtype=torch.float64), generator).clamp(min=1e-300))


# log-density with gradient, exact draws, E[x^2], and the scale that makes a step size mean the same.
TARGETS: dict[str, tuple[WithGradient, Callable[[int, torch.Generator], Tensor], float]] = {
    "normal": (WithGradient(lambda x: (-0.5 * x.square().sum(1), -x)), _normal, 1.0),
    "logistic": (
        WithGradient(
            lambda x: ((-x - 2 * torch.nn.functional.softplus(-x)).sum(1), 2 * torch.sigmoid(-x) - 1)
        ),
        _logistic,
        math.pi**2 / 3,
    ),
}


def langevin_bias(
    *,
    steps: tuple[float, ...] = (0.1, 0.2, 0.4, 0.8),
    chains: int = CHAINS,
    seeds: int = 5,
    jobs: int = 1,
) -> Finding:
    """Return whether the bias of unadjusted Langevin grows with the step, and that of MALA does not.

    Args:
        steps: Step sizes e, at least two, each in (0, 1].
        chains: Number of chains of a reading, >= 100.
        seeds: Number of readings of each setting.
        jobs: Readings at once, through joblib.

    Raises:
        OptionError: If an option is out of range.
        StudyError: If a control fails.
    """
    if len(set(steps)) < 2 or not all(0 < e <= 1 for e in steps):
        raise OptionError(f"steps must be at least two different numbers in (0, 1], got {steps}")
    if chains < 100:
        raise OptionError(f"chains must be at least 100, got {chains}")
    controls = passed(_controls(chains))
    settings = [(target, kernel, e, chains) for target in TARGETS for kernel in KERNELS for e in steps]
    table = readings(_bias, settings, seeds=seeds, jobs=jobs)
    slopes = {}
    for target in TARGETS:
        mine = table[(table["target"] == target) & (table["kernel"] == "unadjusted")]
        each = [_slope(part["step"].tolist(), part["bias"].tolist()) for _, part in mine.groupby("seed")]
        slopes[target] = seed_interval(each)
    parts = [side(interval, 0.0, above=True) for _, interval in slopes.values()]
    adjusted = table[table["kernel"] == "adjusted"]
    for _, part in adjusted.groupby(["target", "step"]):
        _, (low, high) = seed_interval(part["bias"].tolist())
        nearest = 0.0 if low <= 0 <= high else min(abs(low), abs(high))
        parts.append(side((nearest, max(abs(low), abs(high))), WITHIN, above=False))
    least = min(slopes, key=lambda target: slopes[target][0])
    return Finding(
        study="langevin_bias",
        claim="The bias of unadjusted Langevin grows with its step; with the accept step there is none.",
        holds=all_of(parts),
        value=Quantity(
            slopes[least][0], "relative bias a unit of step", "estimate", None, slopes[least][1], seeds,
            f"unadjusted, {least} target, E[x^2]",
        ),
        controls=controls,
        table=table,
        protocol=(
            f"one dimension, {chains:,} chains from exact draws, {BURN_IN:g} / e steps of burn-in, "
            f"{seeds} seeds; adjusted within {WITHIN:.0%}"
        ),
        draw=bias_figure,
    )  # fmt: skip


def _bias(target: str, kernel: str, step: float, chains: int, seed: int) -> dict[str, Any]:
    """Return the relative error of the mean of x^2."""
    density, exact, truth = TARGETS[target]
    generator = generator_for(seed, target, kernel, step)
    # The step of a target of variance v is e v: both relax in about 1 / e steps.
    sampler = KERNELS[kernel](density, Langevin(step * truth))
    state = sampler.init(exact(chains, generator))
    burn_in, kept = math.ceil(BURN_IN / step), math.ceil(KEPT / step)
    total = 0.0
    for count in range(burn_in + kept):
        state, _ = sampler.step(state, generator)
        if count >= burn_in:
            total += float(state.position.square().mean()) / kept
    return {"target": target, "kernel": kernel, "step": step, "seed": seed, "bias": total / truth - 1}


def _slope(x: list[float], y: list[float]) -> float:
    """Return the slope of the least-squares line."""
    a, b = torch.tensor(x, dtype=torch.float64), torch.tensor(y, dtype=torch.float64)
    return float(((a - a.mean()) * (b - b.mean())).sum() / (a - a.mean()).square().sum())


def _controls(chains: int) -> dict[str, Control]:
    """Return what is known beforehand."""
    e = 0.5
    exact = 1 / (1 - e / 2)

    def closed_form() -> float:
        found = (1 + _bias("normal", "unadjusted", e, chains, 0)["bias"]) / exact - 1
        # positions a few steps apart count as independent after 2 / e of them
        return abs(found) / math.sqrt(2 / (chains * KEPT / 4))

    def half_noise() -> float:
        generator = generator_for(0, "half")
        x = _normal(chains, generator)
        for _ in range(200):
            x = (1 - 0.05) * x + math.sqrt(0.05) * _normal(chains, generator)
        return float(x.var())

    return {
        "1 / (1 - e / 2)": Control(closed_form, lambda z: z < SIGMAS, f"be below {SIGMAS:g} standard errors"),
        "half the noise": Control(
            half_noise, lambda v: abs(v - 0.5) < HALF, "be near 1/2, the variance of the wrong noise"
        ),
    }
