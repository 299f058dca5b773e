"""Every domain by name, and a domain read back from its plain description."""

from typing import Any

from leadline.core.audio import Audio
from leadline.core.columns import Categories, Table, Vectors
from leadline.core.domain import Domain
from leadline.core.errors import DataError
from leadline.core.pictures import Bits, Images
from leadline.core.words import Counts, Tokens

__all__ = [
    "Audio",
    "Bits",
    "Categories",
    "Counts",
    "Domain",
    "Images",
    "Table",
    "Tokens",
    "Vectors",
    "domain_from_json",
]

_KINDS: dict[str, type[Domain]] = {
    kind.kind: kind for kind in (Images, Bits, Vectors, Categories, Table, Counts, Tokens, Audio)
}


def domain_from_json(values: dict[str, Any]) -> Domain:
    """Return the domain that `to_json` described.

    Raises:
        DataError: If the description is of no known kind or lacks a field.
    """
    rest = {key: _frozen(value) for key, value in values.items() if key != "kind"}
    try:
        return _KINDS[values["kind"]](**rest)
    except (KeyError, TypeError) as error:
        raise DataError(f"not the description of a domain: {error}") from error


def _frozen(value: Any) -> Any:
    """Return lists as tuples and inner descriptions as domains."""
    if isinstance(value, dict):
        return domain_from_json(value)
    return tuple(_frozen(item) for item in value) if isinstance(value, (list, tuple)) else value
