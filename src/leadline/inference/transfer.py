r"""The transfer matrix: log Z of an Ising model on a grid or torus that is narrow, exactly.

    Z = sum_s exp(sum_ij J_ij s_i s_j + sum_i h_i s_i),  s_i in {-1, 1}

Rows are added one by one, a row's spins one by one, and only the state of the last row is kept.

Symbols:
    r rows, w columns, J coupling, h field, v (2^w,) log-weights of the states of a row.

Source:
    Kramers and Wannier (1941), Statistics of the Two-Dimensional Ferromagnet, Physical Review 60.
"""

import torch
from torch import Tensor

from leadline.core.errors import ResourceError, ShapeError

__all__ = ["log_partition_grid"]

MOST_STATES = 1 << 22  # numbers of the vector v, or of the matrix of a torus
_NOTHING = -1e6  # a log-weight that adds nothing, and whose gradient is 0 and not NaN


def log_partition_grid(across: Tensor, along: Tensor, field: Tensor, *, periodic: bool = False) -> Tensor:
    """Return log Z of a grid in nats, shape (), by the transfer matrix; it can be differentiated.

    Time r w 2^w and memory 2^w for w columns; a torus costs 2^w times as much.

    Args:
        across: J between neighbours in a row (r, w - 1), or (r, w) with the border's in the last column.
        along: J between rows (r - 1, w), or (r, w) with the border's in the last row.
        field: h of each spin (r, w).
        periodic: Whether opposite borders are neighbours.

    Raises:
        ShapeError: If the shapes do not fit.
        ResourceError: If both sides are too long; the message says how much memory it would take.
    """
    r, w = field.shape
    last = 0 if periodic else 1
    if tuple(across.shape) != (r, w - last) or tuple(along.shape) != (r - last, w):
        raise ShapeError(
            f"a grid of {r} x {w} has couplings ({r}, {w - last}) and ({r - last}, {w}), "
            f"got {tuple(across.shape)} and {tuple(along.shape)}"
        )
    if w > r:
        return log_partition_grid(along.T, across.T, field.T, periodic=periodic)
    size = 1 << (2 * w if periodic else w)
    if size > MOST_STATES:
        raise ResourceError(
            f"log Z of a {r} x {w} {'torus' if periodic else 'grid'} takes {8 * 4 * size / 2**30:.3g} GiB; "
            "use annealed importance sampling"
        )
    spin = _spins(w).to(field)  # (2^w, w)
    beside = torch.roll(spin, -1, 1) if periodic else spin[:, 1:]
    row = (spin if periodic else spin[:, :-1]) * beside @ across.T + spin @ field.T  # (2^w, r): log-weights
    if not periodic:
        v = row[:, 0]
        for i in range(1, r):
            v = _stepped(v[None], along[i - 1])[0] + row[:, i]
        return torch.logsumexp(v, 0)
    # Row a of v: the first row of the torus is in state a.
    v = torch.where(torch.eye(1 << w, device=field.device).bool(), row[:, 0], _NOTHING)
    for i in range(1, r):
        v = _stepped(v, along[i - 1]) + row[:, i]
    v = _stepped(v, along[r - 1])
    return torch.logsumexp(v.diagonal(), 0)


def _stepped(v: Tensor, coupling: Tensor) -> Tensor:
    """Return log sum_s exp(v_s + sum_j J_j s_j s'_j), a column at a time: (a, 2^w) -> (a, 2^w)."""
    a, w, J = len(v), len(coupling), coupling
    for j in range(w):
        pair = v.reshape(a, 1 << j, 2, -1)  # the state of column j on axis 2
        down, up = pair[:, :, 0], pair[:, :, 1]
        both = [torch.logaddexp(down + J[j], up - J[j]), torch.logaddexp(down - J[j], up + J[j])]
        v = torch.stack(both, 2).reshape(a, -1)
    return v


def _spins(w: int) -> Tensor:
    """Return all rows of w spins, the last fastest: (2^w, w)."""
    state = torch.arange(1 << w)[:, None]
    return 2.0 * ((state >> torch.arange(w - 1, -1, -1)) & 1) - 1
