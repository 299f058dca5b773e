"""Laws of the verbs one by one: each row alone, raw values, repeatable, nothing changed behind one's back."""

from collections.abc import Callable

import torch
from torch import Tensor

from leadline.core import Classes, has_verb
from leadline.core.errors import ShapeError
from leadline.laws.subject import Subject
from leadline.laws.verdicts import Broken, NotApplicable, demand

__all__ = [
    "changes_nothing",
    "decodes_raw",
    "finite",
    "predicts",
    "repeats",
    "rows_alone",
    "samples_raw",
    "samples_repeat",
]

_TOLERANCE, _FEW, _DRAWS = 1e-4, 12, 64
Check = Callable[[Subject], str]


def finite(verb: str, size: str) -> Check:
    """Return the law that `verb` gives a finite floating number, or a row of them, for each row."""

    def check(subject: Subject) -> str:
        out = subject.verb(verb)(subject.x)
        dims = 1 if size == "(n,)" else 2
        fits = isinstance(out, Tensor) and out.dim() == dims and len(out) == len(subject.x)
        got = f"{tuple(out.shape)} {out.dtype}" if isinstance(out, Tensor) else type(out).__name__
        demand(fits and out.is_floating_point(), f"{verb} gives {got}, not floats of shape {size}")
        bad = ~out.isfinite().flatten(1).all(1) if dims > 1 else ~out.isfinite()
        row = int(bad.int().argmax()) if len(bad) else 0
        demand(not bad.any(), f"{verb} of row {row} is not finite", index=row, x=subject.x[row : row + 1])
        return f"{len(subject.x)} rows, {got}"

    return check


def rows_alone(verb: str) -> Check:
    """Return the law that `verb` gives a row the same answer alone, in company, and in any order."""

    def check(subject: Subject) -> str:
        act = subject.verb(verb)
        given = subject.codes[:_FEW] if verb == "decode" else subject.x[:_FEW]
        together = act(given)
        alone = torch.cat([act(row[None]) for row in given])
        turned = act(given.flip(0)).flip(0)
        demand(together.shape == alone.shape, f"{verb} of one row has another shape")
        for other, how in ((alone, "alone"), (turned, "in another order")):
            gap = _gaps(together, other)
            row = int(gap.argmax())
            demand(
                gap.max() <= _TOLERANCE,
                f"{verb} of row {row} differs by {float(gap[row]):.3g} (relative) when it stands {how}",
                index=row,
                x=given[row],
                together=together[row],
                apart=other[row],
            )
        return f"{len(given)} rows alone, together and reversed"

    return check


def _gaps(left: Tensor, right: Tensor) -> Tensor:
    """Return the largest difference of each row relative to the size of the answer: (n,)."""
    a, b = left.flatten(1).double() if left.dim() > 1 else left[:, None].double(), right.double()
    b = b.flatten(1) if b.dim() > 1 else b[:, None]
    same = (a == b) | (a.isnan() & b.isnan())
    gap = (a - b).abs() / (1 + a.abs())
    return torch.where(same, 0.0, gap).nan_to_num(torch.inf).amax(1)


def repeats(verb: str) -> Check:
    """Return the law that `verb` gives the same answer twice, whatever the global random state."""

    def check(subject: Subject) -> str:
        act, given = subject.verb(verb), subject.codes if verb == "decode" else subject.x
        torch.manual_seed(subject.seed)
        first = act(given)
        torch.manual_seed(subject.seed + 1)
        second = act(given)
        same = bool(torch.equal(first.nan_to_num(), second.nan_to_num()))
        row = 0 if same else int((first != second).flatten(1 if first.dim() > 1 else 0).nonzero()[0, 0])
        demand(
            same,
            f"{verb} of row {row} changes from call to call",
            index=row,
            first=first[row],
            second=second[row],
        )
        return f"{len(given)} rows twice, bit for bit"

    return check


