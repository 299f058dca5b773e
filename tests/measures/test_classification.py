import math

import pytest
import torch
from torch import Tensor

from leadline.core import Classes, ShapeError, Targets, VerbError
from leadline.measures import MeasureError, classification, classification_controls, reliability
from leadline.measures.classification import calibration_error, calibration_floor, wilson_interval
from tests.measures.fakes import Says, dataset
from tests.tiny import tiny


def labelled(y: Tensor, scores: Tensor) -> tuple[object, Says]:
    """Return data whose test split is all of `y`, and a model that gives `scores` there."""
    n = len(y)
    x = torch.arange(3.0 * n)[:, None]
    data = dataset(x, torch.cat([y, y, y]), test=n, labels=Classes(tuple(map(str, range(scores.shape[1])))))
    return data, Says(predict=lambda rows: scores[(rows[:, 0] - 2 * n).long()])


def sharp(guess: Tensor, classes: int, share: float = 0.9) -> Tensor:
    """Return log-probabilities that give `share` to `guess` and the rest evenly."""
    rest = (1 - share) / (classes - 1)
    return torch.full((len(guess), classes), rest).scatter(1, guess[:, None], share).log()


def test_a_model_that_is_right_on_three_of_four_has_accuracy_three_quarters() -> None:
    y, guess = torch.tensor([0, 1, 2, 2]), torch.tensor([0, 1, 2, 1])
    reading = classification(*reversed(labelled(y, sharp(guess, 3))))
    # three hits of -log 0.9 and one miss of -log 0.05
    assert reading.quantities["nll"].value == pytest.approx(
        -(3 * math.log(0.9) + math.log(0.05)) / 4, rel=1e-6
    )
    assert reading.value.value == 0.75
    assert reading.rows is not None
    assert reading.rows.tolist() == [1, 1, 1, 0]
    # rows are the truth, columns what was said
    assert reading.details["confusion"].tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 1]]
    table = reading.details["per_class"].set_index("class")
    assert table.loc["1", "precision"] == 0.5
    assert table.loc["2", "recall"] == 0.5
    # recalls 1, 1, 1/2
    assert reading.quantities["balanced_accuracy"].value == pytest.approx(2.5 / 3)


def test_wilson_interval_of_nine_in_ten() -> None:
    # (0.9 + 3.8416/20) / 1.38416 = 0.78899; 1.96 sqrt(0.09/10 + 3.8416/400) / 1.38416 = 0.19311
    low, high = wilson_interval(9, 10).interval or (0, 0)
    assert low == pytest.approx(0.59588, abs=2e-4)
    assert high == pytest.approx(0.98210, abs=2e-4)
    assert wilson_interval(5, 5).interval == pytest.approx((0.5655, 1.0), abs=1e-3)


def test_a_calibrated_model_shows_no_more_error_than_the_floor(generator: torch.Generator) -> None:
    confidence = torch.rand(4000, generator=generator) / 2 + 0.5
    correct = torch.rand(4000, generator=generator) < confidence
    error = calibration_error(reliability(confidence, correct))
    floor = calibration_floor(confidence)
    assert floor.stderr is not None
    assert abs(error - floor.value) < 4 * floor.stderr
    assert error < 0.05


@pytest.mark.parametrize("adaptive", [False, True])
def test_a_model_that_is_sure_and_right_six_times_in_ten_errs_by_four_tenths(adaptive: bool) -> None:
    correct = torch.tensor([1.0, 1, 1, 0, 0]).repeat(20)
    table = reliability(torch.ones(100), correct, adaptive=adaptive)
    assert calibration_error(table) == pytest.approx(0.4)
    assert table["count"].sum() == 100


def test_cells_of_equal_count_hold_equal_counts(generator: torch.Generator) -> None:
    confidence = torch.rand(1000, generator=generator) ** 3
    counts = reliability(confidence, torch.ones(1000), bins=10, adaptive=True)["count"]
    assert counts.min() >= 99
    assert counts.max() <= 101


def test_rows_without_a_label_are_left_out_and_counted() -> None:
    y, guess = torch.tensor([0, -1, 1, -1]), torch.tensor([0, 0, 0, 0])
    reading = classification(*reversed(labelled(y, sharp(guess, 2))))
    assert reading.value.value == 0.5
    assert reading.value.samples == 2
    assert reading.notes == ("2 samples without a label left out",)


