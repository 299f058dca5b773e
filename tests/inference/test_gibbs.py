"""Gibbs sampling and exact transition matrices on targets of few states, by enumeration."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from leadline.core import LeadlineError
from leadline.core.randomness import generator_for
from leadline.inference import chains
from leadline.inference.annealed import sandwich
from leadline.inference.chains import Gibbs, Metropolis, Proposed, Tempering
from leadline.inference.chains.gibbs import Scan, coloured
from leadline.inference.factors import Factor, FactorGraph, enumerated
from leadline.laws.summation import chi_square
from tests.programs import program

SCANS: tuple[Scan, ...] = ("systematic", "random", "colours")


def graph_of(sizes: tuple[int, ...], scopes: list[tuple[int, ...]], seed: int = 0) -> FactorGraph:
    random = np.random.default_rng(seed)
    tables = (0.1 + random.random([sizes[v] for v in scope]) for scope in scopes)
    return FactorGraph(sizes, tuple(Factor(s, t) for s, t in zip(scopes, tables, strict=True)))


MIXED = graph_of((2, 3, 1, 2, 2), [(0, 1), (1, 2), (3, 0), (4, 1, 0), (3,), (0,)])
BINARY = graph_of((2,) * 6, [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 0), (1, 4)], 1)


def target(graph: FactorGraph) -> Tensor:
    return torch.from_numpy(enumerated(graph)[0].table.ravel().copy())


def code(x: Tensor, sizes: tuple[int, ...]) -> Tensor:
    place = torch.zeros(len(x), dtype=torch.int64)
    for v, size in enumerate(sizes):
        place = place * size + x[:, v].cpu()
    return place


def assert_follows(counts: Tensor, p: Tensor) -> None:
    """A chi-square test that fails once in some 30,000 honest runs."""
    assert float(counts[p == 0].sum()) == 0
    statistic, degrees = chi_square(counts[p > 0].double(), p[p > 0])
    assert statistic < degrees + 4 * math.sqrt(2 * degrees) + 8


@pytest.mark.parametrize("graph", [MIXED, BINARY], ids=["mixed", "binary"])
@pytest.mark.parametrize("scan", SCANS)
def test_every_scan_leaves_the_target_unchanged(graph: FactorGraph, scan: Scan) -> None:
    P, pi = Gibbs(graph, scan).transition_matrix(), target(graph)
    assert torch.allclose(P.sum(1), torch.ones(len(P)).double(), atol=1e-12)
    assert float((pi @ P - pi).abs().max()) < 1e-14
    assert torch.allclose(chains.stationary(P), pi, atol=1e-12)


def test_detailed_balance_holds_for_the_random_scan_and_fails_for_the_systematic_one() -> None:
    pi = target(BINARY)
    assert chains.balance_error(Gibbs(BINARY, "random").transition_matrix(), pi) < 1e-15
    assert chains.balance_error(Gibbs(BINARY, "systematic").transition_matrix(), pi) > 1e-4


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("scan", SCANS)
def test_a_step_moves_as_its_matrix_says(scan: Scan, compiled: bool) -> None:
    kernel, n = Gibbs(MIXED, scan), 40_000
    P, start = kernel.transition_matrix(), torch.tensor([1, 2, 0, 0, 1])
    state = kernel.init(start.repeat(n, 1))
    generator = generator_for(0, scan, compiled)
    if compiled:
        x = kernel.step(state, generator)[0].position
    else:
        x = state.position.clone()
        kernel._blocks(x, generator)
    counts = torch.bincount(code(x, MIXED.sizes), minlength=len(P))
    assert_follows(counts, P[int(code(start[None], MIXED.sizes))])


def test_two_sweeps_are_one_after_the_other() -> None:
    P = Gibbs(MIXED).transition_matrix()
    assert torch.allclose(Gibbs(MIXED, sweeps=2).transition_matrix(), P @ P)


def test_variables_of_a_colour_share_no_factor() -> None:
    groups = coloured([sorted(near) for near in BINARY.neighbours])
    assert sorted(v for group in groups for v in group) == list(range(6))
    for group in groups:
        assert all(u not in BINARY.neighbours[v] for u in group for v in group)
    assert len(coloured([[1, 3], [0, 2], [1, 3], [0, 2]])) == 2


def test_many_chains_find_the_marginals_given_evidence() -> None:
    graph = BINARY.given({2: 1})
    kernel = Gibbs(graph)
    start = kernel.start(4000, generator_for(0))
    state = kernel.init(start)
    for _ in range(30):
        state, _ = kernel.step(state, generator_for(1, int(state.position.sum())))
    share = (state.position == 0).double().mean(0)
    joint = enumerated(graph)[0]
    for v in (0, 1, 3, 4, 5):
        truth = float(joint.onto((v,)).table[0])
        assert abs(float(share[v]) - truth) < 4.5 * math.sqrt(truth * (1 - truth) / 4000)
    assert float(share[2]) == 1.0


def test_states_of_weight_zero_are_never_visited_and_starts_have_weight() -> None:
    table = np.array([[0.5, 0.0, 0.5], [0.0, 1.0, 0.0], [0.3, 0.3, 0.4]])
    graph = FactorGraph(
        (3, 3, 2), (Factor((0, 1), table), Factor((1, 2), np.array([[1, 0], [0, 1], [1, 1.0]])))
    )
    for scan in SCANS:
        kernel = Gibbs(graph, scan)
        state = kernel.init(kernel.start(500, generator_for(0)))
        for _ in range(5):
            state, _ = kernel.step(state)
            assert bool(torch.isfinite(kernel.log_density(state.position)).all())


def test_the_result_does_not_depend_on_the_number_of_threads() -> None:
    kernel, ends = Gibbs(MIXED), []
    before = torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        state = kernel.init(torch.zeros(300, 5).long())
        ends.append(kernel.step(state, generator_for(0))[0].position)
    torch.set_num_threads(before)
    assert torch.equal(ends[0], ends[1])


STARTS = {
    "packing": "from leadline.inference.ising import Lattice, LatticeGibbs\n"
    "LatticeGibbs(Lattice(2, 2, 0.1)).init(torch.ones(1, 2, 2))",
    "unpacking": "from leadline.inference.ising import LatticeState\n"
    "LatticeState(torch.zeros(1, 2, 2, dtype=torch.int64), 1).position",
    "sweeping": "from leadline.inference.chains import Gibbs\n"
    "from leadline.inference.factors import Factor, FactorGraph\n"
    "kernel = Gibbs(FactorGraph((2,), (Factor((0,), torch.ones(2).numpy()),)))\n"
    "kernel.powered(torch.zeros(1, 1).long(), torch.ones(1).double())",
}


@pytest.mark.parametrize("start", STARTS)
def test_the_threads_of_compiled_loops_leave_those_of_torch_alone(start: str) -> None:
    told = "print(torch.get_num_threads())"  # torch looks at its own number anew the first time it is asked
    code = f"import torch\ntorch.set_num_threads(1)\n{told}\n{STARTS[start]}\n{told}"
    assert program("-c", code, check=True).stdout.split() == ["1", "1"]  # the loops start in that process


def single_flips(d: int) -> Tensor:
    """Return the proposal that flips one of d bits, each with 1 / (d + 1), or none."""
    s = 1 << d
    Q = torch.eye(s).double() / (d + 1)
    for bit in range(d):
        Q[torch.arange(s), torch.arange(s) ^ (1 << bit)] += 1 / (d + 1)
    return Q


def test_metropolis_hastings_is_reversible_and_stationary_even_with_a_lopsided_proposal() -> None:
    pi = target(BINARY)
    lopsided = torch.rand(64, 64, generator=generator_for(0), dtype=torch.float64)
    lopsided[lopsided < 0.3] = 0.0
    lopsided = lopsided / lopsided.sum(1, keepdim=True)
    for Q in (single_flips(6), lopsided):
        P = chains.metropolis_matrix(pi.log() + 3.0, Q)
        assert float((pi @ P - pi).abs().max()) < 1e-14
        assert chains.balance_error(P, pi) < 1e-15
    # without the ratio of the proposals the lopsided one goes wrong
    wrong = lopsided * (pi[None] / pi[:, None]).clamp(max=1.0)
    wrong = wrong + (1 - wrong.sum(1)).diag()
    assert float((pi @ wrong - pi).abs().max()) > 1e-3


def test_the_metropolis_kernel_moves_as_its_matrix_says() -> None:
    d, n, sizes = 3, 40_000, (2, 2, 2)
    graph = graph_of(sizes, [(0, 1), (1, 2), (0, 2)], 3)
    weights = torch.from_numpy(graph.log_weight(np.array(list(np.ndindex(*sizes)))))

    def flip(x: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        which = torch.randint(d + 1, (len(x), 1), generator=generator)
        return x ^ (torch.arange(d) == which).long(), torch.zeros(len(x)).double()

    kernel = Metropolis(lambda x: weights[code(x, sizes)], Proposed(flip))
    P = chains.metropolis_matrix(weights, single_flips(d))
    state, _ = kernel.step(kernel.init(torch.tensor([[0, 1, 1]]).repeat(n, 1)), generator_for(0))
    assert_follows(torch.bincount(code(state.position, sizes), minlength=8), P[3])


def test_parallel_tempering_on_pairs_of_states_leaves_the_product_unchanged() -> None:
    graph = graph_of((2, 3), [(0, 1)], 5)
    w = torch.from_numpy(graph.log_weight(np.array(list(np.ndindex(2, 3)))))
    b = torch.tensor([1.0, 0.4], dtype=torch.float64)
    uniform = torch.full((6, 6), 1 / 6, dtype=torch.float64)
    hot, cold = (torch.softmax(power * w, 0) for power in (0.4, 1.0))
    moves = torch.kron(chains.metropolis_matrix(w, uniform), chains.metropolis_matrix(0.4 * w, uniform))
    P = moves @ chains.swap_matrix(w, b)
    pi = torch.kron(cold, hot)
    assert float((pi @ P - pi).abs().max()) < 1e-14
    # and the kernel does the same: its cold copies follow f
    sizes, n = (2, 3), 30_000

    def anywhere(x: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        fresh = [torch.randint(size, (len(x),), generator=generator) for size in sizes]
        return torch.stack(fresh, 1), torch.zeros(len(x)).double()

    kernel = Tempering(lambda x: w[code(x, sizes)], (1.0, 0.4), Proposed(anywhere))
    state = kernel.init(torch.zeros(n, 2).long())
    generator = generator_for(0)
    row = torch.zeros(36).double()
    row[0] = 1.0
    for _ in range(2):
        turn = state.turn
        state, _ = kernel.step(state, generator)
        row = row @ moves @ (chains.swap_matrix(w, b) if turn == 0 else torch.eye(36).double())
    assert_follows(torch.bincount(code(state.position, sizes), minlength=6), row.view(6, 6).sum(1))


def test_three_copies_swap_even_and_odd_pairs_in_turn_as_the_law_of_all_says() -> None:
    w = torch.tensor([0.0, 1.2, -0.7], dtype=torch.float64)
    powers = (1.0, 0.5, 0.1)
    b, one = torch.tensor(powers, dtype=torch.float64), torch.eye(3, dtype=torch.float64)
    uniform = torch.full((3, 3), 1 / 3, dtype=torch.float64)
    first, second, third = (chains.metropolis_matrix(power * w, uniform) for power in powers)
    moves = torch.kron(first, torch.kron(second, third))
    swaps = (torch.kron(chains.swap_matrix(w, b[:2]), one), torch.kron(one, chains.swap_matrix(w, b[1:])))
    pi = torch.softmax(w, 0)
    for power in powers[1:]:
        pi = torch.kron(pi, torch.softmax(power * w, 0))
    for swap in swaps:
        assert float((pi @ swap - pi).abs().max()) < 1e-15
        assert chains.balance_error(swap, pi) < 1e-15

    def anywhere(x: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        return torch.randint(3, x.shape, generator=generator), torch.zeros(len(x)).double()

    kernel, n = Tempering(lambda x: w[x[:, 0]], powers, Proposed(anywhere)), 30_000
    generator, state = generator_for(0), kernel.init(torch.full((n, 1), 2))
    row = torch.zeros(27).double()
    row[26] = 1.0
    for step in range(3):
        state, _ = kernel.step(state, generator)
        row = row @ moves @ swaps[step % 2]
        law = code(state.state.position.view(n, 3), (3, 3, 3))
        assert_follows(torch.bincount(law, minlength=27), row)
        assert torch.equal(state.swaps.isnan(), torch.tensor([step % 2 == 1, step % 2 == 0]))


@pytest.mark.parametrize("scan", SCANS)
def test_the_spectral_gap_predicts_the_decay_of_total_variation(scan: Scan) -> None:
    P = Gibbs(BINARY, scan).transition_matrix()
    gap, far = chains.spectral_gap(P), chains.decay(P, 40)
    late = far[far > 1e-11]
    steps = len(late) - 1
    rate = float((late[steps] / late[steps // 2]) ** (1 / (steps - steps // 2)))
    assert rate == pytest.approx(1 - gap, rel=0.05)
    assert bool((far[1:] <= far[:-1] + 1e-15).all())


def test_a_chain_of_two_states_has_its_closed_forms() -> None:
    # P = [[1 - a, a], [b, 1 - b]]: pi = (b, a) / (a + b), l_2 = 1 - a - b
    a, b = 0.3, 0.1
    P = torch.tensor([[1 - a, a], [b, 1 - b]], dtype=torch.float64)
    assert torch.allclose(chains.stationary(P), torch.tensor([0.25, 0.75], dtype=torch.float64))
    assert chains.spectral_gap(P) == pytest.approx(a + b)
    # from state 0: TV = a / (a + b) |l_2|^t = 0.75 * 0.6^t
    tv = chains.decay(P, 5, torch.tensor([1.0, 0.0]))
    assert torch.allclose(tv, 0.75 * 0.6 ** torch.arange(6.0).double())


def test_a_sandwich_of_annealed_gibbs_holds_log_z_between_its_bounds() -> None:
    """A path from uniform to the target by powers of its weight; the exact log Z by enumeration."""
    truth = enumerated(BINARY)[1] - 6 * math.log(2)
    sizes, m = BINARY.sizes, 3000
    steps = torch.linspace(0, 1, 12, dtype=torch.float64)

    def log_density(x: Tensor, temperature: float) -> Tensor:
        return temperature * torch.from_numpy(BINARY.log_weight(x.numpy())) - 6 * math.log(2)

    def transition(x: Tensor, temperature: float, generator: torch.Generator | None) -> Tensor:
        factors = tuple(Factor(f.scope, f.table**temperature) for f in BINARY.factors)
        kernel = Gibbs(FactorGraph(sizes, factors))
        return kernel.step(kernel.init(x), generator)[0].position

    generator = generator_for(0)
    start = torch.randint(2, (m, 6), generator=generator)
    states = torch.cartesian_prod(*(torch.arange(size) for size in sizes))
    end = states[torch.multinomial(target(BINARY), m, replacement=True, generator=generator)]
    found = sandwich(log_density, transition, start, end, steps, generator)
    assert (
        found.lower - 4 * found.forward.bound_stderr < truth < found.upper + 4 * found.backward.bound_stderr
    )
    assert found.upper - found.lower < 0.2
    assert abs(found.forward.log_ratio - truth) < 4 * found.forward.stderr
    assert 0.5 * m < found.effective_sample_size <= m
    assert "effective sample sizes" in str(found)


def test_a_matrix_of_numpy_is_read_as_a_tensor_is() -> None:
    P = np.array([[0.9, 0.1], [0.2, 0.8]])
    assert chains.stationary(P).tolist() == pytest.approx([2 / 3, 1 / 3], abs=1e-12)  # type: ignore[arg-type]
    assert chains.spectral_gap(P) == pytest.approx(0.3, abs=1e-6)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (lambda: Gibbs(MIXED, "sideways"), "scan must be"),  # type: ignore[arg-type]
        (lambda: Gibbs(MIXED, sweeps=0), "sweeps"),
        (lambda: Gibbs(MIXED).init(torch.zeros(3, 4).long()), "shape"),
        (lambda: Gibbs(MIXED).init(torch.zeros(0, 5).long()), "shape"),
        (lambda: Gibbs(MIXED).init(torch.full((3, 5), 2)), "whole number"),
        (lambda: Gibbs(MIXED).init(torch.full((3, 5), 0.5)), "whole number"),
        (lambda: Gibbs(MIXED).init(torch.full((3, 5), torch.nan)), "whole number"),
        (
            lambda: Gibbs(FactorGraph((2,), (Factor((0,), np.array([0.0, 1.0])),))).init(torch.zeros(1, 1)),
            "weight zero",
        ),
        (lambda: Gibbs(FactorGraph((2,), (Factor((0,), np.zeros(2)),))).start(2), "no state of positive"),
        (lambda: Gibbs(graph_of((2,) * 13, [(0, 1)])).transition_matrix(), "too large a matrix"),
        (lambda: chains.stationary(torch.eye(3)), "falls apart"),
        (lambda: chains.stationary(torch.ones(2, 3)), "square"),
        (lambda: chains.spectral_gap(torch.ones(2, 2)), "sum to one"),
        (lambda: chains.metropolis_matrix(torch.zeros(3), torch.eye(2)), "log-weights"),
        (lambda: chains.metropolis_matrix(torch.tensor([0.0, torch.nan]), torch.eye(2)), "state 1 is nan"),
        (lambda: chains.metropolis_matrix(torch.tensor([torch.inf, 0.0]), torch.eye(2)), "state 0 is inf"),
    ],
)
def test_wrong_input_gets_one_clear_line(task: Callable[[], object], said: str) -> None:
    with pytest.raises(LeadlineError, match=said):
        task()
