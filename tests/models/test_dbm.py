"""Deep Boltzmann machines against enumeration of every state."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from leadline.core import Batch, Bits, DomainError
from leadline.core.randomness import bernoulli
from leadline.models.boltzmann.dbm import DBM
from leadline.models.boltzmann.rbm import RBM
from leadline.nets.centring import centred_gradients
from leadline.training import fit
from tests.tiny import tiny


def states(units: int) -> Tensor:
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=units)), dtype=torch.float64)


def machine(sizes: tuple[int, ...], scale: float = 1.0, *, pretrained: bool = False, **options: int) -> DBM:
    model = DBM(Bits((sizes[0],)), sizes[1:], centred=False, pretrained=pretrained, **options).double()
    source = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(scale * torch.empty(parameter.shape).normal_(generator=source))
    return model


def joint(model: DBM) -> Tensor:
    """Return log of the unnormalised probability of every state, visible units first: (2^D, 2^rest)."""
    s = states(sum(model.sizes))
    layers = s.split(model.sizes, 1)
    total = sum(layer @ bias for layer, bias in zip(layers, model.biases, strict=True))
    for weights, below, above in zip(model.weights, layers, layers[1:], strict=False):
        total = total + ((below @ weights) * above).sum(1)
    return total.view(2 ** model.sizes[0], -1)  # type: ignore[union-attr]


def exact(model: DBM) -> Tensor:
    """Return log p(v) of every state: (2^D,)."""
    return (joint(model).logsumexp(1) - joint(model).logsumexp((0, 1))).detach()


@pytest.mark.parametrize("sizes", [(4, 3), (4, 3, 2), (3, 2, 3, 2), (2, 3, 2, 2, 2)])
def test_log_partition_by_halves_is_brute_force(sizes: tuple[int, ...]) -> None:
    model = machine(sizes)
    assert model.log_partition("exact").value == pytest.approx(
        float(joint(model).detach().logsumexp((0, 1))), abs=1e-10
    )


@pytest.mark.parametrize("sizes", [(4, 3, 2), (3, 2, 3, 2)])
def test_the_mean_field_bound_lies_below_and_not_far(sizes: tuple[int, ...]) -> None:
    model = machine(sizes)
    bound, truth = model.log_prob(states(sizes[0])).detach(), exact(model)
    assert bool((bound <= truth + 1e-12).all())
    assert float((truth - bound).max()) < 0.5
    assert float(bound.exp().sum()) < 1


def test_one_hidden_layer_is_a_restricted_machine_with_a_tight_bound() -> None:
    model, plain = machine((4, 3)), RBM(Bits((4,)), 3).double()
    with torch.no_grad():
        plain.layer.weights.copy_(model.weights[0])
        plain.layer.visible_bias.copy_(model.biases[0])
        plain.layer.hidden_bias.copy_(model.biases[1])
    assert torch.allclose(model.log_prob(states(4)), plain.log_prob(states(4)), atol=1e-12)
    assert torch.allclose(model.encode(states(4)), plain.encode(states(4)), atol=1e-12)


def test_sweeps_of_mean_field_never_lower_the_bound_and_end_at_a_fixed_point() -> None:
    bounds = []
    for sweeps in (1, 2, 4, 8, 100):
        model = machine((4, 3, 2), sweeps=sweeps)
        bounds.append(model.log_prob(states(4)).detach())
    assert all(bool((later >= earlier - 1e-12).all()) for earlier, later in itertools.pairwise(bounds))
    held = model._mean_field(states(4))
    for number in (1, 2):
        assert torch.allclose(model._heard(held, number).sigmoid(), held[number], atol=1e-8)


def test_annealed_importance_sampling_finds_the_exact_log_partition() -> None:
    model = machine((6, 5, 4))
    found = model.log_partition("ais", chains=400, temperatures=300)
    assert found.stderr is not None
    assert abs(found.value - model.log_partition("exact").value) < 4 * found.stderr
    assert found.stderr < 0.1


def test_the_gradient_of_the_loss_is_the_hand_written_update() -> None:
    model = machine((4, 3, 2), chains=7)
    data = states(4)[[0, 5, 9]]
    loss = model.loss(Batch(data))
    loss.backward()
    with torch.no_grad():
        m = model._mean_field(data, 2)
        v, top = model.chain.split((4, 2), 1)
        below, middle, above = model.biases
        heard = v @ model.weights[0] + top @ model.weights[1].T + middle
        free = -(v @ below + top @ above + torch.log1p(heard.exp()).sum(1)).mean()
        energy = -sum((a @ W * b).sum(1) for a, W, b in zip(m, model.weights, m[1:], strict=False)).mean()
        energy = energy - sum((each @ b).mean() for each, b in zip(m, model.biases, strict=True))
        assert float(loss) == pytest.approx(float(energy - free), abs=1e-12)
        h = (v @ model.weights[0] + top @ model.weights[1].T + model.biases[1]).sigmoid()
        wanted = [v.T @ h / 7 - m[0].T @ m[1] / 3, h.T @ top / 7 - m[1].T @ m[2] / 3]
        biases = [end.mean(0) - data.mean(0) for end, data in zip((v, h, top), m, strict=True)]
    for parameter, gradient in zip([*model.weights, *model.biases], [*wanted, *biases], strict=True):
        assert parameter.grad is not None
        assert torch.allclose(parameter.grad, gradient, atol=1e-12)


def test_long_chains_give_the_gradient_of_the_bound() -> None:
    model = machine((3, 2, 2), 0.7, chains=40_000, sweeps=200)
    data = states(3)[[0, 3, 6]]
    for _ in range(20):
        loss = model.loss(Batch(data))
    loss.backward()
    exact = torch.autograd.grad(-model.log_prob(data).mean(), list(model.parameters()))
    for parameter, gradient in zip(model.parameters(), exact, strict=True):
        assert parameter.grad is not None
        assert float((parameter.grad - gradient).abs().max()) < 4 * 0.5 / math.sqrt(40_000)


def test_the_loss_takes_two_sweeps_and_a_bound_all() -> None:
    models = [machine((4, 3, 2), sweeps=sweeps, chains=7).eval() for sweeps in (1, 2, 20)]
    figures = []
    for model in models:
        torch.manual_seed(0)
        figures.append(model.loss(Batch(states(4))).item())
    assert figures[0] != figures[1] == figures[2]
    with torch.no_grad():
        one, two, all_of_them = (model._unnormalised(states(4)).sum() for model in models)
    assert one < two < all_of_them


def test_what_is_recommended_lets_weights_decay_only_where_they_would_grow_without_end() -> None:
    domain = Bits((4,))
    assert "weight_decay" not in DBM(domain, (3, 2)).recommended
    assert DBM(domain, (3, 2), centred=False).recommended["weight_decay"] > 0
    assert DBM(domain, (3, 2), pretrained=True).recommended["weight_decay"] > 0


def test_samples_have_the_exact_probabilities(generator: torch.Generator) -> None:
    model, n = machine((3, 2, 2)), 20_000
    x = model.sample(n, generator, steps=60)
    counts = torch.bincount(x.long() @ torch.tensor([4, 2, 1]), minlength=8) / n
    p = exact(model).exp()
    assert bool(((counts - p).abs() < 4 * (p * (1 - p) / n).sqrt()).all())


def test_pretraining_doubles_what_a_layer_will_hear_from_its_other_side() -> None:
    assert not machine((4, 3, 3, 2)).stages()
    model = machine((4, 3, 3, 2), pretrained=True)
    v, h = states(4), states(3)
    first, second, third = model.stages()
    assert torch.allclose(first.encode(v), (2 * v @ model.weights[0] + model.biases[1]).sigmoid())  # type: ignore[operator]
    assert torch.allclose(second.encode(h), (2 * h @ model.weights[1] + model.biases[2]).sigmoid())  # type: ignore[operator]
    assert torch.allclose(third.encode(h), (h @ model.weights[2] + model.biases[3]).sigmoid())  # type: ignore[operator]
    # the visible layer has no other side, the others have
    for stage, down in ((first, 1), (second, 2), (third, 2)):
        assert stage.down == down


def test_codes_decode_to_bits_and_persistent_chains_are_kept() -> None:
    data = tiny("bits")
    model = DBM.for_data(data, hidden=(6, 4))
    before = float(model.log_prob(data.train.x).detach().mean())
    start = model.chain.clone()
    run = fit(model, data, steps=400, lr=0.02, select="last", threads=1, out=False, progress=False)
    assert float(run.model.log_prob(data.train.x).detach().mean()) > before + 0.3
    assert not torch.equal(model.chain, start)
    assert "chain" in model.state_dict()
    back = model.decode(model.encode(data.test.x))
    assert back.shape == data.test.x.shape
    assert data.domain.validated(back).dtype == torch.uint8


def test_decoding_keeps_to_what_the_top_says_where_another_mode_is_wider() -> None:
    model = DBM(Bits((4,)), (2, 2))
    with torch.no_grad():
        model.weights[0].copy_(4 * torch.tensor([[1.0, 0], [1, 0], [1, 0], [0, 1]]))
        model.weights[1].copy_(torch.tensor([[3.0, -3], [-3, 3]]))
        model.biases[0].fill_(-3)
    codes = torch.eye(2)
    # three bits at a half each would switch on the first unit, against the code
    assert model.decode(codes).tolist() == [[1, 1, 1, 0], [0, 0, 0, 1]]


def test_the_way_down_doubles_what_an_inner_layer_will_hear_from_below() -> None:
    model = DBM(Bits((1,)), (1, 1), sweeps=1)
    with torch.no_grad():
        values = (4.0, 2.0, -2.0, -3.4, 0.0)
        for parameter, value in zip([*model.weights, *model.biases], values, strict=True):
            parameter.fill_(value)
    # doubled, the unit hears 4 - 3.4 and the bit begins at 0.64; else it hears 2 - 3.4 and the bit goes off
    assert model.decode(torch.ones(1, 1)).tolist() == [[1]]


def test_the_way_down_does_not_double_what_the_bits_hear() -> None:
    model = DBM(Bits((1,)), (1, 1), sweeps=1)
    with torch.no_grad():
        for parameter, value in zip(
            [*model.weights, *model.biases], (8.0, 2.0, -5.0, -4.5, 0.0), strict=True
        ):
            parameter.fill_(value)
    # the unit is at sigmoid(4 - 4.5) = 0.38, the bit begins at sigmoid(3.02 - 5) = 0.12, the unit falls to
    # sigmoid(8 * 0.12 + 2 - 4.5) = 0.18 and the bit hears 1.42 - 5; doubled it would begin at 0.74 and stay
    assert model.decode(torch.ones(1, 1)).tolist() == [[0]]


def test_what_it_cannot_hold_is_refused_with_the_way_out() -> None:
    with pytest.raises(DomainError, match="binarize"):
        DBM.for_data(tiny("images"))
    for options in ({"hidden": ()}, {"steps": 0}, {"chains": 0}, {"sweeps": 0}, {"burn_in": 0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            DBM(Bits((4,)), **options)


def test_mean_field_begins_on_a_pass_up_that_doubles_what_inner_layers_hear() -> None:
    model, v = machine((4, 3, 2), sweeps=1), states(4)
    first, second = model.weights
    _, b, c = model.biases
    top = ((2 * v @ first + b).sigmoid() @ second + c).sigmoid()
    inner = (v @ first + top @ second.T + b).sigmoid()
    assert torch.allclose(model.encode(v), (inner @ second + c).sigmoid(), atol=1e-12)


def test_in_evaluation_the_loss_is_minus_the_log_pseudo_likelihood_of_the_bound() -> None:
    model, row, n = machine((4, 3, 2), sweeps=2).eval(), 11, 20_000
    bound = model.log_prob(states(4)).detach()
    others = [row ^ (1 << place) for place in range(4)]  # the states that differ from row in one bit
    each = torch.stack([bound[row] - torch.logaddexp(bound[row], bound[other]) for other in others])
    found = model.loss(Batch(states(4)[[row]].repeat(n, 1))).item()
    assert abs(found + float(each.sum())) < 4 * float((4 * each).std(correction=0)) / math.sqrt(n)


def test_the_centred_gradient_is_that_of_the_means_of_mean_field() -> None:
    plain = machine((4, 3, 2), chains=7)
    model = DBM(plain.domain, plain.sizes[1:], chains=7).double()
    model.load_state_dict(plain.state_dict(), strict=False)
    data = states(4)[[0, 5, 9]]
    gradients = []
    for each in (plain, model):
        torch.manual_seed(0)
        each.loss(Batch(data)).backward()
        gradients.append([parameter.grad for parameter in (*each.weights, *each.biases)])
    means = [state.mean(0).detach() for state in plain._mean_field(data, 2)]
    wanted = centred_gradients(gradients[0][:2], gradients[0][2:], means)  # type: ignore[arg-type]
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(gradients[1], wanted, strict=True))  # type: ignore[arg-type]


@pytest.mark.parametrize(("number", "doubled", "heard"), [(0, 2, 1), (1, 2, 2), (2, 1, 2)])
def test_a_stage_learns_by_the_contrast_of_units_that_hear_double(
    number: int, doubled: int, heard: int
) -> None:
    model = machine((4, 3, 3, 2), pretrained=True)
    stage, v = model.stages()[number], states(model.sizes[number])
    weights, below, above = model.weights[number], model.biases[number], model.biases[number + 1]
    torch.manual_seed(0)
    stage.train().loss(Batch(v)).backward()  # type: ignore[operator]
    torch.manual_seed(0)
    with torch.no_grad():
        start = bernoulli(v)
        up = (doubled * start @ weights + above).sigmoid()
        end = bernoulli((heard * bernoulli(up) @ weights.T + below).sigmoid())
        after = (doubled * end @ weights + above).sigmoid()
        slopes = [(end.T @ after - start.T @ up) / len(v), (end - start).mean(0), (after - up).mean(0)]
        told = stage.eval().loss(Batch(v))  # type: ignore[operator]
        log_p = torch.distributions.Bernoulli(logits=heard * up @ weights.T + below).log_prob(start)
    for parameter, slope in zip((weights, below, above), slopes, strict=True):
        assert parameter.grad is not None
        assert torch.allclose(parameter.grad, slope, atol=1e-12)
    assert float(told) == pytest.approx(-float(log_p.sum(1).mean()), abs=1e-10)


def test_a_filter_is_the_column_of_a_hidden_unit() -> None:
    model = machine((4, 3, 2))
    assert torch.equal(model.filters()[2], model.weights[0][:, 2])
