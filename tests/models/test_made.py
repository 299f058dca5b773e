"""MADE: order, normalisation, mixtures, and the sampler that computes each unit once."""

import copy
import math

import pytest
import torch
from torch import Tensor

from leadline.core import (
    Batch,
    Bits,
    Categories,
    Counts,
    Domain,
    Images,
    OptionError,
    Signature,
    Tokens,
    Vectors,
)
from leadline.models.autoregressive.made import MADE
from leadline.nets.masked import spread_degrees
from tests.tiny import EVEN, tiny

DISCRETE = [
    Bits((1, 3, 3)),
    Categories((2, 3, 4)),
    Tokens(tuple("abc"), 4),
    Images(1, 2, 2, 4),
]
SHAPES = [
    {"hidden": (20,)},
    {"hidden": (7, 30, 11), "direct": True, "orders": 3, "masks": 2, "activation": "tanh"},
]


def made(domain: Domain, moved, **options) -> MADE:
    return moved(MADE.for_data(Signature(domain), **options)).double().eval().requires_grad_(False)


def naive(model: MADE, n: int, component: int, generator: torch.Generator) -> Tensor:
    """Draw by a whole pass for every dimension, from the same noise in the same order."""
    flat = torch.zeros(n, model.domain.dims, dtype=torch.float64)
    dtype = flat.dtype if model.domain.dtype.is_floating_point else model.domain.dtype
    for dim in model.orders[component].tolist():
        x = flat.to(dtype).view(n, *model.domain.shape)
        params = model.net(model.domain.features(x, flat), component)
        mine = params[:, model.likelihood.owners == dim]
        flat[:, dim] = model.likelihood.column(dim).sample(mine, generator)[:, 0]
    return flat.to(dtype).view(n, *model.domain.shape)


@pytest.mark.parametrize("options", SHAPES)
@pytest.mark.parametrize("domain", DISCRETE, ids=str)
def test_probabilities_of_all_states_sum_to_one_in_every_component_and_in_the_mixture(domain, options, moved):
    model, states = made(domain, moved, **options), domain.states()
    for component in range(len(model.orders)):
        assert float(model.conditionals(states, component).sum(1).exp().sum()) == pytest.approx(1, abs=1e-10)
    assert float(model.log_prob(states).exp().sum()) == pytest.approx(1, abs=1e-10)


@pytest.mark.parametrize("options", SHAPES)
@pytest.mark.parametrize("domain", [*DISCRETE[:3], Vectors.standard(5)], ids=str)
def test_no_output_reads_its_own_dimension_or_a_later_one(domain, options, moved):
    model = made(domain, moved, **options)
    features = torch.randn(16, domain.feature_count, dtype=torch.float64)
    for component, order in enumerate(model.orders):
        place = order.argsort()
        jacobian = (
            torch.autograd.functional.jacobian(lambda f, c=component: model.net(f, c).sum(0), features)
            .abs()
            .amax(1)
        )  # (P, 16, f) -> (P, f)
        reads = place[domain.feature_owners][None] < place[model.likelihood.owners][:, None]
        assert jacobian[~reads].max() == 0
        # and each dimension but the first does read what comes before it
        assert all(jacobian[model.likelihood.owners == dim].max() > 0 for dim in order[1:])


def test_the_first_order_is_the_natural_one_and_all_orders_are_permutations_that_differ(moved):
    model = MADE.for_data(Signature(Bits((9,))), orders=4)
    assert model.orders[0].tolist() == list(range(9))
    assert torch.equal(model.orders.sort(1).values, torch.arange(9).expand(4, 9))
    assert len({tuple(order.tolist()) for order in model.orders}) == 4


def test_the_mixture_is_the_mean_of_the_components_probabilities(moved):
    model = made(Bits((6,)), moved, hidden=(20,), orders=2, masks=3)
    states = model.domain.states()
    each = torch.stack([model.conditionals(states, component).sum(1).exp() for component in range(6)])
    assert torch.allclose(model.log_prob(states).exp(), each.mean(0))
    assert each.std(0).min() > 0  # components differ everywhere


@pytest.mark.parametrize("kind", EVEN)
def test_the_sampler_that_computes_each_unit_once_equals_whole_passes_with_the_same_noise(kind, moved):
    domain = tiny(kind).domain
    for options in SHAPES:
        model = made(domain, moved, **options)
        for component in range(len(model.orders)):
            fast, slow = (torch.Generator().manual_seed(3) for _ in range(2))
            drawn = model._drawn(50, component, fast)
            with torch.no_grad():
                expected = naive(model, 50, component, slow)
            assert drawn.dtype == expected.dtype
            assert torch.allclose(drawn.double(), expected.double(), rtol=1e-9)


