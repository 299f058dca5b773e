"""Frames of log-mel energies against numpy and scipy, and that a clip's frames are its own."""

import math

import numpy as np
import pytest
import scipy.fft
import scipy.signal
import torch
from torch import Tensor

from leadline.core import OptionError, Ragged
from leadline.nets.spectra import Frames, LogMel, hertz, mel, slopes, triangles, windows

RATE = 8000


def noise(length: int, seed: int = 0) -> Tensor:
    source = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(length, generator=source, dtype=torch.float64)


def clips() -> Ragged:
    return Ragged.of([noise(n, n) for n in (900, 200, 3000, 50, 1011)])


def test_a_thousand_hertz_are_a_thousand_mel_and_the_scale_inverts() -> None:
    # 2595 log10(1 + 1000 / 700) = 2595 * 0.385356... = 1000.0
    assert float(mel(torch.tensor(1000.0, dtype=torch.float64))) == pytest.approx(1000, abs=0.02)
    f = torch.linspace(0, 8000, 50, dtype=torch.float64)
    torch.testing.assert_close(hertz(mel(f)), f)


def test_triangles_peak_at_one_and_neighbours_sum_to_one_between_the_ends() -> None:
    weights = triangles(20, 8192, RATE, low=0.0)  # so fine a grid that peaks are met
    assert float(weights.amax(0).min()) > 0.97
    assert bool((weights >= 0).all())
    centres = hertz(torch.linspace(0, float(mel(torch.tensor(4000.0))), 22))[1:-1]
    at = torch.arange(4097) * RATE / 8192
    inside = (at >= centres[0]) & (at <= centres[-1])
    torch.testing.assert_close(weights.sum(1)[inside], torch.ones(int(inside.sum())).double())
    assert bool(weights.argmax(0).diff().gt(0).all())  # bands rise


def oracle(wave: np.ndarray, mels: int) -> np.ndarray:
    """Return log-mel energies with scipy's window and transform and interpolated triangles."""
    length, hop, points = 200, 80, 256
    wave = np.pad(wave, (0, max(0, length - len(wave))))
    frames = np.lib.stride_tricks.sliding_window_view(wave, length)[::hop]
    frames = (frames - frames.mean(1, keepdims=True)) * scipy.signal.get_window(
        "hamming", length, fftbins=False
    )
    power = np.abs(scipy.fft.rfft(frames, points)) ** 2
    ends = [2595 * np.log10(1 + f / 700) for f in (20, 4000)]
    edges = 700 * (10 ** (np.linspace(*ends, mels + 2) / 2595) - 1)
    bank = np.stack(
        [np.interp(np.arange(129) * RATE / points, edges[m : m + 3], [0, 1, 0]) for m in range(mels)], 1
    )
    return np.log(power @ bank + 1e-8)


@pytest.mark.parametrize("length", [900, 200, 50, 1011])
def test_energies_are_those_of_scipy(length: int) -> None:
    layer = LogMel(RATE, 30).double()
    # the window and the bank are kept in single precision
    found = layer(Ragged.of([noise(length, length)])).flat.numpy()
    np.testing.assert_allclose(found, oracle(noise(length, length).numpy(), 30), atol=2e-5)


def test_a_tone_lights_the_band_it_lies_in() -> None:
    centres = hertz(torch.linspace(float(mel(torch.tensor(20.0))), float(mel(torch.tensor(4000.0))), 42))[
        1:-1
    ]
    for band in (12, 20, 30, 38):
        t = torch.arange(4000) / RATE
        wave = torch.sin(2 * math.pi * float(centres[band]) * t)
        assert LogMel(RATE, 40)(Ragged.of([wave])).flat.mean(0).argmax() == band


def test_a_clip_gives_one_frame_more_for_every_hop_beyond_the_first_and_never_none() -> None:
    frames = LogMel(RATE, 20)(Ragged.of([torch.zeros(n) for n in (1, 199, 200, 279, 280, 1000)]))
    assert frames.lengths.tolist() == [1, 1, 1, 1, 2, 11]
    assert bool(frames.flat.isfinite().all())


def test_silence_and_full_scale_are_finite_and_twice_as_loud_is_log_four_more() -> None:
    loud = noise(1000).float()
    found = LogMel(RATE, 20)(Ragged.of([torch.zeros(1000), loud, 2 * loud])).padded()
    assert bool(found.isfinite().all())
    torch.testing.assert_close(found[2] - found[1], torch.full_like(found[1], math.log(4)), atol=1e-4, rtol=0)
    torch.testing.assert_close(found[0], torch.full_like(found[0], math.log(1e-8)))


