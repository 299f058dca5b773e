"""pyAgrum's marginals: asked for at once where it is quick, kept in a file for networks that take it minutes.

python -m tests.inference.pyagrum_answers      writes that file anew: some 15 GB of memory, 10 minutes
"""

import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from bench.peers import in_pyagrum
from leadline.data.bif import read_bif
from leadline.data.networks import Network
from leadline.inference.factors import Factor, FactorGraph
from leadline.inference.graphs import topological_order

FOLDER = Path(__file__).parents[3] / "shared/data/bayesnets"
KEPT = Path(__file__).with_name("pyagrum_marginals.txt")
SLOW = ("link", "munin1")
SEED, FINDINGS = 2026, 3


@dataclass(frozen=True)
class Answer:
    """Evidence, the log of its probability in nats, and the distribution of each variable given it."""

    evidence: dict[int, int]
    log_evidence: float
    marginals: list[np.ndarray]


def network_of(name: str) -> Network:
    return read_bif(FOLDER / f"{name}.bif.gz")


def graph_of(network: Network) -> FactorGraph:
    pairs = zip(network.parents, network.tables, strict=True)
    factors = (Factor((*p, v), t / t.sum(-1, keepdims=True), child=v) for v, (p, t) in enumerate(pairs))
    return FactorGraph(tuple(map(len, network.values)), tuple(factors))


def findings_of(graph: FactorGraph, seed: int, count: int = FINDINGS) -> dict[int, int]:
    """Return states of some variables that occur together: of one draw, parents first."""
    rng, x = np.random.default_rng(seed), np.zeros(len(graph.sizes), dtype=np.int64)
    parents = [factor.scope[:-1] for factor in graph.factors]
    for v in topological_order(parents):
        x[v] = rng.choice(graph.sizes[v], p=graph.factors[v].table[tuple(x[list(parents[v])])])
    return {int(v): int(x[v]) for v in rng.permutation(len(x))[:count]}


def asked(network: Network, evidence: dict[int, int]) -> Answer:
    """Return what pyAgrum answers."""
    pyagrum = pytest.importorskip("pyagrum")
    engine = pyagrum.LazyPropagation(in_pyagrum(network, graph_of(network)))
    engine.setEvidence({f"v{v}": state for v, state in evidence.items()})
    engine.makeInference()
    marginals = [engine.posterior(f"v{v}").toarray() for v in range(len(network.values))]
    return Answer(evidence, math.log(engine.evidenceProbability()), marginals)


def kept(name: str) -> Answer:
    """Return what the file says that pyAgrum answered."""
    lines = KEPT.read_text().split(f"\nnetwork {name}\n")[1].split("\nnetwork ")[0].splitlines()
    words, columns = lines[0].split()[1:], network_of(name).columns
    pairs = (word.split("=") for word in words)
    rows = dict(line.split(" ", 1) for line in lines[2:])
    return Answer(
        {int(v): int(state) for v, state in pairs},
        float(lines[1].split()[1]),
        [np.array(rows[column].split(), dtype=float) for column in columns],
    )


def lines_of(name: str) -> list[str]:
    """Return the lines of the file about one network."""
    network = network_of(name)
    answer = asked(network, findings_of(graph_of(network), SEED))
    return [
        f"network {name}",
        " ".join(["evidence", *(f"{v}={state}" for v, state in answer.evidence.items())]),
        f"log_evidence {answer.log_evidence:.15g}",
        *(
            " ".join([column, *(f"{p:.15g}" for p in marginal)])
            for column, marginal in zip(network.columns, answer.marginals, strict=True)
        ),
    ]


def main() -> None:
    """Write the file."""
    import pyagrum

    text = [
        f"# All single marginals by pyAgrum {pyagrum.__version__} (LazyPropagation), 15 significant digits.",
        f"# Evidence: {FINDINGS} variables of a draw, numpy's default_rng({SEED}): VARIABLE=STATE by number.",
        "# Written by tests/inference/pyagrum_answers.py.",
    ]
    for name in SLOW:
        text += lines_of(name)
        sys.stderr.write(f"{name} done\n")
    KEPT.write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    main()