@pytest.mark.parametrize("options", SHAPES)
def test_samples_are_as_frequent_as_log_prob_says(options, moved, generator):
    model, n = made(Categories((2, 3, 2)), moved, **options), 20_000
    states = model.domain.states()
    p = model.log_prob(states).exp()
    code = model.sample(n, generator) @ torch.tensor([6, 2, 1])
    observed = torch.bincount(code, minlength=12) / n
    # four standard errors of a binomial frequency
    assert ((observed - p).abs() <= 4 * (p * (1 - p) / n).sqrt()).all()


def test_samples_of_several_components_stand_in_no_order_of_components(moved, generator):
    model = made(Bits((1,)), moved, orders=1, masks=2)
    model.net.head.bias.data.zero_()
    x = model.sample(4000, generator).double().flatten()
    # a fair coin: halves agree within four standard errors, 4 sqrt(2 * 0.25 / 2000)
    assert abs(float(x[:2000].mean() - x[2000:].mean())) < 4 * math.sqrt(0.5 / 2000)


def test_density_of_vectors_is_that_of_raw_values(moved):
    domain = Vectors(("a", "b"), (100.0, -3.0), (10.0, 0.2))
    model = made(domain, moved, hidden=(16,), orders=2)
    axis = torch.linspace(-8, 8, 400, dtype=torch.float64)
    step = float(axis[1] - axis[0])
    unit = torch.cartesian_prod(axis, axis)
    x = unit * torch.tensor([10.0, 0.2]) + torch.tensor([100.0, -3.0])
    mass = model.log_prob(x).exp().sum() * step**2 * 10.0 * 0.2
    assert float(mass) == pytest.approx(1, abs=1e-3)


def test_counts_sum_to_one_up_to_the_tail(moved):
    model = made(Counts(("a", "b")), moved, hidden=(8,))
    grid = torch.cartesian_prod(torch.arange(40), torch.arange(40))
    assert float(model.log_prob(grid).exp().sum()) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("kind", EVEN)
def test_training_improves_the_likelihood_of_every_domain(kind):
    data = tiny(kind)
    model = MADE.for_data(data, hidden=(32,), orders=2, masks=2)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    before = model.eval().log_prob(data.train.x).mean()
    model.train()
    for _ in range(30):
        optimizer.zero_grad()
        model.loss(Batch(data.train.x)).backward()
        optimizer.step()
    assert model.eval().log_prob(data.train.x).mean() > before + 0.1
    assert torch.allclose(model.loss(Batch(data.train.x)), -model.log_prob(data.train.x).mean())
    assert model.encode(data.train.x).shape == (120, 32)


def test_a_model_built_again_from_its_state_is_equal_even_under_another_seed(moved):
    model = moved(MADE.for_data(Signature(Bits((8,))), hidden=(20, 9), orders=3, masks=2, seed=1)).eval()
    twin = MADE.for_data(Signature(Bits((8,))), hidden=(20, 9), orders=3, masks=2, seed=2).eval()
    states = model.domain.states()
    twin.load_state_dict(copy.deepcopy(model.state_dict()))
    assert torch.equal(model.log_prob(states), twin.log_prob(states))
    draws = [m.sample(20, torch.Generator().manual_seed(0)) for m in (model, twin)]
    assert torch.equal(*draws)


def test_training_visits_every_component():
    model = MADE.for_data(Signature(Bits((5,))), orders=3, hidden=(16,))
    x = torch.tensor([[0, 1, 1, 0, 1]], dtype=torch.uint8)
    each = {round(-model.conditionals(x, c).sum().item(), 5) for c in range(3)}
    assert {round(model.loss(Batch(x)).item(), 5) for _ in range(60)} == each


def test_degrees_are_even_and_hold_both_ends():
    assert spread_degrees(8, 5).tolist() == [1, 1, 2, 2, 3, 3, 4, 4]
    assert spread_degrees(2, 100).tolist() == [1, 99]
    assert spread_degrees(1, 1).tolist() == [1]
    shuffled = spread_degrees(50, 9, torch.Generator().manual_seed(0))
    assert torch.equal(shuffled.sort().values, spread_degrees(50, 9))
    assert not torch.equal(shuffled, spread_degrees(50, 9))


def test_a_single_dimension_is_a_single_distribution(moved):
    model = made(Categories((5,)), moved)
    assert float(model.log_prob(model.domain.states()).exp().sum()) == pytest.approx(1)


@pytest.mark.parametrize(
    "options", [{"hidden": ()}, {"hidden": (0,)}, {"orders": 0}, {"masks": 0}, {"activation": "none"}]
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(OptionError):
        MADE.for_data(Signature(Bits((4,))), **options)
