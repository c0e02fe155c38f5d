"""The descending greedy for m <= 16 and n <= 8, on `LANES` blocks at once, with keys of 32 bits.

A key holds the leading bits of the negated score, then the place, row and column in 4 bits each. That
is the order of the entries, unless two scores of a block share their leading bits and not the rest:
such a block is in doubt, and not decided here.
"""

import functools

import numpy as np
from numba import types

from .compiling import COMPILING, compiled, inner, jit
from .fixed_point import SCORE_BITS
from .pointers import address, caller
from .sorting import RUN, sort_kernel, sort_signature

__all__ = ["LANES", "descend_short", "does", "read_room", "short_kernels", "short_scratch"]

LANES = 16  # one AVX-512 register of int32
WIDE = 16  # rows and columns that there is place for
WORDS = WIDE * WIDE // 64  # of a block's mask
STEPS = 4  # of the descent in a straight line
NEIGHBOURS = 8  # that are compared in one
_KEYS, _SIZE = types.int32[::1], types.int64
SORT = sort_signature(types.int32)
NEAREST = types.void(_KEYS, _SIZE, types.uint32[::1])
DESCEND = types.void(_KEYS, _SIZE, _SIZE, _SIZE, types.uint64[::1])
call_sort, call_nearest, call_descend = caller(SORT), caller(NEAREST), caller(DESCEND)


def does(n, m):
    """Whether the keys and counters have the bits for n:m."""
    return 4 <= m <= WIDE and n <= WIDE // 2


@jit
def short_scratch(m):
    """For a group of blocks: keys, a row of them, and what `descend_short` leaves."""
    size = RUN
    while size < m * m:
        size *= 2
    # What pads a block is sorted behind it.
    keys = np.full(size * LANES, 2**31 - 1, np.int32)
    strip, lost = np.zeros(LANES * m, np.int32), np.zeros(LANES * m, np.int32)
    state, nearest = np.zeros((2 + WORDS) * LANES, np.uint64), np.zeros(LANES, np.uint32)
    return keys, strip, lost, nearest, state, np.zeros((m, LANES), np.uint64)


@inner
def _load(W, top, left, m, absolute, factors, strip, lost, keys):
    """Keys of blocks side by side, from (top, left) on; `lost`: columns whose scores have a rest.

    Keeping no negative score is stopping at the key that it returns.
    """
    width, first = np.uint64(min(len(strip), W.shape[1] - left)), np.uint64(left)
    bits = 24 if absolute else 23  # for the size of a score
    middle = np.int32(2**23 - 1 if absolute else -1)
    unit, most = W.dtype.type(2.0 ** (bits - SCORE_BITS)), W.dtype.type(2**bits - 1)
    lost[:] = 0
    for i in range(m):
        for c in range(width):
            q = np.rint(W[top + i, first + c] * factors[0, c] * factors[1, c])
            q = (abs(q) if absolute else q) * unit
            lead = min(np.floor(q), most)
            lost[c] |= np.int32(q != lead)
            strip[c] = (middle - np.int32(lead)) << np.int32(8)
        for j in range(m):
            place = np.int32(i * WIDE + j)
            for l in range(LANES):
                keys[(i * m + j) * LANES + l] = strip[l * m + j] | place
    return np.int64(middle + 1) << 8


def _nearest_source():
    """Kernel ``(keys, size, nearest)``: see `NEAREST`.

    nearest: the least that neighbours among the sorted keys of a lane differ in, as bits.
    """
    step = """
            after = keys[at]
            least = min(least, np.uint32(here ^ after))
            at += lanes
            here = after"""
    return f"""
def nearest(keys, size, nearest):
    lanes = np.uint64({LANES})
    nearest[:] = 2**32 - 1
    for t in range(1, size, {NEIGHBOURS}):
        first = np.uint64(min(t, size - {NEIGHBOURS}))  # the last run overlaps the one before
        for l in range(lanes):
            at, least = first * lanes + l, nearest[l]
            here = keys[at - lanes]{step * NEIGHBOURS}
            nearest[l] = least
"""


