"""Filters of a model: pictures where samples are pictures, a map elsewhere, a word where they do not fit."""

import base64
import io
import re

import pytest
import torch
from PIL import Image

from leadline.core import Bits, ShapeError, Vectors
from leadline.reports.filters import filters_block


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
    assert "3 of 3 units" in block.caption


def test_filters_of_columns_are_a_map() -> None:
    block = filters_block(Vectors.standard(3), torch.randn(70, 3))
    assert "64 of 70 units" in block.caption
    assert "<svg" in str(block.picture)
    assert filters_block(Vectors.standard(3), torch.zeros(2, 3)).picture is not None


def test_filters_of_another_width_are_refused() -> None:
    with pytest.raises(ShapeError, match="3"):
        filters_block(Vectors.standard(3), torch.randn(2, 4))
