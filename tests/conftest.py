"""Fixtures that every test may ask for."""

from collections.abc import Callable

import pytest
import torch
from torch import nn


@pytest.fixture
def generator() -> torch.Generator:
    """Return a generator with a fixed seed."""
    return torch.Generator().manual_seed(1)


@pytest.fixture
def moved() -> Callable[[nn.Module], nn.Module]:
    """Return the function that moves every parameter of a model off its start."""

    def move(model: nn.Module) -> nn.Module:
        source = torch.Generator().manual_seed(2)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.empty(parameter.shape).normal_(generator=source).to(parameter))
        return model

    return move
