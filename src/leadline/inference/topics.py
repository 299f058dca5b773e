r"""Latent Dirichlet allocation, the variational way: what a document says of its topics, in closed steps.

    theta ~ D(a),  z_i ~ theta,  w_i ~ B_z,   q(theta) = D(g),  q(z_i = k) ~ e_k B_kw,  e = exp E log theta

    g_k = a_k + e_k sum_w c_w B_kw / (sum_j e_j B_jw)

A pass costs 2 z K multiply-adds a step (z distinct words over all documents), and one exponential a document,
topic and step. Rows B_.w are gathered once a document, so that the steps run in the first cache.

Symbols:
    n documents, V words, K topics, z words that are not zero, c counts, a (K,) prior, g (n, K) posterior,
    B (V, K) exp E log p(word | topic), each row divided by exp of `height` (V,), s statistics (V, K).

Source:
    Blei, Ng and Jordan (2003), Latent Dirichlet allocation, JMLR 3, section 5;
    Hoffman, Blei and Bach (2010), Online learning for latent Dirichlet allocation, NIPS, algorithm 1.
"""

import math

import numpy as np

from leadline.inference.compiled import kept
from leadline.inference.dirichlet import Floats, digamma, log_gamma

__all__ = ["counted_evidence", "infer", "prepare"]

_LANES = 32  # rows are padded with zeros to a multiple, so that they fill vector registers
_LN2, _INVERSE_LN2 = 0.6931471805599453, 1.4426950408889634
# 1 / j!, of exp on [-ln 2 / 2, ln 2 / 2]: the thirteenth term is below 1e-16
_TAYLOR = tuple(1.0 / math.factorial(j) for j in range(13))


@kept(inline="always")
def _weight(x, y):  # type: ignore[no-untyped-def]
    """Return digamma(x) - log(y) for y = x + 6, which is below zero."""
    r = 1.0 / (y * y)
    tail = r * (1 / 12 - r * (1 / 120 - r * (1 / 252 - r * (1 / 240 - r * (5 / 660)))))
    shift = (
        (2 * x + 1) / (x * (x + 1)) + (2 * x + 5) / ((x + 2) * (x + 3)) + (2 * x + 9) / ((x + 4) * (x + 5))
    )
    return -0.5 / y - tail - shift


@kept(fastmath=True, nogil=True, error_model="numpy")
def _exponents(g, out, powers):  # type: ignore[no-untyped-def]
    """Set `out` to exp(digamma(g)) times a constant, which is returned as its logarithm."""
    K = len(g)
    top = -1e30
    for k in range(K):
        out[k] = _weight(g[k], g[k] + 6)
        top = max(top, out[k])
    for k in range(K):
        t = out[k] - top
        whole = math.floor(t * _INVERSE_LN2 + 0.5)
        f = t - whole * _LN2
        p = _TAYLOR[12]
        for j in range(11, -1, -1):
            p = p * f + _TAYLOR[j]
        place = min(int(-whole), len(powers) - 1)
        out[k] = (g[k] + 6) * p * powers[place]
    return top


