"""Steps a second of `fit` with sharpness-aware steps, against a loop written by hand in the same run.

A sharp step is two forward and backward passes, one norm over the gradients, one climb and one way back
(three sweeps over the weights), and one step of the base; a plain step is one pass and one step of the base.
So two plain steps are the limit. On a convolutional net the passes are some hundred times the sweeps. On a
perceptron of 64-128-10 all is the cost of starting kernels: some 40 a plain step, and 20 for a climb and the
way back. What `fit` adds to the loop by hand is that it keeps buffers and random states, so that statistics
move once and dropout is the same in both passes. Once a run, before it validates, it measures the statistics
of batch normalisation in some 20 passes forward, so that the run on the convolutional net has 300 steps.
"""

import torch
from torch import nn

import leadline as ll
from bench.common import ratio

BATCH, RHO = 64, 0.05
# name: options, steps, what two plain steps allow
CASES = {
    "mlp": ({"hidden": (128,)}, 400, 0.7),
    "convnet": ({"channels": (16, 32), "hidden": 64}, 300, 0.85),
}


def _by_hand(model: nn.Module, data: ll.Dataset, steps: int) -> None:
    """Sharp steps as they are usually written."""
    torch.set_num_threads(1)
    x, y = data.train.x, data.train.y
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, fused=True)
    weights = list(model.parameters())
    taken = 0
    model.train()
    while taken < steps:
        for index in torch.randperm(len(x)).split(BATCH):
            some, labels = x[index], y[index]
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model.scores(some), labels)
            loss.backward()
            with torch.no_grad():
                grads = [p.grad for p in weights]
                norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
                climb = torch._foreach_mul(grads, RHO / (norm + 1e-12))
                torch._foreach_add_(weights, climb)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model.scores(some), labels).backward()
            with torch.no_grad():
                torch._foreach_sub_(weights, climb)
            optimizer.step()
            loss.item()  # every loop looks at its loss
            taken += 1
            if taken == steps:
                return


def _fitted(
    model: nn.Module, data: ll.Dataset, steps: int, optimizer: str, options: dict[str, float] | None
) -> None:
    ll.fit(
        model, data, steps=steps, batch_size=BATCH, optimizer=optimizer, optimizer_options=options, lr=0.05,
        validate_every=10_000, threads=1, out=False, progress=False,
    )  # fmt: skip


def main() -> None:
    """Print the ratios."""
    data = ll.load("digits")
    for name, (options, steps, limit) in CASES.items():

        def made(name: str = name, options: dict[str, object] = options) -> nn.Module:
            return ll.build(name, data, **options)

        def ours(steps: int = steps, made=made) -> None:  # type: ignore[no-untyped-def]
            _fitted(made(), data, steps, "sam", {"rho": RHO})

        def peer(steps: int = steps, made=made) -> None:  # type: ignore[no-untyped-def]
            _by_hand(made(), data, steps)

        def plain(steps: int = steps, made=made) -> None:  # type: ignore[no-untyped-def]
            _fitted(made(), data, 2 * steps, "momentum", None)

        ratio(f"sam on {name} / by hand", ours, peer, goal=0.95)
        ratio(f"sam on {name} / two plain steps of fit", ours, plain, goal=limit)


if __name__ == "__main__":
    main()
