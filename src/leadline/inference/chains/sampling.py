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
from leadline.inference.chains.diagnostics import FEWEST, ess, mcse, nested_r_hat, r_hat, tail_ess
from leadline.inference.chains.kernel import Information, Kernel, LogDensity
from leadline.inference.chains.metric import rows
from leadline.inference.chains.moves import Hamiltonian, Langevin, Metropolis, RandomWalk, Unadjusted
from leadline.inference.chains.nuts import NUTS

__all__ = ["KERNELS", "Chains", "InterruptedChains", "resume", "run", "sample"]

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
        superchains: Which chains began at the same point (chain,), where several points were the start of
            equally many chains, at least two; else None.
    """

    draws: Tensor
    acceptance: Tensor
    divergent: Tensor
    steps: Tensor
    kernel: Any = field(repr=False)
    state: Any = field(repr=False)
    superchains: Tensor | None = field(default=None, repr=False)

    @property
    def r_hat(self) -> Tensor:
        """Return rank-normalised split R-hat of each entry, shape (*shape)."""
        return r_hat(self.draws)

    @property
    def nested_r_hat(self) -> Tensor:
        """Return nested R-hat of each entry, shape (*shape).

        Raises:
            OptionError: If no chains began at the same point.
        """
        if self.superchains is None:
            raise OptionError(
                "nested R-hat needs chains that share starts, equally many each: "
                "start=points.repeat_interleave(chains_a_point, 0)"
            )
        return nested_r_hat(self.draws, self.superchains)

    @property
    def agreement(self) -> Tensor:
        """Return nested R-hat of each entry where chains share starts, else split R-hat, shape (*shape)."""
        return self.r_hat if self.superchains is None else self.nested_r_hat

    @property
    def ess(self) -> Tensor:
        """Return the bulk effective sample size of each entry, shape (*shape)."""
        return ess(self.draws)

    @property
    def trusted(self) -> bool:
        """Return whether all chains agree to 1.01 and every effective sample size is at least 400.

        Agreement is nested R-hat where chains share starts, else split R-hat. Draws too few to judge are not
        trusted.
        """
        if self.draws.shape[1] < FEWEST:
            return False
        sizes = torch.minimum(self.ess, tail_ess(self.draws))
        return bool((self.agreement <= TRUSTED_R_HAT).all() and (sizes >= TRUSTED_ESS).all())

    def summary(self) -> pd.DataFrame:
        """Return a row an entry: mean, its Monte Carlo error, sd, 5 % and 95 % quantiles, ESS, R-hat.

        Where chains share starts a last column has nested R-hat.

        Raises:
            ShapeError: If there are fewer than four draws.
        """
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
        if self.superchains is not None:
            columns["nested_r_hat"] = self.nested_r_hat.flatten()
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
        if draws < FEWEST:
            return (
                f"{chains} chains of {draws} draws of {tuple(self.draws.shape[2:])}: too few draws to judge"
            )
        size, shrink = torch.minimum(self.ess, tail_ess(self.draws)), self.agreement
        nested = self.superchains is not None
        bad = int((~(shrink <= TRUSTED_R_HAT)).sum())
        told = (
            f"  smallest ESS {float(size.nan_to_num(0.0).min()):,.0f}, "
            f"largest {'nested ' * nested}R-hat {float(shrink.nan_to_num(torch.inf, torch.inf).max()):.3f}, "
            f"mean acceptance {float(self.acceptance.mean()):.2f}, "
            f"{int(self.divergent.sum())} divergent steps"
        )
        lines = [f"{chains} chains of {draws} draws of {tuple(self.draws.shape[2:])}", told]
        if bad:
            why = "chains of different starts disagree" if nested else (
                "the chains disagree, or each is too short to tell; chains that share starts "
                "have a nested R-hat, which can tell short from stuck"
            )  # fmt: skip
            lines.append(
                f"  {'nested ' * nested}R-hat is above {TRUSTED_R_HAT} for {bad} of {shrink.numel()} "
                f"entries: {why}"
            )
        return "\n".join(lines)


class InterruptedChains(KeyboardInterrupt):
    """Ctrl-C stopped chains between two draws.

    Args:
        chains: What was drawn until then; `resume` goes on from there.
        wanted: How many draws were asked for.
    """

    def __init__(self, chains: Chains, wanted: int) -> None:
        super().__init__(
            f"stopped by Ctrl-C after {chains.draws.shape[1]} of {wanted} draws: see .chains of this error"
        )
        self.chains = chains


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
        start: Where each chain starts (chain, *shape), far apart if R-hat is to mean anything. Of many short
            chains let groups share a start, `points.repeat_interleave(64, 0)`: then nested R-hat tells.
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
        InterruptedChains: At Ctrl-C, with the draws so far.

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
        InterruptedChains: At Ctrl-C, with the draws so far.
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
    return _kept(tuning.end(), state, draws, thin, generator, _superchains(start))


def resume(chains: Chains, draws: int, *, thin: int = 1, generator: torch.Generator | None = None) -> Chains:
    """Return `draws` further draws of chains, from where they stand and without any tuning.

    Raises:
        OptionError: If an option is out of range.
    """
    if draws < 1 or thin < 1:
        raise OptionError(f"needs draws >= 1 and thin >= 1, got {draws} and {thin}")
    return _kept(chains.kernel, chains.state, draws, thin, generator, chains.superchains)


def _kept(
    kernel: Any,
    state: Any,
    draws: int,
    thin: int,
    generator: torch.Generator | None,
    superchains: Tensor | None,
) -> Chains:
    """Return the draws of a kernel from a state."""
    position, stands = state.position, state
    kept = position.new_empty((draws, *position.shape))  # draw by draw: a draw is one piece of memory
    told: list[Information] = []

    def chains() -> Chains:
        parts = [(one.acceptance, one.divergent.bool(), one.steps) for one in told]
        acceptance, divergent, steps = (torch.stack(part, 1) for part in zip(*parts, strict=True))
        x = kept[: len(told)].transpose(0, 1)
        return Chains(x, acceptance, divergent, steps, kernel, stands, superchains)

    try:
        for draw in range(draws):
            for _ in range(thin):
                state, information = kernel.step(state, generator)
            kept[draw] = state.position
            told.append(information)
            stands = state
    except KeyboardInterrupt as stop:
        if not told:
            raise
        raise InterruptedChains(chains(), draws) from stop
    return chains()


def _superchains(start: Tensor) -> Tensor | None:
    """Return which chains share a start (c,), if there are two starts or more and as many chains at each."""
    _, which, counts = torch.unique(rows(start), dim=0, return_inverse=True, return_counts=True)
    shared = len(counts) > 1 and int(counts.min()) == int(counts.max()) > 1
    return which if shared else None
