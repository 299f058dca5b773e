"""LDA against scikit-learn's batch variational Bayes and tomotopy's collapsed Gibbs, on AP with 50 topics.

What the limit is. A variational step of a document reads the rows of its distinct words twice: 2 z K
multiply-adds, with z = 240,000 counts and K = 50 24 million over the corpus; some 20 steps a pass make 0.5 G,
30 ms at 16 G a second. Beside it stand an exponential and three divisions a document, topic and step.
A Gibbs draw reads three rows of K numbers, of which the word's row (200 bytes of a table of 2 MB) comes from
the second cache: some 20 to 40 ns with AVX-512.

Run: python -m bench.lda [path of ap.dat]
"""

import statistics
import sys
import warnings
from pathlib import Path

import numpy as np
import torch

import leadline as ll
from bench.common import seconds

AP = Path(__file__).parents[2] / "shared" / "data" / "topics" / "ap" / "ap.dat"
TOPICS, PASSES, ROUNDS, SWEEPS, HELD = 50, 20, 3, 20, 100


def variational(data: ll.Dataset) -> None:
    from sklearn.decomposition import LatentDirichletAllocation

    bags, held = data.train.x, data.test.head(HELD).x
    matrix, sparse = bags.matrix, bags.sparse()
    ours, theirs, scores = [], [], {"ours": [], "scikit-learn": []}
    for seed in range(ROUNDS):
        peer = LatentDirichletAllocation(
            TOPICS, doc_topic_prior=0.1, topic_word_prior=0.01, max_iter=PASSES, random_state=seed
        )
        theirs.append(seconds(lambda peer=peer: peer.fit(matrix)) / PASSES)
        torch.manual_seed(seed)
        model = ll.build("lda", data, topics=TOPICS)
        ours.append(seconds(lambda model=model: [model.sweep(sparse) for _ in range(PASSES)]) / PASSES)
        scores["ours"].append(model.perplexity(held, samples=10).value)
        model.strength.copy_(torch.from_numpy(peer.components_.T.copy()))
        scores["scikit-learn"].append(model.perplexity(held, samples=10).value)
    print(f"variational: {PASSES} passes over {len(bags)} documents, {TOPICS} topics, {ROUNDS} starts")
    for name, times in (("ours", ours), ("scikit-learn", theirs)):
        told = ", ".join(f"{value:.0f}" for value in scores[name])
        print(f"  {name:<13} {statistics.median(times) * 1e3:7.1f} ms a pass ({min(times) * 1e3:.1f} to "
              f"{max(times) * 1e3:.1f}), held-out perplexity (left to right) {told}")  # fmt: skip
    ratios = sorted(b / a for a, b in zip(ours, theirs, strict=True))
    print(f"  ratio {statistics.median(ratios):.2f} (from {ratios[0]:.2f} to {ratios[-1]:.2f}); goal 3")


def gibbs(data: ll.Dataset) -> None:
    import tomotopy

    bags = data.train.x
    tokens, sparse = int(bags.counts.sum()), bags.sparse()
    peer = tomotopy.LDAModel(k=TOPICS, alpha=0.1, eta=0.01, seed=1)
    peer.optim_interval = 0
    for start, end in zip(bags.starts[:-1], bags.starts[1:], strict=True):
        peer.add_doc(np.repeat(bags.words[start:end], bags.counts[start:end]).astype(str).tolist())
    peer.train(1, workers=1)
    model = ll.build("lda", data, topics=TOPICS, method="gibbs")
    model.sweep(sparse)
    rates: dict[str, list[float]] = {"ours": [], "tomotopy": []}
    for _ in range(ROUNDS):
        rates["ours"].append(SWEEPS * tokens / seconds(lambda: [model.sweep(sparse) for _ in range(SWEEPS)]))
        rates["tomotopy"].append(SWEEPS * tokens / seconds(lambda: peer.train(SWEEPS, workers=1)))
    print(f"collapsed Gibbs: {tokens:,} tokens, {TOPICS} topics, one worker (tomotopy: {tomotopy.isa})")
    for name, told in rates.items():
        print(f"  {name:<13} {statistics.median(told) / 1e6:6.2f} M tokens/s ({min(told) / 1e6:.2f} to "
              f"{max(told) / 1e6:.2f})")  # fmt: skip
    ratios = sorted(a / b for a, b in zip(rates["ours"], rates["tomotopy"], strict=True))
    print(f"  ratio {statistics.median(ratios):.2f} (from {ratios[0]:.2f} to {ratios[-1]:.2f}); goal 0.7")


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    data = ll.load(str(sys.argv[1]) if len(sys.argv) > 1 else str(AP))
    for method in ("variational", "gibbs"):  # compile
        ll.build("lda", data, topics=2, method=method).sweep(data.test.x.sparse())
    variational(data)
    gibbs(data)


if __name__ == "__main__":
    main()
