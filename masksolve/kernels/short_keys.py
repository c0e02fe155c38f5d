"""The descending greedy for m <= 16 and n <= 8, on `LANES` blocks at once, with keys of 32 bits.

A key holds the leading bits of the negated score, then the place, row and column in 4 bits each: they
are the bits of a float, neither subnormal nor infinite, for processors sort floats faster. That is the
order of the entries, unless two scores of a block share their leading bits and not the rest: such a
block is in doubt, and not decided here.
"""

import numpy as np
from numba import types

from .compiling import bare, compiled, once
from .entries import every_entry
from .fixed_point import SCORE_BITS
from .hints import apart, use_widest
from .lines import LANES
from .pointers import address, caller
from .scratch import aligned
from .sorting import sort_kernel, sort_signature, sort_size

__all__ = ["descend_short", "does", "read_room", "short_kernels", "short_scratch"]

WIDE = 16  # rows and columns that there is place for
WORDS = WIDE * WIDE // 64  # of a block's mask
STEPS = 4  # of the descent in a straight line
NEIGHBOURS = 8  # that are compared in one
FIRST, LAST = 0x00800000, 0x7F7FFFFF  # bits of the least and the largest key
_KEYS, _SIZE = types.int32[::1], types.int64
SORT = sort_signature(types.float32)
NEAREST = types.void(_KEYS, _SIZE, types.uint32[::1])
DESCEND = types.void(_KEYS, _SIZE, _SIZE, _SIZE, types.uint64[::1])
call_sort, call_nearest, call_descend = (
    caller(signature, raises=False) for signature in (SORT, NEAREST, DESCEND)
)


def does(n, m):
    """Whether the keys and counters have the bits for n:m."""
    return 4 <= m <= WIDE and n <= WIDE // 2


def short_scratch(m):
    """For a group of blocks: keys and their places, and what `descend_short` leaves."""
    size = sort_size(m * m)
    # What pads a block is sorted behind it.
    keys = aligned(size * LANES, np.int32, LAST)
    row, column = np.indices((m, m), np.int32)
    place = (row * WIDE + column).ravel()
    lost, nearest = aligned(LANES, np.int32), aligned(LANES, np.uint32)
    state = aligned((2 + WORDS) * LANES, np.uint64)
    return keys, place, lost, nearest, state, aligned((m, LANES), np.uint64)


_make_keys = every_entry(
    "_make_keys",
    "Q, unit, least, most, middle, place, lost, keys",
    "whole = Q[{k}, l] * unit; lead = max(least, min(np.floor(whole), most)); "
    "lost[l] |= int32(whole != lead); "
    "keys[{k}, l] = int32(int32(middle - int32(lead)) << eight) | place[{k}]",
    int32=np.int32,
    eight=np.int32(8),
)


@bare
def _keys_of(Q, absolute, place, lost, keys):
    """Keys of the exact scores Q; `lost`: lanes in which a score has more bits than its key holds.

    Keeping no negative score is stopping at the key that it returns.
    """
    bits = 23 if absolute else 22  # for the size of a score
    middle = np.int32(LAST >> 8 if absolute else 1 << 22)
    # in float32, which holds them: so the sizes of float32 scores are found in it
    unit = np.float32(2.0 ** (bits - SCORE_BITS))
    least, most = np.float32(middle - (LAST >> 8)), np.float32(middle - (FIRST >> 8))
    lost[:] = 0
    rows = keys.reshape(len(keys) // LANES, LANES)
    _make_keys(Q, unit, least, most, middle, place, lost, rows)
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
    apart()
    use_widest()
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
    apart()
    use_widest()
    two, top, row, none, lanes = np.uint64(2), np.uint64(3), np.uint64(60), np.uint64(0), np.uint64({LANES})
    state[:{2 * LANES}] = np.uint64(n + 7) * np.uint64(0x1111111111111111)
    state[{2 * LANES}:] = none
    for t in range(0, size, {STEPS}):
        for l in range(lanes):
            at = np.uint64(t) * lanes + l{load}{step * STEPS}{save}
"""


@bare
def _read_bits(state, m, bits):
    apart()
    use_widest()
    for i in range(m):
        word, shift = np.uint64((2 + i // 4) * LANES), np.uint64(WIDE * (i % 4))
        for l in range(np.uint64(bits.shape[1])):
            bits[i, l] = state[word + l] >> shift & np.uint64(2**WIDE - 1)


@bare
def read_room(state, m, l, room):
    """What the rows and columns of lane l have room for."""
    for i in range(m):
        for k in range(2):
            room[k, i] = np.int64(state[k * LANES + l] >> np.uint64(4 * i) & np.uint64(15)) - 7


@bare
def descend_short(how, work, Q, m, n, absolute, drop_negative, doubt):
    """Masks of the exact scores Q of blocks side by side, but of those in doubt.

    work: its last two are the state of the descent and ``bits[i, l]``, row i of the mask of lane l.
    """
    sort, nearest_keys, descend = how
    keys, place, lost, nearest, state, bits = work
    limit = _keys_of(Q, absolute, place, lost, keys)
    call_sort(sort, (keys.view(np.float32),))
    call_nearest(nearest_keys, (keys, m * m, nearest))
    call_descend(descend, (keys, m * m, n, limit if drop_negative else 2**32, state))
    _read_bits(state, m, bits)
    for l in range(LANES):
        doubt[l] = (lost[l] != 0) & (nearest[l] < 256)  # the same leading bits


@once
def short_kernels(m):
    """Return the kernels that sort keys, compare neighbours and go down, as arguments."""
    scope = {"np": np, "apart": apart, "use_widest": use_widest, "__name__": __name__}
    nearest = compiled(_nearest_source(), "nearest", __file__, scope, NEAREST)
    descend = compiled(_descend_source(), "descend", __file__, scope, DESCEND)
    sort = sort_kernel(types.float32, LANES, sort_size(m * m))
    pairs = (sort, SORT), (nearest, NEAREST), (descend, DESCEND)
    return tuple(address(kernel, signature) for kernel, signature in pairs)
