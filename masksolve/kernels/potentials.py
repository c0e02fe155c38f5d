"""Potentials of optimal masks on raw scores: shortest distances in many residual graphs at once.

For an engine that finds masks without prices. The graphs are those of `masksolve.residual`: an arc
from row to column of cost -q where an entry is not kept, an arc back of cost q where it is; with
`at_most` also the slack, which is open to lines that keep fewer than n.
"""

import functools

import numpy as np
from numba import from_dtype, types

from .compiling import COMPILING, inner, jit
from .fixed_point import call_scale, fixed_point, scale_signature, scaler, share_of
from .measure import CHUNK
from .pointers import POINTER, address

__all__ = ["potentials_band"]

LANES = 16
NO_ARC = np.int64(1) << np.int64(60)


@inner
def _sweep(forward, back, open_, rows, columns, slack, at_most):
    """Relax every arc once, in place; whether a distance of any lane moved."""
    m, moved = len(rows), np.int64(0)
    lanes = slack.shape[1]  # LANES; but a known length LLVM would unroll, not vectorise
    before = slack[1]
    for j in range(m):
        column = columns[j]
        for l in range(lanes):
            before[l] = column[l]
            column[l] = min(column[l], slack[0, l])
        for i in range(m):
            row, arc = rows[i], forward[i * m + j]
            for l in range(lanes):
                column[l] = min(column[l], row[l] + arc[l])
        for l in range(lanes):
            moved |= before[l] ^ column[l]
    for i in range(m):
        row = rows[i]
        for l in range(lanes):
            before[l] = row[l]
        for j in range(m):
            column, arc = columns[j], back[i * m + j]
            for l in range(lanes):
                row[l] = min(row[l], column[l] + arc[l])
        for l in range(lanes):
            moved |= before[l] ^ row[l]
    if at_most:
        for l in range(lanes):
            before[l] = slack[0, l]
        for k in range(m):
            for l in range(lanes):
                slack[0, l] = min(slack[0, l], min(rows[k, l], columns[k, l] + open_[m + k, l]))
        for k in range(m):
            for l in range(lanes):
                reached = min(rows[k, l], slack[0, l] + open_[k, l])
                moved |= rows[k, l] ^ reached
                rows[k, l] = reached
        for l in range(lanes):
            moved |= before[l] ^ slack[0, l]
    return moved != 0


def _potentials(W, bits, m, share, n, absolute, at_most, scale, mask, u, v):
    """Potentials of a band's masks; see `potentials_band`."""
    chunk = max(CHUNK // (m * LANES), 1) * m * LANES
    peak, factors = np.zeros(chunk, bits.dtype), np.zeros((2, chunk), W.dtype)
    finite = np.zeros(1, np.bool_)
    q, shift = np.zeros((m, chunk), np.int64), np.zeros(chunk // m, np.int64)
    forward, back = np.zeros((m * m, LANES), np.int64), np.zeros((m * m, LANES), np.int64)
    rows, columns = np.zeros((m, LANES), np.int64), np.zeros((m, LANES), np.int64)
    open_, slack = np.zeros((2 * m, LANES), np.int64), np.zeros((2, LANES), np.int64)
    across = W.shape[1] // m
    for down in range(W.shape[0] // m):
        top = down * m
        for left in range(0, W.shape[1], chunk):
            width = min(chunk, W.shape[1] - left)
            here = bits, np.uint64(top), np.uint64(left), peak[:width]
            call_scale(scale, (*here, factors, shift[: width // m], finite))
            if not finite[0]:
                return False
            for i in range(m):
                row = W[top + i, left : left + width]
                fixed_point(row, factors, share, absolute, q[i, :width])
            for first in range(0, width // m, LANES):
                lanes = min(LANES, width // m - first)
                open_[:] = n
                if lanes < LANES:  # no arcs in lanes without a block
                    forward[:] = NO_ARC
                    back[:] = NO_ARC
                for i in range(m):
                    for j in range(m):
                        for l in range(lanes):
                            at = (first + l) * m + j
                            kept, score = mask[top + i, left + at], q[i, at]
                            forward[i * m + j, l] = NO_ARC if kept else -score
                            back[i * m + j, l] = score if kept else NO_ARC
                            open_[i, l] -= kept
                            open_[m + j, l] -= kept
                for k in range(2 * m):
                    for l in range(LANES):
                        open_[k, l] = 0 if at_most and open_[k, l] > 0 else NO_ARC
                rows[:] = 0
                columns[:] = 0
                slack[0] = NO_ARC  # any row reaches it
                sweeps = 0  # more than there are nodes: a negative cycle, no potentials
                while (
                    _sweep(forward, back, open_, rows, columns, slack, at_most)
                    and sweeps < 2 * m + 2
                ):
                    sweeps += 1
                for l in range(lanes):
                    b = down * across + left // m + first + l
                    zero = slack[0, l] if at_most else 0
                    for k in range(m):
                        u[b, k], v[b, k] = rows[k, l] - zero, zero - columns[k, l]
    return True


@functools.cache
def _engine(scores):
    i64, flag = types.int64, types.boolean
    W, bits = (
        types.Array(entries, 2, "C", readonly=True)
        for entries in (from_dtype(scores), types.Integer.from_bitwidth(8 * scores.itemsize))
    )
    mask, prices = types.Array(flag, 2, "C", readonly=True), types.Array(i64, 2, "C")
    return jit(_potentials, flag(W, bits, i64, i64, i64, flag, flag, POINTER, mask, prices, prices))


def potentials_band(W, n, m, mask, u, v, *, absolute, at_most):
    """Find the potentials of the optimal masks of a matrix; False if a score is not finite.

    W: float32 or float64, (k*m, c*m); mask: bool, likewise; u, v: int64 (k*c, m), to write, blocks
    in row-major order. All C-contiguous. Where a mask is not optimal, u and v mean nothing.
    """
    with COMPILING:
        engine = _engine(W.dtype)
        scale = address(scaler(W.dtype, m), scale_signature(W.dtype))
    bits = W.view(f"i{W.itemsize}")
    return engine(W, bits, m, share_of(m), n, absolute, at_most, scale, mask, u, v)
