"""The page: whole, alone, escaped, small, and never stopped by one figure."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import leadline as ll
from leadline.core import Classes, RunError
from leadline.data import Dataset, Split
from leadline.measures import TASKS
from leadline.reports import of_run, page, report
from leadline.reports.parts import Block, Card, Section, attempt
from leadline.training import Run
from tests.tiny import tiny

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Plain(HTMLParser):
    """Collects the tags that are open, the addresses and the words of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.words: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.addresses += [
            str(value) for name, value in attrs if name in ("src", "href", "srcset", "action", "data")
        ]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def read(path: Path) -> Plain:
    """Return a page that was checked to be whole and alone."""
    text = path.read_text(encoding="utf-8")
    assert len(text.encode()) < page.MOST_BYTES
    assert not re.search(r"https?:|//[a-z]+\.|@import|url\((?!#)", text)
    plain = Plain()
    plain.feed(text)
    assert plain.open == []
    assert "script" not in plain.tags
    assert all(address.startswith(("data:image/", "#")) for address in plain.addresses)
    return plain


def trained(model: nn.Module, data: Dataset, name: str = "model") -> Run:
    """Return a run that was written nowhere."""
    records = [
        {"phase": name, "epoch": float(i), "step": 4 * i, "loss": 1 / i, "valid": 1.1 / i, "seconds": 0.1 * i}
        for i in (1, 2, 3)
    ]
    return Run(
        path=None, model=model.eval(), name=name, options={}, domain=data.domain, labels=data.labels,
        settings={"epochs": 3}, status="done", steps=12, seconds=0.3, data_name=data.name, metrics=records,
        in_catalog=False,
    )  # fmt: skip


class Everything(nn.Module):
    """A model with all verbs that has learned nothing."""

    def __init__(self, data: Dataset) -> None:
        super().__init__()
        self.domain, self.labels = data.domain, data.labels
        self.weight = nn.Parameter(torch.randn(data.domain.feature_count, 3) / 4)
        self.register_buffer("kept", data.train.head(9).x)

    def predict(self, x: Tensor) -> Tensor:
        outputs = self.domain.features(x, self.weight) @ self.weight
        return self.labels.predict(outputs[:, : self.labels.outputs])  # type: ignore[union-attr]

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return self.kept[torch.randint(9, (n,), generator=generator)]  # type: ignore[index]

    def log_prob(self, x: Tensor) -> Tensor:
        return -self.domain.features(x, self.weight).square().sum(1)

    def encode(self, x: Tensor) -> Tensor:
        return self.domain.features(x, self.weight) @ self.weight

    def decode(self, z: Tensor) -> Tensor:
        return self.kept[z[:, 0].abs().long() % 9]  # type: ignore[index]


