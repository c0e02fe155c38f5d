"""n:4 masks, exact, over all patterns at once: straight-line loops that LLVM vectorises whole.

1:4: what the top two rows keep of columns a and b, the bottom two keep of c and d; the best of six
such pairs. 3:4: the entries left out are a 1:4 mask of the negated scores.

2:4: a row keeps a pair of columns. The column sums of the top two rows are one of 19 *types*; the bottom two
must have what is missing to 2. So: the best top and the best bottom of each type, added up, and the
best type. With `at_most` a row may also keep one entry that counts twice (its column is then full as
well): so arise the maximal masks of seven entries.

Every value holds, below its binary point, the number of the mask it belongs to: one maximum finds
both, and ties have one fixed answer. The *exact* kernel computes in float64: sums of eight 40-bit
scores (< 2**43) and the number (9 or 10 bits) fit 53 bits. For float32 scores a *quick* kernel
computes the same in int32, twice as many blocks at once, from scores cut to 18 or 19 bits, and keeps
the smallest margin by which any of its comparisons was won. Where the margin is wider than what was
cut off can be, every comparison holds for the exact scores too. The other blocks, few of Gaussian
weights, are in *doubt* and go through the exact kernel.
"""

import functools
import itertools

import numpy as np
from numba import types

from .compiling import compiled, inner, jit, once
from .hints import apart, use_widest
from .pointers import POINTER, address, caller
from .widen import bits_of_bfloat16, bits_of_float16

__all__ = ["does", "solve_band", "solve_blocks"]

#: Instead of a mask's number: a score is not finite; the quick kernel cannot tell.
UNSOUND, DOUBT = -1, -2

#: Blocks that are solved at a time: few enough to stay in the nearest cache, rows long enough to stream.
CHUNK = 128

#: Chunks that go straight to the exact kernel after one with too many doubts.
WARY = 32

_CELLS = [(r, c) for r in range(4) for c in range(4)]


def does(n, at_most):
    """Whether n:4 masks are found here; 3:4 has maximal masks that are not full."""
    return n in (1, 2) or (n == 3 and not at_most)


def _doubles(n, at_most):
    """Whether rows may keep an entry twice: maximal 1:4 masks are full, as exact ones are."""
    return n == 2 and at_most


def _choices(doubles):
    """What a row of a 2:4 mask may keep: column pairs, or (`doubles`) an entry counted twice."""
    pairs = itertools.combinations_with_replacement if doubles else itertools.combinations
    return list(pairs(range(4), 2))


def _filled(*rows):
    """How often each column occurs."""
    return tuple(sum(row.count(c) for row in rows) for c in range(4))


def _two_rows(doubles):
    """Column sums of two rows -> the numbers of the choices that make them (one double will do)."""
    choices, types_ = _choices(doubles), {}
    for (i, a), (j, b) in itertools.product(enumerate(choices), repeat=2):
        if (max(_filled(a, b)) == 2 and not (a[0] == a[1] and b[0] == b[1])) or max(
            _filled(a, b)
        ) == 1:
            types_.setdefault(_filled(a, b), []).append((i, j))
    return types_


_WEIGHT = (0, 1, 2, 4)  # every pair of columns has its own sum


def _units(doubles):
    """How many numbers there is room for below a score of 1."""
    return 1024 if doubles else 512


def _number(row, kept, doubles):
    """What a row adds to the number of its mask; the last row follows from the others."""
    if doubles:
        return _choices(True).index(kept) * 10 ** (2 - row)
    return sum(_WEIGHT[c] for c in kept) << 6 - 3 * row


def _masks_at_most():
    """Number of a mask -> its 16 entries, each a bit, the first the lowest."""
    table = np.zeros(_units(True), np.uint32)
    for rows in itertools.product(_choices(True), repeat=3):
        missing = [2 - f for f in _filled(*rows)]
        if min(missing) >= 0:
            number = sum(_number(r, row, True) for r, row in enumerate(rows))
            rows = (*rows, tuple(c for c in range(4) if missing[c]))
            table[number] = sum(1 << 4 * r + c for r, row in enumerate(rows) for c in set(row))
    return table


MASKS_AT_MOST = _masks_at_most()


