"""Arrays: what they mean, IDX files, and files that are not to be trusted."""

import gzip
import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csc_matrix, csr_matrix

from leadline.core import (
    Bits,
    Categories,
    Classes,
    Counts,
    DataError,
    DomainError,
    Images,
    OptionError,
    Targets,
    Tokens,
    Vectors,
)
from leadline.data import from_arrays, load
from leadline.data.bags import Bags
from leadline.data.npy import read_npy

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (30, 4, 5, 3), dtype=np.uint8)
Y = np.arange(30) % 3


def npz(path: Path, **arrays) -> Path:
    np.savez(path, **arrays)
    return path


def everything(data) -> torch.Tensor:
    return torch.cat([data.train.x, data.valid.x, data.test.x])


def sorted_rows(x) -> list[tuple]:
    return sorted(map(tuple, torch.as_tensor(x).reshape(len(x), -1).tolist()))


@pytest.mark.parametrize(
    ("x", "options", "domain"),
    [
        (PIXELS, {}, Images(3, 4, 5)),
        (PIXELS.transpose(0, 3, 1, 2), {}, Images(3, 4, 5)),
        (PIXELS[..., 0], {}, Images(1, 4, 5)),
        (PIXELS[..., 0].reshape(30, 20), {"layout": "1x4x5"}, Images(1, 4, 5)),
        (PIXELS[:, :3], {"layout": "NCHW"}, Images(3, 5, 3)),
        (PIXELS[..., 0] % 16, {"levels": 16}, Images(1, 4, 5, 16)),
        (PIXELS.astype(np.int64)[..., 0], {}, Images(1, 4, 5)),
        (PIXELS[..., 0] % 2, {}, Bits((1, 4, 5))),
        (PIXELS[..., 0] > 9, {}, Bits((4, 5))),
        (PIXELS[:, 0, :, 0] % 4, {"kind": "categories"}, Categories((4, 4, 4, 4, 4))),
        (PIXELS[:, 0, :, 0] % 4, {"kind": "tokens"}, Tokens(("0", "1", "2", "3"), 5, " ")),
        (PIXELS[:, 0, :, 0], {"kind": "counts"}, Counts(tuple("01234"))),
    ],
)
def test_arrays_mean_what_their_shape_and_type_say(tmp_path, x, options, domain):
    data = load(npz(tmp_path / "a.npz", x=x, y=Y), **options)
    assert data.domain == domain
    assert everything(data).dtype == domain.dtype
    data.domain.validated(everything(data))
    assert load(data.source, **data.options).fingerprint == data.fingerprint


def test_channels_last_and_first_give_the_same_pictures(tmp_path):
    last = load(npz(tmp_path / "last.npz", x=PIXELS, y=Y))
    first = load(npz(tmp_path / "first.npz", x=PIXELS.transpose(0, 3, 1, 2), y=Y))
    assert last.fingerprint == first.fingerprint
    assert sorted_rows(everything(last)) == sorted_rows(PIXELS.transpose(0, 3, 1, 2).copy())


def test_a_guessed_layout_is_told(tmp_path):
    data = load(npz(tmp_path / "a.npz", x=PIXELS[:, :3]))
    assert any('layout="NCHW"' in line for line in data.problems)
    with pytest.raises(DataError, match="no axis"):
        load(npz(tmp_path / "b.npz", x=RNG.integers(0, 256, (9, 4, 5, 6), dtype=np.uint8)))
    with pytest.raises(OptionError, match="does not fit"):
        load(npz(tmp_path / "c.npz", x=PIXELS[..., 0]), layout="NHWC")


def test_real_numbers_are_vectors_and_pictures_when_told(tmp_path):
    x = PIXELS / 255
    data = load(npz(tmp_path / "a.npz", x=x))
    assert isinstance(data.domain, Vectors)
    assert data.domain.dims == 60
    pictures = load(npz(tmp_path / "b.npz", x=x), kind="images")
    assert sorted_rows(everything(pictures)) == sorted_rows(PIXELS.transpose(0, 3, 1, 2).copy())


