"""The dense stack builder."""

import pytest
import torch
from torch import nn

from leadline.core import OptionError
from leadline.nets.dense import ACTIVATIONS, dense


def test_a_stack_computes_what_its_layers_written_out_compute() -> None:
    net = dense((3, 5, 2), "tanh").double()
    x = torch.randn(7, 3, dtype=torch.float64)
    hidden = torch.tanh(x @ net[0].weight.T + net[0].bias)
    torch.testing.assert_close(net(x), hidden @ net[2].weight.T + net[2].bias)


def test_two_sizes_make_one_linear_map() -> None:
    assert [type(layer) for layer in dense((3, 2), norm="batch", dropout=0.5)] == [nn.Linear]


def test_norm_and_dropout_stand_behind_hidden_layers_only() -> None:
    kinds = [type(layer).__name__ for layer in dense((3, 5, 5, 2), "gelu", dropout=0.1, norm="layer")]
    assert kinds == ["Linear", "LayerNorm", "GELU", "Dropout"] * 2 + ["Linear"]


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_every_activation_lets_a_gradient_through(activation: str) -> None:
    net = dense((3, 8, 2), activation)
    net(torch.randn(16, 3)).square().sum().backward()
    assert all(
        parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in net.parameters()
    )


def test_batch_norm_takes_a_training_batch_of_one_row() -> None:
    net = dense((3, 4, 2), norm="batch").double()
    net(torch.randn(20, 3, dtype=torch.float64) + 1)
    row, before = torch.randn(1, 3, dtype=torch.float64), net[1].running_mean.clone()
    alone = net(row)
    torch.testing.assert_close(net[1].running_mean, before)
    torch.testing.assert_close(alone, net.eval()(row))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"sizes": (3,)}, "at least two"),
        ({"sizes": (3, 0, 2)}, "positive"),
        ({"sizes": (3, 2), "dropout": 1.0}, "dropout"),
        ({"sizes": (3, 4, 2), "activation": "rleu"}, 'did you mean "relu"'),
        ({"sizes": (3, 4, 2), "norm": "bath"}, "known: batch, layer, none"),
    ],
)
def test_a_wrong_argument_is_named(arguments: dict, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        dense(**arguments)
