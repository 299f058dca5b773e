"""The form of a study: verdicts, controls, findings."""

import json
import math
import re
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure

from leadline import studies
from leadline.core import OptionError, Quantity
from leadline.studies import STUDIES, Finding, StudyError, birthday_paradox, random_labels
from leadline.studies.study import Control, all_of, named_seeds, over_seeds, passed, readings, side
from tests.programs import ROOT, program


def finding(holds: bool | None, drawn: list[Finding]) -> Finding:
    def draw(found: Finding) -> Figure:
        drawn.append(found)
        return Figure()

    table = pd.DataFrame({"seed": [0], "steps": [math.nan]})
    value = Quantity(2.0, "steps", "estimate", None, (1.0, math.inf), 1)
    return Finding("tides", "It rises.", holds, value, {"moon": math.inf}, table, "by eye", draw)


@pytest.mark.parametrize(
    ("interval", "above", "verdict"),
    [
        ((1.1, 2.0), True, True),
        ((0.1, 0.9), True, False),
        ((0.9, 1.1), True, None),
        ((0.1, 0.9), False, True),
        ((1.1, 2.0), False, False),
        ((1.0, 2.0), True, None),
    ],
)
def test_a_verdict_needs_the_whole_interval_on_one_side(
    interval: tuple[float, float], above: bool, verdict: bool | None
) -> None:
    assert side(interval, 1.0, above=above) is verdict


def test_without_an_interval_there_is_no_verdict() -> None:
    assert side(None, 1.0, above=True) is None


def test_a_mean_over_seeds_has_an_interval_where_several_are_finite() -> None:
    several = over_seeds([1.0, 2.0, 6.0], "nats", "by eye")
    assert (several.value, several.unit, several.samples) == (3.0, "nats", 3)
    assert several.interval is not None
    assert 1 <= several.interval[0] < 3 < several.interval[1] <= 6
    assert over_seeds([2.0], "nats").interval is None
    assert over_seeds([1.0, math.nan], "nats").interval is None


def test_a_claim_of_several_parts_is_as_weak_as_its_weakest() -> None:
    assert all_of([True, True]) is True
    assert all_of([True, None]) is None
    assert all_of([None, False, True]) is False


def test_a_failed_control_stops_the_study_and_says_what_it_must_be() -> None:
    fine = Control(lambda: 1.0, lambda value: value < 2, "be below 2")
    wrong = Control(lambda: 3.0, lambda value: value < 2, "be below 2")
    assert passed({"fine": fine}) == {"fine": 1.0}
    with pytest.raises(StudyError, match=r'"wrong" failed: 3, but it must be below 2'):
        passed({"fine": fine, "wrong": wrong})


def test_readings_have_a_row_for_each_setting_and_seed() -> None:
    table = readings(lambda name, seed: {"name": name, "seed": seed}, [("a",), ("b",)], seeds=3)
    assert sorted(zip(table["name"], table["seed"], strict=True)) == [
        (name, seed) for name in "ab" for seed in range(3)
    ]
    chosen = readings(lambda seed: {"seed": seed}, [()], seeds=(7, 3))
    assert chosen["seed"].tolist() == [7, 3]
    assert [named_seeds(2), named_seeds((7, 3))] == ["2 seeds", "seeds 7, 3"]
    for none in (0, (), (1, 1)):
        with pytest.raises(OptionError, match="seeds"):
            readings(lambda seed: {"seed": seed}, [()], seeds=none)


def test_a_figure_is_drawn_once_and_only_when_asked_for() -> None:
    drawn: list[Finding] = []
    found = finding(holds=True, drawn=drawn)
    assert not drawn
    assert found.figure is found.figure
    assert drawn == [found]


@pytest.mark.parametrize(("holds", "word"), [(True, "true"), (False, "false"), (None, "undecided")])
def test_a_finding_is_plain_in_json_and_says_its_verdict(holds: bool | None, word: str) -> None:
    found = finding(holds, [])
    plain = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert plain["holds"] is holds
    assert plain["value"]["interval"] == [1.0, None]
    assert plain["table"] == [{"seed": 0, "steps": None}]
    assert found.verdict == word
    assert word.capitalize() in str(found)


def test_the_table_of_studies_names_each_and_calls_it() -> None:
    assert {"birthday_paradox", "random_labels"} <= set(STUDIES)
    assert STUDIES["random_labels"].run is random_labels
    assert STUDIES["birthday_paradox"].run is birthday_paradox
    assert all(study.claim and study.cost for study in STUDIES.values())
    with pytest.raises(TypeError):
        STUDIES["random_labels"](no_such_option=1)


def test_the_table_has_a_line_for_each_module_of_a_study_and_a_type_for_each_line() -> None:
    folder = Path(studies.__file__).parent
    shaped = {path.stem for path in folder.glob("*.py") if "\nClaim:\n" in path.read_text(encoding="utf-8")}
    assert list(STUDIES) == sorted(shaped)
    typed = re.findall(
        r"import (\w+) as \1|^ +(\w+) as \2,", (folder / "__init__.py").read_text("utf-8"), re.M
    )
    assert {one or other for one, other in typed} == {*STUDIES, "Finding", "StudyError"}
    for name, study in STUDIES.items():
        assert study.name == name
        assert study.run.__name__ == name
        assert study.run is getattr(studies, name)
        assert name in dir(studies)
        assert name in studies.__all__
    with pytest.raises(AttributeError, match="no attribute 'tides'"):
        _ = studies.tides


def test_the_page_of_studies_is_the_table() -> None:
    page = (ROOT / "docs/studies.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| \[(\w+)\]\(studies/(\w+)\.md\) \| (.+?) \|", page, re.M)
    assert told == [(name, name, study.claim) for name, study in STUDIES.items()]
    for name in STUDIES:
        assert (ROOT / f"docs/studies/{name}.md").exists()


def test_a_study_is_imported_when_it_is_first_used_and_stays_a_function() -> None:
    code = """
import sys, leadline.studies as studies
print([m for m in ("torch", "pandas", "matplotlib", "leadline.studies.depth") if m in sys.modules])
import leadline.studies.dense_parameters  # imports the module of another study
print(callable(studies.depth), studies.depth is studies.STUDIES["depth"].run)
"""
    assert program("-c", code, check=True).stdout.split("\n")[:2] == ["[]", "True True"]
