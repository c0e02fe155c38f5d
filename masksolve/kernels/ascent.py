"""Exact n:m masks: dual ascent on `LANES` blocks at once guesses prices, integers decide.

Prices move in float32. A block is done only when its mask is proven optimal for the exact scores,
integers all, by `lines.prove_kernel`; the few that stay unproven go through the kernel of `paths`.
A block's answer is a function of its own scores (and start prices): lanes never mix.
"""

import functools
import math

import numpy as np
from numba import typeof, types

from .compiling import bare, inner, jit, once
from .entries import every_entry
from .flags import call_store, storer
from .hints import apart, use_widest
from .lines import (
    BIG,
    LANES,
    LINE,
    STRAIGHT,
    line_kernels,
    prove_kernel,
    prove_scratch,
    prove_signature,
)
from .loading import KINDS, LOADING, as_loaded, load, load_scratch, scores_of
from .paths import PATHS, call_finish, path_kernels, path_scratch
from .pointers import NONE, POINTER, address, caller
from .scratch import aligned, borrowed

__all__ = ["solve_band", "solve_blocks"]

TILT = 2.0**-17  # of a block's largest score: too small to cost many proofs, enough to part ties
FINEST = np.int64(1) << np.int64(50)
LARGEST = np.int64(1) << np.int64(40)  # no score exceeds it
ONE = np.uint64(1)


@functools.cache
def _tilts(m):
    """A fixed pseudo-random number below 1 for each entry of a block."""
    tilt, h = np.empty(m * m, np.float32), 1
    for k in range(m * m):
        h = (h * 1664525 + 1013904223) & 0xFFFFFFFF
        tilt[k] = (h >> 8) * 2.0**-24
    return tilt


_differences = every_entry(
    "_differences", "Q, bits", "bits[l] |= np.int64(Q[{k}, l]) - np.int64(Q[0, l])"
)


def _tilt_signature(scores):
    lanes = types.float32[::1]
    return types.void(scores[:, ::1], types.float32[:, ::1], lanes, lanes)


@functools.cache
def _tilter(scores, at_most):
    """The kernel ``tilt(Q, S, tilt, scale)``: the exact scores Q in float32, each with its tilt, to S.

    With `at_most` scores are 0, or 1 and more: no tilt, or all of it.
    """
    own, score = "tilt[{k}] * scale[l]", "np.float32(Q[{k}, l])"
    own = f"min({own}, {score} * finest)" if at_most else own
    return every_entry(
        "_tilt",
        "Q, S, tilt, scale",
        f"S[{{k}}, l] = {score} + {own}",
        _tilt_signature(scores),
        finest=np.float32(FINEST),
    )


@bare
def _grains(Q, grain):
    """The largest power of two that divides all differences of a block's scores."""
    grain[:] = FINEST
    _differences(Q, grain)
    for l in range(LANES):
        grain[l] &= -grain[l]


@bare
def _scales(m, largest, grain, scale):
    """How large tilts are, which break ties alike for rows and columns.

    A tilt below a grain over m cannot change which masks are best; a `TILT` of the largest score
    can, but seldom does.
    """
    for l in range(LANES):
        scale[l] = max(largest[l] * np.float32(TILT), np.float32(grain[l]) / np.float32(2 * m))


@bare
def _round_prices(V, grain, VI, VF):
    """Floor V to multiples of the grain g: integer constraints v_a - v_b <= k * g that V obeys, VI does.

    The third of a grain keeps the cuts away from the halves, quarters, ... where middles lie.
    """
    apart()
    use_widest()
    third = np.float32(1.0 / 3.0)
    for j in range(len(V)):
        for l in range(LANES):
            price = V[j, l] + third * np.float32(grain[l])
            # A price beyond these would prove nothing; within them no sum can overflow.
            price = min(max(price, np.float32(-FINEST)), np.float32(FINEST))
            VI[j, l] = np.int64(np.floor(price)) & -grain[l]
            VF[j, l] = np.float32(VI[j, l])  # without error: no digits were added


