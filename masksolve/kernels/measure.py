"""What masks and prices are worth on raw scores, a band in one pass: the numbers of a certificate.

Apart from the engines: here nothing is searched, and nothing that an engine computed is believed.
"""

import functools

import numpy as np
from numba import from_dtype, typeof, types

from .compiling import bare, compiled, jit, once
from .fixed_point import call_scale, scale_signature, scaler, share_of
from .hints import apart, use_widest
from .pointers import POINTER, address, caller
from .scratch import aligned, borrowed

__all__ = ["CHUNK", "measure_band"]

CHUNK = 256  # columns that go through at once: few enough to stay in the nearest caches
ROWS = 4  # rows that do so: the sums of their columns are fetched and put back once

_i64, _flag, _word = types.int64, types.boolean, types.uint64
_line, _lines, _flags = types.Array(_i64, 1, "C", readonly=True), _i64[:, ::1], _flag[::1]
_SPREAD = types.void(_line, _i64, _lines)
_SUM_UP = types.void(_lines, _line, _line, _i64, _flag, _i64[::1], _i64[::1], _i64[::1], _flags)


def _add_signature(scores):
    W = types.Array(scores, 2, "C", readonly=True)
    kept = types.Array(_flag, 2, "C", readonly=True)
    return types.void(W, kept, _word, _word, scores[:, ::1], _lines, _line, _lines)


def _check_signature(size):
    words = types.Array(types.Integer.from_bitwidth(8 * size, False), 2, "C", readonly=True)
    return types.void(words, _word, _word, _line, _i64, _flag, _flags)


