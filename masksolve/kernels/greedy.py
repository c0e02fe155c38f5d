"""The descending greedy and its completion to exactly n, on several blocks at once; the cover form.

The order of the entries is total: score descending, then index ascending. A key carries both: the
negated score, then the place, row and column in `bits` bits each; so the smallest key comes first.
Blocks of raw scores with m <= 16 go through short keys first; what these leave in doubt, and all else,
is decided by keys of 64 bits.
"""

import functools

import numpy as np
from numba import types

from .compiling import COMPILING, bare, inner, jit
from .completion import COMPLETE, KEPT, complete_kernel, read_rows, surplus_over
from .dealing import gather_columns
from .flags import store_flags
from .hints import apart, use_widest
from .lines import LANES as ABREAST
from .loading import KINDS, as_loaded, load, load_scratch
from .pointers import NONE, POINTER, address, caller
from .scratch import aligned
from .short_keys import descend_short, does, read_room, short_kernels, short_scratch
from .sorting import sort_kernel, sort_signature, sort_size

__all__ = ["cover", "solve_band", "solve_blocks"]

LANES = 8  # one AVX-512 register of int64
MOST = np.int64(2**63 - 1)

_i64, _flag = types.int64, types.boolean
_KEYS = _i64[::1]
SORT = sort_signature(_i64)
DESCEND = types.void(_KEYS, _i64, _i64, _i64, _i64, _KEYS, _flag[::1])
call_sort, call_descend, call_complete = (
    caller(signature, raises=False) for signature in (SORT, DESCEND, COMPLETE)
)


@inner
def _place_bits(m):
    bits = 0
    while (1 << bits) < m:
        bits += 1
    return bits


@inner
def _scratch(m):
    """For a group of blocks: scores by columns, keys, room in rows and columns, what is kept."""
    bits = _place_bits(m)
    places = LANES << (2 * bits)
    # What pads a block is sorted behind it.
    keys = aligned(1, sort_size(m * m) * LANES, MOST)[0]
    room, kept = np.zeros(2 * LANES << bits, np.int64), np.zeros(places, np.bool_)
    scores, lines, gain = (
        np.zeros((LANES, m, m), np.int64),
        np.zeros((2, m), np.int64),
        np.zeros(m, np.int64),
    )
    return scores, keys, room, kept, lines, gain


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


@bare
def _decide(how, work, m, n, lanes, drop_negative, exact, out, starts, stride):
    """Masks for the scores in `work`; block l begins at out[starts[l]], its rows `stride` apart."""
    sort, descend, complete = how
    scores, keys, room, kept, lines, gain = work
    bits = _place_bits(m)
    wide = LANES << bits
    for l in range(lanes):
        for i in range(m):
            for j in range(m):
                keys[(i * m + j) * LANES + l] = -scores[l, j, i] << (2 * bits) | (i << bits | j)
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
                total += worth[j, i]
                held += worth[j, i] * keep
                worth[j, i] -= KEPT * keep
        if exact and lacking > 0:
            surplus = surplus_over(held, total, m, n)
            call_complete(complete, (m, n, worth, lines, gain, surplus))
        for i in range(m):
            at = np.uint64(starts[l] + i * stride)
            for j in range(np.uint64(m)):
                out[at + j] = worth[j, i] < -(KEPT >> 1)


def _blocks(blocks, n, drop_negative, exact, out, how):
    """Greedy masks of integer blocks; see `solve_blocks`."""
    count, m = blocks.shape[0], blocks.shape[1]
    work, starts = _scratch(m), np.zeros(LANES, np.int64)
    for first in range(0, count, LANES):
        lanes = min(LANES, count - first)
        for l in range(lanes):
            work[0][l] = blocks[first + l].T
            starts[l] = (first + l) * m * m
        _decide(how, work, m, n, lanes, drop_negative, exact, out, starts, m)


@bare
def _weigh(columns, l, rows, worth, totals, helds):
    """Scores of block l, less `KEPT` where its mask keeps them; the sum of all and of those kept."""
    apart()
    use_widest()
    totals[:] = 0
    helds[:] = 0
    m = np.uint64(len(worth))
    first = np.uint64(l) * m
    for j in range(m):
        for i in range(m):
            q, kept = np.int64(columns[j, first + i]), -np.int64(rows[i] >> j & np.uint64(1))
            totals[i] += q
            helds[i] += q & kept
            worth[j, i] = q - (KEPT & kept)
    total = held = np.int64(0)
    for i in range(m):
        total, held = total + totals[i], held + helds[i]
    return total, held


