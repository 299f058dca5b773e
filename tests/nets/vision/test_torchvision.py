"""The same weights give torchvision's answers, through its own files; run where torchvision can be had."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from leadline.nets.vision.alexnet import AlexNet
from leadline.nets.vision.densenet import DenseNet, imagenet_plan
from leadline.nets.vision.googlenet import GoogLeNet
from leadline.nets.vision.resnet import ResNet
from leadline.nets.vision.resnet import imagenet_plan as residual_plan
from leadline.nets.vision.vgg import VGG
from leadline.nets.vision.weights import load_file

OUTPUTS = 7


@pytest.fixture(scope="module")
def published() -> Any:
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
    from bench.peers import torchvision_models

    return torchvision_models()


def unsettled(net: nn.Module) -> nn.Module:
    """Return a net whose normalisations are off their start, without dropout."""
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for value, low in ((layer.weight, 0.5), (layer.bias, -0.5), (layer.running_mean, -0.5)):
                nn.init.uniform_(value, low, low + 1)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    return net


PAIRS: dict[str, tuple[Any, Any, int]] = {
    "alexnet": (lambda: AlexNet(3, OUTPUTS), {}, 64),
    "vgg11_bn": (lambda: VGG(3, OUTPUTS, 11, normalised=True), {"init_weights": False}, 32),
    "resnet18": (lambda: ResNet(3, OUTPUTS, residual_plan(18)), {}, 32),
    "resnet50": (lambda: ResNet(3, OUTPUTS, residual_plan(50)), {}, 32),
    "densenet121": (lambda: DenseNet(3, OUTPUTS, imagenet_plan(121)), {}, 32),
    # maps of 6 x 6 and more where the auxiliary heads make means of 4 x 4
    "googlenet": (lambda: GoogLeNet(3, OUTPUTS), {"init_weights": False}, 96),
}


@pytest.mark.parametrize("name", PAIRS)
def test_a_file_of_torchvision_gives_its_answers(name: str, published: Any, tmp_path: Path) -> None:
    make, options, side = PAIRS[name]
    peer = unsettled(getattr(published, name)(num_classes=OUTPUTS, **options)).eval()
    torch.save(peer.state_dict(), tmp_path / "file.pth")
    mine = unsettled(make()).eval()
    assert load_file(mine, tmp_path / "file.pth")["new"] == []
    x = torch.randn(2, 3, side, side + 5)
    with torch.no_grad():
        torch.testing.assert_close(mine(x), peer(x), atol=1e-5, rtol=1e-5)
        if name == "googlenet":
            expected = peer.train()(x)
            scores, (first, second) = mine.train().with_auxiliary(x)
            torch.testing.assert_close(scores, expected.logits, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(first, expected.aux_logits1, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(second, expected.aux_logits2, atol=1e-5, rtol=1e-5)


def test_every_net_that_torchvision_has_shares_its_names(published: Any) -> None:
    nets: dict[str, Any] = {
        **{f"vgg{d}": lambda d=d: VGG(3, 1000, d) for d in (11, 13, 16, 19)},
        **{f"vgg{d}_bn": lambda d=d: VGG(3, 1000, d, normalised=True) for d in (11, 13, 16, 19)},
        **{f"resnet{d}": lambda d=d: ResNet(3, 1000, residual_plan(d)) for d in (18, 34, 50, 101, 152)},
        **{f"densenet{d}": lambda d=d: DenseNet(3, 1000, imagenet_plan(d)) for d in (121, 161, 169, 201)},
        "alexnet": lambda: AlexNet(3, 1000),
        "googlenet": lambda: GoogLeNet(3, 1000),
    }
    for name, make in nets.items():
        options = {"init_weights": False} if name == "googlenet" else {}
        with torch.device("meta"):
            mine, peer = make(), getattr(published, name)(**options)
        shapes = [{k: v.shape for k, v in net.state_dict().items()} for net in (mine, peer)]
        assert shapes[0] == shapes[1], name
