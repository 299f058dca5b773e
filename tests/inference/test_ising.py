"""Ising models: closed-form and enumerated log Z, and samplers against its derivatives."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from leadline.core import LeadlineError
from leadline.core.randomness import generator_for
from leadline.inference.chains.kernel import State
from leadline.inference.ising import IsingGibbs, Lattice, LatticeGibbs, LatticeState
from leadline.inference.ising_loops import checkerboard
from leadline.inference.transfer import log_partition_grid

CRITICAL = math.asinh(1.0) / 2


def all_spins(d: int) -> Tensor:
    return torch.cartesian_prod(*(torch.tensor([-1.0, 1.0]),) * d).view(-1, d).double()


@pytest.mark.parametrize(
    ("lattice", "truth"),
    [
        # an open chain: ln 2 + 9 ln(2 cosh 0.5); a ring: ln[(2 cosh 0.5)^10 + (2 sinh 0.5)^10]
        (Lattice(1, 10, 0.5), math.log(2) + 9 * math.log(2 * math.cosh(0.5))),
        (Lattice(3, 3, 0.3), 6.8015390511),
        (Lattice(3, 3, 0.3, 0.1), 6.9126819991),
        (Lattice(4, 4, CRITICAL), 13.6763152414),
        (Lattice(4, 4, CRITICAL, periodic=True), 15.5219154588),
        (Lattice(4, 4, 0.2, periodic=True), 11.7714703585),
    ],
)
def test_log_z_equals_closed_forms_and_enumerations(lattice: Lattice, truth: float) -> None:
    assert lattice.log_partition() == pytest.approx(truth, abs=2e-10)


def test_a_ring_has_its_closed_form() -> None:
    across, along = torch.full((10, 1), 0.0).double(), torch.full((10, 1), 0.5).double()
    found = log_partition_grid(across, along, torch.zeros(10, 1).double(), periodic=True)
    truth = math.log((2 * math.cosh(0.5)) ** 10 + (2 * math.sinh(0.5)) ** 10)
    assert float(found) == pytest.approx(truth, abs=1e-10)


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("shape", [(2, 3), (4, 3), (3, 4), (1, 5), (2, 2)])
def test_any_grid_has_the_log_z_of_enumeration(shape: tuple[int, int], periodic: bool) -> None:
    r, w = shape
    random = generator_for(0, shape)
    last = 0 if periodic else 1
    across = torch.randn(r, w - last, generator=random, dtype=torch.float64)
    along = torch.randn(r - last, w, generator=random, dtype=torch.float64)
    field = torch.randn(r, w, generator=random, dtype=torch.float64)
    s = all_spins(r * w).view(-1, r, w)
    weight = (field * s).sum((1, 2))
    for i in range(r):
        for j in range(w - last):
            weight = weight + across[i, j] * s[:, i, j] * s[:, i, (j + 1) % w]
    for i in range(r - last):
        for j in range(w):
            weight = weight + along[i, j] * s[:, i, j] * s[:, (i + 1) % r, j]
    found = log_partition_grid(across, along, field, periodic=periodic)
    assert float(found) == pytest.approx(float(torch.logsumexp(weight, 0)), abs=1e-10)


@pytest.mark.parametrize("lattice", [Lattice(3, 4, 0.3, 0.2), Lattice(2, 4, 0.3, 0.2, periodic=True)])
def test_the_log_density_of_a_lattice_is_the_one_its_log_z_sums(lattice: Lattice) -> None:
    s = all_spins(lattice.rows * lattice.columns).view(-1, lattice.rows, lattice.columns)
    assert float(torch.logsumexp(lattice.log_density(s), 0)) == pytest.approx(
        lattice.log_partition(), abs=1e-10
    )


def moments(lattice: Lattice) -> tuple[float, float]:
    """Return the exact mean of the bonds and of the magnetisation: the derivatives of log Z."""
    J, h = (
        torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (lattice.coupling, lattice.field)
    )
    r, w, last = lattice.rows, lattice.columns, 0 if lattice.periodic else 1
    log_z = log_partition_grid(
        J.expand(r, w - last), J.expand(r - last, w), h.expand(r, w), periodic=lattice.periodic
    )
    bonds, magnetisation = torch.autograd.grad(log_z, (J, h))
    return float(bonds), float(magnetisation)


LATTICES = {
    "open, warm": Lattice(4, 6, 0.25, 0.1),
    "torus, near critical": Lattice(4, 6, 0.4, 0.05, periodic=True),
    "antiferromagnet": Lattice(5, 3, -0.5, 0.3),
    "a row": Lattice(1, 9, 0.6, -0.2),
    "a column": Lattice(9, 1, 0.6, -0.2),
    "torus of two rows": Lattice(2, 6, 0.3, 0.1, periodic=True),
}


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("name", LATTICES)
def test_samples_have_the_moments_that_log_z_gives(name: str, packed: bool) -> None:
    lattice = LATTICES[name]
    kernel = LatticeGibbs(lattice, sweeps=2)
    generator, c = generator_for(0, name, packed), 2000 if packed else 400
    start = torch.randint(2, (c, lattice.rows, lattice.columns), generator=generator) * 2 - 1
    state: LatticeState | State = kernel.init(start)
    if not packed:
        spins = state.position
        state = State(spins, lattice.log_density(spins))
    bonds, magnetisation = [], []
    for step in range(70):
        state, _ = kernel.step(state, generator)
        if step >= 30:
            s = state.position
            bonds.append(lattice.bonds(s))
            magnetisation.append(s.double().sum((1, 2)))
    for found, truth in zip((bonds, magnetisation), moments(lattice), strict=True):
        means = torch.stack(found).mean(0)  # of each chain: independent of the others
        assert abs(float(means.mean()) - truth) < 4.5 * float(means.std()) / math.sqrt(c)


def test_one_sweep_draws_each_colour_from_the_other_as_it_stands() -> None:
    # A colour shares no bond: its spins are drawn from the start alone, then the others from them alone.
    lattice, c = Lattice(3, 4, 0.5, 0.1), 64_000
    kernel = LatticeGibbs(lattice)
    s = kernel.step(kernel.init(torch.ones(c, 3, 4)), generator_for(0))[0].position
    up, on = lattice.up_probability(), (s > 0).long()
    first = (torch.arange(3)[:, None] + torch.arange(4)) % 2 == 0
    for i in range(3):
        for j in range(4):
            near = [(i + a, j + b) for a, b in ((1, 0), (-1, 0), (0, 1), (0, -1))
                    if 0 <= i + a < 3 and 0 <= j + b < 4]  # fmt: skip
            n = len(near)
            k = torch.full((c,), n) if first[i, j] else torch.stack([on[:, a, b] for a, b in near]).sum(0)
            for count in k.unique().tolist():
                mine, p = on[k == count, i, j].double(), float(up[n, count])
                assert abs(float(mine.mean()) - p) < 5 * math.sqrt(p * (1 - p) / len(mine))
    correlation = s[:, first].double().T.corrcoef() - torch.eye(6)
    assert float(correlation.abs().max()) < 5 / math.sqrt(c)


def test_states_of_a_small_lattice_come_as_often_as_their_weight_says() -> None:
    lattice, c = Lattice(2, 3, 0.4, 0.15), 6400
    kernel = LatticeGibbs(lattice, sweeps=4)
    state: LatticeState | State = kernel.init(torch.ones(c, 2, 3))
    counts, generator = torch.zeros(64).double(), generator_for(0)
    for step in range(30):
        state, _ = kernel.step(state, generator)
        if step >= 5:
            bits = (state.position.flatten(1) > 0).long() @ (1 << torch.arange(5, -1, -1))
            counts += torch.bincount(bits, minlength=64)
    p = torch.softmax(lattice.log_density(all_spins(6).view(-1, 2, 3)), 0)
    n = float(counts.sum())
    # successive draws are nearly independent after four sweeps; allow for what is left
    assert ((counts - n * p).abs() / (n * p).sqrt()).max() < 6


def test_a_spin_without_neighbours_turns_up_with_its_probability_to_many_digits() -> None:
    # One isolated spin a word, 64 chains, many words: P(up) = 1 / (1 + exp(-2 h)).
    for h in (0.3, -1.5, 2.0):
        kernel = LatticeGibbs(Lattice(1, 1, 0.0, h), sweeps=1)
        words = np.zeros((60_000, 1, 1), np.uint64)
        checkerboard(words, kernel._masks, np.uint64(5), 1, False)
        n = 64 * len(words)
        share = float(torch.from_numpy(words.view(np.int64)).flatten()[:, None].bitwise_right_shift(
            torch.arange(64)).bitwise_and(1).double().mean())  # fmt: skip
        p = 1 / (1 + math.exp(-2 * h))
        assert abs(share - p) < 4.5 * math.sqrt(p * (1 - p) / n)


def test_the_bits_of_each_probability_are_those_of_the_double() -> None:
    lattice = Lattice(4, 4, 0.37, 0.11)
    masks = LatticeGibbs(lattice)._masks
    for n in range(5):
        for k in range(5):
            value = sum(int(masks[n, k, bit] != 0) * 2.0 ** -(bit + 1) for bit in range(53))
            assert value == pytest.approx(float(lattice.up_probability()[n, k]), abs=2.0**-53)
    certain = LatticeGibbs(Lattice(2, 2, 0.0, 1000.0))._masks
    assert bool((certain == np.uint64(2**64 - 1)).all())


def test_chains_of_one_word_are_independent() -> None:
    lattice = Lattice(8, 8, 0.2, periodic=True)
    kernel = LatticeGibbs(lattice)
    state: LatticeState | State = kernel.init(torch.ones(64, 8, 8))
    generator, kept = generator_for(0), []
    for step in range(410):
        state, _ = kernel.step(state, generator)
        if step >= 10:
            kept.append(state.position.double().mean((1, 2)))
    correlation = torch.stack(kept, 1).corrcoef()
    off = correlation[~torch.eye(64).bool()]
    assert float(off.abs().max()) < 6 / math.sqrt(400)


def test_words_of_chains_and_rows_draw_from_streams_of_their_own() -> None:
    # Spins without bonds or field are the coin tosses themselves: two words or two rows that share a
    # stream would toss alike.
    chains, rows, columns = 256, 6, 50
    kernel = LatticeGibbs(Lattice(rows, columns, 0.0))
    s = kernel.step(kernel.init(torch.ones(chains, rows, columns)), generator_for(0))[0].position
    toss = s.view(4, 64, rows, columns).double().transpose(1, 2).reshape(4 * rows, -1)
    off = toss.corrcoef()[~torch.eye(4 * rows).bool()]
    assert float(off.abs().max()) < 5 / math.sqrt(toss.shape[1])


def test_a_row_draws_from_a_stream_that_no_other_row_moves_on() -> None:
    # Without bonds or field a row of a lattice tosses alike however many rows and words are beside it,
    # on one thread as on two: rows that took turns at one stream of their block would not.
    tosses = []
    for rows, blocks in ((2, 1), (7, 1), (7, 3)):
        words = np.zeros((blocks, rows, 12), np.uint64)
        masks = np.zeros((5, 5, 64), np.uint64)
        masks[:, :, 0] = ~np.uint64(0)  # p = 1/2
        checkerboard(words, masks, np.uint64(5), 3, periodic=False)
        tosses.append(words[0, :2])
    assert np.array_equal(tosses[0], tosses[1])
    assert np.array_equal(tosses[0], tosses[2])


@pytest.mark.parametrize("chains", [1, 63, 64, 65, 200])
def test_packing_and_unpacking_change_nothing(chains: int) -> None:
    spins = torch.randint(2, (chains, 4, 6), generator=generator_for(chains)) * 2 - 1
    state = LatticeGibbs(Lattice(4, 6, 0.1)).init(spins)
    assert isinstance(state, LatticeState)
    assert torch.equal(state.position, spins.to(torch.int8))


@pytest.mark.parametrize("chains", [40, 70])  # one word, whose rows two threads share, and two
def test_neither_the_seed_stream_nor_the_threads_change_a_run(chains: int) -> None:
    kernel = LatticeGibbs(Lattice(64, 64, 0.4, periodic=True), sweeps=20)
    ends, before = [], torch.get_num_threads()
    for threads, seed in ((1, 0), (2, 0), (1, 1)):
        torch.set_num_threads(threads)
        ends.append(kernel.step(kernel.init(torch.ones(chains, 64, 64)), generator_for(seed))[0].position)
    torch.set_num_threads(before)
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])


def test_every_tensor_of_a_sweep_follows_the_device_of_its_state() -> None:
    """On the meta device a tensor that was made elsewhere cannot meet those of the state."""
    meta = torch.device("meta")
    for periodic in (False, True):
        kernel = LatticeGibbs(Lattice(4, 6, 0.3, 0.1, periodic=periodic))
        state = kernel.init(torch.empty(5, 4, 6, device=meta))
        assert isinstance(state, State)
        after, told = kernel.step(state)
        assert after.position.device == told.acceptance.device == meta
        assert after.position.dtype == torch.int8


def test_an_ising_model_on_any_graph_is_sampled_by_its_colours() -> None:
    random = generator_for(0)
    edges = torch.tensor([[0, 1], [1, 2], [2, 0], [2, 3], [4, 3], [0, 4]])
    J = torch.randn(6, generator=random, dtype=torch.float64)
    h = 0.3 * torch.randn(6, generator=random, dtype=torch.float64)  # spin 5 has no neighbour
    kernel, c = IsingGibbs(edges, J, h, sweeps=40), 40_000
    for colour, near, weight in kernel._colours:
        assert near.shape == weight.shape
        inside = set(colour.tolist())
        assert not any(int(a) in inside and int(b) in inside for a, b in edges)
    s = kernel.step(kernel.init(torch.ones(c, 6)), random)[0].position
    states = all_spins(6)
    p = torch.softmax(kernel.log_density(states), 0)
    counts = torch.bincount((s > 0).long() @ (1 << torch.arange(5, -1, -1)), minlength=64).double()
    keep = c * p > 5
    assert (((counts - c * p).abs() / (c * p).sqrt())[keep]).max() < 4.5
    assert float(counts[~keep].sum()) <= 4.5 * math.sqrt(c * float(p[~keep].sum())) + c * float(
        p[~keep].sum()
    )


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (lambda: Lattice(0, 3, 0.1), "rows and columns"),
        (lambda: Lattice(3, 3, math.nan), "finite"),
        (lambda: LatticeGibbs(Lattice(3, 4, 0.1, periodic=True)), "even sides"),
        (lambda: LatticeGibbs(Lattice(4, 4, 0.1), sweeps=0), "sweeps"),
        (lambda: LatticeGibbs(Lattice(4, 4, 0.1)).init(torch.ones(4, 4)), r"\(chains"),
        (lambda: LatticeGibbs(Lattice(4, 4, 0.1)).init(torch.ones(0, 4, 4)), r"\(chains"),
        (lambda: Lattice(40, 40, 0.1).log_partition(), "GiB"),
        (lambda: Lattice(16, 16, 0.1, periodic=True).log_partition(), "torus"),
        (lambda: log_partition_grid(torch.ones(3, 3), torch.ones(2, 3), torch.ones(3, 3)), "has couplings"),
        (lambda: IsingGibbs(torch.tensor([[0, 0]]), torch.ones(1), torch.ones(2)), "two different"),
        (lambda: IsingGibbs(torch.tensor([[0, 5]]), torch.ones(1), torch.ones(2)), "two different"),
        (lambda: IsingGibbs(torch.tensor([[0, 1]]), torch.ones(2), torch.ones(2)), "a coupling each"),
    ],
)
def test_wrong_input_gets_one_clear_line(task: Callable[[], object], said: str) -> None:
    with pytest.raises(LeadlineError, match=said):
        task()
