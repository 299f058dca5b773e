"""Nets for pictures as models: levels, stems, weights of a file, named layers, auxiliary losses, memory."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from leadline.catalog import CATALOG, build
from leadline.core import Batch, Bits, Classes, DomainError, Images, OptionError, Signature, Targets
from leadline.training import fit, open_run
from tests.tiny import tiny

CLASSES = Classes(("a", "b", "c"))
REALS = Targets(("s", "t"), (5.0, -2.0), (3.0, 0.5))
NARROW: dict[str, dict[str, Any]] = {
    "alexnet": {"width": 0.0625},
    "vgg11": {"width": 0.0625},
    "vgg11_bn": {"width": 0.0625},
    "googlenet": {"width": 0.0625},
    "bn_inception": {"width": 0.0625},
    "prelu_net_a": {"width": 0.0625},
    "resnet18": {"width": 0.0625},
    "resnet50": {"width": 0.0625},
    "densenet121": {"growth": 2},
    "densenet_bc": {"depth": 10, "growth": 4},
    "cifar_resnet20": {"width": 0.25},
}
Move = Callable[[nn.Module], nn.Module]


def levels(domain: Images | Bits, n: int = 3) -> Tensor:
    most = 2 if isinstance(domain, Bits) else domain.levels
    return torch.randint(most, (n, *domain.shape), dtype=torch.uint8)


def made(name: str, domain: Images | Bits = Images(1, 8, 8, 17), **options: Any) -> Any:  # noqa: B008
    return build(name, Signature(domain, options.pop("labels", CLASSES)), **NARROW.get(name, {}), **options)


@pytest.mark.parametrize("domain", [Images(1, 8, 8, 17), Images(3, 66, 70), Images(2, 5, 9), Bits((1, 4, 4))])
@pytest.mark.parametrize("name", NARROW)
def test_every_net_predicts_and_encodes_every_size(name: str, domain: Images | Bits) -> None:
    for labels in (CLASSES, REALS):
        model = made(name, domain, labels=labels).eval()
        x = levels(domain)
        assert model.predict(x).shape == (3, labels.outputs)
        head = model.net.get_submodule(model.net.heads[0])
        torch.testing.assert_close(labels.predict(head(model.encode(x))), model.predict(x))


def test_levels_are_brought_to_the_scale_that_published_weights_read() -> None:
    model = made("resnet18", Images(3, 64, 64))
    x = torch.full((1, 3, 64, 64), 255, dtype=torch.uint8)
    # white: 0.515 / 0.229 = 2.2489, and so on
    expected = torch.tensor([2.2489, 2.4286, 2.6400])
    torch.testing.assert_close(model.normalised(x)[0, :, 0, 0], expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(model.normalised(x - 255)[0, :, 0, 0], -torch.tensor([2.1179, 2.0357, 1.8044]),
                               atol=1e-4, rtol=0)  # fmt: skip
    few = made("resnet18", Images(1, 8, 8, 17)).normalised(torch.full((1, 1, 8, 8), 16, dtype=torch.uint8))
    # white: the mean 0.449 of the three leaves 0.551, over their mean deviation 0.226
    torch.testing.assert_close(few, torch.full((1, 1, 8, 8), 2.43805), atol=1e-4, rtol=0)
    wide = made("googlenet", Images(3, 64, 64)).normalised(x)
    torch.testing.assert_close(wide, torch.ones(1, 3, 64, 64))


@pytest.mark.parametrize(
    ("side", "expected"), [(8, "small"), (63, "small"), (64, "imagenet"), (224, "imagenet")]
)
def test_the_stem_follows_from_the_pictures_and_is_named_in_the_recipe(side: int, expected: str) -> None:
    with torch.device("meta"):
        model = made("resnet18", Images(3, side, side + 3))
    assert model.recipe.options["stem"] == expected
    assert model.net.conv1.kernel_size == ((3, 3) if expected == "small" else (7, 7))
    with torch.device("meta"):
        assert made("resnet18", Images(3, side, side), stem="small").net.conv1.stride == (1, 1)


def test_pictures_that_are_too_small_are_refused_in_one_line() -> None:
    with pytest.raises(DomainError, match=r"needs Images with sides of at least 4 pixels.*Images\(1x3x9"):
        made("vgg11", Images(1, 3, 9))
    with pytest.raises(
        DomainError, match='stem "imagenet" of this net needs Images with sides of at least 63'
    ):
        made("alexnet", Images(3, 62, 80), stem="imagenet")
    with pytest.raises(DomainError, match="use mlp"):
        build("resnet18", tiny("vectors"))
    with pytest.raises(DomainError, match="needs labels"):
        build("resnet18", Signature(Images(1, 8, 8)))
    with pytest.raises(OptionError, match='unknown stem "large"'):
        made("resnet18", stem="large")
    with pytest.raises(OptionError, match='unknown variant "caffe"'):
        made("alexnet", variant="caffe")
    with pytest.raises(OptionError, match="resnet50 has depth=50, which its name settles; got 18"):
        build("resnet50", tiny("images"), depth=18)
    with pytest.raises(OptionError, match='unknown option of resnet50 "depht"'):
        build("resnet50", tiny("images"), depht=18)


def test_a_named_layer_is_encoded_as_the_net_computes_it(moved: Move) -> None:
    model = moved(made("resnet18")).eval()
    x = levels(Images(1, 8, 8, 17))
    net, inputs = model.net, model.normalised(x)
    first = net.bn1(net.conv1(inputs))
    assert bool((first < 0).any())  # what the layer gives, not what a rectifier makes of it in place
    torch.testing.assert_close(model.encode(x, layer="bn1"), first.flatten(1))
    torch.testing.assert_close(model.encode(x, layer="layer1"), net.layer1(first.relu()).flatten(1))
    torch.testing.assert_close(model.encode(x, layer="fc"), model.scores(x))
    assert not net.conv1._forward_hooks
    with pytest.raises(
        OptionError, match=r'no layer "layr1" \(did you mean "layer1"\?\); at the top are conv1'
    ):
        model.encode(x, layer="layr1")
    with pytest.raises(OptionError, match='"aux1" takes no part in prediction'):
        made("googlenet").eval().encode(x, layer="aux1")


def test_auxiliary_heads_count_by_three_tenths_in_training_alone(moved: Move) -> None:
    model = moved(made("googlenet", Images(3, 16, 16)))
    for layer in model.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    x, y = levels(Images(3, 16, 16), 6), torch.arange(6) % 3
    scores, others = model.net.with_auxiliary(model.normalised(x))
    parts = [CLASSES.loss(given, y) for given in (scores, *others)]
    torch.testing.assert_close(model.loss(Batch(x, y)), parts[0] + 0.3 * parts[1] + 0.3 * parts[2])
    model.eval()
    torch.testing.assert_close(model.loss(Batch(x, y)), CLASSES.loss(model.scores(x), y))


def test_checkpointing_gives_the_same_gradients_and_the_same_statistics() -> None:
    domain = Images(3, 8, 8)
    x, y = levels(domain, 6), torch.arange(6) % 3
    found = []
    for again in (False, True):
        torch.manual_seed(0)
        model = build(
            "densenet_bc", Signature(domain, CLASSES), depth=16, growth=4, checkpointing=again
        ).double()
        model.loss(Batch(x, y)).backward()
        found.append(([p.grad for p in model.parameters()], list(model.buffers())))
    assert all(torch.equal(a, b) for a, b in zip(found[0][0], found[1][0], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(found[0][1], found[1][1], strict=True))


def test_checkpointing_keeps_less_for_the_gradient() -> None:
    kept = []
    for again in (False, True):
        model = build("densenet_bc", Signature(Images(3, 8, 8), CLASSES), depth=40, checkpointing=again)
        weights = {p.data_ptr() for p in model.parameters()}
        total: dict[int, int] = {}

        def pack(value: Tensor, total: dict[int, int] = total, weights: set[int] = weights) -> Tensor:
            if value.data_ptr() not in weights:
                total[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
            return value

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
            loss = model.loss(Batch(levels(Images(3, 8, 8), 8), torch.arange(8) % 3))
        kept.append(sum(total.values()))
        loss.backward()
    assert kept[1] < 0.7 * kept[0]


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_a_run_started_from_a_file_opens_without_it_and_tells_where_it_came_from(
    ending: str, tmp_path: Path
) -> None:
    from safetensors.torch import save_file

    source = made("resnet18", Images(3, 8, 8), labels=Classes(tuple("abcdefgh")))
    path = tmp_path / f"published.{ending}"
    (torch.save if ending == "pth" else save_file)(source.net.state_dict(), path)
    data = tiny("images")  # grey, three classes
    model = cast(Any, build("resnet18", data, width=0.0625, weights=str(path)))
    assert torch.equal(model.net.conv1.weight, source.net.conv1.weight)
    assert model.recipe.options == {
        "depth": 18, "width": 0.0625, "stem": "small", "repeated": True,
    }  # fmt: skip
    assert model.recipe.origin["new"] == ["fc"]
    run = fit(model, data, steps=2, out=tmp_path / "run", progress=False)
    path.unlink()
    opened = open_run(tmp_path / "run")
    assert opened.origin == run.origin
    assert opened.origin["weights"] == path.name
    assert len(opened.origin["sha256"]) == 64
    x = data.test.x
    assert torch.equal(cast(Any, opened.model).predict(x), cast(Any, run.model).predict(x))


@pytest.mark.parametrize(
    ("name", "options", "rate"),
    [
        ("alexnet", {}, 0.01), ("vgg11", {}, 0.01), ("vgg11_bn", {}, 0.01), ("prelu_net_a", {}, 0.01),
        ("googlenet", {}, 0.05), ("googlenet", {"variant": "paper"}, 0.01), ("bn_inception", {}, 0.05),
        ("resnet18", {}, 0.1), ("densenet_bc", {}, 0.1),
    ],
)  # fmt: skip
def test_a_net_is_advised_the_rate_of_its_paper_and_one_with_weights_a_tenth(
    name: str, options: dict[str, Any], rate: float, tmp_path: Path
) -> None:
    model = made(name, repeated=True, **options)
    assert model.recommended["lr"] == pytest.approx(rate)
    torch.save(model.net.state_dict(), tmp_path / "f.pth")
    tuned = made(name, weights=str(tmp_path / "f.pth"), **options)
    assert tuned.recommended["lr"] == pytest.approx(rate / 10)
    assert {key: value for key, value in tuned.recommended.items() if key != "lr"} == {
        "optimizer": "momentum", "schedule": "cosine", "batch_size": 128, "precision": "auto",
        "channels_last": "auto",
    }  # fmt: skip


def test_large_pictures_are_advised_in_smaller_batches_and_as_much_smaller_steps() -> None:
    small, large = (made("resnet18", Images(3, side, 80)).recommended for side in (63, 64))
    assert (small["batch_size"], large["batch_size"]) == (128, 32)
    assert small["lr"] == pytest.approx(8 * large["lr"])


@pytest.mark.parametrize(
    ("name", "deep"),
    [("resnet34", False), ("resnet50", True), ("cifar_resnet56", False), ("cifar_plain110", True)],
)
def test_very_deep_residual_nets_are_advised_to_begin_slowly(name: str, deep: bool) -> None:
    made_so = build(name, Signature(Images(1, 8, 8, 17), CLASSES), width=0.0625)
    assert made_so.recommended.get("warmup", 0) == (100 if deep else 0)


@pytest.mark.parametrize("name", ["vgg19", "alexnet", "prelu_net_a"])
def test_the_signal_of_a_net_without_normalisation_lives_through_all_layers(name: str) -> None:
    net = made(name).net.eval()
    with torch.no_grad():
        spread = net.code(torch.randn(64, 1, 8, 8)).std()
    assert 0.1 < spread < 10


def test_a_grey_picture_is_repeated_to_colour_where_weights_are_given() -> None:
    grey, colour = made("resnet18", repeated=True).eval(), made("resnet18", Images(3, 8, 8, 17)).eval()
    colour.load_state_dict(grey.state_dict())
    x = levels(Images(1, 8, 8, 17))
    torch.testing.assert_close(grey.predict(x), colour.predict(x.expand(-1, 3, -1, -1)))


def test_a_comparison_takes_large_nets_only_when_asked() -> None:
    from leadline.measures import TASKS

    asked = {name for name, entry in CATALOG.items() if entry.asked}
    assert {"resnet50", "densenet_bc", "cifar_plain110"} <= asked
    assert not asked & set(TASKS["classification"].models)
    assert "mlp" in TASKS["classification"].models


def test_channels_last_changes_no_prediction(moved: Move) -> None:
    for name in ("googlenet", "densenet_bc", "resnet18"):
        model = moved(made(name)).double().eval()
        x = levels(Images(1, 8, 8, 17))
        expected = model.predict(x)
        model.to(memory_format=torch.channels_last)
        torch.testing.assert_close(model.predict(x), expected)
