r"""Contrastive divergence misses the gradient of the likelihood, by less the longer its chains.

Claim:
    The distance from the mean CD-k gradient to the exact gradient falls with every larger k.

Instrument:
    A machine is trained by CD-1. Then its exact gradient is that of `log_prob`, whose log Z is summed, and
    the mean CD-k gradient is that of `loss` with `steps` = k over many chains from every training sample.
    With two independent means g, g' of chains and the exact gradient e, the product (g - e)(g' - e) has
    the mean |bias|^2: the noise of the chains drops out. It is averaged over pairs; below 0 it counts as 0.

Controls:
    positive: on a machine of 3 x 2 units the mean CD-k gradient is known by the powers of the chain's
        transition matrix; the bias that chains give must lie within 5 % of it at k = 1.
    negative: without weights a chain forgets its start in one step, so that CD-1 has no bias; what the
        instrument gives must lie below 10 % of what it gives for the trained machine of seed 0.

Source:
    Hinton (2002), Training Products of Experts by Minimizing Contrastive Divergence, section 2.
    Carreira-Perpinan and Hinton (2005), On Contrastive Divergence Learning, AISTATS, section 3.

Cost:
    Under a minute on the bits of digits with 12 hidden units, 5 lengths and 5 seeds.
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from leadline.catalog import build, options_of
from leadline.core import (
    Batch,
    Bits,
    Density,
    DomainError,
    Images,
    OptionError,
    Signature,
)
from leadline.core.randomness import derive_seed
from leadline.data import Dataset, Split, load
from leadline.studies.finding import Finding
from leadline.studies.study import Control, all_of, named_seeds, over_seeds, passed, readings, side
from leadline.training import fit

__all__ = ["contrastive_divergence_bias"]

NEAR, NOTHING = 0.05, 0.1
OPTIONS = {"hidden": 12}
PLAIN = {"centred": False, "persistent": False}  # the gradient itself, of chains that start at the data
TRAINING = {"optimizer": "momentum", "lr": 0.05, "batch_size": 20}
PAIRS, KNOWN_CHAINS, FORGETFUL_CHAINS = 6, 200_000, 20_000


def contrastive_divergence_bias(
    data: Dataset | None = None,
    model: str = "rbm",
    options: Mapping[str, Any] | None = None,
    *,
    lengths: tuple[int, ...] = (1, 3, 10, 30, 100),
    samples: int = 500,
    steps: int = 1000,
    seeds: int = 5,
    jobs: int = 1,
) -> Finding:
    """Return whether the bias of CD-k falls with every larger k.

    Args:
        data: Bits, or pictures, which are made bits; digits by default.
        model: Catalog name of a model with an option `steps` and a `log_prob` that is exact.
        options: Its options; 12 hidden units by default.
        lengths: Values of k, at least two, rising.
        samples: Training samples that chains start from.
        steps: Steps of the training.
        seeds: Number of trainings.
        jobs: Readings at once, through joblib.

    Raises:
        OptionError: If the model is of another kind, or an option is out of range.
        DomainError: If the data are no bits.
        StudyError: If a control fails.
    """
    source = _bits(load("digits") if data is None else data)
    plain = {name: value for name, value in PLAIN.items() if name in options_of(model)}
    chosen = plain | dict(OPTIONS if options is None else options)
    _check(source, model, chosen, lengths, samples, steps)
    first = _reading(source, model, chosen, samples, steps, 1, 0)["bias"]
    controls = passed(
        {
            "known transition matrix": Control(
                _known, lambda gap: abs(gap) < NEAR, f"lie within {NEAR:.0%} of the exact bias"
            ),
            "no weights": Control(
                lambda: _without_weights(source, model, chosen, samples) / first,
                lambda share: share < NOTHING,
                f"be below {NOTHING:.0%} of the trained machine's bias",
            ),
        }
    )
    settings = [(source, model, chosen, samples, steps, k) for k in lengths]
    table = readings(_reading, settings, seeds=seeds, jobs=jobs)
    bias = {k: table[table["k"] == k]["bias"].tolist() for k in lengths}
    steps_down = [_falls(bias[a], bias[b]) for a, b in itertools.pairwise(lengths)]
    shares = [last / at_one for at_one, last in zip(bias[lengths[0]], bias[lengths[-1]], strict=True)]
    value = over_seeds(shares, f"of the bias at k = {lengths[0]}", f"k = {lengths[-1]} over k = {lengths[0]}")
    return Finding(
        study="contrastive_divergence_bias",
        claim=f"On {source.name}, the bias of CD-k falls with every k in {', '.join(map(str, lengths))}.",
        holds=all_of(steps_down),
        value=value,
        controls=controls,
        table=table,
        protocol=f"{model} {chosen} after {steps:,} steps of CD-1, {TRAINING}, {named_seeds(seeds)}; "
        f"{2 * PAIRS} x {min(samples, len(source.train)):,} chains a reading",
        draw=_figure,
    )


def _reading(
    data: Dataset, model: str, options: dict[str, Any], samples: int, steps: int, k: int, seed: int
) -> dict[str, Any]:
    """Return the bias of CD-k of one trained machine, and the size of its exact gradient."""
    torch.manual_seed(derive_seed(seed, "start"))
    net = build(model, data, **options)
    fit(net, data, steps=steps, seed=seed, select="last", out=False, progress=False, threads=1, **TRAINING)  # type: ignore[arg-type]
    x = cast(Tensor, data.train.head(samples).x)
    longer = build(model, data, **options, steps=k)
    longer.load_state_dict(net.state_dict())
    torch.manual_seed(derive_seed(seed, "chains", k))
    bias, size = _bias(longer, x)
    return {"k": k, "seed": seed, "bias": bias, "exact gradient": size}


def _bias(net: nn.Module, x: Tensor, pairs: int = PAIRS) -> tuple[float, float]:
    """Return |mean CD gradient - exact gradient| and |exact gradient| at samples `x`."""
    speaker = cast(Any, net)
    exact = _flat(net, -speaker.log_prob(x).mean())
    net.train()
    total = 0.0
    for _ in range(pairs):
        one, other = (_flat(net, speaker.loss(Batch(x))) - exact for _ in range(2))
        total += float(one @ other) / pairs
    return math.sqrt(max(total, 0.0)), float(exact.norm())


def _flat(net: nn.Module, loss: Tensor) -> Tensor:
    """Return the gradient of `loss` in all parameters as one vector, in double precision."""
    parts = torch.autograd.grad(loss, list(net.parameters()))
    return torch.cat([part.flatten() for part in parts]).double()


def _small(weights: float) -> nn.Module:
    """Return a machine of 3 x 2 units whose parameters are fixed numbers times `weights`."""
    net = build("rbm", Signature(Bits((3,))), hidden=2, **PLAIN)
    source = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(weights * torch.randn(parameter.shape, generator=source))
    return net


def _known() -> float:
    """Return the relative gap between the instrument's bias and that of the transition matrix at k = 1."""
    net = cast(Any, _small(1.5))
    states = Bits((3,)).states()
    x = states[[0, 3, 3, 6]]
    exact = _flat(net, -net.log_prob(x).mean())
    # The chain's kernel is p(h | v) p(v' | h), with the sums over h written out.
    h = Bits((2,)).states().float()
    W, b, c = (parameter.detach() for parameter in net.parameters())
    v = states.float()
    joint = (v @ b)[:, None] + h @ c + v @ W @ h.T
    kernel = joint.softmax(1) @ joint.softmax(0).T
    places = (x.long() @ torch.tensor([4, 2, 1])).tolist()
    end = kernel[places].mean(0)
    up, down = (x.float() @ W + c).sigmoid(), (v @ W + c).sigmoid()
    parts = [
        (v * end[:, None]).T @ down - x.float().T @ up / len(x),
        end @ v - x.float().mean(0),
        end @ down - up.mean(0),
    ]
    known = float((torch.cat([part.flatten() for part in parts]).double() - exact).norm())
    torch.manual_seed(0)
    found, _ = _bias(net, x.repeat(KNOWN_CHAINS // 4, 1), pairs=1)
    return found / known - 1


def _without_weights(data: Dataset, model: str, options: dict[str, Any], samples: int) -> float:
    """Return the bias of CD-1 on a machine whose parameters are all zero."""
    torch.manual_seed(0)
    net = build(model, data, **options)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    x = cast(Tensor, data.train.head(samples).x)
    return _bias(net, x.repeat(-(-FORGETFUL_CHAINS // len(x)), *(1,) * (x.dim() - 1)))[0]


def _falls(before: list[float], after: list[float]) -> bool | None:
    """Return whether the bias falls, by the interval over seeds of its change; None if that holds zero."""
    changes = over_seeds((b - a for a, b in zip(before, after, strict=True)), "bias")
    return side(changes.interval, 0.0, above=False)


def _bits(data: Dataset) -> Dataset:
    """Return the data as bits in memory."""
    if isinstance(data.domain, Images):
        data = data.binarize()
    data.domain.require(Bits)
    return replace(data, train=data.train.head(len(data.train)), valid=Split(data.train.head(0).x))


def _check(
    data: Dataset, model: str, options: dict[str, Any], lengths: tuple[int, ...], samples: int, steps: int
) -> None:
    """Check what the study is asked for.

    Raises:
        OptionError: If something is out of range, or the model has no `steps` or no exact `log_prob`.
        DomainError: If there is nothing to learn from.
    """
    if len(lengths) < 2 or min(lengths) < 1 or list(lengths) != sorted(set(lengths)):
        raise OptionError(f"lengths must be at least two rising numbers from 1, got {lengths}")
    if min(samples, steps) < 1:
        raise OptionError(f"samples and steps must be at least 1, got {samples} and {steps}")
    if not len(data.train):
        raise DomainError(f"{data.name} has no training sample; it needs Bits to learn from")
    if "steps" not in options_of(model) or "steps" in options:
        raise OptionError(f"the study sets the option steps, which {model} must have and options must not")
    density = getattr(build(model, data, **options), "density", None)
    if not isinstance(density, Density) or density.kind != "exact":
        raise OptionError(f"{model} {options} has no exact log_prob; give it at most 20 hidden units")


def _figure(finding: Finding) -> Figure:
    """Return the bias against k, a line a seed."""
    figure = Figure(figsize=(5.4, 3.6), layout="constrained")
    axis = figure.subplots()
    for _, rows in finding.table.groupby("seed"):
        axis.plot(rows["k"], rows["bias"], "o-", color="#1b6ca8", alpha=0.6, linewidth=1)
    axis.set_xscale("log")
    lengths, bias = sorted(set(finding.table["k"])), finding.table["bias"]
    axis.set_xticks(lengths, [str(k) for k in lengths])
    axis.minorticks_off()
    axis.set_yscale("symlog", linthresh=float(bias[bias > 0].min()) if bool((bias > 0).any()) else 1.0)
    axis.set_ylim(0, 1.5 * float(bias.max()) or 1.0)
    axis.set_xlabel("steps k of the chains")
    axis.set_ylabel("distance from the exact gradient")
    axis.set_title(f"{finding.claim}\n{finding.verdict.capitalize()}.", fontsize=9)
    return figure
