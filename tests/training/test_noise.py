"""Noise on gradients: its variance, its fall, and that it is a function of the seed and the step."""

import math
import signal
from pathlib import Path

import pytest
import torch
from torch import nn

import leadline as ll
from leadline.core import InterruptedFit, OptionError
from leadline.training.noise import NoisySGD
from leadline.training.optimizers import make_optimizer
from tests.tiny import tiny

SIZE = 40_000


def moved(steps: int, gradient: float = 0.0, **options: float) -> list[torch.Tensor]:
    """Return what each step adds to a long vector whose gradient is the same everywhere."""
    p = nn.Parameter(torch.zeros(SIZE, dtype=torch.float64))
    optimizer = NoisySGD([p], **{"lr": 0.5, "noise": 0.04, "anneal": 1.0, **options})
    moves = []
    for _ in range(steps):
        before = p.detach().clone()
        p.grad = torch.full_like(p, gradient)
        optimizer.step()
        moves.append(p.detach() - before)
    return moves


def test_the_noise_has_the_variance_that_is_stated_and_no_mean() -> None:
    for step, move in enumerate(moved(4, gradient=3.0)):
        variance = 0.5**2 * 0.04 / (1 + step)  # lr^2 noise / (1 + t)^anneal
        assert abs(float(move.mean()) + 0.5 * 3.0) < 4 * math.sqrt(variance / SIZE)
        assert abs(float(move.var()) / variance - 1) < 4 * math.sqrt(2 / SIZE)


def test_noises_of_steps_parameters_and_seeds_are_apart() -> None:
    first, second = moved(2, anneal=0.0)
    other = moved(1, seed=1)[0]
    pair = [nn.Parameter(torch.zeros(SIZE)) for _ in range(2)]
    optimizer = NoisySGD(pair, lr=1.0, noise=1.0)
    for p in pair:
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for a, b in ((first, second), (first, other), (pair[0].detach(), pair[1].detach())):
        assert abs(float(torch.corrcoef(torch.stack([a, b]))[0, 1])) < 4 / math.sqrt(SIZE)


def test_without_noise_it_is_gradient_descent() -> None:
    data = tiny("images")
    nets = []
    for name, options in (("sgd", {}), ("noisy_sgd", {"noise": 0.0})):
        torch.manual_seed(0)
        net = ll.build("mlp", data, hidden=(5,))
        ll.fit(
            net, data, steps=5, optimizer=name, optimizer_options=options, lr=0.1, out=False, progress=False
        )
        nets.append(net)
    for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert torch.equal(a, b)


def trained(out: Path | bool, steps: int, **options: object) -> list[torch.Tensor]:
    data = tiny("images")
    torch.manual_seed(0)
    net = ll.build("mlp", data, hidden=(5,))
    settings = {"optimizer": "noisy_sgd", "lr": 0.1, "select": "last", "validate_every": 1, "threads": 1}
    run = ll.fit(net, data, steps=steps, out=out, progress=False, checkpoint_every=0, **settings, **options)
    return [p.detach().clone() for p in run.model.parameters()]


def test_a_training_is_a_function_of_its_seed() -> None:
    one, same, other = (trained(False, 6, seed=seed) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not torch.equal(one[0], other[0])
    quiet = trained(False, 6, seed=1, optimizer_options={"noise": 0.0})
    assert not torch.equal(one[0], quiet[0])


def test_the_noise_goes_on_where_a_saved_state_left_it() -> None:
    def ones() -> nn.Parameter:
        return nn.Parameter(torch.ones(50))

    def stepped(p: nn.Parameter, optimizer: torch.optim.Optimizer, steps: int) -> None:
        for _ in range(steps):
            p.grad = p.detach().clone()
            optimizer.step()

    options = {"lr": 0.1, "weight_decay": 0.0, "options": {"momentum": 0.9}, "seed": 5}
    whole, half, rest = ones(), ones(), ones()
    stepped(whole, make_optimizer("noisy_sgd", [([whole], None)], **options), 6)
    first = make_optimizer("noisy_sgd", [([half], None)], **options)
    stepped(half, first, 3)
    with torch.no_grad():
        rest.copy_(half)
    second = make_optimizer("noisy_sgd", [([rest], None)], **options)
    second.load_state_dict(first.state_dict())
    stepped(rest, second, 3)
    assert torch.equal(whole, rest)


def test_langevin_dynamics_come_to_their_temperature() -> None:
    # E(w) = w^2 / 2, noise = 2 T / lr: the stationary variance is T / (1 - lr / 2), exactly
    lr, temperature = 0.2, 0.7
    p = nn.Parameter(torch.zeros(SIZE, dtype=torch.float64))
    optimizer = NoisySGD([p], lr=lr, noise=2 * temperature / lr, anneal=0.0)
    for _ in range(80):
        p.grad = p.detach().clone()
        optimizer.step()
    variance = temperature / (1 - lr / 2)
    assert abs(float(p.detach().var()) / variance - 1) < 4 * math.sqrt(2 / SIZE)


def test_options_out_of_range_are_refused() -> None:
    for wrong in ({"noise": -1.0}, {"anneal": -0.1}, {"noise": math.inf}, {"nois": 1.0}):
        with pytest.raises(OptionError, match="noisy_sgd"):
            make_optimizer(
                "noisy_sgd", [([nn.Parameter(torch.ones(1))], None)], lr=0.1, weight_decay=0.0, options=wrong
            )


def test_a_training_that_was_stopped_ends_as_if_it_was_not(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole", 8)

    def stop(model: nn.Module, step: int) -> None:
        if step == 3:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(InterruptedFit):
        trained(tmp_path / "half", 8, after_step=stop)
    rest = trained(tmp_path / "half", 8, resume=True)
    assert all(torch.equal(a, b) for a, b in zip(whole, rest, strict=True))
