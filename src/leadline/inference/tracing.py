r"""The way back through a junction tree: states chosen from the roots down, likeliest or drawn.

Once messages have passed up, a clique's table holds, for each state of its separator, the weights of its own
variables' states: the row is chosen there, and the cliques below follow.

Source:
    Dawid (1992), Applications of a general propagation algorithm for probabilistic expert systems,
    Statistics and Computing 2(1).
"""

import numpy as np

from leadline.inference.compiled import compiled
from leadline.inference.factors import Floats, Ints
from leadline.inference.sweeps import Forest, Shape

__all__ = ["trace"]


@compiled
def trace(forest: Forest, shape: Shape, sizes: Ints, tables: Floats, uniforms: Floats, x: Ints) -> None:
    """Walk from the roots down and write each row's states: the likeliest, or drawn with `uniforms` (n, c).

    Args:
        forest: The cliques.
        shape: How their tables lie.
        sizes: States left of each variable.
        tables: What `pass_up` left.
        uniforms: Draws from U[0, 1), or nothing for the likeliest state.
        x: Room for the rows (n, d).
    """
    starts, members, own, _, _ = forest
    for n in range(len(x)):
        for c in range(len(own) - 1, -1, -1):
            column = 0
            for i in range(starts[c] + own[c], starts[c + 1]):
                column = column * sizes[members[i]] + x[n, members[i]]
            columns = shape.columns[c]
            table = tables[shape.table_at[c] : shape.table_at[c + 1]]
            if len(uniforms):
                row = _drawn(table, shape.rows[c], columns, column, uniforms[n, c])
            else:
                row = int(np.argmax(table[column::columns]))
            for i in range(starts[c] + own[c] - 1, starts[c] - 1, -1):
                v = members[i]
                x[n, v] = row % sizes[v]
                row //= sizes[v]


@compiled
def _drawn(table: Floats, rows: int, columns: int, column: int, uniform: float) -> int:
    """Return a row drawn in proportion to a column of the table."""
    total = 0.0
    for r in range(rows):
        total += table[r * columns + column]
    left = uniform * total
    last = 0
    for r in range(rows):
        weight = table[r * columns + column]
        if weight > 0.0:
            last = r
            left -= weight
            if left < 0.0:
                return r
    return last
