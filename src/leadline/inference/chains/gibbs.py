r"""Gibbs sampling of factor graphs: each variable anew from its distribution given all others.

Symbols:
    c chains, d variables, k states, e the pairs of a variable and one of its factors.

Source:
    Geman and Geman (1984), Stochastic Relaxation, Gibbs Distributions, and the Bayesian Restoration of
    Images, IEEE PAMI 6(6). Blocks by colour: Gonzalez, Low, Gretton and Guestrin (2011), Parallel Gibbs
    Sampling: From Colored Fields to Thin Junction Trees, AISTATS.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from leadline.core.errors import DataError, OptionError, ResourceError, ShapeError
from leadline.core.randomness import categorical
from leadline.inference.chains.kernel import Information, State
from leadline.inference.factors import FactorGraph

__all__ = ["Conditionals", "Gibbs", "Scan", "coloured"]

Scan = Literal["systematic", "random", "colours"]
_TRIES, _MOST_STATES = 200, 4096


@dataclass(frozen=True)
class Gibbs:
    """Gibbs sampling of a factor graph, many chains at once.

    Variables with one state, such as observed ones, stay. Where states of weight zero cut the others into
    islands a chain stays on its own island: R-hat over several starts tells.

    Args:
        graph: The factors.
        scan: "systematic" (in the order of the variables), "random" (d picks with return), or "colours"
            (all variables of a colour at once, which on a GPU costs as much as one).
        sweeps: Passes over the variables in a step, >= 1.

    Raises:
        OptionError: If the scan is unknown or `sweeps` is below 1.

    Example:
        >>> from leadline.inference.factors import Factor
        >>> pair = FactorGraph((2, 2), (Factor((0, 1), np.array([[3.0, 1.0], [1.0, 3.0]])),))
        >>> kernel = Gibbs(pair)
        >>> kernel.step(kernel.init(kernel.start(10)))[0].position.shape
        torch.Size([10, 2])
    """

    graph: FactorGraph
    scan: Scan = "systematic"
    sweeps: int = 1

    def __post_init__(self) -> None:
        if self.scan not in ("systematic", "random", "colours"):
            raise OptionError(f'scan must be "systematic", "random" or "colours", got "{self.scan}"')
        if self.sweeps < 1:
            raise OptionError(f"sweeps must be at least 1, got {self.sweeps}")

    def start(self, chains: int, generator: torch.Generator | None = None) -> Tensor:
        """Return states of positive weight (c, d), int64: each variable drawn given those before it.

        Raises:
            DataError: If none is found for some chain.
        """
        d = len(self.graph.sizes)
        x = torch.zeros(chains, d, dtype=torch.int64)
        lost = torch.ones(chains, dtype=torch.bool)
        for _ in range(_TRIES):
            rows = lost.nonzero()[:, 0]
            part = x[rows]
            for v in range(d):
                part[:, v] = categorical(self._tables.forward(part, v), generator)
            x[rows] = part
            lost[rows] = ~torch.isfinite(self.log_density(part))
            if not bool(lost.any()):
                return x
        raise DataError(f"no state of positive weight was found in {_TRIES} tries: give a start of your own")

    def log_density(self, x: Tensor) -> Tensor:
        """Return the log-weight of each state, in nats: (c, d) -> (c,), float64."""
        return torch.from_numpy(self.graph.log_weight(x.cpu().numpy())).to(x.device)

    def init(self, position: Tensor) -> State:
        """Return the state of chains that start at `position` (c, d), whole numbers below the sizes.

        Raises:
            ShapeError: If the shape or a value does not fit the variables.
            DataError: If a start has weight zero.
        """
        sizes = torch.tensor(self.graph.sizes, device=position.device)
        if position.dim() != 2 or position.shape[1] != len(sizes) or not len(position):
            raise ShapeError(f"states must have shape (chains, {len(sizes)}), got {tuple(position.shape)}")
        x = position.long()
        if bool(((x < 0) | (x >= sizes) | (x != position)).any()):
            raise ShapeError("a state is not a whole number below the size of its variable")
        log_density = self.log_density(x)
        if bool(torch.isneginf(log_density).any()):
            at = int(torch.isneginf(log_density).int().argmax())
            raise DataError(f"the start of chain {at} has weight zero: use start(chains), or another one")
        return State(x.contiguous(), log_density)

    def step(self, state: State, generator: torch.Generator | None = None) -> tuple[State, Information]:
        """Return the next state, whose log_density is left NaN, and that nothing is ever refused."""
        x = state.position.clone()
        if x.device.type == "cpu":
            self._tables.sweep(x, self.scan, self.sweeps, self._order, generator)
        else:
            for _ in range(self.sweeps):
                self._blocks(x, generator)
        one = torch.ones(len(x), device=x.device)
        unknown = torch.full_like(one, torch.nan)
        return State(x, unknown), Information(one, torch.zeros_like(one).bool(), self.sweeps * one)

    def powered(self, x: Tensor, powers: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Redraw x (c, d) in place with the factors of each chain to a power (c,) above zero; on the CPU.

        Returns the log-weight of each state, (c,), float64, but for factors of no variable.
        """
        self._tables.sweep(x, "systematic", self.sweeps, self._order, generator, powers)
        return self._tables.weighed(x)

    def conditional(self, x: Tensor, v: int) -> Tensor:
        """Return log p(x_v | all others), normalised: (c, d) -> (c, k), float64."""
        return torch.log_softmax(self._tables.logits(x, torch.tensor([[v]], device=x.device)), -1)[
            :, 0, : self.graph.sizes[v]
        ]

    def transition_matrix(self) -> Tensor:
        """Return the probability that one step leads from each state to each other, (s, s), float64.

        States are in the order of `torch.cartesian_prod`, the last variable fastest.

        Raises:
            ResourceError: If there are more than 4,096 states.
        """
        sizes = self.graph.sizes
        if math.prod(sizes) > _MOST_STATES:
            raise ResourceError(
                f"{math.prod(sizes):.3g} states make too large a matrix; at most {_MOST_STATES}"
            )
        states = torch.cartesian_prod(*(torch.arange(size) for size in sizes)).view(-1, len(sizes))
        single = {v: self._single(states, v) for v in self._order}
        if self.scan == "random":
            mean = torch.stack(list(single.values())).mean(0)
            return torch.linalg.matrix_power(mean, len(single) * self.sweeps)
        P = torch.eye(len(states), dtype=torch.float64)
        for v in self._order:
            P = P @ single[v]
        return torch.linalg.matrix_power(P, self.sweeps)

    def _single(self, states: Tensor, v: int) -> Tensor:
        """Return the matrix of an update of variable v: (s, s)."""
        stride = math.prod(self.graph.sizes[v + 1 :])
        s, p = len(states), self.conditional(states, v).exp().nan_to_num(0.0)
        P = torch.zeros(s, s, dtype=torch.float64)
        base = torch.arange(s) - states[:, v] * stride
        for k in range(self.graph.sizes[v]):
            P[torch.arange(s), base + k * stride] = p[:, k]
        return P

    def _blocks(self, x: Tensor, generator: torch.Generator | None) -> None:
        """Update every variable of x (c, d) in place, a block at a time, with tensor operations."""
        free = torch.tensor(self._order, device=x.device)
        if self.scan == "random":
            for _ in range(len(free)):
                pick = free[torch.randint(len(free), (len(x), 1), generator=generator, device=x.device)]
                x.scatter_(1, pick, categorical(self._tables.logits(x, pick), generator))
            return
        groups = self._groups if self.scan == "colours" else [[v] for v in self._order]
        for group in groups:
            block = torch.tensor(group, device=x.device)
            x[:, block] = categorical(self._tables.logits(x, block[None]), generator)

    @cached_property
    def _groups(self) -> list[list[int]]:
        """Return the free variables of each colour."""
        free = {v for v, size in enumerate(self.graph.sizes) if size > 1}
        near = [[u for u in row if u in free] for row in self.graph.neighbours]
        groups = [[v for v in group if v in free] for group in coloured(near)]
        return [group for group in groups if group]

    @cached_property
    def _order(self) -> list[int]:
        """Return the free variables in the order of a sweep."""
        if self.scan == "colours":
            return [v for group in self._groups for v in group]
        return [v for v, size in enumerate(self.graph.sizes) if size > 1]

    @cached_property
    def _tables(self) -> "Conditionals":
        return Conditionals(self.graph)


