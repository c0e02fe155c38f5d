"""One block to its optimum: shortest augmenting paths from prices that need not be optimal yet.

A block lies here column by column, so that all its rows go through each loop side by side; sets of
columns are bits of 64-bit words. Most blocks that come here lack a path among ties, of length 0:
that is found in the bits alone.
"""

import functools

import numpy as np
from numba import types

from .compiling import bare, once
from .entries import every_column
from .hints import apart, use_widest
from .pointers import NONE, POINTER, address, caller
from .scratch import aligned

__all__ = ["PATHS", "call_finish", "path_kernels", "path_scratch"]

INF = np.int64(1) << np.int64(60)
ONE = np.uint64(1)

_words, _lines = types.uint64, types.int64[:, ::1]
_FINISH = types.void(_lines, _lines, _words[:, :, ::1], _words[:, ::1], types.int64, POINTER)
_JOIN = types.void(_lines, _lines, _words[:, :, ::1], types.int64)
#: Type of what `path_kernels` returns.
PATHS = types.UniTuple(POINTER, 2)

call_finish = caller(_FINISH, raises=False)
call_join = caller(_JOIN, raises=False)


def path_scratch(m, at_most):
    """What the kernel of paths works on: its first four arguments, made once for many blocks."""
    size = m + 1 if at_most else m
    words = (size + 63) // 64
    block, lines = aligned((size, size), np.int64), aligned((9, size), np.int64)
    return block, lines, aligned((3, words, size), np.uint64), aligned((3, words), np.uint64)


@bare
def _has(words, line, bit):
    """Whether the set of a line, word by word in words[:, line], has an element."""
    return words[bit >> 6, line] >> np.uint64(bit & 63) & ONE != 0


_HOLDS = "(kept[{j} >> 6, i] >> np.uint64({j} & 63) & ONE) != 0"

_add_extremes = every_column(
    "_add_extremes",
    "size, w, kept, count, low, high",
    f"""x = {_HOLDS}
            count[i] += np.int64(x)
            low[i] = smaller(low[i], choose(x, w[{{j}}, i], INF))
            high[i] = larger(high[i], choose(x, -INF, w[{{j}}, i]))""",
    together=2,
    INF=INF,
    ONE=ONE,
)


@bare
def _extremes(w, kept, count, low, high):
    """Of each row, how much it keeps, its worst entry kept and the best of the others."""
    count[:], low[:], high[:] = 0, INF, -INF
    _add_extremes(len(low), w, kept, count, low, high)


@bare
def _best_row(w, kept, i, m, n, at_most):
    """Turn row i into its best n entries (`at_most`: its best up to n), by swaps.

    Returns its price, the worst entry kept or 0 if it keeps fewer than n, and how many it keeps.
    """
    while True:
        count, worst, best, low, high = 0, -1, -1, INF, -INF
        for j in range(m):
            if _has(kept, i, j):
                count += 1
                if w[j, i] < low:
                    worst, low = j, w[j, i]
            elif w[j, i] > high:
                best, high = j, w[j, i]
        drop = count > n or (at_most and low < 0)
        add = not drop and count < n and (high > 0 or not at_most)
        if not drop and not add:
            if count < n or low >= high:
                return low if count == n else np.int64(0), count
            drop = add = True
        if drop:
            kept[worst >> 6, i] ^= ONE << np.uint64(worst & 63)
        if add:
            kept[best >> 6, i] ^= ONE << np.uint64(best & 63)


_add_marks = every_column(
    "_add_marks",
    "size, w, tight",
    "tight[{j} >> 6, i] |= np.uint64(w[{j}, i] == 0) << np.uint64({j} & 63)",
)


@bare
def _mark(w, tight):
    """Note the entries with w = 0."""
    tight[:] = 0
    _add_marks(len(w), w, tight)


_add_nearest = every_column(
    "_add_nearest",
    "size, w, kept, in_row, in_col, least",
    f"""k, out, give = {_HOLDS}, in_row[i] == 0, in_col[{{j}}] != 0
            possible = choose(give, k & out, not (k | out))
            cost = choose(give, w[{{j}}, i], -w[{{j}}, i])
            least[i] = smaller(least[i], choose(possible, cost, INF))""",
    together=1,
    INF=INF,
    ONE=ONE,
)


@bare
def _nearest(w, kept, in_row, in_col, least):
    """The least cost of a step from what is reached to what is not.

    What a row may both take and give has w = 0: such steps are no longer before us.
    """
    least[:] = INF
    _add_nearest(len(w), w, kept, in_row, in_col, least)
    nearest = INF
    for i in range(len(least)):
        nearest = min(nearest, least[i])
    return nearest


