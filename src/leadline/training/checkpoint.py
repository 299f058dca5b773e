"""The whole state of a training as one file: enough to go on bit for bit."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from leadline.core import RunError
from leadline.training.files import read_tensors, write_tensors
from leadline.training.machine import fill, whole

__all__ = [
    "LAST",
    "Position",
    "load_weights",
    "pack",
    "restore_optimizer",
    "restore_randomness",
    "unpack",
    "weights_of",
]

LAST = Path("state") / "last.safetensors"


@dataclass
class Position:
    """Where a training stands.

    Args:
        phase: Number of the phase (a stage, then the whole model).
        step: Steps taken in the phase.
        total: Steps taken in all.
        seconds: Time spent so far.
        best: Lowest validation figure of the phase, or None.
        stale: Validations since then.
        previous: Objective of the last sweep, or None.
        settled: Whether the phase ended by its own decision: no gain, or no patience left.
        free: Seconds of them that no budget is charged for: the first step of each process.
        begun: Seconds that were charged when the phase began; None if an older version wrote the state.
    """

    phase: int = 0
    step: int = 0
    total: int = 0
    seconds: float = 0.0
    best: float | None = None
    stale: int = 0
    previous: float | None = None
    settled: bool = False
    free: float = 0.0
    begun: float | None = None

    def next_phase(self, charged: float) -> None:
        """Move to the start of the next phase, when so many seconds were charged."""
        self.phase, self.step, self.best, self.stale = self.phase + 1, 0, None, 0
        self.previous, self.settled, self.begun = None, False, charged


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers by name, as plain tensors."""
    return {name: whole(value) for name, value in model.state_dict().items()}


def load_weights(model: nn.Module, weights: dict[str, Tensor], origin: str) -> None:
    """Copy `weights` into the model; a module whose sizes depend on what it learned makes room for them.

    Raises:
        RunError: If names or shapes differ; the message names the first few.
    """
    optional: set[str] = set()  # what runs of old do not hold
    for place, module in model.named_modules():  # a state as large as what was learned makes room first
        make_room = getattr(module, "make_room", None)
        if callable(make_room):
            prefix = f"{place}." if place else ""
            make_room(
                {n.removeprefix(prefix): tuple(w.shape) for n, w in weights.items() if n.startswith(prefix)}
            )
            optional |= {prefix + name for name in getattr(module, "may_lack", ())}
    own = {name: held for name, held in model.state_dict().items() if name in weights or name not in optional}
    missing, left = sorted(set(own) - set(weights)), sorted(set(weights) - set(own))
    unlike = [name for name in own if name in weights and own[name].shape != weights[name].shape]
    if missing or left or unlike:
        parts = (("missing", missing), ("left over", left), ("of another shape", unlike))
        told = "; ".join(f"{word}: {', '.join(names[:5])}" for word, names in parts if names)
        raise RunError(
            f"the weights in {origin} do not fit this model ({told}); use the options it was built with"
        )
    with torch.no_grad():
        for name, target in own.items():
            fill(target, weights[name])


def pack(
    path: Path,
    *,
    model: nn.Module,
    best: dict[str, Tensor] | None,
    optimizers: dict[str, Optimizer],
    position: Position,
    scaler: dict[str, Any],
    writes: bool,
) -> None:
    """Write the whole state to `path`; every process calls it and one `writes`.

    Raises:
        RunError: If it cannot be written; the state before is kept.
    """
    tensors = {f"model/{name}": value for name, value in weights_of(model).items()}
    tensors |= {f"best/{name}": value for name, value in (best or {}).items()}
    tensors["random/cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random/cuda"] = torch.cuda.get_rng_state()
    skeletons = {
        name: _flatten(optimizer.state_dict()["state"], f"optimizer/{name}", tensors)
        for name, optimizer in optimizers.items()
    }
    if writes:
        note = {"position": asdict(position), "optimizers": skeletons, "scaler": scaler}
        write_tensors(path, tensors, note)


def unpack(path: Path) -> tuple[dict[str, dict[str, Tensor]], Position, dict[str, Any]]:
    """Return tensors by section ("model", "best", "random"), the position and the note of a state file.

    Raises:
        RunError: If the file is not such a state.
    """
    tensors, note = read_tensors(path)
    sections: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "random": {}, "optimizer": {}}
    try:
        for name, value in tensors.items():
            section, _, rest = name.partition("/")
            sections[section][rest] = value
        return sections, Position(**note["position"]), note
    except (KeyError, TypeError) as error:
        raise RunError(f"{path} is not the state of a training: {error}") from error


def restore_optimizer(
    optimizer: Optimizer, name: str, tensors: dict[str, Tensor], note: dict[str, Any]
) -> None:
    """Put the saved state of the optimiser `name` back."""
    state = _grow(note["optimizers"][name], tensors)
    groups = optimizer.state_dict()["param_groups"]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for place, values in state.items():
        for key, value in values.items():
            values[key] = _like(parameters[int(place)], value)
    optimizer.load_state_dict({"state": {int(k): v for k, v in state.items()}, "param_groups": groups})


def restore_randomness(random: dict[str, Tensor]) -> None:
    """Put the global random states back."""
    torch.set_rng_state(random["cpu"])
    if "cuda" in random and torch.cuda.is_available():
        torch.cuda.set_rng_state(random["cuda"])


def _like(parameter: Tensor, value: Any) -> Any:
    """Return a saved tensor spread over processes as its parameter is."""
    if isinstance(value, Tensor) and type(parameter.data) is not Tensor and value.shape == parameter.shape:
        target = torch.zeros_like(parameter.data)
        fill(target, value)
        return target
    return value


def _flatten(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Return nested values with each tensor moved to `tensors` and its name in its place."""
    if isinstance(value, Tensor):
        tensors[name] = whole(value)
        return {"tensor": name}
    if isinstance(value, dict):
        return {
            "items": {str(key): _flatten(inner, f"{name}/{key}", tensors) for key, inner in value.items()}
        }
    if isinstance(value, (list, tuple)):
        return {"list": [_flatten(inner, f"{name}/{i}", tensors) for i, inner in enumerate(value)]}
    return {"value": value}


def _grow(skeleton: dict[str, Any], tensors: dict[str, Tensor]) -> Any:
    """Return what `_flatten` took apart."""
    if "tensor" in skeleton:
        return tensors[skeleton["tensor"].removeprefix("optimizer/")].clone()
    if "items" in skeleton:
        return {key: _grow(inner, tensors) for key, inner in skeleton["items"].items()}
    if "list" in skeleton:
        return [_grow(inner, tensors) for inner in skeleton["list"]]
    return skeleton["value"]
