"""RealNVP: inverse, log-determinant, normalisation, dequantisation, sizes."""

import math

import pytest
import torch
from torch import Tensor

from leadline.core import Batch, Bits, Categories, DomainError, Images, OptionError, Signature, Vectors
from leadline.models.flows.realnvp import RealNVP
from leadline.nets.coupling import Couplings, PictureFlow, _crossed, _squeezed, _unsqueezed, conditioner
from tests.tiny import tiny

# dense and convolutional, odd sides, one dimension, several scales, odd numbers of couplings
CASES = [
    (Vectors.standard(1), {}),
    (Vectors.standard(5), {"couplings": 3}),
    (Vectors(("a", "b"), (100.0, -3.0), (10.0, 0.2)), {}),
    (Bits((7,)), {}),
    (Images(1, 1, 1, 4), {"pixels": "standard"}),
    (Images(1, 7, 7, 16), {}),
    (Images(3, 5, 3, 256), {"couplings": 2}),
    (Images(1, 2, 2, 4), {"architecture": "conv", "channels": 8}),
    (Images(2, 4, 4, 4), {"architecture": "conv", "channels": 8, "couplings": 3}),
    (Bits((1, 8, 8)), {"architecture": "conv", "channels": 8, "scales": 3, "couplings": 2, "blocks": 0}),
    (Images(1, 7, 7, 16), {"pixels": "standard"}),
    (Images(2, 4, 4, 4), {"architecture": "conv", "channels": 8, "pixels": "standard"}),
    (Images(3, 4, 8, 256), {"architecture": "conv", "channels": 8, "scales": 2, "couplings": 1}),
]


def realnvp(domain, moved, **options) -> RealNVP:
    options = {"hidden": (16, 16), **options}
    return moved(RealNVP.for_data(Signature(domain), **options)).double().eval().requires_grad_(False)


def inside(domain, n: int) -> Tensor:
    """Return real coordinates well inside the range of the domain."""
    unit = torch.rand(n, *domain.shape, dtype=torch.float64)
    return 4 * unit - 2 if isinstance(domain, Vectors) else 0.02 + 0.96 * unit


@pytest.mark.parametrize(("domain", "options"), CASES, ids=str)
def test_the_log_determinant_is_that_of_the_jacobian_by_autograd(domain, options, moved):
    model = realnvp(domain, moved, **options)
    u = inside(domain, 2)
    codes, log_det = model._codes(u)
    assert codes.shape == (2, domain.dims)
    for row in range(2):
        jacobian = torch.autograd.functional.jacobian(lambda v: model._codes(v[None])[0][0], u[row])
        expected = torch.linalg.slogdet(jacobian.view(domain.dims, domain.dims)).logabsdet
        assert float(log_det[row]) == pytest.approx(float(expected), abs=1e-8)
    assert log_det[0] != log_det[1] or isinstance(domain, Vectors)


@pytest.mark.parametrize(("domain", "options"), CASES, ids=str)
def test_the_inverse_undoes_the_flow(domain, options, moved):
    model = realnvp(domain, moved, **options)
    y = (
        3
        * torch.randn(20, *(domain.shape if isinstance(model.flow, PictureFlow) else (domain.dims,))).double()
    )
    back = model.flow.inverse(model.flow(y)[0])
    assert back.shape == y.shape
    assert float((back - y).abs().max()) < 1e-9
    single = model.float().flow
    error = (single.inverse(single(y.float())[0]) - y).abs().max()
    assert float(error) < 1e-3


@pytest.mark.parametrize(("domain", "options"), CASES, ids=str)
def test_every_dimension_reaches_others_in_the_flow(domain, options, moved):
    if domain.dims == 1:
        return
    model = realnvp(domain, moved, **{**options, "couplings": max(4, options.get("couplings", 8))})
    u = inside(domain, 1)[0]
    jacobian = torch.autograd.functional.jacobian(lambda v: model._codes(v[None])[0][0], u)
    reached = jacobian.view(domain.dims, domain.dims) != 0
    assert (reached.sum(0) > 1).all()
    assert (reached.sum(1) > 1).all()


def test_decode_gives_back_raw_samples_of_every_domain(moved):
    for kind in ("images", "bits", "vectors"):
        data = tiny(kind)
        model = realnvp(data.domain, moved).float()
        x = data.train.x
        back = model.decode(model.encode(x))
        assert back.dtype == x.dtype
        assert torch.allclose(back.double(), x.double(), rtol=1e-4)


