"""Topics and components on the page of a run."""

import pytest

import leadline as ll
from leadline.reports.topics import parts_section, topics_figure
from tests.tiny import tiny


@pytest.mark.parametrize("name", ["lda", "mixture"])
def test_a_model_of_words_shows_its_topics_with_their_coherence(name: str) -> None:
    data = tiny("counts")
    model = ll.build(name, data)
    model.sweep(data.train.x)  # type: ignore[operator]
    section = parts_section(model, data.domain, data)
    assert section is not None
    assert section.title == "Topics"
    assert not section.blocks[0].failed
    assert "NPMI" in str(section.blocks[0].picture)
    assert "Mean coherence" in section.blocks[0].caption
    assert not parts_section(model, data.domain, None).blocks[0].failed  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["noisy_or", "mixture"])
def test_a_model_of_words_that_occur_shows_its_parts_as_words(name: str) -> None:
    data = tiny("counts").binarize()
    model = ll.build(name, data)
    section = parts_section(model, data.domain, data)
    assert section is not None
    assert section.title == "Components"
    assert not section.blocks[0].failed
    assert all(word in str(section.blocks[0].picture) for word in data.domain.names)
    assert "NPMI" in str(section.blocks[0].picture)


@pytest.mark.parametrize(("name", "kind"), [("mixture", "images"), ("noisy_or", "bits"), ("mixture", "bits")])
def test_components_over_pictures_are_shown_as_pictures(name: str, kind: str) -> None:
    data = tiny(kind)
    section = parts_section(ll.build(name, data), data.domain, data)
    assert section is not None
    assert not section.blocks[0].failed
    assert section.blocks[0].picture is not None


def test_other_models_have_no_such_section() -> None:
    data = tiny("vectors")
    assert parts_section(ll.build("mixture", data), data.domain, data) is None
    assert parts_section(ll.build("vae", tiny("bits")), tiny("bits").domain, None) is None


def test_bars_stand_in_the_order_of_the_words() -> None:
    figure = topics_figure([[("sea", 0.5), ("line", 0.2)], [("lead", 0.9)]], ["one", "two"])
    first = figure.axes[0]
    assert [label.get_text() for label in first.get_yticklabels()] == ["sea", "line"]
    assert [bar.get_width() for bar in first.patches] == [0.5, 0.2]
    assert first.yaxis_inverted()
