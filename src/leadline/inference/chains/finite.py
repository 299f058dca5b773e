r"""Chains over few states, exactly: the transition matrix, where it settles, and how fast.

Symbols:
    s states, P (s, s) transition matrix with rows that sum to one, pi (s,) stationary distribution,
    t steps, l_2 the second largest eigenvalue in absolute value, gap = 1 - |l_2|.

    max_x TV(P^t(x, .), pi) ~ |l_2|^t

Source:
    Levin and Peres (2017), Markov Chains and Mixing Times, 2nd edition, sections 1.5, 4.1 and 12.1.
"""

import math

import torch
from torch import Tensor

from leadline.core.errors import DataError, ShapeError

__all__ = [
    "balance_error",
    "decay",
    "metropolis_matrix",
    "spectral_gap",
    "stationary",
    "swap_matrix",
    "total_variation",
]

_SQUARINGS, _ROUNDING = 30, 1e-14


def metropolis_matrix(log_weights: Tensor, proposal: Tensor) -> Tensor:
    """Return the matrix of Metropolis-Hastings on a listed target: P_ij = Q_ij min(1, w_j Q_ji / (w_i Q_ij)).

    Args:
        log_weights: Unnormalised log of the target (s,), in nats.
        proposal: Q, rows that sum to one (s, s).

    Raises:
        ShapeError: If the shapes do not fit.
        DataError: If Q is no transition matrix, or a log-weight is NaN or infinite.
    """
    Q, log_weights = _matrix(proposal), torch.as_tensor(log_weights)
    if log_weights.shape != Q.shape[:1]:
        raise ShapeError(f"{len(Q)} states need as many log-weights, got {tuple(log_weights.shape)}")
    w = log_weights.double()
    lost = w.isnan() | (w == torch.inf)
    if bool(lost.any()):
        at = int(lost.int().argmax())
        raise DataError(f"the log-weight of state {at} is {float(w[at])}")
    log_ratio = w[None] - w[:, None] + Q.T.log() - Q.log()
    P = Q * log_ratio.nan_to_num(nan=-torch.inf).clamp(max=0.0).exp()
    P.fill_diagonal_(0.0)
    return P + (1 - P.sum(1)).diag()


def swap_matrix(log_weights: Tensor, temperatures: Tensor) -> Tensor:
    """Return the matrix of a swap between two tempered copies, over pairs (i, j) of states: (s^2, s^2).

    Args:
        log_weights: Log f of each state (s,), in nats.
        temperatures: Powers b_1, b_2 of f (2,).
    """
    w, b = log_weights.double(), temperatures.double()
    s = len(w)
    first, second = torch.arange(s).repeat_interleave(s), torch.arange(s).repeat(s)
    chance = ((b[0] - b[1]) * (w[second] - w[first])).clamp(max=0.0).exp()
    P = (1 - chance).diag()
    P[torch.arange(s * s), second * s + first] += chance
    return P


def stationary(matrix: Tensor) -> Tensor:
    """Return the distribution that P leaves unchanged: (s, s) -> (s,), float64.

    Raises:
        ShapeError: If the matrix is not square.
        DataError: If its rows do not sum to one, or it has several such distributions.
    """
    P = _matrix(matrix)
    s = len(P)
    # pi (P - 1) = 0 and sum pi = 1, as one least-squares system
    system = torch.cat([(P - torch.eye(s, dtype=P.dtype)).T, torch.ones(1, s, dtype=P.dtype)])
    if int((torch.linalg.svdvals(system) > 1e-12).sum()) < s:
        raise DataError("the chain falls apart: it has several stationary distributions")
    right = torch.zeros(s + 1, dtype=P.dtype)
    right[-1] = 1.0
    pi = torch.linalg.lstsq(system, right[:, None], driver="gelsd").solution[:, 0]
    return pi.clamp(min=0.0) / pi.clamp(min=0.0).sum()


def spectral_gap(matrix: Tensor) -> float:
    """Return 1 - |l_2|: the distance to pi shrinks by about 1 - gap a step.

    Raises:
        ShapeError: If the matrix is not square.
        DataError: If its rows do not sum to one, or it has no single stationary distribution.
    """
    P = _matrix(matrix)
    # Gelfand: |A^k|^(1/k) tends to the largest |eigenvalue|. A chain that is not reversible may lack a basis
    # of eigenvectors, where solvers for eigenvalues fail.
    rest = P - stationary(P)
    log_size, k = 0.0, 1.0
    for _ in range(_SQUARINGS):
        norm = float(torch.linalg.matrix_norm(rest))
        if norm < _ROUNDING:
            return 1.0
        log_size += math.log(norm) / k
        rest, k = rest / norm, 2 * k
        rest = rest @ rest
    return 1 - math.exp(min(log_size, 0.0))


def total_variation(p: Tensor, q: Tensor) -> Tensor:
    """Return half the summed difference of distributions: (..., s), (..., s) -> (...)."""
    return 0.5 * (p - q).abs().sum(-1)


def decay(matrix: Tensor, steps: int, start: Tensor | None = None) -> Tensor:
    """Return total variation to pi after 0, 1, ... steps (steps + 1,), from `start` (s,) or the worst state.

    Raises:
        ShapeError: If the matrix is not square.
        DataError: If it has no single stationary distribution.
    """
    pi, P = stationary(matrix), _matrix(matrix)
    rows = torch.eye(len(P), dtype=P.dtype) if start is None else start.double()[None]
    found = []
    for _ in range(steps + 1):
        found.append(total_variation(rows, pi).max())
        rows = rows @ P
    return torch.stack(found)


def balance_error(matrix: Tensor, pi: Tensor) -> float:
    """Return the largest |pi_i P_ij - pi_j P_ji|: zero for a reversible chain; many good chains are not."""
    flow = pi.double()[:, None] * _matrix(matrix)
    return float((flow - flow.T).abs().max())


def _matrix(matrix: Tensor) -> Tensor:
    """Return P in float64 if it is a transition matrix."""
    matrix = torch.as_tensor(matrix)
    if matrix.dim() != 2 or matrix.shape[0] != matrix.shape[1] or not len(matrix):
        raise ShapeError(f"a transition matrix is square, got {tuple(matrix.shape)}")
    P = matrix.double()
    slack = 1e-9 if matrix.dtype == torch.float64 else 1e-5
    if not bool((P >= -1e-12).all()) or not bool(((P.sum(1) - 1).abs() < slack).all()):
        raise DataError("a transition matrix has no negative entries, and rows that sum to one")
    return P / P.sum(1, keepdim=True)
