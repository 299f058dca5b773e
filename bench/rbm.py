"""CD-1 of a restricted Boltzmann machine against scikit-learn's; 10,000 x 784, 500 hidden, two threads.

Then, without a peer: CD-1 of Gaussian visible units and a pre-training step of the second layer of a deep
belief net, each against our own binary step; and the exact log Z of 20 hidden units under 784 visible ones.

Bound: three products of a batch with the weights and a double one for the gradient, 2 * 5 * 784 * 500
operations a sample, 39 GFLOP an epoch. At batch 10 the weights are read three times, and gradient and
weights are written, once a step: about 9 MB of traffic for 39 MFLOP, so that memory limits us, beside some
40 small kernels. At batch 100 the products come first, then 128,400 uniforms a step, drawn on one thread.

Gaussian units add a draw of 784 normals a row. log Z sums 2^20 states; with binary visible units that is 784
factors each. Three of them multiply out into 8 terms, which for all states is a product of 1024 x 8 by
8 x 1024: 262 of these are 4.4 GFLOP in float64, beside 2.8e8 multiplications in the cache.
Gaussian ones integrate out, and what is left is a product of 1024 x 10 by 10 x 1024.

Ours and the peer run in turn in processes of their own: the thread pools of one would slow the other.
"""

import os
import statistics
import subprocess
import sys
import time
import warnings

SAMPLES, VISIBLE, HIDDEN = 10_000, 784, 500
GOALS = {10: 2.5, 100: 1.5}
ROUNDS = 5
MOST_SECONDS = 1.0


def ours(batch: int, share: int) -> list[float]:
    """Return seconds of epochs of `fit` on `share` samples."""
    import torch

    from leadline import fit
    from leadline.core import Bits
    from leadline.data import Dataset, Split
    from leadline.models.boltzmann.rbm import RBM

    threads = int(os.environ.get("BENCH_THREADS", "2"))
    torch.set_num_threads(threads)
    x = (torch.rand(share, VISIBLE, generator=torch.Generator().manual_seed(0)) < 0.2).to(torch.uint8)
    model = RBM(Bits((VISIBLE,)), HIDDEN, persistent=False, centred=False)  # as the peer learns
    nothing = Split(x[:0])
    data = Dataset("noise", Bits((VISIBLE,)), None, Split(x), nothing, nothing)

    def epochs(count: int) -> float:
        start = time.perf_counter()
        fit(model, data, epochs=count, optimizer="sgd", lr=0.05, batch_size=batch, threads=threads,
            out=False, progress=False)  # fmt: skip
        return time.perf_counter() - start

    epochs(1)
    return [epochs(3) / 3 for _ in range(3)]


def peer(batch: int, share: int) -> list[float]:
    """Return seconds of epochs of scikit-learn's BernoulliRBM on `share` samples."""
    import numpy as np
    from sklearn.neural_network import BernoulliRBM

    warnings.simplefilter("ignore")
    raw = (np.random.default_rng(0).random((share, VISIBLE)) < 0.2).astype(np.float32)

    def epochs(count: int) -> float:
        start = time.perf_counter()
        BernoulliRBM(HIDDEN, learning_rate=0.05, batch_size=batch, n_iter=count, random_state=0).fit(raw)
        return time.perf_counter() - start

    epochs(1)
    return [epochs(3) / 3 for _ in range(3)]


def alone(side: str, batch: int, share: int) -> float:
    """Return the median seconds of an epoch, measured in a process of its own."""
    free = {
        key: value for key, value in os.environ.items() if key not in ("OMP_WAIT_POLICY", "KMP_BLOCKTIME")
    }
    code = f"from bench.rbm import {side}; print(*{side}({batch}, {share}))"
    free |= {"OMP_WAIT_POLICY": "ACTIVE", "KMP_BLOCKTIME": "200"}
    done = subprocess.run([sys.executable, "-c", code], env=free, capture_output=True, text=True, check=True)
    return statistics.median(float(word) for word in done.stdout.split())


def layers() -> None:
    """Print what a contrastive step of other layers costs, in steps of the binary one of the same size."""
    import torch

    from bench.common import seconds
    from leadline.nets.boltzmann import BernoulliLayer, GaussianLayer

    torch.set_num_threads(int(os.environ.get("BENCH_THREADS", "2")))
    torch.manual_seed(0)

    def steps(layer: torch.nn.Module, v: torch.Tensor) -> float:
        def twenty() -> None:
            for _ in range(20):
                layer.contrast(v).backward()  # type: ignore[operator]

        return seconds(twenty)

    bits, reals, codes = torch.rand(100, 784).round(), torch.randn(100, 784), torch.rand(100, 500)
    sides = {
        "Gaussian, learned scale": (GaussianLayer(784, 500, learned=True), reals),
        "Gaussian, unit scale": (GaussianLayer(784, 500), reals),
        "second layer of a deep belief net": (BernoulliLayer(500, 500), codes),
    }
    plain = BernoulliLayer(784, 500)
    for name, (layer, v) in sides.items():
        steps(plain, bits), steps(layer, v)
        pairs = [(steps(plain, bits), steps(layer, v)) for _ in range(7)]
        ratios = sorted(b / a for a, b in pairs)
        mine = statistics.median(b for _, b in pairs) / 20 * 1e3
        print(
            f"rbm CD-1 step of batch 100, {name}: {mine:.3g} ms, {statistics.median(ratios):.2f} "
            f"[{ratios[0]:.2f}, {ratios[-1]:.2f}] binary steps of 784 x 500"
        )


def partition() -> None:
    """Print the time of the exact log Z of 20 hidden units."""
    import torch

    from bench.common import seconds
    from leadline.nets.boltzmann import BernoulliLayer, GaussianLayer

    torch.set_num_threads(int(os.environ.get("BENCH_THREADS", "2")))
    for name, layer in (("binary", BernoulliLayer(784, 20)), ("Gaussian", GaussianLayer(784, 20))):
        with torch.no_grad():
            layer.log_partition()
            times = sorted(seconds(layer.log_partition) for _ in range(5))
        middle = statistics.median(times)
        print(
            f"exact log Z of 20 hidden units, 784 {name} visible: {middle:.3g} s "
            f"[{times[0]:.3g}, {times[-1]:.3g}], goal below {MOST_SECONDS:g} s: "
            f"{'met' if middle < MOST_SECONDS else 'MISSED'}"
        )


def main() -> None:
    """Print the ratios."""
    layers()
    partition()
    for batch, share in ((10, SAMPLES // 10), (100, SAMPLES // 2)):
        pairs = [(alone("ours", batch, share), alone("peer", batch, share)) for _ in range(ROUNDS)]
        ratios = sorted(b / a for a, b in pairs)
        middle, goal = statistics.median(ratios), GOALS[batch]
        mine, theirs = (statistics.median(column) * SAMPLES / share for column in zip(*pairs, strict=True))
        print(
            f"rbm CD-1 {SAMPLES}x{VISIBLE}, {HIDDEN} hidden, batch {batch}, fit against scikit-learn: "
            f"ours {mine:.3g} s an epoch, peer {theirs:.3g} s, ratio {middle:.2f} "
            f"[{ratios[0]:.2f}, {ratios[-1]:.2f}], goal {goal:g}: {'met' if middle >= goal else 'MISSED'}"
        )


if __name__ == "__main__":
    main()
