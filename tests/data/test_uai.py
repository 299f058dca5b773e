"""UAI files: read, written, read again; and what is said of damaged ones."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from leadline.core import DataError, RunError
from leadline.data.uai import (
    parse_uai,
    read_evidence,
    read_map,
    read_marginals,
    read_partition,
    read_uai,
    uai_of,
    write_evidence,
    write_map,
    write_marginals,
    write_partition,
    write_uai,
)
from tests.programs import program

SHARED = Path(__file__).parents[3] / "shared/data/uai"
SMALL = "MARKOV\n3\n2 2 3\n2\n2 0 1\n2 1 2\n\n4\n 1 2\n 3 4\n6\n0 1 2 3 4 5e-1\n"


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data/uai")
def test_every_instance_read_and_written_and_read_again_is_equal() -> None:
    files = sorted(SHARED.glob("*.uai"))
    assert len(files) == 38
    for path in files:
        model = read_uai(path)
        assert parse_uai(uai_of(model)) == model
        read_evidence(f"{path}.evid", model.sizes)
        read_partition(f"{path}.PR")
        answers = Path(f"{path}.MAR")
        if answers.exists():
            assert [len(p) for p in read_marginals(answers)] == list(model.sizes)


def test_the_last_variable_of_a_scope_runs_fastest(tmp_path: Path) -> None:
    model = parse_uai(SMALL)
    assert model.sizes == (2, 2, 3)
    assert model.tables[0].tolist() == [[1, 2], [3, 4]]
    assert model.tables[1][1].tolist() == [3, 4, 0.5]
    write_uai(model, tmp_path / "m.uai")
    assert read_uai(tmp_path / "m.uai") == model


def test_a_function_over_no_variable_is_a_number() -> None:
    model = parse_uai("MARKOV 1 2 2 0 1 0 1 2.5 2 1 1")
    assert model.tables[0].item() == 2.5
    assert parse_uai(uai_of(model)) == model


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "result"
    write_partition(-3.25, path)
    assert path.read_text() == "PR\n-3.25\n"
    assert read_partition(path) == -3.25
    write_marginals([np.array([0.25, 0.75]), np.ones(1)], path)
    assert path.read_text() == "MAR\n2 2 0.25 0.75 1 1.0\n"
    assert [p.tolist() for p in read_marginals(path)] == [[0.25, 0.75], [1.0]]
    write_map([1, 0, 2], path)
    assert path.read_text() == "MAP\n3 1 0 2\n"
    assert read_map(path) == [1, 0, 2]
    write_evidence({2: 1, 0: 1}, path)
    assert path.read_text() == "2 2 1 0 1\n"
    assert read_evidence(path, (2, 2, 2)) == {2: 1, 0: 1}


@pytest.mark.parametrize(
    ("text", "evidence"),
    [
        ("", {}),
        ("0\n", {}),
        ("1 0 1", {0: 1}),
        ("1\n2 0 1 1 0", {0: 1, 1: 0}),
        ("1 0", {}),
        ("2 0 1 1 1", {0: 1, 1: 1}),
    ],
)
def test_evidence_with_or_without_a_count_of_samples(
    text: str, evidence: dict[int, int], tmp_path: Path
) -> None:
    (tmp_path / "e").write_text(text)
    assert read_evidence(tmp_path / "e", (2, 2)) == evidence


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2 0 1", "ends where a variable should stand"),
        ("1 5 0", "variable 5, but there are 2"),
        ("1 0 7", "evidence 7 on variable 0 of 2 states"),
        ("2 0 1 0 0", "two states for variable 0"),
        ("1 0 1 4", "too many"),
        ("x", "expected the number of observed"),
        ("2\n1 0 1\n1 1 0\n", "line 1: 2 samples of evidence, and a question has one"),
        ("2\n0\n0", "2 samples of evidence"),
    ],
)
def test_damaged_evidence_is_told(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "e").write_text(text)
    with pytest.raises(DataError, match=message):
        read_evidence(tmp_path / "e", (2, 2))


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("MARKOV", "MARKO", 1, "expected MARKOV or BAYES"),
        ("2 2 3", "2 0 3", 3, "expected the number of states"),
        ("2 0 1", "2 0 3", 5, "must name variables"),
        ("2 1 2", "2 1 1", 6, "once each"),
        ("\n4\n", "\n5\n", 8, "has 4 values, not 5"),
        (" 3 4\n6", " 3 -4\n6", 10, "expected a finite number, 0 or more, got '-4'"),
        ("5e-1", "inf", 12, "got 'inf'"),
        ("5e-1", "five", 12, "got 'five'"),
        ("5e-1\n", "5e-1\n7", 13, "too many"),
        ("2 0 1", "99999999999 0 1", 5, "99999999999 numbers are announced"),
    ],
)
def test_a_damaged_file_is_told_by_line(old: str, new: str, line: int, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        parse_uai(SMALL.replace(old, new))
    if "announced" not in message:
        assert f"line {line}:" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_child_of_a_bayes_function_sums_to_one() -> None:
    text = "BAYES\n2\n2 2\n2\n1 0\n2 0 1\n2\n.25 .75\n4\n.1 .9\n.5 .5\n"
    assert parse_uai(text).tables[1].tolist() == [[0.1, 0.9], [0.5, 0.5]]
    with pytest.raises(DataError, match=r"line 11: function 1 of a BAYES file .* a row sums to 0.6, not 1"):
        parse_uai(text.replace(".5 .5", ".1 .5"))  # its columns do not sum to one either way
    with pytest.raises(DataError, match=r"line 11: function 1"):
        parse_uai(text.replace(".1 .9\n.5 .5", ".1 .5\n.9 .5"))  # the parent's would
    assert parse_uai(text.replace(".1 .9\n", ".33 .66\n")).kind == "BAYES"  # rounded
    assert parse_uai(text.replace("BAYES", "MARKOV").replace(".75", "7")).kind == "MARKOV"


def test_a_file_cut_anywhere_is_refused_in_one_line() -> None:
    for end in range(len(SMALL) - 5):
        with pytest.raises(DataError, match="line") as caught:
            parse_uai(SMALL[:end])
        assert "\n" not in str(caught.value)


def test_a_file_is_written_whole_or_not_at_all_and_compressed_by_its_name(tmp_path: Path) -> None:
    write_map([1, 0], tmp_path / "best.MAP.gz")
    assert gzip.decompress((tmp_path / "best.MAP.gz").read_bytes()) == b"MAP\n2 1 0\n"
    assert read_map(tmp_path / "best.MAP.gz") == [1, 0]
    (tmp_path / "taken").mkdir()
    with pytest.raises(RunError, match=r"cannot write .*taken: "):
        write_partition(1.0, tmp_path / "taken")
    with pytest.raises(RunError, match="No such file or directory"):
        write_partition(1.0, tmp_path / "nowhere/a.PR")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.MAP.gz", "taken"]
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (50, 50))\n"
    code = (
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from leadline.data.uai import write_map\n"
        "write_map([1] * 100, 'old.MAP')"
    )
    (tmp_path / "old.MAP").write_text("MAP\n1 0\n")
    ended = program("-B", "-c", limited + code, cwd=tmp_path)  # cut off, compiled code would stay
    assert "RunError: cannot write old.MAP: File too large" in ended.stderr
    assert read_map(tmp_path / "old.MAP") == [0]  # what stood there


def test_a_result_of_another_kind_is_refused(tmp_path: Path) -> None:
    write_map([1], tmp_path / "r")
    with pytest.raises(DataError, match="expected MAR, got 'MAP'"):
        read_marginals(tmp_path / "r")
