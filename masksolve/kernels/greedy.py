"""The descending greedy and its completion to exactly n, on several blocks at once; the cover form.

The order of the entries is total: score descending, then index ascending. A key carries both: the
negated score, then the place, row and column in `bits` bits each; so the smallest key comes first.
Blocks of raw scores with m <= 16 go through short keys first; what these leave in doubt, and all else,
is decided by keys of 64 bits.
"""

import functools

import numpy as np
from numba import from_dtype, types

from .compiling import COMPILING, inner, jit
from .completion import COMPLETE, KEPT, complete_kernel, read_flags, surplus_over
from .fixed_point import fixed_point, scale_blocks
from .flags import store_flags
from .pointers import NONE, POINTER, address, caller
from .short_keys import LANES as SHORT_LANES
from .short_keys import descend_short, does, read_room, short_kernels, short_scratch
from .sorting import RUN, sort_kernel, sort_signature

__all__ = ["cover", "solve_band", "solve_blocks"]

LANES = 8  # one AVX-512 register of int64
MOST = np.int64(2**63 - 1)

_i64, _flag = types.int64, types.boolean
_KEYS = _i64[::1]
SORT = sort_signature(_i64)
DESCEND = types.void(_KEYS, _i64, _i64, _i64, _i64, _KEYS, _flag[::1])
call_sort, call_descend, call_complete = caller(SORT), caller(DESCEND), caller(COMPLETE)


@inner
def _place_bits(m):
    bits = 0
    while (1 << bits) < m:
        bits += 1
    return bits


@inner
def _scratch(m):
    """For a group of blocks: scores, keys, room in rows and columns, what is kept."""
    bits = _place_bits(m)
    places = LANES << (2 * bits)
    # What pads a block is sorted behind it.
    keys = np.full(max(places, RUN * LANES), MOST, np.int64)
    room, kept = np.zeros(2 * LANES << bits, np.int64), np.zeros(places, np.bool_)
    return np.zeros((LANES, m, m), np.int64), keys, room, kept, np.zeros((3, m), np.int64)


def _descend(keys, m, n, bits, limit, room, kept):
    """Keep entries from the first key up, while below `limit` and row and column both have room.

    The lanes take turns: a lane's next entry has to wait for its last one.
    """
    room[:] = n
    shift, both = np.uint64(bits), np.uint64(2 * bits)
    one, lanes = np.uint64(1), np.uint64(LANES)
    low, full = (one << shift) - one, (one << both) - one
    columns = lanes << shift
    for t in range(np.uint64(m * m)):
        for l in range(lanes):
            key = keys[t * lanes + l]
            place = np.uint64(key) & full
            i, j = place >> shift, place & low
            row, column = i * lanes + l, columns + j * lanes + l
            r, c = room[row], room[column]
            keep = np.int64((r > 0) & (c > 0) & (key < limit))
            room[row] = r - keep
            room[column] = c - keep
            kept[(l << both) + place] = keep


@inner
def _decide(how, work, m, n, lanes, drop_negative, exact, out, starts, stride):
    """Masks for the scores in `work`; block l begins at out[starts[l]], its rows `stride` apart."""
    sort, descend, complete = how
    scores, keys, room, kept, lines = work
    bits = _place_bits(m)
    wide = LANES << bits
    for l in range(lanes):
        for i in range(m):
            for j in range(m):
                keys[(i * m + j) * LANES + l] = -scores[l, i, j] << (2 * bits) | (i << bits | j)
    limit = np.int64(1) << (2 * bits) if drop_negative else MOST
    call_sort(sort, (keys,))
    call_descend(descend, (keys, m, n, bits, limit, room, kept))
    for l in range(lanes):
        worth, lacking, total, held = scores[l], 0, 0, 0
        for i in range(m):
            lines[0, i], lines[1, i] = room[i * LANES + l], room[wide + i * LANES + l]
            lacking += lines[0, i]
            for j in range(m):
                keep = np.int64(kept[(l << bits | i) << bits | j])
                total += worth[i, j]
                held += worth[i, j] * keep
                worth[i, j] -= KEPT * keep
        if exact and lacking > 0:
            surplus = surplus_over(held, total, m, n)
            call_complete(complete, (m, n, worth, 0, lines[:2], lines[2], surplus))
        for i in range(m):
            at = np.uint64(starts[l] + i * stride)
            for j in range(np.uint64(m)):
                out[at + j] = worth[i, j] < -(KEPT >> 1)


