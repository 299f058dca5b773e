"""Models of grey digits beside the histogram of each pixel, by their own advice on settings.

A fixed number of steps, so that the figures do not depend on how busy the machine is; a split of another seed
than the one on which the settings were chosen. Bits a dimension of the test split, with whether the bounds on
log Z meet where it is estimated: `python -m bench.grey_pictures [SEED] [MODELS]`, five minutes of one thread.
"""

import sys
from typing import Any

import torch

import leadline as ll
from leadline.measures import Histogram

STEPS = {"rbm": 5000, "dbn": 5000, "energy": 2000, "vae": 3000, "realnvp": 2500}
OPTIONS: dict[str, list[dict[str, Any]]] = {
    name: [{"pixels": "gaussianised"}, {"pixels": "standard"}] for name in ("vae", "realnvp")
}


def bits(model: torch.nn.Module, data: ll.Dataset) -> float:
    """Return mean bits a dimension of the test split."""
    with torch.no_grad():
        nats = model.log_prob(data.test.x).mean()  # type: ignore[operator]
    return -float(nats) / data.domain.dims / float(torch.log(torch.tensor(2.0)))


def partition(model: torch.nn.Module) -> str:
    """Return between what log Z lies, or nothing for a model without one."""
    if not hasattr(model, "log_partition"):
        return ""
    low, high = (model.log_partition(end).value for end in ("lower", "upper"))  # type: ignore[operator]
    doubt = ", not trusted" if "trusted" in model.density.protocol else ""  # type: ignore[union-attr, operator]
    return f"between {low:.1f} and {high:.1f}{doubt}"


def main() -> None:
    """Print one row a model."""
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    names = sys.argv[2].split(",") if len(sys.argv) > 2 else list(STEPS)
    data = ll.load("digits", seed=seed)
    print("| model | steps | bits/dim | log Z |\n|---|---|---|---|")
    print(f"| histogram of each pixel | | {bits(Histogram(data), data):.2f} | |", flush=True)
    for name in names:
        for options in OPTIONS.get(name, [{}]):
            torch.manual_seed(seed)
            model = ll.build(name, data, **options)
            run = ll.fit(model, data, steps=STEPS[name], seed=seed, out=False, progress=False, threads=1)
            told = ", ".join([f"`{name}`", *options.values()])
            score, log_z = bits(run.model, data), partition(run.model)
            print(f"| {told} | {STEPS[name]:,} | {score:.2f} | {log_z} |", flush=True)


if __name__ == "__main__":
    main()
