"""Counts of column states, by rank: columns of a level also count as what they are one lower.

A state of `columns` columns is how many of them lie at each of some levels. s[j] of them lie at
the lowest j + 1 levels; its rank is the sum of C(s[j] + j, j + 1), so that the states with
s[j] = v and the same above are consecutive, and those of v begin like those of v + 1. Counts are
unsigned integers in words of 63 bits, lowest first; the 64th holds the carry.
"""

import numpy as np
from numba import types

from .compiling import jit, once

__all__ = ["add_lower"]


def _add_lower(ways, upper, first, shift):
    counts, words = ways.shape[1], ways.shape[2]
    wide, digits = np.uint64(63), np.uint64(2**63 - 1)
    start = 0
    while start < len(ways):
        # Columns up to this level; how many of them lie up to the one below, v, is free.
        top = upper[start]
        i = 0
        for least in range(top + 1):
            # What lies below i is the same for all v from `least` on.
            while i < first[least + 1] - first[least]:
                # Invariant: after k rounds, at v, any min(k, top - v) columns have counted as lower.
                for rounds in range(top - least):
                    for v in range(least, top - rounds):
                        here, lower = ways[start + first[v] + i], ways[start + first[v + 1] + i]
                        for q in range(max(shift, counts - 1 - v), counts):
                            carry = np.uint64(0)
                            for w in range(words):
                                total = here[q, w] + lower[q - shift, w] + carry
                                here[q, w] = total & digits
                                carry = total >> wide
                i += 1
        start += first[top + 1]


@once
def _engine():
    ways, upper = types.Array(types.uint64, 3, "C"), types.Array(types.int16, 1, "A", readonly=True)
    first = types.Array(types.int64, 1, "C")
    return jit(_add_lower, types.void(ways, upper, first, types.int64))


def add_lower(ways, upper, first, shift):
    """Add to every state those in which some of its columns at a level are one lower, in place.

    Without order: as many terms for t columns as there are ways to choose them. ways: uint64
    (states, counts, words); upper: int16 (states,), columns at this level or lower; first: int64
    (columns + 2,), rank of the first state with v columns below this level. With `shift` 1, t columns
    come from t counts lower: those that a row may take. It is not worked out where levels
    further down cannot need it, below counts - 1 - v.
    """
    engine = _engine()
    engine(ways, upper, first, shift)
