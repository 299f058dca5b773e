"""What a page shows of a model: filters as pictures or a map, samples as pictures, tables or lines."""

import base64
import io
import re

import pytest
import torch
from PIL import Image

from leadline.core import Bits, Categories, ShapeError, Vectors
from leadline.reports.filters import filters_block
from leadline.reports.parts import samples_block


def test_filters_of_pictures_are_pictures_with_the_largest_first_and_zero_is_grey() -> None:
    filters = torch.zeros(3, 4)
    filters[1, 0], filters[2, 3] = 5.0, -0.1
    block = filters_block(Bits((1, 2, 2)), filters)
    assert block.picture is not None
    found = re.search(r"base64,([^\"]*)", str(block.picture))
    assert found is not None
    pixels = torch.tensor(
        list(Image.open(io.BytesIO(base64.b64decode(found.group(1)))).convert("L").tobytes())
    )
    assert {0, 128, 255} == set(pixels.tolist())  # its own scale each: -0.1 is as dark as 5 is bright
    side = 48  # a filter of 2 x 2 enlarged, then lines of two pixels that are no level of a zero
    assert set(pixels[side : side + 2].tolist()) == {255}
    assert "3 of 3 units" in block.caption


def test_filters_of_columns_are_a_map() -> None:
    block = filters_block(Vectors.standard(3), torch.randn(70, 3))
    assert "64 of 70 units" in block.caption
    assert "<svg" in str(block.picture)
    assert filters_block(Vectors.standard(3), torch.zeros(2, 3)).picture is not None


def test_filters_of_another_width_are_refused() -> None:
    with pytest.raises(ShapeError, match="3"):
        filters_block(Vectors.standard(3), torch.randn(2, 4))


def test_samples_of_many_columns_stand_upright_a_line_a_column() -> None:
    names = tuple(f"c{v}" for v in range(12))
    domain = Categories((2,) * 12, names, (("no", "yes"),) * 12)
    x = torch.zeros(9, 12, dtype=torch.int64)
    x[1, 3] = 1
    block = samples_block("Samples", "Drawn.", domain, x)
    assert block.columns == ("", "1", "2", "3", "4", "5", "6")  # six of nine samples fit beside each other
    assert [row[0] for row in block.rows] == list(names)
    assert [(row[0], n) for row in block.rows for n, cell in enumerate(row) if cell == "yes"] == [("c3", 2)]
    assert "A column a sample" in block.caption
    few = samples_block("Samples", "Drawn.", Categories((2,) * 10), x[:, :10])
    assert (len(few.columns), len(few.rows)) == (10, 9)
    assert samples_block("Samples", "Drawn.", Categories((2,) * 101), torch.zeros(3, 101).long()).texts
