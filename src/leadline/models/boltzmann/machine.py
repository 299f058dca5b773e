"""What every model with two layers of units inside it can say of them: a step of their chain, and log Z."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from leadline.core import Bits, Domain, Quantity, Vectors
from leadline.models.boltzmann.annealing import Method, checked_method
from leadline.models.boltzmann.partition import (
    MOST_ENUMERATED,
    Remembered,
    annealed_partition,
    summed_partition,
)
from leadline.nets.boltzmann import BernoulliLayer, BoltzmannLayer

__all__ = ["Machine"]


class Machine(nn.Module, ABC):
    """A model whose log Z and Markov chain are those of two layers of units."""

    def __init__(self) -> None:
        super().__init__()
        self._partition = Remembered()

    @abstractmethod
    def two_layers(self) -> BoltzmannLayer:
        """Return the two layers: of a deep belief net those on top, of a deep machine its two halves."""

    @property
    def chain_domain(self) -> Domain:
        """Return what a state of the Gibbs chain is: the visible units of `two_layers`."""
        layer = self.two_layers()
        width = layer.weights.shape[0]
        return Bits((width,)) if isinstance(layer, BernoulliLayer) else Vectors.standard(width)

    def step(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the states of Gibbs chains one step on, over `chain_domain`: (n, D) -> (n, D)."""
        with torch.no_grad():
            layer = self.two_layers()
            v = self.chain_domain.checked(x).to(layer.weights)
            return self.chain_domain.quantize(layer.chain_end(layer.inputs(v), 1, generator))

    def log_density(self, x: Tensor) -> Tensor:
        """Return -F(x), what `step` leaves unchanged up to log Z, in nats: (n, D) -> (n,)."""
        layer = self.two_layers()
        return -layer.free_energy(self.chain_domain.checked(x).to(layer.weights))

    def log_partition(
        self, method: Method = "auto", *, chains: int = 100, temperatures: int | None = None, seed: int = 0
    ) -> Quantity:
        """Return log Z of `two_layers` in nats, or a bound on it, and what it is.

        What was found is remembered until a parameter changes.

        Args:
            method: "exact" sums over all states of the smaller layer (of the hidden one if visible units
                are Gaussian). "ais" is annealed importance sampling; "lower" and "upper" are the means of
                its log-weights forward and backward, bounds in expectation, the upper one only where its
                start is exact. "auto" is exact up to 20 units, else "ais".
            chains: Number of particles of the annealing.
            temperatures: Number of temperatures, at least 2; None doubles 1000 until the effective sample
                size is a fifth of the particles and the bounds meet, to 4000 at most, and to fewer where
                there are more than 300,000 weights: half a minute of a processor at 784 x 500.
            seed: Seed of the annealing.

        Raises:
            ValueError: If "exact" is asked of a machine with more than 20 units to sum over.
            OptionError: If there is no such method, or a number is out of range.
        """
        layer, method = self.two_layers(), checked_method(method, chains)
        if method == "exact" or (method == "auto" and layer.enumerated <= MOST_ENUMERATED):
            return self._partition(layer.parameters(), lambda: summed_partition(layer))
        found = self._partition(
            layer.parameters(),
            lambda: annealed_partition(layer, chains, temperatures, seed),
            chains,
            temperatures,
            seed,
        )
        return found.found(method)
