"""Raw scores of `LANES` blocks side by side to exact scores in lanes, reading each row once.

Scores become 40-bit fixed point as in `fixed_point`, in floats, which hold them exactly: float32 from
floats of 32 bits and fewer, else float64.
"""

import functools

import numpy as np
from numba import types

from .compiling import COMPILING, bare, compiled, inner
from .dealing import spread
from .entries import every_entry
from .fixed_point import fixed_point_factors
from .hints import apart, use_widest
from .lines import LANES
from .pointers import address, caller
from .prefetch import prefetch_next
from .scratch import aligned
from .widen import bits_of_bfloat16, bits_of_float16

__all__ = ["KINDS", "as_loaded", "load", "load_scratch", "scores_of", "taker"]


@inner
def _bits_of_float32(score):
    return np.float32(score).view(np.int32)


@inner
def _bits_of_float64(score):
    return np.float64(score).view(np.int64)


#: dtype of a matrix -> of its entries as they are read (16-bit floats by their bits), of the exact
#: scores, and what gives the bits of such a score.
KINDS = {
    "float16": (types.uint16, types.float32, bits_of_float16),
    "bfloat16": (types.uint16, types.float32, bits_of_bfloat16),
    "float32": (types.float32, types.float32, _bits_of_float32),
    "float64": (types.float64, types.float64, _bits_of_float64),
}


def scores_of(kind):
    """The dtype of the exact scores of a matrix of that dtype."""
    return np.dtype(KINDS[kind][1].name)


def _take_signature(entries, scores):
    matrix = types.Array(entries, 2, "C", readonly=True)
    return types.void(matrix, types.uint64, types.uint64, scores[:, ::1], scores[:, ::1])


call_take = caller(
    lambda *arguments: _take_signature(arguments[0].dtype, arguments[3].dtype), raises=False
)


def _take_source(name, scores):
    size = scores.bitwidth
    magnitude = f"np.int{size}({2 ** (size - 1) - 1})"
    return f"""
def {name}(W, top, left, strip, peak):
    apart()
    use_widest()
    width = min(np.uint64(strip.shape[1]), np.uint64(W.shape[1]) - left)
    for c in range(strip.shape[1]):
        peak[0, c] = 0
    for i in range(len(strip)):
        r = top + np.uint64(i)
        for c in range(width):
            bits = np.int{size}(bits_of(W[r, left + c]))
            strip[i, c] = np.int{size}(bits).view(np.float{size})
            most = max(np.float{size}(peak[0, c]).view(np.int{size}), np.int{size}(bits & {magnitude}))
            peak[0, c] = np.int{size}(most).view(np.float{size})
"""


@functools.cache
def taker(kind):
    """Address of the kernel ``take(W, top, left, strip, peak)`` for a matrix of that dtype.

    It copies what lies side by side from (top, left) on, as exact floats, and leaves the largest
    magnitude in each column: by the order of their bits, where infinity and NaN are above all numbers.
    """
    entries, scores, bits_of = KINDS[kind]
    name = f"_take_{kind}"
    scope = {
        "np": np,
        "__name__": __name__,
        "apart": apart,
        "bits_of": bits_of,
        "use_widest": use_widest,
    }
    signature = _take_signature(entries, scores)
    with COMPILING:
        kernel = compiled(_take_source(name, scores), name, __file__, scope, signature)
    return address(kernel, signature)


def load_scratch(m, scores):
    """For `load`, in the type of the scores: three strips of m rows, three of one; of each lane two numbers."""
    strips, peaks = (tuple(aligned((k, LANES * m), scores) for _ in range(3)) for k in (m, 1))
    return strips, peaks, aligned((2, LANES), scores)


_fix = every_entry("_fix", "raw, a, b, Q", "Q[{k}, l] = np.rint(raw[{k}, l] * a[l] * b[l])")
_fix_absolute = every_entry(
    "_fix_absolute", "raw, a, b, Q", "Q[{k}, l] = abs(np.rint(raw[{k}, l] * a[l] * b[l]))"
)


@bare
def _factors(peak, blocks, lane, largest):
    """Factors that bring blocks to fixed point, by the magnitudes `peak` of their columns.

    False if one is not finite.
    """
    for l in range(blocks):
        a, finite = peak[0, l], True
        for k in range(len(peak)):
            a = max(a, peak[k, l])
            finite &= peak[k, l] < np.inf
        if not finite:
            return False
        lane[0, l], lane[1, l], _ = fixed_point_factors(np.float64(a))
        largest[l] = np.float32(np.rint(a * lane[0, l] * lane[1, l]))
    for l in range(blocks, LANES):  # no block: what is left over there may not overflow
        lane[0, l], lane[1, l], largest[l] = 0, 0, 0
    return True


@bare
def load(take, W, top, left, absolute, at_most, work, Q, largest):
    """Blocks side by side from (top, left) to lanes: Q[i * m + j, l]. False if a score is not finite.

    `take`: what `taker` has for W; `work`: of `load_scratch`; `largest`: each block's largest |score|.
    With `at_most` negative scores, never worth keeping, become 0.
    """
    strips, peaks, lane = work
    m = len(strips[0])
    call_take(take, (W, np.uint64(top), np.uint64(left), strips[0], peaks[0]))
    prefetch_next(W, top, left, m, LANES * m)
    peak = peaks[spread(peaks, m)].reshape(m, LANES)
    if not _factors(peak, min(LANES, (W.shape[1] - left) // m), lane, largest):
        return False
    raw = strips[spread(strips, m)].reshape(m * m, LANES)
    if absolute:
        _fix_absolute(raw, lane[0], lane[1], Q)
    else:
        _fix(raw, lane[0], lane[1], Q)
        if at_most:
            for k in range(len(Q)):
                for l in range(LANES):
                    Q[k, l] = max(Q[k, l], 0)
    return True


def as_loaded(W):
    """Return what an engine that calls `load` needs of W: its entries, its `taker`, the dtype of its scores."""
    kind = W.dtype.name
    entries = W.view(np.uint16) if W.dtype.itemsize == 2 else W
    return entries, taker(kind), scores_of(kind)
