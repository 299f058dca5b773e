"""Boltzmann machines of grey digits beside the histogram of each pixel, by their own advice on settings.

A fixed number of steps, so that the figures do not depend on how busy the machine is; a split of another seed
than the one on which the settings were chosen. Bits a dimension of the test split, with whether the bounds on
log Z meet: `python -m bench.grey_pictures [SEED]`, three minutes of one thread.
"""

import sys

import torch

import leadline as ll
from leadline.measures import Histogram

STEPS = {"rbm": 5000, "dbn": 5000, "energy": 2000}


def bits(model: torch.nn.Module, data: ll.Dataset) -> float:
    """Return mean bits a dimension of the test split."""
    with torch.no_grad():
        nats = model.log_prob(data.test.x).mean()  # type: ignore[operator]
    return -float(nats) / data.domain.dims / float(torch.log(torch.tensor(2.0)))


def main() -> None:
    """Print one row a model."""
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    data = ll.load("digits", seed=seed)
    print("| model | steps | bits/dim | log Z |\n|---|---|---|---|")
    print(f"| histogram of each pixel | | {bits(Histogram(data), data):.2f} | |", flush=True)
    for name, steps in STEPS.items():
        torch.manual_seed(seed)
        model = ll.build(name, data)
        run = ll.fit(model, data, steps=steps, seed=seed, out=False, progress=False, threads=1)
        score = bits(run.model, data)
        low, high = (run.model.log_partition(end).value for end in ("lower", "upper"))  # type: ignore[operator]
        doubt = ", not trusted" if "trusted" in run.model.density.protocol else ""  # type: ignore[union-attr, operator]
        print(f"| `{name}` | {steps:,} | {score:.2f} | between {low:.1f} and {high:.1f}{doubt} |", flush=True)


if __name__ == "__main__":
    main()
