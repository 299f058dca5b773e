"""A batch of unequal lengths: what a tensor of rows can, and nothing that would need padding."""

import copy

import pytest
import torch
from torch import Tensor

from leadline.core import Audio, Classes, DomainError, LeadlineError, OptionError, Ragged, ShapeError
from leadline.data import Dataset, Split, describe
from tests.tiny import tiny


def rows() -> list[Tensor]:
    return [torch.arange(3), torch.arange(10, 11), torch.arange(20, 25), torch.zeros(0).long()]


def batch() -> Ragged:
    return Ragged.of(rows())


def test_a_batch_gives_back_the_rows_it_was_made_of() -> None:
    x = batch()
    assert len(x) == 4
    assert x.lengths.tolist() == [3, 1, 5, 0]
    assert [row.tolist() for row in x] == [row.tolist() for row in rows()]
    assert x[-2].tolist() == [20, 21, 22, 23, 24]
    assert tuple(x.shape) == (4, 5)
    assert x.numel() == 9
    assert x.dtype == torch.int64
    assert isinstance(x, Tensor)


@pytest.mark.parametrize(
    ("index", "picked"),
    [
        (slice(1, 3), [1, 2]),
        (slice(None, None, -1), [3, 2, 1, 0]),
        (torch.tensor([2, 0, 2]), [2, 0, 2]),
        (torch.tensor([-1, -3]), [3, 1]),
        (torch.tensor([True, False, False, True]), [0, 3]),
        (torch.tensor([], dtype=torch.long), []),
        (slice(0, 0), []),
    ],
)
def test_rows_are_chosen_as_from_a_tensor(index: object, picked: list[int]) -> None:
    found = batch()[index]
    assert isinstance(found, Ragged)
    assert [row.tolist() for row in found] == [rows()[i].tolist() for i in picked]


def test_cutting_and_joining_loses_nothing() -> None:
    x = batch()
    for pieces in (x.split(1), x.split(3), x.chunk(2), (x[:2], x[2:])):
        assert torch.equal(torch.cat(pieces), x)
    assert torch.equal(x.flip(0).flip(0), x)
    assert torch.equal(x.index_select(0, torch.tensor([3, 2, 1, 0])), x.flip(0))
    assert not torch.equal(x, x[:3])
    assert not torch.equal(x, x.like(x.flat + 1))


def test_padding_stands_behind_the_end_of_each_row_alone() -> None:
    x = batch()
    assert x.padded(-1).tolist() == [
        [0, 1, 2, -1, -1],
        [10, -1, -1, -1, -1],
        [20, 21, 22, 23, 24],
        [-1, -1, -1, -1, -1],
    ]
    assert torch.equal(torch.cat([row[:n] for row, n in zip(x.padded(), x.lengths, strict=True)]), x.flat)
    assert x.owners.tolist() == [0, 0, 0, 1, 2, 2, 2, 2, 2]
    assert x.lengthened(2).lengths.tolist() == [3, 2, 5, 2]
    assert x.lengthened(2)[1].tolist() == [10, 0]


def test_the_mean_of_a_row_is_that_of_its_values_and_has_their_gradient() -> None:
    flat = torch.arange(12.0, dtype=torch.float64).view(6, 2).requires_grad_()
    x = Ragged(flat, torch.tensor([0, 1, 6]))
    torch.testing.assert_close(x.mean(), torch.stack([flat[0], flat[1:].mean(0)]))
    x.mean()[1].sum().backward()
    assert flat.grad is not None
    torch.testing.assert_close(flat.grad, torch.tensor([[0.0, 0.0]] + [[0.2, 0.2]] * 5).double())


def test_a_tensor_of_equal_rows_is_a_batch_of_them() -> None:
    x = torch.arange(12).view(3, 4)
    assert torch.equal(Ragged.of(x).padded(), x)
    assert Ragged.of(Ragged.of(x)).lengths.tolist() == [4, 4, 4]


def test_copies_share_nothing_and_converted_batches_keep_their_rows() -> None:
    x = batch()
    for other in (x.clone(), copy.deepcopy(x)):
        assert isinstance(other, Ragged)
        other.flat.add_(1)
        assert torch.equal(x, batch())
    assert x.to(torch.float64).dtype == torch.float64
    assert torch.equal(x.double().to("cpu"), x.double())
    assert torch.equal(x.clone().copy_(x.like(x.flat * 2)), x.like(x.flat * 2))


