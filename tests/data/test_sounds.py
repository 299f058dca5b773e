"""Folders of .wav files and packed clips: what they become, how they are split, what is wrong with them."""

import re
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import wavfile

from leadline.core import Audio, Classes, DataError, LeadlineError, OptionError, Ragged
from leadline.data import Dataset, describe, load
from leadline.data.samples import samples_for
from leadline.data.wave import decoded

SPEAKERS = ("ann", "bob", "cleo", "dan")
PATTERN = "{label}_{speaker}_{index}.wav"
SPOKEN = Path(__file__).parents[2] / "../shared/data/speech/fsdd.npz"


def tone(length: int, pitch: float = 440.0, rate: int = 8000) -> np.ndarray:
    return (8000 * np.sin(2 * np.pi * pitch * np.arange(length) / rate)).astype(np.int16)


@pytest.fixture
def spoken(tmp_path: Path) -> Path:
    """Return a folder of two words by four speakers, five times each, no two clips alike."""
    folder = tmp_path / "spoken"
    folder.mkdir()
    for s, speaker in enumerate(SPEAKERS):
        for i in range(5):
            for word, pitch in (("low", 300), ("high", 900)):
                length = 500 + 100 * s + 10 * i + (word == "low")
                wavfile.write(folder / f"{word}_{speaker}_{i}.wav", 8000, tone(length, pitch))
    return folder


def places(data: Dataset, folder: Path) -> dict[str, set[str]]:
    """Return the files of each split, found again by their samples, which are all of different lengths."""
    lengths = {len(wavfile.read(file)[1]): file.stem for file in folder.glob("*.wav")}
    splits = {"train": data.train, "valid": data.valid, "test": data.test}
    return {
        name: {lengths[int(n)] for n in split.x.lengths}  # type: ignore[union-attr]
        for name, split in splits.items()
    }


def test_names_tell_the_class_and_clips_are_held_as_the_file_holds_them(spoken: Path) -> None:
    data = load(spoken, label=PATTERN)
    assert data.domain == Audio(8000)
    assert data.labels == Classes(("high", "low"))
    assert [len(split) for split in (data.train, data.valid, data.test)] == [32, 4, 4]
    found = samples_for(data.domain, [spoken / "low_ann_0.wav"])[0]
    assert found[0].tolist() == tone(501, 300).tolist()
    assert "s, peak 0.2" in str(describe(data))
    assert load(spoken, label=PATTERN[:-4]).fingerprint == data.fingerprint
    by_expression = load(spoken, label=r"(?P<label>[a-z]+)_(?P<speaker>[a-z]+)_\d\.wav")
    assert by_expression.fingerprint == data.fingerprint


def test_sub_folders_tell_class_and_split_where_names_do_not(tmp_path: Path) -> None:
    for i, (split, word) in enumerate([(s, w) for s in ("train", "test") for w in ("low", "high")] * 4):
        folder = tmp_path / "set" / split / word
        folder.mkdir(parents=True, exist_ok=True)
        wavfile.write(folder / f"{i}.wav", 8000, tone(300 + i))
    data = load(tmp_path / "set")
    assert len(data.test) == 8
    assert len(data.train) + len(data.valid) == 8
    assert data.labels == Classes(("high", "low"))
    with pytest.raises(OptionError, match="its own train and test"):
        load(tmp_path / "set", label="{label}.wav", split="random")


def test_nobody_who_is_judged_by_was_learned_from(spoken: Path) -> None:
    data = load(spoken, label=PATTERN, split="speaker", held="bob")
    who = {name: {file.split("_")[1] for file in files} for name, files in places(data, spoken).items()}
    assert who["test"] == {"bob"}
    assert len(who["valid"]) == 1
    assert not who["train"] & (who["valid"] | who["test"])
    assert sum(len(split) for split in (data.train, data.valid, data.test)) == 40
    assert load(data.source, **data.options).fingerprint == data.fingerprint
    assert load(spoken, label=PATTERN, held="bob").fingerprint == data.fingerprint
    two = places(load(spoken, label=PATTERN, held=["bob", "dan"]), spoken)
    assert {file.split("_")[1] for file in two["test"]} == {"bob", "dan"}
    drawn = places(load(spoken, label=PATTERN, split="speaker"), spoken)
    assert len({file.split("_")[1] for file in drawn["test"]}) == 1


