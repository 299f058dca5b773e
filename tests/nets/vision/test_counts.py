"""Parameter counts to the unit, and the sizes of pictures that each net takes; all without memory."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from leadline.core import OptionError
from leadline.nets.vision.alexnet import AlexNet
from leadline.nets.vision.blocks import VisionNet
from leadline.nets.vision.bn_inception import BNInception
from leadline.nets.vision.densenet import DenseNet, DenseNetPlan, bc_plan, imagenet_plan
from leadline.nets.vision.googlenet import GoogLeNet
from leadline.nets.vision.prelu_net import PReLUNet
from leadline.nets.vision.resnet import ResNet, cifar_plan
from leadline.nets.vision.resnet import imagenet_plan as residual_plan
from leadline.nets.vision.vgg import VGG

COUNTS: list[tuple[Callable[..., VisionNet], int]] = [
    (AlexNet, 61_100_840),
    (partial(AlexNet, variant="paper"), 60_965_224),
    (partial(VGG, depth=11), 132_863_336),
    (partial(VGG, depth=11, normalised=True), 132_868_840),
    (partial(VGG, depth=13), 133_047_848),
    (partial(VGG, depth=13, normalised=True), 133_053_736),
    (partial(VGG, depth=16), 138_357_544),
    (partial(VGG, depth=16, normalised=True), 138_365_992),
    (partial(VGG, depth=19), 143_667_240),
    (partial(VGG, depth=19, normalised=True), 143_678_248),
    (partial(GoogLeNet, branched=False), 6_624_904),
    (GoogLeNet, 13_004_888),
    (partial(GoogLeNet, variant="paper", branched=False), 6_998_552),
    (partial(GoogLeNet, variant="paper"), 13_378_280),
    (BNInception, 11_295_240),
    (partial(PReLUNet, model="A"), 178_032_072),
    (partial(PReLUNet, model="B"), 183_343_048),
    (partial(PReLUNet, model="C"), 330_623_944),
    (partial(DenseNet, plan=imagenet_plan(121)), 7_978_856),
    (partial(DenseNet, plan=imagenet_plan(161)), 28_681_000),
    (partial(DenseNet, plan=imagenet_plan(169)), 14_149_480),
    (partial(DenseNet, plan=imagenet_plan(201)), 20_013_928),
]
PLAIN = {"bottleneck": False, "compression": 1.0}
SMALL = [
    (bc_plan(40, 12, **PLAIN), 10, 1_019_722),
    (bc_plan(100, 12, **PLAIN), 10, 6_979_642),
    (bc_plan(100, 24, **PLAIN), 10, 27_249_082),
    (bc_plan(100, 12), 10, 769_162),
    (bc_plan(100, 12), 100, 800_032),
    (bc_plan(250, 24), 10, 15_324_406),
    (bc_plan(190, 40), 10, 25_624_430),
]
FAMILIES: dict[str, Callable[..., VisionNet]] = {
    "alexnet": AlexNet,
    "alexnet, paper": partial(AlexNet, variant="paper"),
    "vgg": partial(VGG, depth=11),
    "googlenet": GoogLeNet,
    "googlenet, paper": partial(GoogLeNet, variant="paper"),
    "bn_inception": BNInception,
    "prelu_net": PReLUNet,
}


def planned(name: str, *, small: bool) -> VisionNet:
    """Return a narrow net of a family."""
    if name == "resnet":
        return ResNet(3, 5, residual_plan(18, small=small, width=0.125))
    if name == "densenet":
        return DenseNet(3, 5, imagenet_plan(121, growth=4, small=small))
    return FAMILIES[name](3, 5, small=small, width=0.125)


def count(net: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


@pytest.mark.parametrize(("make", "expected"), COUNTS, ids=lambda value: str(value)[:60])
def test_parameter_counts_hold_to_the_unit(make: Callable[..., VisionNet], expected: int) -> None:
    with torch.device("meta"):
        assert count(make(3, 1000)) == expected


@pytest.mark.parametrize(("plan", "outputs", "expected"), SMALL)
def test_counts_of_nets_for_small_pictures_hold_to_the_unit(
    plan: DenseNetPlan, outputs: int, expected: int
) -> None:
    with torch.device("meta"):
        assert count(DenseNet(3, outputs, plan)) == expected


@pytest.mark.parametrize("side", [4, 7, 8, 28, 33, 64])
@pytest.mark.parametrize("name", [*FAMILIES, "resnet", "densenet"])
def test_the_small_stem_takes_every_side_from_four_pixels_on(name: str, side: int) -> None:
    with torch.device("meta"):
        net = planned(name, small=True)
        assert net(torch.zeros(2, 3, side, side + 1)).shape == (2, 5)


@pytest.mark.parametrize("name", [*FAMILIES, "resnet", "densenet"])
def test_the_large_stem_takes_the_shortest_side_that_it_names(name: str) -> None:
    with torch.device("meta"):
        net = planned(name, small=False)
        assert net(torch.zeros(2, 3, net.smallest, net.smallest + 1)).shape == (2, 5)
        if "alexnet" in name:
            with pytest.raises(RuntimeError, match="size"):
                net(torch.zeros(2, 3, net.smallest - 1, net.smallest - 1))


@pytest.mark.parametrize("name", [*FAMILIES, "resnet", "densenet"])
@pytest.mark.parametrize("small", [False, True])
def test_the_layers_that_a_net_names_are_those_that_change_with_outputs_and_stem(
    name: str, small: bool
) -> None:
    with torch.device("meta"):
        net = planned(name, small=small)
    assert net.get_submodule(net.heads[0]).out_features == 5
    for layer in (*net.heads, *net.stems):
        assert net.get_submodule(layer)
    with torch.device("meta"):
        other = planned(name, small=not small)
    unlike = {
        key.rpartition(".")[0]
        for key, value in net.state_dict().items()
        if other.state_dict()[key].shape != value.shape
    }
    allowed = {layer for layer in net.stems if not list(net.get_submodule(layer).children())}
    allowed |= {f"{layer}.conv" for layer in net.stems}
    assert unlike <= allowed


def test_local_response_is_that_of_the_paper() -> None:
    layer = AlexNet(3, 2, "paper", width=0.0625).features[2]
    a = torch.randn(2, 7, 3, 3, dtype=torch.float64)
    square = torch.nn.functional.pad(a.square(), (0, 0, 0, 0, 2, 2))
    near = sum(square[:, shift : shift + 7] for shift in range(5))
    torch.testing.assert_close(layer(a), a / (2 + 1e-4 * near) ** 0.75)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VGG(3, 2, 12), "depth must be one of 11, 13, 16, 19, got 12"),
        (lambda: PReLUNet(3, 2, "D"), 'unknown model "D"'),
        (lambda: imagenet_plan(100), "depth must be one of 121"),
        (lambda: bc_plan(41), r"depth must be 6 n \+ 4, such as 100, got 41"),
        (lambda: bc_plan(39, bottleneck=False), r"depth must be 3 n \+ 4, such as 40"),
        (lambda: bc_plan(compression=0.0), "compression"),
        (lambda: bc_plan(dropout=1.0), "dropout"),
        (lambda: bc_plan(growth=0), "positive"),
        (lambda: cifar_plan(2), r"6 n \+ 2"),
    ],
)
def test_numbers_out_of_range_are_named(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        make()
