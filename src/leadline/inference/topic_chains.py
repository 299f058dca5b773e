r"""Latent Dirichlet allocation, by Markov chains: collapsed Gibbs, and an unbiased estimate of the evidence.

    p(z_i = k | rest) ~ (n_dk + a_k) (n_kw + eta) / (n_k + V eta)

A token costs K multiply-adds of three rows, two of them in the first cache, and a search for the drawn topic.

Symbols:
    n documents, t tokens, V words, K topics, a (K,) and eta priors, z (t,) topics of tokens.

Source:
    Griffiths and Steyvers (2004), Finding scientific topics, PNAS 101, equation 5.
    Evidence: Wallach, Murray, Salakhutdinov and Mimno (2009), Evaluation methods for topic models, ICML,
    section 5; Buntine (2009), Estimating likelihoods for topic models, ACML, algorithm 1.
    Draws: Steele, Lea and Flood (2014), Fast splittable pseudorandom number generators (splitmix64).

Departs from the source:
    The left-to-right estimate carries the weights of its particles and draws them anew where they have
    become uneven, so that it is a particle filter with moves, and exp of it is unbiased for any number of
    particles. Averages of one step alone, without the weights, are not.
    The tokens come in a random order, and before each one at most 64 earlier ones are moved, in turn, so that
    the cost grows with the length and not with its square. The estimate stays unbiased. On documents of 190
    tokens the order alone takes half of its variance away, and more moves hardly any.
"""

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from leadline.inference.compiled import kept
from leadline.inference.dirichlet import Floats

__all__ = ["LANES", "MOST_MOVES", "gibbs_sweep", "left_to_right", "log_joint", "shared_left_to_right", "step"]

_HUGE = 1e30  # tokens of a topic that is padding, so that none is drawn there
MOST_MOVES = 64
_SHARES = 8  # shares of the documents a thread takes, one after the other
LANES = 16  # topics are padded to a multiple, so that rows fill vector registers


@kept(inline="always")
def _next(state):  # type: ignore[no-untyped-def]
    """Return a draw from U[0, 1), and move the state (1,) uint64."""
    state[0] += np.uint64(0x9E3779B97F4A7C15)
    x = state[0]
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x = x ^ (x >> np.uint64(31))
    return np.float32(x >> np.uint64(40)) * np.float32(5.9604644775390625e-08)


@kept(nogil=True)
def _count(starts, tokens, z, counts, documents):  # type: ignore[no-untyped-def]
    """Add each token to the table of its word (V, K') and to that of its document (n, K')."""
    for d in range(len(starts) - 1):
        for i in range(starts[d], starts[d + 1]):
            counts[tokens[i], z[i]] += 1
            documents[d, z[i]] += 1


@kept(nogil=True)
def _looked_up(counts, table):  # type: ignore[no-untyped-def]
    """Return the sum of table[k, count] over all counts (n, K) of column k: a function of whole numbers."""
    total = 0.0
    for row in range(counts.shape[0]):
        for k in range(counts.shape[1]):
            total += table[k, np.int64(counts[row, k])]
    return total


