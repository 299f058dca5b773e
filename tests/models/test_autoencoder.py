"""The autoencoder, dense, convolutional and learned layer by layer."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from leadline.catalog import build
from leadline.core import Batch, Bits, DomainError, Images, OptionError, Signature, Vectors, way_of
from tests.tiny import EVEN, tiny


@pytest.mark.parametrize("kind", EVEN)
def test_the_loss_is_that_of_the_reconstruction_under_the_likelihood(
    kind: str, moved: Callable[[nn.Module], nn.Module]
) -> None:
    data = tiny(kind)
    model = moved(build("autoencoder", data, latent=2, hidden=(6,), activation="tanh")).double()
    x = data.test.x
    first, code = model.encoder[0], model.encoder[2]
    f = data.domain.features(x, torch.empty(0, dtype=torch.float64))
    z = torch.tanh(f @ first.weight.T + first.bias) @ code.weight.T + code.bias
    torch.testing.assert_close(model.encode(x), z)
    up, out = model.decoder[0], model.decoder[2]
    params = torch.tanh(z @ up.weight.T + up.bias) @ out.weight.T + out.bias
    if kind in ("vectors", "targets"):
        # half the squared error in standard deviations, and the constants of the normal
        error = 0.5 * (params - f).square() + torch.tensor(data.domain.scale).double().log()
        expected = (error + 0.5 * torch.tensor(2 * torch.pi).double().log()).sum(1).mean()
    elif kind == "table":
        real = data.domain.reals.likelihood()
        located = torch.stack([params[:, :2], torch.zeros_like(params[:, :2])], -1).flatten(1)
        expected = -(
            real.log_prob(located, x[:, :2])
            + data.domain.categories.likelihood().log_prob(params[:, 2:], x[:, 2:])
        ).mean()
    else:
        expected = -data.domain.likelihood().log_prob(params, x).mean()
    torch.testing.assert_close(model.loss(Batch(x)), expected)


@pytest.mark.parametrize("kind", EVEN)
def test_decoded_codes_are_raw_values(kind: str, moved: Callable[[nn.Module], nn.Module]) -> None:
    data = tiny(kind)
    model = moved(build("autoencoder", data, latent=2, hidden=(6,)))
    back = model.reconstruct(data.test.x)
    assert back.dtype == data.domain.dtype
    data.domain.validated(back)
    assert torch.equal(back, model.decode(model.encode(data.test.x)))


@pytest.mark.parametrize(
    "domain", [Images(1, 4, 4, 4), Images(3, 8, 8), Images(1, 28, 28), Bits((1, 3, 3)), Images(2, 5, 9, 17)]
)
def test_the_convolutional_one_takes_every_picture(domain: Images | Bits) -> None:
    model = build("autoencoder", Signature(domain), architecture="conv", latent=3, channels=(4, 6))
    most = 2 if isinstance(domain, Bits) else domain.levels
    x = torch.randint(most, (5, *domain.shape), dtype=torch.uint8)
    model.loss(Batch(x)).backward()
    assert all(bool(parameter.grad.any()) for parameter in model.parameters())
    model.eval()
    assert model.encode(x).shape == (5, 3)
    domain.validated(model.reconstruct(x))


@pytest.mark.parametrize("architecture", ["dense", "conv"])
def test_in_evaluation_each_row_is_coded_alone(
    architecture: str, moved: Callable[[nn.Module], nn.Module]
) -> None:
    data = tiny("images")
    model = moved(
        build("autoencoder", data, architecture=architecture, channels=(4, 6), hidden=(8,))
    ).double()
    model.loss(Batch(data.train.x))
    model.eval()
    alone = torch.cat([model.encode(row[None]) for row in data.test.x])
    torch.testing.assert_close(alone, model.encode(data.test.x))


def test_the_planes_of_a_pixel_are_its_logits() -> None:
    data = tiny("images")
    model = build("autoencoder", data, architecture="conv", channels=(4, 6)).double().eval()
    planes = model.decoder(model.encode(data.test.x))  # (n, levels, h, w)
    expected = F.cross_entropy(planes, data.test.x[:, 0].long(), reduction="sum") / len(planes)
    torch.testing.assert_close(model.loss(Batch(data.test.x)), expected)


def _angles(a: Tensor, b: Tensor) -> Tensor:
    """Return the cosines of the principal angles between two column spaces."""
    return torch.linalg.svdvals(torch.linalg.qr(a)[0].T @ torch.linalg.qr(b)[0])


def test_a_linear_one_spans_the_principal_subspace() -> None:
    mix = torch.randn(6, 6) * torch.tensor([4.0, 3.0, 1.0, 0.5, 0.3, 0.2])
    x = torch.randn(200, 6) @ mix.T + 7
    domain = Vectors(tuple("abcdef"), tuple(x.mean(0).tolist()), tuple(x.std(0).tolist()))
    model = build("autoencoder", Signature(domain), latent=2, hidden=()).double()
    optimizer = torch.optim.LBFGS(
        model.parameters(),
        max_iter=500,
        tolerance_grad=1e-10,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = model.loss(Batch(x))
        loss.backward()
        return loss

    optimizer.step(closure)
    u = domain.features(x.double())
    principal = torch.linalg.svd(u - u.mean(0))[2][:2].T
    with torch.no_grad():
        assert _angles(model.decoder[0].weight, principal).min() > 1 - 1e-8
        assert _angles(model.encoder[0].weight.T, principal).min() > 1 - 1e-4
        pca = build("pca", Signature(domain), latent=2).double()
        pca.sweep(x)
        torch.testing.assert_close(model.reconstruct(x), pca.decode(pca.encode(x)), atol=1e-3, rtol=1e-4)


def test_the_stages_chained_are_the_whole() -> None:
    data = tiny("bits")
    model = build("autoencoder", data, latent=2, hidden=(6, 4), pretraining="layerwise")
    stages, x = model.stages(), data.test.x
    assert way_of(model) == "stack"
    assert [tuple(stage.up[0].weight.shape) for stage in stages] == [(6, 9), (4, 6), (2, 4)]
    codes: Tensor = x
    for stage in stages:
        codes = stage.encode(codes)
    torch.testing.assert_close(codes, model.encode(x))
    for stage in reversed(stages):
        codes = stage.down(codes)
    torch.testing.assert_close(codes, model.decoder(model.encode(x)))
    assert list(model.state_dict()) == list(build("autoencoder", data, latent=2, hidden=(6, 4)).state_dict())


def test_each_stage_learns_its_own_layers_and_no_other() -> None:
    data = tiny("vectors")
    model = build("autoencoder", data, latent=1, hidden=(6, 4), pretraining="layerwise", activation="tanh")
    inputs: Tensor = data.train.x
    for number, stage in enumerate(model.stages()):
        before = {name: value.clone() for name, value in model.state_dict().items()}
        optimizer = torch.optim.Adam(stage.parameters(), 0.01)
        losses = []
        for _ in range(20):
            optimizer.zero_grad()
            loss = stage.loss(Batch(inputs))
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        assert losses[-1] < losses[0]
        after = model.state_dict()
        changed = {name.rpartition(".")[0] for name in after if not torch.equal(after[name], before[name])}
        assert changed == {f"encoder.{2 * number}", f"decoder.{2 * (2 - number)}"}
        inputs = stage.encode(inputs).detach()


def test_pictures_of_sixteen_pixels_get_convolutions() -> None:
    large, small = Signature(Images(1, 16, 20)), Signature(Images(1, 15, 20))
    kinds = {type(layer) for layer in build("autoencoder", large).modules()}
    assert nn.Conv2d in kinds
    for model in (build("autoencoder", small), build("autoencoder", large, pretraining="layerwise")):
        assert nn.Conv2d not in {type(layer) for layer in model.modules()}


def test_the_code_is_narrower_than_the_sample_by_default() -> None:
    widths = {size: build("autoencoder", Signature(Bits((size,)))).latent for size in (1, 4, 9, 784)}
    assert widths == {1: 1, 4: 2, 9: 5, 784: 16}


def test_wrong_options_are_named() -> None:
    with pytest.raises(DomainError, match="needs pictures"):
        build("autoencoder", tiny("vectors"), architecture="conv")
    with pytest.raises(OptionError, match="unknown pretraining"):
        build("autoencoder", tiny("vectors"), pretraining="greedy")
    with pytest.raises(OptionError, match='needs architecture="dense"'):
        build("autoencoder", tiny("images"), pretraining="layerwise", architecture="conv")
    with pytest.raises(OptionError, match="latent must be at least 1"):
        build("autoencoder", tiny("images"), latent=0)
