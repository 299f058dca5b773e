r"""How fast a Gibbs sampler forgets its start, predicted by the spectral gap of its exact transition matrix.

Claim:
    Chains of an Ising lattice forget their start at the rate 1 - gap a sweep, and a cold one does not mix.

Instrument:
    The matrix of a checkerboard sweep over all states of a small lattice gives its gap, and the total
    variation to the target after each sweep. Thousands of chains that start with all spins up are run by
    the fast sampler, which knows no matrix: the logarithm of their mean magnetisation falls by
    log(1 - gap) a sweep. Measured over predicted rate must lie within 10 % of one at every coupling. A large
    cold lattice has no matrix that could be written down: chains from random starts must disagree by R-hat.

Controls:
    positive: a chain of two states, whose total variation is a closed form.
    negative: a large warm lattice, whose R-hat must call it mixed.

Source:
    Levin and Peres (2017), Markov Chains and Mixing Times, 2nd edition, chapters 12 and 15.
    R-hat: Vehtari et al. (2021), Bayesian Analysis 16(2).

Cost:
    Seconds: 65,536 chains of a 3 x 3 lattice at three couplings, and 64 chains of a large one.
"""

import math
from functools import cache
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from leadline.core import OptionError, Quantity
from leadline.core.randomness import generator_for
from leadline.inference import chains
from leadline.inference.ising import Lattice, LatticeGibbs
from leadline.studies.finding import Finding
from leadline.studies.study import Control, all_of, passed, readings, side
from leadline.studies.traces import convergence_figure, seed_interval

__all__ = ["chain_convergence"]

NEAR, MIXED = 0.1, 1.01
WARM = 0.2
CHAINS, SPAN = 65_536, (0.5, 0.06)  # the rate is taken between these values of (1 - gap)^t
LARGE_CHAINS, BURN_IN, KEPT = 64, 300, 300


def chain_convergence(
    *,
    side_length: int = 3,
    couplings: tuple[float, ...] = (0.2, 0.35, 0.5),
    large: int = 32,
    cold: float = 0.7,
    seeds: int = 5,
    jobs: int = 1,
) -> Finding:
    """Return whether the spectral gap predicts how fast chains forget, and whether a cold lattice mixes.

    Args:
        side_length: Side of the lattice whose matrix is written down, 2 or 3.
        couplings: Its couplings, inverse temperature included; each > 0.
        large: Side of the lattice that is only sampled, even, >= 8.
        cold: Its coupling; the critical one is 0.4407.
        seeds: Number of runs of each setting.
        jobs: Runs at once, through joblib.

    Raises:
        OptionError: If an option is out of range.
        StudyError: If a control fails.
    """
    if side_length not in (2, 3) or not couplings or min(couplings) <= 0:
        raise OptionError(f"needs side_length 2 or 3 and couplings > 0, got {side_length} and {couplings}")
    if large < 8 or large % 2:
        raise OptionError(f"large must be even and at least 8, got {large}")
    controls = passed(_controls(large))
    table = readings(_rate, [(side_length, coupling) for coupling in couplings], seeds=seeds, jobs=jobs)
    big = readings(_agreement, [(large, cold)], seeds=seeds, jobs=jobs)
    by_coupling = {c: seed_interval(table[table["coupling"] == c]["ratio"].tolist()) for c in couplings}
    verdicts = [side(_away(interval), NEAR, above=False) for _, interval in by_coupling.values()]
    disagree = bool((big["r_hat"] > MIXED).all()) or (None if bool((big["r_hat"] > MIXED).any()) else False)
    worst = max(by_coupling, key=lambda c: abs(by_coupling[c][0] - 1))
    value, interval = by_coupling[worst]
    exact = {c: chains.decay(_matrix(side_length, c), 60) for c in couplings}
    return Finding(
        study="chain_convergence",
        claim="The spectral gap predicts how fast a Gibbs sampler forgets, and a cold lattice does not mix.",
        holds=all_of([*verdicts, disagree]),
        value=Quantity(
            value, "measured / predicted rate", "estimate", None, interval, seeds, f"J = {worst:g}"
        ),
        controls=controls,
        table=pd.concat([table, big.drop(columns="trace")], ignore_index=True),
        protocol=(
            f"{side_length} x {side_length} open lattice, {CHAINS:,} chains from all up, {seeds} seeds, "
            f"within {NEAR:.0%}; {large} x {large} torus, J {cold:g}, {LARGE_CHAINS} chains, R-hat > {MIXED}"
        ),
        draw=convergence_figure,
        details={"exact": exact, "cold": big["trace"][0], "warm": _agreement(large, WARM, 0)["trace"]},
    )


