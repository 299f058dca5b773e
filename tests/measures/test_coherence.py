"""Coherence: words that always meet, meet by chance, never meet, and a sum by hand."""

import math

import pytest
import torch

from leadline.core import Counts, DomainError, OptionError
from leadline.data import Dataset, from_arrays
from leadline.measures import coherence
from tests.tiny import tiny


def documents(rows: list[list[int]]) -> Dataset:
    x = torch.tensor(rows)
    words = Counts(tuple("abcdef"[: x.shape[1]]))
    return from_arrays(x, domain=words, x_test=x[:2])


def test_words_that_always_meet_have_one_and_words_that_never_meet_minus_one() -> None:
    data = documents([[1, 2, 0, 0], [0, 0, 1, 1]] * 40)
    assert torch.allclose(coherence([["a", "b"], ["a", "c"]], data), torch.tensor([1.0, -1.0]).double())


def test_words_of_every_document_always_meet() -> None:
    assert float(coherence([["a", "b"]], documents([[1, 2]] * 40))) == 1


def test_words_that_meet_by_chance_have_none(generator: torch.Generator) -> None:
    x = torch.bernoulli(torch.full((4000, 3), 0.4), generator=generator).long()
    assert float(coherence([["a", "b", "c"]], from_arrays(x, domain=Counts(tuple("abc")))).abs()) < 0.03


def test_the_figures_are_those_of_a_sum_by_hand() -> None:
    rows = [[1, 1, 0], [1, 0, 0], [1, 3, 1], [0, 1, 0], [1, 1, 0], [1, 1, 1], [0, 0, 1], [1, 0, 0]] * 5
    data = documents(rows)
    kept = torch.cat([x for x, _ in data.train.batches(100)]) > 0
    n, both = len(kept), int((kept[:, 0] & kept[:, 1]).sum())
    a, b = int(kept[:, 0].sum()), int(kept[:, 1].sum())
    npmi = math.log((both / n) / (a / n * b / n)) / -math.log(both / n)
    assert float(coherence([["a", "b"]], data)) == pytest.approx(npmi)
    assert float(coherence([["a", "b"]], data, "umass")) == pytest.approx(math.log((both + 1) / a))
    assert float(coherence([["b", "a"]], data, "umass")) == pytest.approx(math.log((both + 1) / b))


def test_what_has_no_coherence_gets_a_clear_error() -> None:
    data = documents([[1, 1], [1, 0]] * 10)
    with pytest.raises(OptionError, match='"z" is not a word'):
        coherence([["a", "z"]], data)
    with pytest.raises(OptionError, match="two words"):
        coherence([["a"]], data)
    with pytest.raises(OptionError, match="npmi"):
        coherence([["a", "b"]], data, "pmi")
    with pytest.raises(DomainError, match="Counts"):
        coherence([["a", "b"]], tiny("bits"))
