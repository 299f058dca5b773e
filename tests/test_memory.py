"""What memory can be had, as the files of Linux tell it."""

import os
from pathlib import Path

import pytest

from leadline.core import memory
from leadline.inference.budget import available_memory


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a container on a machine of which 1000 kB can be had."""
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemFree: 10 kB\nMemAvailable:   1000 kB\n")
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    return tmp_path


def limited(container: Path, limit: str, used: int, files: int) -> None:
    (container / "memory.max").write_text(f"{limit}\n")
    (container / "memory.current").write_text(f"{used}\n")
    (container / "memory.stat").write_text(f"file 999999\ninactive_file {files}\nactive_file 5\n")


def test_what_the_system_keeps_of_files_can_be_had(machine: Path) -> None:
    assert memory.available() == 1000 << 10  # and not the 10 kB that nothing is kept in
    assert available_memory() == 500 << 10
    limited(machine, "100000", used=99_000, files=60_000)
    assert memory.available() == 61_000
    (machine / "memory.stat").unlink()
    assert memory.available() == 1000


def test_a_container_without_a_limit_has_what_the_machine_has(machine: Path) -> None:
    limited(machine, "max", used=99_000, files=0)
    assert memory.available() == 1000 << 10
    limited(machine, str(1 << 50), used=99_000, files=0)
    assert memory.available() == 1000 << 10


def test_a_container_that_is_full_has_none(machine: Path) -> None:
    limited(machine, "100000", used=100_500, files=400)
    assert memory.available() == 0


def test_where_nothing_is_told_half_the_machine_is_assumed(machine: Path) -> None:
    (machine / "meminfo").unlink()
    assert memory.available() == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
