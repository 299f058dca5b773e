"""What a person sees while a model learns: a live bar, or plain lines where there is no terminal."""

import sys
import time
from typing import Any, Protocol

__all__ = ["Progress", "make_progress"]

_LINE_EVERY = 5.0


class Progress(Protocol):
    """Something that is told how a training goes."""

    def update(self, name: str, done: float, figures: dict[str, float]) -> None:
        """Show the phase `name`, the fraction done, and the latest figures."""
        ...

    def note(self, text: str) -> None:
        """Show a remark that stays."""
        ...

    def close(self, message: str) -> None:
        """Show the last word."""
        ...


class _Silent:
    def update(self, name: str, done: float, figures: dict[str, float]) -> None:
        """Show nothing."""

    def note(self, text: str) -> None:
        """Show nothing."""

    def close(self, message: str) -> None:
        """Show nothing."""


def _text(figures: dict[str, float]) -> str:
    return "  ".join(f"{key} {value:.4g}" for key, value in figures.items())


class _Lines:
    """A plain line at the start, every few seconds, and at the end."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._next = self._began

    def update(self, name: str, done: float, figures: dict[str, float]) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _LINE_EVERY
        left = f"  {(now - self._began) * (1 - done) / done:.0f} s left" if done > 0.01 else ""
        sys.stderr.write(f"{name}: {done:4.0%}  {_text(figures)}{left}\n")

    def note(self, text: str) -> None:
        sys.stderr.write(text + "\n")

    def close(self, message: str) -> None:
        sys.stderr.write(message + "\n")


class _Bar:
    """A live bar with the latest figures and the time left."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self._bar: Any = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task("", total=1.0, figures="")
        self._bar.start()

    def update(self, name: str, done: float, figures: dict[str, float]) -> None:
        self._bar.update(self._task, description=name, completed=done, figures=_text(figures))

    def note(self, text: str) -> None:
        self._bar.console.print(text, markup=False, highlight=False)

    def close(self, message: str) -> None:
        self._bar.stop()
        sys.stderr.write(message + "\n")


def make_progress(*, shown: bool) -> Progress:
    """Return a bar on a terminal, plain lines elsewhere, or nothing."""
    if not shown:
        return _Silent()
    return _Bar() if sys.stderr.isatty() else _Lines()