def test_labels_are_classes_or_targets(tmp_path):
    x = RNG.normal(size=(30, 2))

    def labels(y, **more):
        return load(npz(tmp_path / "a.npz", x=x, y=y, **more.pop("arrays", {})), **more).labels

    assert labels(Y) == Classes(("0", "1", "2"))
    assert labels(Y * 5 + 10) == Classes(("10", "15", "20"))
    assert labels(Y, arrays={"classes": np.array(["a", "b", "c"])}) == Classes(("a", "b", "c"))
    assert labels(np.array(["u", "v", "w"])[Y]) == Classes(("u", "v", "w"))
    assert labels(np.eye(3, dtype=int)[Y]) == Classes(("0", "1", "2"))
    assert isinstance(labels(Y + 0.5), Targets)
    assert isinstance(labels(Y, task="regression"), Targets)
    assert labels(Y.astype(float), task="classification") == Classes(("0", "1", "2"))
    with pytest.raises(DataError, match=r"sample 2: label 2, but there are 2 class names"):
        labels(Y, arrays={"classes": np.array(["a", "b"])})


def test_unknown_labels_are_minus_one():
    data = from_arrays(np.zeros((6, 2)) + np.arange(6)[:, None], [0, 1, -1, 0, 1, -1])
    y = torch.cat([data.train.y, data.valid.y, data.test.y])
    assert sorted(y.tolist()) == [-1, -1, 0, 0, 1, 1]
    assert data.labels == Classes(("0", "1"))


