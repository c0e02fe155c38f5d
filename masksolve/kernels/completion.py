"""From a maximal mask to one that keeps exactly n a line, by alternating paths of three entries."""

import functools

import numpy as np
from numba import types

from .compiling import COMPILING, inner

__all__ = ["COMPLETE", "KEPT", "complete_kernel", "read_flags", "surplus_over"]

KEPT = np.int64(2**45)  # more than any sum of a few scores
MOST = np.int64(2**63 - 1)
_i64 = types.int64
COMPLETE = types.void(_i64, _i64, _i64[:, ::1], _i64, _i64[:, ::1], _i64[::1], _i64)


@inner
def surplus_over(held, total, m, n):
    """What a mask holds beyond n/m of the block's score, rounded down; no product overflows."""
    return held - n * (total // m) + (-n * (total % m)) // m


@inner
def read_flags(worth, mask, top, left, width):
    """The mask of what is kept, from (top, left) on."""
    first = np.uint64(left)
    for i in range(len(worth)):
        for c in range(np.uint64(width)):
            mask[top + i, first + c] = worth[i, c] < -(KEPT >> 1)


@inner
def _take_diagonals(worth, m, n, left):
    """Keep the best n neighbouring (wrapped) diagonals.

    The m masks of n neighbouring diagonals hold every entry n times, so the best of them holds at
    least n/m of the score.
    """
    diagonals = np.zeros(m, np.int64)
    for i in range(m):
        for j in range(m):
            worth[i, left + j] += KEPT if worth[i, left + j] < -(KEPT >> 1) else 0
            diagonals[(j - i) % m] += worth[i, left + j]
    best, record = 0, -MOST
    for first in range(m):
        value = 0
        for k in range(n):
            value += diagonals[(first + k) % m]
        if value > record:
            best, record = first, value
    for i in range(m):
        for j in range(m):
            worth[i, left + j] -= KEPT if (j - i - best) % m < n else 0


def _complete(m, n, worth, left, room, gain, surplus):
    """Bring the maximal mask of a block to exactly n a line.

    worth[i, left + j]: the score of entry (i, j), less `KEPT` if it is kept; room: what the rows and
    columns lack. For the first row i with room and any column j with room: keep (i, q), drop (p, q),
    keep (p, j), the best such j, p, q; ties go to the first j, then p, then q. Invariant: every row
    and column with room meet in a kept entry, which is why a path exists. Of differences and sums of
    worths the largest obey the conditions. Should the `surplus_over` of the mask end below 0, the best
    diagonals replace it.
    """
    first, size, one = np.uint64(left), np.uint64(m), np.uint64(1)
    for i in range(size):
        while room[0, i] > 0:
            for p in range(size):
                most = KEPT >> 1  # (p, q) kept and (i, q) not: above that
                for q in range(size):
                    most = max(most, worth[i, first + q] - worth[p, first + q])
                gain[p] = most
            record, to = KEPT >> 1, size
            for j in range(size):
                if room[1, j] > 0:
                    most = record
                    for p in range(size):
                        most = max(most, gain[p] + worth[p, first + j])
                    if most > record:
                        record, to = most, j
            if to == size:
                break  # only of a mask that is not maximal
            p, q = np.uint64(0), first
            while gain[p] + worth[p, first + to] < record:
                p += one
            while worth[i, q] - worth[p, q] < gain[p]:
                q += one
            worth[i, q] -= KEPT
            worth[p, q] += KEPT
            worth[p, first + to] -= KEPT
            room[0, i] -= 1
            room[1, to] -= 1
            surplus += record - KEPT
    if surplus < 0:
        _take_diagonals(worth, m, n, left)


@functools.cache
def complete_kernel():
    """Compile `_complete`."""
    with COMPILING:
        return inner(_complete, COMPLETE)
