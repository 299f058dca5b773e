"""Compiled functions are kept on disk, each under its own types, whoever saves at the same time."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from leadline.inference import compiled
from tests.programs import program

TWICE = """
from leadline.inference.compiled import compiled

@compiled
def twice(x):
    return x + x
"""
# Compile for one type when another process is as far; saving takes a second between the index and the code
SAVE = """
import sys, time, pathlib
from numba.core.caching import IndexDataCacheFile
from doubling import twice

read = IndexDataCacheFile._load_index
def slow(self):
    found = read(self)
    time.sleep(1)
    return found

IndexDataCacheFile._load_index = slow
mine, other = (pathlib.Path(name) for name in sys.argv[1:])
mine.touch()
while not other.exists():
    time.sleep(0.01)
twice(1 if mine.name == "whole" else 1.5)
"""
LOAD = """
from doubling import twice
print(twice(3), twice(1.5), sum(twice.stats.cache_hits.values()))
"""


def test_code_for_two_types_that_is_saved_at_once_is_kept_apart(tmp_path: Path) -> None:
    (tmp_path / "doubling.py").write_text(TWICE)
    begin = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
    names = [str(tmp_path / name) for name in ("whole", "real")]
    with ThreadPoolExecutor(2) as pool:
        saved = pool.map(lambda pair: program("-c", begin + SAVE, *pair), (names, names[::-1]))
    assert [done.stderr for done in saved] == ["", ""]
    loaded = program("-c", begin + LOAD)
    assert loaded.stdout.split() == ["6", "3.0", "2"], loaded.stderr


def test_without_a_folder_to_keep_code_in_a_function_is_compiled_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def nowhere(function: object) -> None:
        raise RuntimeError("cannot cache function: no locator available")

    monkeypatch.setattr(compiled, "_Cache", nowhere)
    assert compiled.compiled(lambda x: x + x)(2) == 4
