r"""Laws of models that promise more: an inverse, a log-determinant, an order, a bound, a state that is whole.

Symbols:
    n samples, d dimensions, z = f(x) code, J = df/dx Jacobian.

Formula:
    A flow with the base N(0, I) has log p(x) = log N(f(x); 0, I) + log |det J(x)|.
"""

import copy
import inspect
import math
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from leadline.catalog import CATALOG, build
from leadline.core import Domain, Signature, Vectors, has_verb
from leadline.core.domain import float_like
from leadline.laws.subject import Subject, Verb, density_of
from leadline.laws.verdicts import NotApplicable, demand

__all__ = ["bound_below", "inverse", "log_determinant", "order", "state_is_whole", "truth_enclosed"]

_TOLERANCE, _FEW, _MOST_DIMS, _MOST_PLACES, _MOST_ENCLOSED = 1e-3, 8, 64, 16, 64
_SIGMAS = 3.8  # one-sided normal quantile of the false-alarm rate 1e-4, rounded up


def inverse(subject: Subject) -> str:
    """Check that decode undoes encode."""
    claimed, gap, back = _inversion(subject)
    if not claimed:
        raise NotApplicable("the model does not claim that decode inverts encode (`invertible = True` would)")
    row = int(gap.argmax())
    demand(
        gap.max() <= _TOLERANCE,
        f"decode(encode(x)) misses row {row} by {float(gap[row]):.3g} (in units of the data's scale)",
        index=row,
        x=subject.x[row],
        back=back[row],
    )
    return f"{len(gap)} rows, largest error {float(gap.max()):.2g}"


def log_determinant(subject: Subject) -> str:
    """Check log_prob against the density of the code and the Jacobian of encode by autograd."""
    if not isinstance(subject.domain, Vectors) or density_of(subject.model).kind != "exact":
        raise NotApplicable("needs real vectors and an exact log_prob")
    if not _inversion(subject)[0]:
        raise NotApplicable("the model does not claim that decode inverts encode (`invertible = True` would)")
    if subject.domain.dims > _MOST_DIMS:
        raise NotApplicable(f"more than {_MOST_DIMS} columns: the Jacobian would be too large")
    model = copy.deepcopy(subject.model).double()
    x = subject.x[:_FEW].double()
    encode, score = cast(Verb, model.encode), cast(Verb, model.log_prob)
    z = encode(x)
    with torch.enable_grad():
        jacobians = [_jacobian(encode, row) for row in x]
    by_autograd = torch.stack([torch.linalg.slogdet(jacobian).logabsdet for jacobian in jacobians])
    base = -0.5 * z.square().sum(1) - 0.5 * z.shape[1] * math.log(2 * math.pi)
    claimed = score(x) - base
    row = int((claimed - by_autograd).abs().argmax())
    demand(
        (claimed - by_autograd).abs().max() <= _TOLERANCE * (1 + by_autograd.abs().max()),
        f"log_prob of row {row} has the log-determinant {float(claimed[row]):.6g}, "
        f"autograd {float(by_autograd[row]):.6g}",
        index=row,
        x=x[row],
        claimed=claimed[row],
        by_autograd=by_autograd[row],
    )
    return f"{len(x)} rows against autograd, base N(0, I)"


def _jacobian(encode: Verb, row: Tensor) -> Tensor:
    """Return dz/dx of one row: (d,) -> (d, d)."""

    def one(x: Tensor) -> Tensor:
        return encode(x[None])[0]

    return cast(Tensor, torch.autograd.functional.jacobian(one, row))


def _inversion(subject: Subject) -> tuple[bool, Tensor, Tensor]:
    """Return whether the model claims an inverse, the error of each row, and decode(encode(x)).

    A model claims it by an attribute `invertible`. Without one the claim is read from what it does: an
    exact density, codes as large as the data, and most rows do come back.
    """
    codes = subject.codes[: len(subject.x)]
    back = subject.verb("decode")(codes)
    gap = _distance(subject.domain, subject.x, back)
    said = getattr(subject.model, "invertible", None)
    if said is not None:
        return bool(said), gap, back
    sized = codes[0].numel() == subject.domain.dims and density_of(subject.model).kind == "exact"
    return sized and float((gap <= _TOLERANCE).double().mean()) >= 0.5, gap, back


