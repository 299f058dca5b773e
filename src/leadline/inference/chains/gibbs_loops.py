"""The compiled loop of Gibbs sampling on factor graphs: a chain a thread, a random stream a chain."""

from typing import Any

import numba
import numpy as np

from leadline.inference.compiled import kept
from leadline.inference.words import advanced, streams

__all__ = ["sweep", "weighed"]

_DROPPED, _UNIT = np.uint64(11), 1.0 / (1 << 53)  # a uniform takes the 53 higher bits of a word


@kept(parallel=True, error_model="numpy")
def sweep(x: Any, powers: Any, order: Any, seed: Any, sweeps: int, anyhow: bool, lists: Any) -> None:  # noqa: FBT001
    """Update the variables of x (c, d) in place, `sweeps` times len(order) draws a chain.

    Args:
        x: States, int64.
        powers: To which power each chain takes the factors, above zero (c,).
        order: The variables, in the order of a systematic scan.
        seed: What all randomness follows from.
        sweeps: Number of passes.
        anyhow: Pick the variable of each draw at random from `order`.
        lists: Logs of all factors, one after the other; number of states of each variable (d,); where its
            entries begin and end (d + 1,); offset and stride of each entry (e, 2); where its other variables
            begin and end (e + 1,); these and their strides (o, 2).
    """
    logs, sizes, ends, entries, other_ends, others = lists
    random = streams(seed, x.shape[0])
    widest = sizes.max()
    for chain in numba.prange(x.shape[0]):
        weights = np.empty(widest)
        s0, s1, s2, s3 = random[chain]
        for at in range(sweeps * len(order)):
            v = order[at % len(order)]
            if anyhow:
                word, s0, s1, s2, s3 = advanced(s0, s1, s2, s3)
                v = order[int((word >> _DROPPED) * _UNIT * len(order))]
            k = sizes[v]
            weights[:k] = 0.0
            for e in range(ends[v], ends[v + 1]):
                place, stride = entries[e, 0], entries[e, 1]
                for o in range(other_ends[e], other_ends[e + 1]):
                    place += x[chain, others[o, 0]] * others[o, 1]
                for state in range(k):
                    weights[state] += logs[place + state * stride]
            weights[:k] *= powers[chain]
            top = weights[:k].max()
            if top == -np.inf:
                continue
            total = 0.0
            for state in range(k):
                total += np.exp(weights[state] - top)
                weights[state] = total
            word, s0, s1, s2, s3 = advanced(s0, s1, s2, s3)
            threshold = (word >> _DROPPED) * _UNIT * total
            state = 0
            while state < k - 1 and weights[state] <= threshold:
                state += 1
            x[chain, v] = state


@kept(parallel=True, error_model="numpy")
def weighed(x: Any, lists: Any) -> Any:
    """Return the sum of the logs of all factors at each state, (c, d) -> (c,); lists as of `sweep`."""
    logs, _, ends, entries, other_ends, others = lists
    total = np.zeros(x.shape[0])
    for chain in numba.prange(x.shape[0]):
        for v in range(x.shape[1]):
            for e in range(ends[v], ends[v + 1]):
                place = entries[e, 0] + x[chain, v] * entries[e, 1]
                for o in range(other_ends[e], other_ends[e + 1]):
                    place += x[chain, others[o, 0]] * others[o, 1]
                # A factor has an entry with each of its variables.
                total[chain] += logs[place] / (1 + other_ends[e + 1] - other_ends[e])
    return total
