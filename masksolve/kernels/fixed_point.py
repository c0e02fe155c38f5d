"""Raw scores of a band to 40-bit fixed point, block by block; see `masksolve.scores`."""

import functools
import math

import numpy as np
from numba import from_dtype, types

from .compiling import bare
from .hints import apart, use_widest
from .pointers import caller

__all__ = [
    "SCORE_BITS",
    "call_scale",
    "fixed_point_factors",
    "scale_signature",
    "scaler",
    "share_of",
]

SCORE_BITS = 40
VECTOR = 16  # scores in a register of AVX-512


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
    return types.void(bits, word, word, whole[::1], factors, types.int64[::1], types.boolean[::1])


call_scale = caller(
    lambda *given: scale_signature(np.dtype(f"f{given[0].dtype.bitwidth // 8}")), raises=False
)


def share_of(m):
    """How many neighbouring columns share the factors and row prices of their block.

    A line of a block that fills vectors takes them as scalars; of shorter ones each column has its own,
    so that the columns of many blocks go through at once.
    """
    return m if m >= VECTOR else 1


def _windows(m):
    """Distances by which the largest of 2, 4, ... and in the end of m neighbours is found."""
    reach = 1
    while reach < m:
        yield min(reach, m - reach)
        reach *= 2


@functools.cache
def scaler(scores, m):
    """The kernel ``scale(bits, top, left, peak, factors, shift, finite)`` for a row of blocks of such scores.

    Two factors for each `share_of` columns that bring them to 40-bit fixed point, and the `shift` of
    each block; `finite` tells whether all scores are. `bits`: the matrix as integers, since infinity
    and NaN are above all numbers there; `peak`: scratch, as many columns as blocks have.
    """
    word, kind, whole = np.uint64, scores.type, np.dtype(f"i{scores.itemsize}").type
    magnitude, infinite = whole(np.iinfo(whole).max), kind(np.inf).view(whole)
    windows = tuple(_windows(m)) or (0,)  # Numba goes through no empty tuple
    shares = m // share_of(m)

    def scale(bits, top, left, peak, factors, shift, finite):
        apart()
        use_widest()
        peak[:] = 0
        for i in range(m):
            for c in range(word(len(peak))):
                peak[c] = max(peak[c], whole(bits[top + word(i), left + c] & magnitude))
        for step in windows:
            for c in range(len(peak) - step):
                peak[c] = max(peak[c], peak[c + step])
        finite[0] = True
        for b in range(len(shift)):
            finite[0] &= peak[b * m] < infinite
            largest = whole(peak[b * m]).view(kind)
            first, second, power = fixed_point_factors(np.float64(largest))
            shift[b] = power if largest > 0 else 0
            for g in range(b * shares, (b + 1) * shares):
                factors[0, g], factors[1, g] = first, second

    return bare(scale, scale_signature(scores))