def test_two_groups_leave_the_validation_split_to_the_learned_one(spoken: Path) -> None:
    for file in [*spoken.glob("*_cleo_*"), *spoken.glob("*_dan_*")]:
        file.unlink()
    found = places(load(spoken, label=PATTERN, held="ann"), spoken)
    assert {file.split("_")[1] for file in found["valid"]} == {"bob"}
    assert len(found["valid"]) == 1


def test_a_number_below_a_bound_is_the_test_split(spoken: Path) -> None:
    found = places(load(spoken, label=PATTERN, split="index<2"), spoken)
    assert {file[-1] for file in found["test"]} == {"0", "1"}
    assert {file[-1] for file in found["train"] | found["valid"]} == {"2", "3", "4"}


def test_a_stream_gives_the_same_clips_when_they_are_asked_for(spoken: Path) -> None:
    options = {"label": PATTERN, "held": "ann"}
    held, streamed = load(spoken, **options), load(spoken, stream=True, **options)  # type: ignore[arg-type]
    assert streamed.train.streamed
    assert load(spoken, memory="1KB", **options).train.streamed  # type: ignore[arg-type]
    index = torch.tensor([3, 0, 5])
    assert torch.equal(streamed.train.x[index], held.train.x[index])
    assert torch.equal(streamed.train.select(index).x[torch.arange(3)], held.train.x[index])
    assert describe(streamed).bytes == describe(held).bytes
    assert describe(streamed).samples == describe(held).samples
    assert load(streamed.source, **streamed.options).fingerprint == streamed.fingerprint
    (spoken / "low_bob_0.wav").write_bytes((spoken / "low_bob_1.wav").read_bytes())
    assert load(spoken, stream=True, **options).fingerprint != streamed.fingerprint  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "error"),
    [
        (tone(400), 0.0),
        ((tone(400).astype(np.int32) << 16), 2.0**-24),
        ((tone(400) / 32768).astype(np.float32), 0.0),
        ((tone(400) / 32768).astype(np.float64), 2.0**-24),
        (((tone(400) >> 8) + 128).astype(np.uint8), 1 / 128),
    ],
    ids=["16 bits", "32 bits", "float32", "float64", "8 bits"],
)
def test_every_form_of_samples_is_read_on_one_scale(tmp_path: Path, values: np.ndarray, error: float) -> None:
    wavfile.write(tmp_path / "a.wav", 8000, values)
    small = values.dtype in (np.int16, np.uint8)
    domain = Audio(8000, "int16" if small else "float32")
    found = domain.waves(decoded(tmp_path / "a.wav", domain)[None]).flat.double()
    assert float((found - torch.from_numpy(tone(400)) / 32768).abs().max()) <= error


def test_24_bits_a_sample_are_read_to_the_last(tmp_path: Path) -> None:
    exact = (tone(400).astype(np.int32) << 8) + 77
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(3)
        file.setframerate(8000)
        file.writeframes(b"".join(int(value).to_bytes(3, "little", signed=True) for value in exact))
    found = decoded(tmp_path / "a.wav", Audio(8000, "float32"))
    assert torch.equal(found, torch.from_numpy((exact / (1 << 23)).astype(np.float32)))


def test_channels_are_averaged_and_a_wider_file_widens_all(tmp_path: Path) -> None:
    left, right = tone(400), tone(400, 900)
    wavfile.write(tmp_path / "a.wav", 8000, np.stack([left, right], 1))
    found = decoded(tmp_path / "a.wav", Audio(8000)).double()
    assert float((found - torch.from_numpy((left.astype(float) + right) / 2)).abs().max()) <= 0.5
    for i in range(4):
        wavfile.write(tmp_path / f"b{i}.wav", 8000, tone(400 + i).astype(np.float32) / 32768)
    data = load(tmp_path)
    assert data.domain == Audio(8000, "float32")
    assert data.labels is None


