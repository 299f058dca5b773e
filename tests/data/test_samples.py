"""New files read for the domain of an old run."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from leadline.core import Bits, Categories, DataError, Domain, Images, Table, Tokens, Vectors
from leadline.data import load
from leadline.data.samples import samples_for

COLUMNS = Vectors(("a", "b"), (0.0, 40.0), (1.0, 5.0))
MIXED = Table(COLUMNS, Categories((2, 3), ("p", "q"), (("no", "yes"), ("0", "1", "2"))))


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_columns_are_found_by_name_whatever_their_order(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", "q,b,more,p,a\n2,41,z,yes,1\n0.0,39,z,no,-1\n")
    x, names = samples_for(MIXED, [path])
    assert x.tolist() == [[1, 41, 1, 2], [-1, 39, 0, 0]]
    assert names == [f"{path}, row 2", f"{path}, row 3"]


def test_a_table_without_a_header_is_read_by_place(tmp_path: Path) -> None:
    x, _ = samples_for(COLUMNS, [written(tmp_path / "x.csv", "1,41\n-1,39\n")])
    assert x.tolist() == [[1, 41], [-1, 39]]


def test_several_files_stand_one_after_the_other(tmp_path: Path) -> None:
    one = written(tmp_path / "one.csv", "a,b\n1,2\n")
    np.save(tmp_path / "two.npy", np.array([[3.0, 4.0]]))
    x, names = samples_for(COLUMNS, [one, tmp_path / "two.npy"])
    assert x.tolist() == [[1, 2], [3, 4]]
    assert len(names) == 2


def test_an_unknown_category_is_named_with_its_row_and_the_known_ones(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", "a,b,p,q\n1,2,yes,1\n1,2,yse,1\n")
    with pytest.raises(DataError, match=r'row 3, column "p": unknown value \'yse\' \(did you mean "yes"\?\)'):
        samples_for(MIXED, [path])


def test_text_is_read_in_the_tokens_of_the_domain(tmp_path: Path) -> None:
    domain = Tokens(("<unk>", "a", "b", "c"), 3)
    x, names = samples_for(domain, [written(tmp_path / "x.txt", "cab?bacc")])
    assert x.tolist() == [[3, 1, 2], [0, 2, 1]]  # c a b | ? b a, and "cc" fills no window
    assert len(names) == 2
    words = Tokens(("<unk>", "sea", "the"), 2, " ")
    assert samples_for(words, [written(tmp_path / "y.txt", "the sea the ship")])[0].tolist() == [
        [2, 1],
        [2, 0],
    ]


def test_a_text_too_short_for_a_window_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="2 tokens do not fill one window of 3"):
        samples_for(Tokens(("a", "b"), 3), [written(tmp_path / "x.txt", "ab")])


@pytest.mark.parametrize(
    ("domain", "shape"),
    [
        (Images(1, 4, 3), (2, 4, 3)),
        (Images(3, 4, 5), (2, 4, 5, 3)),
        (Images(3, 4, 5), (2, 3, 4, 5)),
        (Images(1, 4, 3), (2, 12)),
        (Images(1, 4, 3), (2, 4, 3, 1)),
    ],
)
def test_arrays_of_pictures_may_have_any_plain_order_of_axes(
    domain: Images, shape: tuple[int, ...], tmp_path: Path
) -> None:
    array = np.random.default_rng(0).integers(2, 200, shape, dtype=np.uint8)
    np.savez(tmp_path / "x.npz", x=array)
    x, _ = samples_for(domain, [tmp_path / "x.npz"])
    last = array.reshape(2, 4, 5, 3).transpose(0, 3, 1, 2) if shape == (2, 4, 5, 3) else array
    assert np.array_equal(x.numpy(), last.reshape(2, *domain.shape))


def test_arrays_of_another_size_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((2, 5, 5), np.uint8))
    with pytest.raises(DataError, match=r"x\.npy.*\(5, 5\)"):
        samples_for(Images(1, 4, 4), [tmp_path / "x.npy"])


def test_a_level_outside_the_domain_is_named(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.full((3, 4, 4), 17, np.uint8))
    with pytest.raises(DataError, match="sample 0: 17"):
        samples_for(Images(1, 4, 4, 17), [tmp_path / "x.npy"])


@pytest.mark.parametrize(
    ("domain", "white"), [(Images(1, 2, 2), 255), (Images(1, 2, 2, 17), 16), (Bits((1, 2, 2)), 1)]
)
def test_white_is_the_highest_level(domain: Domain, white: int, tmp_path: Path) -> None:
    Image.fromarray(np.array([[255, 0], [0, 255]], np.uint8)).save(tmp_path / "x.png")
    assert samples_for(domain, [tmp_path])[0].flatten().tolist() == [white, 0, 0, white]


def test_a_picture_of_another_size_is_fitted_only_if_the_data_were(tmp_path: Path) -> None:
    Image.new("L", (6, 4), 255).save(tmp_path / "x.png")
    with pytest.raises(DataError, match=r"x\.png.*6x4"):
        samples_for(Images(1, 2, 2), [tmp_path / "x.png"])
    assert samples_for(Images(1, 2, 2), [tmp_path / "x.png"], options={"size": 2})[0].shape == (1, 1, 2, 2)


def test_a_damaged_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"x\.png: cannot be read"):
        samples_for(Images(1, 2, 2), [tmp_path])


def test_conversions_are_done_again() -> None:
    data = load("digits", binarize=3.0)
    x, _ = samples_for(data.domain, ["digits"], source=data.source, options=data.options)
    assert torch.equal(x, data.test.x)  # type: ignore[arg-type]
    rows = load("digits", vectors=True)
    assert torch.equal(
        samples_for(rows.domain, ["digits"], source=rows.source, options=rows.options)[0], rows.test.x
    )  # type: ignore[arg-type]


def test_data_of_another_domain_are_refused() -> None:
    with pytest.raises(DataError, match="iris holds"):
        samples_for(COLUMNS, ["iris"])


def test_a_mistyped_name_gets_the_nearest(tmp_path: Path) -> None:
    written(tmp_path / "rows.csv", "a,b\n1,2\n")
    with pytest.raises(DataError, match=r"did you mean \"rows\.csv\""):
        samples_for(COLUMNS, [tmp_path / "row.csv"])
