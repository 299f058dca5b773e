"""Folders of pictures: layout, sizes, faults, streaming."""

import os
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from leadline.core import Classes, DataError, Images, OptionError
from leadline.data import Stream, load


def picture(path: Path, level: int = 100, size: tuple[int, int] = (8, 8), mode: str = "L") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, level if mode in ("L", "I;16") else (level, 255 - level, 7)).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(10):
        picture(tmp_path / "set" / "dark" / f"{i}.png", i)
        picture(tmp_path / "set" / "light" / f"{i}.bmp", 200 + i)
    return tmp_path / "set"


def levels(data) -> list[int]:
    return sorted(int(x) for s in (data.train, data.valid, data.test) for x in s.head(10**6).x[:, 0, 0, 0])


def test_class_folders_give_labels(folder):
    data = load(folder)
    assert data.domain == Images(1, 8, 8)
    assert data.labels == Classes(("dark", "light"))
    assert levels(data) == [*range(10), *range(200, 210)]
    assert torch.equal(data.train.y, (data.train.x[:, 0, 0, 0] >= 200).long())


def test_a_flat_folder_has_no_labels_and_a_loose_picture_an_unknown_one(folder):
    assert load(folder / "dark").labels is None
    picture(folder / "loose.png", 77)
    data = load(folder, limit=None)
    y = torch.cat([s.y for s in (data.train, data.valid, data.test)])
    assert (y == -1).sum() == 1


def test_split_folders_are_kept(tmp_path):
    for split, first, count in (("train", 0, 12), ("validation", 50, 3), ("test", 90, 4)):
        for i in range(count):
            picture(tmp_path / split / "ab"[i % 2] / f"{i}.png", first + i)
    data = load(tmp_path)
    assert (len(data.train), len(data.valid), len(data.test)) == (12, 3, 4)
    assert sorted(data.test.x[:, 0, 0, 0].tolist()) == [90, 91, 92, 93]
    assert data.labels == Classes(("a", "b"))


def test_colour_is_decided_by_the_files_or_by_the_option(folder):
    picture(folder / "dark" / "colour.png", 9, mode="RGB")
    assert load(folder).domain.channels == 3
    assert load(folder, channels=1).domain.channels == 1
    with pytest.raises(OptionError, match="channels must be 1"):
        load(folder, channels=2)


def test_size_cuts_at_the_centre_and_resizes(tmp_path):
    wide = np.zeros((10, 30), dtype=np.uint8)
    wide[:, 10:20] = 200  # the centre of the picture
    for i in range(3):
        Image.fromarray(wide).save(tmp_path / f"{i}.png")
    data = load(tmp_path, size=5)
    assert data.domain == Images(1, 5, 5)
    assert bool((data.train.x == 200).all())
    assert load(tmp_path, size="4x6").domain == Images(1, 4, 6)


def test_pictures_of_different_sizes_ask_for_size(folder):
    picture(folder / "dark" / "odd.png", size=(9, 7))
    with pytest.raises(DataError, match=r"odd.png: is 9x7, but most pictures are 8x8.*give size="):
        load(folder)


def test_orientation_transparency_and_sixteen_bits_are_read_as_they_are_shown(tmp_path):
    image = Image.new("L", (6, 4), 10)
    exif = image.getexif()
    exif[0x0112] = 6  # shown turned by a quarter
    image.save(tmp_path / "a.jpg", exif=exif)
    with pytest.raises(DataError, match=r"4x6|6x4"):
        load(picture(tmp_path / "b.png", size=(6, 4)).parent)
    (tmp_path / "a.jpg").unlink()
    clear = Image.new("RGBA", (6, 4), (0, 0, 0, 0))
    clear.save(tmp_path / "c.png")
    Image.fromarray(np.full((4, 6), 0x8000, dtype=np.uint16)).save(tmp_path / "d.png")
    assert levels(load(tmp_path)) == [100, 128, 255]


