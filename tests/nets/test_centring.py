"""Centred gradients: where they vanish, where they lead, and what they do not depend on."""

import itertools

import pytest
import torch
from torch import Tensor

from leadline.nets.boltzmann import BernoulliLayer, GaussianLayer
from leadline.nets.centring import Centring, centred_gradients
from leadline.training.checkpoint import load_weights


def jacobian_step(sizes: tuple[int, ...], means: list[Tensor], plain: list[Tensor]) -> list[Tensor]:
    """Return J J^T g with J the derivative of plain parameters in centred ones, by autograd.

    Of units less their means the energy is that of plain units whose biases are
    b_l = c_l - m_l-1 W_l - W_l+1 m_l+1.
    """
    layers = len(sizes)

    def plain_of(*centred: Tensor) -> tuple[Tensor, ...]:
        weights, own = centred[: layers - 1], centred[layers - 1 :]
        biases = []
        for number in range(layers):
            bias = own[number]
            if number:
                bias = bias - means[number - 1] @ weights[number - 1]
            if number < layers - 1:
                bias = bias - weights[number] @ means[number + 1]
            biases.append(bias)
        return (*weights, *biases)

    at = tuple(torch.zeros_like(each) for each in plain)
    _, back = torch.func.vjp(plain_of, *at)
    return list(plain_of(*back(tuple(plain))))  # the map is linear: its derivative is itself


@pytest.mark.parametrize("sizes", [(4, 3), (4, 3, 2), (3, 2, 4, 2)])
def test_centred_gradients_are_plain_ones_through_the_centred_parameters(sizes: tuple[int, ...]) -> None:
    shapes = [*itertools.pairwise(sizes), *((size,) for size in sizes)]
    plain = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    means = [torch.rand(size, dtype=torch.float64) for size in sizes]
    count = len(sizes) - 1
    found = centred_gradients(plain[:count], plain[count:], means)
    wanted = jacobian_step(sizes, means, plain)
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(found, wanted, strict=True))
    # uphill for the plain objective, and zero only where that is
    assert sum(float((a * b).sum()) for a, b in zip(found, plain, strict=True)) > 0


def layer(*, centred: bool) -> BernoulliLayer:
    made = BernoulliLayer(5, 3, centred=centred).double()
    source = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.empty(parameter.shape).normal_(generator=source))
    return made


def test_a_centred_contrast_has_the_value_of_the_plain_one_and_its_centred_gradient() -> None:
    v = (torch.rand(9, 5) < 0.3).double()
    gradients, values = [], []
    for centred in (False, True):
        torch.manual_seed(0)
        made = layer(centred=centred)
        loss = made.contrast(v, 2)
        values.append(loss.item())
        gradients.append(torch.autograd.grad(2 * loss, [made.weights, made.visible_bias, made.hidden_bias]))
    assert values[0] == values[1]
    means = [v.mean(0), layer(centred=False).hidden(v).mean(0).detach()]
    plain, found = gradients
    wanted = centred_gradients(plain[:1], plain[1:], means)
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(found, wanted, strict=True))


def test_swapping_ones_and_zeros_mirrors_a_centred_step() -> None:
    # v -> 1 - v is W -> -W, b -> -b, c -> c + sum of W over v, by the definition of the energy
    data = (torch.rand(9, 5) < 0.3).double()
    end = (torch.rand(7, 5) < 0.6).double()
    steps = []
    for swapped in (False, True):
        made = layer(centred=True)
        with torch.no_grad():
            if swapped:
                made.hidden_bias += made.weights.sum(0)
                made.weights.neg_()
                made.visible_bias.neg_()
        v, e = (1 - data, 1 - end) if swapped else (data, end)
        loss = made._difference(v, e, made.inputs(v).detach(), made.inputs(e).detach())
        steps.append(torch.autograd.grad(loss, [made.weights, made.visible_bias, made.hidden_bias]))
    (W, b, c), (W_swapped, b_swapped, c_swapped) = steps
    assert torch.allclose(W_swapped, -W, atol=1e-12)
    assert torch.allclose(b_swapped, -b, atol=1e-12)
    assert torch.allclose(c_swapped, c + W.sum(0), atol=1e-12)


def test_running_means_begin_at_the_first_batch_and_then_move_slowly() -> None:
    centring = Centring((2,))
    b = torch.zeros(2, requires_grad=True)
    for step in range(400):
        state = torch.tensor([[1.0, 0.0]]) if step < 200 else torch.tensor([[0.0, 1.0]])
        centring(b.sum(), (), (b,), (state,))
        if step in (0, 199):
            assert torch.allclose(centring.means[0], torch.tensor([1.0, 0.0]), atol=1e-5)
    # 200 steps of a hundredth: 0.99^200 = 0.134
    assert float(centring.means[0][0]) == pytest.approx(0.134, abs=2e-3)
    assert set(centring.state_dict()) == {"batches", "mean0"}


def gaussian(*, centred: bool, learned: bool = True) -> GaussianLayer:
    made = GaussianLayer(4, 3, learned=learned, centred=centred).double()
    source = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.empty(parameter.shape).normal_(generator=source))
    return made


@pytest.mark.parametrize("learned", [True, False])
def test_a_centred_step_of_gaussian_units_is_that_of_bits_in_units_of_their_noise(*, learned: bool) -> None:
    v = 2 * torch.randn(9, 4).double() + 1
    gradients, values = [], []
    for centred in (False, True):
        torch.manual_seed(0)
        made = gaussian(centred=centred, learned=learned)
        loss = made.contrast(v, 2)
        values.append(loss.item())
        loss.backward()
        gradients.append({name: each.grad for name, each in made.named_parameters()})
    assert values[0] == pytest.approx(values[1])
    plain, found = gradients
    s = made.scale.detach()
    # dF / d(b / s) = s dF / db, and b moves s times as far as b / s
    of_units = [plain["weights"], s * plain["visible_bias"], plain["hidden_bias"]]
    means = [(v / s).mean(0), gaussian(centred=False, learned=learned).hidden(v).mean(0).detach()]
    weights, visible, hidden = centred_gradients(of_units[:1], of_units[1:], means)
    assert torch.allclose(found["weights"], weights)
    assert torch.allclose(found["visible_bias"], s * visible)
    assert torch.allclose(found["hidden_bias"], hidden)
    assert not learned or torch.allclose(found["free_scale"], plain["free_scale"])


@pytest.mark.parametrize("make", [BernoulliLayer, GaussianLayer])
def test_weights_saved_without_means_and_chains_make_room_for_themselves(
    make: type[BernoulliLayer] | type[GaussianLayer],
) -> None:
    older, newer = make(4, 3, 5), make(4, 3, 7, centred=True)
    load_weights(newer, older.state_dict(), "a run")
    assert newer.centring is None
    assert torch.equal(newer.chain, older.chain)
    newer.contrast(torch.ones(2, 4)).backward()
    kept = make(4, 3, 7, centred=True)
    kept.contrast(torch.ones(2, 4))
    again = make(4, 3, 7, centred=True)
    load_weights(again, kept.state_dict(), "a run")
    assert again.centring is not None
    assert torch.equal(again.centring.means[0], kept.centring.means[0])  # type: ignore[union-attr]
