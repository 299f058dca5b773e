"""Which parameters stay as they are, and which learn at a rate of their own, by the names of their layers.

A prefix names a layer with all that is in it: "features" covers "features.0.weight", not "features2.weight".
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from torch import nn

from leadline.core import OptionError
from leadline.core.errors import nearest

__all__ = ["check_prefixes", "frozen", "grouped", "still_layers"]


def check_prefixes(model: nn.Module, prefixes: Sequence[str], setting: str) -> None:
    """Check that every prefix names a layer or a parameter of the model.

    Raises:
        OptionError: If one does not; the message has the nearest name.
    """
    names = [name for name, _ in model.named_parameters()]
    layers = {".".join(name.split(".")[:depth]) for name in names for depth in range(1, name.count(".") + 2)}
    for prefix in prefixes:
        if prefix not in layers:
            top = ", ".join(dict.fromkeys(name.split(".")[0] for name in names))
            raise OptionError(
                f'{setting}: no layer with parameters is called "{prefix}"{nearest(prefix, sorted(layers))}; '
                f"the outermost are {top or 'none'}"
            )


def _covers(prefix: str, name: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


@contextmanager
def frozen(model: nn.Module, prefixes: Sequence[str]) -> Iterator[int]:
    """Inside the block, parameters below the prefixes need no gradient; the block gets their number.

    Raises:
        OptionError: If a prefix is unknown, or nothing is left to learn.
    """
    check_prefixes(model, prefixes, "freeze")
    chosen = [
        value
        for name, value in model.named_parameters()
        if value.requires_grad and any(_covers(prefix, name) for prefix in prefixes)
    ]
    if chosen and len(chosen) == sum(value.requires_grad for value in model.parameters()):
        raise OptionError("freeze covers every parameter of the model: nothing is left to learn")
    for value in chosen:
        value.requires_grad = False
    try:
        yield sum(value.numel() for value in chosen)
    finally:
        for value in chosen:
            value.requires_grad = True


def still_layers(model: nn.Module, prefixes: Sequence[str]) -> list[nn.Module]:
    """Return the layers below the prefixes that keep running statistics, which must not move either."""
    return [
        layer
        for name, layer in model.named_modules()
        if isinstance(layer, nn.modules.batchnorm._NormBase) and any(_covers(p, name) for p in prefixes)
    ]


def grouped(
    model: nn.Module, parameters: Sequence[nn.Parameter], rates: Mapping[str, float]
) -> list[tuple[list[nn.Parameter], float | None]]:
    """Return `parameters` by learning rate, None for the common one; the longest prefix decides.

    Groups stand in the order in which their first parameters do, so that a state can be put back.
    """
    names = {id(value): name for name, value in model.named_parameters()}
    found: dict[str | None, list[nn.Parameter]] = {}
    for value in parameters:
        over = [prefix for prefix in rates if _covers(prefix, names.get(id(value), ""))]
        found.setdefault(max(over, key=len, default=None), []).append(value)
    return [(members, None if prefix is None else rates[prefix]) for prefix, members in found.items()]
