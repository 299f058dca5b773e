"""What a training leaves behind as it goes: metrics, TensorBoard events, the run's description."""

import importlib.util
import json
import platform
import time
from io import TextIOWrapper
from typing import Any

import torch

from leadline.core import RunError
from leadline.training.files import write_json
from leadline.training.run import Run, read_metrics

__all__ = ["Record", "versions"]


def versions() -> dict[str, str]:
    """Return the versions that decide a result."""
    from importlib.metadata import version

    return {"leadline": version("leadline"), "torch": torch.__version__, "python": platform.python_version()}


class Record:
    """Metrics of a run in memory and, where it has a directory, on disk.

    Args:
        run: The run they belong to.
        writes: Whether this process writes files.
    """

    def __init__(self, run: Run, *, writes: bool) -> None:
        self.run = run
        self.folder = run.path if writes else None
        self._file: TextIOWrapper | None = None
        self._unsent: list[tuple[float, dict[str, Any]]] = []
        self._events: Any = None

    def start(self, resumed_at: int | None) -> None:
        """Open the files; records after step `resumed_at` belong to steps that are taken again."""
        if self.folder is None:
            return
        path = self.folder / "metrics.jsonl"
        kept = [] if resumed_at is None else read_metrics(path, resumed_at)
        self.run.metrics[:] = kept
        try:
            path.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")
            self._file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise RunError(f"cannot write {path}: {error.strerror}; choose another out=") from error

    def add(self, record: dict[str, Any]) -> None:
        """Add one record."""
        self.run.metrics.append(record)
        if self._file is not None:
            try:
                self._file.write(json.dumps(record) + "\n")
            except OSError as error:
                raise RunError(f"cannot write {self._file.name}: {error.strerror}") from error
            self._unsent.append((time.time(), record))

    def save(self, status: str | None = None, message: str = "") -> None:
        """Bring files up to date: metrics, events and, where `status` is given, run.json."""
        if status is not None:
            self.run.status, self.run.message = status, message
        if self.folder is None:
            return
        if self._file is not None:
            try:
                self._file.flush()
            except OSError as error:
                raise RunError(
                    f"cannot write {self._file.name}: {error.strerror}; free some space"
                ) from error
        self._send_events()
        if status is not None:
            write_json(self.folder / "run.json", self.run.to_json())

    def close(self) -> None:
        """Close the files."""
        if self._file is not None:
            try:
                self._file.close()
            except OSError as error:
                raise RunError(
                    f"cannot write {self._file.name}: {error.strerror}; free some space"
                ) from error
        if self._events is not None:
            self._events.close()

    def _send_events(self) -> None:
        """Write the records since the last call as TensorBoard events, where tensorboard is installed."""
        if self.folder is None or not self._unsent or importlib.util.find_spec("tensorboard") is None:
            return
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        if self._events is None:
            self._events = EventFileWriter(str(self.folder))
        for moment, record in self._unsent:
            values = [
                Summary.Value(tag=tag, simple_value=value)
                for tag, value in record.items()
                if isinstance(value, float)
            ]
            self._events.add_event(
                Event(wall_time=moment, step=record["step"], summary=Summary(value=values))
            )
        self._unsent.clear()
        self._events.flush()
