"""Raw scores of a band to 40-bit fixed point, block by block; see `masksolve.scores`."""

import math

import numpy as np

from .compiling import inner

__all__ = ["SCORE_BITS", "fixed_point", "scale_blocks"]

SCORE_BITS = 40


@inner
def scale_blocks(W, top, left, m, width, peak, factors, shift):
    """Factors that bring a chunk of blocks to 40-bit fixed point, or False if a score is not finite."""
    peak[:] = 0
    finite = True
    for i in range(top, top + m):
        row = W[i, left : left + width]
        for c in range(width):
            peak[c] = max(peak[c], abs(row[c]))
        for c in range(width):
            finite &= np.isfinite(row[c])
    if not finite:
        return False
    for b in range(width // m):
        a = peak[b * m]
        for c in range(b * m, (b + 1) * m):
            a = max(a, peak[c])
        power = SCORE_BITS - math.frexp(a)[1]
        shift[b] = power if a > 0 else 0
        # two factors, as 2**power alone may be out of range; each product is exact or rounds to 0
        factors[0, b * m : (b + 1) * m] = math.ldexp(1.0, power // 2)
        factors[1, b * m : (b + 1) * m] = math.ldexp(1.0, power - power // 2)
    return True


@inner
def fixed_point(row, factors, absolute, q):
    """Scores of a row in fixed point."""
    for c in range(len(q)):
        q[c] = np.int64(np.rint(row[c] * factors[0, c] * factors[1, c]))
    if absolute:
        for c in range(len(q)):
            q[c] = abs(q[c])
