import json
import math
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from joblib.externals.loky import get_reusable_executor
from torch import Tensor, nn

from leadline.comparison import Comparison, compare, ranks, told_apart
from leadline.comparison.comparing import _Crew
from leadline.comparison.parcels import packed
from leadline.comparison.plan import Control, Trial
from leadline.comparison.printing import notes_of
from leadline.comparison.trial import Terms, control_record, trial_record
from leadline.core import (
    Batch,
    Bits,
    Described,
    DomainError,
    InterruptedFit,
    LeadlineError,
    OptionError,
    Quantity,
    RunError,
)
from leadline.core.durations import seconds_of
from leadline.data import Dataset
from leadline.measures import Reading, critic
from tests.tiny import tiny


class Coin(nn.Module):
    """Independent bits of one learned share; `start` is its logit."""

    def __init__(self, domain: object, start: float = 0.0, fault: str = "") -> None:
        super().__init__()
        self.domain = domain
        self.logit = nn.Parameter(torch.tensor(start))
        self.fault = fault
        self.pressed = False

    def loss(self, batch: Batch) -> Tensor:
        if self.pressed:
            os.kill(os.getpid(), signal.SIGINT)
        if self.fault == "loss":
            return self.logit * math.nan
        return -self.score(batch.x).mean()

    def score(self, x: Tensor) -> Tensor:
        share = nn.functional.logsigmoid(torch.stack([-self.logit, self.logit]))
        return share[x.flatten(1).long()].sum(1)

    def log_prob(self, x: Tensor) -> Tensor:
        if self.fault == "log_prob":
            raise ZeroDivisionError("by design")
        return self.score(x)

    def encode(self, x: Tensor) -> Tensor:
        return x.flatten(1).float()


def coin(data: Described) -> Coin:
    if not isinstance(data.domain, Bits):
        raise DomainError(f"needs Bits, but the data are {data.domain}; data.binarize(threshold) gives Bits")
    return Coin(data.domain)


def far(data: Described) -> Coin:
    return Coin(data.domain, start=6.0)


def diverges(data: Described) -> Coin:
    return Coin(data.domain, fault="loss")


def unmeasurable(data: Described) -> Coin:
    return Coin(data.domain, fault="log_prob")


def reading(
    value: float, rows: Tensor | None = None, *, higher: bool = True, width: float | None = None
) -> Reading:
    interval = None if width is None else (value - width, value + width)
    return Reading("t", "figure", higher, {"figure": Quantity(value, interval=interval)}, rows)


def of_rows(rows: Tensor, *, higher: bool = True) -> Reading:
    return reading(float(rows.mean()), rows, higher=higher)


# --- ranks ----------------------------------------------------------------------------------------


def test_models_that_differ_on_every_sample_are_told_apart_and_equal_ones_are_not() -> None:
    rows = torch.randn(100, generator=torch.Generator().manual_seed(0)).double()
    # the spread over samples is 1, but the pair differs by 0.1 on each of them
    assert told_apart([of_rows(rows)], [of_rows(rows + 0.1)])
    assert not told_apart([of_rows(rows)], [of_rows(rows.clone())])
    noise = torch.randn(100, generator=torch.Generator().manual_seed(1)).double()
    assert not told_apart([of_rows(rows)], [of_rows(rows + noise - noise.mean() + 0.05)])


def test_chance_tells_apart_about_one_pair_in_twenty() -> None:
    generator = torch.Generator().manual_seed(2)
    pairs = [torch.randn(2, 60, generator=generator).double() for _ in range(200)]
    wrong = sum(told_apart([of_rows(a)], [of_rows(b)]) for a, b in pairs)
    assert wrong / 200 < 0.05 + 4 * math.sqrt(0.05 * 0.95 / 200)
    assert wrong > 0


