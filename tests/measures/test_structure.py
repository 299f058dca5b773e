import math

import pytest
import torch
from torch import Tensor

from leadline.core import Images, Targets
from leadline.measures import MeasureError, structure, structure_controls
from leadline.measures.reconstruction import component_curve, distortion
from leadline.measures.structure import adjusted_rand
from tests.measures.fakes import Says, dataset
from tests.tiny import EVEN, tiny


def groups(n: int = 180, spread: float = 0.2) -> object:
    y = torch.arange(n) % 3
    noise = torch.randn(n, 2, generator=torch.Generator().manual_seed(0))
    return dataset(torch.tensor([[0.0, 0], [5, 0], [0, 5]])[y] + spread * noise, y)


def test_a_partition_by_other_names_agrees_wholly() -> None:
    y = torch.arange(90) % 3
    value, rows = adjusted_rand(y, (y + 1) % 3)
    assert value == 1
    assert rows.mean().item() == pytest.approx(1)


def test_chance_agrees_at_zero() -> None:
    y = torch.arange(600) % 3
    guess = torch.randint(3, (600,), generator=torch.Generator().manual_seed(0))
    value, rows = adjusted_rand(y, guess)
    assert abs(value) < 4 * float(rows.std()) / math.sqrt(600) + 0.005
    assert adjusted_rand(y, torch.zeros(600).long())[0] == 0


def test_the_jackknife_error_is_that_of_leaving_each_sample_out() -> None:
    from sklearn.metrics import adjusted_rand_score

    y = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2, 2])
    guess = torch.tensor([0, 0, 1, 1, 1, 0, 2, 2, 2, 1])
    value, rows = adjusted_rand(y, guess)
    left = []
    for i in range(10):
        keep = [j for j in range(10) if j != i]
        left.append(adjusted_rand_score(y[keep].numpy(), guess[keep].numpy()))
    spread = torch.tensor(left).double()
    stderr = math.sqrt(9 / 10 * float((spread - spread.mean()).square().sum()))
    assert float(rows.std()) / math.sqrt(10) == pytest.approx(stderr)
    assert value == pytest.approx(adjusted_rand_score(y.numpy(), guess.numpy()))


def test_codes_in_groups_are_found_by_k_means() -> None:
    reading = structure(Says(encode=lambda x: x), groups())
    assert reading.headline == "adjusted_rand"
    assert reading.value.value == 1
    assert reading.quantities["mutual_information"].value == pytest.approx(1)
    assert reading.quantities["silhouette"].value > 0.8
    assert reading.quantities["clusters"].value == 3
    assert "K=3" in reading.value.protocol


def test_codes_of_noise_agree_at_chance() -> None:
    data = groups()
    noise = torch.randn(1000, 4, generator=torch.Generator().manual_seed(5))
    reading = structure(Says(encode=lambda x: noise[(x[:, 0].abs() * 1e4).long() % 1000]), data)
    assert abs(reading.value.value) < 0.15


def test_a_models_own_clusters_come_first() -> None:
    def halves(x: Tensor) -> Tensor:
        return (x[:, 0] > 2.5).long()

    reading = structure(Says(encode=lambda x: x, assign=halves), groups())
    assert reading.quantities["clusters"].value == 2
    assert "own clusters" in reading.value.protocol
    assert 0 < reading.value.value < 1


def test_without_classes_the_silhouette_leads() -> None:
    data = dataset(groups().train.x, labels=None)  # type: ignore[arg-type, attr-defined]
    reading = structure(Says(encode=lambda x: x), data)
    assert reading.headline == "silhouette"
    assert "adjusted_rand" not in reading.quantities
    assert float(reading.rows.mean()) == pytest.approx(reading.value.value)  # type: ignore[union-attr]
    targets = structure(Says(encode=lambda x: x), tiny("targets"))
    assert targets.headline == "silhouette"
    assert isinstance(tiny("targets").labels, Targets)


def test_constant_codes_say_so() -> None:
    reading = structure(Says(encode=lambda x: torch.zeros(len(x), 2)), groups())
    assert reading.value.value == 0
    assert math.isnan(reading.quantities["silhouette"].value)
    assert reading.notes == (
        "all test samples fall into one cluster",
        "the codes are constant: they hold nothing",
    )


def test_codes_and_decoded_samples_that_are_not_finite_are_told() -> None:
    with pytest.raises(MeasureError, match="encode gave NaN"):
        structure(Says(encode=lambda x: x * math.nan), groups())
    with pytest.raises(MeasureError, match="decode gave NaN"):
        structure(Says(encode=lambda x: x, decode=lambda z: z * math.nan), groups())


def test_one_test_sample_can_be_measured() -> None:
    data = groups()
    data = dataset(data.train.x, data.train.y, test=1)  # type: ignore[arg-type, attr-defined]
    reading = structure(Says(encode=lambda x: x), data)
    assert math.isfinite(reading.value.value)
    assert math.isnan(reading.quantities["silhouette"].value)


def test_a_perfect_decoder_errs_by_nothing_and_a_shift_by_its_size() -> None:
    data = tiny("images")
    shape = (-1, 1, 4, 4)
    exact = Says(encode=lambda x: x.flatten(1).float(), decode=lambda z: z.view(shape).to(torch.uint8))
    assert structure(exact, data).quantities["reconstruction"].value == 0
    shifted = Says(encode=exact.encode, decode=lambda z: z.view(shape).add(2).to(torch.uint8))
    found = structure(shifted, data).quantities["reconstruction"]
    assert found.value == pytest.approx(2)
    assert found.unit == "levels"


def test_errors_have_the_unit_of_the_domain() -> None:
    bits, counts = tiny("bits"), tiny("counts")
    flipped = 1 - bits.test.x  # type: ignore[operator]
    assert distortion(bits.domain, bits.test.x, flipped).tolist() == [1.0] * 30  # type: ignore[arg-type]
    more = counts.test.x + 3  # type: ignore[operator]
    assert distortion(counts.domain, counts.test.x, more).tolist() == [9.0] * 30  # type: ignore[arg-type]
    rows = tiny("vectors")
    scale = torch.tensor(rows.domain.scale)  # type: ignore[attr-defined]
    moved = rows.test.x + scale * torch.tensor([3.0, 0, 0])  # type: ignore[operator]
    found = distortion(rows.domain, rows.test.x, moved)  # type: ignore[arg-type]
    assert found.tolist() == pytest.approx([3.0] * 30, rel=1e-4)


def test_components_bring_back_more_as_they_grow_and_all_at_full_size() -> None:
    curve = component_curve(tiny("images"))
    assert curve is not None
    assert curve["error"].is_monotonic_decreasing
    assert curve["error"].iloc[-1] == pytest.approx(0, abs=1e-9)
    # on one pixel of levels 0 and 3 the mean is half the range away
    pixel = torch.tensor([0, 3] * 15, dtype=torch.uint8).view(-1, 1, 1, 1)
    line = component_curve(dataset(pixel, domain=Images(1, 1, 1, 4)))
    assert line is not None
    assert line["code_size"].tolist() == [1]


@pytest.mark.parametrize("kind", EVEN)
def test_controls_stand_on_every_domain(kind: str) -> None:
    lines = structure_controls(tiny(kind))
    assert set(lines) == {"raw input", "random network"}
    assert all(math.isfinite(line.value.value) for line in lines.values())