@pytest.mark.parametrize("kind", ["images", "targets", "table"])
def test_every_domain_gets_a_whole_page(kind: str, tmp_path: Path) -> None:
    data = tiny(kind)
    path = report(trained(Everything(data), data), tmp_path / "report.html", data=data)
    plain = read(path)
    text = " ".join(plain.words)
    for heading in (
        "How it learned",
        "What it measures",
        "predict",
        "sample",
        "log_prob",
        "encode",
        "decode",
        "Is it correct?",
    ):
        assert heading in text
    assert ("img" in plain.tags) == (data.domain.planes is not None)
    assert "svg" in plain.tags
    shown = re.findall(r"not shown\.[^<]*", path.read_text(encoding="utf-8"))
    assert not [line for line in shown if "Error" in line], shown


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure one task only."""
    monkeypatch.setattr(of_run, "TASKS", {"classification": TASKS["classification"]})


@pytest.mark.parametrize("kind", ["bits", "vectors", "categories", "counts"])
@pytest.mark.usefixtures("quick")
def test_every_verb_has_its_pictures_in_every_domain(kind: str, tmp_path: Path) -> None:
    data = tiny(kind)
    plain = read(report(trained(Everything(data), data), tmp_path / "report.html", data=data))
    text = " ".join(plain.words)
    for title in (
        "Confusion",
        "Calibration",
        "Samples",
        "Likelihoods",
        "Most likely",
        "Map of the codes",
        "Reconstructions",
    ):
        assert title in text
    assert ("img" in plain.tags) == (data.domain.planes is not None)


@pytest.mark.usefixtures("quick")
def test_names_from_the_data_are_text_and_nothing_else(tmp_path: Path) -> None:
    data = tiny("images")
    evil = "<script>alert(1)</script>"
    named = Dataset(
        name=evil, domain=data.domain, labels=Classes((evil, '"><img src=x onerror=y>', "&amp;")),
        train=data.train, valid=data.valid, test=data.test,
    )  # fmt: skip
    path = report(trained(Everything(named), named, evil), tmp_path / "report.html", data=named)
    plain = read(path)
    assert "onerror" not in plain.attributes
    assert evil in " ".join(plain.words)


@pytest.mark.usefixtures("quick")
def test_texts_are_shown_as_texts(tmp_path: Path) -> None:
    data = tiny("tokens")
    text = " ".join(read(report(trained(Everything(data), data), tmp_path / "r.html", data=data)).words)
    assert data.domain.show(data.test.x[0]) in text  # type: ignore[index]


@pytest.mark.usefixtures("quick")
def test_without_the_data_the_page_says_so_and_still_shows_samples(tmp_path: Path) -> None:
    data = tiny("images")
    text = " ".join(read(report(trained(Everything(data), data), tmp_path / "r.html")).words)
    assert "made in memory" in text
    assert "Samples" in text
    assert "Learning curves" in text


@pytest.mark.usefixtures("quick")
def test_a_verb_that_breaks_costs_its_own_figures_only(tmp_path: Path) -> None:
    data = tiny("images")
    model = Everything(data)

    def broken(x: Tensor) -> Tensor:
        raise RuntimeError("no scores today")

    model.log_prob = broken  # type: ignore[method-assign]
    text = " ".join(read(report(trained(model, data), tmp_path / "r.html", data=data)).words)
    assert "no scores today" in text
    assert "Map of the codes" in text


def test_a_run_says_how_to_repeat_it(tmp_path: Path) -> None:
    data = ll.load("digits", limit=100)
    run = ll.fit(ll.build("pca", data, latent=2), data, out=False, seed=3, progress=False)
    from leadline.reports.run_card import command_of

    command = command_of(run)
    assert command.startswith("leadline fit pca digits --set latent=2 --data limit=100")
    assert "--seed 3" in command
    from leadline.cli import main

    assert main([*command.split()[1:], "--out", str(tmp_path / "again"), "--quiet"]) == 0
    again = ll.open(tmp_path / "again")
    assert all(torch.equal(a, b) for a, b in zip(run.model.buffers(), again.model.buffers(), strict=True))


def test_a_comparison_gets_a_page(tmp_path: Path) -> None:
    data = ll.load("iris")
    result = ll.compare(
        data, task=["classification", "density", "representation"], models=["linear", "pca"], steps=5, jobs=1,
        out=tmp_path / "c", progress=False,
    )  # fmt: skip
    path = ll.report(result, tmp_path / "c" / "report.html")
    plain = read(path)
    text = " ".join(plain.words)
    for word in (
        "Classification",
        "Density",
        "Label efficiency",
        "linear",
        "pca",
        "Samples",
        "How they learned",
    ):
        assert word in text
    assert "leadline compare iris" in " ".join(text.split())
    density = path.read_text().partition("<h2>Density")[2].partition("<h2")[0]
    shown, folded = density.split("<details")
    assert "uniform" not in shown  # some rows lie outside its cube: that is there to be opened
    assert "uniform: log_prob is minus infinity" in folded


def test_a_page_that_is_too_large_loses_its_largest_picture_first(monkeypatch: pytest.MonkeyPatch) -> None:
    from markupsafe import Markup

    blocks = (
        Block("small", picture=Markup("<b>" + "s" * 100 + "</b>")),
        Block("large", picture=Markup("<b>" + "l" * 9000 + "</b>")),
    )
    monkeypatch.setattr(page, "MOST_BYTES", 13_000)
    text = page._fitted(Card("t", "s"), [Section("a", blocks=blocks)])
    assert "s" * 100 in text
    assert "l" * 9000 not in text
    assert "exceed 3 MB" in text


def test_a_page_that_cannot_be_written_is_an_error_and_leaves_no_part(tmp_path: Path) -> None:
    data = tiny("vectors")
    (tmp_path / "r.html").mkdir()
    with pytest.raises(RunError, match="cannot write"):
        report(trained(nn.Identity(), data), tmp_path / "r.html", data=data)
    assert [item.name for item in tmp_path.iterdir()] == ["r.html"]


def test_an_attempt_that_fails_says_why() -> None:
    def draw() -> Block:
        raise ZeroDivisionError("by zero\nsecond line")

    assert attempt("Map", draw) == (Block("Map", failed="ZeroDivisionError: by zero"),)


@pytest.mark.usefixtures("quick")
def test_unlabelled_samples_are_drawn_as_unknown(tmp_path: Path) -> None:
    data = tiny("images")
    y = data.test.y.clone()  # type: ignore[union-attr]
    y[::2] = -1
    part = Dataset(data.name, data.domain, data.labels, data.train, data.valid, Split(data.test.x, y))
    text = " ".join(read(report(trained(Everything(part), part), tmp_path / "r.html", data=part)).words)
    assert "unknown" in text
