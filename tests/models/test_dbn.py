"""Deep belief nets against enumeration of every state."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from leadline.core import Batch, Bits, DomainError, OptionError, Vectors
from leadline.models.boltzmann.dbn import DBN
from leadline.models.boltzmann.rbm import RBM
from leadline.training import fit
from tests.tiny import tiny


def states(units: int) -> Tensor:
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=units)), dtype=torch.float64)


def net(visible: int, hidden: tuple[int, ...], scale: float = 1.0) -> DBN:
    """Return a float64 net with all parameters far from zero, so that recognition is not inference."""
    model = DBN(Bits((visible,)), hidden).double()
    source = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(scale * torch.empty(parameter.shape).normal_(generator=source))
    return model


def log_bits(logits: Tensor, bits: Tensor) -> Tensor:
    """Return log p of every row of bits under every row of logits: (a, u), (b, u) -> (a, b)."""
    each = torch.distributions.Bernoulli(logits=logits[:, None])
    return each.log_prob(bits[None].expand(len(logits), -1, -1)).sum(-1)


def exact(model: DBN) -> Tensor:
    """Return log p(v) of every state, by summing over all hidden layers from the top: (2^D,)."""
    top = model.top
    below = states(top.weights.shape[0])
    above = states(top.weights.shape[1])
    joint = (below @ top.visible_bias)[:, None] + above @ top.hidden_bias + below @ top.weights @ above.T
    log_p = joint.logsumexp(1) - joint.logsumexp((0, 1))
    for layer in reversed(model.lower):
        h = states(layer.weights.shape[1])
        logits = h @ layer.weights.T + layer.visible_bias
        log_p = (log_bits(logits, states(layer.weights.shape[0])) + log_p[:, None]).logsumexp(0)
    return log_p.detach()


def exact_elbo(model: DBN) -> Tensor:
    """Return the variational bound of every state for two hidden layers, by summing over h_1: (2^D,)."""
    layer, v, h = model.lower[0], states(model.domain.dims), states(model.top.weights.shape[0])
    log_q = log_bits(v @ model.recognition[0] + layer.hidden_bias, h)  # (v, h)
    down = log_bits(h @ layer.weights.T + layer.visible_bias, v).T
    top = -model.top.free_energy(h) - model.top.log_partition()
    return (log_q.exp() * (down + top - log_q)).sum(1).detach()


@pytest.mark.parametrize("hidden", [(3, 2), (3, 4, 2), (5,)])
def test_the_bound_lies_below_the_exact_value_and_reaches_it_with_many_draws(hidden: tuple[int, ...]) -> None:
    model = net(4, hidden, 0.5)
    truth, x = exact(model), states(4)
    assert truth.exp().sum().item() == pytest.approx(1, abs=1e-10)
    elbo = model.elbo(x, samples=200).detach()
    few, many = (model.log_prob(x, samples=count).detach() for count in (2, 1000))
    assert bool((elbo < truth + 1e-9).all()) or len(hidden) == 1
    assert elbo.mean() <= few.mean() + 0.1
    assert few.mean() <= truth.mean() + 0.1
    assert torch.allclose(many, truth, atol=0.1)


def test_the_mean_of_the_bound_is_that_of_the_sum_over_states() -> None:
    model = net(4, (3, 2), 0.7)
    n = 2000
    log_weights = model._log_weights(states(4), n, torch.Generator().manual_seed(1)).detach()
    error = log_weights.std(0) / math.sqrt(n)
    assert bool(((log_weights.mean(0) - exact_elbo(model)).abs() < 4 * error + 1e-9).all())


def tied(machine: RBM) -> DBN:
    """Return the net whose lower layer is the machine and whose top machine is its mirror image."""
    visible, hidden = machine.layer.weights.shape
    model = DBN(machine.domain, (hidden, visible)).double()
    with torch.no_grad():
        for name, value in machine.layer.named_parameters():
            getattr(model.lower[0], name).copy_(value)
        model.top.weights.copy_(machine.layer.weights.T)
        model.top.visible_bias.copy_(machine.layer.hidden_bias)
        model.top.hidden_bias.copy_(machine.layer.visible_bias)
    model.join()
    return model


def moved_machine() -> RBM:
    machine = RBM(Bits((5,)), 3).double()
    source = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for parameter in machine.parameters():
            parameter.copy_(torch.empty(parameter.shape).normal_(generator=source))
    return machine


def test_a_net_whose_top_is_tied_is_the_machine_exactly_and_the_bound_is_tight() -> None:
    machine = moved_machine()
    model, x = tied(machine), states(5)
    assert torch.allclose(exact(model), machine.log_prob(x), atol=1e-12)
    assert torch.allclose(model.elbo(x, samples=1), machine.log_prob(x), atol=1e-10)  # every single draw
    assert torch.allclose(model.log_prob(x), machine.log_prob(x), atol=1e-10)


def test_what_the_top_machine_gains_on_the_codes_the_bound_gains() -> None:
    model = tied(moved_machine())
    data, h = states(5)[[0, 3, 3, 9, 30]], states(3)
    weights = log_bits(data @ model.recognition[0] + model.lower[0].hidden_bias, h).exp().mean(0)

    def top_likelihood() -> Tensor:
        return weights.detach() @ (-model.top.free_energy(h) - model.top.log_partition())

    index = (data @ (2 ** torch.arange(4, -1, -1)).double()).long()
    before, bound = float(top_likelihood().detach()), exact_elbo(model)[index].mean()
    optimizer = torch.optim.SGD(model.top.parameters(), lr=0.1)
    for _ in range(50):
        optimizer.zero_grad()
        (-top_likelihood()).backward()
        optimizer.step()
    gain = float(top_likelihood().detach()) - before
    assert gain > 0.05
    assert float(exact_elbo(model)[index].mean() - bound) == pytest.approx(gain, abs=1e-9)
    assert float(exact(model)[index].mean()) >= float(bound) + gain - 1e-9


def test_the_way_up_trains_generation_and_the_way_down_recognition() -> None:
    model = net(3, (2, 2), 0.8)
    data, n = states(3)[[1, 6]], 40_000
    model.train().loss(Batch(data.repeat(n // 2, 1))).backward()
    model.requires_grad_(requires_grad=False)
    layer, h = model.lower[0], states(2)
    q = log_bits(data @ model.recognition[0] + layer.hidden_bias, h).exp()  # (2, 4)
    p = (h @ layer.weights.T + layer.visible_bias).sigmoid()
    # d/dW of -log p(v | h) is (p - v) h^T, averaged over data and q
    wake = sum(float(q[i, j]) * torch.outer(p[j] - data[i], h[j]) / 2 for i in range(2) for j in range(4))
    assert layer.weights.grad is not None
    error = 4 * 0.5 / math.sqrt(n)
    assert float((layer.weights.grad - wake).detach().abs().max()) < error
    # on the way down h_1 is the end of one Gibbs step of the top machine begun at q, and v is drawn given it
    top = (h @ model.top.visible_bias)[:, None] + h @ model.top.hidden_bias + h @ model.top.weights @ h.T
    end = q.mean(0) @ top.softmax(1) @ top.softmax(0).T
    v = states(3)
    chance = log_bits(h @ layer.weights.T + layer.visible_bias, v).exp()  # (h, v)
    on = (v @ model.recognition[0] + layer.hidden_bias).sigmoid()
    sleep = sum(
        float(end[j] * chance[j, i]) * torch.outer(v[i], on[i] - h[j]) for j in range(4) for i in range(8)
    )
    assert model.recognition[0].grad is not None
    assert float((model.recognition[0].grad - sleep).detach().abs().max()) < error


def test_samples_have_the_exact_probabilities(generator: torch.Generator) -> None:
    model, n = net(3, (2, 2)), 20_000
    x = model.sample(n, generator, steps=40)
    counts = torch.bincount(x.long() @ torch.tensor([4, 2, 1]), minlength=8) / n
    p = exact(model).exp()
    assert bool(((counts - p).abs() < 4 * (p * (1 - p) / n).sqrt()).all())


def test_persistent_chains_of_the_top_machine_begin_the_way_down() -> None:
    model = DBN(Bits((4,)), (3, 2), persistent=True, chains=7)
    start = model.top.chain.clone()
    model.loss(Batch(states(4))).backward()
    assert model.top.chain.shape == (7, 3)
    assert not torch.equal(model.top.chain, start)
    assert not len(model.lower[0].chain)
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_layers_are_learned_in_turn_then_part() -> None:
    data = tiny("bits")
    model = DBN.for_data(data, hidden=(6, 5, 4))
    stages = model.stages()
    assert len(stages) == 3
    codes = stages[0].encode(data.train.x).detach()  # type: ignore[operator]
    assert torch.equal(codes, model.layers[0].hidden(data.train.x.flatten(1).float()))  # type: ignore[operator]
    stages[1].loss(Batch(codes)).backward()  # type: ignore[operator]
    assert model.layers[1].weights.grad is not None  # type: ignore[union-attr]
    with torch.no_grad():
        model.lower[1].weights.add_(1.0)
    model.join()
    assert all(
        torch.equal(up, layer.weights) for up, layer in zip(model.recognition, model.lower, strict=True)
    )


def test_a_layer_starts_once_as_the_transpose_of_the_one_below_and_the_bound_is_tight_there() -> None:
    model = DBN(Bits((5,)), (3, 5, 3), tied=True).double()
    source, x = torch.Generator().manual_seed(8), states(5)
    with torch.no_grad():
        for parameter in model.layers[0].parameters():
            parameter.copy_(torch.empty(parameter.shape).normal_(generator=source))
    first, second, third = (stage.train() for stage in model.stages())
    codes = first.encode(x).detach()  # type: ignore[operator]
    assert not any(parameter is model.layers[0].weights for parameter in second.parameters())  # type: ignore[union-attr]
    second.eval().loss(Batch(codes))  # type: ignore[operator]
    assert not torch.equal(model.layers[1].weights, model.layers[0].weights.T)  # type: ignore[union-attr]
    second.train().loss(Batch(codes))  # type: ignore[operator]
    machine = RBM(Bits((5,)), 3).double()
    machine.layer.load_state_dict(
        {n: t for n, t in model.layers[0].state_dict().items() if n != "chain"}, False
    )
    two = DBN(Bits((5,)), (3, 5)).double()
    two.layers = model.layers[:2]  # type: ignore[assignment]
    two.join()
    assert torch.allclose(two.log_prob(x), machine.log_prob(x), atol=1e-10)
    with torch.no_grad():
        model.layers[1].weights.add_(1.0)  # type: ignore[union-attr]
    second.loss(Batch(codes))  # type: ignore[operator]
    assert not torch.equal(model.layers[1].weights, model.layers[0].weights.T)  # type: ignore[union-attr]
    third.loss(Batch(second.encode(codes).detach()))  # type: ignore[operator]
    assert torch.equal(model.layers[2].weights, model.layers[1].weights.T)  # type: ignore[union-attr]


@pytest.mark.parametrize("hidden", [(3, 4), (5, 3)])
def test_a_layer_of_another_width_starts_as_it_would_alone(hidden: tuple[int, int]) -> None:
    model = DBN(Bits((5,)), hidden, tied=True)
    start = model.top.weights.clone()
    model.stages()[1].train().loss(Batch(torch.rand(4, hidden[0])))  # type: ignore[operator]
    assert torch.equal(model.top.weights, start)


def test_real_units_are_not_mirrored_by_bits() -> None:
    model = DBN(Vectors.standard(5), (3, 5), tied=True)
    start = model.top.weights.clone()
    model.stages()[1].train().loss(Batch(torch.rand(4, 3)))  # type: ignore[operator]
    assert torch.equal(model.top.weights, start)


def test_no_net_beats_the_entropy_of_bars_and_stripes() -> None:
    # 2 x 2: blank and full 1/4 each, four others 1/8: -(2/4 ln 4 + 4/8 ln 8) = -1.7328680
    patterns = (
        [[0, 0, 0, 0]] * 2 + [[1, 1, 1, 1]] * 2 + [[1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 1, 0], [0, 1, 0, 1]]
    )
    x = torch.tensor(patterns, dtype=torch.uint8)
    model = DBN(Bits((4,)), (8, 6), steps=2)
    untrained = float(model.log_prob(x).detach().mean())
    batch = Batch(x.repeat(8, 1))
    learners: list[nn.Module] = [*model.stages(), model]
    codes = x.repeat(8, 1)
    for number, learner in enumerate(learners):
        optimizer = torch.optim.SGD(learner.parameters(), lr=0.3 if number < 2 else 0.05, momentum=0.9)
        for _ in range(250):
            optimizer.zero_grad()
            learner.loss(Batch(codes) if number == 1 else batch).backward()  # type: ignore[operator]
            optimizer.step()
        if number == 0:
            codes = learner.encode(codes).detach()  # type: ignore[operator]
        if number == 1:
            model.join()
    model = model.double()
    truth = exact(model)[(x.double() @ torch.tensor([8.0, 4.0, 2.0, 1.0]).double()).long()].mean()
    assert untrained < -2.7
    assert -2.3 < float(truth) <= -1.7328679
    assert float(model.elbo(x, samples=200).detach().mean()) <= float(truth) + 1e-6


def test_large_tops_say_that_the_bound_is_an_estimate() -> None:
    model = DBN(Bits((22,)), (22, 21))
    x = torch.zeros(2, 22, dtype=torch.uint8)
    first = model.log_prob(x)
    assert torch.equal(first, model.log_prob(x))
    assert model.density.kind == "lower bound"
    assert model.density.protocol.startswith("estimate of a lower bound")
    assert model.density.stderr > 0
    with pytest.raises(RuntimeError, match="estimate"):
        first.sum().backward()


def test_a_net_of_real_columns_gains_from_training_and_samples_them(generator: torch.Generator) -> None:
    data = tiny("vectors")
    model = DBN.for_data(data, hidden=(8, 4))
    before = float(model.log_prob(data.test.x).detach().mean())
    run = fit(model, data, steps=150, select="last", threads=1, out=False, progress=False)
    after = float(run.model.log_prob(data.test.x).detach().mean())
    assert after > before + 0.1
    x = run.model.sample(500, generator, steps=50)
    gap = (x.mean(0) - data.train.x.mean(0)).abs() / data.train.x.std(0)
    assert bool((gap < 0.5).all())


def test_what_it_cannot_hold_is_refused() -> None:
    with pytest.raises(DomainError, match="needs Bits or Images or Vectors"):
        DBN.for_data(tiny("tokens"))
    for options in ({"hidden": ()}, {"hidden": (3, 0)}, {"steps": 0}, {"burn_in": 0}, {"chains": 0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            DBN(Bits((4,)), **options)
    with pytest.raises(OptionError, match="samples"):
        DBN(Vectors.standard(2), (3, 2)).log_prob(torch.zeros(1, 2), samples=0)
