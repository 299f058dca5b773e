r"""Compiled loops of the junction tree: tables multiplied into cliques, summed out of them, passed on.

A clique's table lies in memory with its own variables first and the separator to its parent last, both in
the order of elimination. So it is a matrix (own states, separator states): the message to the parent is the
sum of its rows, and the message from the parent scales its columns. A table over any other part of the clique
is matched with it by blocks of axes (`blocks`).

Numbers are plain, not logarithms, so that an exact zero stays one. Each message is scaled to sum to one (to a
largest entry of one for maxima) and the logarithms of the scales add up to log Z.

Symbols:
    c clique, m its members, R own states, S separator states, block: (size, step in the part's table).

Source:
    Jensen, Lauritzen and Olesen (1990), Bayesian updating in causal probabilistic networks by local
    computations (the division by the old separator); Koller and Friedman (2009), section 10.3.
"""

from typing import NamedTuple

import numpy as np

from leadline.inference.blocks import MOST_AXES, blocks_of, multiply_in, sum_onto
from leadline.inference.compiled import compiled
from leadline.inference.factors import Floats, Ints

__all__ = [
    "Content",
    "Forest",
    "Room",
    "Shape",
    "entries_of",
    "gathered",
    "layout",
    "made_room",
    "pass_down",
    "pass_up",
    "plain_cliques",
]


class Forest(NamedTuple):
    """Cliques, children before parents: starts and members, how many are own, parent, home of a variable."""

    starts: Ints
    members: Ints
    own: Ints
    parent: Ints
    home: Ints


class Shape(NamedTuple):
    """(R, S) of each clique, and where the tables of cliques and of separators start."""

    rows: Ints
    columns: Ints
    table_at: Ints
    message_at: Ints


class Content(NamedTuple):
    """The factors, one after another, and which of them each clique holds.

    Scopes are in the order of elimination, with the stride of each variable in the table; `child` is -1
    where a factor is no conditional distribution.
    """

    scope_at: Ints
    scopes: Ints
    strides: Ints
    value_at: Ints
    values: Floats
    child: Ints
    held_at: Ints
    held: Ints


class Room(NamedTuple):
    """Memory to work in: cliques, separators, a scale a clique, the largest factor, blocks of two tables."""

    tables: Floats
    messages: Floats
    scales: Floats
    scratch: Floats
    block: Ints
    step: Ints


def made_room(cells: int, entries: int, cliques: int, factor: int) -> Room:
    """Return room for tables of so many cells, messages of so many entries, and the largest factor."""
    blocks = np.zeros(MOST_AXES, dtype=np.int64), np.zeros(MOST_AXES, dtype=np.int64)
    return Room(np.empty(cells), np.empty(entries), np.empty(cliques), np.empty(factor), *blocks)


@compiled
def layout(forest: Forest, sizes: Ints) -> Shape:
    """Return how the tables lie for the states left of each variable."""
    starts, members, own, _, _ = forest
    count = len(own)
    rows, columns = np.ones(count, dtype=np.int64), np.ones(count, dtype=np.int64)
    table_at, message_at = np.zeros(count + 1, dtype=np.int64), np.zeros(count + 1, dtype=np.int64)
    for c in range(count):
        for i in range(starts[c], starts[c + 1]):
            if i < starts[c] + own[c]:
                rows[c] *= sizes[members[i]]
            else:
                columns[c] *= sizes[members[i]]
        table_at[c + 1] = table_at[c] + rows[c] * columns[c]
        message_at[c + 1] = message_at[c] + columns[c]
    return Shape(rows, columns, table_at, message_at)


@compiled
def _sliced(
    f: int,
    content: Content,
    values: Floats,
    sizes: Ints,
    observed: Ints,
    part: Floats,
    back: bool,  # noqa: FBT001
) -> int:
    """Copy a factor's values at the observed states to a part, axes in the order of elimination, or back.

    Returns the length of the part.
    """
    variables = content.scopes[content.scope_at[f] : content.scope_at[f + 1]]
    strides = content.strides[content.scope_at[f] : content.scope_at[f + 1]]
    turn = np.zeros(MOST_AXES, dtype=np.int64)
    length, place = 1, content.value_at[f]
    axes = len(variables)
    for i in range(axes):
        length *= sizes[variables[i]]
        if observed[variables[i]] >= 0:
            place += strides[i] * observed[variables[i]]
    inner = sizes[variables[axes - 1]] if axes else 1
    stride = strides[axes - 1] if axes else 0
    for t in range(0, length, inner):
        if back:
            for b in range(inner):
                values[place + b * stride] = part[t + b]
        else:
            for b in range(inner):
                part[t + b] = values[place + b * stride]
        for k in range(axes - 2, -1, -1):
            turn[k] += 1
            place += strides[k]
            if turn[k] < sizes[variables[k]]:
                break
            place -= strides[k] * sizes[variables[k]]
            turn[k] = 0
    return length


