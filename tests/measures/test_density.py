import math

import pytest
import torch
from torch import nn

from leadline.core import Categories, Counts, Density, Images, Quantity, ShapeError, Tokens
from leadline.measures import Histogram, Uniform, bits_per_dim, density, density_references
from tests.measures.fakes import Says, dataset
from tests.tiny import EVEN, tiny


def images(levels: int = 256) -> object:
    x = torch.randint(levels, (60, 1, 2, 2), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    return dataset(x, domain=Images(1, 2, 2, levels), test=20)


def test_uniform_bytes_cost_eight_bits_a_dimension() -> None:
    reading = density_references(images())["uniform"]
    assert reading.headline == "bits_per_dim"
    assert reading.value.value == pytest.approx(8, abs=1e-12)
    assert reading.quantities["nats"].value == pytest.approx(-4 * math.log(256))


def test_bits_of_a_known_conversion() -> None:
    # 1980.50 nats over 784 pixels of 256 levels: (1980.50/784 + ln 256) / ln 2 = 4.3555 with p of x/256
    assert bits_per_dim(1980.50, 784, levels=256) == pytest.approx(4.3555, abs=1e-4)
    assert bits_per_dim(-8 * math.log(2), 8) == pytest.approx(1)


def test_a_bound_below_in_nats_is_a_bound_above_in_bits() -> None:
    model = Says(log_prob=lambda x: -x.flatten(1).sum(1).float())
    model.density = Density("lower bound", "by hand", stderr=0.5)
    reading = density(model, images(4))
    assert reading.quantities["nats"].kind == "lower bound"
    assert reading.value.kind == "upper bound"
    factor = 1 / (4 * math.log(2))
    assert reading.shared_stderr == pytest.approx(0.5 * factor)
    own = float(reading.rows.std()) / math.sqrt(20)  # type: ignore[union-attr]
    assert reading.value.stderr == pytest.approx(math.hypot(own, 0.5 * factor))
    assert float(reading.rows.mean()) == pytest.approx(reading.value.value)  # type: ignore[union-attr]
    assert not reading.higher_is_better


def test_real_columns_are_judged_in_nats_and_text_in_bits_per_token() -> None:
    assert density_references(tiny("vectors"))["histogram"].headline == "nats"
    assert density_references(tiny("table"))["histogram"].higher_is_better
    assert density_references(tiny("tokens"))["uniform"].value.value == pytest.approx(math.log2(5))


def test_a_model_that_carries_its_state_is_read_in_both_ways() -> None:
    model = Says(
        log_prob=lambda x: torch.full((len(x),), -6 * math.log(2)),
        bits_per_token=lambda x, stateful: 0.75 if stateful else 1.0,
    )
    reading = density(model, tiny("tokens"))
    assert reading.value.value == pytest.approx(1.0)
    assert reading.quantities["bits_per_token_stateful"].value == 0.75
    model.bits_per_token = lambda x, stateful: Quantity(0.5, "bits/token", stderr=0.1)
    again = density(model, tiny("tokens")).quantities["bits_per_token_stateful"]
    assert (again.value, again.stderr, again.protocol) == (
        0.5,
        0.1,
        "state carried through the first 30 windows",
    )


@pytest.mark.parametrize("kind", EVEN)
def test_references_are_finite_on_every_domain(kind: str) -> None:
    lines = density_references(tiny(kind))
    assert math.isfinite(lines["histogram"].value.value)
    assert ("uniform" in lines) == (kind != "counts")


@pytest.mark.parametrize("kind", ["bits", "categories"])
def test_the_histogram_sums_to_one_over_all_states(kind: str) -> None:
    data = tiny(kind)
    total = Histogram(data).log_prob(data.domain.states()).exp().sum()
    assert float(total) == pytest.approx(1, abs=1e-12)


def test_the_histogram_of_a_bit_is_its_add_one_share() -> None:
    x = torch.tensor([1, 1, 1, 0] * 3, dtype=torch.uint8)[:, None]
    line = Histogram(dataset(x, test=4))
    assert line.log_prob(torch.tensor([[1], [0]])).exp().tolist() == pytest.approx([4 / 6, 2 / 6])


def test_the_histogram_of_counts_sums_to_one_with_its_tail() -> None:
    x = torch.tensor([0, 1, 1, 3] * 3)[:, None]
    line = Histogram(dataset(x, domain=Counts(("word",)), test=4))
    mass = line.log_prob(torch.arange(200)[:, None]).exp()
    assert float(mass.sum()) == pytest.approx(1, abs=1e-12)
    # add-one counts 2, 3, 1, 2 and 1 above the largest: its first half is at 4
    assert mass[:6].tolist() == pytest.approx([2 / 9, 3 / 9, 1 / 9, 2 / 9, 1 / 18, 1 / 36])


def test_the_histogram_of_a_real_column_integrates_to_one_and_reaches_everywhere() -> None:
    x = torch.randn(300, 1, generator=torch.Generator().manual_seed(3)) * 5 + 40
    line = Histogram(dataset(x, test=100))
    grid = torch.linspace(-60, 140, 400_001, dtype=torch.float64)[:, None]
    area = float(line.log_prob(grid).exp().sum()) * float(grid[1] - grid[0])
    assert area == pytest.approx(1, abs=1e-3)
    assert math.isfinite(float(line.log_prob(torch.tensor([[90.0]]))))


def test_samples_of_the_histogram_follow_its_density() -> None:
    data = tiny("table")
    line = Histogram(data)
    x = data.domain.validated(line.sample(4000, torch.Generator().manual_seed(0)))
    for place in (2, 3, 4):
        share = torch.bincount(x[:, place].long()) / 4000
        column = line.columns[place].log_prob(torch.arange(len(share))).exp()
        assert (share - column).abs().max() < 4 * 0.5 / math.sqrt(4000)
    assert abs(float(x[:, 0].mean() - data.train.x[:, 0].mean())) < 4 * 3.5 / math.sqrt(4000)  # type: ignore[index]


def test_points_outside_the_train_box_are_counted() -> None:
    x = torch.tensor([[0.0], [2.0], [1.0], [1.0], [0.5], [3.0]])
    data = dataset(x, test=2)
    reading = density_references(data)["uniform"]
    assert reading.value.value == -math.inf
    assert reading.value.interval is None
    assert "minus infinity (the model finds them impossible) for 1 of 2" in reading.notes[0]
    assert Uniform(data).log_prob(torch.tensor([[1.5]])).exp().item() == pytest.approx(0.5)


def test_scores_that_are_not_finite_are_told() -> None:
    def broken(x: torch.Tensor) -> torch.Tensor:
        rows = torch.zeros(len(x))
        rows[0] = math.nan
        return rows

    reading = density(Says(log_prob=broken), tiny("bits"))
    assert math.isnan(reading.value.value)
    assert "NaN for 1 of 30" in reading.notes[0]


def test_a_score_of_the_wrong_shape_is_named() -> None:
    with pytest.raises(ShapeError, match=r"\(n,\)"):
        density(Says(log_prob=lambda x: torch.zeros(len(x), 2)), tiny("bits"))


def test_one_test_sample_has_no_interval() -> None:
    data = dataset(torch.zeros(9, 2, dtype=torch.uint8), test=1)
    reading = density(Says(log_prob=lambda x: torch.full((len(x),), -2 * math.log(2))), data)
    assert reading.value.value == pytest.approx(1)
    assert reading.value.interval is None


def test_a_better_model_costs_fewer_bits_than_the_histogram() -> None:
    class Copies(nn.Module):
        """p(x2 = x1) = 0.95, x1 fair."""

        def log_prob(self, x: torch.Tensor) -> torch.Tensor:
            return math.log(0.5) + torch.where(x[:, 0] == x[:, 1], math.log(0.95), math.log(0.05))

    first = torch.randint(2, (900, 1), generator=torch.Generator().manual_seed(0))
    data = dataset(first.expand(-1, 2).to(torch.uint8), test=300)
    ours = density(Copies(), data).value.value
    # (log2 2 + log2 1/0.95) / 2
    assert ours == pytest.approx((1 + math.log2(1 / 0.95)) / 2)
    assert density_references(data)["histogram"].value.value == pytest.approx(1, abs=0.02)


def test_columns_of_unlike_domains_have_histograms_of_their_own() -> None:
    data = dataset(torch.zeros(9, 2).long(), domain=Categories((2, 5)), test=3)
    # three zeros and one more of each value: 4/5 and 4/8
    assert Histogram(data).log_prob(torch.zeros(1, 2).long()).exp().item() == pytest.approx(4 / 5 * 4 / 8)
    text = dataset(torch.tensor([[0, 1]] * 9), domain=Tokens(("a", "b", "c"), 2), test=3)
    # places are pooled: 3 + 3 tokens and one more of each: 4/9, 4/9, 1/9
    assert Histogram(text).log_prob(torch.tensor([[2, 0]])).exp().item() == pytest.approx(4 / 81)
