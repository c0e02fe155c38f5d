"""The descending greedy and its completion to exactly n, on `LANES` blocks at once; the cover form.

The order of the entries is total: score descending, then index ascending. A key carries both: the
negated score, then the place, row and column in `bits` bits each; so the smallest key comes first.
"""

import functools

import numpy as np
from numba import from_dtype, types

from .compiling import COMPILING, jit
from .fixed_point import scale_blocks
from .pointers import POINTER, address, caller
from .sorting import LANES, RUN, sort_lanes

__all__ = ["cover", "solve_band", "solve_blocks"]

MOST = np.int64(2**63 - 1)
KEPT = np.int64(2**45)  # more than any sum of a few scores

_i64, _flag = types.int64, types.boolean
_KEYS = _i64[::1]
SORT = types.void(_KEYS)
DESCEND = types.void(_KEYS, _i64, _i64, _i64, _i64, _flag, _KEYS, _flag[::1], _KEYS)
COMPLETE = types.void(_i64, _i64, _i64, _i64[:, :, ::1], _flag[:, :, ::1], _i64[:, :, ::1], _KEYS)
call_sort, call_descend, call_complete = caller(SORT), caller(DESCEND), caller(COMPLETE)


@jit
def _place_bits(m):
    bits = 0
    while (1 << bits) < m:
        bits += 1
    return bits


@jit
def _scratch(m):
    """For a group of blocks: keys, room in rows and columns, what is kept and what it is worth."""
    bits = _place_bits(m)
    places = LANES << (2 * bits)
    keys = np.full(
        max(places, RUN * LANES), MOST, np.int64
    )  # what pads a block is sorted behind it
    room = np.zeros(2 * LANES << bits, np.int64)
    return keys, room, np.zeros(places, np.bool_), np.zeros(places, np.int64), np.zeros(m, np.int64)


@jit(signature=DESCEND)
def _descend(keys, m, n, bits, limit, exact, room, kept, worth):
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
            if exact:
                worth[(l << both) + (j << shift | i)] = -(key >> (2 * bits)) - (keep << 45)


