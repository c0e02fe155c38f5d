"""Rows of blocks that lie side by side to lanes: a transposition by shuffles instead of single loads."""

import numpy as np

from .compiling import bare
from .hints import apart, use_widest

__all__ = ["gather_columns", "spread"]


@bare
def _deal4(source, target):
    """Deal each row out to four, one after the other in `target`: LLVM makes it a few shuffles."""
    apart()
    use_widest()
    one, two, three, four = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4)
    step = np.uint64(source.shape[1]) // four
    for i in range(len(source)):
        for x in range(step):
            target[i, x] = source[i, four * x]
            target[i, step + x] = source[i, four * x + one]
            target[i, two * step + x] = source[i, four * x + two]
            target[i, three * step + x] = source[i, four * x + three]


@bare
def _deal(source, target, ways):
    """Deal each row out to so many, one after the other in `target`."""
    apart()
    step = source.shape[1] // ways
    for i in range(len(source)):
        for k in range(ways):
            for x in range(step):
                target[i, k * step + x] = source[i, x * ways + k]


@bare
def spread(strips, m):
    """Rows of blocks side by side, in strips[0], entry by entry: row[l * m + k] to row[k * LANES + l].

    Dealt out to 4, then again to 4, ... is dealt out to m. Returns which of the strips has it.
    """
    first, second, third = strips
    if m not in (8, 16, 32):
        if m == 4:
            _deal4(first, second)
        else:
            _deal(first, second, m)
        return 1
    _deal4(first, second)
    if m == 8:
        _deal(second, first, 2)
    elif m == 16:
        _deal4(second, first)
    else:
        _deal4(second, third)
        _deal(third, first, 2)
    return 0


@bare
def gather_columns(Q, spare, columns):
    """Undo `spread`, by columns: columns[j, l * m + i] = Q[i * m + j, l], dealt out to 4 and again to 4."""
    apart()
    use_widest()
    m, lanes = len(columns), Q.shape[1]
    for i in range(m):
        for j in range(m):
            for l in range(lanes):
                columns[j, i * lanes + l] = Q[i * m + j, l]
    _deal4(columns, spare)
    _deal4(spare, columns)
