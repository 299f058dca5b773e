"""Clips as pictures: each with its waveform and its energies, and a page that shows them."""

from pathlib import Path

import pytest
import torch

from leadline.catalog import build
from leadline.core import Audio, Ragged
from leadline.reports import report
from leadline.reports.sounds import clips
from leadline.training import fit
from tests.tiny import tiny


def test_each_clip_has_a_waveform_above_its_energies() -> None:
    x = Ragged.of([torch.zeros(900, dtype=torch.int16), torch.full((50,), 900, dtype=torch.int16)])
    figure = clips(Audio(8000), x, ("silence", "short"))
    assert len(figure.axes) == 4
    assert [figure.axes[0].get_title(loc="left"), figure.axes[2].get_title(loc="left")] == [
        "silence",
        "short",
    ]
    assert figure.axes[1].get_xlim() == (0, 900 / 8000)
    assert len(clips(Audio(1000), tiny("audio").train.x).axes) == 24  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no clips"):
        clips(Audio(8000), x[:0])
    with pytest.raises(ValueError, match="too few"):
        clips(Audio(20), x)


def test_the_page_of_a_run_shows_clips_with_what_is_said_of_them(tmp_path: Path) -> None:
    data = tiny("audio")
    model = build("acoustic_gmm", data, components=1, mels=8, cepstra=4)
    run = fit(model, data, steps=2, out=tmp_path / "run", progress=False)
    text = report(run, tmp_path / "page.html", data=data).read_text(encoding="utf-8")
    assert ">Clips<" in text
    assert "low: said" in text
    assert 'class="failed"' not in text