@cache
def _gap(side_length: int, coupling: float) -> float:
    """Return the spectral gap of a checkerboard sweep."""
    return chains.spectral_gap(_matrix(side_length, coupling))


@cache
def _matrix(side_length: int, coupling: float) -> Tensor:
    """Return the transition matrix of a checkerboard sweep over all states."""
    return chains.Gibbs(Lattice(side_length, side_length, coupling).graph(), "colours").transition_matrix()


def _rate(side_length: int, coupling: float, seed: int) -> dict[str, Any]:
    """Return the rate at which chains from all up forget, measured and predicted."""
    kept = 1 - _gap(side_length, coupling)
    first, last = (max(1, round(math.log(level) / math.log(kept))) for level in SPAN)
    kernel = LatticeGibbs(Lattice(side_length, side_length, coupling))
    generator = generator_for(seed, "rate", coupling)
    state = kernel.init(torch.ones(CHAINS, side_length, side_length))
    means = []
    for step in range(1, last + 1):
        state, _ = kernel.step(state, generator)
        if step in (first, last):
            means.append(float(state.position.double().mean()))
    measured = math.log(means[0] / max(means[-1], 1e-9)) / max(last - first, 1)
    predicted = -math.log(kept)
    return {
        "coupling": coupling, "seed": seed, "gap": 1 - kept, "predicted": predicted, "measured": measured,
        "ratio": measured / predicted,
    }  # fmt: skip


def _agreement(large: int, coupling: float, seed: int) -> dict[str, Any]:
    """Return R-hat of the magnetisation of chains that start half of them up, half down."""
    kernel = LatticeGibbs(Lattice(large, large, coupling, periodic=True))
    generator = generator_for(seed, "agreement", coupling)
    sign = torch.where(torch.arange(LARGE_CHAINS) % 2 == 0, 1, -1)
    state = kernel.init(sign[:, None, None].expand(-1, large, large))
    trace = []
    for step in range(BURN_IN + KEPT):
        state, _ = kernel.step(state, generator)
        if step >= BURN_IN:
            trace.append(state.position.double().mean((1, 2)))
    draws = torch.stack(trace, 1)
    return {"coupling": coupling, "seed": seed, "r_hat": float(chains.r_hat(draws)), "trace": draws}


def _away(interval: tuple[float, float]) -> tuple[float, float]:
    """Return the interval of the distance from one."""
    low, high = abs(interval[0] - 1), abs(interval[1] - 1)
    return (0.0 if interval[0] <= 1 <= interval[1] else min(low, high)), max(low, high)


def _controls(large: int) -> dict[str, Control]:
    """Return what is known beforehand."""

    def two_states() -> float:
        # P = [[1 - a, a], [b, 1 - b]] from the first state: a / (a + b) (1 - a - b)^t
        a, b = 0.3, 0.1
        P = torch.tensor([[1 - a, a], [b, 1 - b]])
        found = chains.decay(P, 20, torch.tensor([1.0, 0.0]))
        return float((found - 0.75 * 0.6 ** torch.arange(21.0)).abs().max())

    return {
        "two states": Control(two_states, lambda error: error < 1e-6, "be below 1e-6"),
        "a warm lattice": Control(
            lambda: float(_agreement(large, WARM, 0)["r_hat"]), lambda r: r < MIXED, f"be below {MIXED}"
        ),
    }
