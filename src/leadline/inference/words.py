"""Random words for compiled loops: a stream a line of work, so that the number of threads changes nothing.

Source:
    Blackman and Vigna (2021), Scrambled linear pseudorandom number generators, ACM TOMS 47(4): xoshiro256+,
    seeded by splitmix64 (Steele, Lea and Flood 2014).
"""

from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray

from leadline.inference.compiled import kept

__all__ = ["advanced", "share_threads", "streams", "word_of"]

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def word_of(generator: torch.Generator | None) -> np.uint64:
    """Return a 64-bit word drawn from a generator, to seed streams with."""
    drawn = int(torch.randint(-(1 << 63), (1 << 63) - 1, (1,), generator=generator))
    return np.uint64(drawn % (1 << 64))


def share_threads() -> None:
    """Let compiled loops use as many threads as torch does.

    Where both use the same OpenMP, the start of the loops' threads also sets how many torch uses: that is
    set back.
    """
    most: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    wanted = torch.get_num_threads()
    numba.set_num_threads(max(1, min(wanted, most)))
    torch.set_num_threads(wanted)


@kept()
def streams(seed: Any, count: int) -> NDArray[np.uint64]:
    """Return the state of `count` streams that all follow from `seed`: (count, 4)."""
    states = np.empty((count, 4), np.uint64)
    for line in range(count):
        for j in range(4):
            z = seed + np.uint64(4 * line + j + 1) * _GAMMA
            z = (z ^ (z >> np.uint64(30))) * _MIX_1
            z = (z ^ (z >> np.uint64(27))) * _MIX_2
            states[line, j] = z ^ (z >> np.uint64(31))
    return states


@kept(inline="always")
def advanced(s0: Any, s1: Any, s2: Any, s3: Any) -> Any:
    """Return the next word of a stream, and the state after it."""
    word = s0 + s3
    t = s1 << np.uint64(17)
    s2 ^= s0
    s3 ^= s1
    s1 ^= s2
    s0 ^= s3
    s2 ^= t
    return word, s0, s1, s2, (s3 << np.uint64(45)) | (s3 >> np.uint64(19))
