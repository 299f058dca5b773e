"""Names and paths, options, descriptions, and real data where it is at hand."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from leadline.core import Classes, DataError, Images, OptionError, Vectors
from leadline.data import describe, from_arrays, load
from leadline.data.memory import bytes_of
from tests.programs import program

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


@pytest.mark.parametrize(
    ("name", "kind", "size", "classes"),
    [
        ("digits", Images, 1797, 10),
        ("iris", Vectors, 150, 3),
        ("wine", Vectors, 178, 3),
        ("breast-cancer", Vectors, 569, 2),
    ],
)
def test_embedded_data_repeat(name, kind, size, classes):
    data = load(name)
    assert isinstance(data.domain, kind)
    assert sum(len(split) for split in (data.train, data.valid, data.test)) == size
    assert isinstance(data.labels, Classes)
    assert data.labels.outputs == classes
    data.domain.validated(data.train.x)
    again = load(data.source, **data.options, seed=0)
    assert again.fingerprint == data.fingerprint
    assert load(name, seed=1).fingerprint != data.fingerprint


def test_pandas_is_imported_for_tables_only(tmp_path):
    (tmp_path / "table.csv").write_text("a,b\n" + "1,x\n2,y\n" * 10)
    np.savez(tmp_path / "arrays.npz", x=np.zeros((20, 3), dtype=np.float32))
    code = """
import sys
from leadline.data import load
for source in ("arrays.npz", "table.csv"):
    load(source)
    print("pandas" in sys.modules)
"""
    done = program("-c", code, check=True, cwd=tmp_path)
    assert done.stdout.split() == ["False", "True"]


def test_an_unknown_name_suggests_the_nearest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r'digts: no such file.*did you mean "digits"'):
        load("digts")
    (tmp_path / "photos.csv").write_text("a\n")
    with pytest.raises(DataError, match=r'did you mean "photos\.csv"'):
        load("photo.csv")
    (tmp_path / "model.pkl").write_bytes(b"\x80")
    with pytest.raises(DataError, match=r'files that end in "\.pkl" are not read; known are'):
        load("model.pkl")


@pytest.mark.parametrize("given", [np.zeros((5, 3)), torch.zeros(5, 3), [1, 2], None, 3])
def test_what_is_no_name_is_refused_with_the_way_for_arrays(given):
    with pytest.raises(
        OptionError, match=rf"name or a path, not {type(given).__name__}: from_arrays"
    ) as found:
        load(given)
    assert "\n" not in str(found.value)


def test_unknown_options_list_the_known_ones():
    with pytest.raises(OptionError, match=r'"lables" \(did you mean "labels"\?\); known: .*skip_bad'):
        load("digits", lables="none")
    with pytest.raises(OptionError, match="unknown option"):
        load("digits", size=3)
    for options in ({"limit": 0}, {"labels": "few"}, {"convert": ["flip"]}, {"convert": ["binarize:x"]}):
        with pytest.raises(OptionError):
            load("digits", **options)


def test_options_survive_json():
    data = load("digits", labels="10%", limit=300, binarize=7, vectors=True, seed=3)
    options = json.loads(json.dumps(data.options, sort_keys=True))
    assert load(data.source, **options).fingerprint == data.fingerprint


def test_sizes_of_memory_are_read():
    assert bytes_of("2GB") == 2 << 30
    assert bytes_of("1.5 MiB") == 3 << 19
    assert bytes_of(77) == 77
    with pytest.raises(OptionError, match="memory must be a size"):
        bytes_of("a lot")


def test_a_description_counts_and_shows():
    data = load("digits", labels="5 per class")
    plain = json.loads(json.dumps(describe(data).to_json()))
    assert plain["sizes"] == {"train": 1437, "valid": 180, "test": 180}
    assert all(counts["train"] == 5 for counts in plain["classes"].values())
    assert plain["unknown"] == {"train": 1387, "valid": 0, "test": 0}
    assert plain["bytes"] == 1797 * 64
    assert len(plain["samples"]) == 2
    text = str(describe(data))
    assert "train 1437, valid 180, test 180" in text
    assert data.fingerprint in text


def test_a_description_gives_the_range_of_targets():
    x = torch.arange(20.0)[:, None]
    found = describe(from_arrays(x, 3 * x + 1))
    assert found.targets == {"y": (1.0, 58.0)}
    assert found.labels == "targets"


SOURCES = [
    ("images/mnist_train.npz", {"test": "mnist_test.npz"}, 70_000),
    ("images/cifar10_test.npz", {}, 3_000),
    ("images/clothing160", {"size": 16, "limit": 120}, 119),
    ("tabular/csv/adult-train.csv.gz", {"target": -1, "skip_bad": True, "test": "adult-test.csv.gz"}, 45_222),
    ("tabular/csv/breast-cancer-wisconsin.csv", {"target": -1, "skip_bad": True}, 683),
    ("tabular/csv/covtype_10000x11.tsv", {"target": "Type"}, 10_000),
    ("tabular/uci_regression/yacht.npz", {}, 308),
    ("text/tinyshakespeare.txt", {}, 8_714),
]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data are not on this machine")
@pytest.mark.parametrize(("path", "options", "size"), SOURCES)
def test_real_data_load_and_repeat(path, options, size):
    data = load(SHARED / path, **options)
    assert sum(len(split) for split in (data.train, data.valid, data.test)) == size
    data.domain.validated(data.train.head(100).x)
    if size < 20_000:
        assert load(data.source, **data.options).fingerprint == data.fingerprint
