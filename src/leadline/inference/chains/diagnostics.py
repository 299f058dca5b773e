r"""How far chains can be trusted: effective sample size, R-hat, Monte Carlo standard error.

Every function takes draws (chain, draw, *shape) and answers for each entry of shape.

Symbols:
    m chains, n draws each, s = m n, r_t autocorrelation at lag t, W within- and B between-chain variance.

    ESS = s / (-1 + 2 sum_t P_t),  P_t = r_2t + r_2t+1, cut where negative and made monotone

Source:
    Vehtari, Gelman, Simpson, Carpenter and Bürkner (2021), Rank-normalization, folding, and localization:
    an improved R-hat for assessing convergence of MCMC, Bayesian Analysis 16(2), sections 3 and 4.
    Cut: Geyer (1992), Practical Markov chain Monte Carlo, Statistical Science 7(4), section 3.3.
    Nested: Margossian, Hoffman, Sountsov, Riou-Durand, Vehtari and Gelman (2024), Nested R-hat: Assessing the
    convergence of Markov chain Monte Carlo when running many short chains, Bayesian Analysis.

Departs from the source:
    Nested R-hat is taken of the ranks and of the folded ranks, as R-hat is, so that it exists for any target
    and sees chains that differ in width alone.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from leadline.core.errors import OptionError, ShapeError

__all__ = ["FEWEST", "autocorrelation", "ess", "mcse", "nested_r_hat", "r_hat", "tail_ess"]

FEWEST = 4  # draws of a chain, of which two halves can be compared
_BLOCK = 1 << 22  # numbers in work at once


def r_hat(draws: Tensor) -> Tensor:
    """Return rank-normalised split R-hat: the larger of that of the ranks and of the folded ranks.

    1 where chains agree; above 1.01 they do not. NaN where draws are constant or not finite.

    Args:
        draws: (m, n, *shape), n >= 4.

    Returns:
        (*shape)

    Raises:
        ShapeError: If there are too few draws.
    """
    split = _split(_checked(draws))
    folded = (split - _quantile(split, 0.5)).abs()
    answer = torch.maximum(_plain_r_hat(_normal_scores(split)), _plain_r_hat(_normal_scores(folded)))
    return _shaped(answer, split, draws)


def nested_r_hat(draws: Tensor, superchains: Tensor) -> Tensor:
    """Return nested R-hat: whether groups of chains have forgotten the points that each group started from.

    R-hat compares means of single chains, whose noise keeps it above 1 + 1 / (2 n) or so: short chains never
    pass. Nested R-hat compares means of groups: many chains make their noise as small as one likes. 1 where
    the starts are forgotten; above 1.01 they are not. NaN where draws are constant or not finite.

    Args:
        draws: (m, n, *shape), n >= 1.
        superchains: Group of each chain (m,): those that started at the same point. Groups are of one size.

    Returns:
        (*shape)

    Raises:
        ShapeError: If there are no draws, or the groups are fewer than two or not of one size.
    """
    x = _checked(draws, 1)
    if superchains.shape != draws.shape[:1]:
        raise ShapeError(f"{len(draws)} chains need as many groups, got {tuple(superchains.shape)}")
    _, order, counts = torch.unique(superchains, return_inverse=True, return_counts=True)
    if len(counts) < 2 or int(counts.min()) != int(counts.max()):
        raise ShapeError(f"nested R-hat needs two groups or more of one size, got sizes {counts.tolist()}")
    grouped = x[order.argsort()]
    folded = (grouped - _quantile(grouped, 0.5)).abs()
    both = [_plain_nested(_normal_scores(part), len(counts)) for part in (grouped, folded)]
    return _shaped(torch.maximum(both[0], both[1]), grouped, draws)


def ess(draws: Tensor, kind: Literal["bulk", "mean"] = "bulk") -> Tensor:
    """Return the effective sample size: (m, n, *shape) -> (*shape).

    Args:
        draws: (m, n, *shape), n >= 4.
        kind: "bulk" of the rank-normalised draws, which exists for any target; "mean" of the draws.

    Raises:
        ShapeError: If there are too few draws.
        OptionError: If the kind is unknown.
    """
    if kind not in ("bulk", "mean"):
        raise OptionError(f'kind must be "bulk" or "mean", got "{kind}"; for tails there is tail_ess')
    split = _split(_checked(draws))
    return _shaped(_plain_ess(_normal_scores(split) if kind == "bulk" else split), split, draws)


def tail_ess(draws: Tensor) -> Tensor:
    """Return the smaller effective sample size of the 5 % and 95 % quantiles: (m, n, *shape) -> (*shape).

    Raises:
        ShapeError: If there are too few draws.
    """
    whole = _checked(draws)
    split = _split(whole)
    sizes = [_plain_ess((split <= _quantile(whole, level)).to(split)) for level in (0.05, 0.95)]
    return _shaped(torch.minimum(sizes[0], sizes[1]), split, draws)


def mcse(draws: Tensor) -> Tensor:
    """Return the Monte Carlo standard error of the mean, sd / sqrt(ESS): (m, n, *shape) -> (*shape).

    Raises:
        ShapeError: If there are too few draws.
    """
    flat = _checked(draws).flatten(0, 1)
    return flat.std(0).reshape(draws.shape[2:]) / ess(draws, "mean").sqrt()


def autocorrelation(draws: Tensor) -> Tensor:
    """Return the autocorrelation of each chain at every lag: (m, n, *shape) -> (m, n, *shape)."""
    x = draws.double().flatten(2) if draws.dim() > 2 else draws.double()[..., None]
    covariance = _autocovariance(x)
    return (covariance / covariance[:, :1]).reshape(draws.shape)


def _checked(draws: Tensor, least: int = FEWEST) -> Tensor:
    """Return draws, a tensor or what `torch.as_tensor` reads, in float64 as (m, n, k).

    Raises:
        ShapeError: If there are fewer than two axes or `least` draws.
    """
    draws = torch.as_tensor(draws)
    if draws.dim() < 2 or draws.shape[0] < 1 or draws.shape[1] < least:
        raise ShapeError(f"draws must be (chain, draw >= {least}, *shape), got {tuple(draws.shape)}")
    return draws.detach().double().reshape(draws.shape[0], draws.shape[1], -1)


def _split(x: Tensor) -> Tensor:
    """Return the halves of each chain as chains, the middle draw of an odd number left out."""
    half = x.shape[1] // 2
    return torch.cat([x[:, :half], x[:, x.shape[1] - half :]])


def _shaped(answer: Tensor, split: Tensor, draws: Tensor) -> Tensor:
    """Return an answer (k,) as (*shape), NaN where draws are not finite or never move."""
    finite = torch.isfinite(split).all(0).all(0)
    flat = split.flatten(0, 1)
    moves = flat.amax(0) > flat.amin(0)
    return torch.where(finite & moves, answer, torch.nan).reshape(draws.shape[2:])


def _quantile(x: Tensor, level: float) -> Tensor:
    """Return a quantile of all draws of each column, interpolated: (m, n, k) -> (k,)."""
    ordered = x.flatten(0, 1).sort(0).values
    place = level * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return torch.lerp(ordered[low], ordered[high], place - low)


def _normal_scores(x: Tensor) -> Tensor:
    """Return normal quantiles of the ranks of all draws, equal draws with their mean rank: (m, n, k)."""
    m, n, k = x.shape
    flat = x.reshape(m * n, k)
    ordered, order = flat.sort(0)
    place = torch.arange(1, m * n + 1, dtype=x.dtype, device=x.device)[:, None].expand(-1, k)
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[1:] = ordered[1:] != ordered[:-1]
    last = torch.ones_like(first)
    last[:-1] = first[1:]
    # The mean rank of a run of equal values is that of its two ends.
    low = torch.where(first, place, 0.0).cummax(0).values
    high = torch.where(last, place, torch.inf).flip(0).cummin(0).values.flip(0)
    ranks = torch.empty_like(flat).scatter_(0, order, 0.5 * (low + high))
    score = torch.special.ndtri((ranks - 0.375) / (m * n + 0.25))
    return score.reshape(m, n, k)


def _plain_r_hat(x: Tensor) -> Tensor:
    """Return sqrt(((n - 1) / n W + B / n) / W) of each column: (m, n, k) -> (k,)."""
    n = x.shape[1]
    within = x.var(1).mean(0)
    between = x.mean(1).var(0)  # B / n
    return (((n - 1) / n * within + between) / within).sqrt()


def _plain_nested(x: Tensor, groups: int) -> Tensor:
    """Return sqrt(1 + B / W) of each column, with the chains of a group one after another: (m, n, k) -> (k,).

    B is the variance of the means of groups; W the mean over groups of the variance of the means of their
    chains and the mean variance within these, each zero where there is but one.
    """
    means = x.mean(1).unflatten(0, (groups, -1))  # (group, chain, k)
    zero = torch.zeros_like(means[:, 0])
    within = x.var(1).unflatten(0, (groups, -1)).mean(1) if x.shape[1] > 1 else zero
    apart = means.var(1) if means.shape[1] > 1 else zero
    return (1 + means.mean(1).var(0) / (within + apart).mean(0)).sqrt()


def _autocovariance(x: Tensor) -> Tensor:
    """Return the biased autocovariance of each chain and column at every lag: (m, n, k) -> (m, n, k)."""
    n = x.shape[1]
    size = 1 << (2 * n - 1).bit_length()
    spectrum = torch.fft.rfft(x - x.mean(1, keepdim=True), size, dim=1)
    return torch.fft.irfft(spectrum.abs().square(), size, dim=1)[:, :n] / n


def _plain_ess(x: Tensor) -> Tensor:
    """Return the effective sample size of each column: (m, n, k) -> (k,)."""
    width = max(1, _BLOCK // (x.shape[0] * x.shape[1]))
    return torch.cat([_ess_of(part) for part in x.split(width, 2)])


def _ess_of(x: Tensor) -> Tensor:
    m, n, _ = x.shape
    covariance = _autocovariance(x).mean(0)  # (n, k)
    within = covariance[0] * n / (n - 1)
    total = covariance[0] + (x.mean(1).var(0) if m > 1 else 0.0)
    r = 1 - (within - covariance) / total  # (n, k)
    r[0] = 1.0
    last = max(-(-(n - 2) // 2) - 1, 0)
    pairs = r[: 2 * last + 2].reshape(last + 1, 2, -1)  # (t, 2, k): r_2t and r_2t+1
    sums = pairs.sum(1)
    # Before the first pair that is not positive, each pair counts at most as much as the one before it.
    inside = (sums > 0).long().cummin(0).values
    cut = inside.sum(0).clamp(max=last)
    before = torch.arange(last + 1, device=x.device)[:, None] < cut
    kept = torch.where(before, sums.cummin(0).values, 0.0).sum(0)
    # The even lag at the cut, where positive, improves the estimate for antithetic chains.
    beyond = pairs[:, 0].gather(0, cut[None])[0].clamp(min=0.0)
    tau = (-1 + 2 * kept + beyond).clamp(min=1 / math.log10(m * n))
    return torch.where(total > 0, m * n / tau, m * n)
