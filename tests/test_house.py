"""Rules of the house that a machine can check."""

import ast
import re
import sys
from pathlib import Path

import pytest

import leadline as ll
from leadline.catalog import CATALOG, model_class
from tests.programs import ROOT, program

SOURCES = sorted((ROOT / "src").rglob("*.py"))


def told(code: str) -> str:
    return program("-c", code, check=True).stdout.strip()


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_nothing_is_ever_unpickled(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for call in re.findall(r"torch\.load\([^)]*\)", text):
        assert "weights_only=True" in call
    assert not re.search(
        r"\b(pickle|dill|cloudpickle|marshal|shelve)\b\s*[.(]|^import pickle|joblib\.load", text, re.M
    )
    assert not re.search(r"allow_pickle\s*=\s*True", text)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_no_file_is_two_rooms_and_no_function_is_long(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 450
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name != "fit":
            body = [child for child in node.body if not isinstance(child, ast.Expr)]
            length = (node.end_lineno or 0) - (body[0].lineno if body else node.lineno)
            assert length <= 60, f"{node.name} has {length} lines"


@pytest.mark.parametrize("name", CATALOG)
def test_a_catalogued_class_is_final_and_cites_its_source(name: str) -> None:
    kind = model_class(name)
    assert not [heir for heir in kind.__subclasses__() if heir.__module__.startswith("leadline.")]
    assert "Source:" in (sys.modules[kind.__module__].__doc__ or "")
    assert kind.__doc__
    assert "Verbs:" in kind.__doc__
    assert CATALOG[name].source


def test_models_are_never_asked_for_their_class_or_name_above_the_catalog() -> None:
    rooms = ("training", "laws", "measures", "studies", "comparison", "reports")
    for path in (path for room in rooms for path in (ROOT / "src/leadline" / room).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                assert not (node.module or "").startswith("leadline.models"), path


def test_importing_the_library_is_light_and_changes_nothing() -> None:
    heavy = ("torch", "pandas", "sklearn", "matplotlib")
    assert told(f"import sys, leadline; print([m for m in {heavy} if m in sys.modules])") == "[]"


def test_every_public_name_can_be_reached() -> None:
    for name in ll.__all__:
        assert getattr(ll, name) is not None
    assert set(ll.__all__) <= set(dir(ll))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ll.nothing


def test_functions_keep_their_names_whatever_is_imported_first() -> None:
    code = (
        "import leadline.comparison, leadline.reports, leadline.training, leadline as ll;"
        "print(callable(ll.compare), callable(ll.report), callable(ll.fit), callable(ll.open))"
    )
    assert told(code) == "True True True True"


def test_help_answers_without_torch() -> None:
    code = """
import sys
from leadline.cli import main
try:
    main(["--help"])
except SystemExit:
    pass
print("torch" in sys.modules)
"""
    assert told(code).endswith("False")
