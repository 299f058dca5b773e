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

__all__ = ["DONE", "FULL", "PAUSED", "Climb", "Slots", "Walks", "begun", "climb", "descend", "pick", "probe"]

Slots = NDArray[np.int32]
DONE, FULL, PAUSED = 0, 1, 2
_FOREVER = 1 << 62


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
        ends: Whether this is its last variable.
        table_at: Where the tables that each clique follows start (c + 1,).
        inward_at: Where the messages among them start (c,).
        lengths: Number of variables of each table.
        roots: Where the slots of each table start in their pool; of a message, once it is made.
        bases: Where its values start in theirs.
        message: The table that each clique's message is (c,).
        deepest: Most variables of a table.
    """

    level_at: Ints
    variables: Ints
    sizes: Ints
    separators: Ints
    step_at: Ints
    table: Ints
    depth: Ints
    ends: Ints
    table_at: Ints
    inward_at: Ints
    lengths: Ints
    roots: Ints
    bases: Ints
    message: Ints
    deepest: int


class _Walker(NamedTuple):
    """Where a walk is.

    Args:
        digits: State of each level, -1 before its first.
        weights: Product of all tables that end before each level.
        nodes: Where each table's slots of each depth start; after its last variable, its value.
        bases: Where the values of each table start.
        at: The level to go on from, the first whose state changes, and nodes to visit before a pause (3,).
    """

    digits: Ints
    weights: Floats
    nodes: Ints
    bases: Ints
    at: Ints


class Climb(NamedTuple):
    """A message on its way.

    Args:
        walker: Where the walk through the clique is.
        path: Where the last row's slots of each depth start.
        counts: Slots taken of the pool, rows made, and what the walk said last (3,).
    """

    walker: _Walker
    path: Ints
    counts: Ints


@compiled
def _walker(w: Walks, c: int) -> _Walker:
    """Return a walk through a clique before its first state."""
    count = w.level_at[c + 1] - w.level_at[c]
    first, last = w.table_at[c], w.table_at[c + 1]
    nodes = np.zeros((last - first, w.deepest + 1), dtype=np.int64)
    nodes[:, 0] = w.roots[first:last]
    at = np.array([0, 0, _FOREVER])
    return _Walker(np.full(count, -1), np.ones(count + 1), nodes, w.bases[first:last], at)


@compiled
def _followed(w: Walks, level: int, digit: int, walker: _Walker, slots: Slots, values: Floats) -> float:
    """Follow the tables of a level to a state; return the product of those that end, -1 if one has none."""
    weight = 1.0
    nodes = walker.nodes
    for step in range(w.step_at[level], w.step_at[level + 1]):
        table, depth = w.table[step], w.depth[step]
        here = nodes[table, depth]
        onward = slots[here + digit]
        if onward < 0:
            return -1.0
        if w.ends[step]:
            here = walker.bases[table]
            weight *= values[here + onward]
        nodes[table, depth + 1] = here + onward
    return weight


@compiled
def _next(w: Walks, c: int, floor: int, walker: _Walker, slots: Slots, values: Floats) -> int:
    """Walk to the next possible state, with the levels below `floor` held.

    Returns the first level whose state changed, -1 after the last state, -2 for a pause.
    """
    first, last = w.level_at[c], w.level_at[c + 1]
    digits, weights = walker.digits, walker.weights
    level, changed, left = walker.at[0], walker.at[1], walker.at[2]
    while level >= floor:
        changed = min(changed, level)
        if left <= 0:
            walker.at[0], walker.at[1], walker.at[2] = level, changed, 0
            return -2
        digits[level] += 1
        if digits[level] == w.sizes[first + level]:
            level -= 1
            continue
        more = _followed(w, first + level, digits[level], walker, slots, values)
        if more < 0:
            continue
        left -= 1
        weights[level + 1] = weights[level] * more
        if first + level == last - 1:
            walker.at[0], walker.at[1], walker.at[2] = level, level, left
            return changed
        level += 1
        digits[level] = -1
    walker.at[2] = left
    return -1


@compiled
def begun(w: Walks, c: int, top: int) -> Climb:
    """Return the message of a clique before its first row.

    Args:
        w: The walks.
        c: The clique; its children have sent theirs.
        top: Where its slots start in the pool.
    """
    return Climb(_walker(w, c), np.full(w.separators[c] + 1, top), np.array([top, 0, -2]))


@compiled
def climb(
    w: Walks,
    c: int,
    slots: Slots,
    values: Floats,
    maxima: bool,  # noqa: FBT001
    way: Climb,
    patience: int,
) -> int:
    """Write the message of a clique to its parent as a trie, as far as there is room and patience.

    Args:
        w: The walks.
        c: The clique.
        slots: Pool of slots, written to.
        values: Pool of values, written to.
        maxima: Whether the largest weight is sent, not the sum.
        way: How far it is, changed.
        patience: Nodes to visit before a pause.

    Returns:
        DONE, FULL where a row finds no room in a pool, or PAUSED.
    """
    size_s, base = w.separators[c], w.bases[w.message[c]]
    first, walker, counts = w.level_at[c], way.walker, way.counts
    widest = w.sizes[first : first + size_s].sum()
    walker.at[2] = patience
    changed = counts[2] if counts[2] >= 0 else _next(w, c, 0, walker, slots, values)
    while changed >= 0:
        weight = walker.weights[-1]
        if changed < size_s or counts[1] == 0:
            if counts[0] + widest > len(slots) or base + counts[1] == len(values):
                counts[2] = changed
                return FULL
            _append(w, first, changed, walker.digits, way.path, counts, slots)
            values[base + counts[1] - 1] = weight
        else:
            at = base + counts[1] - 1
            values[at] = max(values[at], weight) if maxima else values[at] + weight
        changed = _next(w, c, 0, walker, slots, values)
    counts[2] = changed
    return DONE if changed == -1 else PAUSED


@compiled
def _append(w: Walks, first: int, changed: int, digits: Ints, path: Ints, counts: Ints, slots: Slots) -> None:
    """Add to a message the slots of a row that is new from level `changed` on."""
    size_s = len(path) - 1
    if counts[1] == 0 and size_s > 0:
        path[0] = _room(w.sizes[first], counts, slots)
    for i in range(changed, size_s):
        here = path[i] + digits[i]
        if i + 1 < size_s:
            path[i + 1] = _room(w.sizes[first + i + 1], counts, slots)
            slots[here] = path[i + 1] - path[i]
        else:
            slots[here] = counts[1]
    counts[1] += 1


@compiled
def _room(size: int, counts: Ints, slots: Slots) -> int:
    """Take slots of the pool, with nothing possible yet, and return where they start."""
    start = counts[0]
    counts[0] += size
    slots[start : start + size] = -1
    return start


@compiled
def probe(w: Walks, c: int, slots: Slots, values: Floats, uniforms: Floats) -> Floats:
    """Return from random ways down a clique's walk guesses of its nodes and its message's rows: (n, 2).

    A way that had b_1, b_2, ... choices stands for b_1 + b_1 b_2 + ... nodes, which is right on average.

    Args:
        w: The walks.
        c: The clique; its children have sent theirs.
        slots: Pool of slots.
        values: Pool of values.
        uniforms: Draws from U[0, 1), a column a level (n, levels).
    """
    first, size_s = w.level_at[c], w.separators[c]
    found = np.zeros((len(uniforms), 2))
    for i in range(len(uniforms)):
        walker = _walker(w, c)
        ways, rows = 1.0, 1.0
        for level in range(len(walker.digits)):
            open_ = np.array(
                [
                    s
                    for s in range(w.sizes[first + level])
                    if _followed(w, first + level, s, walker, slots, values) >= 0
                ]
            )
            ways *= len(open_)
            if ways == 0.0:
                break
            _followed(w, first + level, open_[int(uniforms[i, level] * len(open_))], walker, slots, values)
            found[i, 0] += ways
            if level < size_s:
                rows = ways
        if ways > 0.0:
            found[i, 1] = rows
    return found


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
    row = w.bases[w.message[c]]  # rows come in the order in which they were written
    tables = w.table_at[c]
    inner, count = w.inward_at[c] - tables, w.table_at[c + 1] - tables  # its factors come first
    changed = _next(w, c, 0, walker, slots, values)
    while changed >= 0:
        p = walker.weights[-1] * masses[row]
        for i in range(size_s, len(walker.digits)):
            flat[offsets[w.variables[first + i]] + walker.digits[i]] += p
        for table in range(inner, count):
            masses[walker.nodes[table, w.lengths[tables + table]]] += p
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
        more = _followed(w, level, x[w.variables[level]], walker, slots, values)
        walker.weights[i + 1] = walker.weights[i] * more
    walker.at[:2] = w.separators[c]
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
