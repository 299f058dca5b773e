"""Visible units of pictures: the map through the histograms, its inverse, and what a cell weighs."""

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import leadline as ll
from leadline.core import DomainError, Images, OptionError, Signature
from leadline.data import Dataset, Split
from leadline.measures.references import Histogram
from leadline.models.boltzmann.dbn import DBN
from leadline.models.boltzmann.energy import Energy
from leadline.models.boltzmann.rbm import RBM
from leadline.models.boltzmann.visible import Visible
from leadline.training import fit
from leadline.training.checkpoint import load_weights
from tests.tiny import moved

LIKE = torch.zeros((), dtype=torch.float64)


def pictures(x: Tensor, levels: int) -> Dataset:
    """Return grey pictures of one row: x (n, width)."""
    x = x.to(torch.uint8)[:, None, None]
    return Dataset("rows", Images(1, 1, x.shape[-1], levels), None, Split(x), Split(x[:3]), Split(x[:3]))


def skewed(n: int = 40, levels: int = 3, width: int = 2) -> Dataset:
    """Return pixels of unequal histograms; the last level of the first is never seen."""
    place = torch.arange(n)[:, None] * torch.tensor([1, 3, 5, 7])[:width]
    x = (place % 11 % levels).clamp(max=levels - 1)
    x[:, 0] = x[:, 0].clamp(max=levels - 2)
    return pictures(x, levels)


def observed(data: Dataset) -> Visible:
    visible = Visible(data.domain)
    visible.sweep(data.train.x)  # type: ignore[arg-type]
    return visible


def counted(kind: Any, data: Dataset, **options: Any) -> Any:
    """Return a model whose histograms are those of the data."""
    model = kind.for_data(data, **options)
    model.visible.sweep(data.train.x)
    return model


def edges(data: Dataset) -> Tensor:
    """Return the ends of every cell in v, by counting in a loop: (D, q + 1)."""
    rows, q = data.train.x.flatten(1), data.domain.levels  # type: ignore[union-attr, attr-defined]
    found = []
    for pixel in rows.T:
        share = [(int((pixel == level).sum()) + 1) / (len(pixel) + q) for level in range(q)]
        found.append(torch.special.ndtri(torch.tensor([0.0, *itertools.accumulate(share)]).double()))
    ends = torch.stack(found)
    ends[:, -1] = math.inf
    return ends


