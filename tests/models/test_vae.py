"""The variational autoencoder against exact likelihoods: closed form, quadrature, enumeration."""

import math

import pytest
import torch
from sklearn.decomposition import PCA
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from leadline.core import Batch, Bits, Density, DomainError, OptionError, ShapeError, Signature, Vectors
from leadline.core.randomness import normal
from leadline.models.autoencoders import vae as module
from leadline.models.autoencoders.vae import VAE, divergence
from tests.tiny import EVEN, tiny

NOISE = 0.4  # scale s of the linear decoder


def linear(loadings: Tensor, offset: Tensor, domain: Vectors, *, skew: float = 0.0) -> VAE:
    """Return x = loadings z + offset + NOISE e in standardised units; its encoder is exact if skew is 0.

    The exact posterior is diagonal because the columns of `loadings` (d, k) are orthogonal.
    """
    d, k = loadings.shape
    precision = (loadings.T @ loadings).diagonal() + NOISE**2  # M = W'W + s^2 I
    encoder, decoder = nn.Linear(d, 2 * k), nn.Linear(k, 2 * d)
    with torch.no_grad():
        project = loadings.T / precision[:, None]
        encoder.weight.copy_(torch.cat([project, torch.full((k, d), skew)]))
        encoder.bias.copy_(torch.cat([-project @ offset + skew, (NOISE**2 / precision).log() / 2 + 2 * skew]))
        decoder.weight.zero_()[::2] = loadings
        decoder.bias[::2] = offset
        decoder.bias[1::2] = math.log(NOISE)
    return VAE(domain, encoder, decoder, latent=k).double()


@pytest.fixture
def orthogonal() -> Tensor:
    return torch.tensor([[1.0, 0.5], [0.8, -1.0], [-0.6, -0.5]]).double()  # columns: 0.5 - 0.8 + 0.3 = 0


@pytest.fixture
def domain() -> Vectors:
    return Vectors(("a", "b", "c"), (1.0, -20.0, 0.0), (2.0, 10.0, 0.1))


def exact_log_prob(loadings: Tensor, offset: Tensor, domain: Vectors, x: Tensor) -> Tensor:
    scale = torch.tensor(domain.scale).double()
    covariance = loadings @ loadings.T + NOISE**2 * torch.eye(len(offset)).double()
    raw = scale[:, None] * covariance * scale
    return MultivariateNormal(torch.tensor(domain.mean) + scale * offset, raw).log_prob(x)


def test_with_the_exact_posterior_every_draw_gives_the_exact_log_likelihood(orthogonal, domain) -> None:
    offset = torch.tensor([0.3, -0.2, 0.5]).double()
    model = linear(orthogonal, offset, domain)
    x = model.sample(50)
    exact = exact_log_prob(orthogonal, offset, domain, x)
    for samples in (1, 7):
        torch.testing.assert_close(model.log_prob(x, samples=samples), exact, rtol=0, atol=1e-5)


def test_the_elbo_is_tight_at_the_exact_posterior(orthogonal, domain, generator) -> None:
    model = linear(orthogonal, torch.zeros(3).double(), domain)
    x = model.sample(10, generator)
    exact = exact_log_prob(orthogonal, torch.zeros(3).double(), domain, x)
    draws = torch.stack([model.elbo(x, generator=generator) for _ in range(400)])
    error = draws.std(0) / 20
    assert ((draws.mean(0) - exact).abs() < 4 * error).all()


def test_the_bounds_rise_with_the_number_of_draws_to_the_exact_value(orthogonal, domain, generator) -> None:
    offset = torch.zeros(3).double()
    model = linear(orthogonal, offset, domain, skew=0.15)
    rows = model.sample(8, generator)
    exact = exact_log_prob(orthogonal, offset, domain, rows)
    x = rows.repeat(400, 1)
    elbo = model.elbo(x, generator=generator).view(400, 8)
    bounds = [model.log_prob(x, samples=count, generator=generator).view(400, 8) for count in (1, 4, 16, 64)]
    means = torch.stack([draws.mean() for draws in (elbo, *bounds)])
    errors = torch.stack([draws.mean(1).std() / 20 for draws in (elbo, *bounds)])
    # one draw of weights estimates the ELBO: equal means; from there on strictly upwards
    assert abs(means[0] - means[1]) < 4 * errors[:2].norm()
    assert (means[2:] - means[1:-1] > -4 * errors[1:-1]).all()
    assert means[-1] - means[0] > 0.05
    assert means[-1] < exact.mean() + 4 * errors[-1]
    many = model.log_prob(rows, samples=20_000)
    torch.testing.assert_close(many, exact, rtol=0, atol=0.05)