def test_density_of_vectors_integrates_to_one_over_raw_values(moved):
    domain = Vectors(("a", "b"), (100.0, -3.0), (10.0, 0.2))
    model = realnvp(domain, moved)
    axis = torch.linspace(-10, 10, 500, dtype=torch.float64)
    unit = torch.cartesian_prod(axis, axis)
    x = unit * torch.tensor([10.0, 0.2]) + torch.tensor([100.0, -3.0])
    mass = model.log_prob(x).exp().sum() * float(axis[1] - axis[0]) ** 2 * 10.0 * 0.2
    assert float(mass) == pytest.approx(1, abs=1e-4)


def test_samples_of_vectors_are_as_dense_as_log_prob_says(moved, generator):
    model = realnvp(Vectors.standard(2), moved)
    n = 20_000
    x = model.sample(n, generator)
    assert x.dtype == torch.float64
    axis = torch.linspace(-12, 12, 500, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    p = model.log_prob(grid).exp() * float(axis[1] - axis[0]) ** 2
    # the mean of log p over samples against minus the entropy by quadrature, within four standard errors
    score = model.log_prob(x)
    entropy = -(p * p.clamp(min=1e-300).log()).sum() + 2 * math.log(float(axis[1] - axis[0]))
    assert abs(float(score.mean() + entropy)) < 4 * float(score.std()) / math.sqrt(n) + 1e-4
    # and the mass of a half-plane
    half = float(p[grid[:, 0] > grid[:, 1]].sum())
    seen = float((x[:, 0] > x[:, 1]).double().mean())
    assert abs(seen - half) < 4 * math.sqrt(half * (1 - half) / n) + 5e-3


@pytest.mark.parametrize(
    ("domain", "options"),
    [(Bits((6,)), {}), (Bits((1, 2, 2)), {"architecture": "conv", "channels": 8}), (Images(1, 2, 2, 4), {})],
    ids=str,
)
def test_the_bound_sums_to_at_most_one_and_rises_with_more_draws(domain, options, moved):
    model = realnvp(domain, moved, **options)
    states = domain.states()
    sums = [float(model.log_prob(states, samples=k).exp().sum()) for k in (1, 16, 600)]
    means = [float(model.log_prob(states, samples=k).mean()) for k in (1, 16, 600)]
    assert sums[2] < 1.01  # the mean over 600 draws times all states strays by about 0.002
    assert sums[2] > 0.5
    assert means[0] < means[1] < means[2]


def test_the_bound_tends_to_the_frequency_of_samples(moved, generator):
    # The range is closed at both ends: draws outside go to the outer levels, so only inner ones agree.
    domain = Images(1, 1, 2, 4)
    model = realnvp(domain, moved)
    n, states = 40_000, domain.states()
    p = model.log_prob(states, samples=4000).exp()
    code = model.sample(n, generator).flatten(1).long() @ torch.tensor([4, 1])
    seen = torch.bincount(code, minlength=16) / n
    inner = ((states > 0) & (states < 3)).flatten(1).all(1)
    error = (seen - p).abs()
    assert (error[inner] < 4 * (p * (1 - p) / n).sqrt()[inner] + 1e-3).all()
    assert (seen[~inner] > p[~inner] - 4 * (p * (1 - p) / n).sqrt()[~inner] - 1e-3).all()


def test_a_uniform_density_over_the_cells_costs_log_levels_a_dimension():
    # With the base density replaced by U[0, 1) the bound must be exactly -d log(levels): 8 bits of 8 bits.
    domain = Images(1, 2, 2, 256)
    x = torch.randint(0, 256, (3, 1, 2, 2), dtype=torch.uint8)
    u = domain.continuous(x, torch.rand(3, 1, 2, 2))
    assert bool(((u >= 0) & (u < 1)).all())
    bits = -domain.log_volume / domain.dims / math.log(2)
    assert bits == pytest.approx(8)
    # (1980.50 / 784 + ln 256) / ln 2 = (2.526148 + 5.545177) / 0.693147 = 11.6444
    picture = Images(1, 28, 28, 256)
    assert (1980.50 - picture.log_volume) / 784 / math.log(2) == pytest.approx(11.6444, abs=1e-4)


def test_a_flow_that_is_the_identity_scores_by_the_logit_normal_alone():
    domain = Images(1, 2, 2, 4)
    model = RealNVP.for_data(Signature(domain), pixels="standard").double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    x = torch.tensor([[[[0, 1], [2, 3]]]], dtype=torch.uint8)
    p = 0.05 + 0.9 * (x.double() + 0.5) / 4
    y = (p / (1 - p)).log()
    normal = -0.5 * y.square() - 0.5 * math.log(2 * math.pi)
    expected = (normal - (p * (1 - p)).log() + math.log(0.9) - math.log(4)).sum()
    found = model._density_at(x, None)
    assert float(found.detach()) == pytest.approx(float(expected))


@pytest.mark.parametrize("kind", ["images", "bits", "vectors"])
def test_training_improves_the_bound_and_a_fresh_flow_is_close_to_the_identity(kind):
    data = tiny(kind)
    model = RealNVP.for_data(data, hidden=(32,), couplings=4)
    _, log_det = model.flow(torch.randn(9, data.domain.dims))
    assert float(log_det.detach().abs().max()) < 0.1
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    before = model.log_prob(data.train.x).mean().item()
    for _ in range(40):
        optimizer.zero_grad()
        model.loss(Batch(data.train.x)).backward()
        optimizer.step()
    assert all(
        parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in model.parameters()
    )
    assert model.log_prob(data.train.x).mean().item() > before + 0.1


def test_the_loss_is_minus_the_bound_with_one_draw(moved):
    data = tiny("bits")
    model = realnvp(data.domain, moved)
    x = data.train.x[:1].expand(4000, 1, 3, 3)
    loss = model.loss(Batch(x)).item()
    score = torch.stack([model.log_prob(x[:1], 1, torch.Generator().manual_seed(k))[0] for k in range(400)])
    assert abs(loss + float(score.mean())) < 4 * float(score.std()) * math.sqrt(1 / 400 + 1 / 4000)


def test_scores_repeat_and_belong_to_the_row(moved):
    data = tiny("images")
    model = realnvp(data.domain, moved)
    x = data.train.x[:6]
    assert torch.allclose(model.log_prob(x)[2:4], model.log_prob(x[2:4]))
    assert model.density.kind == "lower bound"
    assert realnvp(Vectors.standard(2), moved).density.kind == "exact"


def test_the_first_coupling_of_a_picture_changes_black_fields_by_white_ones(moved):
    u = torch.arange(16.0).view(1, 1, 4, 4)
    white, black = _squeezed(u)
    fields = (torch.arange(4)[:, None] + torch.arange(4)) % 2 == 0
    assert set(white.flatten().tolist()) == set(u[0, 0][fields].tolist())
    assert torch.equal(_unsqueezed(white, black), u)
    # across the checkerboard: both halves of channels then hold white and black fields
    assert all(len({v in white for v in half.flatten().tolist()}) == 2 for half in _crossed(white, black))
    twice = _crossed(*_crossed(white, black))
    assert torch.equal(twice[0], white)
    assert torch.equal(twice[1], black)


def test_a_coupling_leaves_the_half_that_it_reads(moved):
    row = moved(Couplings((4, 6), 1, lambda i, o: conditioner(i, o, 5, 1), spatial=2))
    a, b = torch.randn(2, 4, 3, 3), torch.randn(2, 6, 3, 3)
    after, changed, _ = row(a, b)
    assert torch.equal(after, a)
    assert (changed != b).all()


@pytest.mark.parametrize(
    ("planes", "scales"),
    [((1, 8, 8), 1), ((1, 28, 28), 2), ((3, 32, 32), 3), ((1, 2, 2), 1), ((1, 16, 8), 1)],
)
def test_scales_are_as_many_as_leave_four_pixels(planes, scales):
    flow = PictureFlow(planes, channels=2, couplings=1)
    assert len(flow.halves) == scales
    z, _ = flow(torch.randn(1, *planes))
    assert z.shape == (1, math.prod(planes))


def test_large_pictures_with_even_sides_get_convolutions_and_others_dense_couplings():
    kinds = {(1, 28, 28): True, (1, 8, 8): False, (1, 17, 20): False}
    for planes, convolutional in kinds.items():
        model = RealNVP.for_data(Signature(Images(*planes)), channels=4)
        assert isinstance(model.flow, PictureFlow) == convolutional


def test_values_without_order_are_refused_with_the_conversion_to_use():
    with pytest.raises(DomainError, match=r"data\.vectors\(\)"):
        RealNVP.for_data(Signature(Categories((2, 3))))
    with pytest.raises(DomainError, match=r"data\.vectors\(\)"):
        RealNVP.for_data(tiny("table"))


@pytest.mark.parametrize(
    ("domain", "options"),
    [
        (Images(1, 7, 7), {"architecture": "conv"}),
        (Images(1, 12, 12), {"architecture": "conv", "scales": 3}),
        (Bits((4,)), {"couplings": 0}),
        (Bits((4,)), {"hidden": (0,)}),
        (Bits((4,)), {"architecture": "deep"}),
    ],
    ids=str,
)
def test_options_out_of_range_are_refused(domain, options):
    with pytest.raises(OptionError):
        RealNVP.for_data(Signature(domain), **options)
    with pytest.raises(OptionError):
        RealNVP.for_data(Signature(Bits((4,)))).log_prob(torch.zeros(1, 4, dtype=torch.uint8), samples=0)