_move_entries = every_column(
    "_move_entries",
    "size, w, in_row, in_col, step",
    """back = choose(in_col[{j}] != 0, step, NOTHING)
            forth = choose(in_row[i] != 0, step, NOTHING)
            w[{j}, i] += forth - back""",
    together=2,
    NOTHING=np.int64(0),
)


@bare
def _move(w, u, v, in_row, in_col, step):
    """Move the prices of what is reached by `step`."""
    _move_entries(len(w), w, in_row, in_col, step)
    for j in range(len(v)):
        v[j] += step if in_col[j] else 0
    for i in range(len(u)):
        u[i] -= step if in_row[i] else 0


_less = every_column("_less", "size, w, u", "w[{j}, i] -= u[i]")


@bare
def _best_rows(w, kept, u, n, at_most, count, low, high):
    """Turn all rows into their best, by what w is after column prices; u are the rows' prices."""
    m = len(u)
    _extremes(w, kept, count, low, high)
    for i in range(m):
        if count[i] == n and low[i] >= high[i] and (low[i] >= 0 or not at_most):
            u[i] = low[i]
        else:
            u[i], count[i] = _best_row(w, kept, i, m, n, at_most)
    _less(m, w, u)


@bare
def _excesses(kept, n, excess):
    """How much each column holds beyond n."""
    apart()
    use_widest()
    for j in range(len(excess)):
        k, bit, held = kept[j >> 6], np.uint64(j & 63), np.int64(0)
        for i in range(len(excess)):
            held += np.int64(k[i] >> bit & ONE)
        excess[j] = held - n


def _join_slack(w, lines, bits, n):
    """Add the slack's row and column. On entry slack_row is what each row keeps."""
    u, v, excess, slack_row, slack_col = lines[0], lines[1], lines[2], lines[7], lines[8]
    kept, free = bits[0], bits[2]
    m = len(u) - 1
    bit, word = ONE << np.uint64(m & 63), m >> 6
    u[m] = v[m] = w[m, m] = excess[m] = 0
    free[:], kept[:, m] = 0, 0
    if m & 63 == 0:
        kept[word] = 0
    for k in range(m):
        w[m, k], w[k, m] = -u[k], -v[k]
        slack_row[k], slack_col[k] = n - slack_row[k], 0
        if excess[k] < 0 and v[k] == 0:
            slack_col[k], excess[k] = -excess[k], 0
        excess[m] -= excess[k]
    slack_row[m] = slack_col[m] = INF
    for k in range(m + 1):
        own = ONE << np.uint64(k & 63)
        free[word, k] |= bit
        free[k >> 6, m] |= own
        if slack_row[k] > 0:
            kept[word, k] |= bit
        if slack_col[k] > 0:
            kept[k >> 6, m] |= own


@bare
def _push(kept, slack_row, slack_col, i, j, m, amount):
    """Add one unit to entry (i, j), or take one away. Row and column m, if any, are the slack."""
    flips = i < m or j < m  # the slack's own entry is without end
    if i < m and j == m:
        slack_row[i] += amount
        flips = slack_row[i] == max(amount, 0)
    elif j < m and i == m:
        slack_col[j] += amount
        flips = slack_col[j] == max(amount, 0)
    if flips:
        kept[j >> 6, i] ^= ONE << np.uint64(j & 63)


@bare
def _grow(kept, tight, free, in_row, cols, fresh, time):
    """Reach what a step of cost 0 reaches: rows from the columns `cols`, then columns from all rows.

    Adds the columns `fresh` to `cols`; returns whether anything was reached.
    """
    apart()
    use_widest()
    grew = False
    for k in range(len(cols)):
        x, w, c = kept[k], tight[k], cols[k]
        for i in range(len(in_row)):
            reached = (in_row[i] == 0) & (x[i] & w[i] & c != 0)
            in_row[i] = time if reached else in_row[i]
            grew |= reached
    for k in range(len(cols)):
        x, w, f, new = kept[k], tight[k], free[k], np.uint64(0)
        for i in range(len(in_row)):
            new |= w[i] & (f[i] | ~x[i]) if in_row[i] else np.uint64(0)
        fresh[k] = new & ~cols[k]
        cols[k] |= new
        grew |= fresh[k] != 0
    return grew


@bare
def _note(fresh, under, in_col, time):
    """Note when the columns `fresh` were reached; return one of them that is in `under`, or -1."""
    target = -1
    for k in range(len(fresh)):
        new, first = fresh[k], 64 * k
        times = in_col[first : first + 64]
        for j in range(len(times)):
            times[j] = time if new >> np.uint64(j) & ONE else times[j]
        found = new & under[k]
        if found:
            target = first
            while not found >> np.uint64(target - first) & ONE:
                target += 1
    return target