class Conditionals:
    """The logs of all factors in one array, and for each variable where to look in it.

    Entry e of variable v is one of its factors: the state k of v stands at base[e] + k stride[e] + the sum
    over the other variables u of the factor of x_u times their stride.
    """

    def __init__(self, graph: FactorGraph) -> None:
        self.sizes = graph.sizes
        with np.errstate(divide="ignore"):
            logs = [np.log(factor.table).ravel() for factor in graph.factors]
        offsets = np.cumsum([0] + [len(part) for part in logs])
        rows: list[list[tuple[int, int, list[tuple[int, int]]]]] = [[] for _ in graph.sizes]
        for offset, factor in zip(offsets, graph.factors, strict=False):
            strides = [math.prod(factor.table.shape[axis + 1 :]) for axis in range(len(factor.scope))]
            for v, stride in zip(factor.scope, strides, strict=True):
                others = [(u, step) for u, step in zip(factor.scope, strides, strict=True) if u != v]
                rows[v].append((int(offset), stride, others))
        self._rows = rows
        self.logs = np.concatenate([*logs, np.zeros(1)])

    @cached_property
    def lists(self) -> tuple[Any, ...]:
        """Return the entries as flat arrays for compiled loops."""
        entries = [entry for row in self._rows for entry in row]
        others = [other for entry in entries for other in entry[2]]
        ends = np.cumsum([0] + [len(row) for row in self._rows])
        other_ends = np.cumsum([0] + [len(entry[2]) for entry in entries])
        pairs = np.array(others, dtype=np.int64).reshape(-1, 2)
        return (
            self.logs,
            np.array(self.sizes, dtype=np.int64),
            ends.astype(np.int64),
            np.array([entry[:2] for entry in entries], dtype=np.int64).reshape(-1, 2),
            other_ends.astype(np.int64),
            pairs,
        )

    def sweep(
        self,
        x: Tensor,
        scan: Scan,
        sweeps: int,
        order: list[int],
        generator: torch.Generator | None,
        powers: Tensor | None = None,
    ) -> None:
        """Update x (c, d) on the CPU in place by compiled loops, the factors to the `powers` (c,), or one."""
        from leadline.inference.chains.gibbs_loops import sweep
        from leadline.inference.words import share_threads, word_of

        if order:
            share_threads()
            places = np.array(order, dtype=np.int64)
            b = np.ones(len(x)) if powers is None else powers.numpy()
            sweep(x.numpy(), b, places, word_of(generator), sweeps, scan == "random", self.lists)

    def weighed(self, x: Tensor) -> Tensor:
        """Return the log-weight of each state but for factors of no variable, (c, d) -> (c,), on the CPU."""
        from leadline.inference.chains.gibbs_loops import weighed

        return torch.from_numpy(weighed(x.numpy(), self.lists))

    @cached_property
    def _padded(self) -> tuple[Tensor, ...]:
        """Return the padded entries: base, stride (d, f), others, their strides (d, f, o), sizes, logs."""
        d = len(self.sizes)
        f = max(1, *(len(row) for row in self._rows))
        o = max([1, *(len(entry[2]) for row in self._rows for entry in row)])
        base = np.full((d, f), len(self.logs) - 1)  # the zero at the end
        stride, others, steps = np.zeros((d, f), int), np.zeros((d, f, o), int), np.zeros((d, f, o), int)
        for v, row in enumerate(self._rows):
            for e, (offset, step, pairs) in enumerate(row):
                base[v, e], stride[v, e] = offset, step
                for place, (u, u_step) in enumerate(pairs):
                    others[v, e, place], steps[v, e, place] = u, u_step
        parts = (base, stride, others, steps, np.array(self.sizes), self.logs)
        return tuple(torch.from_numpy(np.ascontiguousarray(part)) for part in parts)

    def logits(self, x: Tensor, block: Tensor, logs: Tensor | None = None) -> Tensor:
        """Return unnormalised log p(x_v | others) of variables `block` (1 or c, g): (c, d) -> (c, g, k).

        `logs` are other log-tables, one after another with a zero behind them; they keep their gradient.
        """
        base, stride, others, steps, sizes, own = (part.to(x.device) for part in self._padded)
        logs = own if logs is None else logs
        c, g = len(x), block.shape[1]
        f, o = others.shape[1:]
        near = others[block].expand(c, g, f, o)
        index = x.gather(1, near.reshape(c, -1)).view(c, g, f, o).mul(steps[block]).sum(-1) + base[block]
        states = torch.arange(int(sizes.max()), device=x.device)
        valid = states < sizes[block][..., None]  # (., g, k)
        place = index[..., None] + stride[block][..., None] * states * valid[..., None, :]
        return logs[place].sum(2).masked_fill(~valid, -torch.inf)

    def forward(self, x: Tensor, v: int) -> Tensor:
        """Return log-weights of the states of v given the variables before it, from their factors: (c, k)."""
        logits = torch.zeros(len(x), self.sizes[v], dtype=torch.float64)
        logs = torch.from_numpy(self.logs)
        for offset, stride, others in self._rows[v]:
            if all(u < v for u, _ in others):
                index = offset + sum((x[:, u] * step for u, step in others), torch.zeros(len(x)).long())
                logits += logs[index[:, None] + stride * torch.arange(self.sizes[v])]
        # Where nothing is possible the try is lost, but a draw must still be one.
        return torch.where(torch.isneginf(logits).all(1, keepdim=True), 0.0, logits)


def coloured(neighbours: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return the vertices of each colour; no two neighbours share one, the busiest choose first."""
    colour: dict[int, int] = {}
    for i in sorted(range(len(neighbours)), key=lambda i: (-len(neighbours[i]), i)):
        taken = {colour[j] for j in neighbours[i] if j in colour}
        colour[i] = next(c for c in range(len(taken) + 1) if c not in taken)
    count = max(colour.values(), default=-1) + 1
    return [[i for i in range(len(neighbours)) if colour[i] == c] for c in range(count)]