def test_the_linear_optimum_is_probabilistic_pca() -> None:
    data = tiny("vectors")
    x = data.train.x.double()
    standard = (x - torch.tensor(data.domain.mean)) / torch.tensor(data.domain.scale)
    pca = PCA(n_components=2).fit(standard.numpy())
    axes = torch.tensor(pca.components_).T  # (d, k)
    loadings = axes * (torch.tensor(pca.explained_variance_) - pca.noise_variance_).sqrt()
    model = linear(loadings, torch.tensor(pca.mean_), data.domain)
    with torch.no_grad():
        model.decoder.bias[1::2] = math.log(pca.noise_variance_) / 2
        model.encoder.bias[2:] = (pca.noise_variance_ / torch.tensor(pca.explained_variance_)).log() / 2
        project = loadings.T / torch.tensor(pca.explained_variance_)[:, None]
        model.encoder.weight[:2] = project
        model.encoder.bias[:2] = -project @ torch.tensor(pca.mean_)
    best = pca.score(standard.numpy()) + data.domain.log_volume
    draws = model.elbo(x, samples=2000)
    assert draws.mean().item() == pytest.approx(best, abs=0.01)
    assert model.log_prob(x, samples=1).mean().item() == pytest.approx(best, abs=1e-5)
    # no direction leads further up, on average over the noise
    for parameter in model.parameters():
        with torch.no_grad():
            for sign in (0.05, -0.05):
                parameter.add_(sign)
                assert model.elbo(x, samples=200).mean() < best
                parameter.sub_(sign)


def test_the_divergence_agrees_with_torch_and_with_monte_carlo(generator) -> None:
    mean, log_scale = torch.randn(2, 5, 3, dtype=torch.float64, generator=generator)
    posterior, prior = Normal(mean, log_scale.exp()), Normal(torch.zeros_like(mean), 1.0)
    torch.testing.assert_close(divergence(mean, log_scale), kl_divergence(posterior, prior).sum(-1))
    z = mean + log_scale.exp() * torch.randn(20_000, 5, 3, dtype=torch.float64, generator=generator)
    ratio = (posterior.log_prob(z) - prior.log_prob(z)).sum(-1)
    error = 4 * ratio.std(0) / math.sqrt(len(z))
    assert ((ratio.mean(0) - divergence(mean, log_scale)).abs() < error).all()


def by_quadrature(model: VAE, x: Tensor) -> Tensor:
    """Return exact log p(x) of a model with one latent variable."""
    z = torch.linspace(-9, 9, 2001, dtype=torch.float64)[:, None]
    weights = Normal(0.0, 1.0).log_prob(z[:, 0]) + math.log(18 / 2000)
    fit = model.reconstruction(x, z[:, None].expand(-1, len(x), 1))  # (points, n)
    return (fit + weights[:, None]).logsumexp(0)


def test_a_model_of_bits_sums_to_one_and_its_bound_stays_below(moved) -> None:
    domain = Bits((1, 2, 3))
    model = moved(VAE.for_data(Signature(domain), latent=1, hidden=(8,))).double()
    states = domain.states()
    exact = by_quadrature(model, states)
    assert exact.exp().sum().item() == pytest.approx(1, abs=1e-9)
    assert model.elbo(states, samples=500).mean() < exact.mean()
    assert model.log_prob(states, samples=2).mean() < exact.mean()
    close = model.log_prob(states, samples=20_000)
    torch.testing.assert_close(close, exact, rtol=0, atol=0.03)


def test_samples_come_from_the_distribution_that_is_scored(moved, generator) -> None:
    domain = Bits((3,))
    model = moved(VAE.for_data(Signature(domain), latent=1, hidden=(8,))).double()
    with torch.no_grad():
        model.decoder[0].weight.mul_(4)
    states = domain.states()
    p = by_quadrature(model, states).exp()
    n = 20_000
    place = (model.sample(n, generator).long() * torch.tensor([4, 2, 1])).sum(1)
    share = torch.bincount(place, minlength=8) / n
    assert ((share - p).abs() < 4 * (p * (1 - p) / n).sqrt()).all()


def test_samples_are_decoded_codes_where_the_likelihood_is_certain(moved) -> None:
    model = moved(VAE.for_data(tiny("images"), latent=2, hidden=(8,)))
    with torch.no_grad():
        model.decoder[-1].weight.mul_(1e5)
    z = normal((20, 2), model.decoder[0].weight, torch.Generator().manual_seed(5))
    x = model.sample(20, torch.Generator().manual_seed(5))
    assert torch.equal(x, model.decode(z))
    assert len(x.unique(dim=0)) > 5


