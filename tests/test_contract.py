"""What every model of the catalog owes, on every kind of data that it holds."""

import copy
import functools
import math
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from leadline.catalog import CATALOG, build, options_of
from leadline.core import (
    Batch,
    Classes,
    DomainError,
    Images,
    LeadlineError,
    OptionError,
    Ragged,
    ShapeError,
    Signature,
    has_verb,
    swept,
    verbs_of,
)
from leadline.core.verbs import way_of
from leadline.data import Dataset
from leadline.laws import verify
from leadline.training import fit, open_run
from tests.tiny import KINDS, tiny

DRAWS, STEPS = 512, 20
FIRST = {entry.path: name for name, entry in reversed(CATALOG.items())}
# Sizes in proportion to the tiny data; everything else is built as a user would.
OPTIONS: dict[str, dict[str, Any]] = {
    "lda": {"topics": 2},
    "ensemble": {"size": 2, "options": {"hidden": (16,)}},
    "rbm": {"hidden": 8},
    "dbn": {"hidden": (8, 4)},
    "dbm": {"hidden": (8, 4)},
    "energy": {"hidden": (8,), "steps": 5, "burn_in": 50},
    "vae": {"latent": 2},
    "alexnet": {"width": 0.0625},
    "vgg11": {"width": 0.0625},
    "googlenet": {"width": 0.125},
    "bn_inception": {"width": 0.125},
    "prelu_net_a": {"width": 0.0625},
    "resnet18": {"width": 0.0625},
    "densenet121": {"growth": 2},
    "densenet_bc": {"depth": 10, "growth": 4},
    "cifar_resnet20": {"width": 0.25},
    "acoustic_dnn": {"hidden": (8,), "mels": 8, "context": 1},
    "acoustic_gmm": {"components": 2, "mels": 8, "cepstra": 4},
}
# A class that has several names is tested under the first; the others differ in numbers alone.
NAMES = [name for name, entry in CATALOG.items() if name == FIRST[entry.path]]
ALIASES = [name for name in CATALOG if name not in NAMES]
DOMAINS = (
    "Audio",
    "Images",
    "Bits",
    "Vectors",
    "Categories",
    "Table",
    "Tokens",
    "Counts",
    "Classes",
    "Targets",
    "labels",
)


@functools.cache
def data_of(kind: str) -> Dataset:
    return tiny(kind)


def _attempts() -> dict[tuple[str, str], Exception | None]:
    """Return what came of building each model for each kind of data: None, or the refusal."""
    found: dict[tuple[str, str], Exception | None] = {}
    for name in NAMES:
        for kind in KINDS:
            try:
                build(name, data_of(kind), **OPTIONS.get(name, {}))
                found[name, kind] = None
            except LeadlineError as error:
                found[name, kind] = error
    return found


ATTEMPTS = _attempts()
HELD = [pair for pair, error in ATTEMPTS.items() if error is None]
REFUSED = [(*pair, error) for pair, error in ATTEMPTS.items() if error is not None]
over_held = pytest.mark.parametrize(("name", "kind"), HELD, ids=["-".join(pair) for pair in HELD])


def made(name: str, kind: str) -> nn.Module:
    """Return a model off its start: parameters moved, or state learned by two sweeps."""
    torch.manual_seed(0)
    data = data_of(kind)
    model = build(name, data, **OPTIONS.get(name, {}))
    if way_of(model) == "sweep":
        for _ in range(2):
            swept(model, cast(Tensor, data.train.x), data.train.y)
    source = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=source))
    return model.eval()


