r"""The ways of optimisers over a function, and two laws that the ways obey.

Claim:
    On an ill-conditioned quadratic the steps of gradient descent grow as kappa and those of momentum as the
    square root of kappa; and noise leaves the saddle of y^4 - x^4 where gradient descent, started on its
    stable axis, stays.

Instrument:
    Steps to a millionth of the distance, from random starts, at kappa = 10, 100, 1000, with the best
    constants of each method; the exponent is the slope of the logarithms, its interval Student's over starts.
    On the saddle, both from (0, 1): left means a value below -0.1. The paths drawn are those on the function
    asked for, of each optimiser by its name, at the learning rate of a fixed list that needs fewest steps.

Controls:
    positive: gradient descent with lr = 1 / L on a quadratic loses a factor of 1 - 1 / kappa at every step.
    negative: on a round bowl (kappa = 1) momentum needs no fewer steps than gradient descent.

Source:
    Polyak (1964), USSR Comput. Math. 4(5). Noise and saddles: Ge, Huang, Jin and Yuan (2015), Escaping from
    saddle points, COLT.

Cost:
    Ten seconds.
"""

import math

import pandas as pd
import scipy.stats
import torch
from torch import Tensor

from leadline.core import OptionError, Quantity
from leadline.core.errors import unknown_name
from leadline.core.randomness import generator_for
from leadline.studies.descent import path_of, quadratic_steps, tuned
from leadline.studies.finding import Finding
from leadline.studies.functions import FUNCTIONS, Function, function_named
from leadline.studies.path_pictures import animated, paths_figure
from leadline.studies.study import Control, all_of, passed
from leadline.studies.table import STUDIES

__all__ = ["optimizer_paths"]

