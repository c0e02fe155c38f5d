"""From a maximal mask to one that keeps exactly n a line, by alternating paths of three entries."""

import numpy as np
from numba import types

from .compiling import bare, once
from .entries import every_column

__all__ = ["COMPLETE", "KEPT", "complete_kernel", "read_rows", "surplus_over"]

KEPT = np.int64(2**45)  # more than any sum of a few scores
MOST = np.int64(2**63 - 1)
_i64 = types.int64
COMPLETE = types.void(_i64, _i64, _i64[:, ::1], _i64[:, ::1], _i64[::1], _i64)


@bare
def surplus_over(held, total, m, n):
    """What a mask holds beyond n/m of the block's score, rounded down; no product overflows."""
    return held - n * (total // m) + (-n * (total % m)) // m


_add_bits = every_column(
    "_add_bits",
    "size, worth, rows",
    "rows[i] |= np.uint64(worth[{j}, i] < least) << np.uint64({j})",
    least=-(KEPT >> 1),
)


@bare
def read_rows(worth, rows):
    """Rows of the mask of what is kept, as bits of words; for at most 64 columns."""
    rows[:] = 0
    _add_bits(len(worth), worth, rows)


@bare
def _take_diagonals(worth, m, n, diagonals):
    """Keep the best n neighbouring (wrapped) diagonals.

    The m masks of n neighbouring diagonals hold every entry n times, so the best of them holds at
    least n/m of the score.
    """
    diagonals[:] = 0
    for j in range(m):
        for i in range(m):
            worth[j, i] += KEPT if worth[j, i] < -(KEPT >> 1) else 0
            diagonals[(j - i) % m] += worth[j, i]
    best, record = 0, -MOST
    for first in range(m):
        value = 0
        for k in range(n):
            value += diagonals[(first + k) % m]
        if value > record:
            best, record = first, value
    for j in range(m):
        for i in range(m):
            worth[j, i] -= KEPT if (j - i - best) % m < n else 0


_add_gains = every_column(
    "_add_gains",
    "size, worth, own, gain",
    "gain[i] = larger(gain[i], worth[{j}, own] - worth[{j}, i])",
)


@bare
def _gains(worth, i, gain):
    """Most that a row p can gain by handing an entry of its own to row i."""
    gain[:] = KEPT >> 1  # (p, q) kept and (i, q) not: above that
    _add_gains(len(worth), worth, i, gain)


@bare
def _best_gain(worth, j, gain, record):
    """Most that any row gains by taking an entry of column j instead, if above `record`."""
    for p in range(len(gain)):
        record = max(record, gain[p] + worth[j, p])
    return record


def _complete(m, n, worth, room, gain, surplus):
    """Bring the maximal mask of a block to exactly n a line.

    worth[j, i]: the score of row i, column j, less `KEPT` if it is kept; room: what the rows and
    columns lack; gain: scratch. For the first row i with room and any column j with room: keep (i, q),
    drop (p, q), keep (p, j), the best such p, j, q; ties go to the first p, then j, then q. Invariant:
    every row and column with room meet in a kept entry, which is why a path exists. Of differences and
    sums of worths the largest obey the conditions. Should the `surplus_over` of the mask end below 0,
    the best diagonals replace it.
    """
    size, one = np.uint64(m), np.uint64(1)
    for i in range(size):
        while room[0, i] > 0:
            _gains(worth, i, gain)
            record = KEPT >> 1
            for j in range(size):
                if room[1, j] > 0:
                    record = _best_gain(worth, j, gain, record)
            if record <= KEPT - (KEPT >> 2):
                break  # only of a mask that is not maximal
            p, q, to = np.uint64(0), np.uint64(0), np.uint64(0)
            while room[1, to] == 0 or gain[p] + worth[to, p] < record:
                to += one
                if to == size:
                    p, to = p + one, np.uint64(0)
            while worth[q, i] - worth[q, p] < gain[p]:
                q += one
            worth[q, i] -= KEPT
            worth[q, p] += KEPT
            worth[to, p] -= KEPT
            room[0, i] -= 1
            room[1, to] -= 1
            surplus += record - KEPT
    if surplus < 0:
        _take_diagonals(worth, m, n, gain)


@once
def complete_kernel():
    """Compile `_complete`."""
    return bare(_complete, COMPLETE)
