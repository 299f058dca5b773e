"""Running statistics of batch normalisation: those of the weights of now, and nothing else changed by it."""

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import leadline as ll
from leadline.core import Batch, Classes, Images, InterruptedFit, Signature
from leadline.data import Split
from leadline.training import fit, refresh_batchnorm
from leadline.training.batchnorm import averaging, measure_statistics
from tests.tiny import tiny
from tests.training.learners import Classifier


def quick(model: nn.Module, data: Any, **settings: Any) -> Any:
    return fit(model, data, **{"out": False, "progress": False, "threads": 1, "select": "last"} | settings)


def by_hand(model: Classifier, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and variance of what the normalisation reads."""
    with torch.no_grad():
        h = model.net[0](model.domain.features(x))
    return h.mean(0), h.var(0)


def test_after_training_the_statistics_are_those_of_the_final_weights() -> None:
    data = tiny("vectors")
    model = Classifier(data)
    lagging: list[Tensor] = []
    quick(model, data, epochs=1, batch_size=60, lr=0.1,
          after_step=lambda m, s: lagging.append(m.net[1].running_mean.clone()))  # fmt: skip
    mean, _ = by_hand(model, data.train.x)  # two whole batches of 60 hold every row once
    torch.testing.assert_close(model.net[1].running_mean, mean)
    assert float((lagging[-1] - mean).abs().max()) > 0.05
    assert int(model.net[1].num_batches_tracked) == 2  # the steps of training, and no more


def test_the_variance_is_the_mean_over_whole_batches() -> None:
    data = tiny("vectors")
    model = Classifier(data)
    refresh_batchnorm(model, data, batch_size=50)  # 120 rows: the last 20 are left out
    order = torch.randperm(120, generator=_generator())[:100]
    pairs = [by_hand(model, data.train.x[part]) for part in order.split(50)]
    torch.testing.assert_close(model.net[1].running_mean, (pairs[0][0] + pairs[1][0]) / 2)
    torch.testing.assert_close(model.net[1].running_var, (pairs[0][1] + pairs[1][1]) / 2)


def _generator() -> torch.Generator:
    from leadline.core.randomness import generator_for

    return generator_for(0, "statistics of batches")


def test_the_order_of_the_rows_does_not_matter() -> None:
    data = tiny("vectors")
    model = Classifier(data)
    first = by_hand(model, data.train.x)[1]
    order = model.net[0](data.domain.features(data.train.x))[:, 0].argsort()
    rows = Split(data.train.x[order], None if data.train.y is None else data.train.y[order])
    measure_statistics(model, averaging(model), rows, batch_size=20, most=1000)
    # sorted batches would have a small part of the variance; 6 variances of 20: a standard error of 13 %
    assert float(model.net[1].running_var[0] / first[0]) > 0.5


def test_nothing_but_the_statistics_changes() -> None:
    data = tiny("vectors")
    model = Classifier(data)
    model.train()
    model.net[1].num_batches_tracked.fill_(9)
    model.net[3].eval()  # as its user left it
    model.net[1].momentum = 0.3
    before = {name: value.clone() for name, value in model.state_dict().items()}
    draws = torch.get_rng_state()
    refresh_batchnorm(model, data)
    assert torch.equal(torch.get_rng_state(), draws)
    assert [part.training for part in model.net] == [True, True, True, False, True]
    assert model.net[1].momentum == 0.3
    changed = [name for name, value in model.state_dict().items() if not torch.equal(before[name], value)]
    assert changed == ["net.1.running_mean", "net.1.running_var"]


def test_layers_that_prediction_does_not_use_keep_what_they_knew() -> None:
    data = Signature(Images(1, 8, 8, 17), Classes(("a", "b")))
    model: Any = ll.build("googlenet", data, width=0.0625)
    nn.init.constant_(model.net.aux1.conv.bn.running_mean, 7.0)
    model.net.aux1.conv.bn.num_batches_tracked.fill_(5)
    rows = Split(torch.randint(17, (40, 1, 8, 8), dtype=torch.uint8), torch.arange(40) % 2)
    measure_statistics(model, averaging(model), rows, batch_size=20, most=40)
    assert bool((model.net.aux1.conv.bn.running_mean == 7).all())
    assert int(model.net.aux1.conv.bn.num_batches_tracked) == 5
    assert not torch.equal(model.net.conv1.bn.running_mean, torch.zeros(4))


def test_layers_that_training_does_not_move_are_not_measured_by_it() -> None:
    model = Classifier(tiny("vectors")).train()
    assert averaging(model, moving=True) == [model.net[1]]
    model.net[1].eval()
    assert averaging(model, moving=True) == []
    assert averaging(model) == [model.net[1]]
    assert averaging(nn.Sequential(nn.BatchNorm1d(2, track_running_stats=False))) == []


@pytest.mark.parametrize("settings", [
    {}, {"accumulate": 2, "batch_size": 30}, {"precision": "bf16"},
    {"optimizer": "sam", "optimizer_options": {"rho": 0.05, "base": "momentum"}},
])  # fmt: skip
def test_a_deep_net_predicts_as_it_has_learned_after_few_steps(settings: dict[str, Any]) -> None:
    data = ll.load("digits", limit=500)
    torch.manual_seed(0)
    model: Any = ll.build("resnet18", data, width=0.125)
    quick(model, data, epochs=3, **{"lr": 0.1, "precision": "fp32", "batch_size": 60} | settings)
    x, y = data.train.x, data.train.y
    with torch.no_grad():
        running = float(model.eval().loss(Batch(x, y)))
        exact = float(model.train().loss(Batch(x, y)))
    assert exact < 1.0
    assert abs(running - exact) < 0.1 * max(1.0, exact)


def test_a_run_that_is_interrupted_between_two_measurements_goes_on_to_the_last_bit(tmp_path: Path) -> None:
    data, settings = tiny("images"), {"epochs": 4, "batch_size": 40, "lr": 0.1}

    def stop(model: nn.Module, step: int) -> None:
        if step == 5:  # of 12, in the middle of an epoch
            signal.raise_signal(signal.SIGINT)

    quick(Classifier(data), data, out=tmp_path / "whole", **settings)
    with pytest.raises(InterruptedFit):
        quick(Classifier(data), data, out=tmp_path / "parted", after_step=stop, **settings)
    run = quick(Classifier(data), data, out=tmp_path / "parted", resume=True, **settings)
    assert run.steps == 12
    whole, parted = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "parted"))
    assert whole == parted