@kept(fastmath=True, nogil=True, error_model="numpy")
def gibbs_sweep(  # type: ignore[no-untyped-def] # noqa: C901, PLR0913
    starts, tokens, z, a, eta, counts, mass, documents, seed
):  # fmt: skip
    """Draw the topic of every token once, given all others; in the order of the tokens.

    Args:
        starts: Where the tokens of each document begin (n + 1,).
        tokens: Word of each token (t,).
        z: Topic of each token (t,), changed.
        a: Prior of a document's topics (K',) float32, zero in the padding.
        eta: Prior of a topic's words.
        counts: Tokens of each word and topic (V, K') float32, changed; K' is a multiple of LANES.
        mass: Tokens of each topic (K',) float64, changed; huge in the padding.
        documents: Tokens of each document and topic (n, K') float32, changed.
        seed: Seed of the draws, uint64.
    """
    V, K = counts.shape
    state = np.empty(1, np.uint64)
    state[0] = seed
    small = np.float32(eta)
    inverse = np.empty(K, np.float32)
    for k in range(K):
        inverse[k] = 1.0 / (mass[k] + V * eta)
    own, p = np.empty(K, np.float32), np.empty(K, np.float32)
    blocks = np.empty(K // LANES, np.float32)
    for d in range(len(starts) - 1):
        for k in range(K):
            own[k] = documents[d, k] + a[k]
        for i in range(starts[d], starts[d + 1]):
            old = z[i]
            row = counts[tokens[i]]
            row[old] -= 1
            own[old] -= 1
            mass[old] -= 1
            inverse[old] = 1.0 / (mass[old] + V * eta)
            total = np.float32(0)
            for b in range(K // LANES):
                part = np.float32(0)
                for j in range(b * LANES, b * LANES + LANES):
                    v = own[j] * (row[j] + small) * inverse[j]
                    p[j] = v
                    part += v
                blocks[b] = part
                total += part
            u = _next(state) * total
            b = 0
            while b < K // LANES - 1 and u >= blocks[b]:
                u -= blocks[b]
                b += 1
            new = b * LANES
            while new < b * LANES + LANES - 1 and u >= p[new]:
                u -= p[new]
                new += 1
            while p[new] <= 0:  # rounding may end in the padding
                new -= 1
            z[i] = new
            row[new] += 1
            own[new] += 1
            mass[new] += 1
            inverse[new] = 1.0 / (mass[new] + V * eta)
        for k in range(K):
            documents[d, k] = math.floor(own[k] - a[k] + 0.5)


def step(
    starts: Floats, tokens: Floats, z: Floats, a: Floats, eta: float, vocabulary: int, seed: int
) -> tuple[Floats, Floats]:
    """Draw the topic of every token once; return the tokens of each word and of each document by topics.

    Args:
        starts: Where the tokens of each document begin (n + 1,).
        tokens: Word of each token (t,) int32.
        z: Topic of each token (t,) int32, changed.
        a: Prior of a document's topics (K,).
        eta: Prior of a topic's words.
        vocabulary: Number V of words.
        seed: Seed of the draws, below 2^64.

    Returns:
        Tables (V, K) and (n, K) float32 of whole numbers.
    """
    K, padded = len(a), -(-len(a) // LANES) * LANES
    counts, own = (np.zeros((rows, padded), np.float32) for rows in (vocabulary, len(starts) - 1))
    _count(starts, tokens, z, counts, own)
    mass = counts.sum(0, dtype=np.float64)
    mass[K:] = _HUGE
    prior = np.zeros(padded, np.float32)
    prior[:K] = a
    gibbs_sweep(starts, tokens, z, prior, eta, counts, mass, own, np.uint64(seed))
    return counts[:, :K], own[:, :K]


def log_joint(counts: Floats, own: Floats, a: Floats, eta: float) -> float:
    """Return log p(words, topics of tokens), topics and proportions integrated out, in nats.

    Args:
        counts: Tokens of each word and topic (V, K).
        own: Tokens of each document and topic (n, K).
        a: Prior of a document's topics (K,).
        eta: Prior of a topic's words.
    """
    from scipy.special import gammaln

    V, K = counts.shape
    words = _summed_log_gamma(counts, np.full(K, eta)) + K * (gammaln(V * eta) - V * gammaln(eta))
    words -= gammaln(counts.sum(0, dtype=np.float64) + V * eta).sum()
    documents = _summed_log_gamma(own, a) + len(own) * (gammaln(a.sum()) - gammaln(a).sum())
    documents -= gammaln(own.sum(1, dtype=np.float64) + a.sum()).sum()
    return float(words + documents)


def _summed_log_gamma(counts: Floats, prior: Floats) -> float:
    """Return the sum of log gamma(count + prior): (n, K), (K,). Counts are whole, so that a table serves."""
    from scipy.special import gammaln

    table = gammaln(np.arange(int(counts.max()) + 1) + prior[:, None])
    return float(_looked_up(counts, table))


@kept(fastmath=True, nogil=True, error_model="numpy")
def left_to_right(  # type: ignore[no-untyped-def]
    starts, tokens, topics, a, particles, seeds, most=MOST_MOVES
):  # fmt: skip
    """Return an estimate of log p(words) of each document whose exponential is unbiased, in nats (n,).

    Particles hold topics of the tokens so far. At each token they are weighted by its probability, drawn
    anew if their effective number is below half, moved by a Gibbs sweep over at most `most` of the tokens so
    far, and given a topic for it.

    Args:
        starts: Where the tokens of each document begin (n + 1,).
        tokens: Word of each token (t,).
        topics: Probabilities (V, K) of words, C order, float64.
        a: Prior of the proportions (K,) float64.
        particles: Number of particles.
        seeds: Seed of each document (n,) uint64.
        most: Most tokens moved before each new one.
    """
    K = len(a)
    out = np.zeros(len(starts) - 1)
    state = np.empty(1, np.uint64)
    p = np.empty(K)
    A = a.sum()
    for d in range(len(starts) - 1):
        first, size = starts[d], starts[d + 1] - starts[d]
        state[0] = seeds[d]
        z, held = np.zeros((particles, size), np.int32), np.zeros((particles, K))
        weights = np.full(particles, 1.0 / particles)
        for r in range(particles):
            held[r] = a
        turn, own = 0, tokens[first : first + size].copy()
        for i in range(size - 1, 0, -1):
            j = min(int(_next(state) * np.float32(i + 1)), i)
            own[i], own[j] = own[j], own[i]
        for i in range(size):
            moved = min(i, most)
            if 1.0 / (weights * weights).sum() < 0.5 * particles:
                _redraw(z, held, weights, i, state)
            total = 0.0
            for r in range(particles):
                j = turn
                for _ in range(moved):
                    _move(z[r], held[r], topics[own[j]], j, p, state)
                    j = j + 1 if j + 1 < i else 0
                row, chance = topics[own[i]], 0.0
                for k in range(K):
                    chance += held[r, k] * row[k]
                weights[r] *= chance / (A + i)
                total += weights[r]
                _place(z[r], held[r], row, i, p, state)
            turn = (turn + moved) % max(i, 1)
            out[d] += math.log(total)
            weights /= total
    return out


def shared_left_to_right(
    starts: Any, tokens: Any, topics: Floats, a: Floats, particles: int, seeds: Any
) -> Floats:
    """Return what `left_to_right` does, with documents shared out among as many threads as torch uses.

    Each document has a seed of its own, so that the number of threads changes nothing.
    """
    threads = min(torch.get_num_threads(), len(starts) - 1)
    if threads < 2:
        return left_to_right(starts, tokens, topics, a, particles, seeds)
    ends = np.linspace(0, len(starts) - 1, min(_SHARES * threads, len(starts) - 1) + 1).astype(int)
    with ThreadPoolExecutor(threads) as pool:
        parts = pool.map(
            lambda first, last: left_to_right(
                starts[first : last + 1], tokens, topics, a, particles, seeds[first:last]
            ),
            ends[:-1],
            ends[1:],
        )
        return np.concatenate(list(parts))


@kept(inline="always")
def _move(z, held, row, j, p, state):  # type: ignore[no-untyped-def]
    """Draw the topic of token j given the others."""
    held[z[j]] -= 1
    _place(z, held, row, j, p, state)


@kept(inline="always")
def _place(z, held, row, j, p, state):  # type: ignore[no-untyped-def]
    """Draw a topic for token j, which has none."""
    K = len(held)
    total = 0.0
    for k in range(K):
        p[k] = held[k] * row[k]
        total += p[k]
    u, k = _next(state) * total, 0
    while k < K - 1 and u >= p[k]:
        u -= p[k]
        k += 1
    z[j] = k
    held[k] += 1


@kept()
def _redraw(z, held, weights, i, state):  # type: ignore[no-untyped-def]
    """Draw particles in proportion to their weights, systematically, and even the weights."""
    count = len(weights)
    old_z, old_held = z[:, :i].copy(), held.copy()
    u, total, source = _next(state) / count, weights[0], 0
    for r in range(count):
        while u + r / count > total and source < count - 1:
            source += 1
            total += weights[source]
        z[r, :i] = old_z[source]
        held[r] = old_held[source]
    weights[:] = 1.0 / count