OPTIMIZERS = ("gd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "noisy_sgd")
RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
KAPPAS, NEAR, MOST = (10.0, 100.0, 1000.0), 1e-6, 20_000
LINEAR, ROOT = (0.9, 1.1), (0.4, 0.6)
LEFT, ESCAPE = -0.1, {"steps": 3000, "lr": 0.05, "noise": 0.5}
RATE_ERROR = 1e-9


def optimizer_paths(
    function: str = "flat_saddle",
    *,
    optimizers: tuple[str, ...] = OPTIMIZERS,
    steps: int = 500,
    tolerance: float = 1e-6,
    noise: float = 0.3,
    seeds: int = 5,
) -> Finding:
    """Return whether momentum and noise do what theory says, with the paths of optimisers on a function.

    Args:
        function: Name of one of `leadline.studies.functions`.
        optimizers: Whose paths to draw.
        steps: Most steps of a path, at least 1.
        tolerance: Distance from the least value at which a path has arrived; on a function without one, the
            depth 0.1 below the saddle counts.
        noise: Standard deviation of the noise of `noisy_sgd`, the same at every step, at least 0.
        seeds: Number of noises, and of starts behind an exponent, at least 2.

    Raises:
        OptionError: If a name is unknown or a number out of range.
        StudyError: If a control fails.
    """
    shown = function_named(function)
    for name in optimizers:
        if name not in OPTIMIZERS:
            raise unknown_name("optimizer of this study", name, OPTIMIZERS)
    if not optimizers or steps < 1 or seeds < 2 or not tolerance > 0 or not noise >= 0:
        raise OptionError(
            "optimizers, steps >= 1, seeds >= 2, tolerance > 0 and noise >= 0 are needed, "
            f"got {len(optimizers)} optimizers, {steps}, {seeds}, {tolerance} and {noise}"
        )
    controls = passed(_controls())
    exponents, counts = _exponents(seeds)
    stays, leaves = _escape(seeds)
    rows, paths = _paths(shown, optimizers, steps, tolerance, noise, seeds)
    parts = [
        _within(exponents["gd"], LINEAR),
        _within(exponents["momentum"], ROOT),
        stays,
        True if leaves == seeds else (False if leaves == 0 else None),
    ]
    return Finding(
        study="optimizer_paths",
        claim=STUDIES["optimizer_paths"].claim,
        holds=all_of(parts),
        value=exponents["momentum"],
        controls=controls,
        table=pd.DataFrame(rows),
        protocol=(
            f"exponents of kappa: gradient descent {exponents['gd'].value:.3f}, momentum "
            f"{exponents['momentum'].value:.3f}; {leaves} of {seeds} noises leave y^4 - x^4; paths on "
            f"{function}, {shown.formula}, from {shown.start}, at the best of {len(RATES)} learning rates"
        ),
        draw=paths_figure,
        details={"paths": paths, "function": shown, "name": function, "counts": counts, "kappas": KAPPAS},
        animate=animated,
    )


def _exponents(seeds: int) -> tuple[dict[str, Quantity], dict[str, list[float]]]:
    """Return the exponent of kappa of each method with its interval, and its mean steps at each kappa."""
    turn = torch.rand(seeds, generator=generator_for(0, "starts"), dtype=torch.float64) * 2 * math.pi
    # On an axis there is but one curvature to meet: starts lie between the axes.
    start = torch.stack([turn.cos().sign() * (0.5 + 0.5 * turn.cos().abs()), turn.sin().sign()], 1)
    found, means = {}, {}
    logs = torch.tensor(KAPPAS, dtype=torch.float64).log()
    for method in ("gd", "momentum"):
        counts = torch.stack([quadratic_steps(method, kappa, start, NEAR, MOST) for kappa in KAPPAS])
        means[method] = counts.mean(1).tolist()
        centred = logs - logs.mean()
        slopes = (centred[:, None] * counts.log()).sum(0) / centred.square().sum()
        reach = float(scipy.stats.t.ppf(0.975, seeds - 1)) * float(slopes.std()) / math.sqrt(seeds)
        mean = float(slopes.mean())
        protocol = f"slope of log steps on log kappa, {seeds} starts"
        found[method] = Quantity(
            mean, "(exponent of kappa)", "estimate", None, (mean - reach, mean + reach), seeds, protocol
        )
    return found, means


def _escape(seeds: int) -> tuple[bool, int]:
    """Return whether gradient descent stays on the axis of y^4 - x^4, and how many noises leave it."""
    saddle = FUNCTIONS["flat_saddle"]
    start = torch.tensor(saddle.start, dtype=torch.float64).expand(seeds, 2)
    ends = {}
    for name, own in (("gd", {}), ("noisy_sgd", _noise(ESCAPE["noise"]))):
        path = path_of(
            saddle.value, start, name, steps=int(ESCAPE["steps"]), done=lambda p: saddle.value(p) < LEFT,
            options={"lr": ESCAPE["lr"], **own},
        )  # fmt: skip
        ends[name] = path
    stays = bool((ends["gd"][..., 0] == 0).all())
    left = (torch.stack([saddle.value(place) for place in ends["noisy_sgd"]]) < LEFT).any(0)
    return stays, int(left.sum())


def _paths(
    shown: Function, optimizers: tuple[str, ...], steps: int, tolerance: float, noise: float, seeds: int
) -> tuple[list[dict[str, object]], dict[str, Tensor]]:
    """Return a row and the path of each optimiser at its best learning rate."""
    goal = LEFT if shown.least is None else shown.least + tolerance
    rows: list[dict[str, object]] = []
    paths: dict[str, Tensor] = {}
    for name in optimizers:
        own = _noise(noise) if name == "noisy_sgd" else {}
        start = torch.tensor(shown.start, dtype=torch.float64).expand(seeds if own else 1, 2)
        lr, path, taken = tuned(
            shown.value,
            start,
            name,
            rates=RATES,
            steps=steps,
            done=lambda p: shown.value(p) <= goal,
            options=own,
        )
        end = path[-1].median(0).values
        rows.append(
            {
                "optimizer": name, "lr": lr, "steps": float(taken.median()),
                "arrived": float(torch.isfinite(taken).double().mean()),
                "x": float(end[0]), "y": float(end[1]), "value": float(shown.value(path[-1]).median()),
            }
        )  # fmt: skip
        paths[name] = path[:, 0]
    return rows, paths


def _noise(deviation: float) -> dict[str, float]:
    """Return the options of noise with one standard deviation at every step."""
    return {"noise": deviation**2, "anneal": 0.0}


def _within(value: Quantity, limits: tuple[float, float]) -> bool | None:
    """Return whether a whole interval lies within limits; False if it lies wholly outside."""
    low, high = value.interval or (-math.inf, math.inf)
    if limits[0] <= low and high <= limits[1]:
        return True
    return False if high < limits[0] or low > limits[1] else None


def _controls() -> dict[str, Control]:
    """Return the rate of gradient descent, and momentum where there is nothing to gain."""
    kappa, count = 100.0, 200

    def rate() -> float:
        weights = torch.tensor([1.0, kappa], dtype=torch.float64)
        start = torch.ones(1, 2, dtype=torch.float64)
        path = path_of(
            lambda p: 0.5 * (weights * p.square()).sum(-1), start, "gd", steps=count,
            done=lambda p: p[:, 0] < 0, options={"lr": 1 / kappa},
        )  # fmt: skip
        return abs(float(path[-1, 0, 0]) / (1 - 1 / kappa) ** count - 1)

    def gain() -> float:
        start = torch.ones(1, 2, dtype=torch.float64)
        plain, heavy = (float(quadratic_steps(name, 1.0, start, NEAR, 100)[0]) for name in ("gd", "momentum"))
        return plain - heavy

    return {
        "rate 1 - 1/kappa": Control(rate, lambda error: error < RATE_ERROR, f"be below {RATE_ERROR:g}"),
        "no gain at kappa = 1": Control(gain, lambda steps: steps <= 0, "be at most 0"),
    }
