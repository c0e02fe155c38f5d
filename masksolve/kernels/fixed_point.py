"""Raw scores of a band to 40-bit fixed point, block by block; see `masksolve.scores`."""

import functools
import math

import numpy as np
from numba import from_dtype, types

from .compiling import bare
from .hints import apart, use_widest
from .pointers import caller

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


def scale_signature(scores):
    """Signature of a `scaler` for scores of that dtype."""
    whole, word = types.Integer.from_bitwidth(8 * scores.itemsize), types.uint64
    bits, factors = types.Array(whole, 2, "C", readonly=True), from_dtype(scores)[:, ::1]
    return types.void(
        bits, word, word, whole[::1], factors, types.int64[::1], types.boolean[::1]
    )


call_scale = caller(
    lambda *given: scale_signature(np.dtype(f"f{given[0].dtype.bitwidth // 8}")), raises=False
)


@functools.cache
def scaler(scores, m):
    """The kernel ``scale(bits, top, left, peak, factors, shift, finite)`` for a row of blocks of such scores.

    Factors that bring them to 40-bit fixed point, column by column, and the `shift` of each; `finite`
    tells whether all scores are. `bits`: the matrix as integers, since infinity and NaN are above all
    numbers there; `peak`: scratch, as many columns as blocks have.
    """
    kind, whole = scores.type, np.dtype(f"i{scores.itemsize}").type
    magnitude, infinite = whole(np.iinfo(whole).max), kind(np.inf).view(whole)

    def scale(bits, top, left, peak, factors, shift, finite):
        apart()
        use_widest()
        peak[:] = 0
        for i in range(np.uint64(m)):
            for c in range(np.uint64(len(peak))):
                peak[c] = max(peak[c], whole(bits[top + i, left + c] & magnitude))
        finite[0] = True
        for b in range(len(shift)):
            most = whole(0)
            for j in range(m):
                most = max(most, peak[b * m + j])
            finite[0] &= most < infinite
            largest = whole(most).view(kind)
            first, second, power = fixed_point_factors(np.float64(largest))
            shift[b] = power if largest > 0 else 0
            for j in range(m):
                factors[0, b * m + j] = first
                factors[1, b * m + j] = second

    return bare(scale, scale_signature(scores))


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
