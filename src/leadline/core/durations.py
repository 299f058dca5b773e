"""Lengths of time as a user gives them."""

import re
from numbers import Real

from leadline.core.errors import OptionError

__all__ = ["seconds_of"]

_UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "": 1.0}


def seconds_of(length: float | str, name: str = "budget") -> float:
    """Return the seconds of a number of them, or of a text such as "60s", "2m" or "1h".

    Args:
        length: How long, above zero.
        name: What an error calls it.

    Raises:
        OptionError: If it is no length of time, or not above zero.
    """
    value = length
    if isinstance(length, str):
        found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*(s|m|min|h)?\s*", length)
        if found is None:
            raise OptionError(f'{name} must be a time such as "60s", "2m" or "1h", got "{length}"')
        value = float(found[1]) * _UNITS[found[2] or ""]
    if isinstance(value, bool) or not isinstance(value, Real):
        raise OptionError(f'{name} must be seconds or a time such as "60s", "2m" or "1h", got {length!r}')
    if not 0 < value < float("inf"):
        raise OptionError(f"{name} must be above 0 seconds, got {length}")
    return float(value)
