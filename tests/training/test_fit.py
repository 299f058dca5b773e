"""What `fit` promises: every way to learn, every setting, exact arithmetic."""

import gc
import io
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import leadline as ll
from leadline.core import (
    Batch,
    DataError,
    DivergenceError,
    DomainError,
    LeadlineError,
    OptionError,
    RunError,
    VerbError,
)
from leadline.data import Dataset, Split
from leadline.training import fit, open_run, refresh_batchnorm
from leadline.training.augment import AUGMENTATIONS
from tests.tiny import tiny
from tests.training.learners import MODELS, Classifier, Means, Tower


def quick(model: nn.Module, data: Dataset, **settings: Any) -> Any:
    settings = {"out": False, "progress": False, "threads": 1} | settings
    return fit(model, data, **settings)


@pytest.mark.parametrize("way", MODELS)
def test_every_way_to_learn_ends_with_a_model_in_evaluation_mode(way: str) -> None:
    data = tiny("images")
    run = quick(MODELS[way](data), data, epochs=3)
    assert run.status == "done"
    assert not run.model.training
    assert run.metrics


def test_a_plain_gradient_step_is_the_one_written_by_hand() -> None:
    data = tiny("vectors")
    model, twin = Classifier(data, dropout=0.0), Classifier(data, dropout=0.0)
    quick(model, data, steps=1, batch_size=120, optimizer="sgd", lr=0.5, select="last")
    twin.train()
    twin.loss(Batch(data.train.x, data.train.y)).backward()
    with torch.no_grad():
        for mine, theirs in zip(model.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(mine, theirs - 0.5 * theirs.grad)


def test_accumulated_batches_make_the_same_step_as_one_large_batch() -> None:
    data = tiny("vectors")
    one, four = Classifier(data, dropout=0.0), Classifier(data, dropout=0.0)
    settings = {"steps": 3, "optimizer": "momentum", "select": "last"}
    quick(one, data, batch_size=120, **settings)
    quick(four, data, batch_size=30, accumulate=4, **settings)
    for mine, theirs in zip(one.parameters(), four.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_clipping_bounds_the_step() -> None:
    data = tiny("vectors")
    model = Classifier(data, dropout=0.0)
    before = [value.detach().clone() for value in model.parameters()]
    quick(model, data, steps=1, batch_size=120, optimizer="sgd", lr=1.0, clip=0.01, select="last")
    moved = [(new - old).detach() for new, old in zip(model.parameters(), before, strict=True)]
    length = torch.sqrt(sum((step.square().sum() for step in moved), torch.zeros(())))
    assert float(length) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize(
    "name", ["sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw", "lbfgs"]
)
def test_every_optimizer_lowers_the_loss(name: str) -> None:
    data = tiny("vectors")
    run = quick(Classifier(data, dropout=0.0), data, epochs=8, batch_size=120, optimizer=name)
    assert run.metrics[-1]["loss"] < run.metrics[0]["loss"]


def test_an_optimizer_that_evaluates_its_closure_twice_gets_two_full_gradients() -> None:
    calls = []

    class Twice(torch.optim.SGD):
        needs_closure = True

        def step(self, closure: Any = None) -> Any:
            first = closure()
            calls.append([p.grad.clone() for p in self.param_groups[0]["params"]])
            second = closure()
            assert torch.equal(first, second)
            for old, p in zip(calls[-1], self.param_groups[0]["params"], strict=True):
                assert torch.equal(old, p.grad)
            super().step()
            return first

    from leadline.training import optimizers

    data = tiny("vectors")
    optimizers.OPTIMIZERS["twice"] = (Twice, 0.1, {})
    try:
        with pytest.raises(OptionError):
            quick(Classifier(data), data, optimizer="thrice")
        from leadline.training import settings

        settings._CHOICES["optimizer"] = tuple(optimizers.OPTIMIZERS)
        run = quick(Classifier(data, dropout=0.0), data, steps=3, optimizer="twice", clip=1.0)
    finally:
        del optimizers.OPTIMIZERS["twice"]
        settings._CHOICES["optimizer"] = tuple(optimizers.OPTIMIZERS)
    assert run.steps == 3
    assert len(calls) == 3


def test_a_hook_after_the_step_keeps_pruned_weights_at_zero_and_a_probe_is_recorded() -> None:
    data = tiny("vectors")
    model = Classifier(data)

    def prune(net: nn.Module, step: int) -> None:
        with torch.no_grad():
            net.net[0].weight[:, 0] = 0.0

    def probe(net: nn.Module, step: int) -> dict[str, float]:
        assert not net.training
        torch.rand(1)
        return {"norm": net.net[0].weight.norm().item()}

    hooked = quick(model, data, steps=20, after_step=prune, probe=probe, probe_every=5, select="last")
    assert bool((model.net[0].weight[:, 0] == 0).all())
    assert [record["step"] for record in hooked.metrics if "norm" in record] == [5, 10, 15, 20]


def test_a_probe_that_draws_numbers_does_not_change_the_training() -> None:
    data = tiny("vectors")
    plain, probed = Classifier(data), Classifier(data)
    quick(plain, data, steps=12)
    quick(probed, data, steps=12, probe=lambda net, step: {"u": float(torch.rand(1))}, probe_every=1)
    for mine, theirs in zip(plain.parameters(), probed.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_fit_leaves_the_global_generator_and_threads_as_they_were() -> None:
    data = tiny("vectors")
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    model = Classifier(data)
    torch.set_rng_state(state)
    quick(model, data, steps=4, threads=2)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.get_num_threads() == threads


def test_the_best_weights_are_kept_and_patience_stops() -> None:
    data = tiny("vectors")
    model = Classifier(data, dropout=0.0)
    run = quick(model, data, epochs=400, lr=0.05, patience=5)
    figures = [record["valid"] for record in run.metrics]
    best = min(range(len(figures)), key=figures.__getitem__)
    assert len(figures) == best + 6
    with torch.no_grad():
        loss = float(model.loss(Batch(data.valid.x, data.valid.y)))
    assert loss == pytest.approx(figures[best], rel=1e-5)


def test_warm_up_and_schedule_give_the_factors_of_their_formulas() -> None:
    from leadline.training.optimizers import scheduled

    assert scheduled("constant", 3, 0, 0.0) == 0.25  # (0 + 1) / (3 + 1)
    assert scheduled("constant", 3, 3, 0.0) == 1.0
    assert scheduled("cosine", 0, 5, 0.5) == pytest.approx(0.5)
    assert scheduled("linear", 0, 5, 0.75) == pytest.approx(0.25)
    assert [scheduled("step", 0, 5, f) for f in (0.4, 0.5, 0.8)] == pytest.approx([1.0, 0.1, 0.01])


def test_rows_without_labels_are_left_out_for_a_model_that_only_predicts() -> None:
    data = tiny("vectors")
    y = data.train.y.clone()
    y[10:] = -1
    partly = Dataset("p", data.domain, data.labels, Split(data.train.x, y), data.valid, data.test)
    only = Dataset("p", data.domain, data.labels, Split(data.train.x[:10], y[:10]), data.valid, data.test)
    one, two = Classifier(data), Classifier(data)
    quick(one, partly, epochs=3)
    quick(two, only, epochs=3)
    for mine, theirs in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_stages_are_learned_before_the_whole_and_joined_once() -> None:
    data = tiny("images")
    tower = Tower(data)
    run = quick(tower, data, epochs=2)
    assert [record["phase"] for record in run.metrics] == ["stage 1"] * 2 + ["stage 2"] * 2 + ["Tower"] * 2
    assert float(tower.joined) == 1


def test_a_sweep_stops_when_it_no_longer_improves() -> None:
    data = tiny("images")
    run = quick(Means(data), data)
    objectives = [record["objective"] for record in run.metrics]
    assert objectives == sorted(objectives)
    assert 1 < len(objectives) < 200


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_augmentation_gives_raw_levels_of_the_same_shape(name: str) -> None:
    x = tiny("images").train.x
    changed = AUGMENTATIONS[name](x)
    assert changed.shape == x.shape
    assert changed.dtype == x.dtype
    assert not torch.equal(changed, x)
    assert set(changed.unique().tolist()) <= set(x.unique().tolist())


def test_flips_and_crops_are_the_pictures_they_say() -> None:
    x = torch.arange(16, dtype=torch.uint8).view(1, 1, 4, 4).expand(64, 1, 4, 4)
    flipped = AUGMENTATIONS["flip"](x)
    assert {tuple(row.flatten().tolist()) for row in flipped} == {
        tuple(range(16)),
        (3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12),
    }
    cropped = AUGMENTATIONS["crop"](x)
    assert [0, 0, 1, 2] in cropped[:, 0, 1].tolist() or [4, 5, 6, 7] in cropped[:, 0, 1].tolist()
    inner = cropped[:, 0, 1:3, 1:3].reshape(64, 4)
    assert bool((inner[:, 1] - inner[:, 0] == 1).all())  # columns stay columns
    assert bool((inner[:, 2] - inner[:, 0] == 4).all())  # rows stay rows


def test_batch_statistics_are_refreshed_to_those_of_the_data() -> None:
    data = tiny("vectors")
    model = Classifier(data)
    quick(model, data, steps=5)
    expected = model.net[0](data.domain.features(data.train.x))
    refresh_batchnorm(model, data, batch_size=120)
    torch.testing.assert_close(model.net[1].running_mean, expected.mean(0))
    torch.testing.assert_close(model.net[1].running_var, expected.var(0))
    assert not model.training
    assert model.net[1].momentum == 0.1


def test_mixed_precision_and_channels_last_train() -> None:
    data = tiny("images")
    run = quick(Classifier(data), data, epochs=3, precision="bf16", channels_last=True)
    assert run.metrics[-1]["loss"] < run.metrics[0]["loss"] + 0.1
    assert all(value.dtype == torch.float32 for value in run.model.parameters())


class _Exploding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.count = 0

    def loss(self, batch: Batch) -> Tensor:
        self.count += 1
        return self.weight * (float("nan") if self.count > 4 else 1.0)


def test_a_loss_that_is_not_finite_names_the_step_and_keeps_the_state_before_it(tmp_path: Path) -> None:
    data = tiny("vectors")
    with pytest.raises(DivergenceError, match=r"model is nan at step 3.*resume=True"):
        fit(_Exploding(), data, steps=10, out=tmp_path / "r", progress=False, threads=1)
    run = open_run(tmp_path / "r", model=_Exploding())
    assert run.status == "failed"
    assert bool(torch.isfinite(run.model.weight))


def test_a_run_that_diverged_goes_on_with_a_smaller_rate(tmp_path: Path) -> None:
    data = tiny("vectors")
    with pytest.raises(DivergenceError):
        fit(_Exploding(), data, steps=10, out=tmp_path, progress=False, threads=1)
    steady = _Exploding()
    steady.count = -100
    run = fit(steady, data, steps=10, out=tmp_path, resume=True, lr=1e-4, progress=False, threads=1)
    assert (run.status, run.steps) == ("done", 10)


@pytest.mark.parametrize(
    ("settings", "kind", "says"),
    [
        ({"optimizer": "adamm"}, OptionError, 'did you mean "adam'),
        ({"epochs": 0}, OptionError, "epochs must be a whole number of at least 1"),
        ({"lr": float("nan")}, OptionError, "lr must be"),
        ({"lr": "0.1"}, OptionError, "lr must be"),
        ({"label_smoothing": 1.0}, OptionError, "below 1"),
        ({"augment": "flop"}, OptionError, 'did you mean "flip"'),
        ({"augment": "flip"}, DomainError, "needs pictures"),
        ({"device": "tpu"}, OptionError, "device"),
        ({"sharding": "full"}, OptionError, "torchrun"),
        ({"optimizer_options": {"momentun": 1}}, OptionError, "momentun"),
    ],
)
def test_a_wrong_setting_gets_one_line_that_says_what_to_do(
    settings: dict[str, Any], kind: type[LeadlineError], says: str
) -> None:
    data = tiny("vectors")
    with pytest.raises(kind, match=says) as caught:
        quick(Classifier(data), data, **settings)
    assert "\n" not in str(caught.value)


def test_models_and_data_that_do_not_fit_are_refused() -> None:
    vectors, images = tiny("vectors"), tiny("images")
    with pytest.raises(DomainError, match="built for Vectors"):
        quick(Classifier(vectors), images)
    with pytest.raises(VerbError, match="give it loss"):
        quick(nn.Linear(2, 2), vectors)
    empty = Dataset("e", vectors.domain, None, Split(vectors.train.x[:0]), vectors.valid, vectors.test)
    with pytest.raises(DataError, match="no sample"):
        quick(Means(vectors), empty)
    with pytest.raises(OptionError, match="classifiers"):
        quick(Means(vectors), vectors, label_smoothing=0.1)


def test_a_directory_that_holds_a_run_is_not_overwritten(tmp_path: Path) -> None:
    data = tiny("vectors")
    fit(Classifier(data), data, steps=2, out=tmp_path, progress=False)
    with pytest.raises(RunError, match="already holds a run"):
        fit(Classifier(data), data, steps=2, out=tmp_path, progress=False)


def test_a_fault_in_a_hook_leaves_no_file_open(tmp_path: Path) -> None:
    def faulty(model: nn.Module, step: int) -> None:
        raise ZeroDivisionError

    data = tiny("vectors")
    with pytest.raises(ZeroDivisionError) as caught:
        quick(Classifier(data), data, epochs=3, out=tmp_path, after_step=faulty)
    held = [one for one in gc.get_objects() if type(one) is io.TextIOWrapper]
    files = [one for one in held if str(one.name).startswith(str(tmp_path))]
    assert [one.closed for one in files] == [True]
    assert caught.tb is not None  # which holds on to it


def test_what_is_shown_right_after_a_validation_is_the_loss_up_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[dict[str, float]] = []

    class Watched:
        def update(self, name: str, done: float, figures: dict[str, float]) -> None:
            shown.append(figures)

        note = close = lambda self, text: None

    monkeypatch.setattr(import_module("leadline.training.fit"), "make_progress", lambda **_: Watched())
    monkeypatch.setattr("leadline.training.session.time.monotonic", iter(range(10**6)).__next__)
    data = tiny("vectors")  # a step is an epoch: each is followed by a validation
    run = quick(Classifier(data), data, epochs=3, batch_size=len(data.train))
    assert [figures["loss"] for figures in shown] == [row["loss"] for row in run.metrics]


@pytest.mark.parametrize(
    ("verb", "ask"),
    [
        ("build", lambda data: ll.build("gmm", data)),
        ("fit", lambda data: fit(nn.Linear(1, 1), data, out=False)),
        ("compare", ll.compare),
        ("verify", lambda data: ll.verify(ll.build("gmm", tiny("vectors")), data)),
    ],
)
def test_an_array_or_a_name_in_place_of_a_data_set_is_told_what_makes_one(verb: str, ask: Any) -> None:
    with pytest.raises(OptionError, match=rf"{verb} needs a data set, not ndarray: from_arrays\(x, y\)"):
        ask(np.zeros((5, 3)))
    with pytest.raises(OptionError, match=rf"{verb} needs a data set: load\('iris'\) reads one"):
        ask("iris")


def test_a_name_in_place_of_a_model_is_told_what_builds_one() -> None:
    with pytest.raises(OptionError, match=r"fit needs a model, not str: build\(name, data\)"):
        fit("gmm", tiny("vectors"), out=False)  # type: ignore[arg-type]
