"""All single marginals of Bayesian networks, against pyAgrum and pgmpy; reading BIF; what huge networks take.

What the limit is: a pass over the junction tree reads and writes each table entry about five times (factors
in, messages up, messages down, rows summed), at 8 bytes. water's 3.9 million entries are 31 MB a pass, so
some 150 MB in all: 15 ms at 10 GB/s. alarm's 1,277 entries are nothing; there the limit is the overhead of
27 cliques and of a call, some 30 microseconds. Two clocks a network:

    cold    build the tree, then answer (the peer builds its inference object too)
    warm    new evidence on the tree that is there (the peer keeps its object and gets new evidence)

    python -m bench.graphical [FOLDER of .bif.gz files] [--alarm ... | --pgmpy | --huge]
"""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.common import ratio, seconds
from bench.peers import in_pyagrum
from leadline.core import OptionError
from leadline.data.bif import read_bif
from leadline.data.networks import Network
from leadline.inference.asking import believe
from leadline.inference.budget import told_need
from leadline.inference.elimination import relevant
from leadline.inference.factors import Factor, FactorGraph
from leadline.inference.junction_tree import JunctionTree
from leadline.inference.orders import find_cliques
from leadline.inference.pruning import pruned

FOLDER = Path(__file__).parents[2] / "shared/data/bayesnets"
# network, findings, goal against pyAgrum
ROWS = (
    ("alarm", 3, 0.5), ("insurance", 3, 0.5), ("hepar2", 3, 0.5),
    ("water", 0, 1.0), ("andes", 0, 1.0), ("diabetes", 0, 1.0),
)  # fmt: skip


def graph_of(network: Network) -> FactorGraph:
    """Return the factors of a network, each row summing to one."""
    pairs = zip(network.parents, network.tables, strict=True)
    factors = (Factor((*p, v), t / t.sum(-1, keepdims=True), child=v) for v, (p, t) in enumerate(pairs))
    return FactorGraph(tuple(map(len, network.values)), tuple(factors))


def findings_of(graph: FactorGraph, count: int, sets: int = 8) -> list[dict[int, int]]:
    """Return sets of findings that can occur: of draws from the network."""
    rng = np.random.default_rng(0)
    tree = JunctionTree(graph)
    x = tree.sample(rng.random((sets, len(tree.cliques.own))))
    return [{int(v): int(row[v]) for v in rng.permutation(len(row))[:count]} for row in x]


def against_pyagrum(name: str, count: int, goal: float) -> None:
    """Print how our marginals compare in time and value with pyAgrum's lazy propagation."""
    import pyagrum

    network = read_bif(FOLDER / f"{name}.bif.gz")
    graph = graph_of(network)
    peer = in_pyagrum(network, graph)
    sets = findings_of(graph, count) if count else [{}]
    tree, engine = JunctionTree(graph), pyagrum.LazyPropagation(peer)
    turn = [0, 0]

    def ours(kept: JunctionTree | None) -> dict[int, Any]:
        turn[0] += 1
        return (kept or JunctionTree(graph)).calibrate(sets[turn[0] % len(sets)]).marginals

    def theirs(kept: Any) -> list[Any]:
        turn[1] += 1
        inference = kept or pyagrum.LazyPropagation(peer)
        inference.setEvidence({f"v{v}": s for v, s in sets[turn[1] % len(sets)].items()})
        inference.makeInference()
        return [inference.posterior(f"v{v}") for v in range(len(graph.sizes))]

    error = max(
        float(np.abs(p.toarray() - q).max()) for p, q in zip(theirs(engine), ours(tree).values(), strict=True)
    )
    what = f"{name}, {count} findings" if count else f"{name}, no findings"
    print(f"\n{what}: width {tree.width}, {tree.cliques.states:.3g} entries; largest difference {error:.1e}")
    ratio(f"{what}, cold, against pyAgrum", lambda: ours(None), lambda: theirs(None), goal=goal)
    if count:
        ratio(
            f"{what}, new findings on a calibrated tree",
            lambda: ours(tree),
            lambda: theirs(engine),
            goal=goal,
        )
    else:  # nothing new to ask: one finding comes and goes
        sets[:] = findings_of(graph, 1, 4)
        ratio(
            f"{name}, one new finding on a calibrated tree",
            lambda: ours(tree),
            lambda: theirs(engine),
            goal=goal,
        )


