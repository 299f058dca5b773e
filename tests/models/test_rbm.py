"""Restricted Boltzmann machines against enumeration of every state."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from leadline.core import Batch, Bits, DomainError, Images, OptionError, ShapeError, Vectors
from leadline.models.boltzmann.rbm import RBM
from tests.tiny import tiny

Move = Callable[[nn.Module], nn.Module]


def machine(visible: int, hidden: int, *, scale: float = 1.0, **options: Any) -> RBM:
    """Return a float64 machine with weights and biases far from zero."""
    plain = {"centred": False, "persistent": False}
    model = RBM(Bits((visible,)), hidden, **(plain | options)).double()
    source = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(scale * torch.empty(parameter.shape).normal_(generator=source))
    return model


def states(units: int) -> Tensor:
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=units)), dtype=torch.float64)


def joint(model: RBM) -> Tensor:
    """Return log of the unnormalised p(v, h) of every pair of states, by the definition of the energy."""
    v, h = states(model.layer.weights.shape[0]), states(model.layer.weights.shape[1])
    return (
        (v @ model.layer.visible_bias)[:, None] + h @ model.layer.hidden_bias + v @ model.layer.weights @ h.T
    )


@pytest.mark.parametrize(("visible", "hidden"), [(4, 3), (3, 5), (12, 2), (2, 12)])
def test_log_partition_by_either_layer_is_brute_force(visible: int, hidden: int) -> None:
    model = machine(visible, hidden, scale=2.0)
    assert model.log_partition("exact").value == pytest.approx(
        float(joint(model).detach().logsumexp((0, 1))), abs=1e-10
    )


def test_probabilities_of_all_samples_sum_to_one_and_are_the_marginals_of_the_joint() -> None:
    model = machine(5, 4)
    found = model.log_prob(states(5).to(torch.uint8))
    marginal = joint(model).logsumexp(1) - joint(model).logsumexp((0, 1))
    assert found.exp().sum().item() == pytest.approx(1, abs=1e-10)
    assert torch.allclose(found, marginal, atol=1e-10)


def test_inputs_of_a_thousand_do_not_overflow() -> None:
    model = machine(70, 3, scale=300.0).float()
    exact = machine(70, 3, scale=300.0)
    assert model.log_partition().value == pytest.approx(exact.log_partition().value, rel=1e-5)
    h = states(3)
    slow = h @ exact.layer.hidden_bias + nn.functional.softplus(
        h @ exact.layer.weights.T + exact.layer.visible_bias
    ).sum(1)
    assert exact.log_partition().value == pytest.approx(float(slow.detach().logsumexp(0)), rel=1e-12)


def test_codes_are_the_hidden_conditionals_and_decoding_the_likeliest_bits() -> None:
    model = machine(4, 3)
    v, h = states(4), states(3)
    given = torch.softmax(joint(model), 1)  # p(h | v)
    assert torch.allclose(model.encode(v), given @ h, atol=1e-12)
    conditional = torch.softmax(joint(model), 0).T @ v  # (h, visible)
    assert torch.equal(model.decode(h), (conditional > 0.5).to(torch.uint8))


def hand_written(model: RBM, data: Tensor, end: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradient of the loss in W, b and c as Hinton writes it, rows in a loop."""
    up = sum(
        torch.outer(v, torch.sigmoid(v @ model.layer.weights + model.layer.hidden_bias)) for v in data
    ) / len(data)
    down = sum(
        torch.outer(v, torch.sigmoid(v @ model.layer.weights + model.layer.hidden_bias)) for v in end
    ) / len(end)
    hidden = model.encode(end).mean(0) - model.encode(data).mean(0)
    return down - up, end.mean(0) - data.mean(0), hidden  # type: ignore[return-value, operator]


