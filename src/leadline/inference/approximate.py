r"""Answers where exactness does not fit, each with what is known of its error.

    weighting, gibbs,     standard errors of the draws
    tempered
    mini_bucket           certain bounds
    loopy, mean_field     the largest difference from draws, where draws can be had, else certain bounds if
                          few enough variables are asked for

Source:
    Koller and Friedman (2009), Probabilistic Graphical Models, chapters 11 and 12; and see each method.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from leadline.core.errors import DataError, OptionError, ResourceError
from leadline.core.quantities import Kind, Quantity
from leadline.inference.belief_propagation import is_forest, propagate
from leadline.inference.buckets import CAP, BucketBounds, bound_marginals, bound_partition
from leadline.inference.cutsets import weigh_agreeing
from leadline.inference.elimination import relevant
from leadline.inference.factors import FactorGraph, Floats
from leadline.inference.gibbs_answers import Walked, gibbs_marginals
from leadline.inference.mean_field import mean_field
from leadline.inference.pruning import Pruned, pruned
from leadline.inference.weighting import likelihood_weighting

__all__ = ["DAMPING", "WAYS", "Beliefs", "roughly"]

DAMPING = 0.3
_FEW = 100.0  # effective draws below which weighted ones are not trusted
_MANY = 2000  # variables beyond which chains are not run unasked
_COLD = 500  # the same of chains with copies at higher temperatures
_COLD_CHAINS, _THINS = 8, (4, 32)  # of these: how many, and sweeps between draws, as long as they disagree
_HOPELESS = 1.2  # R-hat beyond which so much longer chains would disagree still
_VISITS = 20_000  # of buckets, to bound marginals unasked: some seconds
_SMALL_CAP = 1 << 12  # entries of a table where more than a few marginals are bounded, a pass each
Tables = dict[int, Floats]
Seen = Mapping[int, int]


@dataclass(frozen=True, eq=False)
class Beliefs:
    """Distributions of single variables given evidence, and the weight of the evidence.

    Args:
        marginals: Distribution of each variable that was asked for.
        log_partition: log of the weight of the evidence, in nats: log Z where there is none. Of an estimate
            the interval is a certain one, between a lower and an upper bound, unless it has a standard error.
        kind: What the marginals are: "exact" or "estimate".
        method: How they were found.
        error: How far a probability may be off, and how that is known; NaN where nothing is.
        stderr: Standard error of each probability, where the method knows one.
        low: Certain lower bound of each probability, where the method knows one.
        high: Certain upper bound of each.
        needs: What an exact answer would have taken, where that was too much.
    """

    marginals: Tables
    log_partition: Quantity
    kind: Kind
    method: str
    error: Quantity = field(default_factory=lambda: Quantity(0.0))
    stderr: Tables = field(default_factory=dict)
    low: Tables = field(default_factory=dict)
    high: Tables = field(default_factory=dict)
    needs: str = ""


def roughly(graph: FactorGraph, seen: Seen, asked: list[int], seed: int) -> Beliefs:
    """Return weighted draws if enough agree with the evidence, else chains that agree, else loopy beliefs."""
    drawn = _drawn(graph, seen, asked, seed, _THINS)
    return drawn if drawn is not None else _propagated(graph, seen, asked, lambda: None)


def _drawn(
    graph: FactorGraph, seen: Seen, asked: list[int], seed: int, thins: tuple[int, ...]
) -> Beliefs | None:
    """Return what draws say whose errors can be trusted, None if there are none."""
    try:
        weighted, effective = _weighted(graph, seen, asked, seed)
    except (OptionError, DataError):
        effective = 0.0
    if effective >= _FEW:
        return weighted
    free = sum(size > 1 for size in graph.sizes)
    if free > _MANY:
        return None
    try:
        walked = gibbs_marginals(graph, seen, asked, seed=seed)
        if not walked.settled and free <= _COLD:
            walked = _tempered(graph, seen, asked, seed, thins)
    except OptionError:
        return None
    return _from_chains(graph, seen, walked) if walked.settled else None


def _tempered(
    graph: FactorGraph, seen: Seen, asked: list[int], seed: int, thins: tuple[int, ...] = _THINS
) -> Walked:
    """Return what chains with copies at higher temperatures say, of longer ones where that may help."""
    for thin in thins:
        walked = gibbs_marginals(graph, seen, asked, chains=_COLD_CHAINS, thin=thin, tempered=True, seed=seed)
        if walked.settled or walked.r_hat > _HOPELESS:
            break
    return walked


def _weighted(graph: FactorGraph, seen: Seen, asked: list[int], seed: int) -> tuple[Beliefs, float]:
    """Return beliefs of weighted draws, and how many effective ones there were."""
    found = likelihood_weighting(graph, seen, seed=seed)
    effective = found.effective_sample_size
    log_partition = Quantity(
        found.log_partition,
        "nats",
        "estimate",
        stderr=found.log_stderr,
        interval=(
            found.log_partition - 1.96 * found.log_stderr,
            found.log_partition + 1.96 * found.log_stderr,
        ),
        protocol="likelihood weighting",
    )
    told = f"likelihood weighting, {effective:.0f} effective draws"
    marginals = {v: found.marginals[v] for v in asked}
    stderr = {v: found.stderr[v] for v in asked}
    trust = "" if effective >= _FEW else "; too few effective draws for it to be trusted"
    error = Quantity(_largest(stderr), "", "estimate", protocol=f"largest standard error{trust}")
    return Beliefs(marginals, log_partition, "estimate", told, error, stderr), effective


def _by_weighting(graph: FactorGraph, seen: Seen, asked: list[int], seed: int, _: float | None) -> Beliefs:
    """Return beliefs of weighted draws."""
    return _weighted(graph, seen, asked, seed)[0]


def _by_chains(graph: FactorGraph, seen: Seen, asked: list[int], seed: int, _: float | None) -> Beliefs:
    """Return beliefs of Gibbs chains, with log Z between two bounds."""
    return _from_chains(graph, seen, gibbs_marginals(graph, seen, asked, seed=seed))


def _by_tempering(graph: FactorGraph, seen: Seen, asked: list[int], seed: int, _: float | None) -> Beliefs:
    """Return beliefs of chains with copies at higher temperatures, with log Z between two bounds."""
    return _from_chains(graph, seen, _tempered(graph, seen, asked, seed))


def _from_chains(graph: FactorGraph, seen: Seen, walked: Walked) -> Beliefs:
    """Return what chains say as beliefs."""
    how, copies = "Gibbs sampling", ""
    if walked.copies > 1:
        how, copies = "parallel tempering", f" with copies at {walked.copies} temperatures"
    told = (
        f"{how}, {walked.chains} chains of {walked.draws} draws{copies}, R-hat at most {walked.r_hat:.3f}, "
        f"{walked.effective:.0f} effective draws or more"
    )
    trust = "" if walked.settled else "; the chains do NOT agree (R-hat above 1.01), so it cannot be trusted"
    error = Quantity(_largest(walked.stderr), "", "estimate", protocol=f"largest standard error{trust}")
    interval, below = _between(graph, seen, None)
    log_partition = Quantity(
        interval[1], "nats", "upper bound", interval=interval, protocol=f"mini-buckets; from below {below}"
    )
    return Beliefs(walked.marginals, log_partition, "estimate", told, error, walked.stderr)


def _by_propagation(graph: FactorGraph, seen: Seen, asked: list[int], seed: int, _: float | None) -> Beliefs:
    """Return beliefs of messages."""
    return _propagated(graph, seen, asked, lambda: _drawn(graph, seen, asked, seed, _THINS[:1]))


def _propagated(
    graph: FactorGraph, seen: Seen, asked: list[int], draw: Callable[[], Beliefs | None]
) -> Beliefs:
    """Return beliefs of messages, with log Z between the mean-field and the mini-bucket bound."""
    damping = 0.0 if is_forest(graph.given(seen)) else DAMPING
    found = propagate(graph, seen, damping=damping, tolerance=1e-8)
    settled = "settled" if found.converged else "NOT settled"
    told = f"belief propagation, {settled} after {found.rounds} rounds"
    marginals = {v: found.marginals[v] for v in asked}
    if found.exact:
        return Beliefs(marginals, Quantity(found.log_partition, "nats", protocol=told), "exact", told)
    interval, below = _between(graph, seen, found.marginals)
    value = min(max(found.log_partition, interval[0]), interval[1])
    log_partition = Quantity(
        value,
        "nats",
        "estimate",
        interval=interval,
        protocol=f"Bethe free energy within certain bounds: mini-buckets; from below {below}",
    )
    return _checked(graph, seen, Beliefs(marginals, log_partition, "estimate", told), draw())


def _by_mean_field(graph: FactorGraph, seen: Seen, asked: list[int], seed: int, _: float | None) -> Beliefs:
    """Return mean-field beliefs, and the bound as log Z with the mini-bucket bound above it."""
    found = mean_field(graph, seen)
    interval, below = _between(graph, seen, None, found.bound)
    more = "" if below == "mean field" else f"; higher still {below}"
    log_partition = Quantity(
        found.bound, "nats", "lower bound", interval=interval, protocol=f"mean field{more}"
    )
    told = f"naive mean field, {len(found.bounds) - 1} rounds"
    marginals = {v: found.marginals[v] for v in asked}
    drawn = _drawn(graph, seen, asked, seed, _THINS[:1])
    return _checked(graph, seen, Beliefs(marginals, log_partition, "estimate", told), drawn)


def _by_buckets(graph: FactorGraph, seen: Seen, asked: list[int], _: int, limit: float | None) -> Beliefs:
    """Return certain bounds of log Z and of each probability, and a guess between them."""
    cap = (CAP if len(asked) <= 8 else _SMALL_CAP) if limit is None else max(1, int(limit / 8))
    small, found = _bounds(graph, seen, asked, cap)
    guess, low, high = found.guess, found.low, found.high
    gaps = {v: np.maximum(high[v] - guess[v], guess[v] - low[v]) for v in asked}
    told = f"weighted mini-buckets, tables of at most {cap} entries"
    if found.exact:
        told = f"{told}, none split"
        return Beliefs(guess, Quantity(found.upper, "nats", protocol=told), "exact", told)
    interval, below = _raised(small.graph, (found.lower, "mini-buckets"), found.upper)
    log_partition = Quantity(
        found.upper, "nats", "upper bound", interval=interval, protocol=f"mini-buckets; from below {below}"
    )
    error = Quantity(_largest(gaps), "", "upper bound", protocol="certain bounds")
    return Beliefs(guess, log_partition, "estimate", told, error, low=low, high=high)


def _bounds(graph: FactorGraph, seen: Seen, asked: list[int], cap: int) -> tuple[Pruned, BucketBounds]:
    """Return what is left of a graph given evidence, and certain bounds of the marginals in all of it."""
    small = pruned(relevant(graph, asked, seen).given(seen))
    found = bound_marginals(small.graph, None, asked, cap=cap)

    def whole(tables: Tables) -> Tables:
        return {
            v: np.eye(graph.sizes[v])[seen[v]] if v in seen else small.widened(v, p, graph.sizes[v])
            for v, p in tables.items()
        }

    return small, replace(found, guess=whole(found.guess), low=whole(found.low), high=whole(found.high))


def _checked(graph: FactorGraph, seen: Seen, found: Beliefs, drawn: Beliefs | None) -> Beliefs:
    """Return beliefs with the largest difference from draws, or certain bounds where there are none."""
    if drawn is None:
        return _bounded(graph, seen, found)
    gaps = [
        (float(gap), float(spread))
        for v, p in found.marginals.items()
        for gap, spread in zip(np.abs(p - drawn.marginals[v]), drawn.stderr[v], strict=True)
    ]
    gap, spread = max(gaps, default=(0.0, 0.0))
    how = drawn.method.partition(",")[0]
    told = f"no bound is known; largest difference from draws ({how})"
    return replace(found, error=Quantity(gap, "", "estimate", stderr=spread, protocol=told))


def _bounded(graph: FactorGraph, seen: Seen, found: Beliefs) -> Beliefs:
    """Return beliefs within certain bounds, which replace them where they lie outside; if that is cheap."""
    asked = list(found.marginals)
    visits = 4 * len(asked) * sum(size > 1 for v, size in enumerate(graph.sizes) if v not in seen)
    if visits > _VISITS:
        told = "unknown: there are no draws to trust, and too many variables to bound; ask for fewer"
        return replace(found, error=Quantity(math.nan, "", "estimate", protocol=told))
    _, bounds = _bounds(graph, seen, asked, _SMALL_CAP)
    low, high = bounds.low, bounds.high
    outside = [v for v, p in found.marginals.items() if not ((low[v] <= p) & (p <= high[v])).all()]
    marginals = {v: bounds.guess[v] if v in outside else p for v, p in found.marginals.items()}
    gaps = {v: np.maximum(high[v] - p, p - low[v]) for v, p in marginals.items()}
    error = Quantity(_largest(gaps), "", "upper bound", protocol="certain bounds by mini-buckets")
    moved = f", {len(outside)} of {len(asked)} moved between certain bounds" if outside else ""
    method = f"{found.method}{moved}"
    return replace(found, marginals=marginals, method=method, error=error, low=low, high=high)


def _between(
    graph: FactorGraph, seen: Seen, start: list[Floats] | None, known: float | None = None
) -> tuple[tuple[float, float], str]:
    """Return bounds of log Z in nats, and how the lower was found: mean field (or `known`) is one way."""
    lower = mean_field(graph, seen, start=start).bound if known is None else known
    small = pruned(relevant(graph, (), seen).given(seen)).graph
    try:
        below, above = bound_partition(small)
    except ResourceError:
        return (lower, math.inf), "mean field"
    return _raised(small, max((lower, "mean field"), (below, "mini-buckets")), above)


def _raised(graph: FactorGraph, lower: tuple[float, str], above: float) -> tuple[tuple[float, float], str]:
    """Return bounds of log Z, the lower one by what states weigh where that is more; and its name.

    Where nothing must be fixed that weight is log Z itself, and the question was for another answer.
    """
    some = weigh_agreeing(graph)
    if some.fixed:
        told = f"the weight of states that agree on {some.fixed} variable{'s' if some.fixed > 1 else ''}"
        lower = max(lower, (some.log_weight, told))
    return (lower[0], above), lower[1]


def _largest(tables: Tables) -> float:
    """Return the largest number in tables; zero of none."""
    return max((float(table.max(initial=0.0)) for table in tables.values()), default=0.0)


Way = Callable[[FactorGraph, Seen, list[int], int, float | None], Beliefs]
WAYS: dict[str, Way] = {
    "loopy": _by_propagation,
    "mean_field": _by_mean_field,
    "mini_bucket": _by_buckets,
    "weighting": _by_weighting,
    "gibbs": _by_chains,
    "tempered": _by_tempering,
}