def pgmpy_of(network: Network, graph: FactorGraph) -> Any:
    """Return the same network in pgmpy."""
    from pgmpy.factors.discrete import TabularCPD
    from pgmpy.models import DiscreteBayesianNetwork

    model = DiscreteBayesianNetwork([(p, v) for v, parents in enumerate(network.parents) for p in parents])
    for v, parents in enumerate(network.parents):
        table = graph.factors[v].table
        cards = [graph.sizes[p] for p in parents]
        flat = table.reshape(-1, graph.sizes[v]).T
        model.add_cpds(TabularCPD(v, graph.sizes[v], flat, list(parents) or None, cards or None))
    return model


def against_pgmpy() -> None:
    """Print how our marginals of alarm compare in time with one elimination a variable in pgmpy."""
    import logging

    from pgmpy.inference import VariableElimination

    logging.disable(logging.WARNING)
    network = read_bif(FOLDER / "alarm.bif.gz")
    graph = graph_of(network)
    model = pgmpy_of(network, graph)
    findings = findings_of(graph, 3)[0]
    engine = VariableElimination(model)
    others = [v for v in range(len(graph.sizes)) if v not in findings]

    def theirs() -> None:
        for v in others:
            engine.query([v], evidence=findings, show_progress=False)

    tree = JunctionTree(graph)
    ratio("\nalarm, 3 findings, against pgmpy", lambda: tree.calibrate(findings), theirs, goal=20, rounds=3)


def timed(task: Callable[[], object], rounds: int = 5) -> str:
    """Return the median milliseconds of a task with their spread, after one call."""
    task()
    spent = sorted(seconds(task) * 1e3 for _ in range(rounds))
    return f"{statistics.median(spent):.3g} ms [{spent[0]:.3g}, {spent[-1]:.3g}]"


def single(graph: FactorGraph) -> None:
    """Print what one variable's distribution takes when nothing that cannot matter is touched."""
    one = len(graph.sizes) // 2
    kept = len(relevant(graph, [one]).factors)
    spent = timed(lambda: believe(graph, {}, [one]))
    print(f"  one variable, for which {kept} of {len(graph.factors)} tables matter: {spent}")


def huge() -> None:
    """Print what link and munin1 would take, then what they answer, roughly and exactly."""
    for name in ("link", "munin1"):
        graph = graph_of(read_bif(FOLDER / f"{name}.bif.gz"))
        start = time.perf_counter()
        cliques = find_cliques(pruned(graph).graph)
        print(f"\n{name}: {told_need(cliques)}, told after {time.perf_counter() - start:.2f} s")
        believe(graph, wanted=[0])  # compiled loops are loaded
        start = time.perf_counter()
        exact = believe(graph, method="exact").marginals
        print(f"  exact, all {len(exact)} marginals: {time.perf_counter() - start:.2f} s")
        single(graph)
        ways: dict[str, dict[str, Any]] = {"auto": {"limit": 1e8}, "loopy": {}, "gibbs": {}}
        for method, words in ways.items():
            start = time.perf_counter()
            try:
                rough = believe(graph, method=method, **words)
            except OptionError as error:
                print(f"  {method}: {error}")
                continue
            spent = time.perf_counter() - start
            gaps = np.concatenate([np.abs(rough.marginals[v] - p) for v, p in exact.items()])
            print(f"  {method}, {spent:.2f} s: {rough.method}; {rough.error.protocol} {rough.error}")
            print(f"    off by at most {gaps.max():.4f}, {gaps.mean():.5f} on average")


def main() -> None:
    parts = {word.removeprefix("--") for word in sys.argv[1:] if word.startswith("--")}
    if "huge" in parts:
        huge()
        return
    print(f"reading link.bif.gz: {timed(lambda: read_bif(FOLDER / 'link.bif.gz'))}, goal 1000 ms")
    print(f"reading diabetes.bif.gz (5.5 MB): {timed(lambda: read_bif(FOLDER / 'diabetes.bif.gz'), 3)}")
    for name, count, goal in ROWS:
        if not parts or name in parts:
            against_pyagrum(name, count, goal)
    if not parts or "pgmpy" in parts:
        against_pgmpy()


if __name__ == "__main__":
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
        FOLDER = Path(sys.argv[1])
    main()