class _Lines:
    """Straight-line code of sums and maxima of variables, exact (float64) or quick (int32)."""

    def __init__(self, quick):
        self.quick = quick
        self.lines = []

    def let(self, value):
        name = f"t{len(self.lines)}"
        self.lines.append(f"{name} = {value}")
        return name

    def add(self, first, *rest):
        for term in rest:
            first = f"int32({first} + {term})" if self.quick else f"({first} + {term})"
        return self.let(first)

    def best(self, ways, *, may_agree=False):
        """The largest of `ways`, in a tree. Ways that `may_agree` may be the same mask twice."""
        while len(ways) > 1:
            pairs = zip(ways[::2], ways[1::2], strict=False)
            won = [self._larger(a, b, may_agree) for a, b in pairs]
            ways = won + ways[2 * len(won) :]
        return ways[0]

    def _larger(self, a, b, may_agree):
        larger = self.let(f"max({a}, {b})")
        if self.quick:
            margin = f"uint32(abs(int32({a} - {b})))"
            if may_agree:  # a difference of 0 wraps round to the largest margin there is
                margin = f"uint32({margin} - uint32(1))"
            self.lines.append(f"margin = min(margin, {margin})")
        return larger


def _crossing(lines, r, a, b):
    """The better of a in row r and b in the next, either way round."""
    return lines.best([lines.add(f"y{r}{c}", f"y{r + 1}{d}") for c, d in ((a, b), (b, a))])


def _best_of_24(lines):
    """The best 1:4 mask."""
    totals = []
    for a, b in _choices(False):
        c, d = (k for k in range(4) if k not in (a, b))
        totals.append(lines.add(_crossing(lines, 0, a, b), _crossing(lines, 2, c, d)))
    return lines.best(totals)


def _best_of_90(lines):
    """The best exact 2:4 mask.

    What the top two rows keep of columns a and b, the bottom two keep of c and d, one column each
    way: p_ad pairs a full column of the top with one of the bottom. A mask is two such pairs, or one
    and a crossing x in either half, or (column sums 1111) crossings alone.
    """
    columns, pairs = range(4), _choices(False)
    s = {(r, c): lines.add(f"y{r}{c}", f"y{r + 1}{c}") for r in (0, 2) for c in columns}
    x = {(r, a, b): _crossing(lines, r, a, b) for r in (0, 2) for a, b in pairs}
    p = {(a, d): lines.add(s[0, a], s[2, d]) for a, d in itertools.permutations(columns, 2)}
    totals = []
    for a, b in pairs:
        c, d = (k for k in columns if k not in (a, b))
        totals.append(lines.add(p[a, c], p[b, d]))
        crossings = lines.add(x[0, c, d], x[2, c, d])
        totals.append(lines.add(lines.best([p[a, b], p[b, a]]), crossings))
    halves = []
    for r in (0, 2):
        ways = [lines.add(x[r, 0, 1], x[r, 2, 3]), lines.add(x[r, 0, 2], x[r, 1, 3])]
        halves.append(lines.best(ways, may_agree=True))
    return lines.best([*totals, lines.add(*halves)])


def _best_of_186(lines):
    """The best maximal 2:4 mask."""
    top, bottom = _best_of_types(lines, 0, 1), _best_of_types(lines, 2, 3)
    return lines.best(
        [lines.add(best, bottom[tuple(2 - f for f in filled)]) for filled, best in top.items()]
    )


def _best_of_types(lines, r, s):
    """The best of each type of rows r and s, one of which may keep an entry twice."""
    kept = {}
    for row, (k, (a, b)) in itertools.product((r, s), enumerate(_choices(True))):
        number = _number(row, (a, b), True) if row < 3 else 0
        if not lines.quick:
            # the offset keeps sums of eight scores of 2**40 within 53 bits
            number = number / _units(True) if row < 3 else -(2.0**42)
        entries = [f"y{row}{a}", f"y{row}{b}"] if a != b else [f"y{row}{a}"]
        kept[row, k] = lines.add(*entries, f"int32({number})" if lines.quick else repr(number))
    ways = _two_rows(True).items()
    return {f: lines.best([lines.add(kept[r, i], kept[s, j]) for i, j in w]) for f, w in ways}


def _best(n, at_most, quick):
    """Lines that set `best`, for values y00, y01, ... of a block's cells."""
    lines = _Lines(quick)
    two = _best_of_186 if at_most else _best_of_90
    best = two(lines) if n == 2 else _best_of_24(lines)
    return [*lines.lines, f"best = {best}"]


def _cell_numbers(doubles):
    """What each cell adds to the number of a mask that keeps it; rows do instead with `doubles`."""
    return {(r, c): 0 if doubles or r == 3 else _number(r, (c,), False) for r, c in _CELLS}


@inner
def bits_of_float32(score):
    return np.float32(score).view(np.int32)


#: Floats of 32 bits or fewer: dtype -> what turns an entry of the matrix, for 16-bit floats its bits,
#: into the bits of a float32, and how many significant bits it has.
_SHORT = {
    "float32": (bits_of_float32, 24),
    "float16": (bits_of_float16, 11),
    "bfloat16": (bits_of_bfloat16, 8),
}


