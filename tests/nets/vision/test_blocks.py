"""Pools that look for maxima in another order: torch's values and gradients, wherever they are used."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import grad, jvp, vmap

from leadline.nets.vision.blocks import BatchNorm2d, MaxPool2d

WINDOWS = [
    {"kernel_size": 3, "stride": 2},
    {"kernel_size": 3, "stride": 1, "padding": 1},
    {"kernel_size": 3, "stride": 2, "ceil_mode": True},
    {"kernel_size": (3, 5), "stride": (1, 2), "padding": (0, 2)},
]


def maps(n: int = 2, *, tied: bool = True) -> Tensor:
    """Return maps (n, 18, 9, 8) of which, if tied, half the places are zero, as behind a rectifier."""
    x = torch.randn(n, 18, 9, 8, dtype=torch.float64)
    return x.relu() if tied else x


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("tied", [False, True])
def test_values_and_gradients_are_those_of_torch_to_the_bit(window: dict[str, int], tied: bool) -> None:
    mine, theirs = MaxPool2d(**window), nn.MaxPool2d(**window)
    x = maps(tied=tied).requires_grad_()
    assert mine._slow(x)
    y, expected = mine(x), theirs(x)
    assert torch.equal(y, expected)
    assert y.is_contiguous()
    weight = torch.randn_like(y)
    assert torch.equal(torch.autograd.grad(y, x, weight)[0], torch.autograd.grad(expected, x, weight)[0])
    with torch.no_grad():
        assert torch.equal(mine(x), expected)
        assert mine(x).is_contiguous()


def test_maps_in_channels_last_order_stay_in_it() -> None:
    x = maps().to(memory_format=torch.channels_last)
    y = MaxPool2d(3, 2)(x)
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(y, nn.MaxPool2d(3, 2)(x))


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # torch's own, forward
@pytest.mark.parametrize(
    "transform",
    [
        lambda pool, x, v: grad(lambda z: (pool(z) ** 3).sum())(x),
        lambda pool, x, v: vmap(grad(lambda z: (pool(z[None]) ** 3).sum()))(x),
        lambda pool, x, v: jvp(lambda z: pool(z) ** 3, (x,), (v,))[1],
        lambda pool, x, v: jvp(grad(lambda z: (pool(z) ** 3).sum()), (x,), (v,))[1],
    ],
    ids=["gradient", "per sample", "forward", "curvature"],
)
def test_transforms_of_functions_pass_through(transform: Callable[..., Tensor]) -> None:
    x, v = maps(3), torch.randn(3, 18, 9, 8, dtype=torch.float64)
    found, expected = (transform(pool, x, v) for pool in (MaxPool2d(3, 2), nn.MaxPool2d(3, 2)))
    assert bool((expected != 0).any())
    torch.testing.assert_close(found, expected)


def test_a_second_derivative_is_that_of_torch() -> None:
    x = maps().requires_grad_()
    found = []
    for pool in (MaxPool2d(3, 1, 1), nn.MaxPool2d(3, 1, 1)):
        (first,) = torch.autograd.grad((pool(x) ** 3).sum(), x, create_graph=True)
        found.append(torch.autograd.grad(first.square().sum(), x)[0])
    torch.testing.assert_close(found[0], found[1])


def test_one_value_a_channel_is_normalised_by_the_averages_in_training() -> None:
    norm = BatchNorm2d(3)
    norm.running_mean.copy_(torch.tensor([1.0, 2.0, 3.0]))
    norm.running_var.fill_(4.0)
    x = torch.tensor([3.0, 2.0, -1.0]).view(1, 3, 1, 1)
    # less the mean, over the deviation 2
    torch.testing.assert_close(norm(x).flatten(), torch.tensor([1.0, 0.0, -2.0]), atol=1e-5, rtol=0)
    assert int(norm.num_batches_tracked) == 0
    norm(x.expand(2, -1, -1, -1))
    assert int(norm.num_batches_tracked) == 1
