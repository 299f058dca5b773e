"""Corpora: what is read is what was written, and what is wrong is named by file and line."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import mmwrite
from scipy.sparse import coo_matrix, csc_matrix, csr_matrix, random_array, save_npz

import leadline as ll
from leadline.core import Counts, DataError, OptionError
from leadline.data import load
from leadline.data.bags import Bags
from leadline.data.samples import samples_for

TOPICS = Path(__file__).parents[2] / ".." / "shared" / "data" / "topics"
shared = pytest.mark.skipif(not TOPICS.is_dir(), reason="the shared data are not here")


def counts(n: int = 40, words: int = 6) -> np.ndarray:
    return (
        random_array((n, words), density=0.4, rng=np.random.default_rng(3)).toarray().__mul__(9).astype(int)
    )


def ldac(table: np.ndarray) -> str:
    rows = [[f"{w}:{c}" for w, c in enumerate(row) if c] for row in table]
    return "".join(f"{len(row)} {' '.join(row)}".rstrip() + "\n" for row in rows)


def everything(data: ll.Dataset) -> torch.Tensor:
    return torch.cat([split.head(len(split)).x for split in (data.train, data.valid, data.test)])


def same_rows(x: torch.Tensor, table: np.ndarray) -> bool:
    return sorted(map(tuple, x.tolist())) == sorted(map(tuple, table.tolist()))


@pytest.mark.parametrize("form", ["dat", "mtx", "csr", "csc", "coo"])
def test_every_form_gives_back_the_counts_that_were_written(form: str, tmp_path: Path) -> None:
    table = counts()
    path = tmp_path / f"c.{form if form in ('dat', 'mtx') else 'npz'}"
    if form == "dat":
        path.write_text(ldac(table))
    elif form == "mtx":
        mmwrite(path, coo_matrix(table))
    else:
        save_npz(path, {"csr": csr_matrix, "csc": csc_matrix, "coo": coo_matrix}[form](table))
    (tmp_path / "vocab.txt").write_text("a\nb\nc\nd\ne\nf\n")
    data = load(path)
    assert data.domain == Counts(tuple("abcdef"))
    assert same_rows(everything(data), table)
    assert load(data.source, **data.options).fingerprint == data.fingerprint
    x, names = samples_for(data.domain, [path])
    assert torch.equal(x, torch.from_numpy(table))
    assert names[1].endswith("line 2" if form == "dat" else "row 1")


def test_bags_are_rows_of_a_dense_table_in_any_order() -> None:
    table = counts()
    bags = Bags.of(csr_matrix(table))
    index = torch.tensor([5, 0, 5, 39])
    assert torch.equal(bags[index], torch.from_numpy(table)[index])
    assert torch.equal(bags.select(index)[torch.tensor([3])], torch.from_numpy(table)[39:])
    assert torch.equal(bags.sparse().to_dense(), torch.from_numpy(table))
    bags.counts.flags.writeable = False  # as in a memory map: no warning, and the map is left alone
    assert torch.equal(bags.sparse().to_dense(), torch.from_numpy(table))
    assert bags.digest() != bags.select(torch.arange(39)).digest()
    changed = table.copy()
    changed[7, 2] += 1
    assert bags.digest() != Bags.of(csr_matrix(changed)).digest()


def test_a_folder_of_texts_has_a_class_a_sub_folder(tmp_path: Path) -> None:
    for i in range(20):
        folder = tmp_path / "mail" / ("spam" if i % 2 else "ham")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i}.txt").write_text(
            f"The {'offer' if i % 2 else 'meeting'}, at 10: don't miss it! {'it ' * i}"
        )
    data = load(tmp_path / "mail")
    assert data.labels is not None
    assert data.labels.names == ("ham", "spam")
    assert data.domain.vocabulary == ("at", "don't", "it", "meeting", "miss", "offer", "the")
    x, y = everything(data), torch.cat([data.train.y, data.valid.y, data.test.y])
    assert torch.equal(x[:, 5], y)
    assert load(tmp_path / "mail", stop_words=True).domain.vocabulary == ("don't", "meeting", "miss", "offer")
    again, names = samples_for(data.domain, [tmp_path / "mail" / "ham"])
    assert again[0].tolist() == [1, 1, 1, 1, 1, 0, 1]
    assert names[0].endswith("0.txt")


def test_texts_of_a_split_stay_in_it(tmp_path: Path) -> None:
    for split, word, count in (("train", "sea", 6), ("valid", "line", 3), ("test", "lead", 4)):
        (tmp_path / split).mkdir()
        for i in range(count):
            (tmp_path / split / f"{i}.txt").write_text(f"{word} " * (i + 1))
    data = load(tmp_path)
    assert data.domain.vocabulary == ("lead", "line", "sea")
    for part, column, count in ((data.train, 2, 6), (data.valid, 1, 3), (data.test, 0, 4)):
        x = part.head(10).x
        assert x[:, column].tolist() == list(range(1, count + 1))
        assert int(x.sum()) == int(x[:, column].sum())


def test_the_vocabulary_is_cut_by_documents_and_by_frequency(tmp_path: Path) -> None:
    (tmp_path / "d.cor").write_text("aa bb cc\naa bb\naa dd dd dd dd\n\n" * 4 + "ee aa\n")
    assert load(tmp_path / "d.cor").domain.vocabulary == ("aa", "bb", "cc", "dd", "ee")
    assert load(tmp_path / "d.cor", min_df=2).domain.vocabulary == ("aa", "bb", "cc", "dd")
    assert load(tmp_path / "d.cor", vocabulary=2).domain.vocabulary == ("aa", "dd")
    lines = tmp_path / "d.txt"
    lines.write_text("aa bb cc\naa bb\naa dd dd dd dd\n" * 4)
    assert load(lines, level="bags").domain.vocabulary == ("aa", "bb", "cc", "dd")
    with pytest.raises(OptionError, match="bags"):
        load(lines, min_df=2)
    with pytest.raises(DataError, match="no word is left"):
        load(lines, level="bags", min_df=20)
    for wrong in ({"min_df": -1}, {"min_df": 1.5}, {"max_df": 0}, {"max_df": 2.0}, {"vocabulary": 0}):
        with pytest.raises(OptionError, match=f"{next(iter(wrong))} (is a whole number|must be at least 1)"):
            load(lines, level="bags", **wrong)


def test_common_words_are_cut_by_number_by_share_and_by_name(tmp_path: Path) -> None:
    path = tmp_path / "d.cor"
    path.write_text(
        "aa bb cc\naa bb\naa dd dd\naa the cc\n" * 3
    )  # of 12: aa in 12, bb and cc in 6, dd, the in 3
    assert load(path, max_df=6).domain.vocabulary == ("bb", "cc", "dd", "the")
    assert load(path, max_df=0.5).domain.vocabulary == ("bb", "cc", "dd", "the")
    assert load(path, max_df=0.4, min_df=0.1).domain.vocabulary == ("dd", "the")
    assert load(path, min_df=0.3).domain.vocabulary == ("aa", "bb", "cc")
    assert load(path, max_df=1.0).domain.vocabulary == ("aa", "bb", "cc", "dd", "the")
    assert load(path, stop_words="english").domain.vocabulary == ("aa", "bb", "cc", "dd")
    assert load(path, stop_words="AA, dd").domain.vocabulary == ("bb", "cc", "the")
    (tmp_path / "mine.txt").write_text("bb\nThe\n")
    mine = load(path, stop_words="mine.txt")
    assert mine.domain.vocabulary == ("aa", "cc", "dd")
    assert load(mine.source, **mine.options).fingerprint == mine.fingerprint
    with pytest.raises(DataError, match=r"stop_words='min.txt': no such file \(did you mean"):
        load(path, stop_words="min.txt")
    with pytest.raises(DataError, match="a larger max_df="):
        load(path, max_df=1)


def test_counts_become_bits_by_occurrence(tmp_path: Path) -> None:
    (tmp_path / "c.dat").write_text(ldac(counts()))
    data = load(tmp_path / "c.dat")
    bits = data.binarize()
    assert same_rows(everything(bits).long(), (counts() > 0).astype(int))
    assert bits.domain.names == data.domain.vocabulary
    assert load(bits.source, **bits.options).fingerprint == bits.fingerprint


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("2 0:1 1:2\n3 0:1 1:1\n", r"c.dat, line 2: says 3 words but holds 2 .is it cut off"),
        ("1 0:1\n\n1 0;1\n", r"c.dat, line 3: .*word:count"),
        ("1 0:1\n1 -1:1\n", r"c.dat, line 2"),
        ("1 0:1\n1 9:1\n", r"c.dat, line 2: names word 9, but vocab.txt lists words 0 to 2; .* vocab="),
        ("1 0:1\n1 0:99999999999999999999\n", r"c.dat, line 2"),
        ("", "empty"),
        ("\n\n", "empty"),
        ("0\n0\n0\n0\n", "no document holds a word"),
        ("1 0:1\n", "too few"),
    ],
)
def test_a_wrong_line_is_named(text: str, what: str, tmp_path: Path) -> None:
    (tmp_path / "c.dat").write_text(text)
    (tmp_path / "vocab.txt").write_text("a\nb\nc\n")
    with pytest.raises(DataError, match=what) as caught:
        load(tmp_path / "c.dat")
    assert "\n" not in str(caught.value)


def test_labels_stay_with_their_texts_when_one_between_is_left_out(tmp_path: Path) -> None:
    for i in range(8):
        kind = "cat" if i < 4 else "dog"
        (tmp_path / kind).mkdir(exist_ok=True)
        (tmp_path / kind / f"{i}.txt").write_text(f"{kind} word")
    (tmp_path / "cat" / "0.txt").write_text("")
    data = load(tmp_path, skip_bad=True)
    assert data.labels is not None
    place = data.domain.vocabulary.index("dog")
    y = torch.cat([split.y for split in (data.train, data.valid, data.test)])  # type: ignore[misc]
    assert torch.equal(everything(data)[:, place], y)
    assert int(y.sum()) == 4


def test_new_documents_are_called_by_their_lines_and_equal_places_are_added(tmp_path: Path) -> None:
    (tmp_path / "c.dat").write_text("1 0:1\n\n\n2 0:1 0:2\n2 0:1 1:1\n1 1:4\n")
    x, names = samples_for(Counts(("0", "1")), [tmp_path / "c.dat"])
    assert [name.rpartition(" ")[2] for name in names] == ["1", "4", "5", "6"]
    assert x.tolist() == [[1, 0], [3, 0], [1, 1], [0, 4]]
    bags = Bags.of(csr_matrix((np.array([1, 2]), np.array([0, 0]), np.array([0, 2])), (1, 2)))
    assert bags.counts.tolist() == [3]


def test_bad_lines_can_be_left_out(tmp_path: Path) -> None:
    (tmp_path / "c.dat").write_text("1 0:1\nnonsense\n1 1:1\n1 0:2\n1 2:1\n")
    data = load(tmp_path / "c.dat", skip_bad=True)
    assert data.skipped == 1
    assert sum(len(part) for part in (data.train, data.valid, data.test)) == 4


def test_hostile_files_are_refused_in_one_line(tmp_path: Path) -> None:
    bad = tmp_path / "c.dat"
    bad.write_text("1 999999999:1\n" * 5)
    with pytest.raises(DataError, match="vocab="):
        load(bad)
    (tmp_path / "v").write_text("a\nb\na\n")
    bad.write_text("1 0:1\n" * 5)
    with pytest.raises(DataError, match='v, line 3: "a" stands in line 1'):
        load(bad, vocab="v")
    with pytest.raises(DataError, match="no such file"):
        load(bad, vocab="nowhere")
    market = tmp_path / "c.mtx"
    for text in ("%%MatrixMarket matrix coordinate integer general\n5 5 9\n1 1 1\n", "%%Matrix\n", "5 5 1\n"):
        market.write_text(text)
        with pytest.raises(DataError, match="Matrix Market"):
            load(market)
    market.write_text("%%MatrixMarket matrix coordinate real general\n5 5 1\n1 1 0.5\n")
    with pytest.raises(DataError, match=r"c.mtx, row 0, column 0: 0\.5 is no count"):
        load(market)
    file = tmp_path / "c.npz"
    arrays = {"format": np.array(b"csr"), "shape": np.array([3, 2]), "data": np.ones(3, np.int64)}
    np.savez(file, **arrays, indices=np.array([0, 1, 7]), indptr=np.array([0, 1, 2, 3]))
    with pytest.raises(DataError, match="not a whole sparse matrix"):
        load(file)
    np.savez(file, **arrays, indices=np.array([0, 1, 1]), indptr=np.array([0, 9, 2, 3]))
    with pytest.raises(DataError, match="not a whole sparse matrix"):
        load(file)
    np.savez(file, **arrays)
    with pytest.raises(DataError, match="not a whole sparse matrix"):
        load(file)
    whole = tmp_path / "w.npz"
    save_npz(whole, csr_matrix(counts()))
    (tmp_path / "cut.npz").write_bytes(whole.read_bytes()[:-50])
    with pytest.raises(DataError, match="npz"):
        load(tmp_path / "cut.npz")


@pytest.mark.parametrize("form", ["mtx", "csr", "csc", "coo"])
@pytest.mark.parametrize("value", [-2.0, 0.5, np.nan, np.inf])
def test_a_value_that_is_no_count_is_named_by_row_and_column(form: str, value: float, tmp_path: Path) -> None:
    table = counts().astype(float)
    table[3, 2] = value
    path = tmp_path / f"c.{'mtx' if form == 'mtx' else 'npz'}"
    if form == "mtx":
        mmwrite(path, coo_matrix(table))
    else:
        save_npz(path, {"csr": csr_matrix, "csc": csc_matrix, "coo": coo_matrix}[form](table))
    with pytest.raises(DataError, match=f"row 3, column 2: {value} is no count of words") as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_empty_documents_and_words_that_none_names_are_told_and_stop_nothing(tmp_path: Path) -> None:
    (tmp_path / "c.dat").write_text("1 0:1\n0\n2 0:1 1:2\n" * 5)
    (tmp_path / "c.vocab").write_text("a\nb\nc\nd\n")
    data = load(tmp_path / "c.dat")
    told = "\n".join(data.problems)
    assert "5 of 15 documents hold none of the words" in told
    assert "c.vocab lists words 0 to 3, but no document names one beyond 1" in told
    assert data.domain.vocabulary == ("a", "b")
    model = ll.build("lda", data, topics=2)
    model.sweep(data.train.x.sparse())  # type: ignore[operator, union-attr]
    assert bool(model.log_prob(everything(data)).isfinite().all())  # type: ignore[operator]


def test_a_text_that_is_not_utf_8_is_named_and_can_be_left_out(tmp_path: Path) -> None:
    for i in range(5):
        (tmp_path / f"{i}.txt").write_text("some words")
    (tmp_path / "3.txt").write_bytes(b"ok\ncaf\xe9")
    (tmp_path / "4.txt").write_text("")
    with pytest.raises(DataError, match=r"3\.txt, line 2: byte 0xe9 is not UTF-8; convert the file"):
        load(tmp_path)
    data = load(tmp_path, skip_bad=True)
    assert data.skipped == 2
    assert len(data.train) + len(data.valid) + len(data.test) == 3
    assert any("4.txt: the file is empty" in line for line in data.problems)


@pytest.mark.parametrize("shape", [(10**9, 3), (3, 10**9), (10**9, 10**9)])
def test_a_matrix_that_claims_more_than_can_be_held_is_refused_before_it_is_built(
    tmp_path: Path, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leadline.data.matrices.available", lambda: 1 << 34)
    header = "%%MatrixMarket matrix coordinate integer general"
    (tmp_path / "c.mtx").write_text(f"{header}\n{shape[0]} {shape[1]} 2\n1 1 1\n2 1 1\n")
    place = np.array([0, 1])
    np.savez(tmp_path / "c.npz", format=b"coo", shape=np.array(shape), data=np.ones(2), row=place, col=place)
    for name in ("c.mtx", "c.npz"):
        with pytest.raises(DataError, match=r"claims .* can be had") as told:
            load(tmp_path / name)
        assert str(told.value).count(name) == 1


def test_a_transposed_matrix_is_told_and_turned(tmp_path: Path) -> None:
    mmwrite(tmp_path / "c.mtx", coo_matrix(counts().T))
    (tmp_path / "vocab.txt").write_text("a\nb\nc\nd\ne\nf\n")
    with pytest.raises(DataError, match="transpose=true"):
        load(tmp_path / "c.mtx")
    assert same_rows(everything(load(tmp_path / "c.mtx", transpose=True)), counts())


def test_pictures_beside_a_text_are_still_pictures(tmp_path: Path) -> None:
    from PIL import Image

    for i in range(5):
        Image.new("L", (4, 4), i).save(tmp_path / f"{i}.png")
    (tmp_path / "README.txt").write_text("pictures of nothing")
    assert load(tmp_path).domain.kind == "images"


@shared
def test_the_associated_press_and_reuters_are_read_whole() -> None:
    data = load(TOPICS / "ap" / "ap.dat")
    assert data.domain.dims == 10473
    assert sum(len(part) for part in (data.train, data.valid, data.test)) == 2246
    reuters = load(TOPICS / "reuters" / "reuters.ldac")
    assert reuters.domain.dims == 4258
    assert "church" in reuters.domain.vocabulary
    text = (TOPICS / "reuters" / "reuters.ldac").read_text()
    total = sum(int(pair.partition(":")[2]) for line in text.splitlines() for pair in line.split()[1:])
    assert int(everything(reuters).sum()) == total