@bare
def _level(U, V):
    """Shift prices between rows and columns until the least of either are equal, then lift V to 0."""
    for l in range(LANES):
        u, v = U[0, l], V[0, l]
        for k in range(len(U)):
            u, v = min(u, U[k, l]), min(v, V[k, l])
        for k in range(len(U)):
            V[k, l] = max(V[k, l] + np.float32(0.5) * (u - v), np.float32(0))


@bare
def _settle(Q, bits, UI, VI, n, at_most, l, count):
    """Whether lane l is proven after all, in integers: a quick proof may miss what float32 cannot tell.

    So that the answer is the same wherever proofs are exact at once. It fills in UI; `count`: scratch.
    """
    m = len(VI)
    words = len(bits) // m
    count[:] = 0
    for i in range(m):
        for j in range(m):
            count[j] += np.int64(bits[i * words + j // 64, l] >> np.uint64(j % 64) & ONE)
    fine = True
    for j in range(m):
        fine &= count[j] == n or (at_most and count[j] < n and VI[j, l] == 0)
    if not fine:
        return False
    for i in range(m):
        low, high, number = np.int64(0) if at_most else -BIG, BIG, 0
        for j in range(m):
            r = np.int64(Q[i * m + j, l]) - VI[j, l]
            if bits[i * words + j // 64, l] >> np.uint64(j % 64) & ONE:
                high, number = min(high, r), number + 1
            else:
                low = max(low, r)
        high = min(high, np.int64(0)) if number < n else high
        if low > high or number > n or (number < n and not at_most):
            return False
        UI[i, l] = low + ((high - low) >> 1)
    return True


@bare
def _take_out(Q, bits, VI, largest, l, w, v, kept):
    """Lane l for the path solver: its mask, and its column prices without their tilts.

    Columns whose prices differ by a tilt at most begin at the least of them: ties are then ties for
    the paths.
    """
    apart()
    use_widest()
    m = len(VI)
    words = len(bits) // m
    tilt = np.int64(largest[l] * np.float32(TILT))
    for j in range(m):
        price = VI[j, l]
        v[j] = price
        for k in range(m):
            v[j] = VI[k, l] if price - tilt <= VI[k, l] < v[j] else v[j]
        for i in range(m):
            w[j, i] = np.int64(Q[i * m + j, l]) - v[j]
    for i in range(m):
        for k in range(words):
            kept[k, i] = bits[i * words + k, l]


@bare
def _put_back(kept, u, v, l, bits, UI, VI):
    m = len(VI)
    words = len(bits) // m
    for i in range(m):
        UI[i, l], VI[i, l] = u[i], v[i]
        for k in range(words):
            bits[i * words + k, l] = kept[k, i]


def _all_or_nothing(Q, UI, VI, n, bits):
    """n = 0 or n = m: there is but one mask, and row prices prove it."""
    m = len(UI)
    words = len(bits) // m
    VI[:] = 0
    UI[:] = FINEST if n else 0
    for i in range(m):
        for w in range(words):
            whole = m >= 64 * (w + 1)
            ones = (
                ~np.uint64(0) if whole else (np.uint64(1) << np.uint64(m - 64 * w)) - np.uint64(1)
            )
            bits[i * words + w] = ones if n else np.uint64(0)
        for k in range(m):
            for l in range(LANES):
                q = np.int64(Q[i * m + k, l])
                UI[i, l] = min(UI[i, l], q) if n else max(UI[i, l], q)


def _start(old, at_most, V):
    """Old column prices, from anywhere, as a start from which no sum can overflow.

    Prices are in units of the block's largest score; none far beyond it is of use. In exact problems a
    constant may move from all columns to all rows: so prices are centred.
    """
    least, most = np.float32(0 if at_most else -LARGEST), np.float32(LARGEST)
    for l in range(LANES):
        low, high = np.float32(old[0, l]), np.float32(old[0, l])
        for j in range(len(V)):
            low, high = min(low, np.float32(old[j, l])), max(high, np.float32(old[j, l]))
        middle = np.float32(0) if at_most else np.float32(0.5) * low + np.float32(0.5) * high
        for j in range(len(V)):
            V[j, l] = min(max(np.float32(old[j, l]) - middle, least), most)


def _scratch(m, at_most, scores):
    """For a group of blocks: their exact scores, of that dtype, the largest of each, what solving needs,
    and how many blocks needed paths.
    """
    words = (m + 63) // 64
    Q, S = aligned((m * m, LANES), scores), aligned((m * m, LANES), np.float32)
    UV, prices = aligned((3, m, LANES), np.float32), aligned((2, m, LANES), np.int64)
    bits, proven = aligned((m * words, LANES), np.uint64), aligned(LANES, np.bool_)
    lane = proven, aligned(LANES, np.float32), aligned(LANES, np.int64)
    work = S, UV, prove_scratch(m), bits, prices, lane, _tilts(m), path_scratch(m, at_most)
    return Q, aligned(LANES, np.float32), work, np.zeros(1, np.int64)


def _band_scratch(m, at_most, scores):
    return load_scratch(m, scores), _scratch(m, at_most, scores)


def _trivial_signature(scores):
    lanes = types.int64[:, ::1]
    return types.void(scores[:, ::1], lanes, lanes, types.int64, types.uint64[:, ::1])


_LINES = types.Tuple((POINTER, POINTER, types.int64[:, ::1]))
_ROUNDS = types.UniTuple(types.int64, 2)
START = types.void(types.int64[:, ::1], types.boolean, types.float32[:, ::1])
#: Type of how to solve; see `_prepare`.
HOW = types.Tuple((POINTER, POINTER, POINTER, _LINES, POINTER, types.float32, _ROUNDS, PATHS))


def _solve_signature(scores):
    scratch = typeof(_scratch(8, False, scores.name)).types
    return types.void(*scratch, types.int64, types.int64, types.boolean, HOW)


# Long lines need scratch: should memory be short, their prices stay what they were, and integers decide.
call_lines = caller(LINE, raises=False)
call_prove = caller(lambda *arguments: prove_signature(arguments[3].dtype))
call_trivial = caller(lambda *arguments: _trivial_signature(arguments[0].dtype))
call_start = caller(START, raises=False)
call_tilt = caller(lambda *arguments: _tilt_signature(arguments[0].dtype), raises=False)
call_solve = caller(lambda *arguments: _solve_signature(arguments[0].dtype))


@bare
def _ascend(S, U, V, pairs, n, rounds, omega, floor, rows, columns):
    """Rounds of dual ascent. The last price of each row is taken all the way to its middle."""
    for k in range(rounds):
        call_lines(columns, (S, U, pairs, n, omega, floor, V))
        last = np.float32(1) if k == rounds - 1 else omega
        call_lines(rows, (S, V, pairs, n, last, floor, U))


def _solve_lanes(Q, largest, work, by_path, lanes, n, at_most, how):
    """Solve the exact scores Q of `lanes` blocks. The answer: bits, prices[0] (u), prices[1] (v).

    `largest`: each block's largest |score|; `how`: see `_prepare`. by_path[0]: how many blocks needed
    paths is added to it.
    """
    trivial, start, tilt, (rows, columns, pairs), prove, omega, rounds, (finish, join) = how
    S, UV, proving, bits, prices, (proven, scale, grain), tilts, (w, lines, lane_bits, sets) = work
    U, V, VF = UV[0], UV[1], UV[2]
    untold = proving[1][2]
    UI, VI = prices[0], prices[1]
    if trivial != NONE:
        call_trivial(trivial, (Q, UI, VI, n, bits))
        return
    _grains(Q, grain)
    _scales(len(U), largest, grain, scale)
    call_tilt(tilt, (Q, S, tilts, scale))
    if start != NONE:
        call_start(start, (VI, at_most, V))
    else:
        V[:] = 0
    U[:] = 0  # of an earlier block nothing stays, not by way of a product with 0 either
    free, least = np.float32(-np.inf), np.float32(0)
    exact = rounds[0] > 0
    call_lines(rows, (S, V, pairs, n, np.float32(1), free if exact else least, U))
    _ascend(S, U, V, pairs, n, rounds[0], omega, free, rows, columns)
    if at_most and exact:  # exact prices first: they have one slow mode less
        _level(U, V)
        call_lines(rows, (S, V, pairs, n, np.float32(1), least, U))
    _ascend(S, U, V, pairs, n, rounds[1], omega, least, rows, columns)
    _round_prices(V, grain, VI, VF)
    call_prove(prove, (S, U, V, Q, grain, VI, VF, n, at_most, proving, bits, UI, proven))
    for l in range(lanes):
        if not proven[l] and untold[l] != 0:
            proven[l] = _settle(Q, bits, UI, VI, n, at_most, l, lines[0][: len(U)])
        if not proven[l]:
            _take_out(Q, bits, VI, largest, l, w, lines[1], lane_bits[0])
            call_finish(finish, (w, lines, lane_bits, sets, n, join))
            _put_back(lane_bits[0], lines[0], lines[1], l, bits, UI, VI)
            by_path[0] += 1


def _solve_band(W, loading, store, raw, scratch, solve, m, n, at_most, how, mask, u, v):
    """Solve a band; see `solve_band`."""
    Q, largest, work, by_path = scratch
    by_path[0] = 0
    warm, bits, prices = how[1] != NONE, work[3], work[4]
    across = W.shape[1] // m
    for i in range(W.shape[0] // m):
        for first in range(0, across, LANES):
            lanes, b = min(LANES, across - first), i * across + first
            if not load(loading, W, i * m, first * m, raw, Q, largest):
                return -1
            if warm:
                for l in range(lanes):
                    for k in range(m):
                        prices[1, k, l] = v[b + l, k]
            call_solve(solve, (Q, largest, work, by_path, lanes, n, at_most, how))
            call_store(store, (bits, lanes, mask, i * m, first * m))
            if len(u):
                for l in range(lanes):
                    for k in range(m):
                        u[b + l, k], v[b + l, k] = prices[0, k, l], prices[1, k, l]
    return by_path[0]


def _solve_blocks(q, scratch, solve, n, at_most, how, mask, u, v):
    """Solve integer blocks; see `solve_blocks`."""
    Q, largest, work, by_path = scratch
    by_path[0] = 0
    warm, bits, prices = how[1] != NONE, work[3], work[4]
    m = q.shape[1]
    words = (m + 63) // 64
    for first in range(0, len(q), LANES):
        lanes = min(LANES, len(q) - first)
        largest[:] = 0
        for l in range(lanes):
            for i in range(m):
                for j in range(m):
                    s = q[first + l, i, j]
                    largest[l] = max(largest[l], np.float32(abs(s)))
                    Q[i * m + j, l] = max(s, 0) if at_most else s
        if warm:
            for l in range(lanes):
                for k in range(m):
                    prices[1, k, l] = v[first + l, k]
        call_solve(solve, (Q, largest, work, by_path, lanes, n, at_most, how))
        for l in range(lanes):
            for i in range(m):
                u[first + l, i], v[first + l, i] = prices[0, i, l], prices[1, i, l]
                for j in range(m):
                    kept = bits[i * words + j // 64, l] >> np.uint64(j % 64) & np.uint64(1)
                    mask[first + l, i, j] = kept != 0 and (q[first + l, i, j] >= 0 or not at_most)
    return by_path[0]


@functools.cache
def _trivial_kernel(scores):
    return inner(_all_or_nothing, _trivial_signature(scores))


@functools.cache
def _start_kernel():
    return bare(_start, START)


@functools.cache
def _solve_kernel(scores):
    return bare(_solve_lanes, _solve_signature(scores))


@functools.cache
def _engine(solve, kind):
    """`_solve_band` for matrices of a dtype, or `_solve_blocks`.

    The pattern's kernels are passed by address: one compilation serves all patterns.
    """
    i64, flag, prices = types.int64, types.boolean, types.int64[:, ::1]
    if solve is _solve_band:
        scores = scores_of(kind)
        matrix = types.Array(KINDS[kind][0], 2, "C", readonly=True)
        mask = types.Array(flag, 2, "C")
        scratch = typeof(load_scratch(8, scores)), typeof(_scratch(8, False, scores))
        given = matrix, LOADING, POINTER, *scratch, POINTER, i64, i64, flag
    else:
        blocks, mask = types.Array(types.int64, 3, "A", readonly=True), types.Array(flag, 3, "A")
        scratch = typeof(_scratch(8, False, np.int64))
        given = blocks, scratch, POINTER, i64, flag
    return jit(solve, i64(*given, HOW, mask, prices, prices))


def _plan(m, at_most, warm):
    """Over-relaxation and rounds of dual ascent: the best measured."""
    omega = np.float32(min(1 + math.log2(max(m, 2)) / 10, 1.7))
    exact, least = round((1.4 if warm else 2.6) * math.sqrt(m)), 0
    if at_most and warm:
        exact, least = 0, exact
    elif at_most:
        exact, least = round(1.7 * math.sqrt(m)), 5
    return omega, (exact, least)


@once
def _prepare(solve, n, m, kind, at_most, warm):
    """The engine for scores of that kind, the kernel that solves some blocks of it, and how for a pattern.

    That is: the kernel of patterns with one mask, if it is one; that which reads old prices, if there
    are any; that of tilts; those of lines and their network; that of the proof; over-relaxation; rounds
    of dual ascent, as if exact and at prices of 0 or more; the kernels of paths.
    """
    trivial = start = tilt = prove = NONE
    paths = NONE, NONE
    lines = NONE, NONE, np.zeros((0, 2), np.int64)
    scores = types.int64 if solve is _solve_blocks else KINDS[kind][1]
    if n in (0, m):
        trivial = address(_trivial_kernel(scores), _trivial_signature(scores))
    else:
        rows, columns, pairs = line_kernels(n, m)
        lines = address(rows, LINE), address(columns, LINE), pairs
        signature = prove_signature(scores)
        quick = scores is types.float32 and m <= STRAIGHT
        prove = address(prove_kernel(m, scores, quick=quick), signature)
        tilt = address(_tilter(scores, at_most), _tilt_signature(scores))
        paths = path_kernels(at_most)
        start = address(_start_kernel(), START) if warm else NONE
    engine = _engine(solve, kind)
    kernel = address(_solve_kernel(scores), _solve_signature(scores))
    plan = _plan(m, at_most, warm)
    return engine, kernel, (trivial, start, tilt, lines, prove, *plan, paths)


def solve_band(W, n, m, mask, u=None, v=None, *, absolute=True, at_most=False, warm=False):
    """Find the optimal masks of all blocks of a matrix, in one pass from raw scores.

    W: of a dtype in `loading.KINDS`, (k*m, c*m), C-contiguous; mask: bool, likewise. u, v: int64
    (k*c, m), blocks in row-major order, or None; with `warm`, v is the start. Returns how many
    blocks needed augmenting paths, or -1 if a score is not finite. With `at_most`, a mask may
    hold negative scores as if they were zeros: signed ones are better given as blocks.
    """
    engine, kernel, how = _prepare(_solve_band, n, m, W.dtype.name, at_most, warm)
    if u is None:
        u = v = np.zeros((0, m), np.int64)
    entries, loading, scores = as_loaded(W, m, absolute=absolute, clip=at_most)
    with borrowed(_band_scratch, m, at_most, scores) as scratch:
        return engine(entries, loading, storer(m), *scratch, kernel, m, n, at_most, how, mask, u, v)


def solve_blocks(q, n, mask, u, v, *, at_most=False, warm=False):
    """Find the optimal masks of integer blocks q (B, m, m), |q| <= 2**40; see `solve_band`."""
    engine, kernel, how = _prepare(_solve_blocks, n, q.shape[1], "int64", at_most, warm)
    with borrowed(_scratch, q.shape[1], at_most, np.int64) as scratch:
        return engine(q, scratch, kernel, n, at_most, how, mask, u, v)
