"""Splits are partitions, stratified, and pure functions of the seed."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leadline.core import DataError, Images, OptionError, Vectors
from leadline.data import from_arrays, load
from leadline.data.dataset import moments
from leadline.data.splits import divided, hidden, stratified_order


@given(
    n=st.integers(3, 300),
    seed=st.integers(0, 2**40),
    classes=st.integers(0, 7),
    parts=st.sampled_from([1, 2]),
)
@settings(max_examples=60, deadline=None)
def test_splits_are_a_partition_for_any_number_and_seed(n, seed, classes, parts):
    y = None if classes == 0 else torch.arange(n) % classes - 1
    pieces = divided(y, n, seed, parts)
    assert len(pieces) == parts + 1
    assert all(len(piece) > 0 for piece in pieces)
    assert torch.cat(pieces).sort().values.tolist() == list(range(n))
    assert all(torch.equal(a, b) for a, b in zip(pieces, divided(y, n, seed, parts), strict=True))
    assert len(pieces[1]) == max(1, round(n / 10))


@given(sizes=st.lists(st.integers(10, 60), min_size=1, max_size=6), seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_each_beginning_of_an_order_holds_the_classes_in_proportion(sizes, seed):
    y = torch.cat([torch.full((size,), i) for i, size in enumerate(sizes)])
    order = stratified_order(y, len(y), seed, "split")
    for k in range(0, len(y), 7):
        counts = y[order[:k]].bincount(minlength=len(sizes))
        expected = torch.tensor(sizes) * k / len(y)
        assert (counts - expected).abs().max() <= len(sizes) + 1


def test_another_seed_gives_another_split():
    first, second = (divided(None, 200, seed, 2)[0] for seed in (0, 1))
    assert not torch.equal(first, second)


def test_a_class_of_one_sample_is_learned_from():
    y = torch.cat([torch.zeros(99, dtype=torch.long), torch.ones(1, dtype=torch.long)])
    for seed in range(20):
        assert 99 in divided(y, 100, seed, 2)[0]


def test_too_few_samples_are_told():
    with pytest.raises(DataError, match="2 samples are too few for 3 splits"):
        divided(None, 2, 0, 2)


def test_hidden_labels_leave_so_many_of_each_class():
    y = torch.tensor([0] * 30 + [1] * 8 + [2] * 2 + [-1] * 5)
    shown = hidden(y, "5 per class", 0)
    assert shown[shown >= 0].bincount().tolist() == [5, 5, 2]
    assert bool((shown[shown >= 0] == y[shown >= 0]).all())
    assert int((hidden(y, "50%", 0) >= 0).sum()) == 20
    assert not torch.equal(hidden(y, "5 per class", 0), hidden(y, "5 per class", 1))


def test_hidden_targets_are_nan():
    y = torch.arange(20.0)[:, None]
    shown = hidden(y, "10%", 0)
    assert int((~shown.isnan()).sum()) == 2
    with pytest.raises(OptionError, match="real targets"):
        hidden(y, "5 per class", 0)
    with pytest.raises(OptionError, match='"5 per class"'):
        hidden(y.long()[:, 0], "five", 0)


def test_only_training_labels_are_hidden():
    whole, data = load("digits"), load("digits", labels="5 per class")
    assert int((data.train.y >= 0).sum()) == 50
    assert torch.equal(data.test.y, whole.test.y)
    assert torch.equal(data.train.x, whole.train.x)
    assert load("digits", labels="none").labels is None


def test_moments_are_those_of_the_training_split_alone():
    x = torch.randn(50, 3) * torch.tensor([1.0, 5.0, 0.0]) + torch.tensor([0.0, 100.0, 0.1])
    data = from_arrays(x, x_test=1000 * torch.ones(10, 3))
    assert isinstance(data.domain, Vectors)
    torch.testing.assert_close(torch.tensor(data.domain.mean), data.train.x.mean(0))
    torch.testing.assert_close(torch.tensor(data.domain.scale[:2]), data.train.x.std(0, correction=0)[:2])
    assert data.domain.scale[2] == 1.0


def test_moments_pass_over_unknown_values():
    mean, scale = moments(torch.tensor([[1.0], [3.0], [float("nan")]]))
    assert mean == (2.0,)
    assert scale == (1.0,)  # ((1-2)^2 + (3-2)^2) / 2 = 1


def test_a_given_test_split_is_kept():
    x, test = torch.arange(40).float()[:, None], 100 + torch.arange(7).float()[:, None]
    data = from_arrays(x, x_test=test)
    assert torch.equal(data.test.x, test)
    assert sorted(torch.cat([data.train.x, data.valid.x]).flatten().tolist()) == list(range(40))
    assert len(data.valid) == 4


def test_a_limit_keeps_classes_in_proportion():
    data = load("digits", limit=200)
    sizes = len(data.train), len(data.valid), len(data.test)
    assert sizes == (160, 20, 20)
    y = torch.cat([data.train.y, data.valid.y, data.test.y])
    assert y.bincount().min() >= 17


@pytest.mark.parametrize("threshold", [0.0, None, 8])
def test_conversions_are_recorded_and_repeated(threshold):
    data = load("digits", limit=100).binarize(threshold).vectors()
    again = load(data.source, **data.options)
    assert again.fingerprint == data.fingerprint
    other = load("digits", limit=100).vectors().binarize(threshold)
    assert load(other.source, **other.options).fingerprint == other.fingerprint
    assert other.domain != data.domain


def test_binarizing_at_zero_is_not_binarizing_in_the_middle():
    data = load("digits", limit=100)
    at_zero = data.binarize(0.0)
    assert torch.equal(at_zero.train.x, (data.train.x > 0).to(torch.uint8))
    assert load("digits", limit=100, binarize=0).fingerprint == at_zero.fingerprint
    assert load("digits", limit=100, binarize=True).fingerprint == data.binarize().fingerprint


def test_the_fingerprint_changes_with_any_sample_label_or_boundary():
    x, y = torch.randn(30, 2), torch.arange(30) % 2
    base = from_arrays(x, y)
    changed = x.clone()
    changed[17, 1] += 1e-3
    flipped = y.clone()
    flipped[4] = 1 - flipped[4]
    prints = {base.fingerprint, from_arrays(changed, y).fingerprint, from_arrays(x, flipped).fingerprint}
    prints |= {from_arrays(x).fingerprint, from_arrays(x, y, classes=("a", "b")).fingerprint}
    assert len(prints) == 5
    domain = Images(1, 1, 1, 4)
    first, second = (
        from_arrays(torch.ones(n, 1, 1, 1), domain=domain, x_test=torch.ones(12 - n, 1, 1, 1)) for n in (5, 6)
    )
    assert first.fingerprint != second.fingerprint