def test_a_shared_error_hides_a_difference() -> None:
    rows = torch.zeros(50).double()
    sure = of_rows(rows + 0.1)
    unsure = Reading("t", "figure", True, sure.quantities, sure.rows, {"shared_stderr": 1.0})
    assert told_apart([of_rows(rows)], [sure])
    assert not told_apart([of_rows(rows)], [unsure])
    assert not told_apart([unsure], [of_rows(rows)])


def test_figures_without_rows_need_intervals_that_part() -> None:
    # half widths 3 and 4 make 5 in quadrature
    assert told_apart([reading(0, width=3)], [reading(5.1, width=4)])
    assert not told_apart([reading(0, width=3)], [reading(4.9, width=4)])
    assert not told_apart([reading(0)], [reading(100)])


def test_over_seeds_welchs_interval_decides() -> None:
    close = [reading(v) for v in (1.0, 2.0, 3.0)], [reading(v) for v in (2.0, 3.0, 4.0)]
    apart = [reading(v) for v in (1.0, 1.1, 0.9)], [reading(v) for v in (2.0, 2.1, 1.9)]
    assert not told_apart(*close)
    assert told_apart(*apart)
    assert told_apart([reading(1.0)] * 2, [reading(2.0)] * 2)
    # variances 1 of three seeds each: 4 degrees of freedom, t = 2.77645, times sqrt(1/3 + 1/3) is 2.26695
    first = [reading(v) for v in (1.0, 2.0, 3.0)]
    assert told_apart(first, [reading(v + 2.27) for v in (1.0, 2.0, 3.0)])
    assert not told_apart(first, [reading(v + 2.26) for v in (1.0, 2.0, 3.0)])


@pytest.mark.parametrize("higher", [True, False])
def test_ranks_follow_the_direction_and_skip_after_a_tie(higher: bool) -> None:
    sign = 1.0 if higher else -1.0
    base = torch.randn(80, generator=torch.Generator().manual_seed(0)).double()
    noise = torch.randn(80, generator=torch.Generator().manual_seed(1)).double()
    entries = [
        [of_rows(sign * (base - 5), higher=higher)],
        [of_rows(sign * (base + noise - noise.mean() - 0.01), higher=higher)],
        [reading(math.nan, higher=higher)],
        [of_rows(sign * base, higher=higher)],
    ]
    order, found = ranks(entries)
    assert order == [3, 1, 0, 2]
    assert found == [1, 1, 3, None]


def test_no_models_have_no_ranks() -> None:
    assert ranks([]) == ([], [])


# --- compare --------------------------------------------------------------------------------------


def quick(data: Dataset, models: object, task: str = "density", **more: object) -> Comparison:
    return compare(data, task, models, **({"steps": 40, "jobs": 1, "progress": False} | more))  # type: ignore[arg-type]


def test_models_are_ranked_beside_reference_lines_without_rank() -> None:
    result = quick(tiny("bits"), {"coin": coin, "far": far})
    table = result.tables["density"]
    assert table["model"].tolist() == ["coin", "far", "histogram", "uniform"]
    assert table["rank"].tolist()[:2] == [1, 2]
    assert table["rank"].isna().tolist() == [False, False, True, True]
    assert table["bits_per_dim"].iloc[0] < table["bits_per_dim"].iloc[1]
    assert table["parameters"].iloc[0] == 1
    assert result.runs == {}
    assert result.failures == {}


def test_the_same_model_twice_shares_a_rank() -> None:
    table = quick(tiny("bits"), {"one": coin, "two": coin}).tables["density"]
    assert table["rank"].tolist()[:2] == [1, 1]


def test_a_model_that_fails_is_a_row_that_says_why() -> None:
    result = quick(tiny("bits"), {"nan": diverges, "coin": coin, "zero": unmeasurable})
    table = result.tables["density"].set_index("model")
    assert table.loc["coin", "rank"] == 1
    assert "the loss of model is nan at step 1" in str(table.loc["nan", "note"])
    assert "ZeroDivisionError: by design" in str(table.loc["zero", "note"])
    assert set(result.failures) == {"nan-0: training", "zero-0: density"}
    assert "nan: the loss of model" in str(result)


