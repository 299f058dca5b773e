"""What every test and every example in the code starts from, whatever ran before it in its process."""

import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from leadline.comparison import parcels
from leadline.measures import critic

torch.set_num_threads(1)


def afresh() -> None:
    """Seed every source of chance, and empty the stores that a process keeps."""
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
def _afresh() -> Iterator[None]:
    """Start afresh behind them."""
    afresh()
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
