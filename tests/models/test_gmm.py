"""Mixtures of Gaussians against scikit-learn, torch.distributions and the laws of EM."""

import itertools
import math
import warnings
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.mixture import GaussianMixture
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal, kl_divergence

import leadline as ll
from leadline.core import DataError, DomainError, Images, ShapeError, Vectors
from leadline.inference.gaussians import COVARIANCES, Covariance
from leadline.measures.references import Histogram
from leadline.models.graphical.gmm import GMM
from leadline.training.checkpoint import load_weights
from tests.tiny import tiny

PEER = {"full": "full", "tied": "tied", "diagonal": "diag", "spherical": "spherical"}
every_covariance = pytest.mark.parametrize("covariance", COVARIANCES)


def mixture(covariance: Covariance, dims: int = 3, components: int = 3, domain: Vectors | None = None) -> GMM:
    """Return a float64 mixture with unequal weights and slanted covariances of unequal size."""
    model = GMM(domain or Vectors.standard(dims), components, covariance, tolerance=1e-9).double()
    source = torch.Generator().manual_seed(3)
    slant = torch.empty(components, dims, dims, dtype=torch.float64).normal_(generator=source)
    full = slant @ slant.mT + 0.3 * torch.eye(dims, dtype=torch.float64)
    variances = full.diagonal(dim1=1, dim2=2)
    shaped = {"full": full, "tied": full[0], "diagonal": variances, "spherical": variances.mean(1)}
    weights = torch.arange(1, components + 1, dtype=torch.float64)
    means = 2 * torch.empty(components, dims, dtype=torch.float64).normal_(generator=source)
    model.start_from((weights / weights.sum()).log(), means, shaped[covariance])
    return model


def covariances(model: GMM) -> Tensor:
    """Return every component's covariance (K, d, d) from its scale."""
    scale, k, d = model.best.scale, model.components, model.domain.dims
    if model.best.dense:
        return (scale @ scale.mT).expand(k, d, d)
    return torch.diag_embed((scale if scale.dim() == 2 else scale[:, None]).square().expand(k, d))


def torch_mixture(model: GMM) -> MixtureSameFamily:
    parts = MultivariateNormal(model.best.means, covariances(model))
    return MixtureSameFamily(Categorical(logits=model.best.log_weights), parts)


def blobs(n: int = 300, dims: int = 3) -> Tensor:
    source = torch.Generator().manual_seed(11)
    centres = torch.tensor([[-3.0, 0.0, 1.0], [2.0, 2.0, -1.0], [1.0, -3.0, 0.0]])[:, :dims]
    slant = torch.empty(dims, dims).normal_(generator=source)
    return centres[torch.arange(n) % 3] + torch.empty(n, dims).normal_(generator=source) @ slant


@every_covariance
def test_log_prob_is_that_of_torch_distributions(covariance: Covariance) -> None:
    model = mixture(covariance)
    x = blobs().double()
    assert torch.allclose(model.log_prob(x), torch_mixture(model).log_prob(x), atol=1e-10)


@every_covariance
def test_codes_are_posterior_probabilities(covariance: Covariance) -> None:
    model = mixture(covariance)
    x = blobs().double()
    parts = MultivariateNormal(model.best.means, covariances(model)).log_prob(x[:, None])
    wanted = torch.softmax(parts + model.best.log_weights, 1)
    assert torch.allclose(model.encode(x), wanted, atol=1e-12)
    assert torch.equal(model.assign(x), wanted.argmax(1))


