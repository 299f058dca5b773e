"""Layers of units: Gaussian visible ones against sums over the hidden ones, and what both kinds share."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from leadline.nets.boltzmann import BernoulliLayer, GaussianLayer
from leadline.nets.enumeration import log_partition_by_pairs
from tests.tiny import moved


def gaussian(visible: int, hidden: int, *, learned: bool = True, chains: int = 0) -> GaussianLayer:
    layer = moved(GaussianLayer(visible, hidden, chains, learned=learned), 0.7)
    assert isinstance(layer, GaussianLayer)
    return layer


def states(units: int) -> Tensor:
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=units)), dtype=torch.float64)


def log_mixture(layer: GaussianLayer, v: Tensor) -> Tensor:
    """Return log p(v) as the mixture of 2^H normals that it is, weights by completing the square."""
    h, s = states(layer.weights.shape[1]), layer.scale
    shift = h @ layer.weights.T  # (2^H, D), in units of the scale
    centre = layer.visible_bias + s * shift
    weight = h @ layer.hidden_bias + (shift * layer.visible_bias / s + 0.5 * shift.square()).sum(1)
    normal = torch.distributions.Normal(centre, s)
    each = normal.log_prob(v[:, None]).sum(-1) + weight.log_softmax(0)
    return each.logsumexp(1)


@pytest.mark.parametrize("learned", [True, False])
def test_a_gaussian_layer_is_a_mixture_of_normals(learned: bool) -> None:
    layer = gaussian(3, 4, learned=learned)
    v = 2 * torch.randn(6, 3, dtype=torch.float64)
    assert torch.allclose(-layer.free_energy(v) - layer.log_partition(), log_mixture(layer, v), atol=1e-10)


def test_a_gaussian_layer_without_weights_is_a_gaussian(generator: torch.Generator) -> None:
    layer = gaussian(2, 3)
    with torch.no_grad():
        layer.weights.zero_()
    v = torch.randn(5, 2, dtype=torch.float64)
    normal = torch.distributions.Normal(layer.visible_bias, layer.scale)
    assert torch.allclose(
        -layer.free_energy(v) - layer.log_partition(), normal.log_prob(v).sum(1), atol=1e-10
    )
    with torch.no_grad():
        x = layer.chain_end(layer.inputs(layer.start(20_000, generator)), 1, generator)
        error = layer.scale / math.sqrt(20_000)
        assert bool(((x.mean(0) - layer.visible_bias).abs() < 4 * error).all())
        # the noise is part of the sample: its spread is the scale, not zero
        assert bool(((x.std(0) - layer.scale).abs() < 4 * error / math.sqrt(2)).all())


def test_the_conditionals_of_a_gaussian_layer_are_those_of_its_joint() -> None:
    layer = gaussian(2, 3)
    v, h = torch.randn(4, 2, dtype=torch.float64), states(3)
    s = layer.scale
    quadratic = -0.5 * ((v - layer.visible_bias) / s).square().sum(1)
    joint = quadratic[:, None] + h @ layer.hidden_bias + (v / s) @ layer.weights @ h.T
    assert torch.allclose(layer.hidden(v), joint.softmax(1) @ h, atol=1e-12)
    # d/dv of log p(v, h) vanishes at the mean of v given h
    mean = layer.centre(h).detach().requires_grad_()
    energy = -0.5 * ((mean - layer.visible_bias) / s).square().sum(1)
    energy = energy + ((mean / s) @ layer.weights * h).sum(1)
    (slope,) = torch.autograd.grad(energy.sum(), mean)
    assert float(slope.abs().max()) < 1e-12


@pytest.mark.parametrize("learned", [True, False])
@pytest.mark.parametrize("chains", [0, 7])
def test_the_gradient_of_the_contrast_is_autograd_of_the_free_energies(learned: bool, chains: int) -> None:
    layer = gaussian(4, 3, learned=learned, chains=chains)
    v = torch.randn(6, 4, dtype=torch.float64)
    ends: list[Tensor] = []
    draw = layer.chain_end

    def recorded(*arguments: object) -> Tensor:
        ends.append(draw(*arguments))  # type: ignore[arg-type]
        return ends[-1]

    layer.chain_end = recorded  # type: ignore[method-assign]
    loss = layer.contrast(v, 2)
    found = torch.autograd.grad(3 * loss, list(layer.parameters()))
    slow = layer.free_energy(v).mean() - layer.free_energy(ends[0]).mean()
    wanted = torch.autograd.grad(3 * slow, list(layer.parameters()))
    assert loss.item() == pytest.approx(slow.item(), abs=1e-10)
    assert len(ends[0]) == (chains or 6)
    assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(found, wanted, strict=True))


def test_long_chains_give_a_gaussian_layer_its_exact_gradient() -> None:
    layer = gaussian(2, 2, chains=40_000)
    v = torch.randn(5, 2, dtype=torch.float64)
    for _ in range(20):
        loss = layer.contrast(v, 3)
    found = torch.autograd.grad(loss, list(layer.parameters()))
    exact = torch.autograd.grad(layer.free_energy(v).mean() + layer.log_partition(), list(layer.parameters()))
    for a, b in zip(found, exact, strict=True):
        assert float((a - b).abs().max()) < 4 * 4 / math.sqrt(40_000)  # statistics of size below 4


def test_the_figure_of_a_gaussian_layer_is_score_matching_by_autograd() -> None:
    layer = gaussian(3, 4)
    v = torch.randn(5, 3, dtype=torch.float64)
    total = 0.0
    for row in v:
        score = torch.func.grad(lambda x: -layer.free_energy(x[None])[0])
        hessian = torch.func.jacrev(score)(row)
        total += float((0.5 * score(row).square().sum() + hessian.trace()).detach())
    assert layer.misfit(v).item() == pytest.approx(total / 5, abs=1e-9)


@pytest.mark.parametrize("units", [1, 3, 12])
def test_one_layer_with_pairs_is_summed_over_all_states(units: int) -> None:
    source = torch.Generator().manual_seed(1)
    half = torch.randn(units, units, generator=source).double()
    pairs, linear = half + half.T, torch.randn(units, generator=source).double()
    h = states(units)
    slow = (h @ linear + 0.5 * ((h @ pairs) * h).sum(1)).logsumexp(0)
    assert log_partition_by_pairs(pairs, linear).item() == pytest.approx(slow.item(), abs=1e-10)


@pytest.mark.parametrize("kind", [BernoulliLayer, GaussianLayer])
def test_centres_and_means_are_inverses_and_sizes_are_checked(kind: type[BernoulliLayer]) -> None:
    layer = moved(kind(3, 2), 0.7)
    centre = torch.randn(4, 3, dtype=torch.float64)
    assert torch.allclose(layer.centre_of(layer.mean(centre)), centre, atol=1e-10)
    for sizes in ((0, 2), (2, 0), (2, 2, -1)):
        with pytest.raises(ValueError, match="must be at least"):
            kind(*sizes)


def test_chains_begin_at_the_persistent_ones_or_else_blind(generator: torch.Generator) -> None:
    layer = BernoulliLayer(3, 2, chains=4)
    layer.chain.copy_(torch.tensor([[1.0, 1, 1], [0, 0, 0], [1, 1, 1], [1, 1, 1]]))
    begun = layer.begin(4000, generator)
    assert set(begun.sum(1).tolist()) == {0.0, 3.0}
    # three of four chains are all ones
    assert float(begun.mean()) == pytest.approx(0.75, abs=4 * 0.433 / math.sqrt(4000))
    assert len(set(BernoulliLayer(3, 2).begin(100, generator).sum(1).tolist())) == 4


def test_scales_never_fall_below_a_tenth() -> None:
    layer = gaussian(2, 2)
    with torch.no_grad():
        assert layer.free_scale is not None
        layer.free_scale.fill_(-100.0)
    assert torch.allclose(layer.scale, torch.full((2,), 0.1, dtype=torch.float64))