def test_the_loss_is_the_mean_of_minus_the_elbo(moved, generator) -> None:
    data = tiny("table")
    model = moved(VAE.for_data(data, latent=2, hidden=(8,)))
    with torch.no_grad():
        model.encoder[-1].bias[2:] -= 2  # a scale far from one
        model.decoder[0].weight.mul_(3)
    x = data.train.x[:4].repeat(2000, 1)
    loss = model.loss(Batch(x))
    draws = -model.elbo(x, generator=generator)
    assert abs(loss - draws.mean()) < 4 * math.sqrt(2 / len(x)) * draws.std()


@pytest.mark.parametrize("kind", EVEN)
@pytest.mark.parametrize("architecture", ["dense", "conv"])
def test_any_domain_is_held_raw(kind: str, architecture: str, moved) -> None:
    data = tiny(kind)
    if architecture == "conv" and data.domain.planes is None:
        with pytest.raises(DomainError, match="pictures"):
            VAE.for_data(data, architecture=architecture)
        return
    model = VAE.for_data(data, latent=3, hidden=(8,), channels=(4, 8), architecture=architecture)
    model.loss(Batch(data.train.x)).backward()
    assert all(bool(parameter.grad.abs().sum() > 0) for parameter in model.parameters())
    moved(model)
    x = data.test.x
    data.domain.validated(model.sample(40))
    point = model.decode(model.encode(x))
    data.domain.validated(point)
    assert model.sample(2).dtype == point.dtype == x.dtype
    scores = model.log_prob(x, samples=8)
    torch.testing.assert_close(model.log_prob(x, samples=8), scores, rtol=0, atol=0)
    torch.testing.assert_close(model.log_prob(x[4:9].flip(0), samples=8), scores[4:9].flip(0))


def test_memory_is_bounded_without_a_change_of_scores_or_gradients(monkeypatch, moved) -> None:
    data = tiny("images")
    model = moved(VAE.for_data(data, latent=2, hidden=(8,)))
    seen = []
    model.decoder.register_forward_hook(lambda *call: seen.append(call[-1].numel()))

    def scores_and_gradient() -> tuple[Tensor, Tensor]:
        seen.clear()
        model.zero_grad()
        scores = model.log_prob(data.test.x, samples=20)
        scores.mean().backward()
        return scores, model.encoder[0].weight.grad.clone()

    whole = scores_and_gradient()
    for limit in (4000, 200):  # 64 parameters a sample: 3 rows of 20 draws; 3 draws of one row
        monkeypatch.setattr(module, "_NUMBERS_AT_ONCE", limit)
        torch.testing.assert_close(scores_and_gradient(), whole)
        assert max(seen) <= limit


def test_noise_follows_the_generator_where_there_is_one(moved) -> None:
    data = tiny("bits")
    model = moved(VAE.for_data(data, latent=2, hidden=(8,)))
    first, again, other = (
        model.log_prob(data.test.x, samples=4, generator=torch.Generator().manual_seed(seed))
        for seed in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_an_outlier_gets_a_finite_score() -> None:
    data = tiny("vectors")
    model = VAE.for_data(data, latent=2, hidden=(8,))
    assert model.log_prob(torch.full((1, 3), 1e4)).isfinite().all()


def test_scores_are_called_a_lower_bound() -> None:
    assert VAE.density == Density("lower bound", "importance-weighted, 64 samples")


def test_large_pictures_get_convolutions_unless_told_otherwise() -> None:
    large = Signature(Bits((1, 16, 16)))
    convolutions = [
        any(isinstance(layer, nn.Conv2d) for layer in VAE.for_data(data, architecture=name).modules())
        for data, name in ((large, "auto"), (large, "dense"), (tiny("bits"), "auto"))
    ]
    assert convolutions == [True, False, False]


def test_wrong_options_and_shapes_are_named() -> None:
    data = tiny("bits")
    with pytest.raises(OptionError, match="latent"):
        VAE.for_data(data, latent=0)
    with pytest.raises(OptionError, match="architecture"):
        VAE.for_data(data, architecture="convolutional")
    with pytest.raises(OptionError, match="bernoulli"):
        VAE.for_data(data, likelihood="normal")
    model = VAE.for_data(data)
    with pytest.raises(OptionError, match="samples"):
        model.log_prob(data.test.x, samples=0)
    with pytest.raises(ShapeError, match="3x3"):
        model.log_prob(data.test.x[:, :, :2])