def test_a_model_of_bits_stands_in_a_table_of_its_own_on_pictures() -> None:
    result = quick(tiny("images"), {"coin": coin})
    assert "needs Bits" in str(result.tables["density"].set_index("model").loc["coin", "note"])
    assert '"(binarized)"' in result.left_out["coin"]
    other = result.tables["density (binarized)"]
    assert other["model"].tolist() == ["coin", "histogram", "uniform"]
    # one bit a pixel there, two bits a pixel of four levels here
    assert other["bits_per_dim"].iloc[2] == pytest.approx(1)
    plain = result.tables["density"].set_index("model")
    assert plain.loc["uniform", "bits_per_dim"] == pytest.approx(2)


def test_a_model_that_cannot_hold_the_data_is_named_once() -> None:
    result = quick(tiny("images"), {"words": "lda", "coin": coin})
    assert result.left_out["words"].startswith("needs Counts")


def test_all_tasks_train_each_model_once() -> None:
    result = quick(tiny("bits"), {"coin": coin}, "all")
    assert [record["tasks"] for record in result.records] == [["density", "representation", "structure"]]
    assert set(result.tables) >= {"density", "representation", "structure", "generation", "classification"}
    assert result.readings["representation"]["coin"][0].headline == "area"


def test_tasks_that_need_labels_are_left_out_with_a_note() -> None:
    data = tiny("tokens")
    result = quick(data, {"broken": lambda data: 1 / 0}, "all")
    assert "representation is left out: tiny-tokens has no labels" in result.notes
    assert result.left_out["broken"] == "ZeroDivisionError: division by zero"
    with pytest.raises(OptionError, match="classification needs labels, and tiny-tokens has none"):
        quick(data, {}, "classification")


def test_mistakes_are_told_before_anything_is_trained() -> None:
    data = tiny("bits")
    with pytest.raises(OptionError, match=r'unknown task "densty" .did you mean "density"'):
        quick(data, {"coin": coin}, "densty")
    with pytest.raises(OptionError, match='unknown model "vea"'):
        quick(data, ["vea"])
    with pytest.raises(OptionError, match='unknown option of vae "latnt"'):
        quick(data, ["vae"], options={"vae": {"latnt": 3}})
    with pytest.raises(OptionError, match='unknown model "vae"'):
        quick(data, ["linear"], options={"vae": {"latent": 3}})
    with pytest.raises(OptionError, match="at least 1"):
        quick(data, ["linear"], seeds=0)


@pytest.mark.parametrize(
    ("text", "seconds"), [("60s", 60), ("2m", 120), (1.5, 1.5), (" .5h ", 1800), ("7", 7)]
)
def test_a_budget_is_read_as_time(text: str | float, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["soon", "0s", -1, "1d", math.inf, math.nan, [3], True])
def test_a_budget_that_is_no_time_is_told(text: str | float) -> None:
    with pytest.raises(OptionError, match="budget must be"):
        seconds_of(text)


def test_a_verbless_model_is_left_out_with_a_note() -> None:
    result = quick(tiny("bits"), {"mute": lambda data: nn.Linear(1, 1), "coin": coin})
    assert result.notes == ["mute is left out: it has the verbs of none of these tasks"]
    assert "mute" not in result.tables["density"]["model"].tolist()


def test_several_seeds_give_an_interval_over_them() -> None:
    result = quick(tiny("bits"), {"coin": coin, "far": far}, seeds=3)
    table = result.tables["density"].set_index("model")
    readings = result.readings["density"]["far"]
    values = torch.tensor([item.value.value for item in readings]).double()
    assert len(readings) == 3
    assert table.loc["far", "bits_per_dim"] == pytest.approx(float(values.mean()))
    # Student's t(2) at 97.5 % is 4.30265
    half = 4.30265 * float(values.std()) / math.sqrt(3)
    assert table.loc["far", "high"] - table.loc["far", "bits_per_dim"] == pytest.approx(
        half, rel=1e-4, abs=1e-9
    )
    assert len({item.name for item in map(SeedName, result.records)}) == 6