def _blocks(blocks, n, drop_negative, exact, out, how):
    """Greedy masks of integer blocks; see `solve_blocks`."""
    count, m = blocks.shape[0], blocks.shape[1]
    work, starts = _scratch(m), np.zeros(LANES, np.int64)
    for first in range(0, count, LANES):
        lanes = min(LANES, count - first)
        for l in range(lanes):
            work[0][l] = blocks[first + l]
            starts[l] = (first + l) * m * m
        _decide(how, work, m, n, lanes, drop_negative, exact, out, starts, m)


@inner
def _weigh(W, mask, top, left, width, absolute, factors, worth, sums):
    """Scores in fixed point, less `KEPT` where they are kept; of each column the sum of all and of those."""
    first = np.uint64(left)
    sums[:] = 0
    for i in range(len(worth)):
        for c in range(np.uint64(width)):
            q = np.int64(np.rint(W[top + i, first + c] * factors[0, c] * factors[1, c]))
            q = abs(q) if absolute else q
            keep = np.int64(mask[top + i, first + c])
            sums[0, c] += q
            sums[1, c] += q * keep
            worth[i, c] = q - KEPT * keep


@inner
def _complete_lanes(complete, state, doubt, lanes, m, n, worth, sums, lines):
    """Bring the masks of blocks side by side, but of those in doubt, to exactly n a line."""
    for l in range(lanes):
        if read_room(state, m, l, lines) and not doubt[l]:
            total = held = 0
            for c in range(l * m, (l + 1) * m):
                total, held = total + sums[0, c], held + sums[1, c]
            surplus = surplus_over(held, total, m, n)
            call_complete(complete, (m, n, worth, l * m, lines[:2], lines[2], surplus))


