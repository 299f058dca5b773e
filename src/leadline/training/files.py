"""Files that are written whole or not at all, and tensors with their notes in one of them."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from leadline.core import RunError

__all__ = ["free_directory", "read_json", "read_tensors", "whole_file", "write_json", "write_tensors"]


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Return a temporary path beside `path` that takes its place once the block ends well.

    Raises:
        RunError: If the file cannot be written; what stood at `path` before still does.
    """
    temporary = Path(f"{path}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):  # it may not be there, nor its folder
            temporary.unlink()
        reason = getattr(error, "strerror", None) or error
        raise RunError(f"cannot write {path}: {reason}; free some space or choose another out=") from error


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON, whole.

    Raises:
        RunError: If it cannot be written.
    """
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        RunError: If there is none.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"cannot read {path}: {error}") from error
    if not isinstance(value, dict):
        raise RunError(f"cannot read {path}: it does not hold a JSON object")
    return value


def write_tensors(path: Path, tensors: dict[str, Tensor], note: dict[str, Any] | None = None) -> None:
    """Write named tensors and a JSON note as one safetensors file, whole.

    Raises:
        RunError: If it cannot be written.
    """
    # a copy each: safetensors refuses tensors that share memory
    plain = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()}
    metadata = {"format": "pt"} | ({"note": json.dumps(note)} if note is not None else {})
    with whole_file(path) as temporary:
        save_file(plain, temporary, metadata=metadata)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the note that `write_tensors` wrote.

    Raises:
        RunError: If the file is missing, cut short or not of this form.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            note = json.loads((file.metadata() or {}).get("note", "{}"))
    except (OSError, SafetensorError, ValueError) as error:
        raise RunError(f"cannot read {path}: {error}") from error
    return tensors, note


def free_directory(stem: Path) -> Path:
    """Return `stem` with the first number from 1 that is not taken, made as an empty folder."""
    for number in range(1, 1_000_000):
        path = Path(f"{stem}-{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise RunError(f"cannot make {path}: {error.strerror}; choose another out=") from error
        return path
    raise RunError(f"no free number for {stem}")
