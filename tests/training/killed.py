"""Run by the tests as a program: kill trainings at random moments and resume them to the end.

Usage: python -m tests.training.killed WAY FOLDER KILLS
Prints the number of kills that hit a living training, and whether the final weights never differed.
"""

import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import torch
from tensorboard.compat.proto import event_pb2  # noqa: F401  # imported once, before the forks
from tensorboard.summary.writer import event_file_writer  # noqa: F401

from leadline.training import fit
from tests.tiny import tiny
from tests.training.learners import MODELS


def train(way: str, folder: Path) -> None:
    """Train, or go on training, with a checkpoint after every step."""
    data = tiny("images")
    fit(
        MODELS[way](data),
        data,
        epochs=12 if way != "sweep" else 40,
        batch_size=24,
        lr=0.01,
        tolerance=0.0,
        checkpoint_every=0.0,
        threads=1,
        schedule="cosine",
        out=folder,
        resume=True,
        progress=False,
    )


def child(way: str, folder: Path) -> int:
    """Return the number of a process of its own that trains."""
    number = os.fork()
    if number == 0:
        train(way, folder)
        os._exit(0)
    return number


def main() -> None:
    """Kill and resume, then compare with a run that was never killed."""
    way, folder, kills = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    os.waitpid(child(way, folder / "warm"), 0)
    began = time.monotonic()
    os.waitpid(child(way, folder / "whole"), 0)
    span = time.monotonic() - began
    whole = (folder / "whole" / "model.safetensors").read_bytes()
    draws, hits, same = random.Random(11), 0, True
    while hits < kills:
        number = child(way, folder / "killed")
        time.sleep(draws.uniform(0, 0.6 * span))
        os.kill(number, signal.SIGKILL)
        _, status = os.waitpid(number, 0)
        if os.WIFSIGNALED(status):
            hits += 1
            continue
        same &= (folder / "killed" / "model.safetensors").read_bytes() == whole
        shutil.rmtree(folder / "killed")
    os.waitpid(child(way, folder / "killed"), 0)
    same &= (folder / "killed" / "model.safetensors").read_bytes() == whole
    sys.stdout.write(f"{hits} {same}\n")


if __name__ == "__main__":
    main()