@bare
def _roots(excess, in_row, in_col, cols, under):
    """Begin with the over-full columns, reached at time 1; return whether there are any."""
    apart()
    use_widest()
    in_row[:] = 0
    over = False
    for k in range(len(cols)):
        full, short = np.uint64(0), np.uint64(0)
        e, times = excess[64 * k : 64 * k + 64], in_col[64 * k : 64 * k + 64]
        for j in range(len(e)):
            times[j] = e[j] > 0
            full |= np.uint64(e[j] > 0) << np.uint64(j)
            short |= np.uint64(e[j] < 0) << np.uint64(j)
        cols[k], under[k] = full, short
        over |= full != 0
    return over


@bare
def _augment(kept, tight, free, slack_row, slack_col, in_row, in_col, target, m):
    """Move a unit along the path by which column `target` was reached; return where it came from."""
    while in_col[target] > 1:
        i = 0
        while not (
            0 < in_row[i] < in_col[target]
            and _has(tight, i, target)
            and (_has(free, i, target) or not _has(kept, i, target))
        ):
            i += 1
        source = 0
        while not (
            0 < in_col[source] < in_row[i] and _has(tight, i, source) and _has(kept, i, source)
        ):
            source += 1
        _push(kept, slack_row, slack_col, i, target, m, 1)
        _push(kept, slack_row, slack_col, i, source, m, -1)
        target = source
    return target


def _finish_block(w, lines, bits, sets, n, join):
    """Make a mask optimal for the integer scores of a block, and prove it, from any mask and prices.

    On entry w[j, i] is the score of row i, column j, less the column's price lines[1, j]; bit j % 64
    of bits[0, j // 64, i] whether the mask keeps it. On return the mask is optimal, and lines[0] and
    lines[1] are the prices u and v that prove it. The arrays are those of `path_scratch`; for `exact`
    bits[2] stays 0, as it was made, and bits beyond the block's columns are to be 0.

    With `join`, for `at_most`, they are one longer than the block each way. That last row and column are the
    *slack*: scores 0, prices 0, arcs of any amount, which take up what a line keeps short of n. So
    both degree constraints become one: every line holds exactly n. (v >= 0 then.)

    Invariant: with w = q_ij - u_i - v_j, w >= 0 where x_ij > 0 and w <= 0 where x_ij can grow. Columns
    alone may hold too much or too little. A path takes a unit from an over-full column to an
    under-full one: column a -> row i at cost w (kept), row i -> column b at cost -w. What is
    reached at cost 0 grows until it holds an under-full column; when it grows no more, its prices
    move by the least cost of leaving it, which keeps the invariant. With each path the sum of
    |excess| falls by 2.
    """
    u, v, excess, in_row, in_col = lines[0], lines[1], lines[2], lines[3], lines[4]
    least, most, slack_row, slack_col = lines[5], lines[6], lines[7], lines[8]
    kept, tight, free = bits[0], bits[1], bits[2]
    cols, under, fresh = sets[0], sets[1], sets[2]
    size, at_most = len(w), join != NONE
    m = size - 1 if at_most else size
    count = slack_row[:m]  # what is left of n will be slack
    _best_rows(w, kept, u[:m], n, at_most, count, least[:m], most[:m])
    _excesses(kept, n, excess[:m])
    if at_most:
        call_join(join, (w, lines, bits, n))
    _mark(w, tight)
    while _roots(excess, in_row, in_col, cols, under):
        time, target = 1, -1
        while target < 0:
            if _grow(kept, tight, free, in_row, cols, fresh, time + 1):
                time += 2
                target = _note(fresh, under, in_col, time)
            else:
                _move(w, u, v, in_row, in_col, _nearest(w, kept, in_row, in_col, least))
                _mark(w, tight)
        excess[target] += 1
        source = _augment(kept, tight, free, slack_row, slack_col, in_row, in_col, target, m)
        excess[source] -= 1
    if at_most:  # the slack's price is 0 by definition
        shift = u[m]
        for k in range(m):
            u[k] -= shift
            v[k] += shift


@functools.cache
def _finish_kernel():
    return bare(_finish_block, _FINISH)


@functools.cache
def _join_kernel():
    return bare(_join_slack, _JOIN)


@once
def path_kernels(at_most):
    """Addresses of the kernel of paths, see `_finish_block`, and of what adds the slack to a block."""
    join = address(_join_kernel(), _JOIN) if at_most else NONE
    return address(_finish_kernel(), _FINISH), join
