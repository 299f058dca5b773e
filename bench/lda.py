"""LDA against scikit-learn's batch variational Bayes and tomotopy's collapsed Gibbs, on AP with 50 topics.

Speed counts only at equal quality. After the same number of passes or sweeps the topics of both are judged by
one estimator, the left-to-right one with the same particles, on documents that neither has seen; ours may not
be worse by more than twice the standard error of the difference between starts. Of a chain the topics are
those of its last state for both, and beside it the mean that our model gives to its user.

What the limit is. A variational step reads the gathered rows of a document's distinct words twice, from the
first cache: 2 * 245,028 * 64 = 31 M multiply-adds over the corpus (50 topics are padded to 64), and 90,000
exponentials with three divisions each. Measured 2.2 ms, 14 G multiply-adds a second on one core. What is
gathered and added up beside the steps, 245,028 rows of 200 bytes there and back, takes 12 ms a pass. A
document needs 96 steps in the first pass, 44 in the second and 26 in the twentieth: the number of steps until
its posterior has settled is what limits a pass.
A Gibbs draw makes 3 * 64 operations on three rows of 256 bytes, of which the word's own comes from the second
cache (the table of 10,473 words is 2.7 MB). Measured 54 ns: beside the vectors a chain that nothing shortens,
sum, random number, search (branches that cannot be foreseen) and division.

`quality` trains nothing of a peer: the held-out perplexity of each way to learn, run until it has settled.

Run: python -m bench.lda [variational|gibbs|quality] [path of ap.dat]
"""

import statistics
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import leadline as ll
from bench.common import seconds

AP = Path(__file__).parents[2] / "shared" / "data" / "topics" / "ap" / "ap.dat"
TOPICS, PASSES, ROUNDS, SWEEPS, HELD, PARTICLES = 50, 20, 3, 40, 150, 10
ALPHA, ETA = 0.1, 0.01
SETTLED = {"variational": 200, "online": 40, "gibbs": 300}  # most passes


def cost(data: ll.Dataset, strength: Tensor) -> float:
    """Return minus log p of a held-out token under the topics (words, K), in nats, left to right."""
    judge = ll.build("lda", data, topics=TOPICS, alpha=ALPHA, eta=ETA)
    judge.strength.copy_(strength)
    return float(np.log(judge.perplexity(data.test.x[torch.arange(HELD)], samples=PARTICLES).value))


def told(name: str, unit: str, values: list[float], costs: list[float]) -> None:
    """Print the median speed with its range, and the held-out perplexity of each start."""
    perplexities = ", ".join(f"{np.exp(value):.0f}" for value in costs)
    print(f"  {name:<13} {statistics.median(values):7.2f} {unit} ({min(values):.2f} to {max(values):.2f}), "
          f"held-out perplexity {perplexities}")  # fmt: skip


def judged(ratios: list[float], goal: float, ours: list[float], theirs: list[float]) -> None:
    """Print the ratio of speeds, the difference in quality, and whether the goal is met by both."""
    gaps = np.subtract(ours, theirs)
    error = gaps.std(ddof=1) / len(gaps) ** 0.5
    equal = gaps.mean() <= 2 * error
    middle = statistics.median(ratios)
    verdict = "met" if middle >= goal and equal else "MISSED"
    print(f"  held out, ours minus theirs: {gaps.mean():+.4f} nats per token, standard error {error:.4f} "
          f"over {len(gaps)} starts: {'not worse' if equal else 'WORSE'}")  # fmt: skip
    print(
        f"  speed ratio {middle:.2f} (from {min(ratios):.2f} to {max(ratios):.2f}), goal {goal:g}: {verdict}"
    )


def variational(data: ll.Dataset) -> None:
    """Compare passes of batch variational Bayes."""
    from sklearn.decomposition import LatentDirichletAllocation

    matrix, sparse = data.train.x.matrix, data.train.x.sparse()
    ours, theirs, our_cost, their_cost = [], [], [], []
    for seed in range(ROUNDS):
        peer = LatentDirichletAllocation(
            TOPICS, doc_topic_prior=ALPHA, topic_word_prior=ETA, max_iter=PASSES, random_state=seed
        )
        theirs.append(1e3 * seconds(lambda peer=peer: peer.fit(matrix)) / PASSES)
        torch.manual_seed(seed)
        model = ll.build("lda", data, topics=TOPICS, alpha=ALPHA, eta=ETA)
        ours.append(1e3 * seconds(lambda model=model: [model.sweep(sparse) for _ in range(PASSES)]) / PASSES)
        our_cost.append(cost(data, model.strength))
        their_cost.append(cost(data, torch.from_numpy(peer.components_.T.copy())))
    print(f"variational: {PASSES} passes over {matrix.shape[0]} documents, {TOPICS} topics, {ROUNDS} starts")
    told("ours", "ms a pass", ours, our_cost)
    told("scikit-learn", "ms a pass", theirs, their_cost)
    judged([b / a for a, b in zip(ours, theirs, strict=True)], 3.0, our_cost, their_cost)


