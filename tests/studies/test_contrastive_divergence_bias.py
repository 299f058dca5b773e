"""The bias of contrastive divergence: what the instrument reads, and what it refuses."""

import sys

import pytest
import torch

from leadline.core import DomainError, OptionError
from leadline.studies import StudyError, contrastive_divergence_bias
from tests.tiny import tiny

MODULE = sys.modules["leadline.studies.contrastive_divergence_bias"]
QUICK = {"seeds": 2, "steps": 150, "samples": 100, "options": {"hidden": 6}}


def test_on_tiny_bits_the_bias_falls_and_the_verdict_says_so() -> None:
    found = contrastive_divergence_bias(tiny("bits"), lengths=(1, 10), **QUICK)  # type: ignore[arg-type]
    assert list(found.table["k"]) == [1, 10, 1, 10]
    assert found.value.value < 0.7
    assert found.holds is True
    assert found.figure.axes[0].get_xscale() == "log"
    assert set(found.controls) == {"known transition matrix", "no weights"}


def test_one_seed_is_undecided() -> None:
    found = contrastive_divergence_bias(tiny("bits"), lengths=(1, 5), **{**QUICK, "seeds": 1})  # type: ignore[arg-type]
    assert found.holds is None
    assert found.value.interval is None


def test_a_bias_that_grows_is_false_and_one_that_does_not_move_is_undecided() -> None:
    assert MODULE._falls([1.0, 1.1, 0.9], [2.0, 2.1, 1.9]) is False
    assert MODULE._falls([1.0, 1.1, 0.9], [0.5, 0.6, 0.4]) is True
    assert MODULE._falls([1.0, 1.1, 0.9], [1.1, 1.0, 0.9]) is None


def test_the_noise_of_the_chains_drops_out_and_that_of_one_mean_would_not() -> None:
    torch.manual_seed(0)
    net = MODULE._small(0.0)
    x = torch.tensor([[0, 1, 0], [1, 1, 0]], dtype=torch.uint8).repeat(20, 1)
    exact = MODULE._flat(net, -net.log_prob(x).mean())
    one = MODULE._flat(net.train(), net.loss(MODULE.Batch(x))) - exact
    bias, _ = MODULE._bias(net, x, pairs=200)
    assert bias < 0.4 * float(one.norm())


def test_a_wrong_kernel_fails_the_control(monkeypatch: pytest.MonkeyPatch) -> None:
    right = MODULE._bias
    monkeypatch.setattr(MODULE, "_bias", lambda *a, **k: tuple(1.2 * value for value in right(*a, **k)))
    with pytest.raises(StudyError, match="known transition matrix"):
        contrastive_divergence_bias(tiny("bits"), lengths=(1, 5), **QUICK)  # type: ignore[arg-type]


def test_what_it_cannot_use_is_refused() -> None:
    data = tiny("bits")
    for lengths in ((1,), (3, 1), (0, 1), (2, 2)):
        with pytest.raises(OptionError, match="lengths"):
            contrastive_divergence_bias(data, lengths=lengths)
    with pytest.raises(OptionError, match="steps"):
        contrastive_divergence_bias(data, steps=0)
    with pytest.raises(OptionError, match="option steps"):
        contrastive_divergence_bias(data, "made")
    with pytest.raises(OptionError, match="option steps"):
        contrastive_divergence_bias(data, options={"steps": 2})
    with pytest.raises(OptionError, match="exact log_prob"):
        contrastive_divergence_bias(data, "dbn", {"hidden": (3, 2)})
    with pytest.raises(DomainError, match="needs Bits"):
        contrastive_divergence_bias(tiny("vectors"))
