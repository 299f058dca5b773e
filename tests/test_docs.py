"""Every python block of the README and of docs/ runs as it stands, a page at a time, in an empty folder."""

import re
import warnings
from pathlib import Path
from typing import Any

import joblib
import pytest
import torch

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)#:]+)\)")


def test_there_are_pages() -> None:
    assert len(PAGES) > 8


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_blocks_of_a_page_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    scope: dict[str, Any] = {"__name__": "page"}
    text, ran = page.read_text(encoding="utf-8"), 0
    for number, block in enumerate(BLOCK.findall(text)):
        code = compile(block, f"{page.name}[{number}]", "exec")
        # In this process: a worker would import everything once more for each page.
        with warnings.catch_warnings(), joblib.parallel_config("sequential"):
            warnings.simplefilter("error")
            exec(code, scope)
        ran += 1
    assert ran == text.count("```python")  # none is missed for the way it stands on the page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target
