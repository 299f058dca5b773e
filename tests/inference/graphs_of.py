"""Factor graphs that tests share: random ones, and physics with known answers."""

import itertools

import numpy as np

from leadline.inference.factors import Factor, FactorGraph


def random_graph(seed: int, *, directed: bool = False, zeros: float = 0.1, most: int = 7) -> FactorGraph:
    """Return a graph of at most `most` variables of one to three states, some table entries zero."""
    rng = np.random.default_rng(seed)
    d = int(rng.integers(1, most + 1))
    sizes = tuple(int(size) for size in rng.integers(1, 4, d))
    factors = []
    for v in range(d if directed else int(rng.integers(0, 9))):
        if directed:
            scope = (*rng.permutation(v)[: rng.integers(0, min(3, v) + 1)].tolist(), v)
        else:
            scope = tuple(rng.permutation(d)[: rng.integers(0, min(4, d) + 1)].tolist())
        table = np.asarray(rng.random(tuple(sizes[u] for u in scope)))
        if directed:
            factors.append(Factor(scope, table / table.sum(-1, keepdims=True), child=v))
        else:
            factors.append(Factor(scope, np.where(rng.random(table.shape) < zeros, 0.0, table)))
    return FactorGraph(sizes, tuple(factors))


def random_evidence(graph: FactorGraph, seed: int) -> dict[int, int]:
    """Return a state for about a quarter of the variables."""
    rng = np.random.default_rng(seed)
    return {v: int(rng.integers(size)) for v, size in enumerate(graph.sizes) if rng.random() < 0.25}


def ising(sides: tuple[int, int], beta: float, field: float = 0.0, *, torus: bool = False) -> FactorGraph:
    """Return spins -1, +1 on a grid with weight exp(beta sum s s' + field sum s)."""
    rows, columns = sides
    pair = np.exp(beta * np.array([[1.0, -1.0], [-1.0, 1.0]]))
    number = {place: i for i, place in enumerate(itertools.product(range(rows), range(columns)))}
    factors = [Factor((v,), np.exp(field * np.array([-1.0, 1.0]))) for v in number.values()]
    for (i, j), v in number.items():
        for below, right in ((i + 1, j), (i, j + 1)):
            place = (below % rows, right % columns) if torus else (below, right)
            if place in number:
                factors.append(Factor((v, number[place]), pair))
    return FactorGraph((2,) * len(number), tuple(factors))