@jit
def _below_average(l, m, n, worth):
    """Whether the n * m kept entries hold less than n/m of the block's score."""
    total, held = n * m * KEPT, n * m * (KEPT >> 1)
    for j in range(m):
        for i in range(m):
            total += worth[l, j, i]
            held += min(worth[l, j, i] + (KEPT >> 1), 0)  # not 0 only for what is kept
    # held < n * total / m, without a product that could overflow
    return held < n * (total // m) - (-n * (total % m)) // m


@jit
def _take_diagonals(l, m, n, kept, worth):
    """Keep the best n neighbouring (wrapped) diagonals.

    The m masks of n neighbouring diagonals hold every entry n times, so the best of them holds at
    least n/m of the score.
    """
    diagonals = np.zeros(m, np.int64)
    for i in range(m):
        for j in range(m):
            diagonals[(j - i) % m] += worth[l, j, i] + (KEPT if kept[l, i, j] else 0)
    best, record = 0, -MOST
    for first in range(m):
        value = 0
        for k in range(n):
            value += diagonals[(first + k) % m]
        if value > record:
            best, record = first, value
    for i in range(m):
        for j in range(m):
            kept[l, i, j] = (j - i - best) % m < n


@jit(signature=COMPLETE)
def _complete(lanes, m, n, room, kept, worth, gain):
    """Bring the maximal mask of each lane to exactly n a line by alternating paths of three entries.

    For the first row i with room and any column j with room: keep (i, q), drop (p, q), keep (p, j),
    the best such j, p, q; ties go to the first j, then p, then q. Invariant: every row and column
    with room meet in a kept entry, which is why a path exists. ``worth[l, j, i]`` is the score of
    entry (i, j), less `KEPT` if it is kept: of differences and sums the largest obey the conditions.
    """
    for l in range(lanes):
        paths = 0
        for i in range(m):
            while room[0, i, l] > 0:
                gain[:] = 0
                for q in range(m):
                    score = worth[l, q, i]
                    for p in range(m):
                        gain[p] = max(
                            gain[p], score - worth[l, q, p]
                        )  # (p, q) kept, (i, q) not: above KEPT / 2
                record, at, to = KEPT >> 1, -1, -1
                for j in range(m):
                    if room[1, j, l] > 0:
                        top = record
                        for p in range(m):
                            top = max(top, gain[p] + worth[l, j, p])
                        if top > record:
                            record, to, at = top, j, 0
                            while gain[at] + worth[l, j, at] < top:
                                at += 1
                if to < 0:
                    break  # only of a mask that is not maximal
                q = 0
                while worth[l, q, i] - worth[l, q, at] < gain[at]:
                    q += 1
                kept[l, i, q], kept[l, at, q], kept[l, at, to] = True, False, True
                worth[l, q, i] -= KEPT
                worth[l, q, at] += KEPT
                worth[l, to, at] -= KEPT
                room[0, i, l] -= 1
                room[1, to, l] -= 1
                paths += 1
        if paths > 0 and _below_average(l, m, n, worth):
            _take_diagonals(l, m, n, kept, worth)


@jit
def _decide(how, work, m, n, bits, lanes, drop_negative, exact, out, start, step, stride):
    """Masks for the keys; block l begins at out[start + l * step], its rows `stride` apart."""
    sort, descend, complete = how
    keys, room, kept, worth, gain = work
    limit = np.int64(1) << (2 * bits) if drop_negative else MOST
    call_sort(sort, (keys,))
    call_descend(descend, (keys, m, n, bits, limit, exact, room, kept, worth))
    if exact:
        wide = 1 << bits
        lines, shape = room.reshape((2, wide, LANES)), (LANES, wide, wide)
        boxed, prices = kept.reshape(shape), worth.reshape(shape)
        call_complete(complete, (lanes, m, n, lines, boxed, prices, gain))
    for l in range(lanes):
        for i in range(m):
            at = np.uint64(start + l * step + i * stride)
            source = np.uint64((l << bits | i) << bits)
            for j in range(np.uint64(m)):
                out[at + j] = kept[source + j]


def _blocks(blocks, n, drop_negative, exact, out, how):
    """Greedy masks of integer blocks; see `solve_blocks`."""
    count, m = blocks.shape[0], blocks.shape[1]
    bits = _place_bits(m)
    work = _scratch(m)
    keys = work[0]
    for first in range(0, count, LANES):
        lanes = min(LANES, count - first)
        for l in range(lanes):
            block = blocks[first + l]
            for i in range(m):
                for j in range(m):
                    keys[(i * m + j) * LANES + l] = -block[i, j] << (2 * bits) | (i << bits | j)
        start = first * m * m
        _decide(how, work, m, n, bits, lanes, drop_negative, exact, out, start, m * m, m)


@jit
def _load(W, top, left, m, bits, absolute, factors, places, strip, keys):
    """Keys of blocks side by side, from (top, left) on."""
    width, first = min(len(strip), W.shape[1] - left), np.uint64(left)
    for i in range(m):
        for c in range(np.uint64(width)):
            q = np.rint(W[top + i, first + c] * factors[0, c] * factors[1, c])
            q = abs(q) if absolute else q
            strip[c] = -np.int64(q) << (2 * bits) | places[c]
        row = i << bits
        for j in range(m):
            for l in range(LANES):
                keys[(i * m + j) * LANES + l] = strip[l * m + j] | row


def _band(W, m, n, absolute, drop_negative, exact, out, how):
    """Greedy masks of a band; see `solve_band`."""
    bits = _place_bits(m)
    work = _scratch(m)
    keys = work[0]
    peak, factors = np.zeros(LANES * m, W.dtype), np.ones((2, LANES * m), W.dtype)
    shift = np.zeros(LANES, np.int64)
    strip, places = np.zeros(LANES * m, np.int64), np.zeros(LANES * m, np.int64)
    for c in range(LANES * m):
        places[c] = c % m
    height, width = W.shape
    for top in range(0, height, m):
        for left in range(0, width, LANES * m):
            lanes = min(LANES, (width - left) // m)
            if not scale_blocks(W, top, left, m, lanes * m, peak, factors, shift):
                return False
            _load(W, top, left, m, bits, absolute, factors, places, strip, keys)
            start = top * width + left
            _decide(how, work, m, n, bits, lanes, drop_negative, exact, out, start, m, width)
    return True


@functools.cache
def _engine(solve, scores):
    """`_band` or `_blocks` for scores of a Numba type.

    It gets the kernels by address: else each would be compiled again within it.
    """
    how = types.UniTuple(POINTER, 3)
    if solve is _band:
        W = types.Array(scores, 2, "C", readonly=True)
        return jit(solve, _flag(W, _i64, _i64, _flag, _flag, _flag, _flag[::1], how))
    blocks = types.Array(scores, 3, "C", readonly=True)
    return jit(solve, types.void(blocks, _i64, _flag, _flag, _flag[::1], how))


@functools.cache
def _kernels():
    pairs = (sort_lanes, SORT), (_descend, DESCEND), (_complete, COMPLETE)
    with COMPILING:
        return tuple(address(kernel, signature) for kernel, signature in pairs)


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
    return engine(W, m, n, absolute, drop_negative, exact, mask.reshape(-1), _kernels())


@jit
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


@jit
def _index_bits(size):
    bits = 0
    while (1 << bits) < size:
        bits += 1
    return bits


@jit
def cover(blocks, n, drop_negative, mask):
    """Prune entries from the smallest up while row *or* column has fewer than m-n pruned."""
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