@pytest.mark.parametrize("normalisation", ["none", "mean", "utterance", "learned"])
@pytest.mark.parametrize("cepstra", [0, 5])
def test_what_a_clip_gives_does_not_depend_on_its_company(normalisation: str, cepstra: int) -> None:
    layer = Frames(RATE, 20, cepstra=cepstra, deltas=2, context=3, normalisation=normalisation).double()
    layer(clips())  # statistics that are learned are learned from something
    layer.eval()
    together = layer(clips())
    for number, clip in enumerate(clips()):
        torch.testing.assert_close(layer(Ragged.of([clip])).flat, together[number], atol=1e-9, rtol=0)
    assert together.flat.shape[1] == layer.width == (cepstra or 20) * 3 * 7
    padded = torch.cat([clips()[1], torch.zeros(79).double()])  # too short for a frame more
    torch.testing.assert_close(LogMel(RATE)(Ragged.of([padded])).flat, LogMel(RATE)(clips()[1:2]).flat)


def test_cepstra_are_the_orthonormal_cosine_transform() -> None:
    plain = Frames(RATE, 20, normalisation="none").double()(clips()).flat
    turned = Frames(RATE, 20, cepstra=13, normalisation="none").double()(clips()).flat
    wanted = scipy.fft.dct(plain.numpy(), type=2, norm="ortho", axis=1)[:, :13]
    np.testing.assert_allclose(turned.numpy(), wanted, atol=1e-4)


def test_slopes_are_those_of_lines_and_of_savitzky_and_golay() -> None:
    line = torch.arange(9.0)[:, None] * torch.tensor([2.0, -0.5]) + 3
    inner = slopes(Ragged.of([line]))[0][2:-2]
    torch.testing.assert_close(inner, torch.tensor([2.0, -0.5]).expand(5, 2))
    values = noise(40).view(20, 2)
    wanted = scipy.signal.savgol_filter(values.numpy(), 5, 1, deriv=1, axis=0, mode="nearest")
    np.testing.assert_allclose(slopes(Ragged.of([values]))[0].numpy(), wanted, atol=1e-12)


def test_a_window_holds_the_neighbours_in_order_and_ends_repeat() -> None:
    frames = Ragged.of([torch.arange(4.0)[:, None], torch.tensor([[9.0]])])
    assert windows(frames, 2).flat.tolist() == [
        [0, 0, 0, 1, 2],
        [0, 0, 1, 2, 3],
        [0, 1, 2, 3, 3],
        [1, 2, 3, 3, 3],
        [9, 9, 9, 9, 9],
    ]


def test_normalised_features_have_no_mean_and_unit_deviation() -> None:
    frames = Frames(RATE, 20, normalisation="utterance").double()(clips())
    assert float(frames.mean().abs().max()) < 1e-9
    long = frames[2]
    torch.testing.assert_close(long.std(0, correction=0), torch.ones(20).double())
    learned = Frames(RATE, 20, normalisation="learned").double()
    for _ in range(200):
        learned(clips())
    learned.eval()
    spread = learned(clips()).flat.std(0, correction=0)
    torch.testing.assert_close(spread, torch.ones(20).double(), atol=0.02, rtol=0)


def test_the_gradient_reaches_the_waveform() -> None:
    wave = noise(500).requires_grad_()
    Frames(RATE, 20, deltas=1, context=1).double()(Ragged.of([wave])).flat.square().sum().backward()
    assert wave.grad is not None
    assert bool(wave.grad[:440].ne(0).all())


def test_no_clips_give_no_frames() -> None:
    empty = Ragged(torch.zeros(0), torch.tensor([0]))
    for normalisation in ("none", "utterance", "learned"):
        found = Frames(RATE, 20, deltas=1, context=1, normalisation=normalisation)(empty)
        assert len(found) == 0
        assert found.flat.shape == (0, 120)


@pytest.mark.parametrize(
    "options",
    [
        {"mels": 0}, {"mels": 500}, {"mels": 20, "cepstra": 21}, {"deltas": 3}, {"context": -1},
        {"normalisation": "whitened"}, {"rate": 50},
    ],
)  # fmt: skip
def test_options_out_of_range_are_told(options: dict[str, object]) -> None:
    with pytest.raises(OptionError):
        Frames(**({"rate": RATE} | options))  # type: ignore[arg-type]