@compiled
def _filled(
    c: int, table: Floats, whole: Ints, sizes: Ints, observed: Ints, content: Content, room: Room
) -> bool:
    """Multiply the clique's factors into its table; return whether the table is still unwritten."""
    fresh = True
    for h in range(content.held_at[c], content.held_at[c + 1]):
        f = content.held[h]
        part = content.scopes[content.scope_at[f] : content.scope_at[f + 1]]
        length = _sliced(f, content, content.values, sizes, observed, room.scratch, back=False)
        count = blocks_of(whole, part, sizes, room.block, room.step)
        multiply_in(table, room.scratch[:length], room.block, room.step, count, fresh)
        fresh = False
    return fresh


@compiled
def _rows_summed(table: Floats, message: Floats) -> None:
    """Write the sum over own states (R, S) -> (S,)."""
    S = len(message)
    message[:] = 0.0
    for start in range(0, len(table), S):
        row = table[start : start + S]
        for s in range(S):
            message[s] += row[s]


@compiled
def _rows_maximised(table: Floats, message: Floats) -> None:
    """Write the largest over own states (R, S) -> (S,)."""
    S = len(message)
    message[:] = 0.0
    for start in range(0, len(table), S):
        row = table[start : start + S]
        for s in range(S):
            message[s] = max(message[s], row[s])


@compiled
def pass_up(
    forest: Forest, shape: Shape, sizes: Ints, observed: Ints, content: Content, plain: Ints, room: Room,
    maxima: bool,  # noqa: FBT001
) -> float:  # fmt: skip
    """Fill all cliques and pass messages from the leaves to the roots; return the log of the total weight.

    Args:
        forest: The cliques.
        shape: How their tables lie.
        sizes: States left of each variable.
        observed: The observed state of each variable, or -1.
        content: The factors.
        plain: Which cliques' messages are known to be constant and are not passed.
        room: Left holding products of factors and messages from below, the scaled messages, their scales.
        maxima: Whether to maximise in place of summing.

    Returns:
        log Z in nats, or log of the largest weight; -inf if no state agrees with the evidence.
    """
    first_child, next_sibling = _children(forest.parent)
    total = 0.0
    for c in range(len(forest.own)):
        whole = forest.members[forest.starts[c] : forest.starts[c + 1]]
        table = room.tables[shape.table_at[c] : shape.table_at[c + 1]]
        mixed = False
        fresh = _filled(c, table, whole, sizes, observed, content, room)
        k = first_child[c]
        while k >= 0:
            if plain[k] == 0:
                mixed = True
                part = forest.members[forest.starts[k] + forest.own[k] : forest.starts[k + 1]]
                below = room.messages[shape.message_at[k] : shape.message_at[k + 1]]
                count = blocks_of(whole, part, sizes, room.block, room.step)
                multiply_in(table, below, room.block, room.step, count, fresh)
                fresh = False
            k = next_sibling[k]
        if fresh:
            table[:] = 1.0
        message = room.messages[shape.message_at[c] : shape.message_at[c + 1]]
        if plain[c] == 1:
            message[:] = 1.0
            # every column has the same sum; it is one unless messages from below were scaled
            room.scales[c] = table[:: len(message)].sum() if mixed else 1.0
        else:
            room.scales[c] = _reduced(table, message, maxima)
        if not room.scales[c] > 0.0:
            return -np.inf
        total += np.log(room.scales[c])
    return total


@compiled
def _reduced(table: Floats, message: Floats, maxima: bool) -> float:  # noqa: FBT001
    """Write the scaled sums, or largest entries, over own states: (R, S) -> (S,); return the scale."""
    if maxima:
        _rows_maximised(table, message)
    else:
        _rows_summed(table, message)
    scale = message.max() if maxima else message.sum()
    if scale > 0.0:
        message /= scale
    return scale


@compiled
def _children(parent: Ints) -> tuple[Ints, Ints]:
    """Return the first child of each clique and the next child of the same parent, or -1."""
    first, following = np.full(len(parent), -1), np.full(len(parent), -1)
    for c in range(len(parent) - 1, -1, -1):
        if parent[c] >= 0:
            following[c] = first[parent[c]]
            first[parent[c]] = c
    return first, following


