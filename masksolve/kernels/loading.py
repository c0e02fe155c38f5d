"""Raw scores of `LANES` blocks side by side to exact scores in lanes, reading each row once.

Scores become 40-bit fixed point as in `fixed_point`, in floats, which hold them exactly: float32 from
floats of 32 bits and fewer, else float64.
"""

import functools

import numpy as np
from numba import types

from .compiling import bare, compiled, inner, once
from .dealing import call_spread, deals, spread_signature, spreader
from .entries import every_entry
from .fixed_point import fixed_point_factors
from .hints import apart, use_widest
from .lines import LANES
from .pointers import POINTER, address, caller
from .prefetch import prefetch_next
from .scratch import aligned
from .widen import bits_of_bfloat16, bits_of_float16

__all__ = ["KINDS", "LOADING", "as_loaded", "load", "load_scratch", "scores_of"]


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


#: Type of how to load: the kernels that take rows, spread them and fix scores, and the strip to begin with.
LOADING = types.Tuple((POINTER, POINTER, POINTER, types.int64))

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
def _taker(kind):
    """The kernel ``take(W, top, left, strip, peak)`` for a matrix of that dtype.

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
    source, signature = _take_source(name, scores), _take_signature(entries, scores)
    return compiled(source, name, __file__, scope, signature)


def _fix_signature(scores):
    lane = scores[::1]
    return types.void(scores[:, ::1], lane, lane, scores[:, ::1])


call_fix = caller(lambda *arguments: _fix_signature(arguments[0].dtype), raises=False)


@functools.cache
def _fixer(scores, absolute, clip):
    """The kernel ``fix(raw, a, b, Q)``: raw scores, or their magnitudes, in fixed point; `clip`: none below 0."""
    score = "np.rint(raw[{k}, l] * a[l] * b[l])"
    score = f"abs({score})" if absolute else f"max({score}, none)" if clip else score
    return every_entry(
        "_fix", "raw, a, b, Q", f"Q[{{k}}, l] = {score}", _fix_signature(scores), none=scores(0)
    )


def load_scratch(m, scores):
    """For `load`, in the type of the scores: two strips of m rows, two of one; of each lane two numbers."""
    strips, peaks = (tuple(aligned((k, LANES * m), scores) for _ in range(2)) for k in (m, 1))
    return strips, peaks, aligned((2, LANES), scores)


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
def load(how, W, top, left, work, Q, largest):
    """Blocks side by side from (top, left) to lanes: Q[i * m + j, l]. False if a score is not finite.

    `how`: what `as_loaded` says; `work`: of `load_scratch`; `largest`: each block's largest |score|.
    """
    take, spread, fix, first = how
    strips, peaks, lane = work
    m = len(strips[0])
    call_take(take, (W, np.uint64(top), np.uint64(left), strips[first], peaks[first]))
    prefetch_next(W, top, left, m, LANES * m)
    call_spread(spread, (peaks,))
    blocks = min(LANES, (W.shape[1] - left) // m)
    if not _factors(peaks[0].reshape(m, LANES), blocks, lane, largest):
        return False
    call_spread(spread, (strips,))
    call_fix(fix, (strips[0].reshape(m * m, LANES), lane[0], lane[1], Q))
    return True


@once
def _loading(kind, m, absolute, clip):
    entries, scores, _ = KINDS[kind]
    take = address(_taker(kind), _take_signature(entries, scores))
    spread = address(spreader(m, scores), spread_signature(scores))
    fix = address(_fixer(scores, absolute, clip), _fix_signature(scores))
    return take, spread, fix, len(deals(m)) % 2


def as_loaded(W, m, *, absolute, clip=False):
    """Return what an engine that calls `load` needs of W: its entries, how to load them, their scores' dtype.

    `clip`: scores below 0, never worth keeping, become 0.
    """
    kind = W.dtype.name
    entries = W.view(np.uint16) if W.dtype.itemsize == 2 else W
    return entries, _loading(kind, m, absolute, clip and not absolute), scores_of(kind)