def predicts(subject: Subject) -> str:
    """Check that predictions are normalised log-probabilities of the classes, or one mean a target."""
    if subject.labels is None:
        raise NotApplicable("the data have no labels")
    out = subject.verb("predict")(subject.x)
    want = (len(subject.x), subject.labels.outputs)
    demand(tuple(out.shape) == want, f"predict gives shape {tuple(out.shape)}, not {want}")
    if not isinstance(subject.labels, Classes):
        return f"{want[1]} means a row"
    total = out.double().logsumexp(1)
    row = int(total.abs().argmax())
    demand(
        total.abs().max() <= _TOLERANCE,
        f"the probabilities of row {row} sum to {float(total[row].exp()):.6g}, not 1",
        index=row,
        log_probabilities=out[row],
    )
    return f"{len(out)} rows sum to 1"


def samples_raw(subject: Subject) -> str:
    """Check that samples are raw values of the domain, as many as were asked for."""
    for n in (_DRAWS, 1):
        _demand_raw(subject, subject.verb("sample")(n, generator=subject.generator("raw")), n, "sample")
    return f"{_DRAWS} draws are {subject.domain.dtype} values of {subject.domain}"


def decodes_raw(subject: Subject) -> str:
    """Check that decoded codes are raw values of the domain."""
    _demand_raw(subject, subject.verb("decode")(subject.codes), len(subject.codes), "decode")
    return f"{len(subject.codes)} codes give {subject.domain.dtype} values of {subject.domain}"


def _demand_raw(subject: Subject, out: Tensor, n: int, verb: str) -> None:
    """Check shape, type and values of raw samples."""
    want = (n, *subject.domain.shape)
    demand(tuple(out.shape) == want, f"{verb} gives shape {tuple(out.shape)}, not {want}")
    # A model in float64 gives real columns in float64: they follow the parameters.
    fits = out.dtype == subject.domain.dtype or (
        out.is_floating_point() and subject.domain.dtype.is_floating_point
    )
    demand(fits, f"{verb} gives {out.dtype}, but raw samples are {subject.domain.dtype}", sample=out[0])
    try:
        subject.domain.validated(out)
    except ShapeError as error:
        raise Broken(f"{verb}: {error}", sample=out) from error


def samples_repeat(subject: Subject) -> str:
    """Check that one generator gives the same samples bit for bit, and another gives others."""
    draw = subject.verb("sample")
    torch.manual_seed(subject.seed)
    first = draw(_DRAWS, generator=subject.generator("one"))
    torch.manual_seed(subject.seed + 1)
    again = draw(_DRAWS, generator=subject.generator("one"))
    other = draw(_DRAWS, generator=subject.generator("other"))
    demand(
        torch.equal(first, again), "two equal generators give different samples", first=first, second=again
    )
    demand(not torch.equal(first, other), "two different generators give the same samples", samples=first)
    return f"{_DRAWS} draws, bit for bit"


def changes_nothing(subject: Subject) -> str:
    """Check that no verb changes its input, the model, its modes, or the global random state."""
    calls: dict[str, Callable[[], object]] = {
        verb: lambda verb=verb: subject.verb(verb)(subject.x)  # type: ignore[misc]
        for verb in ("predict", "log_prob", "encode")
        if has_verb(subject.model, verb)
    }
    if has_verb(subject.model, "sample"):
        calls["sample"] = lambda: subject.verb("sample")(4, generator=subject.generator("nothing"))
    if has_verb(subject.model, "decode") and has_verb(subject.model, "encode"):
        calls["decode"] = lambda: subject.verb("decode")(subject.codes)
    for verb, call in calls.items():
        before = _everything(subject)
        call()
        after = _everything(subject)
        changed = [name for name in before if not torch.equal(before[name], after[name])]
        demand(not changed, f"{verb} changes {', '.join(changed[:3])}", changed=changed)
    return f"{', '.join(calls)} leave input, parameters, buffers, modes and random state as they were"


def _everything(subject: Subject) -> dict[str, Tensor]:
    """Return a copy of all that a verb must not change, by name."""
    held = {name: value for name, value in subject.model.state_dict().items() if isinstance(value, Tensor)}
    modes = torch.tensor([module.training for module in subject.model.modules()])
    rest = {
        "its input": subject.x,
        "the mode of a module": modes,
        "the global random state": torch.get_rng_state(),
    }
    # NaN is unlike itself, so it is made a number.
    return {
        name: value.nan_to_num() if value.is_floating_point() else value.clone()
        for name, value in (held | rest).items()
    }
