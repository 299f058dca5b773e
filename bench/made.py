"""Sampling from MADE against zuko's masked autoregressive flow, 64 dimensions, 2 x 128 hidden.

zuko's default has three transforms; with one it is the same distribution as ours, of the same size.
Bound: each of the d steps must wait for the one before, so d times the overhead of its small kernels;
the arithmetic of all steps together is one pass, where zuko takes a whole pass at every step.
Limit: at batch 128 some thirty kernels of 1 to 5 microseconds a step, half in the network, half in drawing
the value and taking its features; a pass of one transform has about as many.
"""

import torch
import zuko

from bench.common import ratio
from leadline.core import Signature, Vectors
from leadline.models.autoregressive.made import MADE

DIMS, HIDDEN = 64, (128, 128)


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = MADE.for_data(Signature(Vectors.standard(DIMS)), hidden=HIDDEN)
    for transforms in (1, 3):
        flow = zuko.flows.MAF(DIMS, transforms=transforms, hidden_features=HIDDEN)
        for n in (128, 1024):

            def peer(flow: zuko.flows.MAF = flow, n: int = n) -> torch.Tensor:
                with torch.no_grad():
                    return flow().sample((n,))

            name = f"made: {n} samples of {DIMS} dimensions, zuko MAF with {transforms} transforms"
            ratio(name, lambda n=n: model.sample(n), peer, goal=10 if transforms == 3 else 1)


if __name__ == "__main__":
    main()
