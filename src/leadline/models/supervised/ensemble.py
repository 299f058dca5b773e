r"""Ensemble: several models that predict together.

    classes:  p(k | x) = 1/M sum_m p_m(k | x)
    targets:  E[t | x] = 1/M sum_m E_m[t | x]

Symbols:
    x (n, *shape) raw samples, M members, p_m what member m predicts.

Source:
    Hansen and Salamon (1990), Neural Network Ensembles, PAMI 12(10). Lakshminarayanan, Pritzel and Blundell
    (2017), Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles, section 2.4.

Departs from the source:
    Members that learn together see the same batches; they differ by their first weights and by what each
    draws while training. Members made by runs of their own differ in whatever those runs did.
"""

from collections.abc import Callable, Mapping, Sequence
from math import log
from typing import Any

import torch
from torch import Tensor, nn

from leadline.core import (
    Batch,
    Classes,
    DataError,
    Described,
    Domain,
    DomainError,
    Labels,
    OptionError,
    Player,
    VerbError,
    has_verb,
    require_verb,
)
from leadline.core.verbs import way_of
from leadline.models.supervised.labelled import required_labels

__all__ = ["Ensemble"]


class Ensemble(nn.Module):
    """Predicts by the mean probability, or the mean of means, of its members.

    Verbs:
        predict, encode (the codes of all members, one beside the other, if all have them)

    Args:
        domain: What one sample is.
        labels: What a label is.
        members: Models that predict such labels of such samples.

    Raises:
        OptionError: If there is no member.
        VerbError: If a member cannot predict.

    Example:
        >>> from leadline.core import Classes, Vectors
        >>> from leadline.models.supervised.linear import Linear
        >>> domain, labels = Vectors.standard(3), Classes(("a", "b"))
        >>> model = Ensemble(domain, labels, [Linear(domain, labels) for _ in range(4)])
        >>> model.predict(torch.zeros(5, 3)).shape
        torch.Size([5, 2])
    """

    def __init__(self, domain: Domain, labels: Labels, members: Sequence[nn.Module]) -> None:
        super().__init__()
        if not members:
            raise OptionError("an ensemble needs at least one member")
        for member in members:
            require_verb(member, "predict")
        self.domain = domain
        self.labels = labels
        self.members = nn.ModuleList(members)
        if not all(has_verb(member, "encode") for member in members):
            self.encode = None  # type: ignore[assignment, method-assign]
        self.recommended: dict[str, Any] = dict(getattr(members[0], "recommended", {}))
        self.decided: dict[str, Any] = {}
        self.origin: dict[str, Any] = {}

    @classmethod
    def for_data(
        cls,
        data: Described,
        *,
        build: Callable[..., nn.Module],
        member: str = "mlp",
        size: int = 5,
        options: dict[str, Any] | None = None,
        members: tuple[tuple[str, dict[str, Any]], ...] = (),
    ) -> "Ensemble":
        """Return an ensemble of `size` models called `member`, or of the `members` that are listed.

        Args:
            data: What samples and labels are.
            build: (name, data, **options) -> model, the catalog's.
            member: Name of the model that is built several times.
            size: Number of members, at least 1.
            options: Options of every member.
            members: Names of models, each with its options, in place of `member`, `size` and `options`.

        Raises:
            DomainError: If the data have no labels, or a member cannot hold them or cannot predict.
            OptionError: If `size` or an option is out of range.
        """
        labels = required_labels(data)
        if not isinstance(size, int) or size < 1:
            raise OptionError(f"size must be a whole number of at least 1, got {size!r}")
        listed = [_listed(entry) for entry in members] or [(member, _mapping(options))] * size
        made = [build(name, data, **more) for name, more in listed]
        for (name, _), one in zip(listed, made, strict=True):
            if not has_verb(one, "predict"):
                raise DomainError(
                    f"an ensemble needs members that predict Classes or Targets; {name} does not"
                )
        model = cls(data.domain, labels, made)
        # what a member settled itself, or needs no more (a file of weights), is not asked of it again
        recipes = [getattr(one, "recipe", None) for one in made]
        settled = [dict(getattr(recipe, "options", {})) for recipe in recipes]
        if members:
            pairs = zip(listed, settled, strict=True)
            model.decided = {"members": [[name, more] for (name, _), more in pairs]}
        else:
            model.decided = {"options": settled[0] or None}
        model.origin = dict(getattr(recipes[0], "origin", {}))
        return model

    def players(self) -> list[Player]:
        """Return the members, each with its own loss and an optimiser of its own.

        Raises:
            VerbError: If a member does not learn by gradient steps on one loss.
        """
        for number, member in enumerate(self.members, 1):
            if way_of(member) != "descend" or has_verb(member, "players"):
                raise VerbError(
                    f"member {number} does not learn by gradient steps on one loss: train each alone, then "
                    'join the runs with ll.ensemble(["runs/a", "runs/b"]) (leadline ensemble RUNS)'
                )
        return [
            Player(f"member {number}", list(member.parameters()), member.loss)  # type: ignore[arg-type]
            for number, member in enumerate(self.members, 1)
        ]

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean loss of what the members predict together, shape (); each learns by its own.

        Raises:
            DataError: If the batch has no labels.
        """
        if batch.y is None:
            raise DataError("an ensemble is judged by labels, but this batch has none")
        outputs = self.predict(batch.x)
        if not isinstance(self.labels, Classes):
            outputs = (outputs - outputs.new_tensor(self.labels.mean)) / outputs.new_tensor(self.labels.scale)
        return self.labels.loss(outputs, batch.y, batch.label_smoothing, complete=batch.complete)

    def predict(self, x: Tensor) -> Tensor:
        """Return log of the mean probability (n, K), or the mean of means (n, D): (n, *x) -> (n, outputs)."""
        told = torch.stack([member.predict(x) for member in self.members])  # type: ignore[operator]
        if isinstance(self.labels, Classes):
            return told.logsumexp(0) - log(len(self.members))
        return told.mean(0)

    def encode(self, x: Tensor) -> Tensor:
        """Return the codes of all members, one beside the other: (n, *x) -> (n, sum of widths)."""
        return torch.cat([member.encode(x).flatten(1) for member in self.members], 1)  # type: ignore[operator]


def _listed(entry: Any) -> tuple[str, dict[str, Any]]:
    """Return the name and the options of a listed member, as JSON may have kept them.

    Raises:
        OptionError: If it is not such a pair.
    """
    if isinstance(entry, str):
        raise OptionError(
            f'members are pairs of a name and options, e.g. ("mlp", {{}}), got "{entry}"; '
            'runs are joined by ll.ensemble(["runs/a", "runs/b"]) (leadline ensemble RUNS)'
        )
    if not (isinstance(entry, (list, tuple)) and len(entry) == 2 and isinstance(entry[0], str)):
        raise OptionError(f'members are pairs of a name and options, e.g. ("mlp", {{}}), got {entry!r}')
    return entry[0], _mapping(entry[1])


def _mapping(options: Any) -> dict[str, Any]:
    """Return options with lists as tuples.

    Raises:
        OptionError: If they are no mapping.
    """
    if not isinstance(options, Mapping | None):
        raise OptionError(f'options must be a mapping, e.g. {{"hidden": [64]}}, got {options!r}')
    return {key: tuple(v) if isinstance(v, list) else v for key, v in (options or {}).items()}
