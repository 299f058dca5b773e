"""What a catalog model costs on samples of a size, without any data or any memory for it."""

from typing import Any, cast

import torch

from leadline.catalog import build, model_class
from leadline.core import Batch, Classes, Domain, OptionError, Signature, VerbError, has_verb
from leadline.nets.cost import Cost, cost

__all__ = ["model_cost"]

# Numbers that an optimiser keeps for each parameter; two for the rest, Adam's kin.
STATE = {"sgd": 0, "momentum": 1, "nesterov": 1, "adagrad": 1, "rmsprop": 1}


def model_cost(name: str, domain: Domain, *, classes: int = 1000, batch: int = 8, **options: Any) -> Cost:
    """Return what a classifier of the catalog costs; see `leadline.nets.cost` for what is counted.

    Args:
        name: A catalog name of a model with `predict` and `loss`.
        domain: What one sample is.
        classes: Number of classes.
        batch: Samples of a batch.
        **options: Options of the model.

    Raises:
        OptionError: If a name, an option or a number is unknown or out of range.
        DomainError: If the model cannot hold the domain.
        VerbError: If it has no `predict` or no `loss`.

    Example:
        >>> from leadline.core import Images
        >>> found = model_cost("resnet50", Images(3, 224, 224))
        >>> found.parameters, round(found.multiply_adds / 1e9, 3)
        (25557032, 4.089)
    """
    if min(classes, batch) < 1:
        raise OptionError(f"classes and batch must be at least 1, got {classes} and {batch}")
    for verb in ("predict", "loss"):
        if not has_verb(model_class(name), verb):
            raise VerbError(f"{name} has no {verb}; its cost is that of predicting and of learning to")
    labels = Classes(tuple(str(number) for number in range(classes)))
    with torch.device("meta"):
        model = cast(Any, build(name, Signature(domain, labels), **options))
        x = torch.zeros(batch, *domain.shape, dtype=domain.dtype)
        given = Batch(x, torch.zeros(batch, dtype=torch.int64), complete=True)
        optimizer = getattr(model, "recommended", {}).get("optimizer", "adam")
        state = STATE.get(optimizer, 2)
        return cost(model, lambda: model.predict(x), lambda: model.loss(given), batch, state)
