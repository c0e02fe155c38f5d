"""The descending greedy and its completion to exactly n, on several blocks at once; the cover form.

The order of the entries is total: score descending, then index ascending. A key carries both: the
negated score, then the place, row and column in `bits` bits each; so the smallest key comes first.
Blocks of raw scores with m <= 16 go through short keys first; what these leave in doubt, and all else,
is decided by keys of 64 bits.
"""

import numpy as np
from numba import typeof, types

from .compiling import bare, inner, jit, once
from .completion import COMPLETE, KEPT, complete_kernel, read_rows, surplus_over
from .flags import call_store, storer
from .lines import LANES as ABREAST
from .loading import KINDS, LOADING, as_loaded, load, load_scratch, scores_of
from .pointers import NONE, POINTER, address, caller
from .scratch import aligned, borrowed
from .short_completion import call_complete as call_complete_short
from .short_completion import complete_scratch, completer
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
def _bits_for(count):
    """Bits that tell so many things apart."""
    bits = 0
    while (1 << bits) < count:
        bits += 1
    return bits


def _scratch(m):
    """For a group of blocks: scores by columns, keys, room in rows and columns, what is kept; starts."""
    bits = (m - 1).bit_length()
    places = LANES << (2 * bits)
    # What pads a block is sorted behind it.
    scores, keys = (
        aligned((LANES, m, m), np.int64),
        aligned(sort_size(m * m) * LANES, np.int64, MOST),
    )
    room, kept = aligned(2 * LANES << bits, np.int64), aligned(places, np.bool_)
    lines, gain = aligned((2, m), np.int64), aligned(m, np.int64)
    return (scores, keys, room, kept, lines, gain), aligned(LANES, np.int64)


def _band_scratch(m, short, scores):
    """For a band: what loads blocks, with their exact scores of that dtype; what decides blocks in doubt;
    the descent by short keys, if there is one, and the doubts it leaves; completion.
    """
    Q, largest, doubt = (
        aligned((m * m, ABREAST), scores),
        aligned(ABREAST, np.float32),
        aligned(ABREAST, np.bool_, True),
    )
    loaded = load_scratch(m, scores), Q, largest
    worth, lines, gain = aligned((m, m), np.int64), aligned((2, m), np.int64), aligned(m, np.int64)
    sums = aligned(m, np.int64), aligned(m, np.int64)
    exact = worth, lines, gain, aligned(m, np.uint64), sums
    quick = aligned(ABREAST, np.bool_), complete_scratch(m if short else 1, scores)
    return loaded, _scratch(m), (short_scratch(m if short else 1), doubt), (quick, exact)


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
    bits = _bits_for(m)
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


def _blocks(blocks, scratch, n, drop_negative, exact, out, how):
    """Greedy masks of integer blocks; see `solve_blocks`."""
    count, m = blocks.shape[0], blocks.shape[1]
    work, starts = scratch
    for first in range(0, count, LANES):
        lanes = min(LANES, count - first)
        for l in range(lanes):
            work[0][l] = blocks[first + l].T
            starts[l] = (first + l) * m * m
        _decide(how, work, m, n, lanes, drop_negative, exact, out, starts, m)


@bare
def _weigh(Q, l, rows, worth, totals, helds):
    """Scores of lane l, less `KEPT` where its mask keeps them; the sum of all and of those kept."""
    totals[:] = 0
    helds[:] = 0
    m = np.uint64(len(worth))
    for j in range(m):
        for i in range(m):
            q, kept = np.int64(Q[i * m + j, l]), -np.int64(rows[i] >> j & np.uint64(1))
            totals[i] += q
            helds[i] += q & kept
            worth[j, i] = q - (KEPT & kept)
    total = held = np.int64(0)
    for i in range(m):
        total, held = total + totals[i], held + helds[i]
    return total, held


@bare
def _complete_lanes(how, Q, descent, doubt, lanes, n, work):
    """Bring the masks of blocks side by side, but of those in doubt, to exactly n a line."""
    quick, complete = how
    _, _, lost, _, state, bits = descent
    (unsure, short), (worth, lines, gain, rows, sums) = work
    m = len(worth)
    call_complete_short(quick, (Q, n, lost, state, doubt, bits, unsure, short))
    for l in range(lanes):
        if unsure[l]:
            read_room(state, m, l, lines)
            for i in range(m):
                rows[i] = bits[i, l]
            total, held = _weigh(Q, l, rows, worth, *sums)
            surplus = surplus_over(held, total, m, n)
            call_complete(complete, (m, n, worth, lines, gain, surplus))
            read_rows(worth, rows)
            for i in range(m):
                bits[i, l] = rows[i]


