"""Files that are no networks, fields, evidence or tables: one line each, and status two."""

from pathlib import Path

import pytest

from leadline.cli import main
from leadline.models.graphical.network_files import read_network

VARIABLE = "variable {} {{ type discrete [ 2 ] {{ no, yes }}; }}\n"
PAIR = "network n { }\n" + VARIABLE.format("A") + VARIABLE.format("B")
GIVEN = "probability ( {} | {} ) {{ (no) 0.5, 0.5; (yes) 0.1, 0.9; }}\n"
COIN = "probability ( {} ) {{ table 0.5, 0.5; }}\n"
NETWORKS = {
    "cycle": (PAIR + GIVEN.format("A", "B") + GIVEN.format("B", "A"), "the graph has a cycle: A -> B -> A"),
    "own": (PAIR + GIVEN.format("A", "A") + COIN.format("B"), "line 4: A, A: a variable stands twice"),
    "sum": (
        PAIR + "probability ( A ) { table 0.5, 0.7; }\n" + COIN.format("B"),
        "line 4: the distribution of A sums to 1.2",
    ),
    "lone": (PAIR + COIN.format("A"), "line 4: no probability block for the variable B"),
    "twice": (PAIR + VARIABLE.format("A"), "line 4: a second variable A"),
    "row": (
        PAIR + COIN.format("A") + "probability ( B | A ) { (no) 0.5, 0.5; }\n",
        "line 5: no row of B for A=yes",
    ),
    "parent": (PAIR + COIN.format("A") + GIVEN.format("B", "C"), "line 5: unknown variable C"),
    "cut": (PAIR + COIN.format("A")[:-8], "line 4: the file ends within a row of numbers"),
    "empty": ("", "line 1: no variable"),
}
FIELD = "MARKOV\n2\n2 2\n2\n1 0\n2 0 1\n\n2\n 1 3\n\n4\n 1 0\n 0.5 2\n"
FIELDS = {
    "empty": ("", "line 1: the file ends where MARKOV or BAYES should stand"),
    "cut": (FIELD[:-6], "line 13: the file ends within function 1: 4 numbers are announced"),
    "scope": ("MARKOV\n2\n2 2\n1\n2 0 5\n\n4\n1 0 1 1\n", "line 5: the scope 0 5 must name variables 0..1"),
    "size": (
        "MARKOV\n2\n2 2\n1\n2 0 1\n\n3\n1 0 1\n",
        "line 7: function 0 over (0, 1) has 4 values, not 3",
    ),
    "cycle": (
        "BAYES\n2\n2 2\n2\n2 1 0\n2 0 1\n\n4\n.5 .5 .5 .5\n4\n.5 .5 .5 .5\n",
        "the graph has a cycle: 0 -> 1 -> 0",
    ),
}
EVIDENCE = {
    "state": ("1 0 5", "line 1: evidence 5 on variable 0 of 2 states"),
    "variable": ("1 7 0", "line 1: evidence 0 on variable 7, but there are 2 variables"),
    "cut": ("2 0 1", "line 1: the file ends where a variable should stand"),
    "long": ("1 0 1 1 1", "line 1: 2 words too many"),
    "twice": ("2 0 1 0 0", "line 1: two states for variable 0"),
}
ROWS = "".join(f"{'ab'[i % 2]},{'xyz'[i % 3]}\n" for i in range(60))
TABLES = {
    "gap": ("u,v\n" + ROWS.replace("a,x", ",x", 1), 'row 2: column "u" is missing'),
    "row": ("u,v\na,x\n", "1 sample is too few for 3 splits"),
    "ragged": ("u,v\n" + ROWS.replace("a,x", "a", 1), "row 2: 1 fields where most rows have 2"),
    "empty": ("", "the file is empty"),
}


def told(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    status = main(list(words))
    out, err = capsys.readouterr()
    assert (status, out, err.count("\n")) == (2, "", 1), err
    return err


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sure.bif").write_text(
        PAIR + "probability ( A ) { table 1.0, 0.0; }\n" + GIVEN.format("B", "A"), encoding="utf-8"
    )
    Path("field.uai").write_text(FIELD, encoding="utf-8")
    Path("folder.bif").mkdir()
    Path("folder.csv").mkdir()
    for name in ("bytes.bif", "bytes.uai", "bytes.bif.gz", "bytes.csv"):
        Path(name).write_bytes(bytes(range(256)) * 4)


