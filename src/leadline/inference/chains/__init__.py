"""Markov chains, many at once: kernels, warm-up, and how far to trust what they give."""

from leadline.inference.chains.adaptation import DualAveraging, Warmup
from leadline.inference.chains.diagnostics import autocorrelation, ess, mcse, nested_r_hat, r_hat, tail_ess
from leadline.inference.chains.finite import (
    balance_error,
    decay,
    metropolis_matrix,
    spectral_gap,
    stationary,
    swap_matrix,
    total_variation,
)
from leadline.inference.chains.gibbs import Gibbs
from leadline.inference.chains.kernel import Information, Kernel, State, WithGradient
from leadline.inference.chains.metric import Metric
from leadline.inference.chains.moves import (
    Hamiltonian,
    Langevin,
    Metropolis,
    Proposed,
    RandomWalk,
    Unadjusted,
)
from leadline.inference.chains.nuts import NUTS
from leadline.inference.chains.sampling import KERNELS, Chains, InterruptedChains, resume, run, sample
from leadline.inference.chains.tempering import Tempered, Tempering

__all__ = [
    "KERNELS",
    "NUTS",
    "Chains",
    "DualAveraging",
    "Gibbs",
    "Hamiltonian",
    "Information",
    "InterruptedChains",
    "Kernel",
    "Langevin",
    "Metric",
    "Metropolis",
    "Proposed",
    "RandomWalk",
    "State",
    "Tempered",
    "Tempering",
    "Unadjusted",
    "Warmup",
    "WithGradient",
    "autocorrelation",
    "balance_error",
    "decay",
    "ess",
    "mcse",
    "metropolis_matrix",
    "nested_r_hat",
    "r_hat",
    "resume",
    "run",
    "sample",
    "spectral_gap",
    "stationary",
    "swap_matrix",
    "tail_ess",
    "total_variation",
]
