"""Flows and variational autoencoders of pixels that go through their histograms to unit normals."""

import copy
import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import leadline as ll
from leadline.core import Images, OptionError, Signature
from leadline.data import Dataset, Split
from leadline.measures.references import Histogram
from leadline.models.autoencoders.cells import CellNormal
from leadline.models.autoencoders.vae import VAE
from leadline.models.flows.realnvp import RealNVP
from leadline.nets.marginals import Marginals
from leadline.training import fit
from leadline.training.checkpoint import load_weights

LEVELS = 5
KINDS = [(RealNVP, {"hidden": (8,)}), (VAE, {"latent": 2, "hidden": (8,)})]


def pictures(side: int = 2, n: int = 60) -> Dataset:
    """Return pixels of unequal histograms, one of which never shows the highest level."""
    place = torch.arange(n)[:, None] * torch.tensor([1, 3, 5, 7] * side * side)[: side * side]
    x = (place % 11 % LEVELS).to(torch.uint8)
    x[:, 0].clamp_(max=LEVELS - 2)
    x = x.view(n, 1, side, side)
    return Dataset("small", Images(1, side, side, LEVELS), None, Split(x), Split(x[:4]), Split(x[:4]))


def shares(data: Dataset) -> Tensor:
    """Return the histogram of each pixel by counting in a loop, every level once more than seen: (d, q)."""
    rows = data.train.x.flatten(1)  # type: ignore[union-attr]
    counts = [[int((pixel == level).sum()) + 1 for level in range(LEVELS)] for pixel in rows.T]
    held = torch.tensor(counts).double()
    return held / held.sum(1, keepdim=True)


def counted(kind: Any, data: Dataset, **options: Any) -> Any:
    """Return a model in double precision whose histograms are those of the data."""
    model = kind.for_data(data, pixels="gaussianised", **options).double()
    model.marginals.sweep(data.train.x)
    return model


def head(data: Dataset) -> CellNormal:
    marginals = Marginals(data.domain.dims, LEVELS)
    marginals.sweep(data.train.x)  # type: ignore[arg-type]
    return CellNormal(data.domain, marginals)  # type: ignore[arg-type]


def every_level(d: int) -> Tensor:
    return torch.arange(LEVELS).to(torch.uint8)[:, None].expand(-1, d).reshape(LEVELS, 1, 2, -1)


