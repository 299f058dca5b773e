"""`leadline infer`: questions asked of files and runs on the command line."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import leadline as ll
from leadline.cli import main
from leadline.core import Categories
from leadline.data import Dataset, Split
from leadline.inference.mean_field import MeanField

BIF = """network rain { }
variable Rain { type discrete [ 2 ] { no, yes }; }
variable "Wet, grass" { type discrete [ 2 ] { no, yes }; }
probability ( Rain ) { table 0.75, 0.25; }
probability ( "Wet, grass" | Rain ) { (no) 1.0, 0.0; (yes) 0.5, 0.5; }
"""
UAI = "MARKOV\n2\n2 2\n2\n1 0\n2 0 1\n\n2\n 1 3\n\n4\n 1 0\n 0.5 2\n"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rain.bif").write_text(BIF)
    (tmp_path / "m.uai").write_text(UAI)
    (tmp_path / "m.uai.evid").write_text("1 0 1")
    return tmp_path


def asked(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = main(["infer", *words])
    told = capsys.readouterr()
    return status, told.out, told.err


def test_a_question_of_a_bif_file_is_answered_with_its_kind(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = asked(capsys, "rain.bif", "--query", "Rain", "--evidence", '"Wet, grass=no"', "--json")
    answer = json.loads(out)
    assert status == 0
    assert answer["kind"] == "exact"
    # 0.75 against 0.25 * 0.5
    assert answer["marginals"] == {"Rain": {"no": pytest.approx(6 / 7), "yes": pytest.approx(1 / 7)}}
    assert answer["log10_partition"] == pytest.approx(math.log10(0.875))
    status, out, _ = asked(capsys, "rain.bif")
    assert status == 0
    assert out.splitlines()[1:] == ["Rain        no 0.7500  yes 0.2500", "Wet, grass  no 0.8750  yes 0.1250"]


def test_evidence_given_in_pieces_is_all_taken(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pieces = ("--evidence", "Rain=yes", "--evidence", '"Wet, grass=no"')
    for words in (pieces, ("--evidence", 'Rain=yes,"Wet, grass=no"')):
        status, out, _ = asked(capsys, "rain.bif", *words, "--task", "PR", "--json")
        assert (status, json.loads(out)["log10_partition"]) == (0, pytest.approx(math.log10(0.125)))
    status, out, _ = asked(
        capsys, "m.uai", "--evidence-file", "m.uai.evid", "--evidence", "x1=1", "--task", "PR", "--json"
    )
    assert (status, json.loads(out)["log10_partition"]) == (0, pytest.approx(math.log10(6)))  # 3 x 2


def test_names_and_states_may_hold_the_sign_between_them(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (
        BIF.replace("no, yes }", '"<=30", ">=31" }', 1)
        .replace("(no)", '("<=30")')
        .replace("(yes)", '(">=31")')
    )
    (files / "age.bif").write_text(text.replace("Rain", '"Age=a"'))
    for words in (("--evidence", "Age=a=<=30"), ("--evidence", '"Age=a=<=30"')):
        status, out, _ = asked(capsys, "age.bif", *words, "--json")
        assert status == 0
        assert json.loads(out)["marginals"]["Age=a"]["<=30"] == 1.0


def test_variables_of_a_file_without_names_are_called_by_their_numbers(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    by_number = asked(capsys, "m.uai", "--evidence", "0=1", "--query", "1")
    assert by_number == asked(capsys, "m.uai", "--evidence", "x0=1", "--query", "x1")
    assert by_number[0] == 0


def test_a_joint_distribution_is_told_state_by_state(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = asked(capsys, "rain.bif", "--query", 'Rain,"Wet, grass"', "--joint", "--json")
    told = json.loads(out)
    assert (status, told["kind"], told["variables"]) == (0, "exact", ["Rain", "Wet, grass"])
    assert np.ravel(told["joint"]) == pytest.approx([0.75, 0.0, 0.125, 0.125])
    _, text, _ = asked(capsys, "rain.bif", "--query", 'Rain,"Wet, grass"', "--joint")
    assert [line.split()[-1] for line in text.splitlines()[1:]] == ["0.7500", "0.0000", "0.1250", "0.1250"]


def test_the_three_tasks_of_the_competitions_and_their_files(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("m.uai", "--evidence-file", "m.uai.evid")
    status, out, err = asked(capsys, *words, "--task", "pr", "--json", "--out", "m.PR")
    assert (status, json.loads(out)["log10_partition"]) == (0, pytest.approx(math.log10(7.5)))
    assert "wrote m.PR" in err
    assert json.loads(out)["method"] == "variable elimination"
    assert float((files / "m.PR").read_text().split()[1]) == pytest.approx(math.log10(7.5))
    status, out, _ = asked(capsys, *words, "--task", "MAP", "--json", "--out", "m.MAP")
    assert json.loads(out)["map"] == {"x0": "1", "x1": "1"}
    assert (files / "m.MAP").read_text() == "MAP\n2 1 1\n"
    status, out, _ = asked(capsys, *words, "--out", "m.MAR")
    assert (files / "m.MAR").read_text().split()[:4] == ["MAR", "2", "2", "0.0"]
    assert float((files / "m.MAR").read_text().split()[-1]) == pytest.approx(2 / 2.5)


@pytest.mark.parametrize("method", ["exact", "loopy", "mean-field", "weighting"])
def test_every_method_says_how_it_found_its_answer(
    method: str, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = asked(capsys, "rain.bif", "--method", method, "--json")
    assert status == 0, err
    answer = json.loads(out)
    assert answer["kind"] == ("exact" if method in ("exact", "loopy") else "estimate")
    assert ("stderr" in answer) == (method == "weighting")
    status, out, _ = asked(capsys, "rain.bif", "--method", method, "--task", "PR")
    assert status == 0
    assert "log10 partition" in out


def test_a_run_answers_as_its_model(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    domain = Categories((2, 2), ("Rain", "Wet"), (("no", "yes"), ("no", "yes")))
    x = torch.tensor([[0, 0], [0, 0], [1, 1], [0, 1]])
    data = Dataset(name="rain", domain=domain, labels=None, train=Split(x), valid=Split(x), test=Split(x))
    model = ll.build("bayesian_network", data, edges=("Rain -> Wet",))
    ll.fit(model, data, out="run", progress=False)
    status, out, _ = asked(capsys, "run", "--query", "Rain", "--evidence", "Wet=yes", "--json")
    assert status == 0
    assert json.loads(out)["marginals"]["Rain"]["no"] == pytest.approx(
        (4 / 6 * 2 / 5) / (4 / 6 * 2 / 5 + 2 / 6 * 2 / 3)
    )
    ll.fit(ll.build("made", data, hidden=(4,)), data, steps=1, out="other", progress=False)
    status, _, err = asked(capsys, "other")
    assert (status, err) == (2, "error: other holds a MADE, which has no marginals to ask for\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("rain.bif", "--evidence", "Rain=yse"),
            'Rain has no state yse (did you mean "yes"?); it has no, yes',
        ),
        (("rain.bif", "--query", "Rian"), 'unknown variable Rian (did you mean "Rain"?)'),
        (("rain.bif", "--evidence", "Rain"), "give VARIABLE=STATE"),
        (
            ("rain.bif", "--evidence", "Rain=no,Wet grass=no"),
            'unknown variable Wet grass (did you mean "Wet, grass"?)',
        ),
        (
            ("rain.bif", "--evidence", 'Rain=no,"Wet, grass=yes"'),
            "Rain=no and Wet, grass=yes cannot be at once",
        ),
        (("rain.bif", "--joint"), "give --query A,B with it"),
        (("rain.bif", "--joint", "--query", "Rain", "--task", "MAP"), "give --query A,B with it"),
        (("rain.bif", "--joint", "--query", "Rain,Rain"), "Rain is asked for twice"),
        (("rain.bif", "--joint", "--query", "Rain", "--evidence", "Rain=no"), "Rain is observed"),
        (("rain.bif", "--evidence", "Rain==no"), 'Rain has no state =no (did you mean "no"?)'),
        (("m.uai", "--evidence", "7=0"), "no variable 7; there are 2"),
        (("rain.bif", "--task", "MARR"), 'unknown task "MARR"'),
        (("rain.bif", "--method", "magic"), "method must be one of auto"),
        (("rain.bif", "--limit", "much"), "give a size"),
        (("rain.bif", "--method", "exact", "--limit", "8b"), "an exact answer needs"),
        (("rain.bif", "--task", "MAP", "--query", "Rian"), "unknown variable Rian"),
        (("rain.bif", "--evidence", "Rain=no,Rain=yes"), "Rain is observed twice, as no and as yes"),
        (("rain.bif", "--evidence", "Rain="), "give VARIABLE=STATE"),
        (("rain.bif", "--evidence", ","), "names nothing"),
        (("rain.bif", "--query", ""), "names nothing"),
        (("rain.bif", "--query", "Rain", "--out", "r.MAR"), "a .MAR file holds every variable"),
        (("rain.bif", "--query", "Rain", "--task", "PR"), "leave --query out"),
        (("m.uai", "--evidence-file", "m.uai.evid", "--evidence", "x0=0"), "x0 is observed twice"),
        (("nothing.bif",), "no file or run nothing.bif"),
        (("m.uai.evid",), "read from .bif or .uai"),
        (("m.uai", "--evidence-file", "rain.bif"), "rain.bif, line 1: expected the number of observed"),
    ],
)
def test_a_mistake_gets_one_line_and_status_two(
    words: tuple[str, ...], message: str, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = asked(capsys, *words)
    assert status == 2
    assert message in err
    assert out == ""
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "m.uai",
            UAI.replace("0.5 2", "-0.5 2"),
            "m.uai, line 13: function 1: expected a finite number, 0 or",
        ),
        ("m.uai", UAI.replace("0.5 2", "nan 2"), "line 13: function 1: expected a finite number, 0 or more"),
        ("m.uai", UAI.replace("MARKOV", "BAYES"), "line 9: function 0 of a BAYES file"),
        ("b.bif", BIF.replace("0.75, 0.25", "1.25, -0.25"), "of Rain has the negative number -0.25"),
        ("b.bif", BIF.replace("0.75", "nan"), "line 4: expected a finite number, got nan"),
        ("b.bif", BIF.replace("0.5, 0.5", "0.5, 0.7"), "given Rain=yes sums to 1.2"),
    ],
)
def test_tables_that_are_no_probabilities_get_one_line_and_status_two(
    name: str, text: str, message: str, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (files / name).write_text(text)
    status, out, err = asked(capsys, name)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_a_file_is_sampled_into_rows_with_its_own_names(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sample", "rain.bif", "-n", "300", "--seed", "1", "--out", "rows.csv"]) == 0
    with (files / "rows.csv").open(newline="") as file:
        head, *rows = csv.reader(file)
    assert (head, len(rows)) == (["Rain", "Wet, grass"], 300)
    assert ["no", "yes"] not in rows
    assert sum(row[0] == "yes" for row in rows) / 300 == pytest.approx(0.25, abs=0.1)  # four standard errors
    assert main(["sample", "m.uai.evid"]) == 2
    assert "read from .bif or .uai" in capsys.readouterr().err


def strictly(text: str) -> Any:
    """Return a JSON document, read by a parser that takes no NaN and no infinity."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_a_bound_that_is_infinite_is_null_in_json(
    files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leadline.inference.approximate.bound_partition", lambda graph: (-math.inf, math.inf))
    monkeypatch.setattr(
        "leadline.inference.approximate.mean_field",
        lambda graph, seen, start=None: MeanField(
            [np.full(size, 1 / size) for size in graph.sizes], -math.inf, [-math.inf], (), []
        ),
    )
    for words in ((), ("--task", "PR")):
        status, out, err = asked(capsys, "rain.bif", "--method", "mean-field", "--json", *words)
        assert status == 0, err
        told = strictly(out)
        assert (told["log_partition"] if not words else told)["interval"] == [None, None]
