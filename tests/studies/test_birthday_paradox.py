"""The birthday paradox on samplers whose support is known."""

import json
import math
import sys
from dataclasses import replace

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from leadline.core import OptionError, VerbError
from leadline.studies import StudyError, birthday_paradox
from leadline.studies.birthday_paradox import _pairs, support_size
from tests.tiny import tiny

DATA = tiny("images")


class Rows(nn.Module):
    """Draws rows of a list with the given weights."""

    def __init__(self, rows: Tensor, weights: Tensor | None = None) -> None:
        super().__init__()
        self.rows = rows
        self.weights = torch.ones(len(rows)) if weights is None else weights

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return self.rows[torch.multinomial(self.weights, n, replacement=True, generator=generator)]


class Fresh(nn.Module):
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return torch.randint(4, (n, 1, 4, 4), generator=generator).byte()


def states(count: int) -> Tensor:
    """Return `count` different pictures."""
    digits = torch.arange(count)[:, None] // 4 ** torch.arange(16) % 4
    return digits.byte().view(-1, 1, 4, 4)


@pytest.mark.parametrize("support", [10, 100, 1000])
def test_the_support_of_a_uniform_sampler_is_recovered(support: int) -> None:
    value = birthday_paradox(Rows(states(support)), DATA, near=False).value
    assert value.interval is not None
    assert value.interval[0] <= support <= value.interval[1]


def test_the_interval_covers_as_often_as_it_says() -> None:
    # 400 intervals of 95 %: four standard errors below 0.95 are 0.906.
    weights = 1 / torch.arange(1, 201).float()
    truth = float(weights.sum().square() / weights.square().sum())
    source = torch.Generator().manual_seed(5)
    covered = 0
    for _ in range(400):
        picks = torch.multinomial(weights, 200, replacement=True, generator=source)[:, None].float()
        low, high = support_size(pd.DataFrame([_pairs(picks, 0.0)])).interval or (0.0, 0.0)
        covered += low <= truth <= high
    assert covered / 400 >= 0.906


@pytest.mark.parametrize(("support", "batch"), [(100, 13), (1000, 38), (10_000, 119), (100_000, 373)])
def test_the_batch_that_holds_a_pair_half_of_the_time_follows_from_the_support(
    support: int, batch: int
) -> None:
    assert math.ceil((1 + math.sqrt(1 + 8 * math.log(2) * support)) / 2) == batch


def test_a_batch_of_the_reported_size_holds_a_pair_half_of_the_time() -> None:
    model = Rows(states(365))
    batch = int(birthday_paradox(model, DATA, near=False).table["batch"].median())
    source = torch.Generator().manual_seed(1)
    twice = sum(len(model.sample(batch, source).unique(dim=0)) < batch for _ in range(400)) / 400
    assert abs(twice - 0.5) < 4 * 0.5 / 20 + 0.02  # four standard errors, and one step of the batch


@pytest.mark.parametrize(("support", "holds"), [(20, True), (2000, False)])
def test_the_claim_compares_the_support_with_the_training_set(support: int, holds: bool) -> None:
    assert birthday_paradox(Rows(states(support)), DATA, near=False).holds is holds


def test_a_support_of_the_size_of_the_training_set_is_undecided() -> None:
    found = birthday_paradox(Rows(states(120)), DATA, near=False, draws=30)
    assert found.holds is None


def test_a_sampler_that_never_repeats_is_unbounded() -> None:
    found = birthday_paradox(Fresh(), DATA, near=False, draws=200)
    assert found.value.kind == "lower bound"
    assert found.value.interval is not None
    assert found.value.interval[1] == math.inf
    assert found.holds is False
    json.dumps(found.to_json(), allow_nan=False)


def test_near_duplicates_are_counted_where_values_are_quantities() -> None:
    vectors = tiny("vectors")
    centres = vectors.train.x[:10]

    class Jitter(Rows):
        def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
            rows = super().sample(n, generator)
            return rows + 1e-4 * torch.randn(rows.shape, generator=generator)

    near = birthday_paradox(Jitter(centres), vectors)
    exact = birthday_paradox(Jitter(centres), vectors, near=False)
    assert near.value.value <= 10
    assert exact.value.kind == "lower bound"


@pytest.mark.parametrize("kind", ["images", "bits", "categories", "vectors"])
def test_the_figure_shows_the_nearest_pairs(kind: str) -> None:
    data = tiny(kind)
    found = birthday_paradox(Rows(data.train.x), data, draws=50, seeds=2)
    assert len(found.figure.axes) == 12
    left, right, distance = found.details["pairs"][0]
    assert left.shape == data.domain.shape
    assert distance == pytest.approx(
        float((data.domain.features(left[None]) - data.domain.features(right[None])).norm())
    )


def test_a_sampler_is_needed_and_two_draws() -> None:
    with pytest.raises(VerbError, match="sample"):
        birthday_paradox(nn.Linear(1, 1), DATA)
    with pytest.raises(OptionError, match="draws"):
        birthday_paradox(Fresh(), DATA, draws=1)


def test_a_broken_instrument_is_caught_by_its_controls(monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules["leadline.studies.birthday_paradox"]
    honest = module.support_size
    monkeypatch.setattr(module, "support_size", lambda table: replace(honest(table), interval=(1.0, 2.0)))
    with pytest.raises(StudyError, match="uniform over 500"):
        birthday_paradox(Fresh(), DATA)
