"""Parts of a model as ranked words: the names of the dimensions that a part makes most probable."""

from torch import Tensor

from leadline.core import Domain, DomainError

__all__ = ["Ranking", "ranked"]

Ranking = list[list[tuple[str, float]]]


def ranked(p: Tensor, domain: Domain, count: int) -> Ranking:
    """Return the `count` most probable names of each part with their probabilities: (K, d).

    Args:
        p: Probability of each dimension in each part (K, d).
        domain: What the dimensions are called.
        count: Most names of a part.

    Raises:
        DomainError: If the dimensions have no names.
    """
    names = domain.names
    if not names:
        raise DomainError(f"the dimensions of {domain} have no names; words do, and columns of a file")
    weights, places = p.topk(min(count, len(names)), 1)
    return [
        [(names[place], weight) for place, weight in zip(row, values, strict=True)]
        for row, values in zip(places.tolist(), weights.tolist(), strict=True)
    ]
