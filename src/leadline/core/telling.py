"""Where long work says how far it has come: nobody hears of it unless a caller listens.

So a measure deep inside a page, or log Z deep inside a model, need not be handed something to report to.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

__all__ = ["Hearing", "each_told", "listening", "tell", "told_of"]

Hearing = Callable[[str, float], None]
T = TypeVar("T")

_hearing: ContextVar[Hearing | None] = ContextVar("hearing", default=None)


@contextmanager
def listening(hear: Hearing | None) -> Iterator[None]:
    """Inside the block call `hear` with the name of the work and the fraction done of what is told."""
    before = _hearing.set(hear)
    try:
        yield
    finally:
        _hearing.reset(before)


@contextmanager
def told_of(name: str) -> Iterator[None]:
    """Inside the block all that is told is told of `name`; that it begins is told at once."""
    hear = _hearing.get()
    if hear is None:
        yield
        return
    outer: Hearing = hear
    outer(name, 0.0)
    with listening(lambda inner, done: outer(f"{name}: {inner}", done)):
        yield


def tell(name: str, done: float) -> None:
    """Say that of the work `name` the fraction `done` in [0, 1] is done."""
    hear = _hearing.get()
    if hear is not None:
        hear(name, done)


def each_told(name: str, items: Sequence[T]) -> Iterator[T]:
    """Return the items one by one, and tell before each how many are done."""
    for number, item in enumerate(items):
        tell(name, number / len(items))
        yield item
