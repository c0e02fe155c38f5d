"""Kernels for `LANES` blocks side by side, written out in straight lines for one pattern.

A line of a block keeps its best n of m entries; the price that parts them lies between its n-th and
(n+1)-th largest. These come from a sorting network pruned to the comparators that reach those two
ranks, one local a value: LLVM turns each `min` and `max` over the lanes into one vector instruction.
Entry (i, j) of lane l is `S[i * m + j, l]`.
"""

import functools

import numpy as np
from numba import types

from .choosing import choose, larger, smaller
from .compiling import compiled, inner
from .hints import apart, use_widest
from .scratch import aligned

__all__ = [
    "LANES",
    "LINE",
    "line_kernels",
    "network",
    "ones",
    "prove_kernel",
    "prove_scratch",
    "prove_signature",
    "tree",
]

LANES = 16  # one AVX-512 register of float32
STRAIGHT = 32  # the longest line that is written out; longer ones run the network as data
PLANES = STRAIGHT.bit_length() + 1  # of the sums of columns, bit by bit; one more for their prices
AT_ONCE = 8  # rows whose bits are added to the sums of columns
ABREAST = 16  # entries of a row that a proof takes at a time: more take long to compile
BIG = np.int64(1) << np.int64(60)

_f32, _i64, _u32 = types.float32[:, ::1], types.int64[:, ::1], types.uint32[:, ::1]
LINE = types.void(_f32, _f32, types.int64[:, ::1], types.int64, types.float32, types.float32, _f32)


def prove_signature(scores):
    """Signature of a `prove` kernel for exact scores of that Numba type."""
    lanes = types.boolean[::1]
    bits = types.uint64[:, ::1]
    guess, prices = (_f32, _f32, _f32, scores[:, ::1], types.int64[::1]), (_i64, _f32)
    scratch = types.Tuple((types.float32[::1], _f32, _u32, _i64, _u32))
    answer = bits, _i64, lanes
    return types.void(*guess, *prices, types.int64, types.boolean, scratch, *answer)


@functools.cache
def network(n, m):
    """Comparators (i, j, i is needed, j is needed), larger value to i, that bring ranks n-1 and n
    (from 0) to their places: Batcher's odd-even merge sort less what neither rank depends on.
    """
    full, p = [], 1
    while p < m:
        k = p
        while k:
            for j in range(k % p, m - k, 2 * k):
                for i in range(j, min(j + k, m - k)):
                    if i // (2 * p) == (i + k) // (2 * p):
                        full.append((i, i + k))
            k //= 2
        p *= 2
    needed, kept = {n - 1, n}, []
    for i, j in reversed(full):
        if i in needed or j in needed:
            kept.append((i, j, i in needed, j in needed))
            needed |= {i, j}
    return kept[::-1]


def _line_source(name, n, m, by_row):
    first, step = (f"i * {m}", 1) if by_row else ("i", m)
    body = [f"a{k} = S[first + {k * step}, l] - price[{k}, l]" for k in range(m)]
    for i, j, high, low in network(n, m):
        body.append(
            f"a{i}, a{j} = larger(a{i}, a{j}), smaller(a{i}, a{j})"
            if high and low
            else (f"a{i} = larger(a{i}, a{j})" if high else f"a{j} = smaller(a{i}, a{j})")
        )
    body = "\n            ".join(body)
    return f"""
def {name}(S, price, pairs, n, omega, floor, out):
    apart()
    use_widest()
    for i in range({m}):
        first = {first}
        for l in range({LANES}):
            {body}
            middle = half * (max(a{n - 1}, floor) + max(a{n}, floor))
            out[i, l] = max((one - omega) * out[i, l] + omega * middle, floor)
"""


