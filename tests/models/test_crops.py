"""Views of pictures at test time, and the mean over them."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import leadline as ll
from leadline.cli import main
from leadline.core import Classes, Images, LeadlineError, OptionError, ShapeError, Targets, VerbError
from leadline.measures import TASKS
from leadline.models.supervised.crops import Crops
from tests.cli.test_commands import failed


class Corner(nn.Module):
    """Log-probabilities of two classes from the pixel at the top left, (c + 1) / 100."""

    def __init__(self, height: int = 0, width: int = 0) -> None:
        super().__init__()
        if height:
            self.domain = Images(1, height, width)

    def predict(self, x: Tensor) -> Tensor:
        p = (x[:, 0, 0, 0].double() + 1) / 100
        return torch.stack([p, 1 - p], 1).log()


def counted(height: int, width: int) -> Tensor:
    """A picture whose pixels are numbered 0, 1, 2, ... in reading order."""
    return torch.arange(height * width, dtype=torch.uint8).view(1, 1, height, width)


def first_pixels(model: Crops, x: Tensor) -> list[int]:
    return [int(view[0, 0, 0, 0]) for view in model.views(x)]


def test_five_crops_are_the_corners_and_the_centre_and_ten_are_mirrored_too() -> None:
    x = counted(6, 8)  # crops of 4 x 4: rows 0, 2 and 1 in the middle; columns 0, 4 and 2
    assert first_pixels(Crops(Corner(4, 4), 5), x) == [0, 4, 16, 20, 10]
    assert first_pixels(Crops(Corner(4, 4), 10), x) == [0, 4, 16, 20, 10, 3, 7, 19, 23, 13]
    assert first_pixels(Crops(Corner(4, 4), 1), x) == [10]
    assert first_pixels(Crops(Corner(4, 4), 1, flip=True), x) == [10, 13]
    assert first_pixels(Crops(Corner(), 5, size=(2, 6)), x)[0] == 0
    assert all(view.shape == (1, 1, 4, 4) for view in Crops(Corner(4, 4), 10).views(x))


def test_the_probability_is_the_mean_over_the_views() -> None:
    told = Crops(Corner(4, 4), 5).predict(counted(6, 8)).exp()
    p = (1 + 5 + 17 + 21 + 11) / 500
    torch.testing.assert_close(told, torch.tensor([[p, 1 - p]]).double())


def test_targets_are_averaged_as_they_are() -> None:
    class Height(nn.Module):
        labels = Targets(("t",), (0.0,), (1.0,))

        def predict(self, x: Tensor) -> Tensor:
            return x[:, 0, 0, :1].float()

    told = Crops(Height(), 5, size=4).predict(counted(6, 8).float())
    assert told.shape == (1, 1)
    views = Crops(Height(), 5, size=4).views(counted(6, 8).float())
    torch.testing.assert_close(told, torch.stack([view[:, 0, 0, :1] for view in views]).mean(0))


def test_pictures_of_the_models_own_size_are_cut_to_seven_eighths_and_enlarged_again() -> None:
    plain = torch.full((2, 3, 32, 24), 7, dtype=torch.uint8)
    views = Crops(Corner(32, 24), 10).views(plain)
    assert all(torch.equal(view, plain) for view in views)  # a plain picture stays itself
    ramp = torch.arange(0, 64, 2, dtype=torch.uint8).view(1, 1, 1, 32).expand(1, 1, 32, 32).contiguous()
    left, right = Crops(Corner(32, 32), 5).views(ramp)[:2]
    assert left.dtype == torch.uint8
    assert int(left.max()) == 54  # 28 columns of 32: levels 0 to 54
    assert int(right.min()) == 8  # and 8 to 62
    assert bool((left.float().diff(dim=-1) >= 0).all())
    exact = nn.functional.interpolate(ramp[..., :28, :28].float(), (32, 32), mode="bilinear", antialias=True)
    assert float((left - exact).abs().max()) <= 0.5  # the nearest level, not the one below


def test_one_crop_of_a_whole_picture_is_the_model_itself() -> None:
    x, model = counted(4, 4).expand(3, -1, -1, -1), Corner(4, 4)
    assert torch.equal(Crops(model, 1).predict(x), model.predict(x))


def test_certain_views_do_not_overflow_and_an_empty_batch_gets_an_empty_answer() -> None:
    class Certain(nn.Module):
        def predict(self, x: Tensor) -> Tensor:
            return torch.tensor([0.0, -3000.0, -torch.inf]).expand(len(x), -1)

    model = Crops(Certain(), 10)
    x = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    torch.testing.assert_close(model.predict(x), torch.tensor([[0.0, -3000.0, -torch.inf]]).expand(2, -1))
    assert len(model.predict(x[:0])) == 0


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("crops")
    data = ll.load("digits", limit=300)
    torch.manual_seed(0)
    model = ll.build("convnet", data, channels=(8,), hidden=16)
    ll.fit(model, data, epochs=15, batch_size=32, out=folder / "run", progress=False)
    return folder


def test_a_measure_scores_it_and_the_command_says_the_same(home: Path) -> None:
    data, run = ll.load("digits", limit=300), ll.open(home / "run")
    views = ll.Crops(run.model, 10, size=7)
    reading = TASKS["classification"].measure(views, data)
    assert reading.quantities["accuracy"].value > 0.5
    words = ["predict", str(home / "run"), "digits", "--crops", "10", "--crop-size", "7"]
    assert main([*words, "--out", str(home / "told.csv")]) == 0
    told = pd.read_csv(home / "told.csv")
    with torch.no_grad():
        expected = views.predict(ll.load("digits").test.x).exp()
    got = torch.tensor(told[[f"p({name})" for name in run.labels.names]].to_numpy())
    torch.testing.assert_close(got.float(), expected, atol=1e-5, rtol=1e-4)
    assert isinstance(run.labels, Classes)


def test_mirror_images_alone_may_be_asked_for(home: Path) -> None:
    for more in (["--flip"], ["--crops", "5", "--flip"], []):
        assert (
            main(["predict", str(home / "run"), "digits", *more, "--out", str(home / f"{len(more)}.csv")])
            == 0
        )
    rows = [pd.read_csv(home / f"{n}.csv")["p(3)"] for n in (0, 1, 3)]
    assert not rows[0].equals(rows[1])
    assert not rows[1].equals(rows[2])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"crops": 3}, "1, 5 or 10"),
        ({"crops": 0}, "1, 5 or 10"),
        ({"size": 0}, "at least 1"),
        ({"size": (3, 4, 5)}, "at least 1"),
        ({"size": (2.5, 3)}, "at least 1"),
    ],
)
def test_a_wrong_option_gets_one_line(options: dict[str, Any], says: str) -> None:
    with pytest.raises(OptionError, match=says):
        Crops(Corner(), **options)


def test_what_is_no_picture_too_small_or_cannot_predict_is_told(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ShapeError, match="crops need pictures"):
        Crops(Corner()).predict(torch.zeros(3, 4))
    with pytest.raises(ShapeError, match="smaller than a crop"):
        Crops(Corner(4, 4)).predict(counted(5, 3))
    with pytest.raises(ShapeError, match="smaller than a crop"):
        Crops(Corner(), size=9).predict(counted(8, 8))
    with pytest.raises(VerbError, match="has no predict"):
        Crops(nn.Linear(1, 1))
    with pytest.raises(LeadlineError, match="shape"):  # the model says what it reads
        Crops(ll.open(home / "run").model).predict(torch.zeros(2, 3, 9, 9, dtype=torch.uint8))
    assert "1, 5 or 10" in failed(capsys, "predict", home / "run", "digits", "--crops", "4")
    iris = ll.load("iris")
    ll.fit(ll.build("linear", iris), iris, steps=1, out=home / "iris", progress=False)
    assert "crops need pictures" in failed(capsys, "predict", home / "iris", "iris", "--flip")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 24 photos of 40 x 30 pixels in two classes, and a run that read them at 16 x 16."""
    folder = tmp_path_factory.mktemp("photos")
    generator = torch.Generator().manual_seed(0)
    for number in range(24):
        kind = ("dark", "light")[number % 2]
        (folder / "all" / kind).mkdir(parents=True, exist_ok=True)
        levels = torch.randint(100 * (number % 2), 156 + 100 * (number % 2), (30, 40, 3), generator=generator)
        Image.fromarray(levels.to(torch.uint8).numpy()).save(folder / "all" / kind / f"{number:02}.png")
    data = ll.load(folder / "all", size=16)
    ll.fit(ll.build("convnet", data, channels=(8,)), data, epochs=8, out=folder / "run", progress=False)
    return folder


