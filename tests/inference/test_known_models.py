"""Public networks against pyAgrum, and public instances against their published answers."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leadline.core import ResourceError
from leadline.data.bif import read_bif
from leadline.data.networks import Network
from leadline.data.uai import read_evidence, read_marginals, read_partition, read_uai
from leadline.inference.asking import believe
from leadline.inference.elimination import relevant
from leadline.inference.factors import Factor, FactorGraph
from leadline.inference.junction_tree import JunctionTree
from leadline.inference.orders import find_cliques

SHARED = Path(__file__).parents[3] / "shared/data"
pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data")
# networks of small trees; link (247 MB) and munin1 (1.6 GB) follow below
NETWORKS = (
    "alarm", "andes", "asia", "cancer", "child", "diabetes", "earthquake", "hepar2", "insurance", "munin2",
    "pathfinder", "sachs", "water",
)  # fmt: skip
# answered within some 40 MB; bench/uai.py runs all 38
INSTANCES = (
    "Grids_12", "CSP_12", "Pedigree_11", "Pedigree_13", "Promedus_13", "Promedus_15", "Promedus_22",
    "Promedus_24", "Promedus_26", "Promedus_27", "Promedus_28", "Promedus_29", "Promedus_30", "Promedus_31",
    "Promedus_32", "Promedus_33", "Segmentation_11", "Segmentation_12", "Segmentation_14", "Alchemy_11",
)  # fmt: skip


def graph_of(network: Network) -> FactorGraph:
    pairs = zip(network.parents, network.tables, strict=True)
    factors = (Factor((*p, v), t / t.sum(-1, keepdims=True), child=v) for v, (p, t) in enumerate(pairs))
    return FactorGraph(tuple(map(len, network.values)), tuple(factors))


def peer_of(network: Network, graph: FactorGraph) -> Any:
    """Return the network in pyAgrum, whose own reader rounds to float32."""
    pyagrum = pytest.importorskip("pyagrum")
    peer = pyagrum.BayesNet()
    for v, values in enumerate(network.values):
        peer.add(pyagrum.LabelizedVariable(f"v{v}", "", [f"s{i}" for i in range(len(values))]))
    for v, parents in enumerate(network.parents):
        for p in parents:
            peer.addArc(f"v{p}", f"v{v}")
    for v, (parents, factor) in enumerate(zip(network.parents, graph.factors, strict=True)):
        names, cpt = [f"v{u}" for u in (*parents, v)], peer.cpt(f"v{v}")
        axes = [names.index(name) for name in reversed(cpt.names)]
        cpt[:] = np.ascontiguousarray(factor.table.transpose(axes))
    return peer


@pytest.mark.parametrize("name", NETWORKS)
def test_all_single_marginals_given_random_evidence_equal_pyagrums(name: str) -> None:
    network = read_bif(SHARED / f"bayesnets/{name}.bif.gz")
    graph = graph_of(network)
    tree, peer = JunctionTree(graph), peer_of(network, graph)
    pyagrum = pytest.importorskip("pyagrum")
    rng = np.random.default_rng(len(name))
    x = tree.sample(rng.random((1, len(tree.cliques.own))))[0]
    evidence = {int(v): int(x[v]) for v in rng.permutation(len(x))[:3]}
    engine = pyagrum.LazyPropagation(peer)
    engine.setEvidence({f"v{v}": state for v, state in evidence.items()})
    engine.makeInference()
    answer = tree.calibrate(evidence)
    for v, p in answer.marginals.items():
        np.testing.assert_allclose(p, engine.posterior(f"v{v}").toarray(), atol=1e-9)
    assert answer.log_partition == pytest.approx(math.log(engine.evidenceProbability()), abs=1e-8)
    one = believe(graph, evidence, [int(rng.integers(len(x)))])
    for v, p in one.marginals.items():
        np.testing.assert_allclose(p, answer.marginals[v], atol=1e-9)


@pytest.mark.parametrize("name", INSTANCES)
def test_instances_have_their_published_partition_function_and_marginals(name: str) -> None:
    path = SHARED / f"uai/{name}.uai"
    model = read_uai(path)
    evidence = read_evidence(f"{path}.evid", model.sizes)
    factors = tuple(Factor(scope, table) for scope, table in zip(model.scopes, model.tables, strict=True))
    found = believe(FactorGraph(model.sizes, factors), evidence, method="exact")
    published = read_partition(f"{path}.PR")  # six digits
    assert found.log_partition.value / math.log(10) == pytest.approx(published, rel=1e-5)
    for v, p in enumerate(read_marginals(f"{path}.MAR")):
        np.testing.assert_allclose(found.marginals[v], p, atol=1e-6)


def test_an_instance_beyond_the_memory_gets_an_estimate_between_bounds() -> None:
    path = SHARED / "uai/linkage_21.uai"
    model = read_uai(path)
    factors = tuple(Factor(scope, table) for scope, table in zip(model.scopes, model.tables, strict=True))
    found = believe(FactorGraph(model.sizes, factors), limit=1e9)
    assert found.kind == "estimate"
    assert "belief propagation" in found.method
    assert "no bound is known" in found.error.protocol or "unknown" in found.error.protocol
    published = read_partition(f"{path}.PR") * math.log(10)
    assert found.log_partition.interval is not None
    low, high = found.log_partition.interval
    assert low <= published <= high


@pytest.mark.parametrize(("name", "told"), [("link", "247 MB for tables of up to 14"), ("munin1", "1.62 GB")])
def test_a_huge_network_tells_its_need_first_then_answers_by_draws_with_their_error(
    name: str, told: str
) -> None:
    graph = graph_of(read_bif(SHARED / f"bayesnets/{name}.bif.gz"))
    with pytest.raises(ResourceError, match=told):
        believe(graph, method="exact", limit=1e8)
    heard: list[str] = []
    rough = believe(graph, limit=1e8, tell=heard.append)
    assert len(heard) == 1
    assert f"needs {told}" in heard[0]
    assert "treewidth at most" in rough.needs
    assert (rough.kind, rough.error.protocol) == ("estimate", "largest standard error")
    assert rough.error.value == pytest.approx(0.5 / math.sqrt(20_000), rel=0.02)
    heard.clear()
    try:
        exact = believe(graph, method="exact", tell=heard.append)
    except ResourceError as error:
        pytest.skip(str(error))
    assert told in heard[0]
    assert "more than" not in heard[0]
    for v, p in exact.marginals.items():
        assert (np.abs(rough.marginals[v] - p) <= 5 * rough.stderr[v] + 1e-12).all()
    peer = peer_of(read_bif(SHARED / f"bayesnets/{name}.bif.gz"), graph)
    pyagrum = pytest.importorskip("pyagrum")
    for v in range(0, len(graph.sizes), 7):
        if find_cliques(relevant(graph, [v])).states < 1e5:  # the peer is quick where few tables matter
            engine = pyagrum.LazyPropagation(peer)
            engine.setTargets({f"v{v}"})
            engine.makeInference()
            np.testing.assert_allclose(exact.marginals[v], engine.posterior(f"v{v}").toarray(), atol=1e-9)