@compiled
def pass_down(
    forest: Forest, shape: Shape, sizes: Ints, wanted: Ints, room: Room, marginals: Floats, marginal_at: Ints
) -> None:
    """Pass messages from the roots to the leaves: cliques become beliefs, own variables get their marginals.

    Args:
        forest: The cliques.
        shape: How their tables lie.
        sizes: States left of each variable.
        wanted: Which cliques are asked for; with a clique its ancestors must be.
        room: What `pass_up` left; the wanted tables become joint distributions.
        marginals: Room for the distributions of all variables, over the states left.
        marginal_at: Where each variable's starts.
    """
    starts, members, own, parent, _ = forest
    block, step = room.block, room.step
    totals = np.empty(shape.rows.max() if len(own) else 1)
    for c in range(len(own) - 1, -1, -1):
        if wanted[c] == 0:
            continue
        message = room.messages[shape.message_at[c] : shape.message_at[c + 1]]
        ratio = np.zeros(len(message))
        if parent[c] >= 0:
            p = parent[c]
            whole = members[starts[p] : starts[p + 1]]
            count = blocks_of(whole, members[starts[c] + own[c] : starts[c + 1]], sizes, block, step)
            sum_onto(room.tables[shape.table_at[p] : shape.table_at[p + 1]], ratio, block, step, count)
        else:
            ratio[0] = 1.0
        for s in range(len(message)):
            ratio[s] = ratio[s] / (message[s] * room.scales[c]) if message[s] > 0.0 else 0.0
        _columns_scaled(room.tables[shape.table_at[c] : shape.table_at[c + 1]], ratio, totals)
        variables = members[starts[c] : starts[c] + own[c]]
        _marginals(totals[: shape.rows[c]], variables, sizes, marginals, marginal_at)


@compiled
def _columns_scaled(table: Floats, ratio: Floats, totals: Floats) -> None:
    """Multiply each column by its ratio, and write the sum of each row: (R, S), (S,) -> (R,)."""
    S = len(ratio)
    if S == 1:
        table *= ratio[0]
        totals[: len(table)] = table
        return
    for r in range(len(table) // S):
        row = table[r * S : r * S + S]
        total = 0.0
        for s in range(S):
            row[s] *= ratio[s]
            total += row[s]
        totals[r] = total


@compiled
def _marginals(joint: Floats, variables: Ints, sizes: Ints, marginals: Floats, marginal_at: Ints) -> None:
    """Write the marginals of all variables of a joint table, which is overwritten."""
    length = len(joint)
    for i in range(len(variables) - 1, -1, -1):
        v = variables[i]
        size = sizes[v]
        out = marginals[marginal_at[v] : marginal_at[v] + size]
        out[:] = 0.0
        rest = length // size
        for r in range(rest):
            total = 0.0
            for s in range(size):
                x = joint[r * size + s]
                out[s] += x
                total += x
            joint[r] = total
        length = rest


@compiled
def gathered(table: Floats, whole: Ints, part: Ints, sizes: Ints, room: Room, out: Floats) -> None:
    """Write a clique's table summed onto a part of its variables, both in the order of elimination."""
    count = blocks_of(whole, part, sizes, room.block, room.step)
    out[:] = 0.0
    sum_onto(table, out, room.block, room.step, count)


@compiled
def entries_of(
    forest: Forest, shape: Shape, sizes: Ints, observed: Ints, content: Content, room: Room, out: Floats
) -> None:
    """Write the probability of each entry of each factor's table, from cliques that `pass_down` left.

    Args:
        forest: The cliques.
        shape: How their tables lie.
        sizes: States left of each variable.
        observed: The observed state of each variable, or -1.
        content: The factors.
        room: What `pass_down` left.
        out: Written to as the values of `content` lie; entries of states that are ruled out stay.
    """
    for c in range(len(forest.own)):
        whole = forest.members[forest.starts[c] : forest.starts[c + 1]]
        table = room.tables[shape.table_at[c] : shape.table_at[c + 1]]
        for h in range(content.held_at[c], content.held_at[c + 1]):
            f = content.held[h]
            part = content.scopes[content.scope_at[f] : content.scope_at[f + 1]]
            length = 1
            for v in part:
                length *= sizes[v]
            gathered(table, whole, part, sizes, room, room.scratch[:length])
            _sliced(f, content, out, sizes, observed, room.scratch, back=True)


@compiled
def plain_cliques(forest: Forest, content: Content, observed: Ints) -> Ints:
    """Return which cliques' messages are constant: their subtree holds just its own variables' distributions.

    A subtree is so if no variable of its factors is observed, every factor is the distribution of a variable
    that is eliminated in the subtree, and there are as many factors as such variables.
    """
    count = len(forest.own)
    usable, plain = np.ones(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
    spare = forest.own.copy()  # variables of the subtree less its factors
    last = np.zeros(
        count, dtype=np.int64
    )  # the clique nearest the root where a subtree's child is eliminated
    for c in range(count):
        for h in range(content.held_at[c], content.held_at[c + 1]):
            f = content.held[h]
            spare[c] -= 1
            usable[c] &= content.child[f] >= 0
            last[c] = max(last[c], forest.home[content.child[f]])
            for i in range(content.scope_at[f], content.scope_at[f + 1]):
                usable[c] &= observed[content.scopes[i]] < 0
        plain[c] = usable[c] == 1 and spare[c] == 0 and last[c] <= c
        p = forest.parent[c]
        if p >= 0:
            spare[p] += spare[c]
            last[p] = max(last[p], last[c])
            usable[p] &= usable[c]
    return plain
