"""All UAI instances: the partition function and the marginals, against the published answers.

Where the junction tree fits into --limit the answer must be exact; elsewhere belief propagation gives an
estimate of log Z between two bounds. What the limit is: bytes of tables over memory bandwidth, as in
`bench.graphical`; the largest trees here are 4.6 GB.

    python -m bench.uai [FOLDER of .uai files] [--limit=2GB]
"""

import csv
import math
import sys
import time
from pathlib import Path

import numpy as np

from leadline.data.uai import read_evidence, read_marginals, read_partition, read_uai
from leadline.inference.asking import believe
from leadline.inference.factors import Factor, FactorGraph
from leadline.inference.orders import find_cliques
from leadline.inference.pruning import pruned

FOLDER = Path(__file__).parents[2] / "shared/data/uai"


def one(path: Path, limit: float) -> str:
    """Return a row about one instance."""
    model = read_uai(path)
    evidence = read_evidence(f"{path}.evid", model.sizes)
    pairs = zip(model.scopes, model.tables, strict=True)
    graph = FactorGraph(model.sizes, tuple(Factor(scope, table) for scope, table in pairs))
    cliques = find_cliques(pruned(graph.given(evidence)).graph)
    start = time.perf_counter()
    found = believe(graph, evidence, limit=limit)
    spent = time.perf_counter() - start
    truth = read_partition(f"{path}.PR")
    log10 = found.log_partition.scaled(1 / math.log(10), "")
    answers = Path(f"{path}.MAR")
    gap = math.nan
    if answers.exists():
        published = read_marginals(answers)
        gap = max(float(np.abs(p - published[v]).max()) for v, p in found.marginals.items())
    between = "" if log10.interval is None else " in [{:.2f}, {:.2f}]".format(*log10.interval)
    took = f"width {cliques.width:2d}, {cliques.states * 8 / 1e6:9.3g} MB {spent:7.2f} s"
    answer = f"log10 Z {log10.value:12.6g}{between}, off {abs(log10.value - truth):.1e}"
    return f"{path.stem:20s} {took}  {found.kind:8s} {answer}; marginals off {gap:.1e}"


def main() -> None:
    """Print a row an instance."""
    plain = [word for word in sys.argv[1:] if not word.startswith("--")]
    limits = [word.removeprefix("--limit=").removesuffix("GB") for word in sys.argv[1:] if "--limit" in word]
    folder = Path(plain[0]) if plain else FOLDER
    limit = float(limits[0]) * 1e9 if limits else 2e9
    with (folder / "index.tsv").open() as file:
        names = [row["name"] for row in csv.DictReader(file, delimiter="\t")]
    for name in names:
        print(one(folder / f"{name}.uai", limit), flush=True)


if __name__ == "__main__":
    main()
