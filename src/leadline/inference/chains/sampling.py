"""Run chains: `sample` for a log-density of one's own, `run` for any kernel."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from leadline.core.errors import OptionError, require_extra, unknown_name
from leadline.inference.chains.adaptation import MetricWord, Warmup
from leadline.inference.chains.diagnostics import ess, mcse, r_hat, tail_ess
from leadline.inference.chains.kernel import Kernel, LogDensity
from leadline.inference.chains.moves import Hamiltonian, Langevin, Metropolis, RandomWalk, Unadjusted
from leadline.inference.chains.nuts import NUTS

__all__ = ["KERNELS", "Chains", "resume", "run", "sample"]

TRUSTED_R_HAT = 1.01  # Vehtari et al. (2021), section 4
TRUSTED_ESS = 400.0  # the same, for four chains
Make = Callable[[LogDensity], Any]

KERNELS: dict[str, Make] = {
    "nuts": NUTS,
    "hmc": lambda log_density: Metropolis(log_density, Hamiltonian()),
    "mala": lambda log_density: Metropolis(log_density, Langevin()),
    "random walk": lambda log_density: Metropolis(log_density, RandomWalk()),
    "langevin": lambda log_density: Unadjusted(log_density, Langevin(step_size=0.01)),
}


@dataclass(frozen=True)
class Chains:
    """What a run of chains gave.

    Args:
        draws: (chain, draw, *shape).
        acceptance: Acceptance probability of each step (chain, draw).
        divergent: Steps whose energy error was too large (chain, draw).
        steps: Evaluations of the target that each step took (chain, draw).
        kernel: The kernel as the warm-up left it.
        state: Where the chains stand; `resume` goes on from there.
    """

    draws: Tensor
    acceptance: Tensor
    divergent: Tensor
    steps: Tensor
    kernel: Any = field(repr=False)
    state: Any = field(repr=False)

    @property
    def r_hat(self) -> Tensor:
        """Return rank-normalised split R-hat of each entry, shape (*shape)."""
        return r_hat(self.draws)

    @property
    def ess(self) -> Tensor:
        """Return the bulk effective sample size of each entry, shape (*shape)."""
        return ess(self.draws)

    @property
    def trusted(self) -> bool:
        """Return whether every R-hat is below 1.01 and every effective sample size at least 400."""
        sizes = torch.minimum(self.ess, tail_ess(self.draws))
        return bool((self.r_hat <= TRUSTED_R_HAT).all() and (sizes >= TRUSTED_ESS).all())

    def summary(self) -> pd.DataFrame:
        """Return a row an entry: mean, its Monte Carlo error, sd, 5 % and 95 % quantiles, ESS, R-hat."""
        x = self.draws.detach().double()
        flat = x.flatten(0, 1).reshape(x.shape[0] * x.shape[1], -1)
        ordered = flat.sort(0).values
        columns = {
            "mean": flat.mean(0),
            "mcse": mcse(x).flatten(),
            "sd": flat.std(0),
            "5%": ordered[round(0.05 * (len(ordered) - 1))],
            "95%": ordered[round(0.95 * (len(ordered) - 1))],
            "ess_bulk": ess(x).flatten(),
            "ess_tail": tail_ess(x).flatten(),
            "r_hat": r_hat(x).flatten(),
        }
        places = [list(place) for place in np.ndindex(*x.shape[2:])]
        names = [f"x{place if place else ''}" for place in places]
        return pd.DataFrame({key: value.cpu().numpy() for key, value in columns.items()}, index=names)

    def to_dict(self, name: str = "x") -> dict[str, dict[str, Any]]:
        """Return {"posterior": {name: (chain, draw, *shape)}, "sample_stats": ...}, plain arrays."""
        told = {
            "acceptance_rate": self.acceptance,
            "diverging": self.divergent,
            "n_steps": self.steps.long(),
        }
        return {
            "posterior": {name: self.draws.detach().cpu().numpy()},
            "sample_stats": {key: value.cpu().numpy() for key, value in told.items()},
        }

    def to_arviz(self, name: str = "x") -> Any:
        """Return an ArviZ InferenceData (ArviZ 0.x) or xarray DataTree (1.x).

        Raises:
            ExtraError: If ArviZ is not installed.
        """
        arviz: Any = require_extra("arviz", "arviz")
        groups = self.to_dict(name)
        major = int(arviz.__version__.split(".")[0])
        return arviz.from_dict(groups) if major >= 1 else arviz.from_dict(**groups)

    def __str__(self) -> str:
        chains, draws = self.draws.shape[:2]
        size, shrink = torch.minimum(self.ess, tail_ess(self.draws)), self.r_hat
        bad = int((~(shrink <= TRUSTED_R_HAT)).sum())
        told = (
            f"  smallest ESS {float(size.nan_to_num(0.0).min()):,.0f}, "
            f"largest R-hat {float(shrink.nan_to_num(torch.inf).max()):.3f}, "
            f"mean acceptance {float(self.acceptance.mean()):.2f}, "
            f"{int(self.divergent.sum())} divergent steps"
        )
        lines = [f"{chains} chains of {draws} draws of {tuple(self.draws.shape[2:])}", told]
        if bad:
            lines.append(
                f"  R-hat is above {TRUSTED_R_HAT} for {bad} of {shrink.numel()} entries: "
                "the chains disagree, or each is too short to tell"
            )
        return "\n".join(lines)


def sample(
    log_density: LogDensity,
    start: Tensor,
    kernel: str | Make = "nuts",
    *,
    warmup: int = 500,
    draws: int = 1000,
    metric: MetricWord = "diagonal",
    generator: torch.Generator | None = None,
) -> Chains:
    """Return draws from a density that is known up to a constant.

    Args:
        log_density: x (chain, *shape) -> log f (chain,), in nats; give it `WithGradient` to spare autograd.
        start: Where each chain starts (chain, *shape), far apart if R-hat is to mean anything.
        kernel: "nuts", "hmc", "mala", "random walk", "langevin" (unadjusted, hence biased), or a function
            that makes a kernel of a log-density, such as
            `lambda f: Metropolis(f, Hamiltonian(leapfrogs=20))`.
        warmup: Steps that tune the kernel and are thrown away, >= 0.
        draws: Steps that are kept, >= 1.
        metric: What the warm-up learns of the scales of x: "unit", "diagonal" or "dense".
        generator: Source of randomness.

    Raises:
        OptionError: If an option is out of range, or the density is not finite at a start.
        ShapeError: If the density does not give one number a chain.

    Example:
        >>> chains = sample(lambda x: -0.5 * x.square().sum(1), torch.randn(8, 2), warmup=100, draws=50)
        >>> chains.draws.shape
        torch.Size([8, 50, 2])
    """
    if isinstance(kernel, str):
        if kernel not in KERNELS:
            raise unknown_name("kernel", kernel, KERNELS)
        kernel = KERNELS[kernel]
    return run(kernel(log_density), start, warmup=warmup, draws=draws, metric=metric, generator=generator)


def run(
    kernel: Kernel[Any],
    start: Tensor,
    *,
    warmup: int = 0,
    draws: int = 1000,
    thin: int = 1,
    metric: MetricWord = "diagonal",
    generator: torch.Generator | None = None,
) -> Chains:
    """Return the draws of a kernel, tuned in the warm-up if it has a step size.

    Args:
        kernel: Anything with `init` and `step`.
        start: Where each chain starts (chain, *shape).
        warmup: Steps that are thrown away, >= 0.
        draws: Draws that are kept, >= 1.
        thin: Steps between two draws, >= 1.
        metric: What the warm-up learns of the scales of x: "unit", "diagonal" or "dense".
        generator: Source of randomness.

    Raises:
        OptionError: If an option is out of range.
    """
    if warmup < 0 or draws < 1 or thin < 1:
        raise OptionError(f"needs warmup >= 0, draws >= 1, thin >= 1, got {warmup}, {draws}, {thin}")
    tuning = Warmup(kernel, warmup, metric)
    state = kernel.init(start)
    if warmup:
        tuning.begin(state, generator)
    for _ in range(warmup):
        state, told = tuning.kernel.step(state, generator)
        tuning.learn(state, told, generator)
    return _kept(tuning.end(), state, draws, thin, generator)


def resume(chains: Chains, draws: int, *, thin: int = 1, generator: torch.Generator | None = None) -> Chains:
    """Return `draws` further draws of chains, from where they stand and without any tuning.

    Raises:
        OptionError: If an option is out of range.
    """
    if draws < 1 or thin < 1:
        raise OptionError(f"needs draws >= 1 and thin >= 1, got {draws} and {thin}")
    return _kept(chains.kernel, chains.state, draws, thin, generator)


def _kept(kernel: Any, state: Any, draws: int, thin: int, generator: torch.Generator | None) -> Chains:
    """Return the draws of a kernel from a state."""
    position = state.position
    kept = position.new_empty((position.shape[0], draws, *position.shape[1:]))
    told: list[Tensor] = []
    for draw in range(draws):
        for _ in range(thin):
            state, information = kernel.step(state, generator)
        kept[:, draw] = state.position
        told.append(
            torch.stack(
                [information.acceptance, information.divergent.to(information.acceptance), information.steps]
            )
        )
    acceptance, divergent, steps = torch.stack(told, -1)
    return Chains(kept, acceptance, divergent.bool(), steps, kernel, state)
