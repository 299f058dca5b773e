"""Steps a second of `fit` on a small perceptron, against a bare loop and against scikit-learn.

A step on 64-128-10 with batch 64 is 3.6 million multiply-adds and reads 0.1 MB: some 50 microseconds
of arithmetic on one core. All else is the cost of starting some 40 kernels and of Python around them,
so the limit is the number of calls; one thread is faster than two.
"""

import time
import warnings

import torch
from sklearn.neural_network import MLPClassifier
from torch import nn

import leadline as ll
from bench.common import ratio

STEPS, BATCH = 2000, 64


def main() -> None:
    """Print the ratios."""
    data = ll.load("digits")
    x, y = data.domain.features(data.train.x), data.train.y
    assert y is not None
    epochs = -(-STEPS * BATCH // len(x))

    def ours(*, compiled: bool = False) -> None:
        ll.fit(
            ll.build("mlp", data, hidden=(128,)),
            data,
            steps=STEPS,
            batch_size=BATCH,
            validate_every=10_000,
            out=False,
            progress=False,
            compile=compiled,
        )

    def bare() -> None:
        torch.set_num_threads(1)
        net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
        optimizer = torch.optim.Adam(net.parameters(), fused=True)
        step = 0
        while step < STEPS:
            for index in torch.randperm(len(x)).split(BATCH):
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(net(x[index]), y[index])
                loss.backward()
                optimizer.step()
                step += 1
                if step == STEPS:
                    break

    def loader() -> None:
        torch.set_num_threads(1)
        batches = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), BATCH, shuffle=True)
        net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
        optimizer = torch.optim.Adam(net.parameters(), fused=True)
        for _ in range(epochs):
            for some_x, some_y in batches:
                optimizer.zero_grad()
                nn.functional.cross_entropy(net(some_x), some_y).backward()
                optimizer.step()

    def sklearn() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            MLPClassifier((128,), batch_size=BATCH, max_iter=epochs, tol=0, n_iter_no_change=10**6).fit(
                x.numpy(), y.numpy()
            )

    start = time.perf_counter()
    ours()
    print(f"fit: {STEPS / (time.perf_counter() - start):.0f} steps/s")
    ratio("fit / bare loop, fused Adam", ours, bare, goal=0.9)
    ratio("fit / DataLoader loop", ours, loader, goal=1.0)
    ratio("fit / scikit-learn MLPClassifier", ours, sklearn, goal=1.0)
    ratio("fit(compile=True) / scikit-learn MLPClassifier", lambda: ours(compiled=True), sklearn, goal=1.0)


if __name__ == "__main__":
    main()
