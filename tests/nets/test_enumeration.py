"""Sums over all states of binary units against sums written out, and draws against their probabilities."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from leadline.nets.enumeration import draws_of_pairs, draws_of_smaller, log_partition_of, states_of


def parameters(visible: int, hidden: int, scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    source = torch.Generator().manual_seed(3)
    shapes = ((visible, hidden), (visible,), (hidden,))
    W, b, c = (scale * torch.empty(shape, dtype=torch.float64).normal_(generator=source) for shape in shapes)
    return W, b, c


def slow(W: Tensor, b: Tensor, c: Tensor) -> float:
    """Return log Z by a loop over states of the hidden units, each a sum of softplus in math.fsum."""
    logs = []
    for h in itertools.product([0.0, 1.0], repeat=W.shape[1]):
        a = (b + W @ torch.tensor(h, dtype=torch.float64)).tolist()
        each = [max(x, 0.0) + math.log1p(math.exp(-abs(x))) for x in a]
        logs.append(math.fsum([*each, *(u * v for u, v in zip(h, c.tolist(), strict=True))]))
    top = max(logs)
    return top + math.log(math.fsum(math.exp(x - top) for x in logs))


# groups of three units that are full, that are not, and states beyond one half of ten units
@pytest.mark.parametrize(("visible", "hidden"), [(1, 1), (2, 2), (3, 3), (7, 5), (16, 11), (5, 7)])
def test_the_sum_of_products_is_the_sum_written_out(visible: int, hidden: int) -> None:
    W, b, c = parameters(visible, hidden)
    assert float(log_partition_of(W, b, c)) == pytest.approx(slow(W, b, c), abs=1e-12)


@pytest.mark.parametrize("scale", [30.0, 100.0, 400.0])
def test_products_that_outgrow_a_float_are_taken_apart_and_wild_ones_are_not_multiplied(scale: float) -> None:
    W, b, c = parameters(40, 6, scale)
    assert float(log_partition_of(W, b, c)) == pytest.approx(slow(W, b, c), rel=1e-13)


def test_a_bias_that_cancels_a_weight_is_not_lost() -> None:
    W, b, c = torch.full((4, 2), 900.0).double(), torch.full((4,), -900.0).double(), torch.zeros(2).double()
    # h = 00: a = -900; 01 and 10: a = 0, four factors of 2; 11: a = 900, each
    assert float(log_partition_of(W, b, c)) == pytest.approx(3600.0, abs=1e-9)
    assert float(log_partition_of(W[:, :1], b, c[:1])) == pytest.approx(math.log(1 + 2**4), abs=1e-12)


def test_twenty_units_under_784_are_summed_alike_from_either_side() -> None:
    W, b, c = parameters(784, 20, 0.3)
    found = float(log_partition_of(W.float(), b.float(), c.float()))
    assert found == pytest.approx(float(log_partition_of(W.T, c, b)), rel=1e-6)


@pytest.mark.parametrize(("visible", "hidden"), [(6, 3), (3, 6)])
def test_draws_of_the_smaller_layer_have_its_probabilities(visible: int, hidden: int) -> None:
    W, b, c = parameters(visible, hidden)
    v, h = states_of(visible, W), states_of(hidden, W)
    joint = (v @ b)[:, None] + h @ c + v @ W @ h.T
    wanted = joint.logsumexp(0 if hidden < visible else 1).softmax(0)
    n = 20_000
    found = draws_of_smaller(W, b, c, n, torch.Generator().manual_seed(0))
    assert found.shape == (n, 3)
    counts = torch.bincount((found @ torch.tensor([1.0, 2.0, 4.0]).double()).long(), minlength=8) / n
    assert bool(((counts - wanted).abs() < 4 * (wanted * (1 - wanted) / n).sqrt()).all())


@pytest.mark.parametrize("units", [3, 11])
def test_draws_of_pairs_have_their_means(units: int) -> None:
    half, linear, _ = parameters(units, units, 0.4)
    pairs = half + half.T
    h = states_of(units, linear)
    wanted = (h @ linear + 0.5 * ((h @ pairs) * h).sum(1)).softmax(0)
    n = 20_000
    found = draws_of_pairs(pairs, linear[:, 0] if linear.dim() > 1 else linear, n)
    mean = wanted @ h
    both = (h * wanted[:, None]).T @ h
    assert bool(((found.mean(0) - mean).abs() < 4 * (mean * (1 - mean) / n).sqrt()).all())
    assert float((found.T @ found / n - both).abs().max()) < 4 * 0.5 / math.sqrt(n)
