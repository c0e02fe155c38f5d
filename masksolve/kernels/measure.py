"""What masks and prices are worth on raw scores, a band in one pass: the numbers of a certificate.

Apart from the engines: here nothing is searched, and nothing that an engine computed is believed.
"""

import functools

import numpy as np
from numba import from_dtype, types

from .compiling import COMPILING, inner, jit
from .fixed_point import fixed_point, scale_blocks

__all__ = ["CHUNK", "measure_band"]

CHUNK = 512  # columns that go through at once: few enough to stay in the nearest cache
EIGHT_ONES = np.uint64(0x0101010101010101)


@inner
def _spread(rows, i, m, price):
    """Price of row i of each block to all its columns."""
    for b in range(len(rows) // m):
        u = rows[b * m + i]
        for c in range(b * m, (b + 1) * m):
            price[c] = u


@inner
def _check_rows(kept, price, n, m, at_most, good):
    """Note of each block whether a row of its mask may be part of a proof."""
    blocks, eights = len(kept) // m, m // 8
    words = kept[: len(kept) // 8 * 8].view(np.uint64)
    for b in range(blocks):
        count = 0
        if m % 8 == 0:
            for w in range(b * eights, (b + 1) * eights):
                count += np.int64(words[w] * EIGHT_ONES >> np.uint64(56))
        else:
            for c in range(b * m, (b + 1) * m):
                count += kept[c]
        good[b] &= count == n or (at_most and price[b * m] == 0 and count < n)


@inner
def _add(q, price, columns, above, total):
    """Add to the sums of a column what a row has above its prices, and its scores."""
    for c in range(len(q)):
        above[c] += max(q[c] - price[c] - columns[c], 0)
    for c in range(len(q)):
        total[c] += q[c]


@inner
def _hold(q, kept, held, counts):
    """Add the kept scores of a row, and their number, to the sums of their columns."""
    for c in range(len(q)):
        held[c] += q[c] if kept[c] else 0
    for c in range(len(q)):
        counts[c] += kept[c]


@inner
def _sum_up(sums, columns, rows, n, m, b, at_most):
    """Value, bound and total of block b of a chunk, and whether its columns and prices prove it."""
    value, above, total, prices = 0, 0, 0, 0
    good = True
    for c in range(b * m, (b + 1) * m):
        value += sums[0, c]
        above += sums[1, c]
        total += sums[2, c]
        prices += columns[c] + rows[c]
        good &= sums[3, c] == n or (at_most and columns[c] == 0 and sums[3, c] < n)
        good &= not at_most or min(columns[c], rows[c]) >= 0
    return value, n * prices + above, total, good


def _measure(W, m, n, absolute, at_most, u, v, mask, shift, value, bound, total, proven):
    """Measure a band; see `measure_band`. u, v: (blocks down, blocks across * m)."""
    chunk = max(CHUNK // m, 1) * m
    peak, factors = np.zeros(chunk, W.dtype), np.ones((2, chunk), W.dtype)
    sums, price, q = (
        np.zeros((4, chunk), np.int64),
        np.zeros(chunk, np.int64),
        np.zeros(chunk, np.int64),
    )
    for down in range(W.shape[0] // m):
        top = down * m
        for left in range(0, W.shape[1], chunk):
            width = min(chunk, W.shape[1] - left)
            first, blocks = left // m, width // m
            here = slice(left, left + width)
            if not scale_blocks(W, top, left, m, width, peak, factors, shift[down, first:]):
                return False
            sums[:] = 0
            rows, columns, scores = u[down, here], v[down, here], q[:width]
            good = proven[down, first : first + blocks]
            good[:] = True
            for i in range(m):
                _spread(rows, i, m, price)
                kept = mask[top + i, here]
                fixed_point(W[top + i, here], factors, absolute, scores)
                _check_rows(kept, price, n, m, at_most, good)
                _hold(scores, kept, sums[0], sums[3])
                _add(scores, price, columns, sums[1], sums[2])
            for b in range(blocks):
                at = first + b
                value[down, at], bound[down, at], total[down, at], proves = _sum_up(
                    sums, columns, rows, n, m, b, at_most
                )
                good[b] &= proves and value[down, at] == bound[down, at]
    return True


@functools.cache
def _engine(scores):
    i64, flag = types.int64, types.boolean
    W, mask = types.Array(scores, 2, "C", readonly=True), types.Array(flag, 2, "C")
    prices = types.Array(i64, 2, "C", readonly=True)
    grid, proven = types.Array(i64, 2, "C"), types.Array(flag, 2, "C")
    out = grid, grid, grid, grid, proven
    return jit(_measure, flag(W, i64, i64, flag, flag, prices, prices, mask, *out))


def measure_band(W, n, m, u, v, mask, shift, value, bound, total, proven, *, absolute, at_most):
    """Measure the masks and prices of a band's blocks; False if a score is not finite.

    W: float32 or float64, (k*m, c*m); mask: bool, likewise; u, v: int64 (k, c*m), the prices of a
    block side by side; the results (k, c), int64, `proven` bool. All C-contiguous. Of each block:
    the fixed-point `shift`, the `value` that its mask keeps, the weak-duality `bound` of its
    prices, the `total` of its scores, and whether it is `proven`: the mask is one of the pattern,
    and its value is the bound. The caller sees to it that prices are not so large that sums
    could overflow.
    """
    with COMPILING:
        engine = _engine(from_dtype(W.dtype))
    return engine(W, m, n, absolute, at_most, u, v, mask, shift, value, bound, total, proven)
