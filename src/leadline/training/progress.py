"""What a person sees of long work: a live bar, or plain lines where there is no terminal."""

import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from leadline.core.telling import listening, tell

__all__ = ["Progress", "make_progress", "telling_progress"]

_LINE_EVERY = 5.0
_BAR_EVERY = 0.1


class Progress(Protocol):
    """Something that is told how a training goes."""

    def update(self, name: str, done: float, figures: dict[str, float]) -> None:
        """Show the work `name`, the fraction of it that is done, and the latest figures."""
        ...

    def note(self, text: str) -> None:
        """Show a remark that stays."""
        ...

    def close(self, message: str) -> None:
        """Show the last word, if there is one."""
        ...


class _Silent:
    def update(self, name: str, done: float, figures: dict[str, float]) -> None:
        """Show nothing, but tell whoever waits for more than this training."""
        tell(name, done)

    def note(self, text: str) -> None:
        """Show nothing."""

    def close(self, message: str) -> None:
        """Show nothing."""


def _text(figures: dict[str, float]) -> str:
    return "  ".join(f"{key} {value:.4g}" for key, value in figures.items())


def _percent(done: float) -> str:
    """Return a fraction in whole percent, rounded down, so that what is not done is not called 100 %."""
    return f"{math.floor(100 * done + 1e-9):3d}%"


class _Lines:
    """A plain line every few seconds, and at the end."""

    def __init__(self, every: float = _LINE_EVERY, first: float = 0.0, prefix: str = "") -> None:
        self._began = time.monotonic()
        self._next = self._began + first
        self._every, self._prefix, self._name, self._done = every, prefix, "", 0.0

    def update(self, name: str, done: float, figures: dict[str, float]) -> None:
        now = time.monotonic()
        if name != self._name or done < self._done:  # what is left is known of the work of now alone
            self._name, self._began = name, now
        self._done = done
        if now < self._next:
            return
        self._next = now + self._every
        spent = now - self._began
        left = f"  {spent * (1 - done) / done:.0f} s left" if done > 0.01 and spent > 0.1 else ""
        told = f"  {_text(figures)}" if figures else ""
        sys.stderr.write(f"{self._prefix}{name}: {_percent(done)}{told}{left}\n")

    def note(self, text: str) -> None:
        sys.stderr.write(text + "\n")

    def close(self, message: str) -> None:
        if message:
            sys.stderr.write(message + "\n")


class _Bar:
    """A live bar with the latest figures and the time left."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self._bar: Any = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[share]}", style="progress.percentage"),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._name, self._done, self._shown = "", 0.0, 0.0
        self._task = self._bar.add_task("", total=1.0, figures="", share=_percent(0.0))
        self._bar.start()

    def update(self, name: str, done: float, figures: dict[str, float]) -> None:
        now = time.monotonic()
        if name != self._name or done < self._done:
            self._name, self._shown = name, 0.0
            self._bar.reset(self._task, total=1.0)
        self._done = done
        if now - self._shown > _BAR_EVERY:
            self._shown = now
            self._bar.update(
                self._task, description=name, completed=done, figures=_text(figures), share=_percent(done)
            )

    def note(self, text: str) -> None:
        self._bar.console.print(text, markup=False, highlight=False)

    def close(self, message: str) -> None:
        self._bar.stop()
        if message:
            sys.stderr.write(message + "\n")


def make_progress(*, shown: bool) -> Progress:
    """Return a bar on a terminal, plain lines elsewhere, or nothing."""
    if not shown:
        return _Silent()
    return _Bar() if sys.stderr.isatty() else _Lines()


@contextmanager
def telling_progress(*, shown: bool, prefix: str = "", every: float | None = None) -> Iterator[None]:
    """Inside the block show how far work has come that tells it by `leadline.core.telling`.

    Args:
        shown: Whether to show anything.
        prefix: What plain lines begin with.
        every: Seconds between plain lines, and before the first; then there is no bar, whose place on the
            terminal several processes would fight for. None is a bar on a terminal, else 5 seconds.
    """
    if not shown:
        yield
        return
    bar = every is None and sys.stderr.isatty()
    pause = _LINE_EVERY if every is None else every
    progress: Progress = _Bar() if bar else _Lines(pause, pause, prefix)
    try:
        with listening(lambda name, done: progress.update(name, min(done, 1.0), {})):
            yield
    finally:
        progress.close("")