def masses(model: Any, score: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the mass of every picture of two pixels by a sum over its cell, dense at its ends: (q^2,)."""
    axis = torch.linspace(-6, 6, 300, dtype=torch.float64)
    normal = torch.distributions.Normal(0.0, 1.0)
    noise, found = torch.cartesian_prod(*(normal.cdf(axis),) * 2), []
    weight = torch.cartesian_prod(*(normal.log_prob(axis).exp() * (axis[1] - axis[0]),) * 2).prod(1)
    for x in model.domain.states().split(1):
        rows = x.expand(len(noise), -1, -1, -1)
        with torch.no_grad():
            v = model.visible.units(rows, LIKE, noise)
            found.append((score(v) + model.visible.log_volume(rows, v)).exp() @ weight)
    return torch.stack(found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("levels", "n"), [(3, 40), (256, 500), (2, 1)])
def test_the_way_back_undoes_the_map_wherever_in_its_cell_a_level_lies(
    dtype: torch.dtype, levels: int, n: int
) -> None:
    data = skewed(n, levels, 4)
    visible = observed(data)
    x = torch.arange(levels).to(torch.uint8)[:, None].expand(-1, 4)[:, None, None]
    for within in (0.001, 0.3, 0.999):
        v = visible.units(x, LIKE.to(dtype), torch.full((levels, 4), within))
        assert v.dtype == dtype
        assert torch.equal(visible.raw(v), x)
        assert bool((v.diff(dim=0) > 0).all())
    assert torch.equal(visible.raw(visible.drawn(x, LIKE.to(dtype))), x)


def test_a_cell_lies_between_the_quantiles_of_its_counts() -> None:
    data = skewed()
    visible, ends = observed(data), edges(data)
    for level in range(3):
        x = torch.full((1, 1, 1, 2), level, dtype=torch.uint8)
        for within, place in ((1e-9, level), (1 - 1e-9, level + 1)):
            v = visible.units(x, LIKE, torch.full((1, 2), within, dtype=torch.float64))[0]
            inside = ends[:, place].isfinite()
            assert torch.allclose(v[inside], ends[inside, place], atol=1e-6)
            assert bool((v[~inside].abs() > 5).all())


@pytest.mark.parametrize(("kind", "hidden"), [(Energy, (4,)), (RBM, 4), (DBN, (4, 4)), (DBN, (4,))])
def test_a_model_that_knows_nothing_has_the_score_of_the_histograms(kind: Any, hidden: Any) -> None:
    data = skewed(40, 5, 4)
    model = counted(kind, data, hidden=hidden).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    x = torch.randint(5, (9, 1, 1, 4)).to(torch.uint8)
    x[0, 0, 0, 0] = 4  # never seen
    found = model.log_prob(x, samples=2).detach()
    assert torch.allclose(found, Histogram(data).log_prob(x).to(found), atol=1e-6)


@pytest.mark.parametrize("scale", ["learned", "unit"])
def test_a_machine_gives_each_picture_the_mass_of_its_cell_and_all_sum_to_one(scale: str) -> None:
    data = skewed()
    model = moved(counted(RBM, data, hidden=3, scale=scale), 0.5)
    layer, ends = model.layer, edges(data)
    h = torch.tensor(list(itertools.product([0.0, 1.0], repeat=3))).double()
    with torch.no_grad():  # p(v) is a mixture of 8 normals: their weights by the integral of the joint
        centre = layer.visible_bias + layer.scale * (h @ layer.weights.T)  # (8, D)
        rest = (centre.square() - layer.visible_bias.square()) / (2 * layer.scale.square())
        weight = (h @ layer.hidden_bias + rest.sum(1)).softmax(0)
        normal = torch.distributions.Normal(centre[..., None], layer.scale[:, None])
        mass = normal.cdf(ends).nan_to_num().diff(dim=-1)  # (8, D, q)
        wanted = torch.einsum("h,hi,hj->ij", weight, mass[:, 0], mass[:, 1]).flatten()
        assert float(wanted.sum()) == pytest.approx(1, abs=1e-9)
    found = masses(model, lambda v: -layer.free_energy(v) - layer.log_partition())
    assert torch.allclose(found, wanted, rtol=2e-3)
    few = model.log_prob(data.domain.states(), samples=300).detach().exp()
    assert torch.allclose(few, wanted, rtol=0.3)


def test_the_cells_of_a_neural_energy_sum_to_one() -> None:
    model = moved(Energy.for_data(skewed(), hidden=(8,)))
    log_z = model.log_partition("exact").value
    found = masses(model, lambda v: model.log_unnormalised(v) - log_z)
    assert float(found.sum()) == pytest.approx(1, abs=2e-3)
    assert float(found.max()) > 3 * float(found.min())


def test_draws_of_the_reference_have_the_histograms_frequencies(generator: torch.Generator) -> None:
    data, n = skewed(), 40_000
    x = observed(data).raw(torch.randn(n, 2, generator=generator, dtype=torch.float64)).flatten(1)
    mass = torch.special.ndtr(edges(data)).diff(dim=1)
    for pixel in range(2):
        share = torch.bincount(x[:, pixel].long(), minlength=3) / n
        assert bool(((share - mass[pixel]).abs() < 4 * (mass[pixel] * (1 - mass[pixel]) / n).sqrt()).all())


@pytest.mark.parametrize("x", [torch.zeros(30, 3), torch.full((30, 3), 4), torch.tensor([[0, 2, 4]])])
def test_pixels_that_never_change_and_a_lone_picture_are_scored_and_drawn(x: Tensor) -> None:
    data = pictures(x, 5)
    model = RBM.for_data(data, hidden=4)
    fit(model, data, steps=3, threads=1, out=False, progress=False)
    found = model.log_prob(torch.tensor([[[[0, 2, 4]]], [[[4, 4, 4]]], [[[0, 0, 0]]]], dtype=torch.uint8))
    assert bool(found.isfinite().all())
    drawn = model.sample(20, torch.Generator().manual_seed(0), steps=2)
    assert drawn.dtype == torch.uint8
    assert int(drawn.max()) <= 4


@pytest.mark.parametrize("kind", [Energy, RBM, DBN])
def test_the_histograms_are_saved_with_the_run(kind: Any, tmp_path: Path) -> None:
    data, name = skewed(60, 5, 4), kind.__name__.lower()
    model = ll.build(name, data)
    fit(model, data, steps=2, select="last", threads=1, out=tmp_path / "run", progress=False)
    again = ll.open(tmp_path / "run").model
    x = data.test.x
    assert torch.equal(model.visible.cumulative, observed(data).cumulative)  # type: ignore[union-attr, arg-type]
    assert torch.equal(again.visible.cumulative, model.visible.cumulative)  # type: ignore[union-attr]
    v, w = (each.visible.units(x, LIKE) for each in (model, again))  # type: ignore[operator, union-attr]
    assert torch.equal(v, w)


@pytest.mark.parametrize("kind", [Energy, RBM, DBN])
def test_weights_saved_without_histograms_are_of_standard_pixels(kind: Any) -> None:
    domain = Images(1, 1, 4, 5)
    older = kind(domain, pixels="standard")
    assert not [name for name in older.state_dict() if "cumulative" in name]
    newer = kind.for_data(Signature(domain))
    assert newer.visible.gaussianised
    load_weights(newer, older.state_dict(), "a run")
    assert not newer.visible.gaussianised
    x = torch.randint(5, (3, 1, 1, 4)).to(torch.uint8)
    assert torch.equal(newer.visible.units(x, LIKE), older.visible.units(x, LIKE))


def test_the_objective_of_the_histograms_is_their_mean_log_likelihood() -> None:
    data = skewed(40, 5, 4)
    found = Visible(data.domain).sweep(data.train.x)  # type: ignore[arg-type]
    assert found == pytest.approx(float(Histogram(data).log_prob(data.train.x).mean()))  # type: ignore[arg-type]


def test_units_without_histograms_have_none_to_learn() -> None:
    with pytest.raises(DomainError, match="only gaussianised"):
        Visible(Images(1, 1, 2, 3), "standard").sweep(torch.zeros(3, 1, 1, 2, dtype=torch.uint8))
    assert not Visible(Images(1, 1, 2, 3), "standard").stages()


def test_a_way_that_is_not_known_is_refused() -> None:
    with pytest.raises(OptionError, match="gaussianised"):
        RBM(Images(1, 1, 2, 3), pixels="gaussian")