@pytest.mark.parametrize("stream", [False, True])
def test_a_bad_file_is_named_or_left_out(folder, stream):
    whole = (folder / "dark" / "3.png").read_bytes()
    (folder / "dark" / "3.png").write_bytes(whole[: len(whole) // 2])
    (folder / "light" / "text.png").write_bytes(b"hello")
    with pytest.raises(DataError, match=r"3\.png: .*skip_bad=True"):
        load(folder, stream=stream)
    data = load(folder, stream=stream, skip_bad=True)
    assert data.skipped == 2
    assert any("3.png" in line for line in data.problems)
    assert levels(data) == [0, 1, 2, *range(4, 10), *range(200, 210)]
    assert load(data.source, **data.options).fingerprint == data.fingerprint


def test_a_file_that_only_decoding_shows_bad_is_named_when_it_is_asked_for(folder):
    target = folder / "dark" / "5.png"
    data = bytearray(target.read_bytes())
    place = data.index(b"IDAT") + 8
    data[place : place + 4] = b"\xff\xff\xff\xff"
    target.write_bytes(data)
    with pytest.raises(DataError, match=r"5\.png: cannot be decoded"):
        load(folder, stream=False)
    stream = load(folder, stream=True)
    with pytest.raises(DataError, match=r"5\.png: cannot be decoded.*skip_bad"):
        levels(stream)
    assert load(folder, stream=True, skip_bad=True).skipped == 1


def test_a_decompression_bomb_is_refused(folder):
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(b"0" * 1000))
        + chunk(b"IEND", b"")
    )
    (folder / "dark" / "bomb.png").write_bytes(bomb)
    with pytest.raises(DataError, match=r"bomb\.png: cannot be read .*exceeds limit"):
        load(folder, size=8)


def test_a_loop_of_links_ends(folder):
    (folder / "dark" / "loop").symlink_to(folder, target_is_directory=True)
    data = load(folder)
    assert any("link" in line for line in data.problems)
    assert len(levels(data)) <= 40


def test_folders_without_pictures_are_told(tmp_path):
    with pytest.raises(DataError, match="the folder is empty"):
        load(tmp_path)
    (tmp_path / "notes.txt2").write_text("hello")
    with pytest.raises(DataError, match="holds no pictures"):
        load(tmp_path)
    picture(tmp_path / "one.png")
    with pytest.raises(DataError, match="1 sample is too few"):
        load(tmp_path)


def test_a_stream_gives_what_memory_gives(folder):
    kept, streamed = load(folder, size=6, stream=False), load(folder, size=6, stream=True)
    assert isinstance(streamed.train.x, Stream)
    for a, b in ((kept.train, streamed.train), (kept.test, streamed.test)):
        assert torch.equal(a.x, torch.cat([x for x, _ in b.batches(3)]))
        assert torch.equal(a.y, b.y)
    assert torch.equal(kept.binarize(50).train.x, streamed.binarize(50).train.head(100).x)
    assert streamed.binarize(50).fingerprint != streamed.binarize(60).fingerprint
    again = streamed.binarize(50).vectors()
    assert load(again.source, **again.options).fingerprint == again.fingerprint


def test_the_fingerprint_of_a_stream_changes_with_a_file(folder):
    before = load(folder, stream=True).fingerprint
    picture(folder / "dark" / "3.png", 55)
    assert load(folder, stream=True).fingerprint != before


def test_memory_decides_and_streams_stay_bounded(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "0.jpg")
    for i in range(1, 400):
        os.link(tmp_path / "0.jpg", tmp_path / f"{i}.jpg")
    assert not load(tmp_path, limit=20).train.streamed
    tracemalloc.start()
    data = load(tmp_path, memory="1MB")  # the pictures take 4.9 MB
    assert data.train.streamed
    for x, _ in data.train.batches(16):
        assert x.shape[1:] == (3, 64, 64)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 << 20