def _band(
    W, loading, store, scratch, m, n, absolute, drop_negative, exact, mask, how, how_short, quick
):
    """Greedy masks of a band; see `solve_band`."""
    height, width = W.shape
    short, out = how_short[0] != NONE, mask.reshape(-1)
    (raw, Q, largest), (work, starts), (descent, doubt), completion = scratch
    scores, bits, waiting = work[0], descent[5], 0
    for top in range(0, height, m):
        for left in range(0, width, ABREAST * m):
            lanes = min(ABREAST, (width - left) // m)
            if not load(loading, W, top, left, raw, Q, largest):
                return False
            if short:
                descend_short(how_short, descent, Q, m, n, absolute, drop_negative, doubt)
                if exact:
                    _complete_lanes((quick, how[2]), Q, descent, doubt, lanes, n, completion)
                call_store(store, (bits, lanes, mask, top, left))
            for l in range(lanes):
                if doubt[l]:
                    starts[waiting] = top * width + left + l * m
                    for i in range(m):
                        for j in range(m):
                            scores[waiting, j, i] = np.int64(Q[i * m + j, l])
                    waiting += 1
                if waiting == LANES:
                    _decide(how, work, m, n, waiting, drop_negative, exact, out, starts, width)
                    waiting = 0
    if waiting > 0:
        _decide(how, work, m, n, waiting, drop_negative, exact, out, starts, width)
    return True


@once
def _engine(solve, kind):
    """`_band` for matrices of a dtype, or `_blocks`.

    It gets the kernels by address: else each would be compiled again within it.
    """
    how = types.UniTuple(POINTER, 3)
    if solve is _blocks:
        blocks = types.Array(_i64, 3, "C", readonly=True)
        scratch = typeof(_scratch(8))
        return jit(solve, types.void(blocks, scratch, _i64, _flag, _flag, _flag[::1], how))
    W, mask, short = types.Array(KINDS[kind][0], 2, "C", readonly=True), _flag[:, ::1], how
    scratch, options = (
        typeof(_band_scratch(8, True, scores_of(kind))),
        (_i64, _i64, _flag, _flag, _flag),
    )
    return jit(solve, _flag(W, LOADING, POINTER, scratch, *options, mask, how, short, POINTER))


@once
def _kernels(m):
    pairs = (
        (sort_kernel(_i64, LANES, sort_size(m * m)), SORT),
        (bare(_descend, DESCEND), DESCEND),
        (complete_kernel(), COMPLETE),
    )
    return tuple(address(kernel, signature) for kernel, signature in pairs)


def _short_kernels(n, m, scores, exact):
    """The kernels of the descent by short keys, if it does n:m, and what completes its masks, if `exact`."""
    if not does(n, m):
        return (NONE, NONE, NONE), NONE
    return short_kernels(m), completer(m, scores) if exact else NONE


def _check_flags(drop_negative, exact):
    if drop_negative and exact:
        raise ValueError("a mask without its negative scores cannot be completed to exactly n")


def solve_blocks(blocks, n, drop_negative, exact, mask):
    """Find greedy masks of integer blocks (B, m, m), |score| <= 2**40, into `mask` of that shape.

    Both C-contiguous. `drop_negative`: keep no negative score; `exact`: complete to exactly n a
    line. Not both.
    """
    _check_flags(drop_negative, exact)
    engine = _engine(_blocks, "int64")
    m = blocks.shape[1]
    with borrowed(_scratch, m) as scratch:
        engine(blocks, scratch, n, drop_negative, exact, mask.reshape(-1), _kernels(m))


def solve_band(W, n, m, mask, absolute, drop_negative, exact):
    """Find greedy masks of the blocks of a matrix of raw scores; see `solve_blocks`.

    W: (k * m, c * m), of a dtype in `loading.KINDS`; mask: bool, of the same shape; both
    C-contiguous. Returns False, the mask undefined, if a score is not finite.
    """
    _check_flags(drop_negative, exact)
    engine = _engine(_band, W.dtype.name)
    entries, loading, scores = as_loaded(W, m, absolute=absolute)
    short = _short_kernels(n, m, KINDS[W.dtype.name][1], exact)
    call = m, n, absolute, drop_negative, exact, mask, _kernels(m), *short
    with borrowed(_band_scratch, m, does(n, m), scores) as scratch:
        return engine(entries, loading, storer(m), scratch, *call)


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


def _cover(blocks, n, drop_negative, mask):
    count, m = blocks.shape[0], blocks.shape[1]
    size = m * m
    bits = _bits_for(size)
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


@once
def _cover_kernel():
    blocks = types.Array(_i64, 3, "C", readonly=True)
    return jit(_cover, types.void(blocks, _i64, _flag, _flag[:, :, ::1]))


def cover(blocks, n, drop_negative, mask):
    """Prune entries from the smallest up while row *or* column has fewer than m-n pruned.

    blocks: int64 (B, m, m), `mask` bool of that shape, both C-contiguous.
    """
    _cover_kernel()(blocks, n, drop_negative, mask)
