"""LDA against sums over every assignment of topics, and against what its three ways of learning must keep."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import gammaln
from torch import Tensor

import leadline as ll
from leadline.core import Counts, DataError, DomainError, OptionError, ShapeError
from leadline.inference.dirichlet import digamma, log_gamma, most_likely_dirichlet, polya_step
from leadline.inference.topic_chains import MOST_MOVES, gibbs_sweep, left_to_right, shared_left_to_right
from leadline.inference.topics import counted_evidence
from leadline.models.graphical.lda import LDA
from tests.tiny import tiny

ALPHA = np.array([0.4, 0.9, 0.2])


def topics(K: int = 3, V: int = 4) -> np.ndarray:
    return np.random.default_rng(5).dirichlet(np.full(V, 0.7), K)


def by_enumeration(words: list[int], beta: np.ndarray, alpha: np.ndarray) -> float:
    """Return log p(words): the sum over all K^N assignments of p(z) p(words | z)."""
    K, N = beta.shape[0], len(words)
    total = 0.0
    for z in itertools.product(range(K), repeat=N):
        n = np.bincount(z, minlength=K)
        log_p = gammaln(alpha.sum()) - gammaln(alpha.sum() + N) + (gammaln(alpha + n) - gammaln(alpha)).sum()
        total += math.exp(log_p) * math.prod(beta[k, w] for k, w in zip(z, words, strict=True))
    return math.log(total)


def model(V: int = 4) -> LDA:
    """Return a model in float64 with known topics and an uneven prior."""
    made = LDA(Counts(tuple("abcdefgh"[:V])), topics=3).double()
    made.strength.copy_(torch.from_numpy(50 * topics(3, V).T))
    made.alpha.copy_(torch.from_numpy(ALPHA))
    made.length.learn(torch.tensor([3, 5, 9, 1]))
    return made


def bags(V: int = 4) -> Tensor:
    return torch.tensor([[2, 1, 0, 3], [0, 0, 0, 0], [1, 0, 0, 0], [0, 3, 3, 0]])[:, :V]


def planted(n: int = 200, seed: int = 0) -> tuple[Tensor, np.ndarray]:
    """Return documents of 40 tokens over 12 words from three topics of four words each."""
    rng = np.random.default_rng(seed)
    beta = np.kron(np.eye(3), np.full(4, 0.25))
    theta = rng.dirichlet(np.full(3, 0.2), n)
    return torch.from_numpy(np.stack([rng.multinomial(40, row @ beta) for row in theta])), beta


def test_special_functions_are_those_of_scipy() -> None:
    from scipy.special import psi

    x = np.concatenate([np.logspace(-6, 6, 200), np.linspace(0.5, 3, 50)])
    assert np.allclose([digamma(v) for v in x], psi(x), rtol=1e-10, atol=1e-10)
    assert np.allclose([log_gamma(v) for v in x], gammaln(x), rtol=1e-10, atol=1e-10)


def test_the_sum_over_divisions_is_the_sum_over_assignments() -> None:
    for words in ([0], [0, 0, 1], [3, 1, 2, 2, 0, 3]):
        kinds, counts = np.unique(words, return_counts=True)
        exact = counted_evidence(kinds, counts, topics(), ALPHA)
        assert exact == pytest.approx(by_enumeration(words, topics(), ALPHA), abs=1e-12)
    with pytest.raises(ValueError, match="too many divisions"):
        counted_evidence(np.array([0]), np.array([5000]), topics(), ALPHA)


def test_the_bound_lies_below_the_evidence_and_is_exact_where_q_can_be_the_posterior() -> None:
    made, x = model(), bags()
    exact, bound = made.exact_log_prob(x), made.elbo(x)
    gap = exact - bound
    assert bool((gap >= -1e-9).all())
    assert float(gap[0]) > 1e-3  # proportions and assignments depend on each other
    assert float(gap[1]) == pytest.approx(0, abs=1e-9)  # nothing is hidden in an empty document
    single = LDA(Counts(tuple("abcd")), topics=1).double()
    assert torch.allclose(single.elbo(x), single.exact_log_prob(x), atol=1e-9)  # one topic: nothing to divide


def test_the_left_to_right_estimate_is_unbiased() -> None:
    words = np.array([0, 3, 3, 1, 2, 0], np.int32)
    exact = by_enumeration(words.tolist(), topics(), ALPHA)
    runs = 4000
    starts = np.arange(runs + 1) * len(words)
    seeds = np.random.default_rng(1).integers(1 << 62, size=runs).astype(np.uint64)
    beta = np.ascontiguousarray(topics().T)
    for particles, most in ((1, 64), (3, 64), (3, 2), (2, 0)):  # all tokens moved, two in turn, none
        logs = left_to_right(starts, np.tile(words, runs), beta, ALPHA, particles, seeds, most)
        told = np.exp(logs - exact)
        assert told.mean() == pytest.approx(1, abs=4 * told.std() / math.sqrt(runs))
    assert told.std() > 1e-3


def test_a_token_moves_no_more_of_those_before_it_however_many_there_are() -> None:
    words, beta = np.random.default_rng(3).integers(0, 4, 300), np.ascontiguousarray(topics().T)
    document = (np.array([0, 300]), words, beta, ALPHA, 3, np.array([7], np.uint64))
    few, all_before = (float(left_to_right(*document, most)[0]) for most in (MOST_MOVES, 300))
    assert MOST_MOVES <= 64
    assert float(shared_left_to_right(*document)[0]) == few != all_before


def test_a_book_is_scored_near_the_exact_value() -> None:
    made = model()
    two = LDA(Counts(tuple("abcd")), topics=2).double()
    two.strength.copy_(made.strength[:, :2])
    two.alpha.copy_(made.alpha[:2])
    two.length.moments.copy_(made.length.moments)
    book = torch.tensor([[800, 600, 400, 200]])
    exact = float(two.exact_log_prob(book))
    assert float(two.log_prob(book, samples=10)) == pytest.approx(exact, abs=8)
    assert bool(made.log_prob(10 * book, samples=2).isfinite())  # 4 * 10^8 draws without a limit
    assert float(two.elbo(book)) < exact


@pytest.mark.parametrize("tokens", [20, 4000])
def test_the_exact_value_of_a_long_document_is_the_integral_over_its_proportions(tokens: int) -> None:
    beta, alpha = topics(2), 0.3
    counts = np.array([4, 3, 2, 1]) * tokens // 10
    logit = np.linspace(-150, 150, 300_001)
    on, off = -np.logaddexp(0, -logit), -np.logaddexp(0, logit)
    inside = counts @ np.log(np.outer(beta[0], np.exp(on)) + np.outer(beta[1], np.exp(off)))
    terms = inside + alpha * (on + off) + gammaln(2 * alpha) - 2 * gammaln(alpha)  # over the logit
    wanted = np.logaddexp.reduce(terms) + math.log(logit[1] - logit[0])
    found = counted_evidence(np.arange(4), counts, beta, np.full(2, alpha))
    assert found == pytest.approx(wanted, abs=1e-6)


def test_log_prob_is_a_distribution_over_bags() -> None:
    made = model(2)
    made.length.learn(torch.tensor([2, 3, 4, 2]))
    side = torch.arange(40)
    x = torch.cartesian_prod(side, side)
    x = x[x.sum(1) < 40]
    assert float(made.exact_log_prob(x).exp().sum()) == pytest.approx(1, abs=1e-6)
    assert float(made.elbo(x).exp().sum()) < 1
    assert float(made.log_prob(x, 50).exp().sum()) == pytest.approx(1, abs=0.02)
    assert made.density.kind == "estimate"


def test_collapsed_gibbs_visits_assignments_as_often_as_they_are_probable() -> None:
    # two documents of two and one tokens over two words, two topics: 8 states
    words, starts, K, V, eta = np.array([0, 1, 0], np.int32), np.array([0, 2, 3]), 2, 2, 0.5
    alpha, owner = 0.6, np.array([0, 0, 1])
    states = list(itertools.product(range(K), repeat=3))
    wanted = np.exp([joint(z, words.tolist(), owner.tolist(), (K, V), eta, alpha) for z in states])
    wanted /= wanted.sum()
    z = np.zeros(3, np.int32)
    counts, own, mass = np.zeros((V, 16), np.float32), np.zeros((2, 16), np.float32), np.full(16, 1e30)
    np.add.at(counts, (words, z), 1)
    np.add.at(own, (owner, z), 1)
    mass[:K] = counts.sum(0)[:K]
    padded = np.zeros(16, np.float32)
    padded[:K] = alpha
    seen, runs = np.zeros(8), 20_000
    for seed in np.random.default_rng(3).integers(1 << 62, size=runs):
        gibbs_sweep(starts, words, z, padded, eta, counts, mass, own, np.uint64(seed))
        seen[z[0] * 4 + z[1] * 2 + z[2]] += 1
    assert np.abs(seen / runs - wanted).max() < 0.02
    assert own[:, :K].sum() == 3
    assert counts[:, K:].sum() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("learn_alpha", [False, True])
def test_the_bound_never_falls(dtype: torch.dtype, *, learn_alpha: bool) -> None:
    x, _ = planted(60)
    made = LDA(Counts(tuple("abcdefghijkl")), topics=4, learn_alpha=learn_alpha).to(dtype)
    told = [made.sweep(x) for _ in range(25)]
    slack = 2e-4 if dtype == torch.float32 else 1e-8
    assert all(after >= before - slack for before, after in itertools.pairwise(told))
    assert told[-1] > told[0] + 1


def joint(
    z: tuple[int, ...], words: list[int], owner: list[int], sizes: tuple[int, int], eta: float, a: float
) -> float:
    """Return log p(words, z) with proportions and topics integrated out, by the formula of Polya's urn."""
    K, V = sizes
    own, kw = np.zeros((max(owner) + 1, K)), np.zeros((K, V))
    np.add.at(own, (owner, z), 1)
    np.add.at(kw, (z, words), 1)
    value = (gammaln(own + a) - gammaln(a)).sum() + (gammaln(K * a) - gammaln(K * a + own.sum(1))).sum()
    value += (gammaln(kw + eta) - gammaln(eta)).sum() + (
        gammaln(V * eta) - gammaln(kw.sum(1) + V * eta)
    ).sum()
    return float(value)


