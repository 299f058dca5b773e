"""What the figures show."""

import io
import math
import re

import pandas as pd
import pytest
import torch
from PIL import Image

from leadline.core import Bits, DomainError, Images, Vectors
from leadline.reports import figures
from leadline.reports.drawing import INK, png_bytes, svg
from leadline.reports.of_comparison import interval_mark
from leadline.reports.pictures import grid, grid_png, picture_png


def test_a_grid_holds_every_sample_at_its_place() -> None:
    domain = Images(1, 2, 3, 5)
    x = torch.tensor([0, 1, 2, 3, 4], dtype=torch.uint8).view(5, 1, 1, 1).expand(5, 1, 2, 3)
    pixels = grid(domain, x, columns=3, scale=2)
    assert pixels.shape == (2 * 4 + 2, 3 * 6 + 2 * 2, 3)
    for number in range(5):
        top, left = number // 3 * 6, number % 3 * 8
        assert (pixels[top : top + 4, left : left + 6] == round(number * 255 / 4)).all()


def test_a_picture_keeps_its_colours_and_its_sides() -> None:
    domain = Images(3, 2, 4)
    x = torch.arange(24, dtype=torch.uint8).view(3, 2, 4) * 10
    with Image.open(io.BytesIO(picture_png(domain, x))) as image:
        assert image.size == (4, 2)
        assert image.getpixel((3, 1)) == tuple(int(value) for value in x[:, 1, 3])


def test_bits_are_black_and_white() -> None:
    with Image.open(
        io.BytesIO(picture_png(Bits((1, 1, 2)), torch.tensor([[[0, 1]]], dtype=torch.uint8)))
    ) as image:
        assert (image.getpixel((0, 0)), image.getpixel((1, 0))) == (0, 255)


def test_what_is_no_picture_is_refused() -> None:
    with pytest.raises(DomainError, match="no pictures"):
        grid_png(Vectors.standard(3), torch.zeros(2, 3))


def test_principal_axes_are_those_of_the_covariance() -> None:
    codes = (
        torch.randn(200, 5, generator=torch.Generator().manual_seed(0)) * torch.tensor([5.0, 1, 3, 1, 1]) + 7
    )
    flat, shares = figures.principal_axes(codes)
    values = torch.linalg.eigvalsh(codes.double().T.cov()).flip(0)
    torch.testing.assert_close(flat.var(0), values[:2])
    assert shares[0] == pytest.approx(float(values[0] / values.sum()))
    assert shares[1] == pytest.approx(float(values[1] / values.sum()))
    assert float((flat[:, 0] * flat[:, 1]).mean()) == pytest.approx(0, abs=1e-9)


def test_codes_of_one_number_lie_on_a_line() -> None:
    flat, shares = figures.principal_axes(torch.arange(4.0)[:, None])
    assert flat[:, 0].tolist() == [-1.5, -0.5, 0.5, 1.5]
    assert flat[:, 1].tolist() == [0, 0, 0, 0]
    assert shares == (1.0, 0.0)


def test_constant_codes_are_drawn() -> None:
    place = figures.code_map(torch.ones(6, 3), torch.tensor([0, 1, 0, 1, 0, -1]), ("a", "b")).axes[0]
    points = [tuple(point) for group in place.collections for point in group.get_offsets().tolist()]
    assert points == [(0.0, 0.0)] * 6  # the rows of class a, of b, and the one of no known class
    assert all(math.isfinite(end) for end in (*place.get_xlim(), *place.get_ylim()))


def test_a_figure_follows_the_colours_of_the_page_and_names_no_address() -> None:
    text = str(
        svg(
            figures.calibration(
                pd.DataFrame({"count": [3, 9], "confidence": [0.4, 0.9], "accuracy": [0.5, 0.8]})
            ),
            'a "b" <c>',
        )
    )
    assert text.startswith("<svg ")
    assert "currentColor" in text
    assert INK not in text
    assert "http" not in text
    assert not re.search(r'id="\w+_\d+"', text)
    assert "<c>" not in text


def test_confusion_writes_rows_as_true_classes() -> None:
    counts = torch.tensor([[7, 3], [0, 5]])
    place = figures.confusion(counts, ("cat", "dog")).axes[0]
    shown = {(text.get_position(), text.get_text()) for text in place.texts}
    assert shown == {
        ((0, 0), "7"),
        ((1, 0), "3"),
        ((1, 1), "5"),
    }  # (column, row): the true cat called dog is at x=1, y=0
    assert place.get_ylabel() == "true class"
    assert place.images[0].get_array().tolist() == [[0.7, 0.3], [0.0, 1.0]]


def test_one_number_of_a_stage_is_no_curve_unless_it_is_all_there_is() -> None:
    stage = {"phase": "stage 1", "step": 1, "objective": -100.0}
    rest = [{"phase": "rbm", "step": step, "loss": 1.0 / step} for step in (2, 3)]
    plots = [axes for axes in figures.learning_curves([stage, *rest]).axes if axes.axison]
    assert [axes.get_title(loc="left") for axes in plots] == ["training loss"]
    plots = [axes for axes in figures.learning_curves([stage]).axes if axes.axison]
    assert [axes.get_title(loc="left") for axes in plots] == ["objective (higher is better)"]


def test_learning_curves_part_loss_from_other_figures_and_leave_out_what_is_not_finite() -> None:
    metrics = [
        {"phase": "a", "step": 1, "loss": 3.0, "valid": 3.5, "accuracy": 0.1, "seconds": 0.1},
        {"phase": "a", "step": 2, "loss": float("nan"), "valid": 2.5, "accuracy": 0.4, "seconds": 0.2},
        {"phase": "b", "step": 3, "loss": 1.0, "valid": 1.5, "accuracy": 0.6, "seconds": 0.3},
    ]
    first, second = figures.learning_curves(metrics).axes[:2]
    assert first.lines[0].get_xdata().tolist() == [1, 3]
    assert first.lines[1].get_ydata().tolist() == [3.5, 2.5, 1.5]
    assert second.get_title(loc="left") == "accuracy"
    assert first.lines[2].get_xdata() == [3, 3]  # where the second stage begins


def test_a_run_without_records_has_no_curve() -> None:
    with pytest.raises(ValueError, match="no figures"):
        figures.learning_curves([])


def test_scores_that_are_not_finite_are_left_out_of_the_histogram() -> None:
    place = figures.score_histogram({"test": torch.tensor([1.0, 2.0, -torch.inf, torch.nan])}, "nats").axes[0]
    assert "n = 2" in place.get_legend().get_texts()[0].get_text()


def test_a_mark_stands_where_its_value_is() -> None:
    text = str(interval_mark(0.75, 0.5, 1.0, (0.0, 1.0)))
    left, right = (
        float(value)
        for value in re.search(
            r'<line x1="([\d.]+)" x2="([\d.]+)" y1="8.0" y2="8.0" stroke="#', text
        ).groups()
    )  # type: ignore[union-attr]
    middle = float(re.search(r'cx="([\d.]+)"', text).group(1))  # type: ignore[union-attr]
    assert (left, middle, right) == (95.0, 139.5, 184.0)  # 6 + value * (190 - 12)


def test_a_figure_becomes_a_picture_on_white() -> None:
    data = png_bytes(figures.code_map(torch.randn(9, 2), None, None), dpi=40)
    with Image.open(io.BytesIO(data)) as image:
        assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
