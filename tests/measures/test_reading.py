import json
import math

import pandas as pd
import torch

from leadline.core import Quantity
from leadline.measures import Reading


def a_reading() -> Reading:
    return Reading(
        "density",
        "bits",
        higher_is_better=False,
        quantities={
            "bits": Quantity(math.inf, "bits/dim", "upper bound", None, None, 3, "all rows"),
            "nats": Quantity(-1.5, "nats", "lower bound", 0.1, (-1.7, -math.inf), 3),
        },
        rows=torch.tensor([1.0, math.inf, math.nan]),
        details={
            "confusion": torch.arange(4).view(2, 2),
            "curve": pd.DataFrame({"labels": [1, 5], "accuracy": [0.5, math.nan]}),
            "notes": ["one row is infinite"],
        },
    )


def test_a_reading_comes_back_from_json_with_what_is_not_finite() -> None:
    before = a_reading()
    after = Reading.from_json(json.loads(json.dumps(before.to_json(), allow_nan=False)))
    assert after.quantities == before.quantities
    assert (after.task, after.headline, after.higher_is_better) == ("density", "bits", False)
    assert after.rows is not None
    assert after.rows.tolist()[:2] == [1.0, math.inf]
    assert math.isnan(after.rows.tolist()[2])
    assert torch.equal(after.details["confusion"], before.details["confusion"])
    pd.testing.assert_frame_equal(after.details["curve"], before.details["curve"])
    assert after.notes == ("one row is infinite",)


def test_a_large_tensor_is_left_out_of_json() -> None:
    reading = a_reading()
    reading.details["pictures"] = torch.zeros(200, 200)
    assert "pictures" not in reading.to_json()["details"]


def test_a_reading_prints_every_figure_and_note() -> None:
    text = str(a_reading())
    assert "bits: ≤ inf bits/dim" in text
    assert "nats: ≥ -1.5" in text
    assert "one row is infinite" in text