def test_without_any_label_one_line_says_so() -> None:
    with pytest.raises(MeasureError, match="none of the 3 samples"):
        classification(*reversed(labelled(torch.full((3,), -1), sharp(torch.zeros(3).long(), 2))))
    with pytest.raises(MeasureError, match="needs labels, and tiny-tokens has none"):
        classification(Says(predict=lambda x: x), tiny("tokens"))


def test_nan_predictions_count_as_wrong_and_are_told() -> None:
    y = torch.tensor([0, 0, 0, 0])
    scores = sharp(y, 2)
    scores[1] = math.nan
    reading = classification(*reversed(labelled(y, scores)))
    assert reading.value.value == 0.75
    assert math.isnan(reading.quantities["nll"].value)
    assert "NaN or infinity for 1 of 4" in reading.notes[0]


def test_certainty_is_allowed_and_scores_that_are_no_probabilities_are_told() -> None:
    y = torch.tensor([0, 1])
    certain = classification(*reversed(labelled(y, torch.tensor([[0.0, -math.inf], [-math.inf, 0.0]]))))
    assert certain.notes == ()
    assert certain.quantities["nll"].value == 0
    loose = classification(*reversed(labelled(y, torch.tensor([[1.0, 0.0], [0.0, 1.0]]))))
    assert "not 1" in loose.notes[0]


def test_a_wrong_number_of_columns_is_named() -> None:
    data, _ = labelled(torch.tensor([0, 1]), sharp(torch.tensor([0, 1]), 2))
    with pytest.raises(ShapeError, match=r"\(n, 2\), got \(2, 3\)"):
        classification(Says(predict=lambda x: torch.zeros(len(x), 3)), data)
    with pytest.raises(ShapeError, match="one row a sample"):
        classification(Says(predict=lambda x: torch.zeros(1, 2)), data)
    with pytest.raises(VerbError):
        classification(Says(), data)


def test_one_test_sample_is_enough() -> None:
    reading = classification(*reversed(labelled(torch.tensor([1]), sharp(torch.tensor([1]), 3))))
    assert reading.value.value == 1.0
    assert reading.value.interval == pytest.approx((0.2065, 1.0), abs=1e-3)


def test_the_control_of_classes_knows_their_frequencies_only() -> None:
    y = torch.tensor([0, 0, 0, 1])
    data = dataset(torch.zeros(12, 1), y.repeat(3), test=4)
    reading = classification_controls(data)["class frequencies"]
    assert reading.value.value == 0.75
    # add-one counts 4 and 2 of 6
    assert reading.quantities["nll"].value == pytest.approx(-(3 * math.log(4 / 6) + math.log(2 / 6)) / 4)


def test_targets_are_judged_by_their_errors() -> None:
    y = torch.tensor([[1.0], [2.0], [6.0]])
    said = y + torch.tensor([[3.0], [0.0], [-4.0]])
    data = dataset(torch.arange(9.0)[:, None], y.repeat(3, 1), test=3, labels=Targets(("t",), (3.0,), (2.0,)))
    reading = classification(Says(predict=lambda x: said[(x[:, 0] - 6).long()]), data)
    assert reading.headline == "rmse"
    assert not reading.higher_is_better
    # squares 9, 0, 16; absolute 3, 0, 4; centred squares of 1, 2, 6 about 3: 4 + 1 + 9
    assert reading.value.value == pytest.approx(math.sqrt(25 / 3))
    assert reading.quantities["mae"].value == pytest.approx(7 / 3)
    assert reading.quantities["r2"].value == pytest.approx(1 - 25 / 14)
    assert reading.rows is not None
    assert reading.rows.tolist() == [9, 0, 16]
    assert classification_controls(data)["train mean"].quantities["r2"].value == pytest.approx(0)


def test_a_constant_target_has_no_r2_and_says_so() -> None:
    labels = Targets(("t",), (0.0,), (1.0,))
    data = dataset(torch.arange(9.0)[:, None], torch.zeros(9, 1), test=3, labels=labels)
    reading = classification(Says(predict=lambda x: torch.ones(len(x), 1)), data)
    assert math.isnan(reading.quantities["r2"].value)
    assert "constant" in reading.notes[0]
    assert reading.value.value == 1.0


def test_measuring_leaves_the_mode_of_every_part_alone() -> None:
    data, model = labelled(torch.tensor([0, 1]), sharp(torch.tensor([0, 1]), 2))
    model.part = torch.nn.Dropout()
    model.train()
    model.part.eval()
    classification(model, data)
    assert model.training
    assert not model.part.training
