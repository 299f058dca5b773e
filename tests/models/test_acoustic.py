"""Classifiers of sound: what a clip gets does not depend on its company, EM climbs, machines start layers."""

import copy
import itertools
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn

from leadline.catalog import build
from leadline.core import (
    Audio,
    Batch,
    Classes,
    DataError,
    DomainError,
    OptionError,
    Ragged,
    Signature,
    Targets,
)
from leadline.data import Dataset, Split
from leadline.models.supervised.acoustic_dnn import AcousticDNN
from leadline.models.supervised.acoustic_gmm import AcousticGMM
from leadline.nets.spectra import Frames
from leadline.training import fit, open_run
from tests.tiny import tiny

SMALL = {"hidden": (12, 8), "mels": 8, "context": 2}
CEPSTRA = {"components": 2, "mels": 8, "cepstra": 4}
NAMES = ("a", "b", "c")


def words(seed: int = 0, clips: int = 90) -> Dataset:
    """Return words of two tones in a row at 2000 samples a second: class by the tones, not by their level."""
    source = torch.Generator().manual_seed(seed)
    rows, labels = [], torch.arange(clips) % 3
    for label in labels.tolist():
        length = int(300 + 300 * torch.rand((), generator=source))
        t = torch.arange(length) / 2000
        first, second = ((200, 500), (500, 800), (800, 200))[label]
        pitch = torch.where(t < t[length // 2], float(first), float(second))
        wave = torch.sin(2 * torch.pi * pitch * t) * (0.05 + 0.3 * torch.rand((), generator=source))
        wave += 0.02 * torch.randn(length, generator=source)
        rows.append((wave * 32768).clamp(-32768, 32767).to(torch.int16))
    x = Ragged.of(rows)
    third = clips // 3
    parts = [Split(x[i : i + third], labels[i : i + third]) for i in (0, third, 2 * third)]
    return Dataset("words", Audio(2000), Classes(NAMES), *parts)


def learned(name: str, data: Dataset, **options: Any) -> Any:
    torch.manual_seed(0)
    model = build(name, data, **options)
    settings: dict[str, Any] = {"epochs": 20, "batch_size": 4, "lr": 0.01} if name == "acoustic_dnn" else {}
    return fit(model, data, out=False, progress=False, threads=1, **settings).model


@pytest.mark.parametrize(
    ("name", "options"),
    [("acoustic_dnn", SMALL), ("acoustic_dnn", SMALL | {"pretraining": "rbm"}), ("acoustic_gmm", CEPSTRA)],
)
def test_words_are_told_apart_by_who_has_not_heard_them(name: str, options: dict[str, Any]) -> None:
    data = words()
    model = learned(name, data, **options)
    with torch.no_grad():
        said = model.predict(data.test.x)
    assert data.test.y is not None
    assert float((said.argmax(1) == data.test.y).float().mean()) > 0.85
    torch.testing.assert_close(said.exp().sum(1), torch.ones(len(said)))


@pytest.mark.parametrize(("name", "options"), [("acoustic_dnn", SMALL), ("acoustic_gmm", CEPSTRA)])
def test_neither_company_nor_encoding_nor_padding_to_a_tensor_changes_an_answer(
    name: str, options: dict[str, Any]
) -> None:
    data = words()
    model = learned(name, data, **options)
    x = data.test.x[:9]
    assert isinstance(x, Ragged)
    with torch.no_grad():
        together = model.predict(x)
        alone = torch.cat([model.predict(row[None]) for row in x])
        real = model.predict(x.like(x.flat.float() / 32768))
        equal = model.predict(x[:1].padded())
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(together, real, atol=1e-4, rtol=0)
    torch.testing.assert_close(together[:1], equal, atol=1e-5, rtol=0)


def test_the_decision_is_the_mean_of_what_the_frames_say(moved: Any) -> None:
    data = words()
    model: Any = moved(build("acoustic_dnn", data, **SMALL)).eval()
    clip = data.test.x[:1]
    with torch.no_grad():
        v = model.frames(model.domain.waves(clip, model.like)).flat
        for layer in model.units:
            v = (v @ layer.weights + layer.biases).sigmoid()
        frames = model.head(v).log_softmax(1)
        torch.testing.assert_close(model.predict(clip)[0], frames.mean(0).log_softmax(0))
        torch.testing.assert_close(model.encode(clip)[0], v.mean(0))


def test_each_clip_weighs_alike_in_the_loss_and_unknown_ones_weigh_nothing(moved: Any) -> None:
    data = words()
    model: Any = moved(build("acoustic_dnn", data, **SMALL)).eval()
    x, y = data.test.x[:6], torch.tensor([0, 1, 2, -1, 1, -1])
    whole = model.loss(Batch(x, y))
    each = torch.stack([model.loss(Batch(x[i : i + 1], y[i : i + 1])) for i in (0, 1, 2, 4)])
    torch.testing.assert_close(whole, each.mean())
    frames = model.head(_units(model, x[:1], 2)).log_softmax(1)
    torch.testing.assert_close(each[0], -frames[:, 0].mean())
    nothing = model.loss(Batch(x, torch.full((6,), -1)))
    nothing.backward()
    assert float(nothing.detach()) == 0
    with pytest.raises(DataError, match="no"):
        model.loss(Batch(x, None))


def test_stages_learn_the_layers_themselves(tmp_path: Path) -> None:
    data = words()
    model: Any = build("acoustic_dnn", data, **SMALL, pretraining="rbm")
    assert len(model.stages()) == 2
    before = copy.deepcopy(model.state_dict())
    stages = model.stages()
    for stage in stages:
        for parameter in stage.parameters():
            with torch.no_grad():
                parameter.add_(1)
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {
        f"units.{i}.{name}" for i in (0, 1) for name in ("weights", "biases", "visible_bias")
    }  # fmt: skip
    torch.testing.assert_close(stages[0].encode(data.test.x).flat, _units(model, data.test.x, 1))
    torch.testing.assert_close(
        stages[1].encode(stages[0].encode(data.test.x)).flat, _units(model, data.test.x, 2)
    )


def _units(model: Any, x: Tensor, layers: int) -> Tensor:
    """Return the units of every frame after some modules of the net."""
    v = model.frames(model.domain.waves(x, model.like)).flat
    for layer in model.units[:layers]:
        v = layer(v)
    return v


def test_pretraining_brings_machines_nearer_to_the_frames() -> None:
    data = words()
    model: Any = build("acoustic_dnn", data, **SMALL, pretraining="rbm")
    run = fit(model, data, epochs=4, batch_size=8, out=False, progress=False, threads=1)
    phases = [record["phase"] for record in run.metrics]
    assert list(dict.fromkeys(phases)) == ["stage 1", "stage 2", "acoustic_dnn"]
    first = [record["valid"] for record in run.metrics if record["phase"] == "stage 1"]
    assert first[-1] < first[0]


def test_a_pretrained_run_is_resumed_bit_for_bit_and_opens_to_equal_answers(tmp_path: Path) -> None:
    data = words()

    def run(out: Path, *, stop: int | None = None) -> Any:
        def interrupt(_: nn.Module, step: int) -> None:
            if step == stop:
                signal.raise_signal(signal.SIGINT)

        torch.manual_seed(0)
        model = build("acoustic_dnn", data, **SMALL, pretraining="rbm")
        return fit(
            model, data, epochs=3, batch_size=8, out=out, progress=False, threads=1, checkpoint_every=0,
            resume=True, after_step=interrupt,
        )  # fmt: skip

    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", stop=17)  # in the second stage
    again = run(tmp_path / "cut")
    mine, other = whole.model.state_dict(), again.model.state_dict()
    assert not [key for key in mine if not torch.equal(mine[key], other[key])]
    opened: Any = open_run(tmp_path / "cut").model
    with torch.no_grad():
        assert torch.equal(opened.predict(data.test.x), whole.model.predict(data.test.x))


def test_every_sweep_climbs_and_says_the_likelihood_of_the_frames() -> None:
    data = words()
    torch.manual_seed(0)
    model: Any = build("acoustic_gmm", data, **CEPSTRA)
    values = [model.sweep(data.train.x, data.train.y) for _ in range(15)]
    assert all(b >= a - 1e-9 for a, b in itertools.pairwise(values))
    assert values[-1] > values[0] + 0.05


def test_the_mixture_of_a_class_is_that_of_scikit_learn_from_the_same_start() -> None:
    data = words()
    torch.manual_seed(0)
    model: Any = build("acoustic_gmm", data, **CEPSTRA, normalisation="none").double()
    model.sweep(data.train.x, data.train.y)
    y = data.train.y
    assert y is not None
    frames = model.frames(model.domain.waves(data.train.x[y == 1], model.centre)).flat
    u = ((frames - model.centre) / model.spread).double().numpy()
    mixture = model.mixtures[1]
    peer = GaussianMixture(
        2, covariance_type="diag", max_iter=5, tol=0, reg_covar=0,
        weights_init=mixture.log_weights.exp().numpy(), means_init=mixture.means.numpy(),
        precisions_init=1 / mixture.scale.numpy() ** 2,
    )  # fmt: skip
    with pytest.warns(match="converge"):
        peer.fit(u)
    for _ in range(5):
        model.sweep(data.train.x, data.train.y)
    np.testing.assert_allclose(mixture.means.numpy(), peer.means_, atol=1e-6)
    np.testing.assert_allclose(mixture.scale.numpy() ** 2, np.maximum(peer.covariances_, 0.01), atol=1e-6)
    wanted = peer.score_samples(u).mean()
    joint = model._joint(data.train.x[y == 1]).flat.logsumexp(2)[:, 1].mean()
    assert float(joint) == pytest.approx(wanted, abs=1e-6)


def test_a_posterior_is_the_mean_of_the_frames_and_the_shares_of_the_classes() -> None:
    data = words()
    kept = torch.cat([torch.arange(0, 30, 3), torch.arange(1, 30, 3)[:5], torch.arange(2, 30, 3)])
    model: Any = build("acoustic_gmm", data, **CEPSTRA)
    for _ in range(4):
        model.sweep(data.train.x[kept], data.train.y[kept])  # type: ignore[index]
    clip = data.test.x[:1]
    each = model._joint(clip).flat.logsumexp(2).mean(0)
    wanted = (each + torch.tensor([10.0, 5.0, 10.0]).double().log()).log_softmax(0)
    torch.testing.assert_close(model.predict(clip)[0].double(), wanted, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model.encode(clip).sum(1), torch.ones(1))
    assert model.encode(clip).shape == (1, 6)


def test_clips_without_a_label_and_classes_without_a_clip_change_nothing() -> None:
    data = words()
    y = data.train.y
    assert y is not None
    torch.manual_seed(0)
    few: Any = build("acoustic_gmm", data, **CEPSTRA)
    few.sweep(data.train.x, torch.where(y == 2, -1, y))
    torch.manual_seed(0)
    cut: Any = build("acoustic_gmm", data, **CEPSTRA)
    cut.sweep(data.train.x[y != 2], y[y != 2])
    torch.testing.assert_close(few.predict(data.test.x), cut.predict(data.test.x))
    assert bool(few.predict(data.test.x).isfinite().all())
    assert not bool((few.predict(data.test.x).argmax(1) == 2).any())
    for labels in (None, torch.full((30,), -1)):
        with pytest.raises(DataError, match="no clip has one"):
            build("acoustic_gmm", data, **CEPSTRA).sweep(data.train.x, labels)


def test_one_clip_of_one_frame_can_be_learned_from_and_answered() -> None:
    x, y = Ragged.of([torch.ones(1, dtype=torch.int16)]), torch.tensor([0])
    about = Signature(Audio(2000), Classes(("a",)))
    gmm: Any = build("acoustic_gmm", about, **CEPSTRA)
    assert np.isfinite(gmm.sweep(x, y))
    dnn: Any = build("acoustic_dnn", about, **SMALL)
    assert bool(dnn.loss(Batch(x, y)).isfinite())
    for model in (gmm, dnn.eval()):
        assert model.predict(x).tolist() == [[0.0]]


@pytest.mark.parametrize(
    ("make", "error", "what"),
    [
        (lambda: build("acoustic_dnn", tiny("images")), DomainError, "needs Audio"),
        (lambda: build("acoustic_gmm", Signature(Audio(8000))), DomainError, "needs labels"),
        (lambda: build("mlp", tiny("audio")), DomainError, "acoustic_dnn"),
        (lambda: build("acoustic_dnn", tiny("audio"), hidden=()), OptionError, "at least one"),
        (
            lambda: build("acoustic_dnn", tiny("audio"), pretraining="dbm"),
            OptionError,
            'unknown pretraining "dbm"',
        ),
        (lambda: build("acoustic_dnn", tiny("audio"), mels=200), OptionError, "mels=200 are too many"),
        (lambda: build("acoustic_gmm", tiny("audio"), mels=8, cepstra=9), OptionError, "cepstra"),
        (lambda: AcousticGMM(Audio(8000), Classes(("a",)), components=0), OptionError, "components"),
        (lambda: AcousticGMM(Audio(8000), Classes(("a",)), floor=-1), OptionError, "floor"),
        (lambda: AcousticDNN(Audio(8000), Targets(("t",), (0.0,), (1.0,))), DomainError, "needs Classes"),
    ],
)
def test_what_cannot_be_built_says_why(make: Any, error: type[Exception], what: str) -> None:
    with pytest.raises(error, match=what):
        make()


def test_frames_of_another_kind_can_be_given() -> None:
    model = AcousticDNN(Audio(8000), Classes(NAMES), Frames(8000, 20, deltas=1), hidden=(4,))
    assert model.units[0].weights.shape == (40, 4)


def test_compiling_is_refused_in_one_line_for_clips_of_unequal_lengths() -> None:
    data = words()
    with pytest.raises(OptionError, match="compile needs samples of one shape"):
        fit(build("acoustic_dnn", data, **SMALL), data, compile=True, out=False, progress=False)


def test_tasks_without_a_model_of_sound_have_no_lines_either() -> None:
    from leadline.measures import TASKS

    assert all(not TASKS[name].controls(words()) for name in TASKS if name != "classification")


def test_layers_are_pretrained_in_half_precision_too() -> None:
    data = words()
    model = build("acoustic_dnn", data, **SMALL, pretraining="rbm")
    run = fit(model, data, steps=2, precision="bf16", out=False, progress=False, threads=1)
    assert all(np.isfinite(record["valid"]) for record in run.metrics)