def test_rates_that_differ_are_refused_or_resampled_and_told(tmp_path: Path) -> None:
    for i in range(4):
        wavfile.write(tmp_path / f"a{i}.wav", 8000, tone(800))
    wavfile.write(tmp_path / "b.wav", 16000, tone(1600, rate=16000))
    with pytest.raises(
        DataError, match=re.escape("b.wav: has 16000 samples a second, but most files have 8000")
    ):
        load(tmp_path)
    data = load(tmp_path, rate=8000)
    assert any("1 of 5 clips were resampled to 8000" in line for line in data.problems)
    clip = samples_for(data.domain, [tmp_path / "b.wav"])[0][0].double()
    assert len(clip) == 800
    inner = slice(50, -50)  # the filter rings at the ends
    assert float((clip - torch.from_numpy(tone(800)))[inner].abs().max()) < 80  # one part in a hundred
    assert load(tmp_path, rate=4000).domain == Audio(4000)
    lengths = load(tmp_path, rate=3000, stream=True).train.x.lengths  # type: ignore[union-attr]
    assert set(lengths.tolist()) == {300}


def broken(folder: Path, kind: str) -> None:
    """Write a file that is no clip."""
    file = folder / "bad_ann_9.wav"
    whole = (folder / "low_ann_0.wav").read_bytes()
    if kind == "cut off":
        file.write_bytes(whole[:-200])
    elif kind == "header alone":
        file.write_bytes(whole[:20])
    elif kind == "empty":
        file.write_bytes(b"")
    elif kind == "no wav":
        file.write_bytes(b"this is no sound at all, only words")
    elif kind == "zero length":
        wavfile.write(file, 8000, np.zeros(0, np.int16))
    elif kind == "no rate":
        file.write_bytes(whole[:24] + bytes(4) + whole[28:])
    elif kind == "not finite":
        wavfile.write(file, 8000, np.array([0.0, np.nan], np.float32))
    elif kind == "compressed":
        file.write_bytes(whole[:20] + b"\x55\x00" + whole[22:])
    elif kind == "lies":
        file.write_bytes(whole[:40] + b"\xff\xff\xff\x7f" + whole[44:])


KINDS = [
    "cut off",
    "header alone",
    "empty",
    "no wav",
    "zero length",
    "no rate",
    "not finite",
    "compressed",
    "lies",
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_file_is_named_in_one_line_or_left_out(spoken: Path, kind: str) -> None:
    broken(spoken, kind)
    with pytest.raises(DataError, match=r"bad_ann_9\.wav") as told:
        load(spoken, label=PATTERN)
    assert "\n" not in str(told.value)
    data = load(spoken, label=PATTERN, skip_bad=True)
    assert data.skipped == 1
    assert sum(len(split) for split in (data.train, data.valid, data.test)) == 40
    with pytest.raises(DataError, match=r"bad_ann_9\.wav"):
        samples_for(data.domain, [spoken / "bad_ann_9.wav"])


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"label": "{label}-{speaker}.wav"}, "its name does not fit"),
        ({"label": "nothing.wav"}, "names no field"),
        ({"label": "(?P<label>["}, "is no pattern"),
        ({"label": PATTERN, "split": "speakr"}, 'did you mean "speaker"'),
        ({"label": PATTERN, "held": "eve"}, 'unknown speaker "eve"'),
        ({"label": PATTERN, "split": "random", "held": "ann"}, "needs split=FIELD"),
        ({"label": PATTERN, "split": "index<9"}, "no sample is left for the train split"),
        ({"label": PATTERN, "split": "label<2"}, "no whole number"),
        ({"held": "ann"}, "needs names that tell the speaker"),
        ({"rate": 0}, "sampling rate"),
        ({"label": 3}, "should be"),
    ],
)
def test_wrong_options_get_one_line_that_says_what_would_do(
    spoken: Path, options: dict[str, object], what: str
) -> None:
    with pytest.raises(LeadlineError, match=re.escape(what)) as told:
        load(spoken, **options)
    assert "\n" not in str(told.value)