def test_the_objective_is_a_bound_on_the_evidence_with_topics_integrated_out() -> None:
    words, owner = [0, 1, 1, 0], [0, 0, 1, 1]  # two documents of two tokens
    x = torch.tensor([[1, 1], [1, 1]])
    for K in (1, 2):
        states = list(itertools.product(range(K), repeat=4))
        exact = np.logaddexp.reduce([joint(z, words, owner, (K, 2), 0.7, 0.4) for z in states])
        made = LDA(Counts(("a", "b")), topics=K, alpha=0.4, eta=0.7).double()
        told = [2 * made.sweep(x) for _ in range(60)]
        assert max(told) <= exact + 1e-9
        if K == 1:  # nothing is hidden but the topic, whose posterior is a Dirichlet: no gap
            assert told[-1] == pytest.approx(exact, abs=1e-9)


@pytest.mark.parametrize("method", ["variational", "online", "gibbs"])
def test_planted_topics_are_found(method: str) -> None:
    x, beta = planted()
    torch.manual_seed(1)
    made = LDA(Counts(tuple("abcdefghijkl")), topics=3, method=method, alpha=0.2, batch=50)  # type: ignore[arg-type]
    for _ in range(40):
        made.sweep(x.to_sparse())
    overlap = made.topics @ torch.from_numpy(beta).float().T / 0.25  # (found, planted), 1 where alike
    assert float(overlap.max(0).values.min()) > 0.95
    held, _ = planted(50, seed=9)
    share = made.encode(held)
    assert torch.allclose(share.sum(1), torch.ones(50), atol=1e-5)
    best = overlap.argmax(1)
    counted = held.view(50, 3, 4).sum(2)[:, best] / 40
    assert float((share - counted).abs().max()) < 0.05


