"""The table of laws, and `verify`, which puts a model before each of them."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from leadline.core import (
    Counts,
    Described,
    Domain,
    DomainError,
    OptionError,
    Signature,
    VerbError,
    has_verb,
    verbs_of,
)
from leadline.core.errors import no_data_set
from leadline.core.randomness import generator_for
from leadline.core.telling import told_of
from leadline.data import Dataset
from leadline.laws.cells import random_rows
from leadline.laws.chain import chain_is_stationary
from leadline.laws.structure import (
    bound_below,
    inverse,
    log_determinant,
    order,
    state_is_whole,
    truth_enclosed,
)
from leadline.laws.subject import Subject
from leadline.laws.summation import samples_follow_log_prob, sums_to_one
from leadline.laws.verbs import (
    changes_nothing,
    decodes_raw,
    finite,
    predicts,
    repeats,
    rows_alone,
    samples_raw,
    samples_repeat,
)
from leadline.laws.verdicts import Broken, Law, NotApplicable, Verification

__all__ = ["LAWS", "Statute", "verify"]

_ROWS = 64
_MOST_TOKENS = 200


@dataclass(frozen=True)
class Statute:
    """A line of the table of laws.

    Args:
        name: The law, as a sentence.
        needs: The verbs without which it has nothing to say.
        check: Returns what was measured; raises `Broken` or `NotApplicable` otherwise.
    """

    name: str
    needs: tuple[str, ...]
    check: Callable[[Subject], str]


LAWS: tuple[Statute, ...] = (
    Statute("verbs change nothing", (), changes_nothing),
    Statute("probabilities sum to one", ("log_prob",), sums_to_one),
    Statute("samples follow log_prob", ("sample", "log_prob"), samples_follow_log_prob),
    Statute("the chain keeps the density", ("step",), chain_is_stationary),
    Statute("bounds lie below", ("log_prob",), bound_below),
    Statute("bounds enclose the exact value", ("log_prob",), truth_enclosed),
    Statute("decode inverts encode", ("encode", "decode"), inverse),
    Statute("log-determinant is that of encode", ("log_prob", "encode", "decode"), log_determinant),
    Statute("conditionals keep their order", ("log_prob",), order),
    Statute("log_prob is finite", ("log_prob",), finite("log_prob", "(n,)")),
    Statute("log_prob scores each row alone", ("log_prob",), rows_alone("log_prob")),
    Statute("log_prob repeats", ("log_prob",), repeats("log_prob")),
    Statute("predictions are normalised", ("predict",), predicts),
    Statute("predict is finite", ("predict",), finite("predict", "(n, K)")),
    Statute("predict answers each row alone", ("predict",), rows_alone("predict")),
    Statute("predict repeats", ("predict",), repeats("predict")),
    Statute("encode is finite", ("encode",), finite("encode", "(n, D)")),
    Statute("encode answers each row alone", ("encode",), rows_alone("encode")),
    Statute("encode repeats", ("encode",), repeats("encode")),
    Statute("decode gives raw samples", ("decode",), decodes_raw),
    Statute("decode answers each row alone", ("decode",), rows_alone("decode")),
    Statute("decode repeats", ("decode",), repeats("decode")),
    Statute("sample gives raw samples", ("sample",), samples_raw),
    Statute("sample repeats under one generator", ("sample",), samples_repeat),
    Statute("state_dict holds the whole model", (), state_is_whole),
)


def verify(
    model: nn.Module, data: Described | None = None, *, seed: int = 0, samples: int = 4096
) -> Verification:
    """Return which laws `model` obeys, each broken one with a witness.

    The model is put into evaluation mode and back, and is left as it was, as is the global random
    state. A statistical law calls an honest model broken once in 10,000 times.

    Args:
        model: Any module that has some of the five verbs.
        data: A data set, or anything with a domain and labels; the model's own `domain` if None.
            Rows to try come from its test split, else they are random.
        seed: Seed of the rows and the draws.
        samples: Number of draws of the laws about samples, at least 1.

    Raises:
        VerbError: If the model has none of the verbs.
        OptionError: If there are no data and the model has no domain, or `samples` is below 1.
        DomainError: If the model's domain is not that of the data.
    """
    if not verbs_of(model) and not has_verb(model, "step"):
        raise VerbError(
            f"{type(model).__name__} has none of the verbs predict, sample, log_prob, encode, decode"
        )
    if samples < 1:
        raise OptionError(f"samples must be at least 1, got {samples}")
    about = _described(model, data)
    with _untouched(model) as device:
        x = _rows(about, seed).to(device)
        subject = Subject(model, about.domain, about.labels, x.clone(), seed, samples)
        laws = []
        for statute in LAWS:
            with told_of(statute.name):
                laws.append(_judged(statute, subject))
            # A verb that writes into its input or turns on training is told of once.
            subject.x.copy_(x)
            model.eval()
    return Verification(type(model).__name__, str(about.domain), tuple(laws))


def _described(model: nn.Module, data: Described | None) -> Described:
    """Return what the samples are, by the data or else by the model.

    Raises:
        OptionError: If neither says it, or the data are no data set.
        DomainError: If they disagree.
    """
    own = getattr(model, "domain", None)
    if data is None:
        if not isinstance(own, Domain):
            raise OptionError(
                f"{type(model).__name__} has no domain: give verify(model, data) a data set, "
                "or a Signature(domain, labels)"
            )
        return Signature(own, getattr(model, "labels", None))
    if not hasattr(data, "domain"):
        raise no_data_set("verify", data)
    if isinstance(own, Domain) and (own.kind, own.shape) != (data.domain.kind, data.domain.shape):
        raise DomainError(f"the model is for {own}, but the data are {data.domain}")
    return data


def _rows(about: Described, seed: int) -> Tensor:
    """Return rows of the test split, of another split if it is empty, or random ones."""
    splits = (about.test, about.valid, about.train) if isinstance(about, Dataset) else ()
    for split in splits:
        if len(split):
            rows = split.head(_ROWS).x
            x = rows.clone() if isinstance(rows, Tensor) else rows[torch.arange(len(rows))]
            return _shortened(x) if isinstance(about.domain, Counts) else x
    return random_rows(about.domain, _ROWS, generator_for(seed, "random rows"))


def _shortened(x: Tensor) -> Tensor:
    """Return bags of their first tokens alone, (n, words): estimates cost the square of a length."""
    return x.cumsum(1).clamp(max=_MOST_TOKENS).diff(dim=1, prepend=x.new_zeros(len(x), 1))


@contextmanager
def _untouched(model: nn.Module) -> Iterator[torch.device]:
    """Put `model` into evaluation mode without gradients, and afterwards everything back as it was."""
    modes = {module: module.training for module in model.modules()}
    state = {key: value.clone() for key, value in model.state_dict().items() if isinstance(value, Tensor)}
    like = next(iter(state.values()), torch.empty(0))
    devices = [like.device] if like.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices), torch.no_grad():
            model.eval()
            yield like.device
    finally:
        held = model.state_dict()
        with torch.no_grad():
            for key, value in state.items():
                if key in held and held[key].shape == value.shape:
                    held[key].copy_(value)
        for module, mode in modes.items():
            module.training = mode


def _judged(statute: Statute, subject: Subject) -> Law:
    """Return the answer of one law about one model."""
    lacking = [verb for verb in statute.needs if not has_verb(subject.model, verb)]
    if lacking:
        return Law(statute.name, "not applicable", f"the model has no {' and no '.join(lacking)}")
    law = functools.partial(Law, statute.name)
    try:
        return law("obeyed", statute.check(subject))
    except Broken as broken:
        return law("broken", str(broken), broken.witness)
    except (NotApplicable, VerbError, DomainError) as reason:
        return law("not applicable", str(reason))
    except Exception as error:  # noqa: BLE001 - the verbs are the user's code: whatever they raise is the answer
        text = str(error).strip().partition("\n")[0]
        return law("broken", f"{type(error).__name__}: {text}", {"exception": repr(error)})
