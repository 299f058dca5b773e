import pytest

from leadline.core import VERBS
from leadline.measures import TASKS, MeasureError
from tests.measures.fakes import Says
from tests.tiny import tiny


def test_tasks_ask_for_verbs_and_name_their_headline() -> None:
    for name, task in TASKS.items():
        assert task.name == name
        assert set(task.verbs) <= set(VERBS)
        line = next(iter(task.controls(tiny("bits")).values()))
        assert line.task == name
        assert line.headline in task.headline
        assert line.headline in line.quantities


def test_a_task_knows_the_models_of_the_catalog_that_speak() -> None:
    assert {"linear", "mlp", "convnet"} <= set(TASKS["classification"].models)
    assert {"vae", "made", "gmm", "lstm"} <= set(TASKS["density"].models)
    assert "gan" in TASKS["generation"].models
    assert "gan" not in TASKS["density"].models


def test_a_task_fits_whatever_has_its_verbs() -> None:
    assert TASKS["structure"].fits(Says(encode=lambda x: x))
    assert not TASKS["structure"].fits(Says(decode=lambda x: x))


@pytest.mark.parametrize("name", [name for name, task in TASKS.items() if task.labelled])
def test_a_task_of_labels_says_that_there_are_none(name: str) -> None:
    task = TASKS[name]
    with pytest.raises(MeasureError, match="needs labels"):
        task.controls(tiny("tokens"))