def test_a_minibatch_stands_for_all_documents() -> None:
    x, _ = planted(60)  # of 40 tokens each
    made = LDA(Counts(tuple("abcdefghijkl")), topics=4, method="online", batch=20, eta=0.5)
    made.sweep(x)
    assert float(made.strength.sum()) == pytest.approx(12 * 4 * 0.5 + 60 * 40, rel=1e-4)


def test_dense_and_sparse_documents_are_the_same_documents() -> None:
    x, _ = planted(30)
    torch.manual_seed(0)
    first = LDA(Counts(tuple("abcdefghijkl")), topics=3)
    second = LDA(Counts(tuple("abcdefghijkl")), topics=3)
    second.load_state_dict(first.state_dict())
    assert [first.sweep(x) for _ in range(3)] == [second.sweep(x.to_sparse()) for _ in range(3)]
    assert torch.equal(first.strength, second.strength)


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_the_number_of_threads_changes_no_estimate(threads: int) -> None:
    lengths = np.random.default_rng(1).integers(0, 30, 41)
    starts = np.concatenate([[0], lengths.cumsum()])
    words = np.random.default_rng(2).integers(0, 4, starts[-1])
    beta, seeds = np.ascontiguousarray(topics().T), np.arange(41).astype(np.uint64)
    alone = left_to_right(starts, words, beta, ALPHA, 3, seeds)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert np.array_equal(shared_left_to_right(starts, words, beta, ALPHA, 3, seeds), alone)
        few = shared_left_to_right(starts[:3], words, beta, ALPHA, 3, seeds[:2])
        assert np.array_equal(few, alone[:2])
        assert len(shared_left_to_right(starts[:1], words, beta, ALPHA, 3, seeds[:0])) == 0
    finally:
        torch.set_num_threads(before)


