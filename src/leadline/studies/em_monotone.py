r"""Whether the objective of EM ever falls.

Claim:
    No sweep of expectation maximisation, or of variational EM, lowers the objective.

Instrument:
    Models of the catalog that hold the data and learn by sweeps are swept from several starts in float64,
    and the change of the objective at every sweep is recorded, in nats per sample. Changes at which a
    component was put elsewhere are left out: there no claim is made. What rounding may do is FALL.

Controls:
    positive: a mixture of two coins, written out here, whose bound, entropy + expected log-joint, must equal
        its log-likelihood after every E-step.
    negative: the same with steps five times too long; its likelihood must fall.

Source:
    Dempster, Laird and Rubin (1977), Theorem 1; Neal and Hinton (1998), A view of the EM algorithm that
    justifies incremental, sparse, and other variants. Over-relaxed steps: Salakhutdinov and Roweis (2003).

Cost:
    Seconds on digits: three models, five starts, thirty sweeps.
"""

import math
from collections.abc import Sequence
from typing import Any, cast

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from leadline.catalog import CATALOG, build, model_class, options_of
from leadline.core import Bits, DomainError, Images, OptionError, Quantity, Signature, has_verb
from leadline.core.randomness import generator_for
from leadline.data import Dataset
from leadline.studies.finding import Finding
from leadline.studies.study import Control, passed, readings

__all__ = ["em_monotone"]

FALL, EXACT, DROP = 1e-7, 1e-9, -1e-3
MODELS = ("mixture", "gmm", "noisy_or", "lda")
TOO_LONG = 5.0
SMALL = {"components": 6, "topics": 6, "causes": 6}
MOST_ROWS = 500


def em_monotone(
    data: Dataset,
    *,
    models: Sequence[str] | None = None,
    sweeps: int = 30,
    seeds: int = 5,
    samples: int = MOST_ROWS,
    jobs: int = 1,
) -> Finding:
    """Return whether sweeps ever lower the objective of models that learn by EM.

    Args:
        data: What they learn from; pictures are tried as bits too.
        models: Names of the catalog; those of mixture, gmm, noisy_or and lda that hold the data by default.
        sweeps: Sweeps from each start, at least 2.
        seeds: Number of starts.
        samples: Most samples to learn from.
        jobs: Starts at once, through joblib.

    Raises:
        OptionError: If no model holds the data, or a number is out of range.
        StudyError: If a control fails.
    """
    if sweeps < 2:
        raise OptionError(f"sweeps must be at least 2, got {sweeps}")
    small = data.train.head(samples).x
    settings = [(name, domain, x, sweeps) for name, domain, x in _settings(data, small, models)]
    if not settings:
        raise OptionError(f"none of {', '.join(models or MODELS)} holds {data.domain}")
    controls = passed(_controls())
    found = readings(_swept, settings, seeds=seeds, jobs=jobs)["rows"]
    table = pd.concat([pd.DataFrame(rows) for rows in found], ignore_index=True)
    worst = float(table["change"].min())
    return Finding(
        study="em_monotone",
        claim="No sweep lowers the objective.",
        holds=worst >= -FALL,
        value=Quantity(worst, "nats per sample", "exact", None, (worst, worst), len(table), "worst change"),
        controls=controls,
        table=table,
        protocol=f"{', '.join(s[0] for s in settings)} on {len(small)} samples of {data.name}, "
        f"{seeds} starts of {sweeps} sweeps in float64; a change below -{FALL:g} counts as a fall",
        draw=_figure,
        details={"overrelaxed": _coins(TOO_LONG)[0]},
    )


def _settings(data: Dataset, x: Any, models: Sequence[str] | None) -> list[tuple[str, Any, Tensor]]:
    """Return the models that hold the data, with the domain and the samples that each takes."""
    held = []
    for name in models or MODELS:
        if name not in CATALOG or not has_verb(model_class(name), "sweep"):
            raise OptionError(f"{name} is no model of the catalog that learns by sweeps")
        for domain, rows in _views(data, x):
            try:
                _made(name, domain)
            except DomainError:
                continue
            held.append((name, domain, rows))
            break
    return held


