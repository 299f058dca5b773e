"""Public networks against pyAgrum, and public instances against their published answers."""

import math
from pathlib import Path

import numpy as np
import pytest

from leadline.core import ResourceError
from leadline.data.uai import read_evidence, read_marginals, read_partition, read_uai
from leadline.inference.asking import believe
from leadline.inference.factors import Factor, FactorGraph
from leadline.inference.junction_tree import JunctionTree
from tests.inference.pyagrum_answers import SEED, SLOW, asked, findings_of, graph_of, kept, network_of

SHARED = Path(__file__).parents[3] / "shared/data"
pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data")
# the peer answers for these at once; for link and munin1 (SLOW) its answers are kept in a file
NETWORKS = (
    "alarm", "andes", "asia", "barley", "cancer", "child", "diabetes", "earthquake", "hepar2", "insurance",
    "munin", "munin2", "munin3", "munin4", "pathfinder", "sachs", "water",
)  # fmt: skip
# answered within some 40 MB, linkage_21 and linkage_23 by what is possible of tables of 7 and 600 GB;
# bench/uai.py runs all 38
INSTANCES = (
    "Grids_12", "CSP_12", "Pedigree_11", "Pedigree_13", "Promedus_13", "Promedus_15", "Promedus_22",
    "Promedus_24", "Promedus_26", "Promedus_27", "Promedus_28", "Promedus_29", "Promedus_30", "Promedus_31",
    "Promedus_32", "Promedus_33", "Segmentation_11", "Segmentation_12", "Segmentation_14", "Alchemy_11",
    "linkage_21", "linkage_23",
)  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_all_single_marginals_given_random_evidence_equal_pyagrums(name: str) -> None:
    network = network_of(name)
    graph, evidence = graph_of(network), findings_of(graph_of(network), len(name))
    peer, answer = asked(network, evidence), JunctionTree(graph).calibrate(evidence)
    assert sorted(answer.marginals) == list(range(len(peer.marginals)))
    for v, p in answer.marginals.items():
        np.testing.assert_allclose(p, peer.marginals[v], rtol=0, atol=1e-9)
    assert answer.log_partition == pytest.approx(peer.log_evidence, abs=1e-8)
    asked_for = int(np.random.default_rng(len(name)).integers(len(graph.sizes)))
    one = believe(graph, evidence, [asked_for])
    np.testing.assert_allclose(one.marginals[asked_for], peer.marginals[asked_for], rtol=0, atol=1e-9)


def test_every_public_network_is_held_against_pyagrum() -> None:
    there = {path.name.removesuffix(".bif.gz") for path in (SHARED / "bayesnets").iterdir()}
    assert there == {*NETWORKS, *SLOW}


@pytest.mark.parametrize("name", SLOW)
def test_all_single_marginals_of_a_huge_network_equal_those_that_pyagrum_once_gave(name: str) -> None:
    graph, peer = graph_of(network_of(name)), kept(name)
    assert peer.evidence == findings_of(graph, SEED)
    try:
        found = believe(graph, peer.evidence, method="exact")
    except ResourceError as error:
        pytest.skip(str(error))
    assert sorted(found.marginals) == list(range(len(graph.sizes)))
    for v, p in found.marginals.items():
        np.testing.assert_allclose(p, peer.marginals[v], rtol=0, atol=1e-9)
    assert found.log_partition.value == pytest.approx(peer.log_evidence, abs=1e-8)


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
    found = believe(FactorGraph(model.sizes, factors), limit=1e8)
    assert found.kind == "estimate"
    assert "6.9 GB for tables of up to 25 variables" in found.needs
    assert "without impossible states more than the limit of 100 MB, at message" in found.needs
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
    graph = graph_of(network_of(name))
    with pytest.raises(ResourceError, match=f"{told}.* without impossible states"):
        believe(graph, method="exact", limit=1e7)
    heard: list[str] = []
    rough = believe(graph, limit=1e7, tell=heard.append)
    assert ["approximating" in line for line in heard] == [False, True]
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