class SeedName:
    def __init__(self, record: dict[str, object]) -> None:
        self.name = record["name"]


def test_a_comparison_comes_back_from_its_folder(tmp_path: Path) -> None:
    result = quick(tiny("bits"), {"coin": coin, "nan": diverges}, "all", out=tmp_path / "c")
    again = Comparison.load(tmp_path / "c")
    assert str(again) == str(result)
    for name, table in result.tables.items():
        pd.testing.assert_frame_equal(again.tables[name], table)
    assert again.runs == {"coin-0": tmp_path / "c" / "runs" / "coin-0"}
    assert (again.runs["coin-0"] / "model.safetensors").is_file()
    values = json.loads((tmp_path / "c" / "compare.json").read_text())
    assert values["tables"]["density"][0]["model"] == "coin"


def test_workers_share_the_critic_that_one_of_them_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(critic, "_critics", {})  # an earlier test in this process may have trained it
    result = quick(tiny("bits"), {"coin": coin}, "generation", out=tmp_path)
    assert not result.failures
    assert [path.name for path in (tmp_path / "critics").iterdir()] == [
        f"critic-{tiny('bits').fingerprint}.safetensors"
    ]


def test_a_folder_is_not_compared_in_twice_unless_resumed(tmp_path: Path) -> None:
    data = tiny("bits")
    first = quick(data, {"coin": coin}, out=tmp_path)
    with pytest.raises(RunError, match="already holds a comparison"):
        quick(data, {"coin": coin}, out=tmp_path)
    more = quick(data, {"coin": coin, "far": far}, out=tmp_path, resume=True)
    assert more.records[0] == first.records[0]
    assert [record["model"] for record in more.records] == ["coin", "far"]
    with pytest.raises(RunError, match="steps was 40 and is now 41"):
        quick(data, {"coin": coin}, out=tmp_path, resume=True, steps=41)
    with pytest.raises(RunError, match="other data"):
        quick(tiny("images"), {"coin": coin}, out=tmp_path, resume=True)


def test_a_failed_training_is_tried_again_on_resume(tmp_path: Path) -> None:
    data = tiny("bits")
    assert quick(data, {"x": diverges}, out=tmp_path).failures
    assert not quick(data, {"x": coin}, out=tmp_path, resume=True).failures


def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(tmp_path: Path) -> None:
    def stops(data: Described) -> Coin:
        model = Coin(data.domain)
        if armed:
            model.pressed = True
        return model

    armed = True
    data = tiny("bits")
    with pytest.raises(InterruptedFit, match=r"after 1 trainings; to go on: resume=True"):
        quick(data, {"coin": coin, "stops": stops}, out=tmp_path)
    assert [record["model"] for record in Comparison.load(tmp_path).records] == ["coin"]
    armed = False
    result = quick(data, {"coin": coin, "stops": stops}, out=tmp_path, resume=True)
    assert [record["model"] for record in result.records] == ["coin", "stops"]
    assert not result.failures


def test_another_backend_of_joblib_takes_over_and_agrees() -> None:
    data = tiny("bits")
    alone = quick(data, {"coin": coin, "far": far})
    with joblib.parallel_config(backend="threading", n_jobs=2):
        threads = quick(data, {"coin": coin, "far": far}, jobs=None)
    for name in ("model", "bits_per_dim", "low", "high"):
        assert threads.tables["density"][name].tolist() == alone.tables["density"][name].tolist()


