"""Deep Boltzmann machines of bits with and without pre-training, in equal time.

The bound on log p of test samples, with what log Z in it lies between:
`python -m bench.deep_machine [DATA] [HIDDEN] [SECONDS] [SEED]`, for instance `mnist_train.npz 500,1000 60`.
The clock is that of the processor, one thread, so that other work matters little.
"""

import sys
import time
from types import SimpleNamespace

import torch

import leadline as ll
from leadline.training import session

VARIANTS = {"default": {}, "pre-trained": {"pretrained": True}, "plain gradient": {"centred": False}}
ROWS, CHAINS = 1000, 50


def main() -> None:
    """Print one row a variant."""
    given = sys.argv[1:] + ["digits", "128,128", "12", "1"][len(sys.argv) - 1 :]
    data = ll.load(given[0], binarize=True)
    hidden, seconds, seed = tuple(int(width) for width in given[1].split(",")), float(given[2]), int(given[3])
    session.time = SimpleNamespace(monotonic=time.process_time)  # type: ignore[assignment]
    print(f"{data.name}, {hidden}, {seconds:g} s of a processor, seed {seed}\n")
    print("| variant | steps | nats | log Z |\n|---|---|---|---|")
    for name, options in VARIANTS.items():
        torch.manual_seed(seed)
        model = ll.build("dbm", data, hidden=hidden, **options)
        run = ll.fit(model, data, budget=seconds, seed=seed, threads=1, out=False, progress=False)
        x = data.test.x[:ROWS]
        found = run.model.log_partition(chains=CHAINS)  # type: ignore[operator]
        low, high = (run.model.log_partition(end, chains=CHAINS).value for end in ("lower", "upper"))  # type: ignore[operator]
        with torch.no_grad():
            free = run.model._unnormalised(run.model._visible(x)).mean()  # type: ignore[operator]
        doubt = ", not trusted" if "trusted" in found.protocol else ""
        nats = float(free) - found.value
        print(
            f"| {name} | {run.steps:,} | {nats:.2f} | between {low:.1f} and {high:.1f}{doubt} |", flush=True
        )


if __name__ == "__main__":
    main()