@every_covariance
def test_em_takes_the_same_path_as_scikit_learn(covariance: Covariance) -> None:
    x = blobs().double()
    model = mixture(covariance)
    with torch.no_grad():
        precision = torch.linalg.inv(covariances(model))
    shaped = {
        "full": precision,
        "tied": precision[0],
        "diagonal": precision.diagonal(dim1=1, dim2=2),
        "spherical": precision[:, 0, 0],
    }
    peer = GaussianMixture(
        3,
        covariance_type=PEER[covariance],
        weights_init=model.best.log_weights.exp().numpy(),
        means_init=model.best.means.numpy(),
        precisions_init=shaped[covariance].numpy(),
        reg_covar=0.0,
        max_iter=1,
        tol=0.0,
        warm_start=True,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one step does not converge
        theirs = [peer.fit(x.numpy()).lower_bound_ for _ in range(12)]
    ours = [model.sweep(x) for _ in range(13)]
    assert ours[:12] == pytest.approx(theirs, abs=1e-9)
    assert torch.allclose(model.best.means, torch.as_tensor(peer.means_), atol=1e-8)
    assert torch.allclose(model.log_prob(x), torch.as_tensor(peer.score_samples(x.numpy())), atol=1e-8)
    assert model.bic(x) == pytest.approx(peer.bic(x.numpy()), rel=1e-10)
    assert model.aic(x) == pytest.approx(peer.aic(x.numpy()), rel=1e-10)


@st.composite
def tables(draw: st.DrawFn) -> tuple[Tensor, int, Covariance]:
    n, d = draw(st.integers(3, 40)), draw(st.integers(1, 4))
    values = draw(st.lists(st.integers(-20, 20), min_size=n * d, max_size=n * d))
    components = draw(st.integers(1, min(n, 5)))
    return (
        torch.tensor(values, dtype=torch.float64).view(n, d) / 4,
        components,
        draw(st.sampled_from(COVARIANCES)),
    )


@settings(max_examples=40, deadline=None, derandomize=True)
@given(tables())
def test_the_likelihood_never_falls_whatever_the_data(case: tuple[Tensor, int, Covariance]) -> None:
    x, components, covariance = case
    torch.manual_seed(0)
    model = GMM(
        Vectors.standard(x.shape[1]), components, covariance, floor=1e-3, tolerance=-math.inf
    ).double()
    last = -math.inf
    for _ in range(12):
        moved = int(model.progress[2])
        model.sweep(x)
        objective = float(model.objectives[1].sum())  # of the trial, before it became better
        if int(model.progress[2]) == moved and math.isfinite(last):
            assert objective >= last - 1e-9 * (1 + abs(last))
        last = objective
        assert bool(torch.isfinite(model.log_prob(x)).all())


@every_covariance
def test_what_a_sweep_returns_is_the_mean_log_prob_of_the_model_as_it_stands(covariance: Covariance) -> None:
    data = tiny("vectors")
    model = GMM.for_data(data, components=3, covariance=covariance, prior=0, restarts=2).double()
    values = []
    while not model.converged:
        values.append(model.sweep(data.train.x))
        assert values[-1] == pytest.approx(float(model.log_prob(data.train.x).mean()), abs=1e-9)
    assert values == sorted(values)
    assert values[-1] > values[0] + 0.05


def test_restarts_keep_the_best() -> None:
    x = blobs()
    finals = []
    for seed in range(4):
        torch.manual_seed(seed)
        single = GMM(Vectors.standard(3), 6, prior=0, restarts=1)
        while not single.converged:
            single.sweep(x)
        finals.append(single.sweep(x))
    torch.manual_seed(0)
    many = GMM(Vectors.standard(3), 6, prior=0, restarts=8)
    ends, restart = [], 0
    while not many.converged:
        value = many.sweep(x)
        if int(many.progress[0]) > restart:
            restart = int(many.progress[0])
            ends.append(value)
    assert ends == sorted(ends)
    assert len(ends) == 8
    assert ends[0] == pytest.approx(finals[0])
    assert ends[-1] > ends[0]
    assert float(many.log_prob(x).mean()) == pytest.approx(ends[-1], abs=1e-5)


def test_a_saved_state_goes_on_bit_for_bit() -> None:
    x = blobs()
    torch.manual_seed(1)
    whole = GMM(Vectors.standard(3), 4, restarts=3, tolerance=1e-2)
    for _ in range(5):
        whole.sweep(x)
    saved = {k: v.clone() for k, v in whole.state_dict().items()}
    resumed = GMM(Vectors.standard(3), 4, restarts=3, tolerance=1e-2)
    resumed.load_state_dict(saved)
    random = torch.get_rng_state()
    first = [whole.sweep(x) for _ in range(25)]
    torch.set_rng_state(random)
    assert [resumed.sweep(x) for _ in range(25)] == first
    assert all(
        torch.equal(a, b)
        for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    )


def grid(side: Tensor, dims: int) -> Iterator[Tensor]:
    yield from torch.tensor(list(itertools.product(side.tolist(), repeat=dims)), dtype=torch.float64).split(
        20_000
    )


@pytest.mark.parametrize("dims", [1, 2])
@every_covariance
def test_the_raw_density_integrates_to_one(covariance: Covariance, dims: int) -> None:
    domain = Vectors(("a", "b")[:dims], (40.0, -3.0)[:dims], (2.0, 2.0)[:dims])
    model = mixture(covariance, dims, domain=domain)
    step = 0.25
    side = torch.arange(-40, 40, step, dtype=torch.float64)
    centre = torch.tensor(domain.mean, dtype=torch.float64)
    total = sum(float(model.log_prob(points + centre).exp().sum()) for points in grid(side, dims))
    assert total * step**dims == pytest.approx(1, abs=1e-6)


@every_covariance
def test_samples_have_the_moments_of_the_mixture(covariance: Covariance, generator: torch.Generator) -> None:
    model = mixture(covariance)
    n = 40_000
    x = model.sample(n, generator)
    weights = model.best.log_weights.exp()
    mean = weights @ model.best.means
    inside = model.best.means - mean
    spread = torch.tensordot(weights, covariances(model) + inside[:, :, None] * inside[:, None, :], 1)
    centred = x - mean
    products = centred[:, :, None] * centred[:, None, :]
    assert bool(((x.mean(0) - mean).abs() < 4 * (spread.diagonal() / n).sqrt()).all())
    assert bool(((products.mean(0) - spread).abs() < 4 * products.std(0) / math.sqrt(n)).all())


def test_float32_agrees_with_float64_on_tight_and_distant_clusters() -> None:
    source = torch.Generator().manual_seed(0)
    centres = torch.tensor([[0.0, 0.0], [1.0, 1.0], [-1.0, 1.0]])
    x = centres[torch.arange(600) % 3] + 1e-3 * torch.empty(600, 2).normal_(generator=source)
    for covariance in COVARIANCES:
        found = []
        for dtype in (torch.float32, torch.float64):
            model = GMM(Vectors.standard(2), 3, covariance, floor=1e-9).to(dtype)
            model.start_from(torch.zeros(3) - math.log(3), centres, model.best.shaped(torch.eye(2) / 10))
            found.append([model.sweep(x) for _ in range(10)][-1])
        assert found[0] == pytest.approx(found[1], abs=2e-3)
        # entropy of two normals of deviation 1e-3, and of one in three: 2 (1/2 ln(2 pi e) + ln 1e-3) + ln 3
        assert found[1] == pytest.approx(
            -(2 * (0.5 * math.log(2 * math.pi * math.e) + math.log(1e-3)) + math.log(3)), abs=0.15
        )


def test_starts_stand_on_clusters_that_lie_far_apart_with_the_spread_inside_them() -> None:
    centres = torch.tensor([[0.0, 0.0], [100.0, 0.0], [0.0, 10_000.0]])
    noise = torch.empty(600, 2).normal_(generator=torch.Generator().manual_seed(0))
    x = (centres[torch.arange(600) % 3] + noise).double()
    for seed in range(8):
        torch.manual_seed(seed)
        model = GMM(Vectors.standard(2), 3, floor=1e-9).double()
        model.trial.begin(x)
        found = torch.cdist(model.trial.means, centres.double()).argmin(1)
        assert found.sort().values.tolist() == [0, 1, 2]
        variances = model.trial.scale.square().sum(-1)
        assert torch.allclose(variances, torch.ones_like(variances), atol=0.2)


@every_covariance
def test_the_prior_is_minus_its_points_times_the_divergence_from_a_share_of_the_spread(
    covariance: Covariance,
) -> None:
    x = blobs().double() * torch.tensor([1.0, 2.0, 5.0])
    torch.manual_seed(0)
    model = GMM(Vectors.standard(3), 4, covariance, prior=3.0).double()
    told = [model.sweep(x) for _ in range(4)][-1]
    share = MultivariateNormal(torch.zeros(3).double(), torch.diag(x.var(0, correction=0) * 4 ** (-2 / 3)))
    each = [kl_divergence(share, MultivariateNormal(torch.zeros(3).double(), S)) for S in covariances(model)]
    wanted = -3 * sum(float(one) for one in each[: 1 if covariance == "tied" else 4])
    assert model.best.log_prior() == pytest.approx(wanted, rel=1e-9)
    assert told == pytest.approx(float(model.log_prob(x).mean()) + wanted / len(x), abs=1e-9)


@every_covariance
def test_a_step_with_a_prior_lands_where_no_other_covariance_is_more_probable(covariance: Covariance) -> None:
    x = blobs().double()
    torch.manual_seed(0)
    model = GMM(Vectors.standard(3), 1, covariance, prior=40.0).double()  # one component: one step is all
    for _ in range(3):
        model.sweep(x)
    found = model.best.scale.clone()
    best = float(model.log_prob(x).sum()) + model.best.log_prior()
    for entry in found.nonzero().tolist():
        for change in (-1e-3, 1e-3):
            model.best.scale[tuple(entry)] += change
            assert float(model.log_prob(x).sum()) + model.best.log_prior() < best
            model.best.scale.copy_(found)


def test_few_rows_leave_a_density_that_holds_for_rows_not_seen() -> None:
    source = torch.Generator().manual_seed(2)
    x = torch.empty(1020, 5).normal_(generator=source)
    truth = float(torch.distributions.Normal(0, 1).log_prob(x[20:]).sum(1).mean())
    nats = {}
    for prior in (0, None):
        torch.manual_seed(0)
        model = GMM(Vectors.standard(5), 8, prior=prior)
        while not model.converged:
            model.sweep(x[:20])
        nats[prior] = float(model.log_prob(x[20:]).mean())
    assert nats[None] > truth - 10  # eight components of some two points each
    assert nats[0] < truth - 1000


def test_one_unit_normal_over_gaussianised_pixels_has_the_score_of_their_histograms() -> None:
    data = tiny("images")
    model = GMM.for_data(data, components=1, pixels="gaussianised").double()
    model.sweep(data.train.x)
    d = data.domain.dims
    model.start_from(torch.zeros(1), torch.zeros(1, d), torch.eye(d)[None])
    wanted = Histogram(data).log_prob(data.test.x)
    assert torch.allclose(model.log_prob(data.test.x), wanted.to(model.best.means), atol=1e-6)
    assert model.decode(torch.ones(1, 1)).shape == (1, *data.domain.shape)


def test_few_pictures_are_told_better_than_by_their_histograms() -> None:
    data = ll.load("digits", limit=120)
    torch.manual_seed(0)
    model = GMM.for_data(data, components=4)
    while not model.converged:
        model.sweep(data.train.x)
    assert float((model.log_prob(data.test.x) - Histogram(data).log_prob(data.test.x)).mean()) > 1


def test_weights_of_before_there_were_priors_and_histograms_open_without_them() -> None:
    x = blobs()
    model = GMM(Vectors.standard(3), 2)
    for _ in range(3):
        model.sweep(x)
    old = {name: value for name, value in model.state_dict().items() if not name.endswith("target")}
    opened = GMM(Vectors.standard(3), 2)
    load_weights(opened, old, "a run")
    assert torch.equal(opened.log_prob(x), model.log_prob(x))
    opened.sweep(x)
    assert opened.best.log_prior() == 0
    pictures = GMM(Images(1, 1, 2, 4), 2, pixels="standard", prior=0)
    again = GMM(Images(1, 1, 2, 4), 2)
    load_weights(again, pictures.state_dict(), "a run")
    levels = torch.tensor([[[[0, 3]]]], dtype=torch.uint8)
    assert torch.equal(again.log_prob(levels), pictures.log_prob(levels))


def test_codes_weigh_the_means() -> None:
    model = mixture("full")
    z = torch.tensor([[1.0, 0, 0], [0, 0.25, 0.75]], dtype=torch.float64)
    assert torch.allclose(model.decode(z)[0], model.best.means[0])
    assert torch.allclose(model.decode(z)[1], 0.25 * model.best.means[1] + 0.75 * model.best.means[2])


@every_covariance
def test_constant_columns_and_repeated_rows_are_held_at_the_floor(covariance: Covariance) -> None:
    x = torch.cat([blobs(60, 2).repeat(2, 1), torch.full((120, 1), 7.0)], 1)
    model = GMM(Vectors.standard(3), 4, covariance, floor=1e-4, max_sweeps=30)
    while not model.converged:
        model.sweep(x)
    eigenvalues = torch.linalg.eigvalsh(covariances(model).double())
    assert float(eigenvalues.min()) > 0.99e-4
    assert bool(torch.isfinite(model.log_prob(x)).all())
    same = torch.ones(20, 3)
    constant = GMM(Vectors.standard(3), 4, covariance, floor=1e-4, max_sweeps=5)
    for _ in range(6):
        constant.sweep(same)
    assert bool(torch.isfinite(constant.log_prob(same)).all())
    assert torch.allclose(constant.decode(constant.encode(same)), same, atol=1e-5)


@every_covariance
def test_an_empty_component_is_put_back_among_the_data(covariance: Covariance) -> None:
    x = blobs()
    model = GMM(Vectors.standard(3), 3, covariance, tolerance=1e-6)
    far = torch.tensor([[-3.0, 0.0, 1.0], [2.0, 2.0, -1.0], [1e4, 1e4, 1e4]])
    model.start_from(torch.zeros(3) - math.log(3), far, model.best.shaped(torch.eye(3)))
    model.sweep(x)
    assert int(model.progress[2]) == 1
    while not model.converged:
        model.sweep(x)
    assert float(model.best.means.abs().max()) < 10
    assert float(model.encode(x).sum(0).min()) > 10


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x = blobs().double()
    whole, split = mixture("full"), mixture("full")
    first = [whole.sweep(x) for _ in range(3)]
    monkeypatch.setattr("leadline.models.graphical.gmm._CHUNK", 1)
    assert [split.sweep(x) for _ in range(3)] == pytest.approx(first, abs=1e-12)
    assert torch.allclose(split.log_prob(x), whole.log_prob(x), atol=1e-12)
    assert split.log_prob(x[:0]).shape == (0,)


@pytest.mark.parametrize("kind", ["images", "bits", "vectors"])
def test_raw_samples_come_in_and_out(kind: str, generator: torch.Generator) -> None:
    data = tiny(kind)
    model = GMM.for_data(data, components=2, covariance="diagonal")
    for _ in range(5):
        model.sweep(data.train.x)
    x = model.sample(9, generator)
    assert data.domain.validated(x).dtype == data.domain.dtype
    assert model.decode(model.encode(x)).shape == x.shape
    assert torch.equal(model.log_prob(x)[3:5], model.log_prob(x[3:5]))
    assert model.density.kind == ("exact" if kind == "vectors" else "lower bound")


def test_the_bound_on_pictures_lies_below_the_exact_probability_of_the_cell() -> None:
    model = GMM(Images(1, 1, 1, 4), 2, "full", pixels="standard").double()
    model.start_from(
        torch.tensor([0.3, 0.7]).log(), torch.tensor([[0.2], [0.7]]), torch.full((2, 1, 1), 0.04)
    )
    edges = torch.linspace(0, 1, 5, dtype=torch.float64)
    normals = torch.distributions.Normal(model.best.means[:, 0], 0.2)
    cells = (normals.cdf(edges[1:, None]) - normals.cdf(edges[:-1, None])) @ model.best.log_weights.exp()
    x = torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1)
    fine = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    bound = torch.stack(
        [torch_mixture(model).log_prob((level + fine[:, None]) / 4).mean() for level in range(4)]
    )
    bound = bound + model.domain.log_volume
    assert bool((bound <= cells.log() + 1e-9).all())
    # one draw a sample lies within the range of the density over the cell
    for level in range(4):
        inside = torch_mixture(model).log_prob((level + fine[:, None]) / 4) + model.domain.log_volume
        assert float(inside.min()) - 1e-2 < float(model.log_prob(x)[level]) < float(inside.max()) + 1e-2


def test_what_cannot_be_learned_gets_a_clear_error() -> None:
    with pytest.raises(DataError, match=r"components \(8\), got 5"):
        GMM(Vectors.standard(3), 8).sweep(blobs(5))
    x = blobs()
    x[17, 1] = math.nan
    with pytest.raises(ShapeError, match="sample 17, dimension 1"):
        GMM(Vectors.standard(3), 2).sweep(x)
    with pytest.raises(ShapeError, match="expected a tensor of samples, got ndarray"):
        GMM(Vectors.standard(3), 2).log_prob(x.numpy())  # type: ignore[arg-type]
    with pytest.raises(DomainError, match="vectors"):
        GMM.for_data(tiny("categories"))
    with pytest.raises(ValueError, match="full, tied, diagonal, spherical"):
        GMM(Vectors.standard(3), 2, "diag")  # type: ignore[arg-type]
    for option, value in (
        ("components", 0),
        ("restarts", 0),
        ("max_sweeps", 0),
        ("floor", 0.0),
        ("floor", math.nan),
        ("prior", -1.0),
        ("prior", math.inf),
    ):
        with pytest.raises(ValueError, match=option):
            GMM(Vectors.standard(3), **{option: value})  # type: ignore[arg-type]