def answers(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Return what each verb answers about `x`."""
    speaker = cast(Any, model)
    with torch.no_grad():
        out = {
            verb: getattr(speaker, verb)(x)
            for verb in ("predict", "log_prob", "encode")
            if has_verb(model, verb)
        }
        if has_verb(model, "sample"):
            out["sample"] = speaker.sample(5, generator=torch.Generator().manual_seed(3))
        if has_verb(model, "decode") and "encode" in out:
            out["decode"] = speaker.decode(out["encode"])
    return out


def goodness(model: nn.Module, data: Dataset) -> float:
    """Return how well the model does what it learns on the training split; higher is better."""
    x, y, speaker = cast(Tensor, data.train.x), data.train.y, cast(Any, model)
    torch.manual_seed(1)
    with torch.no_grad():
        if has_verb(model, "sweep"):
            return swept(copy.deepcopy(model), x, y)
        if has_verb(model, "log_prob"):
            return float(speaker.log_prob(x).mean())
        if has_verb(model, "predict") and y is not None:
            out = speaker.predict(x)
            return float(out.gather(1, y[:, None]).mean() if out.shape[1] > 1 else -(out - y).square().mean())
        return -float(speaker.loss(Batch(x, y)))


@pytest.mark.parametrize("name", NAMES)
def test_every_model_holds_some_kind_of_data(name: str) -> None:
    assert name in {held for held, _ in HELD}


@pytest.mark.parametrize("name", ALIASES)
def test_every_other_name_of_a_class_builds_it_from_what_the_name_fixes(name: str) -> None:
    data = Signature(Images(3, 224, 224), Classes(("a", "b")))
    with torch.device("meta"):
        model, other = build(name, data), build(FIRST[CATALOG[name].path], data)
    assert type(model) is type(other)
    assert not set(CATALOG[name].fixed) & set(options_of(name))
    assert verbs_of(model)
    assert CATALOG[name].fixed != CATALOG[FIRST[CATALOG[name].path]].fixed
    assert str(model) != str(other)


@pytest.mark.parametrize(("name", "kind", "error"), REFUSED)
def test_a_refused_domain_is_told_which_would_do(name: str, kind: str, error: Exception) -> None:
    assert isinstance(error, DomainError), error
    assert str(error).startswith(f"{name}: ")
    assert any(domain in str(error) for domain in DOMAINS)
    assert "\n" not in str(error)


@pytest.mark.parametrize("name", ["rbm", "dbn", "dbm"])
def test_bits_other_than_zero_and_one_have_no_probability(name: str) -> None:
    model, x = made(name, "bits"), cast(Tensor, data_of("bits").test.x)[:4]
    wrong = x.clone()
    wrong[2] = 3
    with pytest.raises(ShapeError, match="sample 2, dimension 0: 3"):
        cast(Any, model).log_prob(wrong)


@over_held
def test_no_law_is_broken(name: str, kind: str) -> None:
    found = verify(made(name, kind), data_of(kind), samples=DRAWS)
    assert not found.broken, str(found)
    assert found.obeyed


@over_held
def test_every_parameter_gets_a_gradient_that_is_not_zero(name: str, kind: str) -> None:
    model, data = made(name, kind).train(), data_of(kind)
    batch = Batch(cast(Tensor, data.train.x), data.train.y)
    speaker = cast(Any, model)
    if has_verb(model, "players"):
        for player in speaker.players():
            model.zero_grad()
            player.loss(batch).backward()
            assert all(_moved(parameter.grad) for parameter in player.parameters), player.name
    elif has_verb(model, "loss"):
        speaker.loss(batch).backward()
        still = [key for key, parameter in model.named_parameters() if not _moved(parameter.grad)]
        assert not still


def _moved(grad: Tensor | None) -> bool:
    return grad is not None and bool(torch.isfinite(grad).all()) and bool(grad.ne(0).any())


@over_held
def test_twenty_steps_improve_the_objective_and_the_run_opens_to_equal_answers(
    name: str, kind: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    data = data_of(kind)
    model = build(name, data, **OPTIONS.get(name, {}))
    start = copy.deepcopy(model)
    run = fit(model, data, steps=STEPS, select="last", threads=1, out=tmp_path / "run", progress=False)
    x = cast(Tensor, data.test.x)
    if has_verb(model, "players"):
        pairs = zip(start.parameters(), run.model.parameters(), strict=True)
        assert all(not torch.equal(before, after) for before, after in pairs)
    elif way_of(start) == "sweep":
        assert goodness(run.model, data) >= goodness(start, data) - 1e-6
    else:
        assert goodness(run.model, data) > goodness(start.eval(), data)
    opened = open_run(tmp_path / "run").model
    mine, other = answers(run.model, x), answers(opened, x)
    assert all(torch.equal(mine[verb], other[verb]) for verb in mine)


@over_held
def test_answers_follow_the_type_of_the_parameters(name: str, kind: str) -> None:
    model, x = made(name, kind), cast(Tensor, data_of(kind).test.x)
    double = copy.deepcopy(model).double()
    single, wide = answers(model, x), answers(double, x)
    for verb in ("predict", "log_prob", "encode"):
        if verb in wide:
            assert wide[verb].dtype == torch.float64, verb
            assert single[verb].dtype == torch.float32, verb
            torch.testing.assert_close(single[verb].double(), wide[verb], atol=1e-2, rtol=1e-2)
    for verb in ("sample", "decode"):
        if verb in wide:
            assert single[verb].dtype == data_of(kind).domain.dtype, verb


@over_held
def test_codes_of_a_wrong_width_get_a_clear_error(name: str, kind: str) -> None:
    speaker = cast(Any, made(name, kind))
    if not has_verb(speaker, "decode"):
        return
    with torch.no_grad():
        x = data_of(kind).test.x
        codes = speaker.encode(x) if has_verb(speaker, "encode") else torch.zeros(3, speaker.latent)
        assert len(speaker.decode(codes)) == len(codes)
        for wrong in (codes[:, :-1], torch.cat([codes, codes[:, :1]], 1), codes[0]):
            with pytest.raises(LeadlineError, match="codes"):
                speaker.decode(wrong)


@over_held
def test_a_wrong_shape_gets_a_clear_error(name: str, kind: str) -> None:
    model, x = made(name, kind), cast(Tensor, data_of(kind).test.x)
    speaker = cast(Any, model)
    for verb in ("predict", "log_prob", "encode"):
        if has_verb(model, verb):
            for wrong in _wrongly_shaped(x):
                with pytest.raises(ShapeError, match="shape"):
                    getattr(speaker, verb)(wrong)


def _wrongly_shaped(x: Tensor) -> list[Tensor]:
    """Return batches that are none of the domain; clips of sound may have any length."""
    if isinstance(x, Ragged):
        return [x.padded()[..., None], x[0]]
    return [x[..., :-1], x[..., None], x[0]]


@over_held
def test_an_empty_batch_gets_an_empty_answer(name: str, kind: str) -> None:
    model, x = made(name, kind), cast(Tensor, data_of(kind).test.x)
    speaker = cast(Any, model)
    for verb in ("predict", "log_prob", "encode"):
        if has_verb(model, verb):
            assert len(getattr(speaker, verb)(x[:0])) == 0, verb


@over_held
def test_a_number_of_samples_that_is_none_gets_a_clear_error(name: str, kind: str) -> None:
    model: Any = made(name, kind)
    if not has_verb(model, "sample"):
        return
    for count in (-1, 0, 2.5, True, "3", None):
        with pytest.raises(OptionError, match=r"^the number of samples must be a whole number of at least 1"):
            model.sample(count)
    assert len(model.sample(n=np.int64(1))) == 1


@over_held
def test_a_model_needs_only_what_samples_and_labels_are(name: str, kind: str) -> None:
    data = data_of(kind)
    model = build(name, Signature(data.domain, data.labels))
    assert verbs_of(model)
    assert math.isfinite(sum(float(parameter.detach().sum()) for parameter in model.parameters()))