@pytest.mark.parametrize("persistent", [False, True])
def test_the_gradient_of_the_loss_is_the_hand_written_update(persistent: bool) -> None:
    model = machine(4, 3, persistent=persistent, chains=7, steps=2)
    data = states(4)[torch.tensor([0, 5, 9, 9, 14])]
    start = model.layer.chain.clone() if persistent else data
    torch.manual_seed(3)
    loss = model.loss(Batch(data))
    (2 * loss).backward()
    torch.manual_seed(3)
    with torch.no_grad():
        v = start
        for _ in range(2):
            p = (v @ model.layer.weights + model.layer.hidden_bias).sigmoid()
            h = (torch.rand(p.shape, dtype=p.dtype) < p).to(p)
            q = (h @ model.layer.weights.T + model.layer.visible_bias).sigmoid()
            v = (torch.rand(q.shape, dtype=q.dtype) < q).to(q)
        expected = hand_written(model, data, v)
        value = model.free_energy(data).mean() - model.free_energy(v).mean()
    assert loss.item() == pytest.approx(value.item(), abs=1e-12)
    for parameter, wanted in zip(model.parameters(), expected, strict=True):
        assert parameter.grad is not None
        assert torch.allclose(parameter.grad, 2 * wanted, atol=1e-12)


def test_the_gradient_of_the_loss_is_autograd_of_the_free_energies() -> None:
    model = machine(4, 3, persistent=True, chains=6)
    data = states(4)[3:9]
    model.loss(Batch(data)).backward()
    closed = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    difference = model.free_energy(data).mean() - model.free_energy(model.layer.chain).mean()
    slow = torch.autograd.grad(difference, list(model.parameters()))
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(closed, slow, strict=True))


def test_the_exact_gradient_of_log_prob_includes_the_partition_function() -> None:
    for visible, hidden in ((3, 5), (5, 3)):
        model = machine(visible, hidden)
        data = states(visible)[:5]
        found = torch.autograd.grad(model.log_prob(data).mean(), list(model.parameters()))
        by_states = -model.free_energy(data).mean() - joint(model).logsumexp((0, 1))
        slow = torch.autograd.grad(by_states, list(model.parameters()))
        assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(found, slow, strict=True))


def expected_gradient(model: RBM, data: Tensor, steps: int) -> Tensor:
    """Return the mean CD-k gradient in W over all chains, by the transition matrix of the visible units."""
    v = states(model.layer.weights.shape[0])
    kernel = torch.softmax(joint(model), 1) @ torch.softmax(joint(model), 0).T  # (v, v')
    index = (data @ (2 ** torch.arange(data.shape[1] - 1, -1, -1)).double()).long()
    end = torch.linalg.matrix_power(kernel, steps)[index].mean(0)
    return (v * end[:, None]).T @ model.encode(v) - data.T @ model.encode(data) / len(data)


def test_the_bias_of_cd_shrinks_as_its_chains_grow() -> None:
    model = machine(3, 2, scale=1.5)
    data = states(3)[torch.tensor([0, 3, 3, 6])]
    exact = -torch.autograd.grad(model.log_prob(data).mean(), model.layer.weights)[0]
    with torch.no_grad():
        bias = [float((expected_gradient(model, data, k) - exact).norm()) for k in (1, 5, 50)]
    assert bias[0] > 1.5 * bias[1]
    assert bias[1] > 5 * bias[2]
    assert bias[2] < 1e-3


