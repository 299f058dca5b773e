"""Forward and backward of five nets at 224 pixels and batch 8, against torchvision's.

A step is bounded by multiply-adds: 3 x 8 x those of `leadline models NET --cost` (alexnet 0.714 G, vgg16
15.47 G, googlenet 1.50 G, resnet50 4.09 G, densenet121 2.83 G a picture), and in densenet121 by the bytes of
joined maps. Both sides take the same pictures, labels and weights, in the same process, in turn: first both
in plain float32, then ours as `fit` chooses on a processor with bf16 (channels-last, bf16 autocast, freed
memory kept) against the peer's plain float32. In plain order a quarter of googlenet's time goes into torch's
max-pooling of single numbers, thirteen pools a step; `MaxPool2d` of `leadline.nets.vision.blocks` looks for
maxima in channels-last order, at a third of the time, which is what float32 gains here. For alexnet memory is
the limit: at batch 8 its 58 million weights of dense layers are read, cast and written once for 8 pictures.
"""

import statistics
import sys
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import leadline as ll
from bench.common import ratio, seconds
from bench.peers import torchvision_models
from leadline.core import Classes, Images, Signature
from leadline.training.machine import kept_memory

NETS = ("alexnet", "vgg16", "googlenet", "resnet50", "densenet121")
BATCH, SIDE, ROUNDS = 8, 224, 3


def step(net: nn.Module, x: Tensor, y: Tensor, *, fast: bool) -> Callable[[], None]:
    """Return one forward and backward pass, auxiliary heads included."""

    def run() -> None:
        for parameter in net.parameters():
            parameter.grad = None
        with torch.autocast("cpu", torch.bfloat16) if fast else nullcontext():
            if hasattr(net, "with_auxiliary"):
                scores, others = net.with_auxiliary(x)
                given = [scores, *others]
            else:
                out = net(x)
                given = [out] if isinstance(out, Tensor) else list(out)
            loss = sum(F.cross_entropy(one, y) for one in given)
        loss.backward()

    return run


def _as_fit(name: str, ours: Callable[[], None], peer: Callable[[], None]) -> None:
    """Print the ratio of blocks taken in turn: ours with freed memory kept, the peer's as it comes."""
    pairs = []
    for _ in range(ROUNDS):
        with kept_memory():
            ours()
            mine = statistics.median(seconds(ours) for _ in range(3))
        peer()
        pairs.append((mine, statistics.median(seconds(peer) for _ in range(2))))
    ratios = sorted(theirs / mine for mine, theirs in pairs)
    middle = statistics.median(ratios)
    speed = BATCH / statistics.median(mine for mine, _ in pairs)
    print(
        f"{name}: {speed:.3g} pictures/s, ratio {middle:.2f} [{ratios[0]:.2f}, {ratios[-1]:.2f}], goal 1.8: "
        f"{'met' if middle >= 1.8 else 'MISSED'}"
    )


def main() -> None:
    """Print the ratios of the nets named on the command line, or of all."""
    torch.set_num_threads(2)
    models = torchvision_models()
    labels = Classes(tuple(str(number) for number in range(1000)))
    x, y = torch.randn(BATCH, 3, SIDE, SIDE), torch.randint(1000, (BATCH,))
    for name in sys.argv[1:] or NETS:
        options = {"aux_logits": True, "init_weights": False} if name == "googlenet" else {}
        peer = getattr(models, name)(**options).train()
        mine = ll.build(name, Signature(Images(3, SIDE, SIDE), labels)).net.train()
        mine.load_state_dict(peer.state_dict())
        theirs = step(peer, x, y, fast=False)
        ratio(f"{name}, float32", step(mine, x, y, fast=False), theirs, goal=1.0, rounds=ROUNDS)
        mine = mine.to(memory_format=torch.channels_last)
        quick = step(mine, x.contiguous(memory_format=torch.channels_last), y, fast=True)
        _as_fit(f"{name}, as fit chooses / float32", quick, theirs)


if __name__ == "__main__":
    main()