def test_perplexity_of_a_set_is_that_of_its_parts_put_together() -> None:
    made, (x, _) = model(4), (bags(), None)
    for samples in (None, 4):
        whole = made.perplexity(x, samples)
        parts = [(made.perplexity(part, samples).value, int(part.sum())) for part in (x[:1], x[1:3], x[3:])]
        tokens = sum(n for _, n in parts)
        joined = math.exp(sum(n * math.log(value) for value, n in parts) / tokens)
        assert whole.value == pytest.approx(joined, rel=1e-10)
    assert made.perplexity(x, None).kind == "upper bound"
    assert made.perplexity(x).kind == made.perplexity(x, 4).kind == "estimate"


def test_the_standard_error_of_a_perplexity_is_that_of_drawing_other_documents() -> None:
    made, (x, _) = LDA(Counts(tuple("abcdefghijkl")), topics=3), planted(400)
    x[::2, 6:] = 0  # of unequal lengths
    made.sweep(x)
    told, N = made.evidence(x, None).double().numpy(), x.sum(1).numpy()
    drawn = np.random.default_rng(0).integers(len(x), size=(2000, len(x)))
    values = np.exp(-told[drawn].sum(1) / N[drawn].sum(1))
    assert made.perplexity(x, None).stderr == pytest.approx(values.std(), rel=0.1)
    assert made.perplexity(x[:1], None).stderr is None


def test_dirichlet_parameters_are_recovered_and_no_step_lowers_the_likelihood() -> None:
    rng = np.random.default_rng(0)
    true = np.array([0.3, 2.0, 0.8])
    theta = rng.dirichlet(true, 20_000)
    found = most_likely_dirichlet(np.log(theta).mean(0), np.ones(3))
    assert np.allclose(found, true, rtol=0.05)
    counts = np.stack([rng.multinomial(60, row) for row in theta[:4000]])

    def likelihood(a: np.ndarray) -> float:
        rows = gammaln(a.sum()) - gammaln(counts.sum(1) + a.sum())
        return float((rows + (gammaln(counts + a) - gammaln(a)).sum(1)).sum())

    a = np.ones(3)
    for _ in range(60):
        step = polya_step(counts, a)
        assert likelihood(step) >= likelihood(a) - 1e-6
        a = step
    assert np.allclose(a, true, rtol=0.1)


