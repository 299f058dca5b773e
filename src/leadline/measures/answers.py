"""A model's answers on a split: batch by batch, in evaluation mode, on the model's device.

Symbols:
    n samples, d numbers of an answer.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from leadline.core import Classes, OptionError, ShapeError, require_verb
from leadline.core.randomness import generator_for
from leadline.core.telling import tell
from leadline.data import Dataset, Split
from leadline.measures.reading import MeasureError

__all__ = ["answers", "codes", "device_of", "draw", "evaluating", "known", "members_of", "split_of"]

BATCH = 256


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Switch `model` to evaluation without gradients, and every part back to its mode at the end."""
    training = [part for part in model.modules() if part.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part in training:
            part.training = True


def members_of(model: nn.Module) -> dict[str, nn.Module]:
    """Return the whole models that `model` is made of, by name: those in its `members`, if it has any."""
    members = getattr(model, "members", None)
    if not isinstance(members, nn.ModuleList):
        return {}
    names = [getattr(getattr(one, "recipe", None), "name", type(one).__name__) for one in members]
    return {
        f"member {number} ({name})": one
        for number, (name, one) in enumerate(zip(names, members, strict=True), 1)
    }


def device_of(model: nn.Module) -> torch.device:
    """Return the device of the first parameter or buffer, the CPU without any."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")


def split_of(data: Dataset, split: str) -> Split:
    """Return the split "train", "valid" or "test" of `data`, which must not be empty.

    Raises:
        OptionError: If there is no split of that name.
        MeasureError: If it is empty.
    """
    if split not in ("train", "valid", "test"):
        raise OptionError(f'unknown split "{split}"; known: train, valid, test')
    found: Split = getattr(data, split)
    if len(found) == 0:
        raise MeasureError(f"the {split} split of {data.name} holds no samples")
    return found


def known(data: Dataset, part: Split) -> Tensor:
    """Return which samples of `part` carry a label, (n,) bool.

    Raises:
        MeasureError: If the data have no labels, or none of these samples carries one.
    """
    if data.labels is None or part.y is None:
        raise MeasureError(f"this needs labels, and {data.name} has none")
    mask = data.labels.known(part.y)
    if not bool(mask.any()):
        raise MeasureError(f"none of the {len(part)} samples to be judged carries a label")
    if isinstance(data.labels, Classes) and int(part.y[mask].max()) >= data.labels.outputs:
        raise MeasureError(f"label {int(part.y.max())} is outside the {data.labels.outputs} classes")
    return mask


def answers(model: nn.Module, verb: str, part: Split, batch: int = BATCH) -> Tensor:
    """Return what `verb` says of every sample, on the CPU: (n, ...).

    Raises:
        VerbError: If the model has no such verb.
        ShapeError: If an answer does not hold one row a sample.
    """
    require_verb(model, verb)
    device, said = device_of(model), []
    with evaluating(model):
        for number, (x, _) in enumerate(part.batches(batch)):
            tell(verb, number * batch / max(len(part), 1))
            answer: Tensor = getattr(model, verb)(x.to(device))
            if not isinstance(answer, Tensor) or answer.dim() == 0 or len(answer) != len(x):
                found = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
                raise ShapeError(f"{verb} must return one row a sample: got {found} for {len(x)} samples")
            said.append(answer.detach().cpu())
    return torch.cat(said)


def codes(model: nn.Module, part: Split, name: str = "test") -> Tensor:
    """Return the codes of every sample in double precision, (n, d).

    Raises:
        MeasureError: If a code is not finite.
    """
    found = answers(model, "encode", part).flatten(1).double()
    bad = int((~torch.isfinite(found).all(1)).sum())
    if bad:
        raise MeasureError(f"encode gave NaN or infinity for {bad} of {len(found)} {name} samples")
    return found


def draw(model: nn.Module, count: int, *keys: object, batch: int = BATCH) -> Tensor:
    """Return `count` samples of a fixed stream that `keys` name, on the CPU: (count, *x).

    Raises:
        MeasureError: If a sample is not finite.
    """
    require_verb(model, "sample")
    device, parts = device_of(model), []
    generator = generator_for(0, "measures", *keys, device=device)
    with evaluating(model):
        for start in range(0, count, batch):
            tell("sample", start / count)
            size = min(batch, count - start)
            parts.append(model.sample(size, generator=generator).detach().cpu())  # type: ignore[operator]
    samples = torch.cat(parts)
    if len(samples) != count:
        raise ShapeError(f"sample must return as many rows as asked: got {len(samples)} for {count}")
    if samples.is_floating_point():
        bad = int((~torch.isfinite(samples.flatten(1)).all(1)).sum())
        if bad:
            raise MeasureError(f"sample gave NaN or infinity in {bad} of {count} samples")
    return samples
