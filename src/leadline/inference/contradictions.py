"""Which part of impossible evidence is impossible already."""

from collections.abc import Mapping

from leadline.core.errors import DataError
from leadline.inference.junction_tree import JunctionTree

__all__ = ["contradiction"]


def contradiction(tree: JunctionTree, evidence: Mapping[int, int]) -> dict[int, int]:
    """Return a part of evidence of probability zero of which every smaller part is possible.

    One observation after another is taken back if the rest stays impossible, the first ones first. There may
    be other such parts.
    """
    least = dict(evidence)
    for v in evidence:
        rest = {u: state for u, state in least.items() if u != v}
        if not _possible(tree, rest):
            least = rest
    return least


def _possible(tree: JunctionTree, evidence: Mapping[int, int]) -> bool:
    """Return whether evidence has a probability above zero."""
    try:
        tree.log_partition(evidence)
    except DataError:
        return False
    return True
