"""Published weights: a file of tensors read safely, and put into a net by name.

torch files are read with `weights_only=True`, so nothing in a file is ever run. Names are torchvision's;
the dotted names of old DenseNet files and missing counts of batches are understood.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from leadline.core.errors import DataError
from leadline.nets.vision.blocks import VisionNet

__all__ = ["load_file", "tensors_in"]

_COUNTS = "num_batches_tracked"
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_OLD_DENSE = re.compile(r"(denselayer\d+\.(?:norm|conv|relu))\.(\d)\.")
_SHOWN = 3
_OBJECTS = "it holds objects of Python, not only tensors: save model.state_dict() alone"


def load_file(net: VisionNet, path: str | Path) -> dict[str, Any]:
    """Put the weights of a file into `net`, and return where they came from and what stayed new.

    A head or stem of another size keeps its own start; auxiliary heads may be missing or left over.

    Args:
        net: The net; changed in place.
        path: A torch or safetensors file of tensors by name.

    Returns:
        `weights` (the file's name), its `sha256`, how many tensors were `loaded`, and the layers that
        stayed `new`.

    Raises:
        DataError: If the file cannot be read or does not fit; what is missing and what is left over is
            counted, the first of each by name.
    """
    path = Path(path)
    held, own = tensors_in(path), net.state_dict()
    given = {key: value for key, value in held.items() if key in own}
    unlike = [key for key, value in given.items() if value.shape != own[key].shape]
    missing = [key for key in own if key not in held and not key.endswith(_COUNTS)]
    over = [key for key in held if key not in own and not key.endswith(_COUNTS)]
    absent = {layer for layer in net.auxiliary if not any(_within(key, layer) for key in held)}
    new = absent | {layer for layer in (*net.heads, *net.stems) if any(_within(key, layer) for key in unlike)}
    missing = [key for key in missing if not _any_within(key, new)]
    over = [key for key in over if not _any_within(key, (*new, *net.auxiliary))]
    wrong = [key for key in unlike if not _any_within(key, new)]
    if missing or over or wrong:
        raise DataError(f"{path}: does not fit; {_told(missing, over, wrong)}")
    taken = {key: value for key, value in given.items() if not _any_within(key, new)}
    for key, value in taken.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise DataError(f"{path}: {key} holds a number that is not finite")
    net.load_state_dict(own | taken)
    return {"weights": path.name, "sha256": _digest(path), "loaded": len(taken), "new": sorted(new)}


def tensors_in(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a torch or safetensors file by the names of today.

    Raises:
        DataError: If there is no such file, or it holds anything but tensors by name.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file of weights")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file as read

            found: Any = read(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file may raise anything
        raise DataError(f"{path}: cannot be read as weights: {_reason(error)}") from error
    for name in _WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(name), Mapping):
            found = found[name]
    plain = isinstance(found, Mapping) and all(isinstance(value, Tensor) for value in found.values())
    if not plain or not found:
        raise DataError(f"{path}: is no file of weights: it does not hold tensors by name")
    return {_renamed(str(key)): value for key, value in found.items()}


def _reason(error: Exception) -> str:
    """Return in a few words why a file cannot be read."""
    text = str(error)
    if "weights_only" in text or "Unsupported" in text:
        return _OBJECTS
    first = next(iter(text.splitlines()), "") or type(error).__name__
    return f"it is damaged, or no such file ({first[:80]})"


def _renamed(key: str) -> str:
    """Return a name as the nets spell it."""
    return _OLD_DENSE.sub(r"\1\2.", key.removeprefix("module."))


def _within(key: str, layer: str) -> bool:
    """Return whether a tensor belongs to a layer."""
    return key.startswith(f"{layer}.")


def _any_within(key: str, layers: Iterable[str]) -> bool:
    return any(_within(key, layer) for layer in layers)


def _told(missing: list[str], over: list[str], wrong: list[str]) -> str:
    """Return counts and the first names of what does not fit."""
    kinds = (("missing", missing), ("left over", over), ("of another shape", wrong))
    return "; ".join(f"{len(keys)} {kind}: {_first(keys)}" for kind, keys in kinds if keys)


def _first(keys: list[str]) -> str:
    more = ", ..." if len(keys) > _SHOWN else ""
    return ", ".join(keys[:_SHOWN]) + more


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
