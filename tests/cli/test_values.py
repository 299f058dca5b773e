"""What NAME=VALUE on the command line becomes."""

import inspect
from collections.abc import Sequence
from typing import Any, Literal

import pytest

from leadline.cli.values import assigned, parsed, plain_values
from leadline.core import OptionError


def options(function: Any) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(function).parameters)


def model(
    *, latent: int = 2, hidden: tuple[int, ...] = (8, 4), whiten: bool = False, top: int | None = None
) -> None:
    """Stand for a model's for_data."""


@pytest.mark.parametrize(
    ("text", "annotation", "value"),
    [
        ("3", int, 3),
        ("-1", int, -1),
        ("1e-3", float, 1e-3),
        ("yes", bool, True),
        ("FALSE", bool, False),
        ("64,32", tuple[int, ...], (64, 32)),
        ("(64, 32,)", tuple[int, ...], (64, 32)),
        ("7", tuple[int, ...], (7,)),
        ("0.9,0.999", tuple[float, float], (0.9, 0.999)),
        ("none", int | None, None),
        ("5", int | None, 5),
        ("a=b", str, "a=b"),
        ("true", bool | float | None, True),
        ("1", bool | float | None, 1.0),
        ("0.5", bool | float | None, 0.5),
        ("64x48", int | str | Sequence[int] | None, "64x48"),
        ("64", int | str | Sequence[int] | None, 64),
        ("Diagonal", Literal["full", "diagonal"], "diagonal"),
        ("word", Any, "word"),
        ("[1, 2]", Any, [1, 2]),
        ("true", Any, True),
    ],
)
def test_text_becomes_a_value_of_the_annotated_type(text: str, annotation: Any, value: Any) -> None:
    found = parsed(text, annotation, "--set x")
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "annotation", "wanted"),
    [
        ("abc", int, "a whole number"),
        ("1.5", int, "a whole number"),
        ("maybe", bool, "true or false"),
        ("1,x", tuple[int, ...], "64,32"),
        ("1,2,3", tuple[float, float], "64,32"),
        ("tied", Literal["full", "diagonal"], "full or diagonal"),
    ],
)
def test_a_value_that_does_not_fit_names_what_is_wanted(text: str, annotation: Any, wanted: str) -> None:
    with pytest.raises(OptionError, match=wanted):
        parsed(text, annotation, "--set x")


def test_pairs_become_options_of_the_function_they_go_to() -> None:
    pairs = ["latent=5", "hidden=16", "whiten=true", "top=none"]
    found = assigned(pairs, options(model), "option of model", "--set")
    assert found == {"latent": 5, "hidden": (16,), "whiten": True, "top": None}


def test_an_unknown_name_lists_the_known_ones_and_the_nearest() -> None:
    with pytest.raises(OptionError, match=r'did you mean "latent".*known: hidden, latent, top, whiten'):
        assigned(["latnet=3"], options(model), "option of model", "--set")


def test_a_pair_without_equals_shows_how() -> None:
    with pytest.raises(OptionError, match=r"NAME=VALUE, e\.g\. --set latent=2"):
        assigned(["latent"], options(model), "option of model", "--set")


def test_options_are_listed_as_they_would_be_given() -> None:
    rows = {tuple(row.values())[:3] for row in plain_values(options(model))}
    assert ("hidden", "values with commas between, e.g. 64,32", "8,4") in rows
    assert ("top", "a whole number or none", "none") in rows