_call_spread = caller(_SPREAD, raises=False)
_call_add = caller(lambda *given: _add_signature(given[0].dtype), raises=False)
_call_check = caller(lambda *given: _check_signature(given[0].dtype.bitwidth // 8), raises=False)
_call_sum_up = caller(_SUM_UP, raises=False)


@functools.cache
def _spread(m):
    """The kernel ``spread(rows, i, price)``: the price of rows i and on of each block, to its columns."""
    shares = m // share_of(m)

    def spread(rows, i, price):
        apart()
        use_widest()
        for k in range(len(price)):
            for b in range(len(rows) // m):
                for g in range(b * shares, (b + 1) * shares):
                    price[k, g] = rows[b * m + i + k]

    return bare(spread, _SPREAD)


@functools.cache
def _adder(scores, share, rows, absolute):
    """The kernel ``add(W, kept, top, left, factors, price, columns, sums)`` for so many rows.

    To the sums of the columns it adds the kept scores, what is above the prices, all scores, and
    the number of the kept. Each `share` columns have the same factors and prices.
    """
    score = "abs(np.rint({}))" if absolute else "np.rint({})"
    prices = "; ".join(f"u{k} = price[{k}, g]" for k in range(rows))
    body = "".join(
        f"""
            q = np.int64({score.format(f"W[top + word({k}), left + c] * a * b")})
            x = kept[top + word({k}), left + c]
            held += q if x else none
            above += max(q - column - u{k}, none)
            total += q
            count += np.int64(x)"""
        for k in range(rows)
    )
    name = f"_add_{rows}"
    source = f"""
def {name}(W, kept, top, left, factors, price, columns, sums):
    apart()
    use_widest()
    none, share = np.int64(0), word({share})
    for g in range(word(len(columns)) // share):
        a, b = factors[0, g], factors[1, g]
        {prices}
        for c in range(g * share, (g + word(1)) * share):
            column = columns[c]
            held, above, total, count = sums[0, c], sums[1, c], sums[2, c], sums[3, c]{body}
            sums[0, c], sums[1, c], sums[2, c], sums[3, c] = held, above, total, count
"""
    scope = {
        "np": np,
        "word": np.uint64,
        "apart": apart,
        "use_widest": use_widest,
        "__name__": __name__,
    }
    return compiled(source, name, __file__, scope, _add_signature(scores))


@functools.cache
def _checker(m, size):
    """The kernel ``check(words, top, first, rows, n, at_most, good)`` for flags in words of so many.

    Good is a block with n kept entries in each row, or with fewer in a row without a price.
    """
    ones, last = np.uint64(0x0101010101010101), np.uint64(56)
    many, m = np.uint64(m // size), np.uint64(m)

    def check(words, top, first, rows, n, at_most, good):
        good[:] = True
        for i in range(m):
            for b in range(np.uint64(len(good))):
                count = 0
                for k in range(many):
                    flags = np.uint64(words[top + i, (first + b) * many + k])
                    count += np.int64(flags * ones >> last)
                fewer = at_most and rows[b * m + i] == 0 and count < n
                good[b] &= count == n or fewer

    return bare(check, _check_signature(size))


@functools.cache
def _summer(m):
    """The kernel ``sum_up(sums, rows, columns, n, at_most, value, bound, total, good)`` of a row of blocks.

    Value, bound and total of each; and it is not good if what its columns keep, its prices or its value
    are not those of a proof.
    """

    def sum_up(sums, rows, columns, n, at_most, value, bound, total, good):
        apart()
        use_widest()
        for b in range(len(good)):
            held, above, scores, prices, least, fine = 0, 0, 0, 0, 0, True
            for j in range(m):
                c = b * m + j
                held += sums[0, c]
                above += sums[1, c]
                scores += sums[2, c]
                prices += rows[c] + columns[c]
                least = min(least, min(rows[c], columns[c]))
                fewer = at_most & (columns[c] == 0) & (sums[3, c] < n)
                fine &= (sums[3, c] == n) | fewer
            value[b], bound[b], total[b] = held, n * prices + above, scores
            good[b] &= fine and (least == 0 or not at_most) and value[b] == bound[b]

    return bare(sum_up, _SUM_UP)


def _measure(scores, marks, m, n, at_most, how, scratch, prices, shift, numbers, proven):
    """Measure a band; see `measure_band`.

    scores, marks: the matrix and its bits, the mask and its words; prices: (blocks down, blocks across * m).
    """
    (W, bits), (mask, words), (u, v), (value, bound, total) = scores, marks, prices, numbers
    scale, spread, add, add_one, check, sum_up = how
    peak, factors, finite, sums, price = scratch
    chunk = len(peak)
    for down in range(W.shape[0] // m):
        top = down * m
        for left in range(0, W.shape[1], chunk):
            right = min(left + chunk, W.shape[1])
            first, last = left // m, right // m
            place = np.uint64(top), np.uint64(left)
            call_scale(
                scale,
                (bits, *place, peak[: right - left], factors, shift[down, first:last], finite),
            )
            if not finite[0]:
                return False
            rows, columns, good = u[down, left:right], v[down, left:right], proven[down, first:last]
            sums[:] = 0
            i = 0
            while i < m:
                step = ROWS if i + ROWS <= m else 1
                _call_spread(spread, (rows, i, price[:step]))
                place = np.uint64(top + i), np.uint64(left)
                adding = add if step == ROWS else add_one
                _call_add(adding, (W, mask, *place, factors, price, columns, sums))
                i += step
            _call_check(check, (words, np.uint64(top), np.uint64(first), rows, n, at_most, good))
            here = value[down, first:last], bound[down, first:last], total[down, first:last]
            _call_sum_up(sum_up, (sums, rows, columns, n, at_most, *here, good))
    return True


def _scratch(m, scores):
    """Of the columns of a chunk: the largest bits, two factors, sums; whether scores are finite; prices of rows."""
    chunk = max(CHUNK // m, 1) * m
    peak, factors = aligned(chunk, f"i{scores.itemsize}"), aligned((2, chunk), scores)
    sums, price = aligned((4, chunk), np.int64), aligned((ROWS, chunk), np.int64)
    return peak, factors, np.zeros(1, np.bool_), sums, price


@functools.cache
def _engine(scores, size):
    def matrix(entries):
        return types.Array(entries, 2, "C", readonly=True)

    whole, words = types.Integer.from_bitwidth(8 * scores.itemsize), f"uint{8 * size}"
    given = (
        types.Tuple((matrix(from_dtype(scores)), matrix(whole))),
        types.Tuple((matrix(_flag), matrix(getattr(types, words)))),
        *(_i64, _i64, _flag, types.UniTuple(POINTER, 6), typeof(_scratch(4, scores))),
        types.UniTuple(matrix(_i64), 2),
        *(_lines, types.UniTuple(_lines, 3), types.Array(_flag, 2, "C")),
    )
    return jit(_measure, _flag(*given))


@once
def _prepare(scores, m, absolute):
    """The engine, the kernels that it calls, and the size of a word of flags."""
    kind, size = from_dtype(scores), next(size for size in (8, 4, 2, 1) if m % size == 0)
    signature = _add_signature(kind)
    how = (
        address(scaler(scores, m), scale_signature(scores)),
        address(_spread(m), _SPREAD),
        *(address(_adder(kind, share_of(m), rows, absolute), signature) for rows in (ROWS, 1)),
        address(_checker(m, size), _check_signature(size)),
        address(_summer(m), _SUM_UP),
    )
    return _engine(scores, size), how, np.dtype(f"u{size}")


def measure_band(W, n, m, u, v, mask, shift, value, bound, total, proven, *, absolute, at_most):
    """Measure the masks and prices of a band's blocks; False if a score is not finite.

    W: float32 or float64, (k*m, c*m); mask: bool, likewise; u, v: int64 (k, c*m), the prices of a
    block side by side; the results (k, c), int64, `proven` bool. All C-contiguous. Of each block:
    the fixed-point `shift`, the `value` that its mask keeps, the weak-duality `bound` of its
    prices, the `total` of its scores, and whether it is `proven`: the mask is one of the pattern,
    and its value is the bound. The caller sees to it that prices are not so large that sums
    could overflow.
    """
    engine, how, words = _prepare(W.dtype, m, bool(absolute))
    scores, marks = (W, W.view(f"i{W.itemsize}")), (mask, mask.view(words))
    found = shift, (value, bound, total), proven
    with borrowed(_scratch, m, W.dtype) as scratch:
        return engine(scores, marks, m, n, at_most, how, scratch, (u, v), *found)
