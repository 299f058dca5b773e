"""Two published grids of 16 bits with cycles: read as UAI text, log Z and a marginal by every exact way.

The tables are those of grid4x4 and grid4x4_with_triplets in the tests of pgmpy (MIT licence); log Z and
p(x_0 = 1) were found by summing over all 65,536 states and by contracting tensors, apart from this library.
"""

from pathlib import Path

import numpy as np
import pytest

from leadline.data.uai import read_uai
from leadline.inference.asking import believe
from leadline.inference.buckets import bound_partition
from leadline.inference.elimination import eliminate
from leadline.inference.factors import Factor, FactorGraph, enumerated
from leadline.models.graphical.markov_random_field import MarkovRandomField

SINGLES = (
    (0.54577, 1.8323), (0.93894, 1.065), (0.89205, 1.121), (0.56292, 1.7765), (0.47117, 2.1224),
    (1.5093, 0.66257), (0.48011, 2.0828), (2.6332, 0.37977), (1.992, 0.50202), (1.6443, 0.60817),
    (0.39909, 2.5057), (1.9965, 0.50087), (2.4581, 0.40681), (2.0481, 0.48826), (0.6477, 1.5439),
    (0.93844, 1.0656),
)  # fmt: skip
# two bits, their weight where they agree, and where they do not
PAIRS = (
    (0, 1, 1.3207, 0.75717), (1, 2, 0.00024189, 4134.2), (2, 3, 0.0043227, 231.34),
    (4, 5, 31.228, 0.032023), (5, 6, 0.43897, 2.278), (6, 7, 3033.9, 0.00032961),
    (8, 9, 314.11, 0.0031836), (9, 10, 0.3764, 2.6568), (10, 11, 3892.6, 0.0002569),
    (12, 13, 0.014559, 68.687), (13, 14, 20.155, 0.049615), (14, 15, 0.013435, 74.435),
    (0, 4, 16.14, 0.061959), (4, 8, 0.001312, 762.21), (8, 12, 0.00099042, 1009.7),
    (1, 5, 352.33, 0.0028383), (5, 9, 19.263, 0.051912), (9, 13, 141.3, 0.007077),
    (2, 6, 0.00023442, 4265.9), (6, 10, 134.43, 0.0074387), (10, 14, 0.00015823, 6320),
    (3, 7, 1994, 0.0005015), (7, 11, 0.022576, 44.295), (11, 15, 0.0018291, 546.72),
)  # fmt: skip
MORE = (
    (10, 15, 0.0018291, 546.72), (14, 9, 0.001312, 762.21), (0, 5, 0.00023442, 4265.9),
    (2, 7, 134.43, 0.0074387),
)  # fmt: skip


@pytest.mark.parametrize(
    ("pairs", "log_partition", "first"),
    [(PAIRS, 102.3488564195, 0.99395561), ((*PAIRS, *MORE), 108.5896918475, 0.99570808)],
    ids=["grid", "with triplets"],
)
def test_log_z_and_a_marginal_of_a_published_grid_are_found_by_every_exact_way(
    pairs: tuple[tuple[int, int, float, float], ...], log_partition: float, first: float, tmp_path: Path
) -> None:
    scopes = [f"1 {v}" for v in range(16)] + [f"2 {a} {b}" for a, b, *_ in pairs]
    tables = [f"2\n{a} {b}" for a, b in SINGLES] + [
        f"4\n{like} {not_} {not_} {like}" for *_, like, not_ in pairs
    ]
    path = tmp_path / "grid.uai"
    path.write_text("\n".join(["MARKOV", "16", " ".join(["2"] * 16), str(len(scopes)), *scopes, *tables]))
    file = read_uai(path)
    graph = FactorGraph(file.sizes, tuple(map(Factor, file.scopes, file.tables)))
    joint, total = enumerated(graph)
    assert total == pytest.approx(log_partition, abs=1e-9)
    assert joint.onto([0]).table[1] == pytest.approx(first, abs=1e-8)
    assert eliminate(graph, [0]).log_partition == pytest.approx(log_partition, abs=1e-9)
    assert bound_partition(graph) == pytest.approx((log_partition, log_partition), abs=1e-9)
    answer = MarkovRandomField.read(path).marginals()
    assert answer.kind == "exact"
    assert answer.log_partition.value == pytest.approx(log_partition, abs=1e-9)
    found = believe(graph, method="exact").marginals
    for v, p in found.items():
        np.testing.assert_allclose(p, joint.onto([v]).table, atol=1e-10)
