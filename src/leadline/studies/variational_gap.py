r"""What a factorised posterior loses, and that nothing but its form is to blame.

Claim:
    The mean-field bound lies below log p(x) by the divergence of its posterior from the true one, the gap
    grows with the coupling of the causes, and the best q of any form is the posterior: no gap is left.

Instrument:
    Small noisy-OR models, whose 2^K states are summed. For findings that were drawn, the bound of the best
    factorised q by coordinate ascent from several starts, and that of any q by mirror ascent:
    log q <- (1 - rate) log q + rate log p(x, z). Both bounds and divergences are sums over all states.

Controls:
    positive: causes that share no finding; the gap must vanish.
    negative: a "bound" without its entropy; its distance to log p(x) must not be the divergence.

Source:
    Jordan, Ghahramani, Jaakkola and Saul (1999), An introduction to variational methods for graphical models,
    Machine Learning 37, sections 4 and 6; the Gibbs variational principle.

Cost:
    Seconds: three couplings, twenty models each, 64 states.
"""

from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from leadline.core import OptionError, Quantity, mean_quantity
from leadline.core.randomness import generator_for
from leadline.inference.noisy_or import Net, joint_table
from leadline.studies.finding import Finding
from leadline.studies.study import Control, all_of, passed, readings, side

__all__ = ["variational_gap"]

EXACT, CLOSED, WRONG = 1e-9, 1e-6, 1e-2
COUPLINGS = (0.3, 1.0, 3.0)
FINDINGS, STARTS, ROUNDS, STEPS, RATE = 8, 3, 40, 200, 0.2


def variational_gap(*, causes: int = 6, seeds: int = 20, jobs: int = 1) -> Finding:
    """Return whether a mean-field gap is the divergence, grows with coupling, and closes for any q.

    Args:
        causes: Hidden causes of a model, 2 to 10.
        seeds: Models for each coupling.
        jobs: Models at once, through joblib.

    Raises:
        OptionError: If a number is out of range.
        StudyError: If a control fails.
    """
    if not 2 <= causes <= 10:
        raise OptionError(f"causes must be in [2, 10], got {causes}")
    controls = passed(_controls(causes))
    settings = [(causes, coupling) for coupling in COUPLINGS]
    table = readings(_reading, settings, seeds=seeds, jobs=jobs)
    wide = table.pivot_table(index="seed", columns="coupling", values="gap")
    growth = mean_quantity(torch.tensor((wide[COUPLINGS[-1]] - wide[COUPLINGS[0]]).to_numpy()), unit="nats")
    parts = [
        bool(table["identity error"].abs().max() <= EXACT),
        bool(table["gap of any q"].abs().max() <= CLOSED),
        side(growth.interval or (0.0, 0.0), 0.0, above=True),
    ]
    return Finding(
        study="variational_gap",
        claim="The mean-field gap is the divergence, grows with coupling, and closes for an unconstrained q.",
        holds=all_of(parts),
        value=Quantity(
            growth.value, "nats", "estimate", growth.stderr, growth.interval, seeds,
            f"gap at coupling {COUPLINGS[-1]:g} minus gap at {COUPLINGS[0]:g}",
        ),
        controls=controls,
        table=table,
        protocol=f"noisy-OR of {causes} causes and {FINDINGS} findings, {seeds} models a coupling; "
        f"identity within {EXACT:g}, gap of any q within {CLOSED:g} nats",
        draw=_figure,
    )  # fmt: skip


def _model(causes: int, coupling: float, seed: int) -> tuple[Net, Tensor]:
    """Return a layer in which each cause may show in every finding, and findings drawn from it."""
    source = generator_for(seed, "gap", coupling)
    weights = coupling * torch.rand(FINDINGS, causes, generator=source, dtype=torch.float64)
    net = Net(weights, torch.full((FINDINGS,), 0.05).double(), torch.full((causes,), 0.3).double())
    z = torch.bernoulli(net.prior, generator=source)
    z[0] = 1.0  # something shows
    lit = -torch.expm1(-(net.leak + weights @ z))
    return net, torch.bernoulli(lit, generator=source)[None]


