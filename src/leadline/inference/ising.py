r"""Ising models: a lattice sampled sixty-four chains at a time, and any graph by its colours.

    p(s) = 1/Z exp(sum_ij J_ij s_i s_j + sum_i h_i s_i),  s_i in {-1, 1}

`coupling` is J and `field` is h, both with the inverse temperature in them.

Symbols:
    c chains, r rows, w columns, e edges, d spins, J coupling, h field.

Source:
    Ising (1925), Beitrag zur Theorie des Ferromagnetismus, Zeitschrift für Physik 31.
    Heat bath: Geman and Geman (1984), IEEE PAMI 6(6), section XI.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from leadline.core.errors import OptionError, ShapeError
from leadline.core.randomness import bernoulli
from leadline.inference.chains.gibbs import coloured
from leadline.inference.chains.kernel import Information, State
from leadline.inference.factors import Factor, FactorGraph
from leadline.inference.transfer import log_partition_grid

__all__ = ["IsingGibbs", "Lattice", "LatticeGibbs", "LatticeState"]


@dataclass(frozen=True)
class Lattice:
    """An Ising model on a rectangle with one coupling and one field.

    Args:
        rows: Number r of rows, >= 1.
        columns: Number w of columns, >= 1.
        coupling: J between nearest neighbours.
        field: h on every spin.
        periodic: Whether opposite borders are neighbours; a side of 2 then has two bonds between them.

    Raises:
        OptionError: If a side is below 1, or a number is not finite.

    Example:
        >>> lattice = Lattice(3, 3, coupling=0.3)
        >>> f"{lattice.log_partition():.6f}"
        '6.801539'
    """

    rows: int
    columns: int
    coupling: float
    field: float = 0.0
    periodic: bool = False

    def __post_init__(self) -> None:
        if self.rows < 1 or self.columns < 1:
            raise OptionError(f"a lattice has rows and columns >= 1, got {self.rows} and {self.columns}")
        if not (math.isfinite(self.coupling) and math.isfinite(self.field)):
            raise OptionError(f"coupling and field must be finite, got {self.coupling} and {self.field}")

    def bonds(self, s: Tensor) -> Tensor:
        """Return the sum of s_i s_j over all bonds: (c, r, w) -> (c,), float64."""
        x = s.double()
        across, along = x[:, :, :-1] * x[:, :, 1:], x[:, :-1] * x[:, 1:]
        total = across.sum((1, 2)) + along.sum((1, 2))
        if self.periodic:
            total = total + (x[:, :, 0] * x[:, :, -1]).sum(1) + (x[:, 0] * x[:, -1]).sum(1)
        return total

    def log_density(self, s: Tensor) -> Tensor:
        """Return the log-weight of each state, in nats: (c, r, w) -> (c,), float64."""
        return self.coupling * self.bonds(s) + self.field * s.double().sum((1, 2))

    def up_probability(self) -> Tensor:
        """Return P(s = 1) given that k of n neighbours point up: (5, 5) at [n, k], float64."""
        n, k = torch.meshgrid(torch.arange(5.0).double(), torch.arange(5.0).double(), indexing="ij")
        return torch.sigmoid(2 * (self.coupling * (2 * k - n) + self.field))

    def graph(self) -> FactorGraph:
        """Return the same distribution as factors over states 0 (down) and 1 (up), row by row."""
        r, w = self.rows, self.columns
        J, h = self.coupling, self.field
        pair = np.exp(np.array([[J, -J], [-J, J]]))
        place = np.arange(r * w).reshape(r, w)
        bonds = [(place[:, :-1], place[:, 1:]), (place[:-1], place[1:])]
        if self.periodic:
            bonds += [(place[:, -1:], place[:, :1]), (place[-1:], place[:1])]
        pairs = [(int(a), int(b)) for one, two in bonds for a, b in zip(one.flat, two.flat, strict=True)]
        factors = [Factor(scope, pair) for scope in pairs if scope[0] != scope[1]]
        single = [Factor((v,), np.exp(np.array([-h, h]))) for v in range(r * w)] if h else []
        return FactorGraph((2,) * (r * w), (*factors, *single))

    def log_partition(self) -> float:
        """Return log Z in nats, by the transfer matrix.

        Raises:
            ResourceError: If both sides are too long.
        """
        r, w, last = self.rows, self.columns, 0 if self.periodic else 1
        full = torch.full
        across = full((r, w - last), self.coupling, dtype=torch.float64)
        along = full((r - last, w), self.coupling, dtype=torch.float64)
        field = full((r, w), self.field, dtype=torch.float64)
        return float(log_partition_grid(across, along, field, periodic=self.periodic))


@dataclass(frozen=True)
class LatticeState:
    """Spins of many chains, bit c % 64 of word c / 64 for chain c.

    Args:
        words: (blocks, r, w), int64 whose bits are spins.
        chains: Number c of chains.
    """

    words: Tensor
    chains: int

    @property
    def position(self) -> Tensor:
        """Return the spins -1 and 1, int8: (c, r, w)."""
        from leadline.inference.ising_loops import unpacked
        from leadline.inference.words import share_threads

        spins = torch.empty(self.chains, *self.words.shape[1:], dtype=torch.int8)
        share_threads()
        unpacked(self.words.numpy().view(np.uint64), spins.numpy())
        return spins


@dataclass(frozen=True)
class LatticeGibbs:
    """Checkerboard heat bath of a lattice, exact to the 53 bits of each probability; fast on CPU and GPU.

    On the CPU, 64 chains share a word and a step costs about as much for 1 chain as for 64. Elsewhere, and
    for a lattice that no checkerboard fits, each chain is a tensor of its own.

    Args:
        lattice: The model.
        sweeps: Updates of every spin in a step, >= 1.

    Example:
        >>> kernel = LatticeGibbs(Lattice(8, 8, coupling=0.2, periodic=True))
        >>> state, _ = kernel.step(kernel.init(torch.ones(100, 8, 8)))
        >>> state.position.shape, state.position.dtype
        (torch.Size([100, 8, 8]), torch.int8)
    """

    lattice: Lattice
    sweeps: int = 1

    def __post_init__(self) -> None:
        if self.sweeps < 1:
            raise OptionError(f"sweeps must be at least 1, got {self.sweeps}")
        sides = self.lattice.rows, self.lattice.columns
        if self.lattice.periodic and any(side % 2 for side in sides):
            raise OptionError(f"the checkerboard of a periodic lattice needs even sides, got {sides}")

    def init(self, position: Tensor) -> "LatticeState | State":
        """Return the state of chains that start at spins (c, r, w), up where positive."""
        sides = (self.lattice.rows, self.lattice.columns)
        if position.dim() != 3 or tuple(position.shape[1:]) != sides or not len(position):
            raise ShapeError(f"spins must have shape (chains, *{sides}), got {tuple(position.shape)}")
        spins = torch.where(position > 0, 1, -1).to(torch.int8)
        if spins.device.type != "cpu":
            return State(spins, self.lattice.log_density(spins))
        from leadline.inference.ising_loops import packed
        from leadline.inference.words import share_threads

        c = len(spins)
        words = torch.zeros((c + 63) // 64, *sides, dtype=torch.int64)
        share_threads()
        packed(spins.numpy(), words.numpy().view(np.uint64))
        return LatticeState(words, c)

    def step(
        self, state: "LatticeState | State", generator: torch.Generator | None = None
    ) -> tuple["LatticeState | State", Information]:
        """Return the next state, and that nothing is ever refused."""
        if isinstance(state, State):
            return self._unpacked_step(state, generator)
        from leadline.inference.ising_loops import checkerboard
        from leadline.inference.words import share_threads, word_of

        words = state.words.clone()
        share_threads()
        spins, seed = words.numpy().view(np.uint64), word_of(generator)
        checkerboard(spins, self._masks, seed, self.sweeps, self.lattice.periodic)
        return LatticeState(words, state.chains), _never_refused(torch.ones(state.chains), self.sweeps)

    def _unpacked_step(self, state: State, generator: torch.Generator | None) -> tuple[State, Information]:
        """Return the next state of spins on any device."""
        s, device = state.position.clone(), state.position.device
        r, w = self.lattice.rows, self.lattice.columns
        up = self.lattice.up_probability().to(device)
        i, j = torch.arange(r, device=device)[:, None], torch.arange(w, device=device)[None]
        ones = torch.ones(1, r, w, dtype=torch.int8, device=device)
        n = _neighbour_sum(ones, periodic=self.lattice.periodic)
        for _ in range(self.sweeps):
            for colour in range(2):
                # k of n neighbours up: their sum is 2 k - n
                k = (_neighbour_sum(s, periodic=self.lattice.periodic) + n) // 2
                new = 2 * bernoulli(up[n.long().expand_as(k), k.long()], generator).to(torch.int8) - 1
                s = torch.where((i + j) % 2 == colour, new, s)
        new_state = State(s, self.lattice.log_density(s))
        return new_state, _never_refused(torch.ones(len(s), device=device), self.sweeps)

    @cached_property
    def _masks(self) -> Any:
        """Return the bits of each probability from the highest on, all ones or all zeros: (5, 5, 64)."""
        masks = np.zeros((5, 5, 64), np.uint64)
        for n, row in enumerate(self.lattice.up_probability().tolist()):
            for k, p in enumerate(row):
                whole = min(int(p * 2.0**64), (1 << 64) - 1)
                masks[n, k] = [((whole >> (63 - bit)) & 1) * ((1 << 64) - 1) for bit in range(64)]
        return masks


@dataclass(frozen=True)
class IsingGibbs:
    """Gibbs sampling of an Ising model on any graph: all spins of a colour at once, on any device.

    Args:
        edges: Pairs of spins (e, 2), each once.
        couplings: J of each edge (e,).
        fields: h of each spin (d,).
        sweeps: Updates of every spin in a step, >= 1.

    Raises:
        OptionError: If an edge is a loop or names no spin.

    Example:
        >>> ring = torch.tensor([[0, 1], [1, 2], [2, 0]])
        >>> kernel = IsingGibbs(ring, torch.full((3,), 0.4), torch.zeros(3))
        >>> kernel.step(kernel.init(torch.ones(16, 3)))[0].position.shape
        torch.Size([16, 3])
    """

    edges: Tensor
    couplings: Tensor
    fields: Tensor
    sweeps: int = 1

    def __post_init__(self) -> None:
        d = len(self.fields)
        good = self.edges.dim() == 2 and self.edges.shape[1] == 2 and len(self.edges) == len(self.couplings)
        if not good:
            raise OptionError("edges must be (e, 2) with a coupling each, got "
                              f"{tuple(self.edges.shape)} and {tuple(self.couplings.shape)}")  # fmt: skip
        loop = self.edges[:, 0] == self.edges[:, 1] if len(self.edges) else torch.zeros(0).bool()
        if len(self.edges) and (bool(loop.any()) or int(self.edges.min()) < 0 or int(self.edges.max()) >= d):
            raise OptionError(f"every edge must join two different spins of 0..{d - 1}")

    def log_density(self, s: Tensor) -> Tensor:
        """Return the log-weight of each state, in nats: (c, d) -> (c,)."""
        x = s.to(self.fields)
        return (x[:, self.edges[:, 0]] * x[:, self.edges[:, 1]]) @ self.couplings + x @ self.fields

    def init(self, position: Tensor) -> State:
        """Return the state of chains that start at spins (c, d), up where positive."""
        d = len(self.fields)
        if position.dim() != 2 or position.shape[1] != d or not len(position):
            raise ShapeError(f"spins must have shape (chains, {d}), got {tuple(position.shape)}")
        s = torch.where(position > 0, 1.0, -1.0).to(self.fields)
        return State(s, self.log_density(s))

    def step(self, state: State, generator: torch.Generator | None = None) -> tuple[State, Information]:
        """Return the next state, and that nothing is ever refused."""
        s = state.position.clone()
        with torch.no_grad():
            for _ in range(self.sweeps):
                for spins, near, weight in self._colours:
                    local = torch.einsum("cgk,gk->cg", s[:, near], weight) + self.fields[spins]
                    s[:, spins] = 2 * bernoulli(torch.sigmoid(2 * local), generator) - 1
            return State(s, self.log_density(s)), _never_refused(torch.ones_like(s[:, 0]), self.sweeps)

    @cached_property
    def _colours(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Return for each colour its spins (g,), their neighbours and couplings (g, k), padded by 0."""
        d, device = len(self.fields), self.fields.device
        near: list[list[tuple[int, int]]] = [[] for _ in range(d)]
        for e, (i, j) in enumerate(self.edges.tolist()):
            near[i].append((j, e))
            near[j].append((i, e))
        J = torch.cat([self.couplings.detach(), self.couplings.new_zeros(1)])
        groups = []
        for spins in coloured([[j for j, _ in row] for row in near]):
            width = max(1, *(len(near[i]) for i in spins))
            rows = [near[i] + [(i, len(self.couplings))] * (width - len(near[i])) for i in spins]
            at = torch.tensor(rows, device=device)  # (g, k, 2)
            groups.append((torch.tensor(spins, device=device), at[..., 0], J[at[..., 1]]))
        return groups


def _neighbour_sum(s: Tensor, *, periodic: bool) -> Tensor:
    """Return the sum of the neighbours of each spin: (c, r, w) -> (c, r, w), int8."""
    if periodic:
        return sum((torch.roll(s, shift, axis) for axis in (1, 2) for shift in (1, -1)), torch.zeros_like(s))
    total = torch.zeros_like(s)
    total[:, 1:] += s[:, :-1]
    total[:, :-1] += s[:, 1:]
    total[:, :, 1:] += s[:, :, :-1]
    total[:, :, :-1] += s[:, :, 1:]
    return total


def _never_refused(one: Tensor, sweeps: int) -> Information:
    return Information(one, torch.zeros_like(one).bool(), sweeps * one)