def _load_integers():
    return [f"y{r}{c} = np.float64(w[{r}, k + c{c}])" for r, c in _CELLS]


def _load_bits():
    """b: the bits of the scores as float32, a: of their magnitudes; power: of 2**(e - 1).

    2**e is just above the largest |x|; where that is not finite, power is 0x7F800000.
    """
    yield from (f"b{r}{c} = bits_of(w[{r}, k + c{c}])" for r, c in _CELLS)
    yield from (f"a{r}{c} = int32(b{r}{c} & 0x7FFFFFFF)" for r, c in _CELLS)
    yield "a = a00"
    yield from (f"a = max(a, a{r}{c})" for r, c in _CELLS[1:])
    yield "power = int32(a & 0x7F800000)"


def _load_short(absolute):
    """The scores in 40-bit fixed point, from floats of 32 bits or fewer."""
    yield from _load_bits()
    yield "sound = power < 0x7F800000"
    yield "largest = np.float64(np.int32(a).view(np.float32))"
    size = "a" if absolute else "b"
    for r, c in _CELLS:
        yield f"y{r}{c} = np.float64(np.int32({size}{r}{c}).view(np.float32))"
    yield from _scale()


def _load_float64(absolute):
    """The scores in 40-bit fixed point, from float64."""
    for line in _load_integers():
        yield line.replace("= np", "= abs(np") + ")" if absolute else line
    sizes = [f"y{r}{c}" if absolute else f"abs(y{r}{c})" for r, c in _CELLS]
    yield "largest = " + functools.reduce(lambda a, b: f"max({a}, {b})", sizes)
    # neither NaN nor infinite: a maximum may lose sight of a NaN, a sum of zeros does not
    yield "whole = " + " + ".join(f"y{r}{c} * 0.0" for r, c in _CELLS)
    yield "sound = whole == 0.0"
    # a block so small that the factor would be out of range is lifted first
    yield "lift = 2.0**200 if largest < 2.0**-800 else 1.0"
    yield "largest = largest * lift"
    yield from (f"y{r}{c} = y{r}{c} * lift" for r, c in _CELLS)
    yield from _scale()


def _scale():
    """y = rint(x * 2**(40 - e)), where 2**e is just above the block's largest |x|."""
    yield "bits = np.float64(max(largest, 2.0**-900)).view(np.int64) & 0x7FF0000000000000"
    # these are 2**(e - 1): its exponent and that of the factor add up to 39, but for the bias; in
    # two terms, as one would not fit int64
    yield f"factor = np.int64(np.int64({2046 << 52}) - (bits - {39 << 52})).view(np.float64)"
    yield from (f"y{r}{c} = np.rint(y{r}{c} * factor)" for r, c in _CELLS)


def _exact_source(name, n, kind, absolute, at_most):
    """Source of ``name(w, first, count, numbers)`` in float64; see `_numbers_kernel`."""
    doubles = _doubles(n, at_most)
    if kind == "int64":
        body = ["sound = True", *_load_integers()]
    else:
        body = [*(_load_float64(absolute) if kind == "float64" else _load_short(absolute))]
    if at_most and not absolute:
        body += [f"y{r}{c} = max(y{r}{c}, 0.0)" for r, c in _CELLS]
    sign = "-" if n == 3 else ""
    for (r, c), number in _cell_numbers(doubles).items():
        body.append(f"y{r}{c} = {sign}y{r}{c} + {number / _units(doubles)!r}")
    body = "\n        ".join([*body, *_best(n, at_most, quick=False)])
    return f"""
def {name}(w, first, count, numbers):
    apart()
    use_widest()
    for l in range(count):
        k = np.uint64(4 * (first + l))
        {body}
        number = (best - np.floor(best)) * {_units(doubles)}.0
        numbers[np.uint64(l)] = np.int32(number if sound else {UNSOUND}.0)
"""