def test_a_label_stays_with_its_sample(tmp_path):
    x = np.arange(60.0).reshape(30, 2)
    data = load(
        npz(tmp_path / "a.npz", x=x, y=np.arange(30) % 7, x_test=x[:8] + 0.5, y_test=np.arange(8) % 7)
    )
    for split, shift in ((data.train, 0), (data.valid, 0), (data.test, 0.5)):
        assert torch.equal((split.x[:, 0] - shift).long() // 2 % 7, split.y)


def test_a_pair_is_read_from_a_folder_or_by_test(tmp_path):
    npz(tmp_path / "set_train.npz", x=PIXELS, y=Y)
    npz(tmp_path / "set_test.npz", x=PIXELS[:5] // 2, y=Y[:5])
    folder, named = load(tmp_path), load(tmp_path / "set_train.npz", test="set_test.npz")
    assert folder.fingerprint == named.fingerprint
    assert len(folder.test) == 5
    assert load(named.source, **named.options).fingerprint == named.fingerprint
    assert any("set_test.npz" in line for line in load(tmp_path / "set_train.npz").problems)
    npz(tmp_path / "other.npz", x=PIXELS)
    with pytest.raises(DataError, match="holds 2 data sets"):
        load(tmp_path)


def test_arrays_in_files_of_their_own(tmp_path):
    for name, array in (("x", PIXELS), ("y", Y), ("x_test", PIXELS[:4])):
        np.save(tmp_path / f"{name}.npy", array)
    data = load(tmp_path)
    assert data.labels == Classes(("0", "1", "2"))
    assert data.test.y.tolist() == [-1] * 4
    assert len(load(tmp_path / "x.npy").train) == 24


def test_samples_that_are_not_finite_are_named_or_left_out(tmp_path):
    x = RNG.normal(size=(30, 4))
    x[7, 2], x[9, 0], x[11, 3] = np.nan, np.inf, 1e300
    path = npz(tmp_path / "a.npz", x=x, y=Y)
    with pytest.raises(DataError, match=r"a\.npz, sample 7: value 2 is nan.*\(and 2 more\).*skip_bad"):
        load(path)
    data = load(path, skip_bad=True)
    assert data.skipped == 3
    assert len(everything(data)) == 27
    label = {round(float(row[1]), 4): int(y) for row, y in zip(x, Y, strict=True)}
    assert [label[round(float(row[1]), 4)] for row in data.train.x] == data.train.y.tolist()
    assert "sample 7" in data.problems[0]
    assert load(data.source, **data.options).fingerprint == data.fingerprint


def damaged(tmp_path: Path) -> dict[str, Path]:
    whole = npz(tmp_path / "whole.npz", x=PIXELS, y=Y).read_bytes()
    files = {
        "cut": whole[: len(whole) // 2],
        "empty": b"",
        "words": b"this is no archive",
        "flipped": whole[:300] + bytes([whole[300] ^ 255]) + whole[301:],
    }
    for name, data in files.items():
        (tmp_path / f"{name}.npz").write_bytes(data)
    paths = {name: tmp_path / f"{name}.npz" for name in files}
    paths["pickled"] = npz(tmp_path / "pickled.npz", x=np.array([{"a": 1}], dtype=object))
    paths["no x"] = npz(tmp_path / "nox.npz", z=PIXELS)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": (10**9, 10**9)}
    )
    with zipfile.ZipFile(tmp_path / "huge.npz", "w") as archive:
        archive.writestr("x.npy", header.getvalue() + b"1234")
    paths["huge"] = tmp_path / "huge.npz"
    paths["labels"] = npz(tmp_path / "labels.npz", x=PIXELS, y=Y[:7])
    paths["test"] = npz(tmp_path / "test.npz", x=PIXELS, x_test=PIXELS[:, :2])
    paths["none"] = npz(tmp_path / "none.npz", x=PIXELS[:0])
    paths["complex"] = npz(tmp_path / "complex.npz", x=PIXELS * 1j)
    return paths


def test_each_damaged_archive_gets_one_line(tmp_path):
    expected = {
        "cut": "not a whole",
        "empty": "not a whole",
        "words": "not a whole",
        "flipped": "not a whole",
        "pickled": "pickled objects",
        "no x": 'no array "x"; the file holds z',
        "huge": "claims the shape",
        "labels": r"30 samples but labels of shape \(7,\)",
        "test": "those of train are",
        "none": "no samples",
        "complex": "complex",
    }
    for name, path in damaged(tmp_path).items():
        with pytest.raises(DataError, match=expected[name]) as caught:
            load(path)
        assert path.name.removesuffix(".npz") in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_cut_npy_and_its_order_of_axes(tmp_path):
    np.save(tmp_path / "f.npy", np.asfortranarray(PIXELS[..., 0]))
    np.testing.assert_array_equal(read_npy(tmp_path / "f.npy"), PIXELS[..., 0])
    data = (tmp_path / "f.npy").read_bytes()
    (tmp_path / "f.npy").write_bytes(data[:-9])
    with pytest.raises(DataError, match="claims the shape"):
        load(tmp_path / "f.npy")


def idx(path: Path, array: np.ndarray, claim: tuple[int, ...] | None = None) -> Path:
    shape = claim or array.shape
    data = (
        bytes([0, 0, 8, len(shape)])
        + struct.pack(f">{len(shape)}I", *shape)
        + array.astype(np.uint8).tobytes()
    )
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("end", ["", ".gz"])
def test_idx_files_are_read_as_a_folder_or_as_a_file(tmp_path, end):
    x, t = PIXELS[..., 0], PIXELS[:6, ..., 1]
    images = idx(tmp_path / f"train-images-idx3-ubyte{end}", x)
    idx(tmp_path / f"train-labels-idx1-ubyte{end}", Y)
    idx(tmp_path / f"t10k-images-idx3-ubyte{end}", t)
    idx(tmp_path / f"t10k-labels-idx1-ubyte{end}", Y[:6])
    data = load(tmp_path)
    assert data.domain == Images(1, 4, 5)
    assert torch.equal(data.test.x, torch.from_numpy(t.copy())[:, None])
    assert data.test.y.tolist() == Y[:6].tolist()
    alone = load(images)
    assert len(everything(alone)) == 30
    assert alone.labels == Classes(("0", "1", "2"))
    assert load(data.source, **data.options).fingerprint == data.fingerprint


def test_each_damaged_idx_gets_one_line(tmp_path):
    path = idx(tmp_path / "train-images-idx3-ubyte", PIXELS[..., 0], claim=(31, 4, 5))
    with pytest.raises(DataError, match=r"claims \(31, 4, 5\), 620 bytes, but holds 600"):
        load(path)
    idx(path, PIXELS[..., 0], claim=(2**31, 2**31, 2**31))
    with pytest.raises(DataError, match="more memory than can be had"):
        load(path)
    path.write_bytes(b"hello world")
    with pytest.raises(DataError, match="not an IDX file"):
        load(path)
    path.unlink()
    packed = idx(tmp_path / "train-images-idx3-ubyte.gz", PIXELS[..., 0])
    packed.write_bytes(packed.read_bytes()[:-100])
    with pytest.raises(DataError, match="damaged or cut off"):
        load(packed)


def test_arrays_in_memory_take_a_domain():
    codes = torch.tensor([[0, 1], [2, 0], [1, 1], [0, 0]])
    domain = Categories((3, 2))
    data = from_arrays(codes, domain=domain, name="codes")
    assert data.domain == domain
    assert data.name == "codes"
    assert sorted_rows(everything(data)) == sorted_rows(codes)
    with pytest.raises(ValueError, match="is not a value of"):
        from_arrays(codes + 1, domain=domain)


COUNTS = np.array([[0, 2, 0], [1, 0, 0], [0, 0, 0], [3, 1, 0], [0, 0, 4], [1, 1, 1]] * 2)


@pytest.mark.parametrize(
    "sparse",
    [
        csr_matrix,
        csc_matrix,
        lambda x: torch.from_numpy(x).to_sparse(),
    ],
)
def test_sparse_counts_are_the_bags_that_dense_ones_are(sparse) -> None:
    domain, y = Counts(("a", "b", "c")), np.arange(12) % 2
    found, dense = (from_arrays(x, y, domain=domain) for x in (sparse(COUNTS), COUNTS))
    assert isinstance(found.train.x, Bags)
    assert found.domain == domain
    for split in ("train", "valid", "test"):
        one, other = getattr(found, split), getattr(dense, split)
        assert torch.equal(one.x[torch.arange(len(one))], other.x)
        assert torch.equal(one.y, other.y)
    assert any("2 of 12 documents hold none of the words" in line for line in found.problems)


def test_sparse_counts_may_have_a_test_part_and_no_names() -> None:
    found = from_arrays(csr_matrix(COUNTS), x_test=COUNTS[3:6])
    assert found.domain == Counts(("0", "1", "2"))
    assert sorted_rows(found.test.x[torch.arange(3)]) == sorted_rows(COUNTS[3:6])
    assert len(found.train) + len(found.valid) == 12


def test_sparse_values_that_are_no_counts_or_do_not_fit_are_refused_in_one_line() -> None:
    broken = csr_matrix(COUNTS.astype(float))
    broken.data[2] = -1.5
    with pytest.raises(DataError, match=r"arrays: x, row 3, column 0: -1\.5 is no count of words"):
        from_arrays(broken)
    with pytest.raises(DataError, match="x has 3 words, but the domain has 2"):
        from_arrays(csr_matrix(COUNTS), domain=Counts(("a", "b")))
    with pytest.raises(DataError, match="no document holds a word"):
        from_arrays(csr_matrix(COUNTS * 0))
    with pytest.raises(DataError, match="12 samples but labels of shape"):
        from_arrays(csr_matrix(COUNTS), np.arange(5))
    with pytest.raises(DataError, match=r"samples of shape \(2,\), those of train are \(3,\)"):
        from_arrays(csr_matrix(COUNTS), x_test=csr_matrix(COUNTS[:, :2]))
    with pytest.raises(DomainError, match="needs Bits, but the data are Counts"):
        from_arrays(csr_matrix(COUNTS), domain=Bits((3,)))
    with pytest.raises(DataError, match=r"shape \(2, 2, 2\); a corpus is"):
        from_arrays(torch.ones(2, 2, 2).to_sparse())