def _band(W, m, n, absolute, drop_negative, exact, mask, how, how_short):
    """Greedy masks of a band; see `solve_band`."""
    height, width = W.shape
    short, out, across = how_short[0] != NONE, mask.reshape(-1), SHORT_LANES * m
    work, starts, waiting = _scratch(m), np.zeros(LANES, np.int64), 0
    short_work, doubt = short_scratch(m if short else 1), np.ones(SHORT_LANES, np.bool_)
    state, bits, row = short_work[4], short_work[5], np.zeros(2 * m, np.uint64)
    peak, factors = np.zeros(across, W.dtype), np.ones((2, across), W.dtype)
    shift, lines = np.zeros(SHORT_LANES, np.int64), np.zeros((3, m), np.int64)
    worth, sums = np.zeros((m, across), np.int64), np.zeros((2, across), np.int64)
    for top in range(0, height, m):
        for left in range(0, width, across):
            lanes = min(SHORT_LANES, (width - left) // m)
            if not scale_blocks(W, top, left, m, lanes * m, peak, factors, shift):
                return False
            if short:
                where = W, top, left, m, n, absolute, drop_negative
                descend_short(how_short, short_work, *where, factors, doubt)
                store_flags(bits, lanes, m, row, mask, top, left)
                if exact:
                    _weigh(W, mask, top, left, lanes * m, absolute, factors, worth, sums)
                    _complete_lanes(how[2], state, doubt, lanes, m, n, worth, sums, lines)
                    read_flags(worth, mask, top, left, lanes * m)
            for l in range(lanes):
                if doubt[l]:
                    at, starts[waiting] = left + l * m, top * width + left + l * m
                    here = factors[:, l * m : (l + 1) * m]
                    for i in range(m):
                        fixed_point(W[top + i, at : at + m], here, absolute, work[0][waiting, i])
                    waiting += 1
                if waiting == LANES:
                    _decide(how, work, m, n, waiting, drop_negative, exact, out, starts, width)
                    waiting = 0
    if waiting > 0:
        _decide(how, work, m, n, waiting, drop_negative, exact, out, starts, width)
    return True


@functools.cache
def _engine(solve, scores):
    """`_band` or `_blocks` for scores of a Numba type.

    It gets the kernels by address: else each would be compiled again within it.
    """
    how = types.UniTuple(POINTER, 3)
    if solve is _band:
        W = types.Array(scores, 2, "C", readonly=True)
        short = types.UniTuple(POINTER, 3)
        return jit(solve, _flag(W, _i64, _i64, _flag, _flag, _flag, _flag[:, ::1], how, short))
    blocks = types.Array(scores, 3, "C", readonly=True)
    return jit(solve, types.void(blocks, _i64, _flag, _flag, _flag[::1], how))


@functools.cache
def _kernels():
    with COMPILING:
        pairs = (
            (sort_kernel(_i64, LANES), SORT),
            (inner(_descend, DESCEND), DESCEND),
            (complete_kernel(), COMPLETE),
        )
        return tuple(address(kernel, signature) for kernel, signature in pairs)


def _short_kernels(n, m):
    return short_kernels() if does(n, m) else (NONE, NONE, NONE)


def _check_flags(drop_negative, exact):
    if drop_negative and exact:
        raise ValueError("a mask without its negative scores cannot be completed to exactly n")


def solve_blocks(blocks, n, drop_negative, exact, mask):
    """Find greedy masks of integer blocks (B, m, m), |score| <= 2**40, into `mask` of that shape.

    Both C-contiguous. `drop_negative`: keep no negative score; `exact`: complete to exactly n a
    line. Not both.
    """
    _check_flags(drop_negative, exact)
    with COMPILING:
        engine = _engine(_blocks, types.int64)
    engine(blocks, n, drop_negative, exact, mask.reshape(-1), _kernels())


def solve_band(W, n, m, mask, absolute, drop_negative, exact):
    """Find greedy masks of the blocks of a matrix of raw scores; see `solve_blocks`.

    W: (k * m, c * m) float32 or float64; mask: bool, of the same shape; both C-contiguous.
    Returns False, the mask undefined, if a score is not finite.
    """
    _check_flags(drop_negative, exact)
    with COMPILING:
        engine = _engine(_band, from_dtype(W.dtype))
    how = _kernels(), _short_kernels(n, m)
    return engine(W, m, n, absolute, drop_negative, exact, mask, *how)


@inner
def _sort_entries(block, keys, bits):
    """Fill `keys` so that ascending order is: score ascending, then index descending."""
    size = keys.size
    m = block.shape[0]
    for i in range(m):
        for j in range(m):
            index = i * m + j
            # Scores have 41 bits and a sign, indices at most 20: no overflow.
            keys[index] = (block[i, j] << bits) | (size - 1 - index)
    keys.sort()


@inner
def _index_bits(size):
    bits = 0
    while (1 << bits) < size:
        bits += 1
    return bits


def _cover(blocks, n, drop_negative, mask):
    count, m = blocks.shape[0], blocks.shape[1]
    size = m * m
    bits = _index_bits(size)
    keys = np.empty(size, np.int64)
    rows = np.empty(m, np.int64)
    columns = np.empty(m, np.int64)
    for b in range(count):
        _sort_entries(blocks[b], keys, bits)
        rows[:] = 0
        columns[:] = 0
        for position in range(size):
            key = keys[position]
            index = size - 1 - (key & ((1 << bits) - 1))
            i, j = index // m, index % m
            pruned = rows[i] < m - n or columns[j] < m - n
            if pruned:
                rows[i] += 1
                columns[j] += 1
            mask[b, i, j] = not (pruned or (drop_negative and key < 0))


@functools.cache
def _cover_kernel():
    blocks = types.Array(_i64, 3, "C", readonly=True)
    with COMPILING:
        return jit(_cover, types.void(blocks, _i64, _flag, _flag[:, :, ::1]))


def cover(blocks, n, drop_negative, mask):
    """Prune entries from the smallest up while row *or* column has fewer than m-n pruned.

    blocks: int64 (B, m, m), `mask` bool of that shape, both C-contiguous.
    """
    _cover_kernel()(blocks, n, drop_negative, mask)
