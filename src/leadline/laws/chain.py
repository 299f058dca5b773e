"""The law of a Markov chain: started from the density, it stays there.

Symbols:
    s states, pi (s,) their probabilities, n draws.

Source:
    Levin and Peres (2017), Markov Chains and Mixing Times, 2nd edition, section 1.5.
"""

from typing import cast

import torch
from torch import Tensor

from leadline.core import Domain, has_verb
from leadline.laws.cells import cells_of
from leadline.laws.subject import Small, Subject, Verb, density_of
from leadline.laws.summation import FALSE_ALARM, chi_square, upper_tail
from leadline.laws.verdicts import NotApplicable, demand

__all__ = ["chain_is_stationary"]

_STEPS = (1, 8)  # a fault may show at once, or only when it adds up


def chain_is_stationary(subject: Subject) -> str:
    """Check that `step` leaves the density unchanged: draws of all states stay as frequent as they were."""
    small = _listed(subject)
    pi = _probabilities(small)
    step: Verb = small.model.step  # type: ignore[assignment]
    generator, n = subject.generator("chain"), subject.draws
    cpu = torch.Generator().manual_seed(generator.initial_seed())
    at = torch.multinomial(pi, n, replacement=True, generator=cpu)
    x = small.cells.points[at].to(subject.x.device)
    moved, told, done = torch.zeros(n, dtype=torch.bool), [], 0
    for count in _STEPS:
        for _ in range(count - done):
            x = step(x, generator=generator)
        done = count
        cells = small.cells.cell(x)
        demand((cells >= 0).all(), "the chain leaves the domain", index=int((cells < 0).int().argmax()))
        moved |= cells != small.cells.group[at]
        told.append(_judged(cells, pi, small, count))
    demand(bool(moved.any()), f"the chain never moves: {n:,} draws stand still for {done} steps")
    return f"{n:,} draws{small.where}: {'; '.join(told)}"


def _listed(subject: Subject) -> Small:
    """Return the model over the states of its chain, `chain_domain`, or over its samples if it has none.

    Raises:
        NotApplicable: If there are too many states, even of a narrow copy.
    """
    found = subject.small
    domain = getattr(found.model, "chain_domain", None)
    if not isinstance(domain, Domain):
        return found
    cells = None if found.where else cells_of(domain)
    if cells is None:
        found = subject.narrow
        domain = cast(Domain, found.model.chain_domain)
        cells = cells_of(domain)
    if cells is None:
        raise NotApplicable(f"the states of the chain, {domain}, are too many to list")
    return Small(found.model, cells, found.where)


def _judged(cells: Tensor, pi: Tensor, small: Small, count: int) -> str:
    """Return what the chi-square test of the states after `count` steps says."""
    n = len(cells)
    observed = torch.bincount(cells, minlength=len(pi)).double()
    impossible = ((observed > 0) & (pi <= 0)).nonzero()
    demand(
        not len(impossible),
        f"after {count} steps the chain is in a state of probability 0",
        state=small.cells.points[impossible[0, 0]] if len(impossible) else None,
    )
    statistic, degrees = chi_square(observed, pi)
    chance = upper_tail(statistic, degrees)
    said = f"chi-square {statistic:.1f} on {degrees} degrees after {count} steps, p = {chance:.2g}"
    worst = int((observed / n - pi).abs().argmax())
    demand(
        chance >= FALSE_ALARM / len(_STEPS),
        f"{said}; it should not be below {FALSE_ALARM / len(_STEPS):g}",
        state=small.cells.points[worst],
        frequency=float(observed[worst] / n),
        probability=float(pi[worst]),
    )
    return said


def _probabilities(small: Small) -> Tensor:
    """Return the probability of each state, from log_prob or the unnormalised log_density: (s,), float64.

    Raises:
        NotApplicable: If states cannot be listed, or nothing exact says how likely they are.
    """
    if small.cells.coarse is not None:
        raise NotApplicable("a chain is judged over domains whose states can be listed")
    name = next((name for name in ("log_density", "log_prob") if has_verb(small.model, name)), None)
    if name is None:
        raise NotApplicable("nothing says what the chain should leave unchanged: no log_prob, no log_density")
    kind = density_of(small.model).kind
    if name == "log_prob" and kind != "exact":
        raise NotApplicable(f"log_prob is a {kind}, and there is no log_density")
    score: Verb = getattr(small.model, name)
    like = next(small.model.parameters(), torch.empty(0))
    parts = [score(part.to(like.device)).double().cpu() for part in small.cells.points.split(1 << 14)]
    return torch.softmax(torch.cat(parts), 0)