def _distance(domain: Domain, x: Tensor, back: Tensor) -> Tensor:
    """Return the largest difference of each row, in units of the data's scale: (n,)."""
    scale = torch.tensor(domain.scale) if isinstance(domain, Vectors) else torch.ones(())
    gap = (x.double().flatten(1) - back.double().flatten(1)).abs() / scale.to(x.device)
    return gap.nan_to_num(torch.inf).amax(1)


def order(subject: Subject) -> str:
    """Check that no conditional reads the dimensions after its own.

    The model shows them by `conditionals(x)`, (n, *shape) -> (n, d): the conditional of each dimension
    in flat order. They come in flat order, or in that of the attribute `orders` (C, d); then
    `conditionals(x, c)` are those of component c, and log_prob is the mixture of all components.
    """
    if not callable(getattr(subject.model, "conditionals", None)):
        raise NotApplicable("the model shows no conditionals (`conditionals(x)` would, with `orders`)")
    each, x, d = subject.verb("conditionals"), subject.x[:_FEW], subject.domain.dims
    orders = getattr(subject.model, "orders", None)
    listed = [list(range(d))] if orders is None else torch.as_tensor(orders).tolist()
    totals = []
    for component, places in enumerate(listed):
        demand(sorted(places) == list(range(d)), "an order does not hold each dimension once", order=places)
        total = _in_order(subject.domain, each if orders is None else _of(each, component), x, places)
        totals.append(total)
    mixed = torch.stack(totals).logsumexp(0) - math.log(len(totals))
    gap = (mixed - subject.verb("log_prob")(x)).abs()
    demand(
        gap.max() <= _TOLERANCE * (1 + mixed.abs().max()),
        f"the conditionals do not sum to log_prob: {float(gap.max()):.3g} nats apart",
    )
    return f"{len(listed)} orders, {min(d, _MOST_PLACES)} dimensions changed one at a time"


def _of(each: Verb, component: int) -> Verb:
    """Return the conditionals of one component."""
    return lambda x: each(x, component)


def _in_order(domain: Domain, each: Verb, x: Tensor, places: list[int]) -> Tensor:
    """Check one order, and return the sum of its conditionals: (n,)."""
    before, d = each(x), len(places)
    demand(tuple(before.shape) == (len(x), d), f"conditionals gives {tuple(before.shape)}, not (n, {d})")
    for step in range(min(d, _MOST_PLACES)):
        at = step * d // min(d, _MOST_PLACES)
        earlier = before[:, places[:at]]
        moved = (each(_changed(domain, x, places[at]))[:, places[:at]] - earlier).abs()
        leaks = (moved > _TOLERANCE * (1 + earlier.abs())).any(0)
        early = places[int(leaks.int().argmax())] if at else 0
        demand(
            not leaks.any(),
            f"the conditional of dimension {early} reads dimension {places[at]}, which comes later",
            reads=places[at],
            conditional=early,
        )
    return before.sum(1)


def _changed(domain: Domain, x: Tensor, dim: int) -> Tensor:
    """Return `x` with another value of the domain in dimension `dim`."""
    flat = x.flatten(1).clone()
    sizes = domain.column(dim).cardinalities
    if sizes is not None:
        flat[:, dim] = (flat[:, dim] + 1) % sizes[0]
    else:
        unit = domain.column(dim)
        flat[:, dim] += unit.scale[0] if isinstance(unit, Vectors) else 1
    return flat.view_as(x)


