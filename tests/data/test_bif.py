"""BIF files: read, written, read again; and what is said of damaged ones."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from leadline.core import DataError
from leadline.data.bif import bif_of, parse_bif, read_bif, write_bif

SHARED = Path(__file__).parents[3] / "shared/data/bayesnets"
needs_files = pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data/bayesnets")
NODES = {
    "alarm": 37, "andes": 223, "asia": 8, "barley": 48, "cancer": 5, "child": 20, "diabetes": 413,
    "earthquake": 5, "hepar2": 70, "insurance": 27, "link": 724, "munin": 1041, "munin1": 186,
    "munin2": 1003, "munin3": 1041, "munin4": 1038, "pathfinder": 109, "sachs": 11, "water": 32,
}  # fmt: skip

SMALL = """
// a comment with { and "
network "two words" { property author me; property "quoted, with ; inside" ; }
variable Rain { type discrete [ 2 ] { no, yes }; property position = (1, 2); }
variable "Wet grass" /* a comment
of two lines */ { type discrete [3] { "not at all", a.bit, süß }; }
probability ( Rain ) { table 0.75, 0.25; }
probability ( "Wet grass" | Rain ) { (yes) 0.1 0.2 0.7; default 0.9 0.05 0.05; property note; }
"""


@needs_files
@pytest.mark.parametrize("name", NODES)
def test_every_file_read_and_written_and_read_again_is_equal(name: str) -> None:
    network = read_bif(SHARED / f"{name}.bif.gz")
    assert len(network.columns) == NODES[name]
    assert all(np.abs(table.sum(-1) - 1).max() < 1e-6 for table in network.tables)
    again = parse_bif(bif_of(network))
    assert again == network


@needs_files
def test_entries_stand_where_the_file_says() -> None:
    network = read_bif(SHARED / "alarm.bif.gz")
    number = {name: v for v, name in enumerate(network.columns)}
    co = number["CO"]
    parents = [network.columns[p] for p in network.parents[co]]
    states = {"HR": "HIGH", "STROKEVOLUME": "NORMAL"}  # (HIGH, NORMAL) 0.01, 0.04, 0.95
    index = tuple(network.values[number[p]].index(states[p]) for p in parents)
    assert network.tables[co][index].tolist() == [0.01, 0.04, 0.95]


def test_quotes_comments_defaults_properties_and_unicode_are_read_and_written(tmp_path: Path) -> None:
    network = parse_bif(SMALL)
    assert network.name == "two words"
    assert network.columns == ("Rain", "Wet grass")
    assert network.values[1] == ("not at all", "a.bit", "süß")
    assert network.parents == ((), (0,))
    assert network.tables[1].tolist() == [[0.9, 0.05, 0.05], [0.1, 0.2, 0.7]]
    assert network.properties[""] == ("author me", '"quoted, with ; inside"')
    assert network.properties["probability Wet grass"] == ("note",)
    write_bif(network, tmp_path / "small.bif")
    assert read_bif(tmp_path / "small.bif") == network
    write_bif(network, tmp_path / "small.bif.gz")
    assert gzip.decompress((tmp_path / "small.bif.gz").read_bytes()).decode() == bif_of(network)
    assert read_bif(tmp_path / "small.bif.gz") == network


def test_a_table_is_read_with_the_child_slowest_unless_only_the_other_order_sums_to_one() -> None:
    head = SMALL.split("probability ( Rain )")[0] + "probability ( Rain ) { table 0.75 0.25; }\n"
    slow = parse_bif(head + 'probability ( "Wet grass" | Rain ) { table 0.9 0.1 0.05 0.2 0.05 0.7; }')
    fast = parse_bif(head + 'probability ( "Wet grass" | Rain ) { table 0.9 0.05 0.05 0.1 0.2 0.7; }')
    assert slow == fast
    assert slow.tables[1].tolist() == [[0.9, 0.05, 0.05], [0.1, 0.2, 0.7]]


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("table 0.75, 0.25", "table 0.75, O.25", 7, "expected a number, got 'O.25'"),
        ("table 0.75, 0.25", "table 0.75", 7, "expected 2 numbers, got 1"),
        ("table 0.75, 0.25", "table nan, 0.25", 7, "expected a finite number, got nan"),
        ("table 0.75, 0.25", "table 0.75, 0.5", 7, "sums to 1.25"),
        ("table 0.75, 0.25", "table nan, 0.25", 7, "finite"),
        ("table 0.75, 0.25", "table 1.25, -0.25", 7, "the negative number -0.25"),
        ("| Rain )", "| Rian )", 8, r'unknown variable Rian \(did you mean "Rain"\?\)'),
        ("| Rain )", '| Rain, "Wet grass" )', 8, "stands twice"),
        ("(yes)", "(yess)", 8, "Rain has no state yess"),
        ("default 0.9 0.05 0.05;", "", 8, "no row of Wet grass for Rain=no"),
        ("default 0.9 0.05 0.05;", "(yes) 0.9 0.05 0.05;", 8, "a second row"),
        ("[ 2 ] { no, yes }", "[ 3 ] { no, yes }", 4, "expected 3 different states"),
        ("[ 2 ] { no, yes }", "[ 2 ] { no, no }", 4, "different states"),
        ("variable Rain", "variabel Rain", 4, "expected network, variable or probability"),
        ('"Wet grass" /*', "Rain /*", 5, "a second variable Rain"),
        ("probability ( Rain ) { table 0.75, 0.25; }", "", 8, "no probability block for the variable Rain"),
        ("property note; }", "property note", 8, "ends within a property"),
    ],
)
def test_a_damaged_file_is_told_by_line(old: str, new: str, line: int, message: str) -> None:
    assert old in SMALL
    with pytest.raises(DataError, match=f"line {line}: .*{message}") as caught:
        parse_bif(SMALL.replace(old, new))
    assert "\n" not in str(caught.value)


def test_a_file_cut_anywhere_is_refused_in_one_line() -> None:
    whole = SMALL.strip()
    for end in range(0, len(whole) - 1, 3):
        with pytest.raises(DataError, match="line") as caught:
            parse_bif(whole[:end])
        assert "\n" not in str(caught.value)


def test_what_is_no_text_or_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_bif(tmp_path / "missing.bif")
    (tmp_path / "cut.gz").write_bytes(gzip.compress(SMALL.encode())[:-12])
    with pytest.raises(DataError, match="cannot read"):
        read_bif(tmp_path / "cut.gz")
    (tmp_path / "raw.bif").write_bytes(b"network \xff\xfe")
    with pytest.raises(DataError, match="not UTF-8"):
        read_bif(tmp_path / "raw.bif")


def test_a_table_that_no_file_could_hold_is_refused_before_it_takes_memory() -> None:
    head = "network n {}\n" + "".join(
        f"variable v{i} {{ type discrete [ 2 ] {{ a, b }}; }}\n" for i in range(60)
    )
    with pytest.raises(DataError, match="cannot be in this file"):
        parse_bif(
            head + f"probability ( v0 | {', '.join(f'v{i}' for i in range(1, 60))} ) {{ default 1 0; }}"
        )


def test_a_table_that_sums_to_one_in_neither_order_is_told_in_that_of_the_source() -> None:
    text = (
        "network n { }\nvariable a { type discrete [ 2 ] { n, y }; }\n"
        "variable b { type discrete [ 2 ] { n, y }; }\n"
        "probability ( a ) { table 0.5, 0.5; }\nprobability ( b | a ) { table 0.1, 0.2, 0.9, 0.9; }\n"
    )
    with pytest.raises(DataError, match=r"line 5: the distribution of b given a=y sums to 1\.1"):
        parse_bif(text)