@pytest.mark.parametrize("command", ["infer", "draw", "sample"])
@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (f"{name}{ending}", *told)
        for ending, kinds in ((".bif", NETWORKS), (".uai", FIELDS))
        for name, told in kinds.items()
    ],
)
def test_a_file_that_is_no_model_is_refused_by_name_line_and_fault(
    command: str, name: str, text: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(name).write_text(text, encoding="utf-8")
    err = told(capsys, command, name)
    assert message in err
    assert err.startswith(f"error: {name}")


def test_parents_in_a_uai_file_stand_before_their_child(capsys: pytest.CaptureFixture[str]) -> None:
    # 1 -> 0, 0 -> 2 and 1 -> 2; with the child first it would be 0 -> 1 -> 0
    scopes, coin = "BAYES\n3\n2 2 2\n3\n1 1\n2 1 0\n3 0 1 2\n\n", "2\n.4 .6\n"
    Path("it.uai").write_text(f"{scopes}{coin}4\n.5 .5 .1 .9\n8\n{'.2 .8 ' * 4}\n", encoding="utf-8")
    assert main(["infer", "it.uai", "--query", "x0"]) == 0
    assert "x0  0 0.2600  1 0.7400" in capsys.readouterr().out  # 0.4 0.5 + 0.6 0.9 = 0.74
    assert read_network("it.uai").parents == ((1,), (), (0, 1))


@pytest.mark.parametrize("command", ["infer", "draw", "sample"])
def test_bytes_folders_and_nothing_are_no_models(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("bytes.bif", "bytes.uai", "bytes.bif.gz"):
        assert "not UTF-8 text" in told(capsys, command, name)
    assert "no run in folder.bif" in told(capsys, command, "folder.bif")
    assert "no file or run nowhere.bif" in told(capsys, command, "nowhere.bif")


@pytest.mark.parametrize("name", EVIDENCE)
def test_evidence_out_of_range_or_of_shape_is_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text, message = EVIDENCE[name]
    Path("it.evid").write_text(text, encoding="utf-8")
    assert f"it.evid, {message}" in told(capsys, "infer", "field.uai", "--evidence-file", "it.evid")


@pytest.mark.parametrize("command", ["infer", "draw", "sample"])
def test_evidence_that_cannot_be_or_has_no_such_state_is_told(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "probability zero" in told(capsys, command, "sure.bif", "--evidence", "A=yes")
    assert 'did you mean "yes"?' in told(capsys, command, "sure.bif", "--evidence", "B=yse")
    assert "unknown variable C" in told(capsys, command, "sure.bif", "--evidence", "C=no")


@pytest.mark.parametrize("method", ["loopy", "mean-field", "mini-bucket", "weighting", "gibbs"])
def test_every_method_tells_that_evidence_cannot_be(method: str, capsys: pytest.CaptureFixture[str]) -> None:
    err = told(capsys, "infer", "sure.bif", "--evidence", "A=yes", "--method", method)
    assert "probability" in err
    assert "zero" in err


def test_samples_are_drawn_given_evidence(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("sample", "sure.bif", "-n", "400", "--evidence", "B=no", "--out", "rows.csv")
    assert main(list(words)) == 0
    assert set(Path("rows.csv").read_text(encoding="utf-8").splitlines()[1:]) == {"no,no"}
    assert main(["sample", "field.uai", "-n", "400", "--evidence", "x1=0", "--out", "rows.csv"]) == 0
    rows = Path("rows.csv").read_text(encoding="utf-8").splitlines()[1:]
    # f(0) f(0, 0) = 1 against f(1) f(1, 0) = 1.5: 0.6, within four standard errors
    assert abs(sum(row.startswith("1") for row in rows) / 400 - 0.6) < 4 * (0.24 / 400) ** 0.5
    assert {row.split(",")[1] for row in rows} == {"0"}
    capsys.readouterr()
    assert "--evidence VARIABLE=STATE" in told(capsys, "sample", "sure.bif", "--set", "evidence=B=no")


@pytest.mark.parametrize("name", TABLES)
def test_a_table_that_no_graph_can_be_learned_from_is_told(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text, message = TABLES[name]
    Path("it.csv").write_text(text, encoding="utf-8")
    words = ("bayesian_network", "it.csv", "--data", "categorical=*", "--set", "structure=bic")
    assert message in told(capsys, "fit", *words)


def test_bytes_and_folders_are_no_tables(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--data", "categorical=*", "--set", "structure=bic")
    assert "not UTF-8" in told(capsys, "fit", "bayesian_network", "bytes.csv", *words)
    assert "folder.csv: a folder, not a table" in told(
        capsys, "fit", "bayesian_network", "folder.csv", *words
    )


@pytest.mark.parametrize("structure", ["bic", "bdeu", "pc", "tree"])
def test_one_column_or_a_constant_one_leaves_nothing_to_join(
    structure: str, capsys: pytest.CaptureFixture[str]
) -> None:
    one = "u\n" + "".join(row[0] + "\n" for row in ROWS.splitlines())
    constant = "u,v\n" + "".join("a," + row[2:] + "\n" for row in ROWS.splitlines())
    for number, text in enumerate((one, constant)):
        Path("it.csv").write_text(text, encoding="utf-8")
        words = ("--data", "categorical=*", "--set", f"structure={structure}", "--out", f"run{number}")
        assert main(["fit", "bayesian_network", "it.csv", *words]) == 0
    capsys.readouterr()
    assert main(["infer", "run1", "--query", "u"]) == 0
    assert "u  a 1.0000" in capsys.readouterr().out
