"""Texts: windows in their order, a vocabulary of the training part."""

import gzip

import pytest
import torch

from leadline.core import DataError, OptionError, Tokens
from leadline.data import load


def spelt(data, split) -> str:
    return data.domain.joiner.join(data.domain.show(row) for row in split.x)


def test_windows_follow_each_other(tmp_path):
    text = "".join(chr(97 + i * i % 26) for i in range(203))
    (tmp_path / "a.txt").write_text(text)
    data = load(tmp_path / "a.txt", length=10)
    assert (len(data.train), len(data.valid), len(data.test)) == (16, 2, 2)
    assert "".join(spelt(data, split) for split in (data.train, data.valid, data.test)) == text[:200]
    assert data.labels is None
    assert load(data.source, **data.options).fingerprint == data.fingerprint


def test_the_vocabulary_is_that_of_the_training_part(tmp_path):
    (tmp_path / "a.txt").write_text("abc" * 30 + "xyz" * 3 + "é😀a")
    data = load(tmp_path / "a.txt", length=3)
    assert data.domain == Tokens(("<unk>", "a", "b", "c"), 3)
    assert bool((data.train.x > 0).all())
    assert data.test.x[-1].tolist() == [0, 0, 1]


def test_a_small_vocabulary_keeps_the_most_frequent(tmp_path):
    (tmp_path / "a.txt").write_text("aaab" * 50 + "c" * 7)
    assert load(tmp_path / "a.txt", length=4, vocabulary=2).domain.vocabulary == ("<unk>", "a")


def test_words_and_marks_are_tokens(tmp_path):
    (tmp_path / "a.txt").write_text("Don't stop, he said. " * 40)
    data = load(tmp_path / "a.txt", level="word", length=6)
    assert set(data.domain.vocabulary) == {"<unk>", "Don't", "stop", ",", "he", "said", "."}
    assert data.domain.show(data.train.x[0]) == "Don't stop , he said ."
    small = load(tmp_path / "a.txt", level="word", length=6, vocabulary=3)
    assert len(small.domain.vocabulary) == 3


def test_line_ends_and_compression_change_nothing(tmp_path):
    text = "one two\nthree four\n" * 30
    (tmp_path / "a.txt").write_text(text)
    (tmp_path / "b.txt").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    (tmp_path / "c.txt.gz").write_bytes(gzip.compress(text.encode()))
    prints = {load(tmp_path / name, length=5).fingerprint for name in ("a.txt", "b.txt", "c.txt.gz")}
    assert len(prints) == 1


def test_a_limit_keeps_the_first_windows(tmp_path):
    (tmp_path / "a.txt").write_text("abcdefghij" * 30)
    data = load(tmp_path / "a.txt", length=10, limit=10)
    assert sum(len(split) for split in (data.train, data.valid, data.test)) == 10
    assert torch.equal(data.train.x[0], data.test.x[0])


@pytest.mark.parametrize(
    ("data", "what"),
    [(b"", "is empty"), (b"abc", "fill 0 windows"), (b"ok\nok\n\xe9t\xe9", "line 3: byte 0xe9 is not UTF-8")],
)
def test_each_damaged_text_gets_one_line(tmp_path, data, what):
    (tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(DataError, match=what):
        load(tmp_path / "a.txt")


def test_options_out_of_range_are_told(tmp_path):
    (tmp_path / "a.txt").write_text("abc" * 100)
    for options in (
        {"level": "sentence"},
        {"length": 1},
        {"vocabulary": 1},
        {"length": "ten"},
        {"length": True},
    ):
        with pytest.raises(OptionError, match=next(iter(options))):
            load(tmp_path / "a.txt", **options)
    with pytest.raises(OptionError, match="no labels to hide"):
        load(tmp_path / "a.txt", length=4, labels="10%")
