"""What a step is: sharpness-aware, on everything, frozen in part, with rates by layer, in any precision."""

import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from leadline.core import Batch, DivergenceError, OptionError
from leadline.data import Dataset, Split
from leadline.data.dataset import Stream
from leadline.training import fit, open_run
from leadline.training.files import read_json, write_json
from leadline.training.machine import choose_threads
from tests.programs import program
from tests.tiny import tiny
from tests.training.learners import Adversaries, Classifier, Means, Tower


def quick(model: nn.Module, data: Dataset, **settings: Any) -> Any:
    settings = {"out": False, "progress": False, "threads": 1, "select": "last"} | settings
    return fit(model, data, **settings)


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(state(a).values(), state(b).values(), strict=True))


def apart(a: nn.Module, b: nn.Module) -> float:
    """Return the greatest difference of two states."""
    return max(float((x - y).abs().max()) for x, y in zip(state(a).values(), state(b).values(), strict=True))


def alike(a: nn.Module, b: nn.Module, **tolerance: float) -> None:
    for (name, x), y in zip(state(a).items(), state(b).values(), strict=True):
        torch.testing.assert_close(x, y, msg=lambda text, n=name: f"{n}: {text}", **tolerance)


class Bowl(nn.Module):
    """The loss w . H w / 2 + b . w on any batch, with a matrix and a vector of weights."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.tensor([[1.0, -2.0], [0.5, 3.0]]))
        self.vector = nn.Parameter(torch.tensor([2.0, -1.0]))
        self.curvature = torch.tensor([1.0, 4.0, 0.5, 2.0, 3.0, 7.0])

    def loss(self, batch: Batch) -> Tensor:
        w = torch.cat([self.matrix.flatten(), self.vector])
        return 0.5 * (self.curvature * w.square()).sum() + 0 * batch.x.float().mean()


def test_a_sharp_step_is_the_two_steps_written_by_hand() -> None:
    model, rho, lr = Bowl(), 0.3, 0.05
    w = torch.cat([model.matrix.flatten(), model.vector]).detach()
    h = model.curvature
    quick(model, tiny("vectors"), steps=2, optimizer="sam", lr=lr,
          optimizer_options={"rho": rho, "base": "sgd"})  # fmt: skip
    for _ in range(2):
        g = h * w
        w = w - lr * h * (w + rho * g / g.norm())
    torch.testing.assert_close(torch.cat([model.matrix.flatten(), model.vector]).detach(), w)


def test_an_adaptive_step_climbs_in_units_of_the_weights_but_not_of_vectors() -> None:
    model, rho, lr = Bowl(), 0.3, 0.05
    w = torch.cat([model.matrix.flatten(), model.vector]).detach()
    h = model.curvature
    quick(model, tiny("vectors"), steps=1, optimizer="sam", lr=lr,
          optimizer_options={"rho": rho, "base": "sgd", "adaptive": True})  # fmt: skip
    scale = torch.cat([w[:4].abs() + 0.01, torch.ones(2)])
    g = h * w
    climbed = w + rho * scale**2 * g / (scale * g).norm()
    expected = w - lr * h * climbed
    torch.testing.assert_close(torch.cat([model.matrix.flatten(), model.vector]).detach(), expected)


@pytest.mark.parametrize("base", ["sgd", "momentum", "adam", "adamw"])
def test_a_climb_of_length_zero_is_the_base_optimizer_to_the_last_bit(base: str) -> None:
    data = tiny("images")  # with dropout and batch normalisation
    sharp, plain = Classifier(data), Classifier(data)
    settings = {"steps": 7, "lr": 0.02, "weight_decay": 0.01, "clip": 0.5, "accumulate": 2, "batch_size": 20}
    quick(sharp, data, optimizer="sam", optimizer_options={"rho": 0.0, "base": base}, **settings)
    quick(plain, data, optimizer=base, **settings)
    assert same(sharp, plain)


def test_a_sharp_step_moves_the_statistics_of_batch_normalisation_once() -> None:
    data = tiny("images")
    model, twin = Classifier(data), Classifier(data)
    seen: list[dict[str, Tensor]] = []  # before validation, which measures them anew
    quick(model, data, steps=1, batch_size=120, optimizer="sam", optimizer_options={"rho": 0.5},
          after_step=lambda m, s: seen.append(state(m.net[1])))  # fmt: skip
    twin.train()
    torch.manual_seed(0)
    twin.loss(Batch(data.train.x, data.train.y))
    assert int(seen[0]["num_batches_tracked"]) == 1
    torch.testing.assert_close(seen[0]["running_mean"], twin.net[1].running_mean)
    torch.testing.assert_close(seen[0]["running_var"], twin.net[1].running_var)


def test_accumulated_batches_climb_as_one_large_batch_does() -> None:
    data = tiny("vectors")
    one, four, level = (Classifier(data, dropout=0.0) for _ in range(3))
    settings = {"steps": 3, "optimizer": "sam", "optimizer_options": {"rho": 0.4}}
    quick(one, data, batch_size=120, **settings)
    quick(four, data, batch_size=30, accumulate=4, **settings)
    quick(level, data, batch_size=120, **settings | {"optimizer_options": {"rho": 0.0}})
    assert apart(one, four) < 1e-6
    assert apart(one, level) > 1e-3  # the climb is no small thing here


def test_clipping_acts_on_the_gradient_above_and_not_on_the_climb() -> None:
    model, w, h = Bowl(), torch.tensor([1.0, -2.0, 0.5, 3.0, 2.0, -1.0]), Bowl().curvature
    quick(model, tiny("vectors"), steps=1, optimizer="sam", lr=1.0, clip=0.01,
          optimizer_options={"rho": 2.0, "base": "sgd"})  # fmt: skip
    g = h * w
    above = h * (w + 2.0 * g / g.norm())
    expected = w - 0.01 * above / above.norm()
    got = torch.cat([model.matrix.flatten(), model.vector]).detach()
    torch.testing.assert_close(got - w, expected - w, rtol=1e-3, atol=1e-6)


def test_weight_decay_pulls_the_weights_and_not_the_point_above() -> None:
    model, w, h = Bowl(), torch.tensor([1.0, -2.0, 0.5, 3.0, 2.0, -1.0]), Bowl().curvature
    quick(model, tiny("vectors"), steps=1, optimizer="sam", lr=0.1, weight_decay=0.5,
          optimizer_options={"rho": 2.0, "base": "sgd"})  # fmt: skip
    g = h * w
    expected = w - 0.1 * (h * (w + 2.0 * g / g.norm()) + 0.5 * w)
    torch.testing.assert_close(torch.cat([model.matrix.flatten(), model.vector]).detach(), expected)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_sharp_step_in_half_precision_is_close_to_that_in_full(precision: str) -> None:
    data = tiny("vectors")
    full, half = Classifier(data, dropout=0.0), Classifier(data, dropout=0.0)
    settings = {"steps": 4, "batch_size": 120, "optimizer": "sam", "lr": 0.1, "clip": 1.0}
    quick(full, data, **settings)
    quick(half, data, precision=precision, **settings)
    alike(full, half, rtol=0.05, atol=0.02)
    assert not same(full, half)


def test_gradients_that_overflow_under_the_scaler_skip_the_step_and_lower_the_factor() -> None:
    class Large(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.full((2, 2), 0.5))

        def loss(self, batch: Batch) -> Tensor:
            return self.weight.square().sum() * 1e34  # times 65536 is beyond float32

    model = Large()
    quick(model, tiny("vectors"), steps=1, optimizer="sam", precision="fp16", lr=1e-35)
    assert bool((model.weight == 0.5).all())
    assert bool(torch.isfinite(model.weight).all())


def test_a_loss_that_breaks_above_leaves_weights_and_statistics_as_before_the_step() -> None:
    class Cliff(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2, 2))
            self.register_buffer("seen", torch.zeros(()))

        def loss(self, batch: Batch) -> Tensor:
            self.seen += 1
            inside = self.weight.sum() < 4.1
            return self.weight.sum() if bool(inside) else self.weight.sum() * float("nan")

    model = Cliff()
    with pytest.raises(DivergenceError, match=r"nan after the climb by rho at step 1; try a smaller lr"):
        quick(model, tiny("vectors"), steps=3, optimizer="sam", optimizer_options={"rho": 1.0})
    assert bool((model.weight == 1).all())
    assert float(model.seen) == 1


def test_each_player_climbs_with_its_own_parameters() -> None:
    data = tiny("images")
    model, other = Adversaries(data), Adversaries(data)
    run = quick(model, data, steps=6, optimizer="sam", optimizer_options={"rho": 0.1, "base": "adam"})
    quick(other, data, steps=6, optimizer="adam")
    assert run.status == "done"
    assert not same(model, other)


KILLED = """
import os, signal, sys
import torch, torch._dynamo
from leadline.training import fit
from tests.tiny import tiny
from tests.training.learners import Classifier
torch.set_num_threads(1)
data = tiny("images")
def train(folder, deadly, optimizer, precision):
    def hook(model, step):
        if step == deadly:
            os.kill(os.getpid(), signal.SIGKILL)
    fit(Classifier(data), data, steps=9, batch_size=25, optimizer=optimizer, threads=1, progress=False,
        optimizer_options={"rho": 0.2, "base": "adam"} if optimizer == "sam" else None,
        lr_groups={"net.4": 0.5e-3}, freeze="net.0", precision=precision, schedule="cosine",
        checkpoint_every=0.0, out=folder, resume=True, after_step=hook)
