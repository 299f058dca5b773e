"""Laws of a density as a whole: it sums to one, and samples follow it.

Symbols:
    m points, k cells, n draws, E expected and O observed counts.

Source:
    Pearson's chi-square test: Bishop, Fienberg and Holland (1975), Discrete Multivariate Analysis,
    chapter 14; cells are pooled until each expects at least 5 draws.
"""

import inspect
import math
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor

from leadline.core import Density
from leadline.core.randomness import generator_for
from leadline.laws.subject import Small, Subject, Verb, density_of
from leadline.laws.verdicts import Broken, NotApplicable, demand

__all__ = ["FALSE_ALARM", "chi_square", "samples_follow_log_prob", "sums_to_one", "upper_tail"]

# The chance that a statistical law calls an honest model broken.
FALSE_ALARM = 1e-4
_SIGMAS = 3.9  # two-sided normal quantile of FALSE_ALARM
_ROUNDING, _LEAST_EXPECTED, _REPEATS, _MANY_SAMPLES, _LEAST_DRAWS = 1e-3, 5.0, 6, 128, 200
_MOST_MISSING, _MOST_UNSETTLED, _NOTHING, _WIDEST = 1e-2, 0.05, 1e-6, 1 << 22


def sums_to_one(subject: Subject) -> str:
    """Check that exp(log_prob) sums to 1, or to at most 1 where log_prob is a lower bound."""
    small = subject.small
    density = density_of(small.model)
    totals, slack = _totals(small, density, subject.seed)
    total = float(totals.mean())
    said = f"{small.cells.how}{small.where}: sum {total:.6g}, {density.kind}"
    witness = {"sum": total, "slack": slack}
    if density.kind != "lower bound":
        demand(total >= 1 - slack, f"{said}; it should be 1 (+-{slack:.2g})", **witness)
    if density.kind != "upper bound":
        demand(total <= 1 + slack, f"{said}; it should not exceed 1 (+{slack:.2g})", **witness)
    return said


def samples_follow_log_prob(subject: Subject) -> str:
    """Check the frequencies of samples against exp(log_prob) by a chi-square test over cells."""
    small = subject.small
    probability, draws = _probabilities(subject, small)
    x = cast(Verb, small.model.sample)(draws, generator=subject.generator("follow"))
    cells = small.cells.cell(x)
    demand((cells >= 0).all(), "a sample lies outside the domain", index=int((cells < 0).int().argmax()))
    observed = torch.bincount(cells, minlength=small.cells.count).double()
    impossible = ((observed > 0) & (probability <= 0))[cells]
    if bool(impossible.any()):
        row = int(impossible.int().argmax())
        raise Broken(f"sample {row} has probability 0 by log_prob", sample=x[row], index=row)
    statistic, degrees = chi_square(observed, probability)
    chance = upper_tail(statistic, degrees)
    said = f"{draws:,} draws{small.where}: chi-square {statistic:.1f} on {degrees} degrees, p = {chance:.2g}"
    worst = int((observed / draws - probability).abs().argmax())
    demand(
        chance >= FALSE_ALARM,
        f"{said}; it should not be below {FALSE_ALARM:g}",
        state=small.cells.points[small.cells.group == worst][0],
        frequency=float(observed[worst] / draws),
        probability=float(probability[worst]),
    )
    return said


def chi_square(observed: Tensor, probability: Tensor) -> tuple[float, int]:
    """Return Pearson's statistic and its degrees of freedom, rare cells pooled: two of (k,)."""
    expected = probability * observed.sum()
    order = expected.argsort()
    observed, expected = observed[order], expected[order]
    pool, filled, pools = 0, 0.0, []
    for value in expected.tolist():
        pools.append(pool)
        filled += value
        if filled >= _LEAST_EXPECTED:
            pool, filled = pool + 1, 0.0
    # What is left at the end is too little for a pool of its own: it joins the last one.
    index = torch.tensor(pools).clamp(max=max(pool - 1, 0))
    size = int(index.max()) + 1
    e = torch.zeros(size, dtype=torch.float64).index_add_(0, index, expected)
    o = torch.zeros(size, dtype=torch.float64).index_add_(0, index, observed)
    return float(((o - e).square() / e).sum()), size - 1