def _views(data: Dataset, x: Tensor) -> list[tuple[Any, Tensor]]:
    """Return the samples as they are, and pictures as bits."""
    views = [(data.domain, x)]
    if isinstance(data.domain, Images):
        views.append((Bits(data.domain.shape), (x > (data.domain.levels - 1) / 2).to(torch.uint8)))
    return views


def _made(name: str, domain: Any) -> Any:
    """Return a small model that never stops by itself."""
    known = options_of(name)
    options: dict[str, float] = {key: value for key, value in SMALL.items() if key in known}
    options |= {"tolerance": -math.inf} if "tolerance" in known else {}
    return build(name, Signature(domain), **options).double()


def _swept(name: str, domain: Any, x: Tensor, sweeps: int, seed: int) -> dict[str, Any]:
    """Return a row a sweep of one start: the objective, and its change."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, last, rows = cast(Any, _made(name, domain)), math.nan, []
        for number in range(1, sweeps + 1):
            told = model.sweep(x)
            value = float(getattr(model, "last_objective", told))
            change = value - last if math.isfinite(last) and math.isfinite(value) else math.nan
            rows.append({"model": name, "seed": seed, "sweep": number, "objective": value, "change": change})
            last = value
    return {"rows": rows}


def _coins(length: float, steps: int = 25) -> tuple[list[float], float]:
    """Return the log-likelihoods of a mixture of two coins, and how far its bound is from them.

    Each M-step goes `length` times the way to the maximum.
    """
    source = generator_for(0, "coins")
    heads = torch.tensor([0.25, 0.7], dtype=torch.float64)[torch.arange(60) % 2]
    x = torch.bernoulli(heads[:, None].expand(-1, 10), generator=source).sum(1)  # heads in ten tosses
    weight, p = torch.tensor([0.5, 0.5]).double(), torch.tensor([0.4, 0.55]).double()
    told, apart = [], 0.0
    for _ in range(steps):
        joint = weight.log() + x[:, None] * p.log() + (10 - x[:, None]) * torch.log1p(-p)
        evidence = joint.logsumexp(1)
        share = (joint - evidence[:, None]).exp()
        bound = (share * (joint - share.clamp(min=1e-300).log())).sum(1)
        apart = max(apart, float((bound - evidence).abs().max()))
        told.append(float(evidence.mean()))
        goal = (share * x[:, None]).sum(0) / share.sum(0) / 10
        p = (p + length * (goal - p)).clamp(0.01, 0.99)
        weight = (weight + length * (share.mean(0) - weight)).clamp(0.01, 0.99)
        weight = weight / weight.sum()
    return told, apart


def _controls() -> dict[str, Control]:
    """Return the mixture of two coins, as it should be and with steps too long."""

    def worst() -> float:
        told = torch.tensor(_coins(TOO_LONG)[0])
        return float(told.diff().min())

    return {
        "bound after the E-step": Control(
            lambda: _coins(1.0)[1], lambda gap: gap <= EXACT, f"equal the log-likelihood to {EXACT:g}"
        ),
        "steps five times too long": Control(worst, lambda fall: fall < DROP, f"fall by more than {-DROP:g}"),
    }


def _figure(finding: Finding) -> Figure:
    """Return the gain of every sweep, a line a start, and the control that falls."""
    table = finding.table
    names = list(dict.fromkeys(table["model"]))
    figure = Figure(figsize=(8.0, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2, 1))
    for place, name in enumerate(names):
        for number, (_, rows) in enumerate(table[table["model"] == name].groupby("seed")):
            change = rows["change"].clip(lower=1e-12)
            left.plot(
                rows["sweep"], change, color=f"C{place}", alpha=0.7, label=name if number == 0 else None
            )
    left.set_yscale("log")
    left.set_xlabel("sweep")
    left.set_ylabel("gain, nats per sample (least shown 1e-12)")
    left.legend(fontsize=8)
    right.plot(finding.details["overrelaxed"], "o-", color="#d1495b", markersize=3)
    right.set_xlabel("step")
    right.set_title("control: steps five times too long", fontsize=8)
    right.set_ylabel("log-likelihood, nats")
    figure.suptitle(f"{finding.claim} {finding.verdict.capitalize()}.", fontsize=9)
    return figure
