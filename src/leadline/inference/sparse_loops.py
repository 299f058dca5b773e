r"""The inner loops of sparse trees: walks over the states of a clique that no table rules out.

Tables are tries: a node for each beginning of a possible state, a slot for each state of the next variable,
-1 where nothing possible follows. A walk goes through the variables of a clique one after the other, those of
the separator first, and follows all its tables at once; where one of them has nothing, none is followed on.
What reaches the end has a positive weight, and nothing else is ever visited or stored.

Symbols:
    c clique, S variables of its separator, level the place of a variable in the walk.

Source:
    Veldhuizen (2014), Leapfrog Triejoin: a simple, worst-case optimal join algorithm, ICDT, section 3.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from leadline.inference.compiled import compiled
from leadline.inference.factors import Floats, Ints

__all__ = ["Slots", "Walks", "climb", "descend", "pick"]

Slots = NDArray[np.int32]


class Walks(NamedTuple):
    """What the walks of all cliques follow.

    Args:
        level_at: Where the levels of each clique start (c + 1,).
        variables: Variable of each level.
        sizes: States of each level's variable.
        separators: Levels of the separator of each clique, which come first (c,).
        step_at: Where the tables followed at each level start (levels + 1,).
        table: Which of the clique's tables is followed.
        depth: How many variables of it were followed before.
        slot_at: Where the slots of that depth start in the pool.
        value_at: Where its values start if it ends here, else -1.
        out_at: Where the slots of the message start, for each level of a separator.
        message_at: Where the values of each clique's message start (c,).
        in_at: Where the messages into each clique start (c + 1,).
        in_table: Which of the clique's tables a message is.
        in_depth: Its number of variables.
        in_value_at: Where its values start.
        tables: Most tables of a clique.
        deepest: Most variables of a table.
    """

    level_at: Ints
    variables: Ints
    sizes: Ints
    separators: Ints
    step_at: Ints
    table: Ints
    depth: Ints
    slot_at: Ints
    value_at: Ints
    out_at: Ints
    message_at: Ints
    in_at: Ints
    in_table: Ints
    in_depth: Ints
    in_value_at: Ints
    tables: int
    deepest: int


class _Walker(NamedTuple):
    """Where a walk is.

    Args:
        digits: State of each level, -1 before its first.
        weights: Product of all tables that end before each level.
        nodes: Node of each depth of each table.
    """

    digits: Ints
    weights: Floats
    nodes: Ints


@compiled
def _walker(w: Walks, c: int) -> _Walker:
    """Return a walk through a clique before its first state."""
    count = w.level_at[c + 1] - w.level_at[c]
    nodes = np.zeros((w.tables, w.deepest + 1), dtype=np.int64)
    return _Walker(np.full(count, -1), np.ones(count + 1), nodes)


@compiled
def _followed(w: Walks, level: int, digit: int, nodes: Ints, slots: Slots, values: Floats) -> float:
    """Follow the tables of a level to a state; return the product of those that end, -1 if one has none."""
    weight = 1.0
    for step in range(w.step_at[level], w.step_at[level + 1]):
        table, depth = w.table[step], w.depth[step]
        node = slots[w.slot_at[step] + nodes[table, depth] * w.sizes[level] + digit]
        if node < 0:
            return -1.0
        nodes[table, depth + 1] = node
        if w.value_at[step] >= 0:
            weight *= values[w.value_at[step] + node]
    return weight


@compiled
def _next(w: Walks, c: int, floor: int, walker: _Walker, slots: Slots, values: Floats) -> int:
    """Walk to the next possible state, with the levels below `floor` held.

    Returns the first level whose state changed, -1 after the last state.
    """
    first, last = w.level_at[c], w.level_at[c + 1]
    digits, weights, nodes = walker
    level = floor if digits[floor] < 0 else last - first - 1
    changed = level
    while level >= floor:
        changed = min(changed, level)
        digits[level] += 1
        if digits[level] == w.sizes[first + level]:
            level -= 1
            continue
        more = _followed(w, first + level, digits[level], nodes, slots, values)
        if more < 0:
            continue
        weights[level + 1] = weights[level] * more
        if first + level == last - 1:
            return changed
        level += 1
        digits[level] = -1
    return -1


@compiled
def climb(w: Walks, c: int, slots: Slots, values: Floats, maxima: bool) -> tuple[int, float]:  # noqa: FBT001
    """Write the message of a clique to its parent as a trie; return its rows, and its largest value.

    Args:
        w: The walks.
        c: The clique; its children have sent theirs.
        slots: Pool of slots, written to.
        values: Pool of values, written to.
        maxima: Whether the largest weight is sent, not the sum.
    """
    size_s, base = w.separators[c], w.message_at[c]
    walker = _walker(w, c)
    made = np.zeros(size_s + 1, dtype=np.int64)  # nodes of each depth of the message
    path = np.zeros(size_s + 1, dtype=np.int64)  # the last one of each
    rows, largest = 0, 0.0
    if size_s > 0:
        root, size = w.out_at[w.level_at[c]], w.sizes[w.level_at[c]]
        slots[root : root + size] = -1
    changed = _next(w, c, 0, walker, slots, values)
    while changed >= 0:
        _append(w, w.level_at[c], changed, walker.digits, made, path, slots)
        gathered = walker.weights[-1]
        changed = _next(w, c, 0, walker, slots, values)
        while changed >= size_s:
            weight = walker.weights[-1]
            gathered = max(gathered, weight) if maxima else gathered + weight
            changed = _next(w, c, 0, walker, slots, values)
        values[base + rows] = gathered
        rows += 1
        largest = max(largest, gathered)
    return rows, largest


@compiled
def _append(w: Walks, first: int, changed: int, digits: Ints, made: Ints, path: Ints, slots: Slots) -> None:
    """Add to a message the nodes of a row that is new from level `changed` on."""
    size_s = len(made) - 1
    for i in range(changed, size_s):
        node = made[i + 1]
        made[i + 1] += 1
        slots[w.out_at[first + i] + path[i] * w.sizes[first + i] + digits[i]] = node
        path[i + 1] = node
        if i + 1 < size_s:
            start = w.out_at[first + i + 1] + node * w.sizes[first + i + 1]
            slots[start : start + w.sizes[first + i + 1]] = -1


@compiled
def descend(
    w: Walks, c: int, slots: Slots, values: Floats, masses: Floats, flat: Floats, offsets: Ints
) -> None:
    """Add the probability of each state of a clique to its own variables and to the rows of its messages.

    Args:
        w: The walks.
        c: The clique; its parent has descended.
        slots: Pool of slots.
        values: Pool of values.
        masses: Of the message of c the factor from weight to probability; of those into it, what is added to.
        flat: What is added to for each variable, from its offset on.
        offsets: Where the states of each variable start.
    """
    first, size_s = w.level_at[c], w.separators[c]
    walker = _walker(w, c)
    row = w.message_at[c]  # rows come in the order in which they were written
    changed = _next(w, c, 0, walker, slots, values)
    while changed >= 0:
        p = walker.weights[-1] * masses[row]
        for i in range(size_s, len(walker.digits)):
            flat[offsets[w.variables[first + i]] + walker.digits[i]] += p
        for i in range(w.in_at[c], w.in_at[c + 1]):
            masses[w.in_value_at[i] + walker.nodes[w.in_table[i], w.in_depth[i]]] += p
        changed = _next(w, c, 0, walker, slots, values)
        if changed < size_s:
            row += 1


@compiled
def pick(w: Walks, c: int, slots: Slots, values: Floats, uniforms: Floats, order: Ints, x: Ints) -> None:
    """Choose the states of a clique's own variables, given those of its separator.

    Args:
        w: The walks; all messages are sent.
        c: The clique.
        slots: Pool of slots.
        values: Pool of values.
        uniforms: Draws from U[0, 1) (n,); none for the likeliest state.
        order: The rows of x, those of one separator together, the smallest draws first (n,).
        x: States, written to (n, d).
    """
    first = w.level_at[c]
    separator = w.variables[first : first + w.separators[c]]
    start = 0
    while start < len(order):
        end = start + 1
        while end < len(order) and (x[order[end]][separator] == x[order[start]][separator]).all():
            end += 1
        _pick_together(w, c, slots, values, uniforms, order[start:end], x)
        start = end


@compiled
def _held(w: Walks, c: int, x: Ints, slots: Slots, values: Floats) -> _Walker:
    """Return a walk through a clique with its separator held at the states in x."""
    walker = _walker(w, c)
    for i in range(w.separators[c]):
        level = w.level_at[c] + i
        more = _followed(w, level, x[w.variables[level]], walker.nodes, slots, values)
        walker.weights[i + 1] = walker.weights[i] * more
    return walker


@compiled
def _pick_together(
    w: Walks, c: int, slots: Slots, values: Floats, uniforms: Floats, rows: Ints, x: Ints
) -> None:
    """Choose states for rows of one separator: two walks, one for the sum and one that stops at each draw."""
    size_s = w.separators[c]
    own = w.variables[w.level_at[c] + size_s : w.level_at[c + 1]]
    walker = _held(w, c, x[rows[0]], slots, values)
    total, best = 0.0, -1.0
    while _next(w, c, size_s, walker, slots, values) >= 0:
        total += walker.weights[-1]
        if len(uniforms) == 0 and walker.weights[-1] > best:
            best = walker.weights[-1]
            x[rows[0]][own] = walker.digits[size_s:]
    if len(uniforms) == 0:
        return
    walker = _held(w, c, x[rows[0]], slots, values)
    done, below = 0, 0.0
    while done < len(rows) and _next(w, c, size_s, walker, slots, values) >= 0:
        below += walker.weights[-1]
        while done < len(rows) and uniforms[rows[done]] * total < below:
            x[rows[done]][own] = walker.digits[size_s:]
            done += 1