@pytest.mark.parametrize("method", ["variational", "online", "gibbs"])
def test_a_run_that_was_stopped_goes_on_bit_for_bit(method: str, tmp_path: Path) -> None:
    data = tiny("counts")
    runs = []
    for name, epochs in (("whole", 6), ("part", 3)):
        torch.manual_seed(0)
        made = ll.build("lda", data, topics=2, method=method, tolerance=0.0)
        runs.append(
            ll.fit(made, data, epochs=epochs, out=tmp_path / name, progress=False, checkpoint_every=0)
        )
    torch.manual_seed(3)
    again = ll.build("lda", data, topics=2, method=method, tolerance=0.0)
    resumed = ll.fit(again, data, epochs=6, out=tmp_path / "part", resume=True, progress=False)
    wanted, got = runs[0].model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(wanted[name], got[name]) for name in wanted)
    opened = ll.open(tmp_path / "part").model
    assert torch.equal(opened.log_prob(data.test.x), resumed.model.log_prob(data.test.x))


def test_samples_have_the_mean_of_the_model(generator: torch.Generator) -> None:
    made, n = model(), 20_000
    x = made.sample(n, generator).double()
    wanted = made.length.mean * (made.alpha / made.alpha.sum()) @ made.topics
    assert bool(((x.mean(0) - wanted).abs() < 4 * x.std(0) / math.sqrt(n)).all())
    tokens = x.sum(1)
    mean, shape = made.length.moments.tolist()
    assert float(tokens.var()) == pytest.approx(mean + mean**2 / shape, rel=0.08)
    share = made.decode(torch.eye(3, dtype=torch.float64))
    assert torch.equal(share, (made.length.mean * made.topics).round().long())


def test_topics_are_ranked_words_and_the_map_has_its_five_arrays() -> None:
    made, x = model(), bags()
    ranked = made.top_words(3)
    assert [len(row) for row in ranked] == [3, 3, 3]
    for k, row in enumerate(ranked):
        order = topics()[k].argsort()[::-1]
        assert [word for word, _ in row] == ["abcd"[i] for i in order[:3]]
        assert row[0][1] == pytest.approx(topics()[k].max())
    told = made.pyldavis(x)
    assert set(told) == {"topic_term_dists", "doc_topic_dists", "doc_lengths", "vocab", "term_frequency"}
    assert np.allclose(told["topic_term_dists"].sum(1), 1)
    assert told["doc_lengths"].sum() == told["term_frequency"].sum() == int(x.sum())


def test_what_cannot_be_learned_gets_a_clear_error() -> None:
    domain = Counts(tuple("abcd"))
    assert LDA(domain, topics=2).free_parameters == 2 * 3
    assert LDA(domain, topics=2, learn_alpha=True).free_parameters == 2 * 3 + 2
    with pytest.raises(DomainError, match="Counts"):
        ll.build("lda", tiny("bits"))
    for options in ({"topics": 0}, {"alpha": 0.0}, {"eta": math.nan}, {"method": "magic"}, {"batch": 0}):
        with pytest.raises(OptionError, match=next(iter(options))):
            ll.build("lda", tiny("counts"), **options)
    made = LDA(domain, topics=2)
    with pytest.raises(DataError, match="all counts are zero"):
        made.sweep(torch.zeros(3, 4, dtype=torch.int64))
    bad = bags()
    bad[2, 1] = -1
    for x in (bad, bad.to_sparse()):
        with pytest.raises(ShapeError, match="sample 2, dimension 1: -1"):
            made.sweep(x)
    with pytest.raises(ShapeError, match=r"nan is no count"):
        made.log_prob(torch.full((1, 4), math.nan))
    with pytest.raises(ShapeError, match="shape"):
        made.sweep(torch.zeros(3, 5, dtype=torch.int64))
    assert math.isfinite(made.sweep(torch.tensor([[0, 0, 0, 0], [1, 0, 0, 0]])))
    endless = torch.full((2, 4), 1 << 50)
    with pytest.raises(DataError, match="too much to hold one by one"):
        LDA(domain, topics=2, method="gibbs").sweep(endless)
    with pytest.raises(DataError, match="too much to hold one by one"):
        made.evidence(endless, samples=1)