def gibbs(data: ll.Dataset) -> None:
    """Compare sweeps of collapsed Gibbs."""
    import tomotopy

    bags = data.train.x
    tokens, sparse = bags.sparse().sum().item(), bags.sparse()
    ours, theirs, our_cost, their_cost, mean_cost = [], [], [], [], []
    for seed in range(1, ROUNDS + 1):
        peer = tomotopy.LDAModel(k=TOPICS, alpha=ALPHA, eta=ETA, seed=seed)
        peer.optim_interval = 0
        for start, end in zip(bags.starts[:-1], bags.starts[1:], strict=True):
            peer.add_doc(np.repeat(bags.words[start:end], bags.counts[start:end]).astype(str).tolist())
        peer.train(SWEEPS, workers=1)
        torch.manual_seed(seed)
        model = ll.build("lda", data, topics=TOPICS, method="gibbs", alpha=ALPHA, eta=ETA)
        for _ in range(SWEEPS):
            model.sweep(sparse)
        for _ in range(2):
            took = seconds(lambda model=model: [model.sweep(sparse) for _ in range(SWEEPS)])
            ours.append(SWEEPS * tokens / took / 1e6)
            took = seconds(lambda peer=peer: peer.train(SWEEPS, workers=1))
            theirs.append(SWEEPS * tokens / took / 1e6)
        our_cost.append(cost(data, last_state(model, np.repeat(bags.words, bags.counts))))
        mean_cost.append(cost(data, model.strength))
        their_cost.append(cost(data, state_of_peer(peer, model.strength.shape[0])))
    print(f"collapsed Gibbs: {tokens:,} tokens, {TOPICS} topics, one worker (tomotopy: {tomotopy.isa}), "
          f"{3 * SWEEPS} sweeps, {ROUNDS} starts")  # fmt: skip
    told("ours", "M tokens/s", ours, our_cost)
    told("tomotopy", "M tokens/s", theirs, their_cost)
    print(f"  our mean of states: perplexity {', '.join(f'{np.exp(value):.0f}' for value in mean_cost)}")
    judged([a / b for a, b in zip(ours, theirs, strict=True)], 0.7, our_cost, their_cost)


def quality(data: ll.Dataset) -> None:
    """Print the held-out perplexity of each way to learn, from several starts, over all test documents."""
    x, sparse = data.test.x[torch.arange(len(data.test))], data.train.x.sparse()
    print(f"{TOPICS} topics, {len(x)} test documents, {ROUNDS} starts")
    for method, most in SETTLED.items():
        values, bounds, passes = [], [], []
        for seed in range(ROUNDS):
            torch.manual_seed(seed)
            model = ll.build("lda", data, topics=TOPICS, method=method, alpha=ALPHA, eta=ETA)
            taken = 0
            while taken < most and not model.converged:
                model.sweep(sparse)
                taken += 1
            passes.append(taken)
            values.append(model.perplexity(x))
            bounds.append(model.perplexity(x, None))
        told = ", ".join(f"{value.value:.0f}" for value in values)
        held = ", ".join(f"{value.value:.0f}" for value in bounds)
        print(f"  {method:<12} {passes} passes: perplexity {told} (standard error over documents "
              f"{values[0].stderr:.0f}), by the bound at most {held}")  # fmt: skip


def last_state(model: torch.nn.Module, words: np.ndarray) -> Tensor:
    """Return counts plus prior of the topics of the tokens as they now stand, (words, K)."""
    counts = np.full(model.strength.shape, ETA, np.float32)
    np.add.at(counts, (words, model.assignments.numpy()), 1)
    return torch.from_numpy(counts)


def state_of_peer(peer: object, size: int) -> Tensor:
    """Return the topics of tomotopy's last state (words, K); unseen words have the prior's share."""
    topics = np.stack([peer.get_topic_word_dist(k) for k in range(TOPICS)], 1)
    mass = np.asarray(peer.get_count_by_topics(), np.float64)
    strength = np.full((size, TOPICS), ETA, np.float32)
    strength[[int(name) for name in peer.used_vocabs]] = topics * (mass + ETA * len(topics))
    return torch.from_numpy(strength)


def main() -> None:
    """Run one part or both."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    parts = {"variational": variational, "gibbs": gibbs, "quality": quality}
    chosen = [name for name in sys.argv[1:] if name in parts] or ["variational", "gibbs"]
    path = next((name for name in sys.argv[1:] if name not in parts), str(AP))
    data = ll.load(path)
    for method in ("variational", "gibbs"):  # compile
        small = ll.build("lda", data, topics=2, method=method)
        small.sweep(data.test.x.sparse())
        small.perplexity(data.test.x[torch.arange(2)], samples=2)
    for name in chosen:
        parts[name](data)


if __name__ == "__main__":
    main()