def child(*words):
    number = os.fork()
    if number == 0:
        train(*words)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
a, b, *way = sys.argv[1:]
print(child(a, 0, *way), child(b, 5, *way), child(b, 0, *way))
"""


@pytest.mark.parametrize(("optimizer", "precision"), [("sam", "fp16"), ("gd", "auto")])
def test_a_training_killed_in_between_ends_with_the_same_bytes(
    optimizer: str, precision: str, tmp_path: Path
) -> None:
    words = ("-W", "ignore", "-c", KILLED, tmp_path / "a", tmp_path / "b", optimizer, precision)
    ended = program(*map(str, words))
    assert ended.stdout.split() == ["0", str(-signal.SIGKILL), "0"], ended.stderr[-2000:]
    a, b = ((tmp_path / name / "model.safetensors").read_bytes() for name in "ab")
    assert a == b


def test_descent_on_everything_is_the_gradient_of_the_whole_split_whatever_the_parts() -> None:
    data = tiny("vectors")
    by_hand = Classifier(data, dropout=0.0)
    for _ in range(3):
        by_hand.zero_grad()
        by_hand.loss(Batch(data.train.x, data.train.y)).backward()
        with torch.no_grad():
            for p in by_hand.parameters():
                p.sub_(0.2 * p.grad)
    for size in (7, 50, 120, 1000):
        model = Classifier(data, dropout=0.0)
        run = quick(model, data, epochs=3, batch_size=size, optimizer="gd", lr=0.2)
        assert run.steps == 3
        alike(model, by_hand)


def test_streamed_samples_descend_on_everything_as_ones_in_memory_do() -> None:
    data = tiny("images")
    x = data.train.x

    class Rows(Stream):
        def __init__(self, rows: Tensor) -> None:
            self.rows, self.largest = rows, 0

        def __len__(self) -> int:
            return len(self.rows)

        def digest(self) -> bytes:
            return b"rows"

        def __getitem__(self, places: Tensor) -> Tensor:
            self.largest = max(self.largest, len(places))
            return self.rows[places]

    rows = Rows(x)
    far = Dataset("far", data.domain, data.labels, Split(rows, data.train.y), data.valid, data.test)
    one, two = Classifier(data, dropout=0.0), Classifier(data, dropout=0.0)
    quick(one, data, steps=3, batch_size=50, optimizer="gd")
    quick(two, far, steps=3, batch_size=50, optimizer="gd")
    assert same(one, two)
    assert rows.largest == 50  # memory is bounded by the part


def test_a_sharp_step_on_everything_is_one_climb_of_the_whole_split() -> None:
    data = tiny("vectors")
    whole, parts, level = (Classifier(data, dropout=0.0) for _ in range(3))
    options = {"rho": 0.3, "base": "gd"}
    quick(whole, data, steps=3, batch_size=120, optimizer="sam", optimizer_options=options)
    quick(parts, data, steps=3, batch_size=11, optimizer="sam", optimizer_options=options)
    quick(level, data, steps=3, batch_size=120, optimizer="gd")
    assert apart(whole, parts) < 1e-6
    assert apart(whole, level) > 1e-3  # without the climb it would be elsewhere


def test_augmentation_is_the_same_below_and_above() -> None:
    data = tiny("images")
    sharp, plain = Classifier(data), Classifier(data)
    settings = {"steps": 3, "batch_size": 50, "augment": "flip+crop"}
    quick(sharp, data, optimizer="sam", optimizer_options={"rho": 0.0, "base": "gd"}, **settings)
    quick(plain, data, optimizer="gd", **settings)
    assert same(sharp, plain)


def test_frozen_layers_keep_weights_and_statistics_and_are_counted() -> None:
    data = tiny("images")
    model = Classifier(data)
    before = state(model)
    run = quick(model, data, steps=5, freeze=("net.0", "net.1"), weight_decay=0.1)
    after = state(model)
    kept = [name for name in before if torch.equal(before[name], after[name])]
    assert kept == [name for name in before if name.startswith(("net.0.", "net.1."))]
    assert run.notes == ["frozen: 304 of 355 parameters"]  # 16 x 16 + 16 + 2 x 16; 16 x 3 + 3 learn
    assert run.settings["freeze"] == ("net.0", "net.1")
    assert all(value.requires_grad for value in model.parameters())


def test_a_frozen_layer_normalises_by_what_it_knew() -> None:
    data = tiny("images")
    model = Classifier(data)
    modes = []
    quick(model, data, steps=2, freeze="net.1", probe=lambda m, s: {}, probe_every=1,
          after_step=lambda m, s: modes.append((m.net[1].training, m.net[3].training)))  # fmt: skip
    assert modes == [(False, True), (False, True)]


def test_layers_learn_at_their_own_rates_and_the_longest_prefix_decides() -> None:
    data = tiny("vectors")
    model, twin = Classifier(data, dropout=0.0), Classifier(data, dropout=0.0)
    rates = {"net": 0.3, "net.4": 0.02, "net.4.bias": 1.0}
    quick(model, data, steps=1, batch_size=120, optimizer="sgd", lr=9.0, lr_groups=rates)
    twin.train()
    twin.loss(Batch(data.train.x, data.train.y)).backward()
    with torch.no_grad():
        for (name, mine), theirs in zip(model.named_parameters(), twin.parameters(), strict=True):
            rate = {"net.4.weight": 0.02, "net.4.bias": 1.0}.get(name, 0.3)
            torch.testing.assert_close(mine, theirs - rate * theirs.grad)


def test_the_schedule_scales_every_rate() -> None:
    data = tiny("vectors")
    model, twin, fast = (Classifier(data, dropout=0.0) for _ in range(3))
    settings = {"steps": 1, "batch_size": 120, "optimizer": "sgd"}
    quick(model, data, lr=0.4, lr_groups={"net.0": 0.2}, warmup=3, **settings)
    quick(twin, data, lr=0.1, lr_groups={"net.0": 0.05}, **settings)
    quick(fast, data, lr=0.1, lr_groups={"net.0": 0.2}, **settings)
    assert apart(model, twin) < 1e-6  # (0 + 1) / (3 + 1) of each
    assert apart(model, fast) > 1e-3  # as if the rate of a layer of its own were not scaled


def test_stages_that_are_frozen_do_not_learn_and_the_rest_does() -> None:
    data = tiny("images")
    tower = Tower(data)
    before = state(tower)
    run = quick(tower, data, epochs=2, freeze="first")
    changed = {
        name.split(".")[0] for name, value in state(tower).items() if not torch.equal(before[name], value)
    }
    assert changed == {"second", "top", "joined"}
    assert {record["phase"] for record in run.metrics} == {"stage 2", "Tower"}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            {"freeze": "nett.0"},
            r'freeze: no layer with parameters is called "nett.0" \(did you mean "net.0"\?\)',
        ),
        ({"freeze": ("net",)}, "nothing is left to learn"),
        ({"freeze": "net.2"}, "no layer with parameters"),  # an activation
        ({"lr_groups": {"head": 0.1}}, "lr_groups: no layer"),
        ({"lr_groups": {"net.0": 0.0}}, "must be above 0"),
        ({"lr_groups": {"net.0": "fast"}}, "must be above 0"),
        ({"optimizer": "lbfgs", "lr_groups": {"net.0": 0.1}}, "optimizer lbfgs"),
        ({"optimizer": "lbfgs", "precision": "fp16"}, "use fp32 or bf16"),
        ({"optimizer": "gd", "accumulate": 2}, "leave accumulate away"),
        ({"optimizer": "sam", "optimizer_options": {"rho": -1.0}}, "rho of sam must be"),
        ({"optimizer": "sam", "optimizer_options": {"rho": float("nan")}}, "rho of sam must be"),
        ({"optimizer": "sam", "optimizer_options": {"rho": "far"}}, "rho of sam must be"),
        ({"optimizer": "sam", "optimizer_options": {"adaptive": 1}}, "adaptive of sam must be"),
        ({"optimizer": "sam", "optimizer_options": {"base": "adamm"}}, 'did you mean "adam'),
        ({"optimizer": "sam", "optimizer_options": {"base": "lbfgs"}}, "unknown base of sam"),
        ({"optimizer": "sam", "optimizer_options": {"rhoo": 1}}, "rhoo"),
        ({"precision": "bf61"}, 'did you mean "bf16"'),
        ({"channels_last": "never"}, "unknown channels_last"),
    ],
)
def test_a_wrong_setting_gets_one_line(settings: dict[str, Any], says: str) -> None:
    data = tiny("vectors")
    model = Classifier(data)
    with pytest.raises(OptionError, match=says) as caught:
        quick(model, data, steps=1, **settings)
    assert "\n" not in str(caught.value)
    assert all(value.requires_grad for value in model.parameters())


def test_models_that_sweep_are_told_that_nothing_can_be_frozen() -> None:
    data = tiny("vectors")
    model = Means(data)
    model.extra = nn.Linear(2, 2)
    with pytest.raises(OptionError, match="this one sweeps"):
        quick(model, data, freeze="extra")


class Picky(Classifier):
    """Says that the machine may choose for it."""

    recommended = {"precision": "auto", "channels_last": "auto"}  # noqa: RUF012


def test_a_model_that_says_so_gets_the_settings_of_the_machine_and_keeps_plain_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = tiny("images")
    there = sys.modules["leadline.training.fit"]
    monkeypatch.setattr(there, "fast_precision", lambda device: "bf16")
    run = quick(Picky(data), data, steps=5)
    assert run.settings["precision"] == "bf16"
    assert run.settings["channels_last"] is False  # it has no convolution
    assert all(value.dtype == torch.float32 for value in run.model.parameters())
    assert run.metrics[-1]["loss"] > 0
    assert quick(Classifier(data), data, steps=1).settings["precision"] == "fp32"
    assert quick(Picky(data), data, steps=1, precision="fp32").settings["precision"] == "fp32"


def test_a_resumed_run_keeps_the_settings_of_the_machine_it_began_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tiny("images")
    there = sys.modules["leadline.training.fit"]
    settings: dict[str, Any] = {"out": tmp_path, "progress": False, "threads": 1}
    monkeypatch.setattr(there, "fast_precision", lambda device: "bf16")
    fit(Picky(data), data, steps=2, **settings)
    monkeypatch.setattr(there, "fast_precision", lambda device: "fp32")
    run = fit(Picky(data), data, steps=4, resume=True, **settings)
    assert run.settings["precision"] == "bf16"
    assert any("slow on this machine" in note for note in run.notes)
    again = open_run(tmp_path, model=Picky(data))
    assert again.notes == run.notes
    with pytest.raises(OptionError, match="precision was 'bf16' and is now 'fp32'"):
        fit(Picky(data), data, steps=5, resume=True, precision="fp32", **settings)


def test_a_run_from_before_these_settings_goes_on(tmp_path: Path) -> None:
    data = tiny("images")
    settings: dict[str, Any] = {"out": tmp_path, "progress": False, "threads": 1}
    fit(Classifier(data), data, steps=2, **settings)
    note = read_json(tmp_path / "run.json")
    for name in ("freeze", "lr_groups"):
        del note["settings"][name]
    del note["notes"]
    write_json(tmp_path / "run.json", note)
    assert fit(Classifier(data), data, steps=4, resume=True, **settings).steps == 4
    with pytest.raises(OptionError, match="freeze was"):
        fit(Classifier(data), data, steps=5, resume=True, freeze="net.0", **settings)


def test_threads_are_many_only_where_products_are_large_and_never_more_than_torch_may_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    large, small = torch.ones(600, 600), torch.ones(20, 20)

    def asked(step: Any, processes: int = 1) -> int:
        return choose_threads(step, torch.device("cpu"), processes)

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        assert asked(lambda: large @ large) == 4  # 2 * 600^3 = 4.3e8 operations in one product
        assert asked(lambda: small @ small) == 1
        # as many operations, in products of 1.6e4
        assert asked(lambda: [small @ small for _ in range(30_000)][-1]) == 1
        assert asked(lambda: large @ large, processes=4) == 2
        torch.set_num_threads(1)
        assert asked(lambda: large @ large) == 1
    finally:
        torch.set_num_threads(before)
