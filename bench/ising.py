"""Spin updates a second of an Ising lattice: 256 x 256, 64 chains, heat bath on a checkerboard, two threads.

Bound: a word holds one site of 64 chains. An update reads five words, adds four of them bit by bit (12
operations) and compares the probability with a uniform, 8 bits on average until no chain is undecided; a bit
costs 9 operations for a random word and 14 to compare it. That is about 200 operations for 64 spins, so that
arithmetic on one core, and neither memory (the lattice takes 512 KiB) nor chance, is the limit: 8.3 random
bits a spin, where one uniform of 53 bits a spin would take six times as many. The probability is exact to
the 53 bits of a double.

The peer is the same update with a tensor of int8 spins, as it runs on a GPU.
"""

import statistics
import time

import torch

from leadline.inference.chains.kernel import State
from leadline.inference.ising import Lattice, LatticeGibbs

SIDE, CHAINS, COUPLING, GOAL, THREADS, ROUNDS = 256, 64, 0.4406867935097715, 2e8, 2, 7


def rate(kernel: LatticeGibbs, state: object, sweeps: int) -> float:
    """Return spin updates a second."""
    start = time.perf_counter()
    kernel.step(state)  # type: ignore[arg-type]
    return SIDE * SIDE * CHAINS * sweeps / (time.perf_counter() - start)


def main() -> None:
    """Print the rates."""
    torch.set_num_threads(THREADS)
    lattice = Lattice(SIDE, SIDE, COUPLING, periodic=True)
    fast, slow = LatticeGibbs(lattice, sweeps=40), LatticeGibbs(lattice, sweeps=1)
    spins = torch.randint(2, (CHAINS, SIDE, SIDE), dtype=torch.int8) * 2 - 1
    words, tensors = fast.init(spins), State(spins, lattice.log_density(spins))
    rate(fast, words, 40), rate(slow, tensors, 1)
    pairs = [(rate(fast, words, 40), rate(slow, tensors, 1)) for _ in range(ROUNDS)]
    ours, peer = (sorted(column) for column in zip(*pairs, strict=True))
    middle = statistics.median(ours)
    print(
        f"ising {SIDE}x{SIDE}, {CHAINS} chains, {THREADS} threads: {middle:.3g} spin updates/s "
        f"[{ours[0]:.3g}, {ours[-1]:.3g}], goal {GOAL:.0e}: {'met' if middle >= GOAL else 'MISSED'}; "
        f"as tensors {statistics.median(peer):.3g}, ratio {middle / statistics.median(peer):.0f}"
    )
    if torch.cuda.is_available():
        cuda = State(spins.cuda(), lattice.log_density(spins.cuda()))
        many = LatticeGibbs(lattice, sweeps=20)
        many.step(cuda)
        torch.cuda.synchronize()
        start = time.perf_counter()
        many.step(cuda)
        torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        print(f"on {torch.cuda.get_device_name()}: {SIDE**2 * CHAINS * 20 / seconds:.3g} spin updates/s")


if __name__ == "__main__":
    main()