def _quick_source(name, n, kind, absolute, at_most):
    """Source of ``name(w, first, count, numbers)`` in int32; see `_numbers_kernel`.

    With 2**e just above the block's largest |x|, y = x * 2**(28 - e), cut to an integer and, by
    the bits that the number takes, down to a unit of 2**9 or 2**10: less than one unit is lost, and
    of a negative score less than 1 gained. So of two masks
    of eight entries at most, one that leads by 9 units before the numbers, by 10 with them, leads
    in the exact scores. Sums of eight stay within 32 bits; a difference of two may wrap round,
    but not from a wide one to a narrow one.

    Where no score is cut at all no margin is needed: so it is with scores of few significant
    bits, unless a score other than 0 is much smaller than the largest.
    """
    doubles = _doubles(n, at_most)
    units = _units(doubles)
    body = [*_load_bits()]
    # the exponents of factor and 2**(e - 1) add up to 27, but for the bias; factor is to be finite
    body.append(f"factor = int32(int64({254 + 27 << 23}) - max(power, least)).view(np.float32)")
    if n == 3:
        body.append("factor = -factor")
    size = "a" if absolute else "b"
    for (r, c), number in _cell_numbers(doubles).items():
        scaled = f"int32(np.int32({size}{r}{c}).view(np.float32) * factor)"
        body.append(f"y{r}{c} = int32(int32({scaled} & {-units}) | {number})")
    body += _best(n, at_most, quick=True)
    unsure = f"margin < uint32({10 * units})"
    bits_cut = _SHORT[kind][1] - (28 - units.bit_length() + 1)
    if bits_cut <= 0:
        # of zeros, too: a magnitude's bits less 1, so that a zero wraps round to the largest
        body.append("smallest = uint32(0xFFFFFFFF)")
        body += [
            f"smallest = min(smallest, uint32(uint32(a{r}{c}) - uint32(1)))" for r, c in _CELLS
        ]
        unsure = f"{unsure} and int64(smallest) < int64(power) - {-bits_cut << 23}"
    body = "\n        ".join(body)
    return f"""
def {name}(w, first, count, numbers):
    apart()
    use_widest()
    for l in range(count):
        k = np.uint64(4 * (first + l))
        margin = uint32(0xFFFFFFFF)
        {body}
        number = int32(best & {units - 1})
        if power == 0x7F800000:
            number = int32({UNSOUND})
        elif power < least or ({unsure}):
            number = int32({DOUBT})
        numbers[np.uint64(l)] = number
"""


def _entries(kind):
    """What a matrix of scores holds; of 16-bit floats, their bits."""
    wide = {"float64": types.float64, "int64": types.int64, "float32": types.float32}
    return types.Array(wide.get(kind, types.uint16), 2, "C", readonly=True)


@functools.cache
def _numbers_kernel(n, kind, absolute, at_most, quick):
    """Make ``kernel(w, first, count, numbers)``: the number of the best mask of each block of a row.

    A block with a score that is not finite gets UNSOUND instead, one that a `quick` kernel
    cannot decide gets DOUBT.
    """
    way = f"{'_quick' * quick}{'_absolute' * absolute}{'_at_most' * at_most}"
    name = f"_numbers_{n}_{kind}{way}"
    source = (_quick_source if quick else _exact_source)(name, n, kind, absolute, at_most)
    scope = {"np": np, "int32": np.int32, "uint32": np.uint32, "int64": np.int64}
    # of blocks smaller than 2**-100 the quick kernel has no opinion
    scope |= {
        "__name__": __name__,
        "apart": apart,
        "use_widest": use_widest,
        "least": np.int32(27 << 23),
    }
    # unsigned: no wrap-around for LLVM to rule out
    scope |= {f"c{c}": np.uint64(c) for c in range(4)}
    if kind in _SHORT:
        scope["bits_of"] = _SHORT[kind][0]
    return compiled(source, name, __file__, scope, _numbers_signature(_entries(kind)))


def _numbers_signature(entries):
    return types.void(entries, types.int64, types.int64, types.int32[::1])


WRITE = types.void(types.int32[::1], types.uint32[:, ::1])

call_numbers = caller(lambda entries, *_: _numbers_signature(entries))
call_write = caller(WRITE)


def _full_writer(n):
    kept, left_out = np.uint32(2 if n == 2 else 1), np.uint32(0x01010101 if n == 3 else 0)

    def _write_full(numbers, rows):
        """Masks of n a row, each row of a block as four bytes in one word.

        A row's number is three bits: whether it keeps columns 1, 2, 3. Column 0 makes up its sum,
        as the last row makes up those of the columns. (For 3:4 all that is of what is left out.)
        """
        one, two, ones = np.uint32(1), np.uint32(2), np.uint32(0x01010101)
        for l in range(len(numbers)):
            number, left = np.uint32(numbers[l]), kept * ones
            for row in range(3):
                bits = number >> np.uint32(6 - 3 * row)
                b, c, d = bits & one, bits >> one & one, bits >> two & one
                first = kept - (b + c + d)
                word = first | b << np.uint32(8) | c << np.uint32(16) | d << np.uint32(24)
                rows[row, l] = word ^ left_out
                left -= word
            rows[3, l] = left ^ left_out

    return _write_full