@pytest.mark.parametrize(
    "act",
    [
        lambda x: x + 1,
        lambda x: x.flatten(1),
        lambda x: x[..., :-1],
        lambda x: x[0, 1],
        lambda x: x.view(-1),
        lambda x: x.sum(),
        lambda x: torch.stack([x, x]),
        lambda x: torch.cat([x, x], 1),
        lambda x: torch.cat([x, torch.zeros(2, 5)]),
        lambda x: x.flip(1),
        lambda x: x.numpy(),
        lambda x: x.copy_(x[:2]),
        lambda x: x[torch.tensor([True])],
        lambda x: Ragged(x.flat, torch.tensor([0, 4])),
        lambda x: Ragged(x.flat, torch.tensor([1, 9])),
        lambda x: Ragged(x.flat, torch.tensor([0, 5, 3, 9])),
        lambda x: Ragged.of(torch.zeros(3)),
    ],
)
def test_what_would_need_padding_or_does_not_fit_is_refused_in_one_line(act: object) -> None:
    with pytest.raises(ShapeError) as told:
        act(batch())  # type: ignore[operator]
    assert "\n" not in str(told.value)


def test_a_row_beyond_the_batch_is_no_row() -> None:
    for index in (4, -5):
        with pytest.raises(IndexError):
            batch()[index]
    with pytest.raises(IndexError):
        batch()[torch.tensor([0, 7])]


def test_a_split_serves_unequal_rows_as_it_serves_others() -> None:
    data = tiny("audio")
    x = data.train.x
    assert isinstance(x, Ragged)
    assert "Ragged(120 rows" in repr(data.train)
    parts = [part for part, _ in data.train.batches(50)]
    assert torch.equal(torch.cat(parts), x)
    few = data.train.head(10)
    assert isinstance(few.x, Ragged)
    assert few.x.lengths.tolist() == [int(x.lengths[i * 12]) for i in range(10)]
    halved = data.train.mapped(lambda part: part.like(part.flat // 2)).x  # type: ignore[attr-defined]
    assert isinstance(halved, Ragged)
    assert torch.equal(halved.offsets, x.offsets)
    assert describe(data).bytes == 2 * sum(s.x.numel() for s in (data.train, data.valid, data.test))  # type: ignore[union-attr]


def test_a_fingerprint_sees_where_a_clip_ends() -> None:
    flat = torch.arange(10, dtype=torch.int16)

    def data(*offsets: int) -> str:
        part = Split(Ragged(flat, torch.tensor(offsets)), torch.tensor([0, 1]))
        return Dataset("d", Audio(8), Classes(("a", "b")), part, part, part).fingerprint

    assert data(0, 4, 10) == data(0, 4, 10)
    assert data(0, 4, 10) != data(0, 5, 10)


def test_waves_are_on_one_scale_whatever_holds_them() -> None:
    short, real = Audio(8000), Audio(8000, "float32")
    x = Ragged.of([torch.tensor([-32768, 0, 16384], dtype=torch.int16)])
    assert short.waves(x).flat.tolist() == [-1, 0, 0.5]
    assert real.waves(x.to(torch.float32).like(torch.tensor([-1, 0, 0.5]))).flat.tolist() == [-1, 0, 0.5]
    assert torch.equal(short.encoded(short.waves(x).flat), x.flat)
    assert short.encoded(torch.tensor([2.0, -2.0])).tolist() == [32767, -32768]


@pytest.mark.parametrize(
    ("x", "what"),
    [
        (torch.zeros(5, dtype=torch.int16), "shape"),
        (torch.zeros(2, 5, 1, dtype=torch.int16), "shape"),
        (torch.zeros(2, 5, dtype=torch.int64), "int16 or floating"),
        ([0.0], "expected a tensor"),
    ],
)
def test_what_is_no_batch_of_clips_is_told(x: object, what: str) -> None:
    with pytest.raises(ShapeError, match=what):
        Audio(8000).checked(x)  # type: ignore[arg-type]


def test_clips_without_sound_or_with_nan_are_named() -> None:
    good, nan = torch.zeros(3), torch.tensor([0.0, torch.nan])
    with pytest.raises(ShapeError, match="sample 1, holds a number"):
        Audio(8000, "float32").validated(Ragged.of([good, nan]))
    with pytest.raises(ShapeError, match="sample 1, holds no sound"):
        Audio(8000, "float32").validated(Ragged.of([good, good[:0]]))
    with pytest.raises(ShapeError, match="holds torch"):
        Audio(8000).validated(Ragged.of([good]))


def test_what_needs_samples_of_one_size_says_which_models_do_not() -> None:
    domain = Audio(8000)
    for ask in (
        lambda: domain.dims,
        lambda: domain.feature_count,
        domain.likelihood,
        lambda: domain.column(0),
    ):
        with pytest.raises(DomainError, match="acoustic_dnn"):
            ask()
    for wrong in ({"rate": 0}, {"rate": 8000, "encoding": "mp3"}):
        with pytest.raises((OptionError, LeadlineError)):
            Audio(**wrong)  # type: ignore[arg-type]
