"""From NAME=VALUE on the command line to Python values, by the annotation of the parameter they go to."""

import inspect
import json
import re
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin

from leadline.core import OptionError
from leadline.core.errors import unknown_name

__all__ = ["assigned", "described", "options_after", "parsed", "plain_values"]

_TRUTH = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}
_SEVERAL = (tuple, list, Sequence)


def options_after(function: Any, first: Sequence[str]) -> dict[str, inspect.Parameter]:
    """Return the parameters of a function but those named in `first`."""
    parameters = inspect.signature(function).parameters
    return {name: value for name, value in parameters.items() if name not in ("self", "cls", *first)}


def assigned(
    pairs: Sequence[str] | None, known: Mapping[str, inspect.Parameter], kind: str, flag: str
) -> dict[str, Any]:
    """Return the options that NAME=VALUE pairs give.

    Args:
        pairs: What stands on the command line.
        known: The parameters that they may go to.
        kind: What the options belong to, for messages, e.g. "option of vae".
        flag: The flag they were given with, for messages.

    Raises:
        OptionError: If a pair has no "=", a name is unknown or a value does not fit its parameter.
    """
    values: dict[str, Any] = {}
    for pair in pairs or ():
        name, sign, text = pair.partition("=")
        name = name.strip().replace("-", "_")
        if not sign:
            raise OptionError(f"{flag} {pair}: give NAME=VALUE, e.g. {flag} {_example(known)}")
        if name not in known:
            raise unknown_name(kind, name, known)
        values[name] = parsed(text, known[name].annotation, f"{flag} {name}")
    return values


def _example(known: Mapping[str, inspect.Parameter]) -> str:
    for name, parameter in known.items():
        if parameter.default not in (None, inspect.Parameter.empty):
            return f"{name}={_written(parameter.default)}"
    return f"{next(iter(known), 'name')}=1"


def parsed(text: str, annotation: Any, where: str) -> Any:
    """Return `text` as a value of the annotated type.

    Args:
        text: A number, true or false, words, "none", or numbers with commas between.
        annotation: bool, int, float, str, a tuple, a Literal, a union of them, or anything (JSON or words).
        where: What it is for, for messages.

    Raises:
        OptionError: If it is none; the message says what is wanted.
    """
    try:
        return _value(text.strip(), annotation)
    except ValueError:
        raise OptionError(f"{where}: wants {described(annotation)}, got {text!r}") from None


def _value(text: str, annotation: Any) -> Any:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return _first_that_fits(text, inner)
    if origin is Literal:
        return _choice(text, inner)
    if (origin or annotation) in _SEVERAL:
        return _several(text, inner)
    return _PLAIN.get(annotation, _literal)(text)


def _several(text: str, inner: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return values with commas between, each of its kind; all of the first where one is given."""
    words = [word.strip() for word in text.strip("()[] ").split(",") if word.strip()]
    kinds = inner if len(inner) > 1 and inner[1:] != (...,) else (inner[:1] or (Any,)) * len(words)
    return tuple(_value(word, kind) for word, kind in zip(words, kinds, strict=True))


def _first_that_fits(text: str, kinds: tuple[Any, ...]) -> Any:
    """Return the value of the narrowest kind: nothing, true or false, a number, others, words."""
    ranks: dict[Any, int] = {type(None): 0, bool: 2, int: 3, float: 4, str: 9}
    for kind in sorted(kinds, key=lambda kind: ranks.get(kind, 5)):
        if kind is bool and text in ("0", "1") and (int in kinds or float in kinds):
            continue
        try:
            return _value(text, kind)
        except ValueError:
            continue
    raise ValueError(text)


def _choice(text: str, choices: tuple[Any, ...]) -> Any:
    for choice in choices:
        if text.lower() == str(choice).lower():
            return choice
    raise ValueError(text)


def _nothing(text: str) -> None:
    if text.lower() not in ("none", "null", ""):
        raise ValueError(text)


def _truth(text: str) -> bool:
    if text.lower() not in _TRUTH:
        raise ValueError(text)
    return _TRUTH[text.lower()]


def _literal(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return _TRUTH.get(text.lower(), text) if text.lower() in ("true", "false", "yes", "no") else text


_PLAIN: dict[Any, Callable[[str], Any]] = {
    None: _nothing,
    type(None): _nothing,
    bool: _truth,
    int: int,
    float: float,
    str: str,
}


def described(annotation: Any) -> str:
    """Return what a parameter takes, in words."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join(described(kind) for kind in inner)
    if origin is Literal:
        return " or ".join(str(choice) for choice in inner)
    if (origin or annotation) in _SEVERAL:
        return "values with commas between, e.g. 64,32"
    names = {
        type(None): "none",
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "a word",
    }
    return names.get(annotation, "a value")


def plain_values(parameters: Mapping[str, inspect.Parameter], *told_by: object) -> list[dict[str, str]]:
    """Return "option", what it "takes", its "default" and its "meaning" of each parameter.

    Args:
        parameters: By name.
        told_by: What has docstrings that tell the meanings; where several do, the first one counts.
    """
    meanings: dict[str, str] = {}
    for source in reversed(told_by):
        meanings |= _arguments(inspect.getdoc(source) or "")
    return [
        {
            "option": name,
            "takes": described(parameter.annotation),
            "default": _written(parameter.default),
            "meaning": meanings.get(name, ""),
        }
        for name, parameter in parameters.items()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    ]


def _arguments(text: str) -> dict[str, str]:
    """Return what a docstring says of each argument."""
    part = re.search(r"^Args:\n((?:(?: .*)?\n?)+)", text, re.MULTILINE)
    entries = re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", part[1] if part else "", re.MULTILINE)
    return {name: " ".join(said.split()) for name, said in entries}


def _written(value: Any) -> str:
    """Return a default as it would be given on the command line."""
    if value is inspect.Parameter.empty:
        return "required"
    if isinstance(value, (tuple, list)):
        return ",".join(str(item) for item in value)
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
