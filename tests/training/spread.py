"""Run by the tests under torchrun: train over several processes and write the run."""

import atexit
import sys
from pathlib import Path

import torch

from leadline.training import fit
from tests.tiny import tiny
from tests.training.learners import Adversaries, Classifier


def main() -> None:
    """Train the model named on the command line."""
    kind, sharding, out = sys.argv[1], sys.argv[2], sys.argv[3]
    torch.set_num_threads(1)
    data = tiny("images")
    dropout = 1e-9 if kind == "normalised" else 0.0  # with dropout comes batch normalisation
    model = Adversaries(data) if kind == "players" else Classifier(data, dropout)
    fit(
        model,
        data,
        epochs=3,
        batch_size=50,  # 120 samples: the last batch is uneven
        optimizer="momentum",
        lr=0.05,
        threads=1,
        select="last",
        sharding=None if sharding == "none" else sharding,
        out=out,
        progress=False,
    )


def threads() -> None:
    """Tell on stdout which threads of a process group this process ends with, where the system says so."""
    names = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
    sys.stdout.write(f"left: {' '.join(name.strip() for name in names if 'gloo' in name)}\n")


if __name__ == "__main__":
    atexit.register(threads)  # before the group joins, so after it has left
    main()
