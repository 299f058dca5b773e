"""Files of weights: formats, old names, heads of another size, and files that are not what they say."""

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from leadline.core import DataError
from leadline.nets.vision.blocks import VisionNet
from leadline.nets.vision.densenet import DenseNet, bc_plan
from leadline.nets.vision.googlenet import GoogLeNet
from leadline.nets.vision.resnet import ResNet, cifar_plan
from leadline.nets.vision.weights import load_file, tensors_in


def small(outputs: int = 4, channels: int = 3) -> VisionNet:
    return ResNet(channels, outputs, cifar_plan(8, width=0.25))


def same(mine: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(mine[key], value) for key, value in other.items())


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_both_kinds_of_file_give_back_every_tensor(ending: str, tmp_path: Path) -> None:
    source, target = small(), small()
    path = tmp_path / f"file.{ending}"
    (torch.save if ending == "pth" else save_file)(source.state_dict(), path)
    told = load_file(target, path)
    assert same(target.state_dict(), source.state_dict())
    assert told["weights"] == path.name
    assert told["new"] == []
    assert told["loaded"] == len(source.state_dict())
    assert told["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("wrap", ["state_dict", "model", ""])
def test_a_checkpoint_around_the_tensors_and_a_prefix_are_seen_through(wrap: str, tmp_path: Path) -> None:
    source, target = small(), small()
    held = {f"module.{key}": value for key, value in source.state_dict().items()}
    torch.save({wrap: held, "epoch": 3} if wrap else held, tmp_path / "f.pth")
    load_file(target, tmp_path / "f.pth")
    assert same(target.state_dict(), source.state_dict())


def test_old_names_of_dense_layers_and_missing_counts_are_understood(tmp_path: Path) -> None:
    source, target = (DenseNet(3, 4, bc_plan(10, 4)) for _ in range(2))
    nn.init.uniform_(source.get_submodule("features.norm5").running_mean)
    held = source.state_dict()
    old = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", key): value
        for key, value in held.items()
        if "num_batches" not in key
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, tmp_path / "old.pth")
    assert load_file(target, tmp_path / "old.pth")["new"] == []
    assert same(target.state_dict(), held)


def test_a_head_of_another_size_stays_new_and_is_named(tmp_path: Path) -> None:
    source, target = small(outputs=9), small(outputs=4)
    head = target.fc.weight.clone()
    torch.save(source.state_dict(), tmp_path / "f.pth")
    assert load_file(target, tmp_path / "f.pth")["new"] == ["fc"]
    assert torch.equal(target.fc.weight, head)
    assert torch.equal(target.conv1.weight, source.conv1.weight)


def test_a_layer_that_only_begins_like_a_new_head_is_left_over(tmp_path: Path) -> None:
    held = small(outputs=9).state_dict() | {"fc2.weight": torch.zeros(2)}
    torch.save(held, tmp_path / "f.pth")
    with pytest.raises(DataError, match=r"1 left over: fc2\.weight$"):
        load_file(small(outputs=4), tmp_path / "f.pth")


def test_a_stem_of_another_size_stays_new_and_is_named(tmp_path: Path) -> None:
    torch.save(small(channels=1).state_dict(), tmp_path / "f.pth")
    assert load_file(small(channels=3), tmp_path / "f.pth")["new"] == ["conv1"]


def test_auxiliary_heads_may_be_left_over_or_missing(tmp_path: Path) -> None:
    def net(*, branched: bool) -> VisionNet:
        return GoogLeNet(3, 4, small=True, width=0.0625, branched=branched)

    torch.save(net(branched=True).state_dict(), tmp_path / "with.pth")
    torch.save(net(branched=False).state_dict(), tmp_path / "without.pth")
    assert load_file(net(branched=False), tmp_path / "with.pth")["new"] == []
    assert load_file(net(branched=True), tmp_path / "without.pth")["new"] == ["aux1", "aux2"]


def test_a_file_of_another_net_tells_what_is_missing_and_what_is_left_over(tmp_path: Path) -> None:
    held = small().state_dict()
    held["strange.weight"] = torch.zeros(2)
    held["layer1.0.conv1.weight"] = torch.zeros(1, 1, 3, 3)
    del held["layer2.0.bn1.bias"]
    torch.save(held, tmp_path / "f.pth")
    message = (
        r"f\.pth: does not fit; 1 missing: layer2\.0\.bn1\.bias; 1 left over: strange\.weight; "
        r"1 of another shape: layer1\.0\.conv1\.weight$"
    )
    target = small()
    before = {key: value.clone() for key, value in target.state_dict().items()}
    with pytest.raises(DataError, match=message):
        load_file(target, tmp_path / "f.pth")
    assert same(target.state_dict(), before)
    torch.save(DenseNet(3, 4, bc_plan(10, 4)).state_dict(), tmp_path / "g.pth")
    with pytest.raises(
        DataError, match=r"\d\d missing: conv1\.weight, bn1\.weight, bn1\.bias, \.\.\.; \d\d left"
    ):
        load_file(small(), tmp_path / "g.pth")


class Hostile:
    """An object whose reading would leave a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (Path.touch, (self.mark,))


def spoiled(path: Path, how: str) -> Path:
    """Write a file that is not what it says."""
    torch.save(small().state_dict(), path)
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:5000])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "text":
        path.write_text("weights")
    elif how == "object":
        torch.save(Hostile(path.parent / "mark"), path)
    elif how == "module":
        torch.save(small(), path)
    elif how == "list":
        torch.save([torch.zeros(2)], path)
    elif how == "numbers":
        torch.save({"fc.weight": 3}, path)
    elif how == "nan":
        held = small().state_dict()
        held["conv1.weight"][0, 0, 0, 0] = float("nan")
        torch.save(held, path)
    elif how == "gone":
        path.unlink()
    return path


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("truncated", "damaged"),
        ("empty", "damaged"),
        ("text", "cannot be read as weights"),
        ("object", "objects of Python"),
        ("module", "objects of Python"),
        ("list", "does not hold tensors by name"),
        ("numbers", "does not hold tensors by name"),
        ("nan", "conv1.weight holds a number that is not finite"),
        ("gone", "no such file"),
    ],
)
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_a_spoiled_file_gets_one_line_and_runs_nothing(
    how: str, message: str, ending: str, tmp_path: Path
) -> None:
    path = spoiled(tmp_path / f"f.{ending}", how)
    expected = message if ending == "pth" or how == "gone" else "cannot be read as weights"
    with pytest.raises(DataError, match=expected) as caught:
        load_file(small(), path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert not (tmp_path / "mark").exists()


def test_tensors_are_read_by_the_names_of_today(tmp_path: Path) -> None:
    torch.save({"module.features.denseblock1.denselayer2.conv.1.weight": torch.zeros(1)}, tmp_path / "f.pth")
    assert list(tensors_in(tmp_path / "f.pth")) == ["features.denseblock1.denselayer2.conv1.weight"]
