"""Markov chains, many at once: kernels, warm-up, and how far to trust what they give."""

from leadline.inference.chains.adaptation import DualAveraging, Warmup
from leadline.inference.chains.diagnostics import autocorrelation, ess, mcse, r_hat, tail_ess
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
from leadline.inference.chains.sampling import KERNELS, Chains, resume, run, sample

__all__ = [
    "KERNELS",
    "NUTS",
    "Chains",
    "DualAveraging",
    "Hamiltonian",
    "Information",
    "Kernel",
    "Langevin",
    "Metric",
    "Metropolis",
    "Proposed",
    "RandomWalk",
    "State",
    "Unadjusted",
    "Warmup",
    "WithGradient",
    "autocorrelation",
    "ess",
    "mcse",
    "r_hat",
    "resume",
    "run",
    "sample",
    "tail_ess",
]
