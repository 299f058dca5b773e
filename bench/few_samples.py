"""What a prior saves a mixture of Gaussians with full covariances from, on samples not learned from.

Bits a dimension of the test and validation splits, mean over six splits of seeds on which nothing was chosen:
`python -m bench.few_samples`, a minute of one thread.
"""

import math
from typing import Any

import torch

import leadline as ll
from leadline.measures import Histogram

SEEDS = range(100, 106)
COLUMNS = ("iris", "wine", "breast-cancer")
PICTURES = (48, 400, None)


def bits(model: Any, data: ll.Dataset) -> float:
    """Return mean bits a dimension of the samples held out."""
    x = torch.cat([data.test.x, data.valid.x])  # type: ignore[list-item]
    return -float(model.log_prob(x).mean()) / data.domain.dims / math.log(2)


def learned(data: ll.Dataset, seed: int, **options: Any) -> float:
    """Return bits a dimension of a mixture that has settled."""
    torch.manual_seed(seed)
    model = ll.build("gmm", data, **options)
    return bits(ll.fit(model, data, out=False, progress=False, threads=1).model, data)


def row(name: str, data: list[ll.Dataset], components: int, *variants: dict[str, Any]) -> None:
    """Print the mean of each variant."""
    told = []
    for options in variants:
        each = [learned(one, s, components=components, **options) for one, s in zip(data, SEEDS, strict=True)]
        told.append(f"{sum(each) / len(each):.2f}")
    if name.startswith("digits"):
        told.append(f"{sum(bits(Histogram(one), one) for one in data) / len(data):.2f}")
    print(f"| {name} | {components} | {' | '.join(told)} |", flush=True)


def main() -> None:
    """Print a row a data set and number of components."""
    print("| columns | components | `prior=0` | default |\n|---|---|---|---|")
    for name in COLUMNS:
        data = [ll.load(name, vectors=True, seed=seed) for seed in SEEDS]
        for components in (3, 8):
            row(name, data, components, {"prior": 0}, {})
    print('\n| pictures | components | `pixels="standard", prior=0` | `prior=0` | default | histograms |')
    print("|---|---|---|---|---|---|")
    for limit in PICTURES:
        data = [ll.load("digits", limit=limit, seed=seed) for seed in SEEDS]
        name = f"digits, {len(data[0].train)} to learn from"
        row(name, data, 8, {"prior": 0, "pixels": "standard"}, {"prior": 0}, {})


if __name__ == "__main__":
    main()
