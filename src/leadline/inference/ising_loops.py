r"""Checkerboard Gibbs sampling of Ising lattices, sixty-four chains in a word.

Bit c of a word is the spin of chain c at one site, so that one logical operation acts on 64 chains. The
number of neighbours that point up is added bit by bit; it chooses, for each chain, the probability p that the
new spin points up. U < p is decided from the highest bit of U on, with one random word for a bit of all 64
chains, and stops when no chain is undecided: 8 words on average instead of 53, and nothing is rounded.

Symbols:
    b blocks of 64 chains, h rows, w columns, k neighbours that point up, n neighbours.

Source:
    Multi-spin coding: Zorn, Herrmann and Rebbi (1981), Tests of the multi-spin-coding technique in Monte
    Carlo simulations of statistical systems, Computer Physics Communications 23(4).
"""

import numba
import numpy as np
from numpy.typing import NDArray

from leadline.inference.compiled import kept
from leadline.inference.words import advanced, streams

__all__ = ["checkerboard", "packed", "unpacked"]

Words = NDArray[np.uint64]

_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
_ZERO = np.uint64(0)


@kept(parallel=True)
def checkerboard(words: Words, masks: Words, seed: np.uint64, sweeps: int, periodic: bool) -> None:  # noqa: FBT001
    """Update every site of a lattice `sweeps` times in place, one colour of the checkerboard after the other.

    Args:
        words: Spins (b, h, w); periodic sides must be even.
        masks: Bit 63 - j of P(up | k of n neighbours up), as all ones or all zeros (n, k, j): (5, 5, 64).
        seed: What all randomness follows from.
        sweeps: Number of updates of each site.
        periodic: Whether opposite borders are neighbours.
    """
    b, h = words.shape[:2]
    random = streams(seed, b * h)
    for half in range(2 * sweeps):
        for line in numba.prange(b * h):
            block, i = line // h, line % h
            _line(words[block], masks, random[line], i, (i + half) % 2, periodic)


@kept()
def _line(words: Words, masks: Words, random: Words, i: int, first: int, periodic: bool) -> None:  # noqa: FBT001
    """Update the sites of row i at columns first, first + 2, ..."""
    h, w = words.shape
    s0, s1, s2, s3 = random[0], random[1], random[2], random[3]
    above = i > 0 or periodic
    below = i < h - 1 or periodic
    up, down = (i - 1) % h, (i + 1) % h
    for j in range(first, w, 2):
        north = words[up, j] if above else _ZERO
        south = words[down, j] if below else _ZERO
        west = words[i, (j - 1) % w] if j > 0 or periodic else _ZERO
        east = words[i, (j + 1) % w] if j < w - 1 or periodic else _ZERO
        n = int(above) + int(below) + int(j > 0 or periodic) + int(j < w - 1 or periodic)
        half_1, carry_1 = north ^ south, north & south
        half_2, carry_2 = west ^ east, west & east
        ones, carry_3 = half_1 ^ half_2, half_1 & half_2
        four = carry_1 & carry_2
        twos = carry_1 ^ carry_2 ^ carry_3
        k0, k1, k2, k3 = ~(ones | twos | four), ones & ~twos, twos & ~ones, ones & twos
        table = masks[n]
        undecided, spin = _ALL, _ZERO
        for bit in range(64):
            word, s0, s1, s2, s3 = advanced(s0, s1, s2, s3)
            p = (
                (k0 & table[0, bit])
                | (k1 & table[1, bit])
                | (k2 & table[2, bit])
                | (k3 & table[3, bit])
                | (four & table[4, bit])
            )
            spin |= undecided & p & ~word
            undecided &= ~(word ^ p)
            if undecided == _ZERO:
                break
        words[i, j] = spin
    random[0], random[1], random[2], random[3] = s0, s1, s2, s3


@kept(parallel=True)
def packed(spins: NDArray[np.int8], words: Words) -> None:
    """Write spins (c, h, w), up where positive, into words (b, h, w)."""
    c, h, w = spins.shape
    b = words.shape[0]
    for line in numba.prange(b * h):
        block, i = line // h, line % h
        for j in range(w):
            word = _ZERO
            for k in range(min(64, c - 64 * block)):
                word |= np.uint64(spins[64 * block + k, i, j] > 0) << np.uint64(k)
            words[block, i, j] = word


@kept(parallel=True)
def unpacked(words: Words, spins: NDArray[np.int8]) -> None:
    """Write words (b, h, w) into spins -1 and 1 (c, h, w)."""
    c, h, w = spins.shape
    for chain in numba.prange(c):
        block, shift = chain // 64, np.uint64(chain % 64)
        for i in range(h):
            for j in range(w):
                spins[chain, i, j] = 2 * np.int8((words[block, i, j] >> shift) & np.uint64(1)) - 1
