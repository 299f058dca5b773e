import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from leadline.core import Classes, Targets
from leadline.measures import MeasureError, RandomNetwork, RawInput, representation, representation_controls
from leadline.measures.probes import labelled_subset, nearest_neighbours, standardised
from leadline.measures.representation import _trapezoid
from tests.measures.fakes import Says, dataset
from tests.tiny import tiny

CLASSES = 4


def classes(n: int = 600) -> object:
    """Return columns: the class, then noise; four classes."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(n) % CLASSES
    x = torch.cat([y[:, None].float(), torch.randn(n, 3, generator=generator)], 1)
    return dataset(x, y)


def one_hot(x: Tensor) -> Tensor:
    return F.one_hot(x[:, 0].long(), CLASSES).float()


def test_one_hot_codes_are_read_without_error_from_one_label() -> None:
    reading = representation(Says(encode=one_hot), classes())
    assert reading.value.value == 1.0
    assert reading.quantities["accuracy_1"].value == 1.0
    assert reading.quantities["knn_accuracy"].value == 1.0
    assert reading.quantities["code_size"].value == CLASSES


def test_noise_is_read_at_chance() -> None:
    reading = representation(Says(encode=lambda x: x[:, 1:]), classes())
    margin = 4 * math.sqrt(0.25 * 0.75 / 200)
    for name in ("accuracy_all", "accuracy_10", "knn_accuracy", "area"):
        assert abs(reading.quantities[name].value - 0.25) < margin


def test_constant_codes_hold_nothing_and_say_so() -> None:
    reading = representation(Says(encode=lambda x: torch.full((len(x), 2), 3.7)), classes())
    assert reading.quantities["accuracy_all"].value == 0.25
    assert reading.notes == ("the codes are constant: they hold nothing",)


def test_codes_that_are_not_finite_are_told() -> None:
    with pytest.raises(MeasureError, match="NaN or infinity for 200 of 200 train samples"):
        representation(Says(encode=lambda x: x.log() * math.nan), classes())


def test_one_class_and_no_labels_are_told() -> None:
    x = torch.randn(30, 2)
    with pytest.raises(MeasureError, match="at least two classes"):
        representation(Says(encode=lambda x: x), dataset(x, torch.zeros(30).long()))
    with pytest.raises(MeasureError, match="needs labels"):
        representation(Says(encode=lambda x: x), tiny("tokens"))


def test_rows_are_what_the_area_averages() -> None:
    noisy = representation(Says(encode=lambda x: one_hot(x) + 0.8 * x[:, 1:2]), classes())
    assert noisy.rows is not None
    assert float(noisy.rows.mean()) == pytest.approx(noisy.value.value)
    curve = noisy.details["curve"]
    assert curve["labels_per_class"].tolist() == [1, 5, 10, 50]  # all 50 labels a class are the last point
    logs = curve["labels_per_class"].map(math.log)
    # the area by hand: trapezoids over log labels, over the width
    steps = zip(logs, logs[1:], curve["accuracy"], curve["accuracy"][1:], strict=False)
    area = sum((b - a) * (f + g) / 2 for a, b, f, g in steps) / (logs.iloc[-1] - logs.iloc[0])
    assert noisy.value.value == pytest.approx(area)


def test_an_area_under_one_is_one_and_under_a_line_is_its_middle() -> None:
    x = torch.tensor([0.0, 1.0, 4.0]).double()
    assert float(_trapezoid(x).sum()) == pytest.approx(1)
    assert float(_trapezoid(x) @ x) == pytest.approx(2)
    assert _trapezoid(x[:1]).tolist() == [1.0]


def test_more_labels_do_not_hurt_on_the_raw_input() -> None:
    lines = representation_controls(tiny("vectors"))
    for line in lines.values():
        accuracy = line.details["curve"]["accuracy"]
        assert accuracy.iloc[-1] > accuracy.iloc[0]
    assert set(lines) == {"raw input", "random network"}


def test_a_model_that_predicts_is_marked() -> None:
    model = Says(encode=one_hot, predict=one_hot)
    assert "learned from all the labels" in representation(model, classes()).notes[0]


def test_unlabelled_samples_are_left_out() -> None:
    data = classes()
    data.train.y[:100] = -1  # type: ignore[index]
    data.valid.y[:] = -1  # type: ignore[index]
    reading = representation(Says(encode=one_hot), data)
    assert reading.value.value == 1.0
    assert "100 train codes" in reading.value.protocol


def test_a_draw_of_labels_is_the_same_for_every_model_and_balanced() -> None:
    y = torch.tensor([0] * 50 + [1] * 50 + [2] * 3)
    first, again, other = (labelled_subset(y, 5, draw) for draw in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.bincount(y[first]).tolist() == [5, 5, 3]


def test_standardised_codes_have_mean_zero_and_deviation_one() -> None:
    train = torch.randn(50, 3).double() * torch.tensor([1.0, 9.0, 0.0]) + 5
    moved, test = standardised(train, train[:2])
    assert moved.mean(0).tolist() == pytest.approx([0, 0, 0], abs=1e-12)
    assert moved.std(0, correction=0).tolist() == pytest.approx([1, 1, 0])
    assert torch.equal(test, moved[:2])


def test_neighbours_vote_by_class_and_average_targets() -> None:
    codes = torch.tensor([[0.0], [0.1], [0.2], [0.3], [0.4], [9.0]]).double()
    assert nearest_neighbours(codes, torch.tensor([0, 0, 0, 1, 1, 1]), codes[:1]).tolist() == [0]
    assert nearest_neighbours(codes, torch.arange(6.0).double(), codes[:1]).item() == pytest.approx(2)


def test_targets_are_read_by_a_ridge_regression() -> None:
    x = torch.randn(300, 3, generator=torch.Generator().manual_seed(1))
    data = dataset(x, 3 * x[:, :1] + 1, labels=Targets(("t",), (1.0,), (3.0,)))
    good = representation(Says(encode=lambda x: x), data)
    poor = representation(Says(encode=lambda x: x[:, 1:]), data)
    assert good.headline == "r2"
    assert good.value.value == pytest.approx(1, abs=1e-3)
    assert float(good.rows.mean()) == pytest.approx(good.value.value)  # type: ignore[union-attr]
    assert abs(poor.value.value) < 0.15


def test_the_random_network_is_fixed_and_the_raw_input_is_the_features() -> None:
    domain = tiny("images").domain
    x = tiny("images").test.x
    assert torch.equal(RandomNetwork(domain).encode(x), RandomNetwork(domain).encode(x))  # type: ignore[arg-type]
    assert torch.equal(RawInput(domain).encode(x), domain.features(x))  # type: ignore[arg-type]
    assert RandomNetwork(domain, seed=1).weight.ne(RandomNetwork(domain).weight).any()  # type: ignore[operator]


def test_two_classes_of_one_sample_each_can_be_read() -> None:
    x = torch.tensor([[0.0], [1.0]]).repeat(3, 1)
    reading = representation(
        Says(encode=lambda x: x), dataset(x, torch.arange(6) % 2, labels=Classes(("a", "b")))
    )
    assert reading.value.value == 1.0
