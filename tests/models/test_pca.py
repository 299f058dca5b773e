"""Principal components and their density."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from leadline.catalog import build
from leadline.core import Bits, DataError, DomainError, Images, OptionError, Signature, Vectors
from leadline.models.structure.pca import PCA
from tests.tiny import tiny


def _learned(x: Tensor, domain: Images | Bits | Vectors, **options: object) -> PCA:
    model = build("pca", Signature(domain), **options).double()
    model.sweep(x)
    return model


def _vectors(n: int = 60, d: int = 5) -> tuple[Tensor, Vectors]:
    x = (torch.randn(n, d) @ torch.randn(d, d) + torch.randn(d) * 5).float()
    return x, Vectors(tuple("abcdefgh"[:d]), tuple(x.mean(0).tolist()), tuple(x.std(0).tolist()))


def _covariance(model: PCA) -> Tensor:
    """Return W W^T + s^2 I by its definition."""
    W = model.components.T * (model.variances - model.noise).sqrt()
    return W @ W.T + model.noise * torch.eye(W.shape[0], dtype=W.dtype)


@pytest.mark.parametrize("solver", ["full", "auto"])
def test_codes_and_reconstruction_are_those_of_the_singular_value_decomposition(solver: str) -> None:
    x, domain = _vectors()
    model = _learned(x, domain, latent=2, solver=solver)
    u = domain.features(x.double())
    U, S, Vh = torch.linalg.svd(u - u.mean(0), full_matrices=False)
    codes = model.encode(x)
    torch.testing.assert_close(codes.abs(), (U * S)[:, :2].abs())
    torch.testing.assert_close(model.variances, S[:2] ** 2 / len(x))
    closest = (U[:, :2] * S[:2]) @ Vh[:2] + u.mean(0)
    torch.testing.assert_close(domain.features(model.decode(codes)), closest)


def test_the_noise_is_the_mean_of_the_variances_left_out() -> None:
    x, domain = _vectors()
    model = _learned(x, domain, latent=2)
    u = domain.features(x.double())
    spectrum = torch.linalg.eigvalsh((u - u.mean(0)).T @ (u - u.mean(0)) / len(x))  # rising order
    torch.testing.assert_close(model.noise, spectrum[:3].mean())


@pytest.mark.parametrize("latent", [1, 3, 4, 5])
def test_the_density_is_the_normal_with_that_covariance(latent: int) -> None:
    x, domain = _vectors()
    model = _learned(x, domain, latent=latent)
    normal = MultivariateNormal(model.mean, _covariance(model))
    expected = normal.log_prob(domain.features(x.double())) - sum(math.log(s) for s in domain.scale)
    torch.testing.assert_close(model.log_prob(x), expected)
    assert model.density.kind == "exact"


@pytest.mark.parametrize("latent", [4, 5])
def test_with_all_but_one_component_the_covariance_is_that_of_the_samples(latent: int) -> None:
    x, domain = _vectors()
    model = _learned(x, domain, latent=latent)
    u = domain.features(x.double())
    torch.testing.assert_close(_covariance(model), (u - u.mean(0)).T @ (u - u.mean(0)) / len(x))
    assert model.noise == pytest.approx(float(torch.linalg.eigvalsh(_covariance(model))[0]))


def test_no_other_noise_or_loadings_fit_better() -> None:
    x, domain = _vectors()
    model = _learned(x, domain, latent=2)
    best = float(model.log_prob(x).mean())
    for name, factor in [("noise", 1.05), ("noise", 0.95), ("variances", 1.05), ("variances", 0.95)]:
        other = _learned(x, domain, latent=2)
        getattr(other, name).mul_(factor)
        assert float(other.log_prob(x).mean()) < best
    assert model.sweep(x) == pytest.approx(best)


def test_levels_get_the_variance_of_their_cells() -> None:
    data = tiny("images")
    model = build("pca", data, latent=3).double()
    assert not model.converged
    objective = model.sweep(data.train.x)
    assert model.converged
    # the total variance of dequantised levels, from 400 draws of the noise a sample
    noisy = (data.train.x.double() + torch.rand(400, *data.train.x.shape, dtype=torch.float64)) / 4
    total = noisy.flatten(0, 1).flatten(1).var(0, correction=0).sum()
    ours = model.variances.sum() + (16 - 3) * model.noise
    assert float(ours) == pytest.approx(float(total), rel=0.01)
    assert objective == pytest.approx(float(model.log_prob(data.train.x).mean()))


def test_the_bound_on_levels_lies_below_the_probability_of_the_cell() -> None:
    x = torch.tensor([[0], [1], [1], [0], [1]], dtype=torch.uint8)
    model = _learned(x, Bits((1,)), latent=1)
    assert model.density.kind == "lower bound"
    normal = torch.distributions.Normal(model.mean, model.variances.sqrt())
    both = torch.tensor([[0], [1]], dtype=torch.uint8)
    # the cell of v is [v / 2, (v + 1) / 2)
    inside = (normal.cdf((both + 1) / 2) - normal.cdf(both / 2)).log().squeeze(1)
    noise = torch.linspace(0.0005, 0.9995, 1000, dtype=torch.float64)
    bound = torch.stack([normal.log_prob((both + t) / 2).squeeze(1) - math.log(2) for t in noise]).mean(0)
    assert (bound < inside).all()
    assert (bound > inside - 0.2).all()


def test_each_row_is_scored_alone_and_twice_the_same() -> None:
    data = tiny("bits")
    model = build("pca", data, latent=4).double()
    model.sweep(data.train.x)
    whole = model.log_prob(data.test.x)
    assert torch.equal(model.log_prob(data.test.x), whole)
    torch.testing.assert_close(torch.cat([model.log_prob(row[None]) for row in data.test.x]), whole)


def test_samples_have_the_mean_and_covariance_of_the_density(generator: torch.Generator) -> None:
    x, domain = _vectors()
    model = _learned(x, domain, latent=2)
    n = 40_000
    u = domain.features(model.sample(n, generator))
    S = _covariance(model)
    # four standard errors of each mean and of each entry of the covariance of a normal
    assert ((u.mean(0) - model.mean).abs() < 4 * (S.diagonal() / n).sqrt()).all()
    error = ((S.square() + S.diagonal()[:, None] * S.diagonal()) / n).sqrt()
    assert ((torch.cov(u.T) - S).abs() < 4 * error).all()


@pytest.mark.parametrize("kind", ["images", "bits", "vectors"])
def test_samples_and_decoded_codes_are_raw_values(kind: str, generator: torch.Generator) -> None:
    data = tiny(kind)
    model = build("pca", data, latent=2)
    model.sweep(data.train.x)
    for x in (model.sample(7, generator), model.decode(model.encode(data.test.x))):
        assert x.dtype == data.domain.dtype
        data.domain.validated(x)


def test_whitened_codes_have_unit_variance_and_the_same_reconstruction() -> None:
    x, domain = _vectors()
    plain, white = (_learned(x, domain, latent=3, whiten=whiten) for whiten in (False, True))
    codes = white.encode(x)
    torch.testing.assert_close(torch.cov(codes.T, correction=0), torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(white.decode(codes), plain.decode(plain.encode(x)))


def test_data_of_low_rank_have_a_density() -> None:
    column = torch.randn(40, 1)
    x = torch.cat([column, 2 * column, torch.ones(40, 1)], 1)
    model = _learned(x, Vectors.standard(3), latent=2)
    assert model.log_prob(x).isfinite().all()
    torch.testing.assert_close(model.decode(model.encode(x)), x.double())
    alike = _learned(torch.ones(5, 3), Vectors.standard(3), latent=1)
    assert alike.log_prob(torch.ones(5, 3)).isfinite().all()


def test_what_it_cannot_hold_is_named() -> None:
    with pytest.raises(OptionError, match=r"latent must be in \[1, 3\]"):
        build("pca", tiny("vectors"), latent=4)
    with pytest.raises(OptionError, match='did you mean "randomized"'):
        build("pca", tiny("vectors"), solver="randomised")
    with pytest.raises(DomainError, match=r"data.vectors\(\) gives Vectors"):
        build("pca", tiny("table"))
    with pytest.raises(DataError, match="needs at least 3 samples, got 2"):
        build("pca", tiny("vectors"), latent=3).sweep(tiny("vectors").train.x[:2])