def tree(operation, terms):
    """All terms in one expression, not deeper than it must be."""
    while len(terms) > 1:
        pairs = zip(terms[::2], terms[1::2], strict=False)
        terms = [operation.format(*pair) for pair in pairs] + terms[len(terms) // 2 * 2 :]
    return terms[0]


def _chunk_source(size, entry):
    """Lines that take `size` entries of row i from column c on into what lane l knows of the row: the worst
    that is kept, the best that is not, and the bits. `entry`: what sets high_k, low_k and bit_k by u, where
    entry at_k of the block is in column j_k.
    """
    lines = ["u, low, high = U[i, l], state[0, l], state[1, l]"]
    for k in range(size):
        lines += [line.format(k=k) for line in (f"at_{k} = first + {k}; j_{k} = c + {k}", *entry)]
    high, low, bits = (
        tree(operation, [f"{name}_{k}" for k in range(size)])
        for name, operation in (
            ("high", "smaller({}, {})"),
            ("low", "larger({}, {})"),
            ("bit", "({} | {})"),
        )
    )
    lines += [
        f"state[0, l], state[1, l] = max(low, {low}), min(high, {high})",
        f"rows[i, l] |= {bits} << word(c)",
    ]
    return "\n                ".join(lines)


def _parts(m, size):
    """Ranges (first, last, step) that take m things `size` at a time, and at once what is left over."""
    whole = m - m % size
    return [part for part in ((0, whole, size), (whole, m, m - whole)) if part[1] > part[0]]


def _row_source(m, entry):
    """Lines that go through row i, `ABREAST` entries at a time; see `_chunk_source`."""
    return "".join(
        f"""
        for c in range({first}, {last}, {size}):
            first = i * {m} + c
            for l in range({LANES}):
                {_chunk_source(size, entry)}"""
        for first, last, size in _parts(m, ABREAST)
    )


def _columns_source(m):
    """Lines that take back `done` where a column does not keep n, nor fewer at a price of 0.

    The sums of all columns of a lane are added up at once: sums[b, l] holds bit b of each.
    """
    planes = range(m.bit_length())
    load = "; ".join(f"p{b} = sums[{b}, l]" for b in planes)
    save = "; ".join(f"sums[{b}, l] = p{b}" for b in planes)
    add = "; ".join(f"p{b}, w = p{b} ^ w, p{b} & w" for b in planes)
    parts = []
    for first, last, size in _parts(m, AT_ONCE):
        rows = "".join(
            f"""
            w = np.uint32(rows[i + {k}, l])
            {add}"""
            for k in range(size)
        )
        parts.append(f"""
    for i in range({first}, {last}, {size}):
        for l in range({LANES}):
            {load}{rows}
            {save}""")
    compare = "\n        ".join(
        f"w = full if n >> {b} & 1 else none; over |= same & p{b} & ~w; same &= ~(p{b} ^ w)"
        for b in reversed(planes)
    )
    return f"""
    full, none = np.uint32({(1 << m) - 1}), np.uint32(0)
    sums[:] = none{"".join(parts)}
    if at_most:
        for j in range({m}):
            for l in range(len(done)):
                sums[{len(planes)}, l] |= np.uint32(VI[j, l] == 0) << np.uint32(j)
    for l in range({LANES}):
        {load}
        same, over = full, none
        {compare}
        done[l] &= (over | (full & ~same & ~sums[{len(planes)}, l])) == none"""


def _prove_source(name, m):
    entry = (
        "x_{k} = np.int64(S[at_{k}, l] - V[j_{k}, l] > u)",
        "r_{k} = np.int64(Q[at_{k}, l]) - VI[j_{k}, l]",
        "far_{k} = x_{k} << 60",
        "high_{k} = r_{k} + (BIG - far_{k})",
        "low_{k} = r_{k} - far_{k}",
        "bit_{k} = np.uint64(x_{k}) << np.uint64({k})",
    )
    return f"""
def {name}(S, U, V, Q, grain, VI, VF, n, at_most, scratch, rows, UI, done):
    apart()
    use_widest()
    _, _, _, state, sums = scratch
    word, none = np.uint64, np.uint64(0)
    nothing = np.int64(0) if at_most else -BIG
    done[:] = True
    for i in range({m}):
        for l in range({LANES}):
            state[0, l], state[1, l], rows[i, l] = nothing, BIG, none{_row_source(m, entry)}
        for l in range({LANES}):
            low, high, number = state[0, l], state[1, l], ones(rows[i, l])
            high = min(high, np.int64(0)) if number < n else high
            done[l] &= (low <= high) & ((number == n) | (at_most & (number < n)))
            UI[i, l] = low + ((high - low) >> 1)
{_columns_source(m)}
"""


def _quick_source(name, m):
    entry = (
        "x_{k} = S[at_{k}, l] - V[j_{k}, l] > u",
        "r_{k} = Q[at_{k}, l] - VF[j_{k}, l]",
        "high_{k} = choose(x_{k}, r_{k}, far)",
        "low_{k} = choose(x_{k}, nothing, r_{k})",
        "bit_{k} = choose(x_{k}, one_{k}, none)",
    )
    return f"""
def {name}(S, U, V, Q, grain, VI, VF, n, at_most, scratch, bits, UI, done):
    apart()
    use_widest()
    within, state, rows, _, sums = scratch
    word, none = np.uint32, np.uint32(0)
    {"; ".join(f"one_{k} = np.uint32({1 << k})" for k in range(min(m, ABREAST)))}
    far = np.float32(BIG)
    nothing = np.float32(0) if at_most else -far
    done[:] = True
    for l in range({LANES}):
        unit = grain[l] | np.int64(Q[0, l])
        within[l] = np.float32(unit & -unit) * np.float32(2.0**24)
        state[2, l] = np.float32(0)
    for i in range({m}):
        for l in range({LANES}):
            state[0, l], state[1, l], rows[i, l] = nothing, far, none{_row_source(m, entry)}
        for l in range({LANES}):
            low, high, row = state[0, l], state[1, l], np.uint64(rows[i, l])
            bits[i, l], number = row, ones(row)
            high = min(high, np.float32(0)) if number < n else high
            told = abs(low) < within[l]
            proves = (low < high) | ((low == high) & told)
            state[2, l] = choose((low == high) & ~told, far, state[2, l])
            done[l] &= proves & ((number == n) | (at_most & (number < n)))
            below, above = np.int64(low), np.int64(high)
            UI[i, l] = below + ((above - below) >> 1)
{_columns_source(m)}
"""


@inner
def ones(word):
    """How many bits of a 64-bit word are set."""
    fives, threes = np.uint64(0x5555555555555555), np.uint64(0x3333333333333333)
    word -= word >> np.uint64(1) & fives
    word = (word & threes) + (word >> np.uint64(2) & threes)
    word = word + (word >> np.uint64(4)) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64(word * np.uint64(0x0101010101010101) >> np.uint64(56))


_SCOPE = {
    "np": np,
    "apart": apart,
    "choose": choose,
    "larger": larger,
    "smaller": smaller,
    "use_widest": use_widest,
    "ones": ones,
    "BIG": BIG,
    "half": np.float32(0.5),
    "one": np.float32(1),
    "__name__": __name__,
}


@functools.cache
def _long_line_kernels():
    return tuple(inner(f, LINE) for f in (_rows, _columns))


@functools.cache
def line_kernels(n, m):
    """The kernels `(rows, columns)` of a pattern, 0 < n < m, and the network they may want as data.

    ``rows(S, v, pairs, n, omega, floor, u)`` moves each price u_i towards the middle between the n-th
    and (n+1)-th largest of s_ij - v_j, neither taken below `floor`; all the way for omega = 1, and
    beyond for more. ``columns(S, u, pairs, n, omega, floor, v)`` does so for v_j.
    """
    pairs = np.array([pair[:2] for pair in network(n, m)], np.int64).reshape(-1, 2)
    if m > STRAIGHT:
        return *_long_line_kernels(), pairs
    names = f"_rows_{n}_{m}", f"_columns_{n}_{m}"
    kernels = (
        compiled(_line_source(a, n, m, a == names[0]), a, __file__, _SCOPE, LINE) for a in names
    )
    return *kernels, pairs


def prove_scratch(m):
    """What proofs keep of each lane: the quick one two arrays and the bits of rows, the exact one an array;
    both the sums of columns. Row 2 of the second array is not 0 where the quick one could not tell a tie.
    """
    state, rows = aligned((3, LANES), np.float32), aligned((m, LANES), np.uint32)
    sums = aligned((PLANES, LANES), np.uint32)
    return aligned(LANES, np.float32), state, rows, aligned((2, LANES), np.int64), sums


@functools.cache
def _long_prove_kernel(scores):
    return inner(_prove, prove_signature(scores))


@functools.cache
def prove_kernel(m, scores, quick):
    """The kernel ``prove(S, U, V, Q, grain, VI, VF, n, at_most, scratch, bits, UI, done)``.

    It selects x_ij = [s_ij - v_j > u_i] by the float prices (bit j % 64 of `bits[i * words + j // 64]`)
    and sets `done` where the integer prices VI prove that x is optimal for the integer scores Q. Then
    UI, half-way between the best entry left out and the worst kept of each row, completes the proof.

    The `quick` one, for float32 scores and m <= `STRAIGHT`, compares in float32, where VF is VI without
    error, and r = q - v is rounded. Rounding keeps the order, so a gap between the rounded is one
    between the exact, and its middle lies in both. If the two are equal, so are the exact where all
    values near there are float32's; elsewhere nothing is proven.

    `grain`: a power of two that divides all differences of a block's scores; what divides the scores,
    too, is to divide all prices VI. `scratch`: what `prove_scratch` makes.
    """
    if m > STRAIGHT:
        return _long_prove_kernel(scores)
    name = f"_{'quick' if quick else 'prove'}_{m}"
    source = (_quick_source if quick else _prove_source)(name, m)
    return compiled(source, name, __file__, _SCOPE, prove_signature(scores))


TOGETHER = 4  # lines that go through a network together


@inner
def _lines(S, price, pairs, n, omega, floor, out, line, step):
    m = len(price)
    a = np.empty((m, TOGETHER * LANES), np.float32)
    for first in range(0, m, TOGETHER):
        count = min(TOGETHER, m - first)
        for k in range(m):
            for t in range(count):
                for l in range(LANES):
                    a[k, t * LANES + l] = S[(first + t) * line + k * step, l] - price[k, l]
        for c in range(len(pairs)):
            i, j = pairs[c, 0], pairs[c, 1]
            high, low = a[i], a[j]
            for l in range(len(high)):  # its length known, LLVM would unroll it and not vectorise
                high[l], low[l] = max(high[l], low[l]), min(high[l], low[l])
        for t in range(count):
            for l in range(LANES):
                high, low = max(a[n - 1, t * LANES + l], floor), max(a[n, t * LANES + l], floor)
                middle = np.float32(0.5) * (high + low)
                moved = (np.float32(1) - omega) * out[first + t, l] + omega * middle
                out[first + t, l] = max(moved, floor)


def _rows(S, price, pairs, n, omega, floor, out):
    _lines(S, price, pairs, n, omega, floor, out, len(price), 1)


def _columns(S, price, pairs, n, omega, floor, out):
    _lines(S, price, pairs, n, omega, floor, out, 1, len(price))


def _prove(S, U, V, Q, grain, VI, VF, n, at_most, scratch, bits, UI, done):  # noqa: ARG001  # as all
    """The exact proof for any m: no straight lines to compile, and slower."""
    m = len(U)
    words = (m + 63) // 64
    columns = np.zeros((m, LANES), np.int64)
    low, high = np.empty(LANES, np.int64), np.empty(LANES, np.int64)
    rows = np.empty(LANES, np.int64)
    x = np.empty(LANES, np.int64)
    bits[:] = 0
    done[:] = True
    for i in range(m):
        low[:] = 0 if at_most else -BIG
        high[:] = BIG
        rows[:] = 0
        for j in range(m):
            for l in range(LANES):
                x[l] = S[i * m + j, l] - V[j, l] > U[i, l]
            for l in range(LANES):
                r = np.int64(Q[i * m + j, l]) - VI[j, l]
                high[l] = min(high[l], r if x[l] else BIG)
                low[l] = max(low[l], -BIG if x[l] else r)
            for l in range(LANES):
                rows[l] += x[l]
                columns[j, l] += x[l]
            for l in range(LANES):
                bits[i * words + j // 64, l] |= np.uint64(x[l]) << np.uint64(j % 64)
        for l in range(LANES):
            if rows[l] < n:
                high[l] = min(high[l], np.int64(0))
            done[l] &= low[l] <= high[l] and (rows[l] == n or (at_most and rows[l] < n))
            UI[i, l] = low[l] + ((high[l] - low[l]) >> 1)
    for j in range(m):
        for l in range(LANES):
            number = columns[j, l]
            done[l] &= number == n or (at_most and number < n and VI[j, l] == 0)
