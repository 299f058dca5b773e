"""Tables: columns, headers, labels, and each bad row by its line."""

import gzip
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from leadline.catalog import build
from leadline.core import (
    Categories,
    Classes,
    DataError,
    DomainError,
    ExtraError,
    OptionError,
    Table,
    Targets,
    Vectors,
    domain_from_json,
)
from leadline.data import load
from leadline.data.samples import samples_for

ROWS = [f"{i},{i * 0.5 - 3},{'red' if i % 3 else 'blue'},{'ab'[i % 2]}" for i in range(20)]
HEADER = "n,half,colour,kind"


def table(path: Path, rows: list[str], header: str | None = HEADER) -> Path:
    text = "\n".join([*([header] if header else []), *rows]) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def changed(row: int, text: str) -> list[str]:
    return [*ROWS[:row], text, *ROWS[row + 1 :]]


def everything(data) -> torch.Tensor:
    return torch.cat([data.train.x, data.valid.x, data.test.x])


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_columns_are_real_or_categories(tmp_path, name):
    data = load(table(tmp_path / name, ROWS), target="kind")
    assert isinstance(data.domain, Table)
    assert data.domain.reals.columns == ("n", "half")
    assert data.domain.categories == Categories((2,), ("colour",), (("blue", "red"),))
    assert data.labels == Classes(("a", "b"))
    for split in (data.train, data.valid, data.test):
        n = split.x[:, 0]
        assert torch.equal(split.x[:, 1], n * 0.5 - 3)
        assert torch.equal(split.x[:, 2], (n.long() % 3 > 0).float())
        assert torch.equal(split.y, n.long() % 2)
    means = data.train.x[:, :2].mean(0).tolist()
    assert data.domain.reals.mean == pytest.approx(means)
    assert load(data.source, **data.options).fingerprint == data.fingerprint


def test_numbers_alone_are_vectors_and_texts_alone_categories(tmp_path):
    path = table(tmp_path / "a.csv", ROWS)
    assert isinstance(load(path, drop=["colour", "kind"]).domain, Vectors)
    texts = load(path, drop=["n", "half"])
    assert texts.domain == Categories((2, 2), ("colour", "kind"), (("blue", "red"), ("a", "b")))
    assert everything(texts).dtype == torch.int64
    forced = load(path, drop=["half", "colour"], categorical=["n"])
    assert forced.domain.sizes == (20, 2)


@pytest.mark.parametrize("target", ["half", 1, -3, "1"])
def test_a_target_of_many_values_is_real(tmp_path, target):
    data = load(table(tmp_path / "a.csv", ROWS), target=target)
    assert isinstance(data.labels, Targets)
    assert data.labels.names == ("half",)
    assert torch.equal(data.train.y[:, 0], data.train.x[:, 0] * 0.5 - 3)
    assert data.labels.mean[0] == pytest.approx(float(data.train.y.mean()))


def test_the_task_decides_what_a_number_is(tmp_path):
    path = table(tmp_path / "a.csv", [f"{i},{i % 3 + 8}" for i in range(20)], "x,y")
    data = load(path, target="y")
    assert data.labels == Classes(("8", "9", "10"))
    assert torch.equal(data.train.y, data.train.x[:, 0].long() % 3)
    assert isinstance(load(path, target="y", task="regression").labels, Targets)
    assert len(load(path, target="x", task="classification").labels.names) == 20
    with pytest.raises(OptionError, match="task="):
        load(path, target="y", task="ranking")


@pytest.mark.parametrize(
    ("header", "rows", "names"),
    [
        ("a,b", ["1,2", "3,4", "5,6", "7,8"], ("a", "b")),
        (None, ["1,2", "3,4", "5,6", "7,8"], ("x0", "x1")),
        (None, ["u,2", "v,4", "u,6", "v,8"], ("x1",)),
        ("a;b", ["1;2", "3;4", "5;6", "7;8"], ("a", "b")),
        ("a|b", ["1|2", "3|4", "5|6", "7|8"], ("a", "b")),
    ],
)
def test_a_header_and_a_separator_are_found(tmp_path, header, rows, names):
    domain = load(table(tmp_path / "a.csv", rows, header)).domain
    assert (domain.reals if isinstance(domain, Table) else domain).columns == names