def _write_maximal(numbers, rows):
    """Maximal 2:4 masks, looked up by their numbers: one look for a mask, and each row's bits to bytes."""
    masks, ones = MASKS_AT_MOST, np.uint32(0x01010101)
    for l in range(len(numbers)):
        mask = masks[np.uint32(numbers[l])]
        for row in range(4):
            bits = mask >> np.uint32(4 * row) & np.uint32(15)
            rows[row, l] = (
                bits | bits << np.uint32(7) | bits << np.uint32(14) | bits << np.uint32(21)
            ) & ones


@inner
def _settle(w, exact, first, numbers, doubtful, places, found):
    """Replace every DOUBT by the exact kernel's number; how many there were, or -1 if UNSOUND.

    `doubtful`, `places`, `found`: scratch for as many blocks as there are.
    """
    doubts = 0
    for l in range(len(numbers)):
        if numbers[l] == UNSOUND:
            return -1
        if numbers[l] == DOUBT:
            places[doubts] = l
            doubts += 1
    for d in range(doubts):
        for r in range(4):
            for c in range(4):
                doubtful[r, 4 * d + c] = w[r, 4 * (first + places[d]) + c]
    call_numbers(exact, (doubtful, 0, doubts, found))
    for d in range(doubts):
        numbers[places[d]] = found[d]
    return doubts


def _band(W, quick, exact, write, mask):
    blocks = W.shape[1] // 4
    numbers, found, places = (
        np.empty(blocks, np.int32),
        np.empty(CHUNK, np.int32),
        np.empty(CHUNK, np.int32),
    )
    doubtful = np.zeros((4, 4 * CHUNK), W.dtype)
    words = mask.view(np.uint32)
    wary = 0
    for top in range(0, W.shape[0], 4):
        w = W[top : top + 4]
        for first in range(0, blocks, CHUNK):
            count = min(CHUNK, blocks - first)
            chunk = numbers[first : first + count]
            if wary > 0:
                call_numbers(exact, (w, first, count, chunk))
                wary -= 1
            else:
                call_numbers(quick, (w, first, count, chunk))
            marks = np.int32(0)
            for l in range(count):
                marks |= chunk[l]
            if marks < 0:
                doubts = _settle(w, exact, first, chunk, doubtful, places, found)
                if doubts < 0:
                    return False
                if 4 * doubts > count:
                    wary = WARY
        call_write(write, (numbers, words[top : top + 4]))
    return True


@functools.cache
def _engine(kind):
    mask = types.Array(types.boolean, 2, "C")
    return jit(_band, types.boolean(_entries(kind), POINTER, POINTER, POINTER, mask))


@functools.cache
def _writer(n, at_most):
    return inner(_write_maximal if _doubles(n, at_most) else _full_writer(n), WRITE)


@once
def _kernels(n, kind, absolute, at_most):
    """The engine for a kind of scores, and the addresses of the kernels that it needs."""
    quick = exact = _numbers_kernel(n, kind, absolute, at_most, quick=False)
    # signed scores, clipped at zero, would tie and be in doubt
    if kind in _SHORT and (absolute or not at_most):
        quick = _numbers_kernel(n, kind, absolute, at_most, quick=True)
    engine, write = _engine(kind), _writer(n, at_most)
    numbers = _numbers_signature(_entries(kind))
    return engine, (address(quick, numbers), address(exact, numbers), address(write, WRITE))


def solve_band(W, n, mask, *, absolute=True, at_most=False):
    """Find the best n:4 mask of every block of the matrix W; False if a score is not finite.

    n: one that the module `does`. W: float16, bfloat16, float32 or float64 scores, sides multiples of 4; or int64 with
    |q| <= 2**40, taken as they are. W and the boolean `mask` are C-contiguous. With `at_most`, a
    mask may hold negative scores as if they were zeros.
    """
    kind = W.dtype.name
    absolute = absolute and kind != "int64"
    engine, kernels = _kernels(n, kind, absolute, at_most)
    entries = W.view(np.uint16) if W.dtype.itemsize == 2 else W
    return engine(entries, *kernels, mask)


def solve_blocks(q, n, mask, *, at_most=False):
    """Find the best n:4 masks of int64 blocks (B, 4, 4), any strides; see `solve_band`."""
    side_by_side = np.empty((4, 4 * len(q)), np.bool_)
    rows = np.ascontiguousarray(q.transpose(1, 0, 2)).reshape(4, -1)
    solve_band(rows, n, side_by_side, at_most=at_most)
    mask[:] = side_by_side.reshape(4, -1, 4).transpose(1, 0, 2)