def upper_tail(statistic: float, degrees: int) -> float:
    """Return the chance that a chi-square variable exceeds `statistic`."""
    if degrees == 0:
        return 1.0
    half = torch.tensor([degrees / 2, statistic / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(half[0], half[1]))


def _totals(small: Small, density: Density, seed: int) -> tuple[Tensor, float]:
    """Return the sum of the density, once a draw of its own noise, and what it may differ from 1 by."""
    noisy = density.kind != "exact" and "generator" in _arguments(small)
    repeats = _REPEATS if noisy else 1
    totals, unsettled = [], 0.0
    for repeat in range(repeats):
        options = {"generator": _source(small, seed, repeat)} if noisy else {}
        weighted = _masses(small, options)
        totals.append(float(weighted.sum()))
        unsettled = max(unsettled, _settled(small, weighted, noisy=noisy))
    if noisy:
        spread = float(torch.tensor(totals).std()) / math.sqrt(repeats)
    else:
        # Noise that cannot be drawn again is taken to be as large as the mass of each point.
        share = weighted / weighted.sum().clamp(min=1e-300)
        spread = 0.0 if density.kind == "exact" or density.stderr else float(share.square().sum().sqrt())
    error = math.hypot(spread, math.expm1(density.stderr) if density.stderr else 0.0)
    return torch.tensor(totals), _ROUNDING + 2 * unsettled + _SIGMAS * error


def _source(small: Small, seed: int, repeat: int) -> torch.Generator:
    like = next(small.model.parameters(), torch.empty(0))
    return generator_for(seed, "total", repeat, device=like.device)


def _settled(small: Small, weighted: Tensor, *, noisy: bool) -> float:
    """Return how much the sum differs from that over a third of the resolution.

    Raises:
        NotApplicable: If mass lies beyond what is listed, or the grid is too coarse for the density.
    """
    cells, total = small.cells, float(weighted.sum())
    if not math.isfinite(total):
        raise Broken("exp(log_prob) is not finite everywhere", point=cells.points[~weighted.isfinite()][0])
    beyond = float(weighted[cells.edge].sum())
    if beyond > _MOST_MISSING * max(total, 1e-300):
        raise NotApplicable(f"too much mass lies at the border of {cells.how}: {beyond:.2g}")
    if cells.coarse is None or noisy:
        return 0.0
    if total < _NOTHING:
        raise NotApplicable(f"the density is nowhere on {cells.how}: too narrow or too far")
    reals = round(math.log(len(cells.coarse) / int(cells.coarse.sum()), 3))
    error = abs(total - 3**reals * float(weighted[cells.coarse].sum()))
    if error > _MOST_UNSETTLED * max(total, 1.0):
        raise NotApplicable(f"the density is too narrow for {cells.how}: the sum moves by {error:.2g}")
    return error


def _probabilities(subject: Subject, small: Small) -> tuple[Tensor, int]:
    """Return the probability of each cell (k,), and how many draws it is sharp enough for.

    Raises:
        NotApplicable: If log_prob is a bound or an estimate that is too loose or too noisy.
    """
    kind, known = density_of(small.model).kind, _arguments(small)
    if kind in ("lower bound", "upper bound") and "samples" not in known:
        raise NotApplicable(f"log_prob is a {kind} without an argument `samples` that would tighten it")
    twice = []
    for repeat in range(1 if kind == "exact" else 2):
        tight = {"samples": _MANY_SAMPLES, "generator": _source(small, subject.seed, repeat)}
        options = {key: value for key, value in tight.items() if key in known and kind != "exact"}
        weighted = _tightened(small, kind, options)
        _settled(small, weighted, noisy=kind != "exact")
        twice.append(weighted.new_zeros(small.cells.count).index_add_(0, small.cells.group, weighted))
    mass = torch.stack(twice).mean(0)
    total = float(mass.sum())
    if total <= 0:
        raise NotApplicable("log_prob gives no state any probability")
    draws = subject.draws
    if kind in ("lower bound", "upper bound"):
        # What the bound lacks, and its noise, add to chi-square at most `draws` times this.
        noise = ((twice[0] - twice[-1]).square() / (4 * mass).clamp(min=1e-300)).sum()
        excess = max(abs(1 - total), float(noise))
        draws = int(min(draws, math.sqrt(2 * len(mass)) / (2 * max(excess, 1e-9))))
        if draws < min(_LEAST_DRAWS, subject.draws):
            raise NotApplicable(f"log_prob is a {kind} too loose to compare with: off by {excess:.2g}")
    return mass / total, draws


def _tightened(small: Small, kind: str, options: dict[str, object]) -> Tensor:
    """Return the masses by the tight estimate, but where they have no weight either way: (m,).

    Of a lower bound or an estimate that more samples tighten, the points of least mass that make a millionth
    together keep it. If they had more in truth, the sum would miss it, as `_probabilities` asks.
    """
    if kind != "lower bound" and not (kind == "estimate" and "samples" in options):
        return _masses(small, options)
    loose = _masses(small)
    order = loose.nan_to_num(nan=torch.inf).argsort()
    heavy = order[loose[order].cumsum(0) > _NOTHING * loose.sum()] if bool(loose.isfinite().all()) else order
    loose[heavy] = _masses(small, options, heavy)
    return loose


def _masses(
    small: Small, options: Mapping[str, object] | None = None, chosen: Tensor | None = None
) -> Tensor:
    """Return the probability that each point, or each chosen one, stands for: (m,) float64 on the CPU."""
    options = options or {}
    samples = options.get("samples", 64)
    rows = max(64, _WIDEST // (64 * (samples if isinstance(samples, int) else 64)))
    score, like = cast(Verb, small.model.log_prob), next(small.model.parameters(), torch.empty(0))
    every = slice(None) if chosen is None else chosen
    points, log_weight = small.cells.points[every], small.cells.log_weight[every]
    parts = [score(part.to(like.device), **options).double().cpu() for part in points.split(rows)]
    return (torch.cat(parts) + log_weight).exp()


def _arguments(small: Small) -> set[str]:
    """Return the names of the arguments that log_prob takes."""
    return set(inspect.signature(cast(Verb, small.model.log_prob)).parameters)