def test_a_header_of_texts_over_texts_is_found_where_it_does_not_recur(tmp_path):
    rows = ["u,v", "w,v", "u,z", "w,z"]
    assert load(table(tmp_path / "a.csv", rows, "p,q")).domain.columns == ("p", "q")
    assert load(table(tmp_path / "b.csv", rows, None)).domain.columns == ("x0", "x1")
    assert load(table(tmp_path / "c.csv", rows, None), header=True).domain.columns == ("u", "v")


def test_names_without_rows_are_told(tmp_path):
    with pytest.raises(DataError, match="one row of names and no rows of values"):
        load(table(tmp_path / "a.csv", [], "a,b,label"))


def test_tabs_blank_lines_quotes_and_marks_of_order_are_read(tmp_path):
    (tmp_path / "a.tsv").write_bytes(b"\xef\xbb\xbfa\tb\r\n1\t2\r\n\r\n3\t4\r\n5\t6\r\n\r\n")
    assert sorted(everything(load(tmp_path / "a.tsv"))[:, 0].tolist()) == [1, 3, 5]
    rows = ['1,"two, or\nmore"', "2,three", "3,three", '4,"two, or\nmore"']
    data = load(table(tmp_path / "b.csv", rows, "a,b"))
    assert data.domain.categories.values == (("three", "two, or\nmore"),)
    with pytest.raises(DataError, match=r"b\.csv, row 8: 3 fields"):
        load(table(tmp_path / "b.csv", [*rows, "5,6,7"], "a,b"))


@pytest.mark.parametrize(
    ("row", "text", "what"),
    [
        (4, "4,-1.0,red", "3 fields where most rows have 4"),
        (4, "4,-1.0,red,a,9", "5 fields where most rows have 4"),
        (7, "7,?,red,b", 'column "half" is missing'),
        (7, "7,,red,b", 'column "half" is missing'),
        (7, "7,0.5,?,b", 'column "colour" is missing'),
        (7, "seven,0.5,red,b", "column \"n\": 'seven' is not a number"),
        (7, "7,inf,red,b", 'column "half": .*inf.* is not a finite'),
        (7, "7,1e300,red,b", 'column "half": .*1e.*300.* is not a finite'),
    ],
)
def test_a_bad_row_is_named_or_left_out(tmp_path, row, text, what):
    path = table(tmp_path / "a.csv", changed(row, text))
    line = row + 2  # rows count from 1, and the first is the header
    with pytest.raises(DataError, match=rf"a\.csv, row {line}: {what}.*skip_bad=True"):
        load(path, target="kind")
    data = load(path, target="kind", skip_bad=True)
    assert data.skipped == 1
    assert f"a.csv, row {line}" in data.problems[0]
    assert sorted(everything(data)[:, 0].tolist()) == [i for i in range(20) if i != row]
    assert load(data.source, **data.options).fingerprint == data.fingerprint


def test_a_missing_label_is_unknown(tmp_path):
    path = table(tmp_path / "a.csv", changed(6, "6,0.0,blue,?"))
    data = load(path, target="kind")
    y = torch.cat([data.train.y, data.valid.y, data.test.y])
    assert (y == -1).sum() == 1
    real = load(table(tmp_path / "b.csv", changed(6, "6,,blue,a")), target="half")
    assert sum(int(split.y.isnan().sum()) for split in (real.train, real.valid, real.test)) == 1
    assert np.isfinite(real.labels.mean[0])


