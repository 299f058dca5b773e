r"""Ising models: bits that like, or dislike, to agree with their neighbours.

    p(s) = 1/Z exp(sum_ij J_ij s_i s_j + sum_i h_i s_i),    s_i = 2 x_i - 1

Bits of a picture are joined to the pixels beside and below them, bits of a row to the next one, or by any
edges. The sufficient statistics are E s_i s_j and E s_i, so learning is matching them.

Symbols:
    n samples, d bits, e edges, J (e,) couplings, h (d,) fields, Z partition.

Source:
    Ising (1925), Beitrag zur Theorie des Ferromagnetismus, Zeitschrift für Physik 31. As a model of data:
    Ackley, Hinton and Sejnowski (1985), A learning algorithm for Boltzmann machines, section 3, without
    hidden units.
"""

import itertools

import torch
from torch import Tensor, nn

from leadline.core import Bits, Categories, Described, OptionError
from leadline.models.graphical.fields import FieldModel

__all__ = ["Ising"]


class Ising(FieldModel):
    """Pairwise model of bits on a grid or any graph.

    Verbs:
        sample, log_prob

    Args:
        domain: Bits of any shape.
        edges: Pairs of bits that are joined.
        objective: "exact", "pseudo" or "persistent" (see `fields`); "auto" is exact where that is cheap.
        chains: Number of persistent chains.

    Raises:
        OptionError: If an edge names no bit, or the same one twice.

    Example:
        >>> model = Ising(Bits((3,)), edges=((0, 1), (1, 2)))
        >>> round(float(model.log_prob(torch.tensor([[0, 1, 1]], dtype=torch.uint8))[0].detach()), 4)
        -2.0794
    """

    domain: Bits

    predict = None  # type: ignore[assignment]  # no label is one of its variables

    def __init__(
        self,
        domain: Bits,
        edges: tuple[tuple[int, int], ...],
        objective: str = "auto",
        chains: int = 100,
    ) -> None:
        d = domain.require(Bits).dims
        for i, j in edges:
            if not (0 <= i < d and 0 <= j < d and i != j):
                raise OptionError(f"the edge ({i}, {j}) must join two different bits of 0..{d - 1}")
        scopes = (*edges, *((v,) for v in range(d)))
        super().__init__(domain, Categories((2,) * d), scopes, objective, chains)
        self._scopes = scopes
        self.coupling = nn.Parameter(torch.zeros(len(edges)))
        self.field = nn.Parameter(torch.zeros(d))

    @classmethod
    def for_data(
        cls,
        data: Described,
        *,
        graph: str = "grid",
        periodic: bool = False,
        objective: str = "auto",
        chains: int = 100,
    ) -> "Ising":
        """Return a model of the bits of `data`.

        Args:
            data: What the samples are.
            graph: "grid" joins neighbouring pixels, or each bit of a row to the next; "full" joins all.
            periodic: Whether opposite borders of the grid are neighbours.
            objective: "exact" likelihood, "pseudo" likelihood, "persistent" chains; "auto" chooses.
            chains: Number of persistent chains.
        """
        domain = data.domain.require(Bits)
        if graph not in ("grid", "full"):
            raise OptionError(f"graph must be grid or full, got {graph!r}")
        if graph == "full":
            return cls(domain, tuple(itertools.combinations(range(domain.dims), 2)), objective, chains)
        return cls(domain, _grid(domain, periodic=periodic), objective, chains)

    def make_room(self, shapes: object) -> None:
        """Do nothing: the graph follows from the domain and the options."""

    def flat(self) -> Tensor:
        """Return J s_i s_j of each edge at its four states, then h s_i of each bit at its two."""
        pairs = self.coupling[:, None] * self.coupling.new_tensor([1.0, -1.0, -1.0, 1.0])
        singles = self.field[:, None] * self.field.new_tensor([-1.0, 1.0])
        return torch.cat([pairs.flatten(), singles.flatten()])

    def states(self, x: Tensor) -> Tensor:
        """Return checked bits as states: (n, *shape) -> (n, d)."""
        return self.domain.validated(x).flatten(1).to(self.device).long()

    def samples(self, states: Tensor) -> Tensor:
        """Return states as bits: (n, d) -> (n, *shape)."""
        return states.to(self.domain.dtype).view(-1, *self.domain.shape)

    @property
    def scopes(self) -> tuple[tuple[int, ...], ...]:
        """Return the edges, then each bit alone."""
        return self._scopes

    @property
    def device(self) -> torch.device:
        """Return where the model lives."""
        return self.field.device


def _grid(domain: Bits, *, periodic: bool) -> tuple[tuple[int, int], ...]:
    """Return the edges of a grid over each channel of a picture, or of a chain over a row."""
    shape = domain.shape if domain.planes is not None else (1, 1, domain.dims)
    number = torch.arange(domain.dims).view(shape)
    edges: set[tuple[int, int]] = set()
    for axis in (1, 2):
        after = number.roll(-1, axis)
        length = number.shape[axis]
        keep = length if periodic else length - 1
        pairs = torch.stack([number, after], -1).narrow(axis, 0, keep).reshape(-1, 2)
        edges |= {(min(i, j), max(i, j)) for i, j in pairs.tolist() if i != j}
    return tuple(sorted(edges))
