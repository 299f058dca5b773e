"""CD-1 of a restricted Boltzmann machine against scikit-learn's; 10,000 x 784, 500 hidden, two threads.

Bound: three products of a batch with the weights and a double one for the gradient, 2 * 5 * 784 * 500
operations a sample, 39 GFLOP an epoch. At batch 10 the weights are read three times, and gradient and
weights are written, once a step: about 9 MB of traffic for 39 MFLOP, so that memory limits us, beside some
40 small kernels. At batch 100 the products come first, then 128,400 uniforms a step, drawn on one thread.
"""

import os
import warnings

import torch
from sklearn.neural_network import BernoulliRBM

from bench.common import ratio
from leadline import fit
from leadline.core import Batch, Bits
from leadline.data import Dataset, Split
from leadline.models.boltzmann.rbm import RBM

SAMPLES, VISIBLE, HIDDEN = 10_000, 784, 500
GOALS = {10: 2.5, 100: 1.5}


def case(batch: int, threads: int, share: int) -> None:
    """Compare `share` of the samples: the work of an epoch is proportional to them."""
    x = (torch.rand(share, VISIBLE, generator=torch.Generator().manual_seed(0)) < 0.2).to(torch.uint8)
    raw = x.float().numpy()
    model = RBM(Bits((VISIBLE,)), HIDDEN)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, fused=True)
    nothing = Split(x[:0])
    data = Dataset("noise", Bits((VISIBLE,)), None, Split(x), nothing, nothing)

    def bare() -> None:
        model.train()
        for rows in x[torch.randperm(share)].split(batch):
            optimizer.zero_grad()
            model.loss(Batch(rows)).backward()
            optimizer.step()

    def fitted() -> None:
        fit(model, data, epochs=1, optimizer="sgd", lr=0.05, batch_size=batch, threads=threads,
            out=False, progress=False)  # fmt: skip

    def peer() -> None:
        BernoulliRBM(HIDDEN, learning_rate=0.05, batch_size=batch, n_iter=1, random_state=0).fit(raw)

    for name, ours in (("bare loop", bare), ("fit", fitted)):
        label = f"rbm CD-1 {share}x{VISIBLE}, {HIDDEN} hidden, batch {batch}, {name} against scikit-learn"
        ratio(label, ours, peer, goal=GOALS[batch])


def main() -> None:
    warnings.simplefilter("ignore")
    threads = int(os.environ.get("BENCH_THREADS", "2"))
    torch.set_num_threads(threads)
    case(10, threads, SAMPLES // 10)
    case(100, threads, SAMPLES // 2)


if __name__ == "__main__":
    main()