def test_a_test_file_shares_columns_and_classes(tmp_path):
    train = table(tmp_path / "train.csv", ROWS)
    test = table(tmp_path / "test.csv", [f"{row}." for row in ROWS[1:7]])
    data = load(train, target="kind", test="test.csv")
    assert len(data.test) == 6
    assert data.labels == Classes(("a", "b"))
    assert data.test.y.tolist() == [1, 0, 1, 0, 1, 0]
    assert any("the dot was taken away" in line for line in data.problems)
    assert any("6 of 6 test samples are also in train" in line for line in data.problems)
    assert load(data.source, **data.options).fingerprint == data.fingerprint
    table(test, ["1,2"], "a,b")
    with pytest.raises(DataError, match="its columns are not those of train"):
        load(train, test="test.csv", header=True)


def test_what_is_odd_is_told(tmp_path):
    rows = [f"1,{i % 2},{i}" for i in range(30)]
    data = load(table(tmp_path / "a.csv", [*rows, rows[4]], "one,two,many"), target="two")
    text = "\n".join(data.problems)
    assert "row 32: repeats a.csv, row 6" in text
    assert "constant over the training split: one" in text
    few = load(table(tmp_path / "b.csv", rows, "one,two,many"))
    assert "real columns of at most 10 values: two (2)" in "\n".join(few.problems)
    single = load(table(tmp_path / "c.csv", rows, "one,two,many"), target="one")
    assert 'there is only one class, "1"' in "\n".join(single.problems)


def test_a_column_that_helps_nobody_is_told(tmp_path):
    rows = [f"{i},name {i}" for i in range(1200)]
    path = table(tmp_path / "a.csv", rows, "x,who")
    with pytest.raises(
        DataError, match=r'column "who" has 1200 different texts; leave it out with drop="who"'
    ):
        load(path)
    assert load(path, drop="who").domain.dims == 1


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "the file is empty"),
        (b"\n\n \n", "the file is empty"),
        (b"a,b\n1,2\n\xff\xfe,3\n", "line 3: byte 0xff is not UTF-8"),
        (b"a,b\n", "1 sample is too few|no rows"),
        (b"1,2\n", "1 sample is too few"),
        (b'a,b\n1,"2\n3,4\n', r"a\.csv, row 2: .*is a quote not closed"),
        (b"a,a\n1,2\n3,4\n5,6\n", 'two columns are named "a"'),
    ],
)
def test_each_damaged_table_gets_one_line(tmp_path, data, what):
    path = tmp_path / "a.csv"
    path.write_bytes(data)
    with pytest.raises(DataError, match=what) as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_a_cut_gzip_is_told(tmp_path):
    path = table(tmp_path / "a.csv.gz", ROWS)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="damaged or cut off"):
        load(path)


def test_unknown_columns_suggest_the_nearest(tmp_path):
    with pytest.raises(OptionError, match=r'unknown column "colur" \(did you mean "colour"\?\)'):
        load(table(tmp_path / "a.csv", ROWS), target="colur")


