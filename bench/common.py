"""Time ours and a peer in turn in one process, and print the ratio with its spread."""

import statistics
import time
from collections.abc import Callable


def seconds(task: Callable[[], object]) -> float:
    """Return the wall seconds of one call."""
    start = time.perf_counter()
    task()
    return time.perf_counter() - start


def ratio(
    name: str, ours: Callable[[], object], peer: Callable[[], object], *, goal: float, rounds: int = 7
) -> float:
    """Print and return the median of peer / ours over rounds taken in turn; above 1, ours is faster.

    Args:
        name: What is measured and against what.
        ours: One unit of our work.
        peer: The same unit of the peer's work.
        goal: The ratio that is asked for.
        rounds: Number of pairs after one warm-up pair.
    """
    ours(), peer()
    pairs = [(seconds(ours), seconds(peer)) for _ in range(rounds)]
    ratios = sorted(b / a for a, b in pairs)
    middle = statistics.median(ratios)
    mine, theirs = (statistics.median(column) * 1e3 for column in zip(*pairs, strict=True))
    verdict = "met" if middle >= goal else "MISSED"
    print(
        f"{name}: ours {mine:.3g} ms, peer {theirs:.3g} ms, ratio {middle:.2f} "
        f"[{ratios[0]:.2f}, {ratios[-1]:.2f}], goal {goal:g}: {verdict}"
    )
    return middle