def parameters(d: int = 4) -> Tensor:
    """Return means and log-scales of two rows, side by side: (2, 2 d)."""
    source = torch.Generator().manual_seed(3)
    return torch.randn(2, 2 * d, generator=source, dtype=torch.float64)


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_a_model_whose_networks_say_nothing_has_the_score_of_the_histograms(kind: Any, options: Any) -> None:
    data = pictures()
    model = counted(kind, data, **options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    x = torch.randint(LEVELS, (9, 1, 2, 2)).to(torch.uint8)
    x[0, 0, 0, 0] = LEVELS - 1  # never seen
    found = model.log_prob(x, samples=3).detach()
    assert torch.allclose(found, Histogram(data).log_prob(x).to(found), atol=1e-6)


@pytest.mark.parametrize("architecture", ["dense", "conv"])
def test_pictures_of_a_flow_sum_to_one_and_come_back_from_their_codes(architecture: str, moved: Any) -> None:
    data = pictures()
    small = Dataset("row", Images(1, 2, 2, 2), None, *(Split(data.train.x // 3),) * 3)  # type: ignore[operator]
    model = moved(counted(RealNVP, small, hidden=(8,), architecture=architecture, channels=4))
    x = torch.tensor(list(itertools.product((0, 1), repeat=4)), dtype=torch.uint8).view(-1, 1, 2, 2)
    source = torch.Generator().manual_seed(0)
    with torch.no_grad():
        found = torch.stack([model.log_prob(x, 400, source).exp() for _ in range(20)])
        assert torch.equal(model.decode(model.encode(x)), x)
    total = found.sum(1)
    assert abs(float(total.mean()) - 1) < 4 * float(total.std()) / math.sqrt(20)
    assert float(total.std()) / math.sqrt(20) < 0.02
    assert float((found.mean(0) - Histogram(small).log_prob(x).exp()).abs().max()) > 1e-3


def test_a_flow_draws_what_it_scores(moved: Any, generator: torch.Generator) -> None:
    data, n = pictures(), 20_000
    model = moved(counted(RealNVP, data, hidden=(8,)))
    with torch.no_grad():
        drawn = model.sample(n, generator)
        states = data.domain.states()
        mass = torch.cat([model.log_prob(part, 60, generator).exp() for part in states.split(200)])
    assert drawn.dtype == torch.uint8
    for pixel in range(4):
        share = torch.bincount(drawn.flatten(1)[:, pixel].long(), minlength=LEVELS) / n
        value = states.flatten(1)[:, pixel]
        wanted = torch.stack([mass[value == level].sum() for level in range(LEVELS)])
        assert float((share - wanted).abs().max()) < 4 * 0.5 / math.sqrt(n) + 5e-3


def test_a_level_has_the_mass_of_its_cell_under_the_normal() -> None:
    data, params = pictures(), parameters()
    found = head(data).log_prob_each(params[:, None], every_level(4)).exp()  # (2, q, d)
    ends = torch.special.ndtri(torch.cat([torch.zeros(4, 1), shares(data).cumsum(1)], 1).double())
    ends[:, -1] = math.inf
    m, s = params[:, ::2], params[:, 1::2].exp()
    wanted = torch.distributions.Normal(m[..., None], s[..., None]).cdf(ends).nan_to_num().diff(dim=-1)
    assert torch.allclose(found.movedim(1, 2), wanted, atol=1e-9)


def test_masses_far_out_and_narrow_stay_finite_and_pull_the_mean_to_their_cell() -> None:
    data = pictures()
    pairs = torch.cartesian_prod(torch.linspace(-40, 40, 161), torch.linspace(-6, 6, 49))
    params = pairs.repeat(1, 4).requires_grad_()
    for level in every_level(4):
        found = head(data).log_prob_each(params, level.expand(len(params), 1, 2, 2))
        assert bool(found.isfinite().all())
        (slope,) = torch.autograd.grad(found.sum(), params)
        assert bool(slope.isfinite().all())
    params = torch.tensor([3.0, 0.0]).repeat(1, 4).requires_grad_()
    (slope,) = torch.autograd.grad(head(data).log_prob(params, every_level(4)[:1]).sum(), params)
    assert bool((slope[:, ::2] < 0).all())


@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_single_precision_keeps_the_digits_of_masses_on_either_side(side: float) -> None:
    params = torch.tensor([side * 6.0, -1.0]).repeat(5, 4)
    one = head(pictures())
    exact = one.log_prob_each(params.double(), every_level(4))
    assert float(exact.min()) < -50
    assert torch.allclose(one.log_prob_each(params, every_level(4)).double(), exact, rtol=1e-3, atol=1e-5)


def test_an_encoder_reads_the_units_of_cell_middles() -> None:
    data = pictures()
    model = counted(VAE, data, latent=2)
    model.encoder = nn.Identity()
    held = shares(data)
    middle = torch.special.ndtri(held.cumsum(1) - 0.5 * held)  # (d, q)
    found = torch.cat(model.posterior(every_level(4)), 1)
    assert torch.allclose(found.T, middle, atol=1e-9)


def test_draws_mean_and_median_of_the_head_are_those_of_its_masses(generator: torch.Generator) -> None:
    one, n = head(pictures()), 20_000
    params = parameters()[:1]
    mass = one.log_prob_each(params, every_level(4)).exp()  # (q, d)
    x = one.sample(params.expand(n, -1), generator).flatten(1)
    for pixel in range(4):
        share = torch.bincount(x[:, pixel].long(), minlength=LEVELS) / n
        assert float((share - mass[:, pixel]).abs().max()) < 4 * 0.5 / math.sqrt(n)
    levels = torch.arange(LEVELS).double()
    assert torch.allclose(one.mean(params).flatten(), levels @ mass, atol=1e-9)
    assert torch.equal(one.point(params).flatten().double(), (mass.cumsum(0) < 0.5).sum(0).double())


def test_cells_follow_the_counts_of_now_also_in_a_copy() -> None:
    data, one, params = pictures(), head(pictures()), parameters()[:1]
    before = one.log_prob(params, data.test.x)  # type: ignore[arg-type]
    other = pictures()
    other.train.x.clamp_(min=1)  # type: ignore[union-attr]
    held = copy.deepcopy(one)
    for again in (held, one):
        again.marginals.sweep(other.train.x)  # type: ignore[arg-type]
        found = again.log_prob(params, data.test.x)  # type: ignore[arg-type]
        assert not torch.allclose(found, before)
        assert torch.equal(found, head(other).log_prob(params, data.test.x))  # type: ignore[arg-type]
        load_weights(again.marginals, head(data).marginals.state_dict(), "a run")
        assert torch.equal(again.log_prob(params, data.test.x), before)  # type: ignore[arg-type]


def test_grey_pixels_are_gaussianised_unless_a_likelihood_is_named() -> None:
    data, colour = pictures(), Signature(Images(3, 2, 2, LEVELS))
    for kind in (RealNVP, VAE):
        assert not kind.for_data(colour).stages()
        assert kind.for_data(colour, pixels="gaussianised").stages()
    assert RealNVP.for_data(data).stages()
    assert isinstance(VAE.for_data(data).likelihood, CellNormal)
    for name in data.domain.heads:
        model = VAE.for_data(data, likelihood=name)
        assert not model.stages()
        assert not isinstance(model.likelihood, CellNormal)


def test_one_pixel_alone_is_scored_as_beside_the_others() -> None:
    one, params = head(pictures()), parameters()
    together = one.log_prob_each(params[:, None], every_level(4))
    for pixel in range(4):
        alone = one.column(pixel)
        found = alone.log_prob_each(params[:, None, 2 * pixel : 2 * pixel + 2], every_level(4)[:, :, :1, :1])
        assert torch.allclose(found[..., 0], together[..., pixel])


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_histograms_are_learned_first_and_saved_with_the_run(kind: Any, options: Any, tmp_path: Path) -> None:
    data, name = pictures(), kind.__name__.lower()
    model = ll.build(name, data, pixels="gaussianised", **options)
    fit(model, data, steps=3, select="last", threads=1, out=tmp_path / "run", progress=False)
    ladder = model.marginals.cumulative  # type: ignore[union-attr]
    held = shares(data) * (60 + LEVELS)
    assert torch.equal(ladder[:, 1:].double(), held.cumsum(1))  # type: ignore[index]
    again = ll.open(tmp_path / "run").model
    x = data.test.x
    assert torch.equal(again.log_prob(x), model.log_prob(x))  # type: ignore[operator]
    assert torch.equal(again.decode(again.encode(x)), model.decode(model.encode(x)))  # type: ignore[operator]


@pytest.mark.parametrize(("kind", "options"), [*KINDS, (VAE, {"architecture": "conv", "channels": (4,)})])
def test_weights_saved_without_histograms_are_of_standard_pixels(kind: Any, options: Any) -> None:
    data = pictures(4)
    older = kind.for_data(data, pixels="standard", **options)
    assert not [name for name in older.state_dict() if "cumulative" in name]
    newer = kind.for_data(data, pixels="gaussianised", **options)
    load_weights(newer, older.state_dict(), "a run")
    x = data.test.x
    assert torch.equal(newer.eval().log_prob(x), older.eval().log_prob(x))
    assert not newer.stages()


def test_what_has_no_histograms_stays_as_it_is_and_wrong_wishes_are_told() -> None:
    bits = ll.load("digits").binarize()
    for kind in (RealNVP, VAE):
        assert not kind.for_data(bits, pixels="gaussianised").stages()
        with pytest.raises(OptionError, match='unknown pixels "logit"'):
            kind.for_data(pictures(), pixels="logit")
    with pytest.raises(OptionError, match="likelihood of their own"):
        VAE.for_data(Signature(Images(1, 2, 2, 5)), pixels="gaussianised", likelihood="categorical")
    assert isinstance(VAE.for_data(pictures(), pixels="gaussianised").encoder, nn.Module)