def test_parquet_gives_what_csv_gives(tmp_path, monkeypatch):
    pytest.importorskip("pyarrow", reason="needs the extra parquet")
    path = table(tmp_path / "a.csv", ROWS)
    pd.read_csv(path).to_parquet(tmp_path / "a.parquet")
    data = load(tmp_path / "a.parquet", target="kind")
    assert data.fingerprint == load(path, target="kind").fingerprint
    assert load(data.source, **data.options).fingerprint == data.fingerprint
    whole = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[:-30])
    with pytest.raises(DataError, match=r"cut\.parquet: damaged, or not a Parquet file"):
        load(tmp_path / "cut.parquet")
    pd.DataFrame({"a": [[1], [2]]}).to_parquet(tmp_path / "nested.parquet")
    with pytest.raises(DataError, match='column "a" is nested'):
        load(tmp_path / "nested.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ExtraError, match=r"leadline\[parquet\]"):
        load(tmp_path / "a.parquet")


def test_missing_categories_are_kept_if_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    rows = ["a,b,c"] + [f"x{i % 2},{i % 3},{'yes' if i % 2 else '?'}" for i in range(60)]
    path.write_text("\n".join([*rows, ",?,yes"]) + "\n")
    with pytest.raises(DataError, match="missing"):
        load(path, categorical="*")
    with pytest.raises(DataError, match=r'column "b" holds numbers.*categorical="b"'):
        load(path, missing="keep")
    data = load(path, categorical="*", missing="keep")
    assert isinstance(data.domain, Categories)
    assert data.domain.missing
    assert data.domain.sizes == (2, 3, 1)
    every = torch.cat([data.train.x, data.valid.x, data.test.x])  # type: ignore[list-item]
    assert len(every) == 61
    assert (every < 0).sum() == 32  # 30 and the last row's two
    gap = every[(every[:, 2] < 0)][:1]
    assert data.domain.features(gap)[0, -1] == 0
    assert data.domain.show(gap[0]).endswith("c=?")
    assert data.domain.validated(every) is every
    assert domain_from_json(data.domain.to_json()) == data.domain
    with pytest.raises(DomainError, match="made needs whole rows"):
        build("made", data)
    x, _ = samples_for(data.domain, [path], options=data.options)
    assert (x < 0).sum() == 32
    (tmp_path / "u.csv").write_text("a,b,c\nx0,1,no\n")
    with pytest.raises(DataError, match="unknown value 'no'"):
        samples_for(data.domain, [tmp_path / "u.csv"], options=data.options)


def test_flags_are_kept_as_they_are_spelt(tmp_path: Path) -> None:
    rows = "\n".join(
        f"{flag},{seen},{n}" for n, (flag, seen) in enumerate([("TRUE", "true"), ("FALSE", "?")] * 5)
    )
    (tmp_path / "flags.csv").write_text(f"flag,seen,n\n{rows}\n")
    data = load(tmp_path / "flags.csv", categorical="*", missing="keep")
    assert isinstance(data.domain, Categories)
    assert data.domain.values[:2] == (("FALSE", "TRUE"), ("true",))


def test_a_header_with_a_name_twice_is_no_row_of_values(tmp_path):
    rows = ["u,v,w", "w,v,u", "u,z,u", "w,z,w"]
    with pytest.raises(
        DataError, match=r'row 1: two columns are named "p"; rename one, or give header=False'
    ):
        load(table(tmp_path / "a.csv", rows, "p,p,q"))


def test_numbers_of_which_each_row_has_its_own_are_no_categories(tmp_path):
    rows = [f"{i / 7},{i % 40},{'uv'[i % 2]}" for i in range(120)]
    path = table(tmp_path / "a.csv", rows, "real,whole,text")
    with pytest.raises(
        DataError, match=r'column "real" has 120 different numbers, too many .* \(--data drop=real'
    ):
        load(path, categorical="*")
    assert load(path, categorical="*", drop="real").domain.sizes == (40, 2)
    few = table(tmp_path / "b.csv", rows[:50], "real,whole,text")
    assert load(few, categorical="*").domain.sizes == (50, 40, 2)


def test_a_missing_category_may_be_kept_and_a_missing_number_may_not(tmp_path):
    rows = ["1.5,u", "2.5,?", "3.5,v", "4.5,u"]
    with pytest.raises(DataError, match=r'"b" is missing; mend it, keep it with missing="keep" .*, or leave'):
        load(table(tmp_path / "a.csv", rows, "a,b"))
    with pytest.raises(DataError, match=r'"a" is missing; mend it, or leave it out'):
        load(table(tmp_path / "b.csv", ["?,u", *rows[2:]], "a,b"))


def test_rows_of_categories_repeat_by_chance_and_a_single_category_is_told(tmp_path):
    rows = [f"{'uv'[i % 2]},k,{'xyz'[i % 3]}" for i in range(60)]
    assert load(table(tmp_path / "a.csv", rows, "a,b,c")).problems == ("columns of a single category: b",)