def bound_below(subject: Subject) -> str:
    """Check that on the mean elbo(x) is below log_prob(x), and that more samples do not lower log_prob."""
    found: list[str] = []
    score, x = subject.verb("log_prob"), subject.x
    if has_verb(subject.model, "elbo"):
        found.append(_not_below(score(x) - subject.verb("elbo")(x), "log_prob minus elbo"))
    if "samples" in inspect.signature(score).parameters:
        found.append(_not_below(score(x, samples=64) - score(x, samples=1), "64 samples minus 1 sample"))
    if not found:
        raise NotApplicable("the model has no elbo(x) and no log_prob(x, samples=...)")
    return "; ".join(found)


def truth_enclosed(subject: Subject) -> str:
    """Check each bound against the exact log-likelihood on a small domain: lower <= exact <= upper."""
    if not has_verb(subject.model, "exact_log_prob"):
        raise NotApplicable("the model has no exact_log_prob(x) to hold its bounds against")
    small = subject.small
    x = small.cells.points[:: max(1, len(small.cells.points) // _MOST_ENCLOSED)].to(subject.x.device)
    exact = cast(Verb, small.model.exact_log_prob)(x).double()
    kind, found = density_of(small.model).kind, []
    bounds = {
        "log_prob": {"lower bound": -1.0, "upper bound": 1.0}.get(kind),
        "elbo": -1.0,
        "upper_bound": 1.0,
    }
    for name, side in bounds.items():
        if side is None or not has_verb(small.model, name):
            continue
        gap = side * (cast(Verb, getattr(small.model, name))(x).double() - exact)
        row = int(gap.argmin())
        said = f"{name} misses by {float(gap.mean()):.3g} nats"
        demand(
            gap.min() >= -_TOLERANCE * (1 + exact.abs().max()),
            f"{said}; at row {row} it is on the wrong side by {-float(gap.min()):.3g}",
            x=x[row],
            exact=exact[row],
        )
        found.append(said)
    if not found:
        raise NotApplicable("the model has no bound")
    return f"{len(x)} states{small.where}: {', '.join(found)}"


def _not_below(gap: Tensor, name: str) -> str:
    """Check that the mean of `gap` (n,) is not below 0 by more than chance."""
    rows = gap.double().cpu()
    error = float(rows.std()) / math.sqrt(len(rows)) if len(rows) > 1 else float(rows.abs().max())
    said = f"{name}: {float(rows.mean()):.4g} +- {error:.2g} nats"
    demand(
        rows.mean() >= -(_SIGMAS * error + _TOLERANCE), f"{said}; it should not be below 0", differences=rows
    )
    return said


def state_is_whole(subject: Subject) -> str:
    """Check that a model built again from its recipe and state_dict gives the same answers bit for bit."""
    recipe = getattr(subject.model, "recipe", None)
    if recipe is None:
        raise NotApplicable("the model was not built by `build`, so nothing says how to build it again")
    signature = Signature(subject.domain, subject.labels)
    own = getattr(type(subject.model), "for_data", None)  # that of a model from outside the catalog
    maker = partial(build, recipe.name) if own is None or recipe.name in CATALOG else own
    twin = maker(signature, **recipe.options)
    like = next(subject.model.parameters(), subject.x)
    twin = twin.to(like.device, float_like(like, None).dtype)
    twin.load_state_dict(subject.model.state_dict())
    twin.eval()
    mine, other = _answers(subject.model, subject), _answers(twin, subject)
    unlike = [verb for verb in mine if not torch.equal(mine[verb].nan_to_num(), other[verb].nan_to_num())]
    demand(not unlike, f"{', '.join(unlike)} of the model built again from its state_dict differ")
    return f"{', '.join(mine)} of a copy built from recipe and state_dict, bit for bit"


def _answers(model: nn.Module, subject: Subject) -> dict[str, Tensor]:
    """Return what each verb of `model` answers."""
    out = {
        verb: cast(Verb, getattr(model, verb))(subject.x)
        for verb in ("predict", "log_prob", "encode")
        if has_verb(model, verb)
    }
    if has_verb(model, "sample"):
        out["sample"] = cast(Verb, model.sample)(4, generator=subject.generator("twin"))
    if has_verb(model, "decode") and "encode" in out:
        out["decode"] = cast(Verb, model.decode)(out["encode"])
    return out
