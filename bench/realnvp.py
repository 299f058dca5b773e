"""RealNVP against zuko's: gradient of log_prob, and sampling; 64 dimensions, 8 couplings, 2 x 128 hidden.

Bound: matrix products, 2 * 28,672 * 8 operations a row and pass, three passes with a gradient. At batch 128
the overhead of some 200 small kernels is as large; zuko runs about twice as many, and gathers and scatters.
Limit: at batch 1024 both spend most of the time in the same products.
"""

import os

import torch
import zuko

from bench.common import ratio
from leadline.core import Signature, Vectors
from leadline.models.flows.realnvp import RealNVP

DIMS, COUPLINGS, HIDDEN = 64, 8, (128, 128)


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(int(os.environ.get("BENCH_THREADS", "2")))
    model = RealNVP.for_data(Signature(Vectors.standard(DIMS)), couplings=COUPLINGS, hidden=HIDDEN)
    flow = zuko.flows.RealNVP(DIMS, transforms=COUPLINGS, hidden_features=HIDDEN)
    for n in (128, 1024):
        x = torch.randn(n, DIMS)

        def ours_gradient(x: torch.Tensor = x) -> None:
            model.zero_grad()
            model.log_prob(x).mean().backward()

        def peer_gradient(x: torch.Tensor = x) -> None:
            flow.zero_grad()
            flow().log_prob(x).mean().backward()

        def ours_sample(n: int = n) -> None:
            with torch.no_grad():
                model.sample(n)

        def peer_sample(n: int = n) -> None:
            with torch.no_grad():
                flow().sample((n,))

        ratio(f"realnvp: gradient of log_prob, batch {n}", ours_gradient, peer_gradient, goal=1.5, rounds=31)
        ratio(f"realnvp: {n} samples", ours_sample, peer_sample, goal=1.5, rounds=31)


if __name__ == "__main__":
    main()