def test_crops_are_cut_out_of_pictures_read_larger_than_the_model_reads(photos: Path) -> None:
    run, out = ll.open(photos / "run"), photos / "told.csv"
    words = ["predict", photos / "run", photos / "all", "--crops", "10", "--picture-size", "20", "--out", out]
    assert main([str(word) for word in words]) == 0
    told = pd.read_csv(out)
    x = torch.stack([_read(Path(name), 20) for name in told["sample"]])
    with torch.no_grad():
        p = ll.Crops(run.model, 10).predict(x).exp()
        own = run.model.predict(torch.stack([_read(Path(name), 16) for name in told["sample"]])).exp()
    got = torch.tensor(told[["p(dark)", "p(light)"]].to_numpy()).float()
    torch.testing.assert_close(got, p, atol=1e-5, rtol=1e-4)
    assert float((p - own).abs().max()) > 1e-3


def test_a_run_on_pictures_as_they_came_reads_larger_ones_of_the_same_aspect(photos: Path) -> None:
    data = ll.load(photos / "all")  # 40 x 30 pixels without a size
    ll.fit(
        ll.build("convnet", data, channels=(4,)), data, steps=2, out=photos / "as they came", progress=False
    )
    run, told = ll.open(photos / "as they came"), photos / "larger.csv"
    words = [
        "predict",
        photos / "as they came",
        photos / "all" / "dark",
        "--picture-size",
        "36",
        "--out",
        told,
    ]
    assert main([str(word) for word in words]) == 0
    rows = pd.read_csv(told)
    x = []
    for name in rows["sample"]:
        with Image.open(name) as image:
            large = np.asarray(image.resize((48, 36), Image.Resampling.BICUBIC)).copy()
        x.append(torch.from_numpy(large)[3:33, 4:44].permute(2, 0, 1))  # the centre, 30 high and 40 wide
    with torch.no_grad():
        p = run.model.predict(torch.stack(x)).exp()[:, 0]
    torch.testing.assert_close(torch.tensor(rows["p(dark)"].to_numpy()).float(), p, atol=1e-5, rtol=1e-4)


def _read(path: Path, side: int) -> Tensor:
    """Return a picture of 40 x 30 as its middle square at another size, (3, side, side)."""
    with Image.open(path) as image:
        small = image.crop((5, 0, 35, 30)).resize((side, side), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.asarray(small).copy()).permute(2, 0, 1)


def test_a_picture_size_that_cannot_be_is_refused_in_one_line(
    home: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = photos / "run"
    assert "smaller than a crop" in failed(capsys, "predict", run, photos / "all", "--picture-size", "12")
    iris = ll.load("iris")
    ll.fit(ll.build("linear", iris), iris, steps=1, out=photos / "iris", progress=False)
    says = failed(capsys, "predict", photos / "iris", "iris", "--picture-size", "12")
    assert "--picture-size applies to runs on Images" in says
    assert "Images(1x9x9" in failed(capsys, "predict", home / "run", "digits", "--picture-size", "9")