def test_worker_processes_agree_with_this_one() -> None:
    data = tiny("bits")
    alone = quick(data, {"coin": coin, "far": far})
    try:
        spread = quick(data, {"coin": coin, "far": far}, jobs=2)
    finally:
        get_reusable_executor().shutdown(wait=True)  # they would outlive the test
    assert not spread.failures
    for name in ("model", "bits_per_dim", "low", "high"):
        assert spread.tables["density"][name].tolist() == alone.tables["density"][name].tolist()


def test_comparing_leaves_global_randomness_and_threads_alone() -> None:
    torch.manual_seed(3)
    expected, threads = torch.rand(2), torch.get_num_threads()
    torch.manual_seed(3)
    quick(tiny("bits"), {"coin": coin})
    assert torch.equal(torch.rand(2), expected)
    assert torch.get_num_threads() == threads


def test_a_parcel_holds_no_tensor_and_opens_as_the_same_data() -> None:
    data = tiny("targets")
    parcel = packed(data)
    assert all(isinstance(array, np.ndarray) for split in parcel.splits for array in split)
    opened = parcel.opened()
    assert opened.fingerprint == data.fingerprint
    assert opened.domain == data.domain
    assert opened.labels == data.labels
    assert parcel.opened() is opened


def test_an_array_that_may_only_be_read_is_copied() -> None:
    data = tiny("bits")
    parcel = packed(data)
    for split in parcel.splits:
        for array in split:
            array.flags.writeable = False  # type: ignore[union-attr]
    x = parcel._plain().train.x
    assert torch.equal(x, data.train.x)  # type: ignore[arg-type]
    x[0] = 0  # type: ignore[index]


def test_a_damaged_comparison_is_told(tmp_path: Path) -> None:
    (tmp_path / "compare.json").write_text('{"format": 1}')
    with pytest.raises(RunError, match="is not a comparison"):
        Comparison.load(tmp_path)
    (tmp_path / "compare.json").write_text('{"format": 99}')
    with pytest.raises(LeadlineError, match="format 99"):
        Comparison.load(tmp_path)


def test_a_worker_that_dies_takes_no_other_model_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []

    def together(
        crew: _Crew, work: Sequence[Trial | Control], jobs: int, terms: Terms
    ) -> Iterator[dict[str, Any]]:
        calls.append([item.name for item in work])
        for item in work:
            if item.name == "dies-0":
                raise BrokenExecutor
            assert terms.resume == (len(calls) > 1)
            call = trial_record if isinstance(item, Trial) else control_record
            yield call(item, crew.parcel, terms)  # type: ignore[arg-type]

    monkeypatch.setattr(_Crew, "_together", together)
    result = quick(tiny("bits"), {"coin": coin, "dies": coin, "far": far})
    assert calls[1:] == [["dies-0"], ["far-0"]]
    assert list(result.failures) == ["dies-0: training"]
    assert "worker process died" in result.failures["dies-0: training"]
    assert result.tables["density"]["model"].tolist()[:2] == ["coin", "far"]


def test_a_kill_before_the_table_was_written_loses_no_training(tmp_path: Path) -> None:
    data = tiny("bits")
    first = quick(data, {"coin": coin}, out=tmp_path)
    values = json.loads((tmp_path / "compare.json").read_text())
    (tmp_path / "compare.json").write_text(json.dumps(values | {"records": [], "controls": [], "tables": {}}))
    (tmp_path / "records" / "broken-0.json").write_text("{")
    again = quick(data, {"coin": far}, out=tmp_path, resume=True)
    assert again.records == json.loads(json.dumps(first.records))


def test_a_note_stands_once_for_all_it_is_said_of() -> None:
    rows = [("mlp", "a"), ("ensemble", "a"), ("ensemble: member 1 (mlp)", "a"), ("pca", None), ("gan", "b")]
    table = pd.DataFrame(rows, columns=["model", "note"])
    assert notes_of(table) == ["mlp, ensemble: a", "gan: b"]