def test_one_file_one_speaker_and_one_class(spoken: Path) -> None:
    with pytest.raises(DataError, match="give the folder"):
        load(spoken / "low_ann_0.wav")
    for file in spoken.glob("*.wav"):
        if "low_ann" not in file.name:
            file.unlink()
    with pytest.raises(DataError, match='there is only one speaker, "ann"'):
        load(spoken, label=PATTERN, split="speaker")
    assert any("only one class" in line for line in load(spoken, label=PATTERN).problems)


def pack(path: Path, **changes: object) -> Path:
    """Write eight clips of two words by two speakers."""
    clips = [tone(300 + 10 * i, 300 + 300 * (i % 2)) for i in range(8)]
    arrays = {
        "audio": np.concatenate(clips),
        "offsets": np.cumsum([0, *(len(clip) for clip in clips)]),
        "label": np.arange(8) % 2,
        "speaker": np.arange(8) // 4,
        "index": np.arange(8) % 4,
        "rate": np.array(8000),
        "speakers": np.array(["ann", "bob"]),
    } | changes
    np.savez(path, **{name: np.asarray(value) for name, value in arrays.items() if value is not None})  # type: ignore[arg-type]
    return path


def test_packed_clips_are_read_and_split_by_number_or_speaker(tmp_path: Path) -> None:
    path = pack(tmp_path / "set.npz", index=np.array([0, 5, 6, 7] * 2))
    data = load(path)
    assert data.domain == Audio(8000)
    assert isinstance(data.test.x, Ragged)
    assert data.test.x.lengths.tolist() == [300, 340]
    assert data.test.x[0].tolist() == tone(300, 300).tolist()
    assert load(path, held="bob").test.x.lengths.tolist() == [340, 350, 360, 370]  # type: ignore[union-attr]
    assert load(data.source, **data.options).fingerprint == data.fingerprint
    x, names = samples_for(data.domain, [path])
    assert len(x) == 8
    assert names[3].endswith("set.npz, clip 3")


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"offsets": np.array([0, 5])}, "offsets must rise"),
        ({"offsets": np.array([0.0, 5.0])}, "offsets must rise"),
        ({"audio": np.zeros((4, 2), np.int16)}, "audio must be"),
        ({"audio": np.array(["a", "b"])}, "audio must be"),
        ({"rate": None}, "need the arrays audio, offsets and rate"),
        ({"rate": np.array([1.5])}, "one whole number"),
        ({"rate": np.array(0)}, "sampling rate"),
        ({"label": np.zeros(3, int)}, 'array "label" has the shape (3,)'),
        ({"speaker": np.full(8, 7)}, "numbers into the 2 names"),
        ({"index": np.full((8, 1), 7)}, 'array "index"'),
    ],
)
def test_packed_arrays_that_do_not_fit_are_told(
    tmp_path: Path, changes: dict[str, object], what: str
) -> None:
    with pytest.raises(LeadlineError, match=re.escape(what)):
        load(pack(tmp_path / "set.npz", **changes))


def test_packed_clips_without_sound_or_with_nan_are_named(tmp_path: Path) -> None:
    offsets = np.cumsum([0, *(300 + 10 * i for i in range(8))])
    offsets[3] = offsets[2]
    with pytest.raises(DataError, match="clip 2: holds no sound"):
        load(pack(tmp_path / "a.npz", offsets=offsets))
    left = load(pack(tmp_path / "a.npz", offsets=offsets, index=np.array([0, 5, 6, 7] * 2)), skip_bad=True)
    assert left.skipped == 1
    audio = np.zeros(int(offsets[-1]), np.float32)
    audio[650] = np.inf
    with pytest.raises(DataError, match="clip 3: holds a number that is not finite"):
        load(pack(tmp_path / "b.npz", audio=audio, offsets=offsets))


@pytest.mark.skipif(not SPOKEN.exists(), reason="the spoken digits are not at hand")
def test_the_spoken_digits_come_in_their_official_split() -> None:
    data = load(SPOKEN)
    assert [len(data.train) + len(data.valid), len(data.test)] == [2700, 300]
    assert data.test.y is not None
    assert data.test.y.bincount().tolist() == [30] * 10
    assert len(load(SPOKEN, held="theo").test) == 500