@kept(fastmath=True, nogil=True, error_model="numpy")
def infer(  # type: ignore[no-untyped-def] # noqa: C901, PLR0913
    starts, words, counts, chosen, B, height, a, g, stats, steps, tolerance, known
):  # fmt: skip
    """Find the posteriors of some documents; return the bound of each.

    A document starts from even shares of its tokens. Where its posterior is known and its bound would be
    lower so, it goes on from the known one instead: then the bound of a document never falls.

    Args:
        starts: Where each document begins (n + 1,).
        words: Word numbers (z,).
        counts: How often each occurs (z,), of the type of B.
        chosen: Numbers of the documents to look at (m,).
        B: exp E log p(word | topic) over exp of `height` (V, K), C order.
        height: Log of what each row of B was divided by (V,).
        a: Prior (K,).
        g: Posterior parameters (n, K), replaced.
        stats: Expected counts over B (V, K), added to; empty (0, K) to leave them out.
        steps: Most steps of a document.
        tolerance: Mean change of a parameter below which a document has settled.
        known: Whether g holds posteriors to go on from.

    Returns:
        The bound on log p(words) of each chosen document, in nats (m,) float64.
    """
    K = B.shape[1]
    width = -(-K // _LANES) * _LANES
    bounds = np.zeros(len(chosen))
    most = 0
    for d in chosen:
        most = max(most, starts[d + 1] - starts[d])
    rows = np.zeros((most, width), B.dtype)
    work = np.zeros((4, width), B.dtype)
    powers = np.empty(1080, B.dtype)
    value = 1.0
    for i in range(len(powers)):
        powers[i] = value
        value *= 0.5
    prior = log_gamma(a.sum())
    for k in range(K):
        prior -= log_gamma(a[k])
    for m in range(len(chosen)):
        d = chosen[m]
        first, size = starts[d], starts[d + 1] - starts[d]
        own, tokens, lift = counts[first : first + size], 0.0, 0.0
        for u in range(size):
            w = words[first + u]
            rows[u, :K] = B[w]
            tokens += own[u]
            lift += own[u] * height[w]
        old = -1e300
        if known:
            top = _exponents(g[d], work[0], powers)
            old = _bound(own, rows, work[0], g[d], a, top) + prior + lift
            work[3, :K] = g[d]
        for k in range(K):
            g[d, k] = a[k] + tokens / K
        best = _settle(own, rows, work, g[d], a, powers, steps, tolerance) + prior + lift
        if best < old:
            g[d] = work[3, :K]
            best = _settle(own, rows, work, g[d], a, powers, steps, tolerance) + prior + lift
        bounds[m] = best
        if len(stats):
            e = work[0]
            for u in range(size):
                ratio = own[u] / _mix(e, rows[u])
                w = words[first + u]
                for k in range(K):
                    stats[w, k] += ratio * e[k]
    return bounds


@kept(inline="always", fastmath=True)
def _mix(e, row):  # type: ignore[no-untyped-def]
    """Return the sum of the products of two rows."""
    total = e.dtype.type(0)
    for k in range(len(e)):
        total += e[k] * row[k]
    return total


@kept(fastmath=True, nogil=True, error_model="numpy")
def _settle(own, rows, work, g, a, powers, steps, tolerance):  # type: ignore[no-untyped-def]
    """Improve a posterior until it settles; return its bound. work: e, sums and new parameters."""
    K, (e, total) = len(g), (work[0], work[1])
    top = _exponents(g, e, powers)
    for _ in range(steps):
        total[:] = 0
        for u in range(len(own)):
            row = rows[u]
            ratio = own[u] / _mix(e, row)
            for k in range(len(total)):
                total[k] += ratio * row[k]
        change = e.dtype.type(0)
        for k in range(K):
            new = a[k] + e[k] * total[k]
            change += abs(new - g[k])
            g[k] = new
        top = _exponents(g, e, powers)
        if change < tolerance * K:
            break
    return _bound(own, rows, e, g, a, top)


@kept(fastmath=True, nogil=True, error_model="numpy")
def _bound(own, rows, e, g, a, top):  # type: ignore[no-untyped-def]
    """Return a document's bound without the constants of its prior and heights, q(z) at its best."""
    K = len(g)
    tokens, value, mass = 0.0, 0.0, 0.0
    for u in range(len(own)):
        value += own[u] * math.log(_mix(e, rows[u]))
        tokens += own[u]
    for k in range(K):
        mass += g[k]
    centre = digamma(mass)
    value += tokens * (top - centre)
    for k in range(K):
        x = np.float64(g[k])
        value += (a[k] - x) * (digamma(x) - centre) + log_gamma(x)
    return value - log_gamma(mass)


@kept(fastmath=True, nogil=True, error_model="numpy")
def prepare(strength, eta, B, height):  # type: ignore[no-untyped-def]
    """Set B (V, K) and height (V,) from Dirichlet parameters (V, K); return the topics' share of the bound.

    That is minus the divergence of q(topics) = D(strength) from the prior D(eta), in nats.
    """
    V, K = strength.shape
    mass = np.zeros(K)
    for w in range(V):
        for k in range(K):
            mass[k] += strength[w, k]
    scale, centre = np.empty(K), np.empty(K)
    value = K * (log_gamma(V * eta) - V * log_gamma(eta))
    for k in range(K):
        centre[k] = digamma(mass[k])
        scale[k] = math.exp(-centre[k])
        value -= log_gamma(mass[k])
    for w in range(V):
        top = -1e300
        for k in range(K):
            x = np.float64(strength[w, k])
            top = max(top, _weight(x, x + 6.0))
        height[w] = top
        for k in range(K):
            x = np.float64(strength[w, k])
            y = x + 6.0
            s = _weight(x, y)
            B[w, k] = y * math.exp(s - top) * scale[k]
            # log gamma(x) + (eta - x) E log p, one logarithm of y for both
            r = 1.0 / (y * y)
            tail = (1 / 12 - r * (1 / 360 - r * (1 / 1260 - r / 1680))) / y
            product = x * (x + 1) * (x + 2) * (x + 3) * (x + 4) * (x + 5)
            log_y = math.log(y)
            value += (y - 0.5) * log_y - y + 0.9189385332046727 + tail - math.log(product)
            value += (eta - x) * (s + log_y - centre[k])
    return value


def counted_evidence(words: Floats, counts: Floats, topics: Floats, a: Floats, most: int = 200_000) -> float:
    """Return log p(words | topics, a) exactly, summed over how many tokens each topic has, in nats.

    All assignments with the same counts of topics share p(z), so that only those counts are enumerated:
    (tokens + 1)^(K - 1) numbers.

    Args:
        words: Word numbers of a document (z,).
        counts: How often each occurs (z,).
        topics: Probabilities of words (K, V).
        a: Prior of the proportions (K,).
        most: Most numbers to hold.

    Raises:
        ValueError: If there would be more.
    """
    from scipy.special import gammaln

    K, n = len(a), int(counts.sum())
    if (n + 1) ** (K - 1) > most:
        raise ValueError(f"{n} tokens of {K} topics have too many divisions to sum over; at most {most}")
    table = np.full((n + 1,) * (K - 1), -np.inf)  # logarithms: a long document spans more than a double does
    table[(0,) * (K - 1)] = 0.0
    with np.errstate(divide="ignore"):
        log_topics = np.log(topics)
    for w in np.repeat(words, counts):
        grown = table + log_topics[K - 1, w]
        for k in range(K - 1):
            target = [slice(None)] * (K - 1)
            source = [slice(None)] * (K - 1)
            target[k], source[k] = slice(1, None), slice(None, -1)
            moved = grown[tuple(target)]
            np.logaddexp(moved, table[tuple(source)] + log_topics[k, w], out=moved)
        table = grown
    held = np.indices(table.shape).reshape(K - 1, -1).T if K > 1 else np.zeros((1, 0), np.int64)
    rest = n - held.sum(1)
    inside = rest >= 0
    split = np.concatenate([held, rest[:, None]], 1)[inside]  # tokens of each topic
    log_p = gammaln(a.sum()) - gammaln(a.sum() + n) + (gammaln(a + split) - gammaln(a)).sum(1)
    return float(np.logaddexp.reduce(log_p + table.ravel()[inside]))