def _descend_source():
    """Kernel ``(keys, size, n, limit, state)``: see `DESCEND`.

    It keeps entries from the first key up, while below `limit` and row and column both have room.
    state: for each lane 4 bits a row, their top bit set while it has room; the same for columns; and
    the words of the mask.
    """
    names = ["r", "c", *(f"k{w}" for w in range(WORDS))]
    step = """
            key = np.int64(keys[at])
            at += lanes
            i, j = (np.uint64(key) >> two) & row, (np.uint64(key) << two) & row
            keep = (r >> (i | top)) & (c >> (j | top)) & np.uint64(key < limit)
            r -= keep << i
            c -= keep << j
            bit = keep << (np.uint64(key) & np.uint64(63))
            odd, high = np.uint64(key) & np.uint64(64), np.uint64(key) & np.uint64(128)
            below = bit if high == none else none
            above = bit - below
            even0, even2 = below if odd == none else none, above if odd == none else none
            k0 |= even0
            k1 |= below - even0
            k2 |= even2
            k3 |= above - even2"""
    load = "".join(f"\n            {x} = state[{p * LANES} + l]" for p, x in enumerate(names))
    save = "".join(f"\n            state[{p * LANES} + l] = {x}" for p, x in enumerate(names))
    return f"""
def descend(keys, size, n, limit, state):
    two, top, row, none, lanes = np.uint64(2), np.uint64(3), np.uint64(60), np.uint64(0), np.uint64({LANES})
    state[:{2 * LANES}] = np.uint64(n + 7) * np.uint64(0x1111111111111111)
    state[{2 * LANES}:] = none
    for t in range(0, size, {STEPS}):
        for l in range(lanes):
            at = np.uint64(t) * lanes + l{load}{step * STEPS}{save}
"""


@inner
def _read_bits(state, m, bits):
    for i in range(m):
        word, shift = np.uint64((2 + i // 4) * LANES), np.uint64(WIDE * (i % 4))
        for l in range(np.uint64(bits.shape[1])):
            bits[i, l] = state[word + l] >> shift & np.uint64(2**WIDE - 1)


@inner
def read_room(state, m, l, room):
    """What the rows and columns of lane l have room for; returns whether any have."""
    lacking = np.uint64(0)
    for i in range(m):
        for k in range(2):
            count = state[k * LANES + l] >> np.uint64(4 * i) & np.uint64(15)
            room[k, i] = np.int64(count) - 7
            lacking |= count
    return lacking > 7


@jit
def descend_short(how, work, W, top, left, m, n, absolute, drop_negative, factors, doubt):
    """Masks of blocks side by side, from (top, left) on, but of those in doubt.

    work: its last two are the state of the descent and ``bits[i, l]``, row i of the mask of lane l.
    """
    sort, nearest_keys, descend = how
    keys, strip, lost, nearest, state, bits = work
    limit = _load(W, top, left, m, absolute, factors, strip, lost, keys)
    call_sort(sort, (keys,))
    call_nearest(nearest_keys, (keys, m * m, nearest))
    call_descend(descend, (keys, m * m, n, limit if drop_negative else 2**32, state))
    _read_bits(state, m, bits)
    for l in range(LANES):
        rest = np.int32(0)
        for j in range(m):
            rest |= lost[l * m + j]
        doubt[l] = (rest != 0) & (nearest[l] < 256)  # the same leading bits


@functools.cache
def short_kernels():
    """Return the kernels that sort keys, compare neighbours and go down, as arguments."""
    scope = {"np": np, "__name__": __name__}
    with COMPILING:
        nearest = compiled(_nearest_source(), "nearest", __file__, scope, NEAREST)
        descend = compiled(_descend_source(), "descend", __file__, scope, DESCEND)
        sort = sort_kernel(types.int32, LANES)
        pairs = (sort, SORT), (nearest, NEAREST), (descend, DESCEND)
        return tuple(address(kernel, signature) for kernel, signature in pairs)