def _reading(causes: int, coupling: float, seed: int) -> dict[str, Any]:
    """Return log p(x), the bounds of the best factorised q and of any q, and their divergences."""
    net, x = _model(causes, coupling, seed)
    table = joint_table(x, net)[0]
    evidence = float(table.logsumexp(0))
    bound, log_q = _factorised(table, net.states(), seed)
    free = torch.zeros_like(table).log_softmax(0)
    for _ in range(STEPS):
        free = ((1 - RATE) * free + RATE * table).log_softmax(0)
    return {
        "coupling": coupling,
        "seed": seed,
        "log p(x)": evidence,
        "mean field": bound,
        "gap": evidence - bound,
        "divergence": _divergence(log_q, table),
        "identity error": evidence - bound - _divergence(log_q, table),
        "gap of any q": evidence - _bound(free, table),
        "distance to the posterior": float((free.exp() - table.softmax(0)).abs().max()),
    }


def _bound(log_q: Tensor, table: Tensor) -> float:
    """Return entropy plus expected log-joint, in nats."""
    return float((log_q.exp() * (table - log_q)).sum())


def _divergence(log_q: Tensor, table: Tensor) -> float:
    """Return KL(q || posterior), in nats."""
    return float((log_q.exp() * (log_q - table.log_softmax(0))).sum())


def _factorised(table: Tensor, z: Tensor, seed: int) -> tuple[float, Tensor]:
    """Return the best bound of a product of K coins over some starts, and its log q of all states."""
    source, best = generator_for(seed, "start"), (-torch.inf, table)
    for _ in range(STARTS):
        mean = 0.1 + 0.8 * torch.rand(z.shape[1], generator=source, dtype=torch.float64)
        for _ in range(ROUNDS):
            for k in range(len(mean)):
                mean[k] = 0.5
                others = _product(mean, z).exp() * 2  # without factor k
                odds = (others * table)[z[:, k] == 1].sum() - (others * table)[z[:, k] == 0].sum()
                mean[k] = torch.sigmoid(odds).clamp(1e-12, 1 - 1e-12)
        log_q = _product(mean, z)
        value = _bound(log_q, table)
        if value > best[0]:
            best = (value, log_q)
    return best


def _product(mean: Tensor, z: Tensor) -> Tensor:
    """Return log q of every state under independent coins: (K,), (S, K) -> (S,)."""
    return z @ mean.log() + (1 - z) @ torch.log1p(-mean)


def _controls(causes: int) -> dict[str, Control]:
    """Return causes that do not meet, and a bound that lacks its entropy."""

    def apart() -> float:
        eye = torch.eye(causes, dtype=torch.float64)
        net = Net(2 * eye, torch.full((causes,), 0.05).double(), torch.full((causes,), 0.3).double())
        table = joint_table(torch.ones(1, causes).double(), net)[0]
        return float(table.logsumexp(0)) - _factorised(table, net.states(), 0)[0]

    def no_entropy() -> float:
        net, x = _model(causes, COUPLINGS[1], 0)
        table = joint_table(x, net)[0]
        log_q = _factorised(table, net.states(), 0)[1]
        energy = float((log_q.exp() * table).sum())
        return abs(float(table.logsumexp(0)) - energy - _divergence(log_q, table))

    return {
        "causes that share no finding": Control(apart, lambda gap: abs(gap) <= CLOSED, "leave no gap"),
        "a bound without entropy": Control(no_entropy, lambda error: error > WRONG, "not be the divergence"),
    }


def _figure(finding: Finding) -> Figure:
    """Return gap against divergence, a point a model, and the gaps of each coupling."""
    table = finding.table
    figure = Figure(figsize=(8.0, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for place, (coupling, rows) in enumerate(table.groupby("coupling")):
        left.plot(
            rows["divergence"], rows["gap"], "o", color=f"C{place}", alpha=0.7, label=f"coupling {coupling:g}"
        )
        right.plot([place] * len(rows), rows["gap"], "o", color=f"C{place}", alpha=0.5)
        right.plot([place - 0.2, place + 0.2], [rows["gap"].mean()] * 2, color=f"C{place}")
    top = float(table["gap"].max())
    left.plot([0, top], [0, top], color="0.6", linewidth=1, linestyle="--")
    left.set_xlabel("divergence from the posterior, nats")
    left.set_ylabel("log p(x) minus mean-field bound, nats")
    left.legend(fontsize=8)
    right.set_xticks(range(len(COUPLINGS)), [f"{coupling:g}" for coupling in COUPLINGS])
    right.set_xlabel("coupling")
    right.set_ylabel("gap, nats")
    figure.suptitle(f"{finding.claim} {finding.verdict.capitalize()}.", fontsize=8)
    return figure
