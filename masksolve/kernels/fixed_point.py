"""Raw scores of a band to 40-bit fixed point, block by block; see `masksolve.scores`."""

import math

import numpy as np

from .compiling import bare
from .hints import apart, use_widest

__all__ = ["SCORE_BITS", "fixed_point", "fixed_point_factors", "scale_blocks"]

SCORE_BITS = 40


@bare
def fixed_point_factors(size):
    """Two powers of two that bring a size to fixed point, and the exponent of their product.

    Two, as one alone may be out of range; each product is exact or rounds to 0.
    """
    if size < 2.0**-900:  # subnormal, perhaps, or 0
        exponent = math.frexp(size)[1]
    else:
        exponent = (np.float64(size).view(np.int64) >> 52) - 1022
    shift = SCORE_BITS - exponent
    half = shift // 2
    return _power_of_two(half), _power_of_two(shift - half), shift


@bare
def _power_of_two(exponent):
    return np.int64((exponent + 1023) << 52).view(np.float64)


@bare
def scale_blocks(W, top, left, m, width, peak, factors, shift):
    """Factors that bring a chunk of blocks to 40-bit fixed point, or False if a score is not finite."""
    apart()
    use_widest()
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
        first, second, power = fixed_point_factors(np.float64(a))
        shift[b] = power if a > 0 else 0
        for c in range(b * m, (b + 1) * m):
            factors[0, c], factors[1, c] = first, second
    return True


@bare
def fixed_point(row, factors, absolute, q):
    """Scores of a row in fixed point."""
    apart()
    use_widest()
    for c in range(len(q)):
        q[c] = np.int64(np.rint(row[c] * factors[0, c] * factors[1, c]))
    if absolute:
        for c in range(len(q)):
            q[c] = abs(q[c])
