"""What every test and every example in the code starts from, whatever ran before it in its process."""

import os
import random

os.environ["OMP_NUM_THREADS"] = "1"  # read as libraries load: sums of several threads end in other last bits

import numpy as np
import pytest
import torch

from leadline.comparison import parcels
from leadline.measures import critic

torch.set_num_threads(1)  # also for what tests make while they are collected


def afresh() -> None:
    """Seed every source of chance, take one thread, and empty the stores that a process keeps."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - what libraries draw from that are given no generator
    critic._critics.clear()
    parcels._opened.clear()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Start afresh before the fixtures of a module, which are made by whichever of its tests is first."""
    afresh()


@pytest.fixture(autouse=True)
def _afresh() -> None:
    """Start afresh behind them."""
    afresh()
