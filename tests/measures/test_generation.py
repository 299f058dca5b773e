import math
from pathlib import Path

import pytest
import torch

from leadline.core import Images, ShapeError
from leadline.measures import MeasureError, critic, critic_for, critics_kept, generation, generation_controls
from leadline.measures.generation import interval_of_sets
from tests.measures.fakes import Picks, Repeats, Says, dataset
from tests.tiny import tiny


def bench() -> object:
    """Return three classes of vectors without labels: principal components are the critic."""
    generator = torch.Generator().manual_seed(0)
    centre = torch.tensor([[0.0, 0, 0], [6, 0, 0], [0, 6, 0]])[torch.arange(360) % 3]
    return dataset(centre + torch.randn(360, 3, generator=generator), test=60, name="three")


def test_held_out_data_are_the_best_and_histograms_a_poor_line() -> None:
    data = bench()
    lines = generation_controls(data)
    floor, poor = lines["held-out data"], lines["histogram samples"]
    assert floor.value.value < poor.value.value / 3
    assert floor.quantities["nearest_ratio"].value == 1
    assert floor.quantities["copying"].value == pytest.approx(0.5)
    assert floor.quantities["copying_p"].value > 0.4
    assert "inception" not in floor.quantities
    assert "for want of classes" in floor.details["critic"]


def test_copies_of_the_train_split_are_caught() -> None:
    data = bench()
    copies = generation(Picks(data.train.x), data)
    assert copies.quantities["copying"].value == 1
    assert copies.quantities["copying_p"].value < 1e-12
    assert copies.quantities["nearest_ratio"].value == 0
    assert copies.value.value < 1
    assert torch.equal(copies.details["nearest_samples"], copies.details["nearest_train"])


def test_fresh_draws_are_no_copies() -> None:
    data = bench()
    fresh = generation(Repeats(data.valid.x), data)
    assert fresh.quantities["copying_p"].value > 0.01
    assert abs(fresh.quantities["copying"].value - 0.5) < 4 * math.sqrt(1 / (6 * 60))


def test_a_collapsed_sampler_has_precision_without_recall() -> None:
    data = bench()
    one = data.train.x[:1].expand(60, -1) + 0.01 * torch.randn(60, 3)
    reading = generation(Repeats(one), data)
    assert reading.quantities["precision"].value > 0.9
    assert reading.quantities["recall"].value < 0.1
    assert reading.value.value > generation_controls(data)["held-out data"].value.value * 5


def test_labels_give_a_trained_critic_that_is_the_same_twice() -> None:
    data = tiny("images")
    critic = critic_for(data)
    assert "mlp trained on tiny-images" in critic.name
    assert critic_for(data) is critic
    reading = generation(Picks(data.train.x), data, sets=2)
    assert 1 <= reading.quantities["inception"].value <= 3
    assert reading.value.samples == 2
    assert "2 sets of 30 samples against 120 of train" in reading.value.protocol


def test_processes_that_share_a_folder_train_one_critic_between_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tiny("images")

    def met(folder: Path | None) -> critic.Critic:
        monkeypatch.setattr(critic, "_critics", {})  # as in a process that has met no data yet
        with critics_kept(folder):
            return critic_for(data)

    alone = met(None)
    assert not list(tmp_path.iterdir())
    first = met(tmp_path)
    trained = critic.fit
    monkeypatch.setattr(critic, "fit", lambda *_, **__: pytest.fail("trained again"))
    second = met(tmp_path)
    for one in (alone, second):
        assert one.name == first.name
        assert torch.equal(one.features(data.test.x), first.features(data.test.x))
        assert one.predict is not None
        assert first.predict is not None
        assert torch.equal(one.predict(data.test.x), first.predict(data.test.x))
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(kept.read_bytes()[:100])
    monkeypatch.setattr(critic, "fit", trained)
    assert met(tmp_path).name == first.name  # a damaged one is trained anew
    monkeypatch.setattr(critic, "fit", lambda *_, **__: pytest.fail("the damaged one was left"))
    assert met(tmp_path).name == first.name


def test_each_data_set_has_a_critic_of_its_own_in_a_shared_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(critic, "_critics", {})
    rows = torch.randn(90, 2, generator=torch.Generator().manual_seed(9))
    with critics_kept(tmp_path):
        names = [
            critic_for(dataset(rows, labels)).name
            for labels in (torch.arange(90) % 2, (rows[:, 0] > 0).long())
        ]
    assert len(list(tmp_path.iterdir())) == 2
    assert names[0] != names[1]


def test_training_the_critic_leaves_global_randomness_alone() -> None:
    data = dataset(torch.randn(90, 2, generator=torch.Generator().manual_seed(9)), torch.arange(90) % 2)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    critic_for(data)
    assert torch.equal(torch.rand(3), expected)


def test_a_sampler_repeats_and_its_sets_differ() -> None:
    data = bench()
    first, again = (generation(Picks(data.valid.x), data) for _ in range(2))
    assert first.value == again.value
    assert first.value.interval is not None
    assert first.value.interval[0] < first.value.value < first.value.interval[1]


def test_samples_that_are_not_of_the_domain_are_told() -> None:
    data = bench()
    with pytest.raises(MeasureError, match="NaN or infinity in 60 of 60"):
        generation(Says(sample=lambda n, generator: torch.full((n, 3), math.nan)), data)
    with pytest.raises(ShapeError, match="as many rows as asked"):
        generation(Says(sample=lambda n, generator: torch.zeros(n + 1, 3)), data)
    with pytest.raises(ShapeError, match=r"\(n, 3\)"):
        generation(Says(sample=lambda n, generator: torch.zeros(n, 2)), data)
    pictures = dataset(torch.zeros(30, 1, 2, 2, dtype=torch.uint8), domain=Images(1, 2, 2, 4))
    with pytest.raises(ShapeError, match="is not a value of"):
        generation(Says(sample=lambda n, generator: torch.full((n, 1, 2, 2), 9, dtype=torch.uint8)), pictures)


def test_too_few_test_samples_are_told() -> None:
    with pytest.raises(MeasureError, match="at least 5 test samples, got 1"):
        generation(Says(), dataset(torch.randn(9, 2), test=1))


def test_data_of_duplicates_have_no_nearest_ratio_and_say_so() -> None:
    data = dataset(torch.zeros(60, 4, dtype=torch.uint8))
    reading = generation(Repeats(data.test.x), data)
    assert math.isnan(reading.quantities["nearest_ratio"].value)
    assert "no nearest ratio" in reading.notes[0]
    assert reading.value.value == 0


def test_students_interval_of_three_sets() -> None:
    # mean 2, deviation 1, t(2) = 4.30265: 4.30265 / sqrt 3 = 2.48414
    assert interval_of_sets([1.0, 2.0, 3.0]) == pytest.approx((2 - 2.48414, 2 + 2.48414), abs=1e-4)
    assert interval_of_sets([1.0]) is None