@bare
def _complete_lanes(
    complete, Q, strips, short, doubt, lanes, n, worth, lines, gain, rows, totals, helds
):
    """Bring the masks of blocks side by side, but of those in doubt, to exactly n a line."""
    state, bits = short
    m, columns = len(worth), strips[0]
    gather_columns(Q, strips[1], columns)
    for l in range(lanes):
        if read_room(state, m, l, lines) and not doubt[l]:
            for i in range(m):
                rows[i] = bits[i, l]
            total, held = _weigh(columns, l, rows, worth, totals, helds)
            surplus = surplus_over(held, total, m, n)
            call_complete(complete, (m, n, worth, lines, gain, surplus))
            read_rows(worth, rows)
            for i in range(m):
                bits[i, l] = rows[i]


def _band(W, take, one, m, n, absolute, drop_negative, exact, mask, how, how_short):
    """Greedy masks of a band; see `solve_band`."""
    height, width = W.shape
    short, out = how_short[0] != NONE, mask.reshape(-1)
    work, starts, waiting = _scratch(m), np.zeros(LANES, np.int64), 0
    short_work, doubt = short_scratch(m if short else 1), np.ones(ABREAST, np.bool_)
    state, bits = short_work[4], short_work[5]
    scratch = np.zeros(m, np.uint64), np.zeros(m, np.int64), np.zeros(m, np.int64)
    raw, Q, largest = (
        load_scratch(m, one),
        aligned(m * m, ABREAST, one),
        np.zeros(ABREAST, np.float32),
    )
    worth, lines, gain = aligned(m, m, 0), np.zeros((2, m), np.int64), np.zeros(m, np.int64)
    for top in range(0, height, m):
        for left in range(0, width, ABREAST * m):
            lanes = min(ABREAST, (width - left) // m)
            if not load(take, W, top, left, absolute, False, raw, Q, largest):
                return False
            if short:
                descend_short(how_short, short_work, Q, m, n, absolute, drop_negative, doubt)
                if exact:
                    found = (state, bits), doubt, lanes, n, worth, lines, gain, *scratch
                    _complete_lanes(how[2], Q, raw[0], *found)
                store_flags(bits, lanes, m, mask, top, left)
            for l in range(lanes):
                if doubt[l]:
                    starts[waiting] = top * width + left + l * m
                    for i in range(m):
                        for j in range(m):
                            work[0][waiting, j, i] = np.int64(Q[i * m + j, l])
                    waiting += 1
                if waiting == LANES:
                    _decide(how, work, m, n, waiting, drop_negative, exact, out, starts, width)
                    waiting = 0
    if waiting > 0:
        _decide(how, work, m, n, waiting, drop_negative, exact, out, starts, width)
    return True


@functools.cache
def _engine(solve, kind):
    """`_band` for matrices of a dtype, or `_blocks`.

    It gets the kernels by address: else each would be compiled again within it.
    """
    how = types.UniTuple(POINTER, 3)
    if solve is _blocks:
        blocks = types.Array(_i64, 3, "C", readonly=True)
        return jit(solve, types.void(blocks, _i64, _flag, _flag, _flag[::1], how))
    entries, scores, _ = KINDS[kind]
    W, mask, short = types.Array(entries, 2, "C", readonly=True), _flag[:, ::1], how
    options = _i64, _i64, _flag, _flag, _flag
    return jit(solve, _flag(W, POINTER, scores, *options, mask, how, short))


@functools.cache
def _kernels(m):
    with COMPILING:
        pairs = (
            (sort_kernel(_i64, LANES, sort_size(m * m)), SORT),
            (bare(_descend, DESCEND), DESCEND),
            (complete_kernel(), COMPLETE),
        )
        return tuple(address(kernel, signature) for kernel, signature in pairs)


def _short_kernels(n, m):
    return short_kernels(m) if does(n, m) else (NONE, NONE, NONE)


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
        engine = _engine(_blocks, "int64")
    engine(blocks, n, drop_negative, exact, mask.reshape(-1), _kernels(blocks.shape[1]))


def solve_band(W, n, m, mask, absolute, drop_negative, exact):
    """Find greedy masks of the blocks of a matrix of raw scores; see `solve_blocks`.

    W: (k * m, c * m), of a dtype in `loading.KINDS`; mask: bool, of the same shape; both
    C-contiguous. Returns False, the mask undefined, if a score is not finite.
    """
    _check_flags(drop_negative, exact)
    with COMPILING:
        engine = _engine(_band, W.dtype.name)
    call = m, n, absolute, drop_negative, exact, mask, _kernels(m), _short_kernels(n, m)
    return engine(*as_loaded(W), *call)


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