@pytest.mark.parametrize("steps", [1, 3])
def test_the_mean_gradient_of_many_chains_is_that_of_the_transition_matrix(steps: int) -> None:
    model = machine(3, 2, scale=1.5, steps=steps)
    data = states(3)[torch.tensor([0, 3, 3, 6])]
    chains = 40_000
    model.loss(Batch(data.repeat(chains // 4, 1))).backward()
    assert model.layer.weights.grad is not None
    with torch.no_grad():
        wanted = expected_gradient(model, data, steps)
    # each entry is a mean of numbers in [0, 1], of standard deviation at most one half
    assert float((model.layer.weights.grad - wanted).abs().max()) < 4 * 0.5 / math.sqrt(chains)


def test_long_persistent_chains_give_the_exact_gradient() -> None:
    model = machine(3, 2, persistent=True, chains=20_000)
    data = states(3)[torch.tensor([0, 3, 3, 6])]
    for _ in range(30):
        loss = model.loss(Batch(data))
    loss.backward()
    exact = -torch.autograd.grad(model.log_prob(data).mean(), model.layer.weights)[0]
    assert model.layer.weights.grad is not None
    assert float((model.layer.weights.grad - exact).abs().max()) < 4 * 0.5 / math.sqrt(20_000)


def test_persistent_chains_move_in_training_only() -> None:
    model = machine(4, 3, persistent=True, chains=50)
    before = model.layer.chain.clone()
    model.eval().loss(Batch(states(4)))
    assert torch.equal(model.layer.chain, before)
    model.train().loss(Batch(states(4)))
    assert not torch.equal(model.layer.chain, before)
    assert "layer.chain" in model.state_dict()


def test_without_weights_the_machine_is_independent_coins() -> None:
    model = machine(6, 3)
    with torch.no_grad():
        model.layer.weights.zero_()
    x = states(6)
    coins = torch.distributions.Bernoulli(logits=model.layer.visible_bias).log_prob(x).sum(1)
    assert torch.allclose(model.log_prob(x), coins, atol=1e-12)


def test_samples_have_the_probabilities_of_log_prob(generator: torch.Generator) -> None:
    model = machine(3, 2)
    n = 20_000
    x = model.sample(n, generator, steps=60)
    counts = torch.bincount((x.long() @ torch.tensor([4, 2, 1])), minlength=8) / n
    p = model.log_prob(states(3)).exp()
    assert bool(((counts - p).abs() < 4 * (p * (1 - p) / n).sqrt()).all())


@pytest.mark.parametrize(("visible", "hidden"), [(10, 8), (6, 12)])
def test_annealed_importance_sampling_finds_the_exact_log_partition(visible: int, hidden: int) -> None:
    model = machine(visible, hidden)
    exact = model.log_partition("exact").value
    found = model.log_partition("ais", chains=400, temperatures=300)
    assert found.stderr is not None
    assert abs(found.value - exact) < 4 * found.stderr
    assert found.stderr < 0.1
    assert found.kind == "estimate"
    assert "400 chains, 300 temperatures" in found.protocol


def test_large_machines_say_that_their_density_is_an_estimate() -> None:
    model = RBM(Bits((22,)), 21)
    x = torch.zeros(2, 22, dtype=torch.uint8)
    first = model.log_prob(x)
    assert torch.equal(first, model.log_prob(x))
    assert model.density.kind == "estimate"
    assert model.density.stderr > 0
    with pytest.raises(ValueError, match="22 visible and 21 hidden"):
        model.log_partition("exact")
    with pytest.raises(RuntimeError, match="estimate"):
        first.sum().backward()


def test_log_prob_notices_every_change_of_the_parameters(moved: Move) -> None:
    model = RBM(Bits((4,)), 3).requires_grad_(False).double()
    assert model.density.kind == "exact"
    moved(model)
    assert model.log_prob(states(4)).exp().sum().item() == pytest.approx(1, abs=1e-10)
    model.layer.weights.data.mul_(3)  # leaves no trace in autograd's version counters
    assert model.log_prob(states(4)).exp().sum().item() == pytest.approx(1, abs=1e-10)


def test_the_layer_of_fewer_units_is_the_one_that_is_summed_over() -> None:
    model = RBM(Bits((28,)), 20).requires_grad_(False)  # a sum over the other would have 2^28 terms
    found = model.log_partition()
    assert found.kind == "exact"
    assert found.value == pytest.approx(48 * math.log(2), abs=0.2)


def bars_and_stripes(side: int) -> Tensor:
    """Return every pattern of bars and of stripes, so that blank and full stand twice: (2 * 2^side, d)."""
    rows = states(side)[:, :, None].expand(-1, side, side)
    return torch.cat([rows.flatten(1), rows.transpose(1, 2).flatten(1)]).to(torch.uint8)


# Of 2^(side + 1) equally likely choices two make blank and two full, every other pattern is one:
# -(4 / N) ln(N / 2) - ((N - 4) / N) ln N with N = 2^(side + 1); for N = 8: -(4/8 ln 4 + 4/8 ln 8).
@pytest.mark.parametrize(
    ("side", "best", "hidden", "near"),
    [(2, -1.7328680, 8, 0.2), (3, -2.5993019, 16, 0.4), (4, -3.3790925, 16, 1.0)],
)
def test_no_machine_beats_the_entropy_of_bars_and_stripes(
    side: int, best: float, hidden: int, near: float
) -> None:
    data = bars_and_stripes(side)
    count = 2 ** (side + 1)
    entropy = 4 / count * math.log(count / 2) + (count - 4) / count * math.log(count)
    assert -entropy == pytest.approx(best, abs=1e-6)
    model = machine(side**2, hidden, scale=0.1, steps=5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.5)
    untrained = float(model.log_prob(data).detach().mean())
    for step in range(1200):
        optimizer.zero_grad()
        model.loss(Batch(data.repeat(64 // count, 1))).backward()
        optimizer.step()
        if step == 800:
            optimizer.param_groups[0]["lr"] /= 5
    trained = float(model.log_prob(data).detach().mean())
    assert untrained < best - 1
    assert best - near < trained <= best + 1e-6


def test_one_machine_learns_from_the_codes_of_another() -> None:
    data = tiny("bits")
    first = RBM.for_data(data, hidden=6)
    codes = first.encode(data.train.x).detach()
    second = RBM(Bits((6,)), 4)
    second.loss(Batch(codes)).backward()
    assert second.encode(codes).shape == (120, 4)
    assert second.layer.weights.grad is not None
    assert bool((second.layer.weights.grad != 0).any())


def test_verbs_keep_the_shape_and_type_of_the_domain(generator: torch.Generator) -> None:
    data = tiny("bits")
    model = RBM.for_data(data, hidden=5, burn_in=3)
    x = model.sample(7, generator)
    assert x.shape == (7, 1, 3, 3)
    assert data.domain.validated(x).dtype == torch.uint8
    assert model.decode(model.encode(x)).shape == x.shape
    assert model.decode(model.encode(x)).dtype == torch.uint8


def test_what_it_cannot_hold_is_refused_with_the_way_out() -> None:
    for kind in ("tokens", "counts", "table", "categories"):
        with pytest.raises(DomainError, match="needs Bits or Images or Vectors"):
            RBM.for_data(tiny(kind))
    with pytest.raises(ShapeError, match=r"\(n, 1, 3, 3\)"):
        RBM.for_data(tiny("bits")).log_prob(torch.zeros(2, 9))
    for option in ("hidden", "steps", "chains", "burn_in"):
        with pytest.raises(ValueError, match=option):
            RBM(Bits((4,)), **{option: 0})
    with pytest.raises(OptionError, match="learned"):
        RBM(Vectors.standard(2), scale="free")
    with pytest.raises(OptionError, match="samples"):
        RBM(Images(1, 2, 2, 4), 2).log_prob(torch.zeros(1, 1, 2, 2, dtype=torch.uint8), samples=0)


def test_in_evaluation_the_loss_is_minus_the_log_pseudo_likelihood() -> None:
    model = machine(4, 3).eval()
    log_p = model.log_prob(states(4)).detach()
    row, n = 11, 40_000
    bits = [row ^ (1 << place) for place in range(4)]  # the four states that differ from row in one bit
    per_bit = torch.stack([log_p[row] - torch.logaddexp(log_p[row], log_p[other]) for other in bits])
    found = model.loss(Batch(states(4)[[row]].repeat(n, 1)))
    error = float((4 * per_bit).std(correction=0)) / math.sqrt(n)
    assert abs(found.item() + float(per_bit.sum())) < 4 * error


def test_real_columns_have_the_density_of_their_own_units() -> None:
    narrow = Vectors(("a", "b"), (3.0, -1.0), (0.5, 20.0))
    model, unit = RBM(narrow, 3).double(), RBM(Vectors.standard(2), 3).double()
    unit.load_state_dict(model.state_dict())
    z = torch.randn(6, 2).double()
    x = z * torch.tensor([0.5, 20.0]) + torch.tensor([3.0, -1.0])
    # ten times as wide a column in all: 0.5 * 20 = 10
    assert torch.allclose(model.log_prob(x), unit.log_prob(z) - math.log(10.0), atol=1e-9)


def test_samples_of_real_columns_have_the_noise_of_log_prob(generator: torch.Generator) -> None:
    model = RBM(Vectors.standard(1), 2).double()
    with torch.no_grad():
        for name, value in (
            ("weights", [[1.5, -1.0]]),
            ("visible_bias", [0.3]),
            ("hidden_bias", [0.2, -0.4]),
        ):
            getattr(model.layer, name).copy_(torch.tensor(value))
        model.layer.free_scale.fill_(-1.0)
    n = 20_000
    x = model.sample(n, generator, steps=30).flatten()
    grid = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    p = model.log_prob(grid[:, None]).exp().detach() * (grid[1] - grid[0])
    mean, second = float((p * grid).sum()), float((p * grid.square()).sum())
    spread = math.sqrt(second - mean**2)
    assert float(p.sum()) == pytest.approx(1, abs=1e-6)
    assert abs(float(x.mean()) - mean) < 4 * spread / math.sqrt(n)
    kurtosis = float((p * (grid - mean) ** 4).sum()) / spread**4
    assert abs(float(x.var()) - spread**2) < 4 * spread**2 * math.sqrt((kurtosis - 1) / n)


def test_more_draws_of_noise_tighten_the_bound_of_pictures() -> None:
    domain = Images(1, 1, 2, 3)
    model = RBM(domain, 3, pixels="standard").double()
    with torch.no_grad():
        model.layer.weights.normal_(generator=torch.Generator().manual_seed(4))
    x = domain.states()
    source = torch.Generator().manual_seed(6)
    few, many = (model.log_prob(x.repeat(500, 1, 1, 1), k, source).mean().item() for k in (1, 40))
    assert many > few
    assert model.density.kind == "lower bound"
    # the cells of the inner levels, by the midpoint rule
    assert model.log_prob(x, samples=2000).exp().sum().item() < 1


def test_a_picture_has_the_mass_of_its_cells_where_there_are_no_weights() -> None:
    model = RBM(Images(1, 1, 2, 4), 2, pixels="standard").double()
    with torch.no_grad():
        model.layer.weights.zero_()
        model.layer.visible_bias.copy_(torch.tensor([0.3, -0.5]))
    x = torch.tensor([[[[1, 2]]], [[[2, 1]]]], dtype=torch.uint8)
    # a level k of 4 is the cell [k / 4, (k + 1) / 4) of u, which is stretched by 12^(1/2)
    edges = (torch.stack([x, x + 1]).double().flatten(2) / 4 - 0.5) * math.sqrt(12)
    normal = torch.distributions.Normal(model.layer.visible_bias.detach(), 1.0)
    mass = normal.cdf(edges[1]) - normal.cdf(edges[0])
    assert torch.allclose(model.log_prob(x, samples=4000).detach(), mass.log().sum(1), atol=0.05)


@pytest.mark.parametrize("scale", ["learned", "unit"])
def test_a_machine_of_real_columns_learns_two_clusters(scale: str) -> None:
    source = torch.Generator().manual_seed(0)
    x = torch.randn(400, 2, generator=source) * 0.3 + torch.tensor([1.0, -1.0]) * (
        torch.arange(400)[:, None] % 2 * 2 - 1
    )
    domain = Vectors(("a", "b"), tuple(x.mean(0).tolist()), tuple(x.std(0).tolist()))
    model = RBM(domain, 4, scale=scale)
    normal = torch.distributions.MultivariateNormal(x.mean(0), x.T.cov()).log_prob(x).mean()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    for _ in range(400):
        optimizer.zero_grad()
        model.loss(Batch(x)).backward()
        optimizer.step()
    found = float(model.log_prob(x).detach().mean())
    assert (found > float(normal) + 0.2) is (scale == "learned")
    codes = model.encode(x).detach()
    assert codes.shape == (400, 4)
    assert float((model.decode(codes) - x).detach().square().mean()) < 0.7


def test_the_filters_are_a_row_a_hidden_unit() -> None:
    model = machine(4, 3)
    assert torch.equal(model.filters()[2], model.layer.weights[:, 2])


def test_steps_of_gaussianised_pixels_shrink_with_the_root_of_their_number() -> None:
    def rate(side: int, **options: Any) -> float:
        return float(RBM(Images(1, side, side, 4), 4, **options).recommended["lr"])

    assert rate(4) == rate(8) == 0.002
    assert rate(16) == pytest.approx(0.001)  # four times the pixels, half the step
    assert rate(16, pixels="standard") == rate(8, pixels="standard")
    assert RBM(Bits((16, 16)), 4).recommended["lr"] == RBM(Bits((8, 8)), 4).recommended["lr"]
