r"""Compiled loops over a table and a table of part of its variables, matched by blocks of axes.

Both tables have their axes in one order. Neighbouring axes of the whole that the part has, or lacks, are
taken together as a *block* of some size and a step in the part's table. Walking the blocks needs no index per
entry, and its two inner loops run over contiguous memory.

Source:
    None: it is bookkeeping. The operations are those of Koller and Friedman (2009), section 10.3.
"""

import numpy as np

from leadline.inference.compiled import compiled
from leadline.inference.factors import Floats, Ints

__all__ = ["MOST_AXES", "blocks_of", "multiply_in", "sum_onto"]

MOST_AXES = 64


@compiled
def blocks_of(whole: Ints, part: Ints, sizes: Ints, block: Ints, step: Ints) -> int:
    """Write the blocks of a clique's axes against a part's, innermost first; return how many, at least two.

    Both lists of variables are in the order of elimination; variables of one state do not count.
    """
    count, unit = 0, 1
    inside = False
    j = len(part) - 1
    for i in range(len(whole) - 1, -1, -1):
        size = sizes[whole[i]]
        if size == 1:
            continue
        while j >= 0 and sizes[part[j]] == 1:
            j -= 1
        match = j >= 0 and part[j] == whole[i]
        if match:
            j -= 1
        if count > 0 and match == inside:
            block[count - 1] *= size
        else:
            block[count] = size
            step[count] = unit if match else 0
            inside = match
            count += 1
        if match:
            unit *= size
    while count < 2:
        block[count], step[count] = 1, 0
        count += 1
    return count


@compiled
def multiply_in(table: Floats, part: Floats, block: Ints, step: Ints, count: int, fresh: bool) -> None:  # noqa: FBT001
    """Multiply a part's table into a clique's, or write it there if the clique's is fresh."""
    end, zero, one = np.uint64(len(table)), np.uint64(0), np.uint64(1)
    inner, outer = np.uint64(block[0]), np.uint64(block[1])
    along, across = np.uint64(step[0] > 0), np.uint64(step[1])
    turn = np.zeros(count, dtype=np.int64)
    t, s = zero, 0
    if fresh:
        table[:] = 1.0
    while t < end:
        u = np.uint64(s)
        if along == one:
            for _ in range(outer):
                for b in range(inner):
                    table[t + b] *= part[u + b]
                t += inner
                u += across
        else:
            for _ in range(outer):
                x = part[u]
                for b in range(inner):
                    table[t + b] *= x
                t += inner
                u += across
        s = _turned(turn, block, step, count, s)


@compiled
def sum_onto(table: Floats, part: Floats, block: Ints, step: Ints, count: int) -> None:
    """Add a clique's table, summed over what the part lacks, to the part's table."""
    end, zero, one = np.uint64(len(table)), np.uint64(0), np.uint64(1)
    inner, outer = np.uint64(block[0]), np.uint64(block[1])
    along, across = np.uint64(step[0] > 0), np.uint64(step[1])
    turn = np.zeros(count, dtype=np.int64)
    t, s = zero, 0
    while t < end:
        u = np.uint64(s)
        if along == one:
            for _ in range(outer):
                for b in range(inner):
                    part[u + b] += table[t + b]
                t += inner
                u += across
        else:
            for _ in range(outer):
                total = 0.0
                for b in range(inner):
                    total += table[t + b]
                part[u] += total
                t += inner
                u += across
        s = _turned(turn, block, step, count, s)


@compiled
def _turned(turn: Ints, block: Ints, step: Ints, count: int, place: int) -> int:
    """Turn the odometer of the outer blocks by one, and return the place in the part's table."""
    for k in range(2, count):
        turn[k] += 1
        place += step[k]
        if turn[k] < block[k]:
            return place
        place -= step[k] * block[k]
        turn[k] = 0
    return place
