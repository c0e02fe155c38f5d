"""How many masks a constraint allows: exact integers, an estimate, and uniform samples.

A mask is built row by row, and only how many columns hold how many entries matters, not which: a
*state* is the number of columns at each level. All states of a layer take a row at once, level by
level. Rows of given sums reach few of the states, which are kept by key, in NumPy; rows of up to n
entries reach all of them, which are kept by rank, in Numba. Counts are exact: integers in limbs.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, combinations, combinations_with_replacement
from math import comb, factorial, lgamma, log
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .errors import OptionError, ShapeError, TooLargeError
from .pattern import Degree, Pattern, as_integer, check_degree
from .tiling import Remainder, make_tiling

__all__ = [
    "Diversity",
    "Kind",
    "MaskEstimate",
    "count_masks",
    "count_masks_hubara",
    "count_matrices",
    "count_maximal_masks",
    "enumerate_masks",
    "estimate_masks",
    "mask_diversity",
    "sample_mask",
]

#: What is constrained: rows and columns of every block, rows alone, or only how many are kept.
Kind = Literal["transposable", "rows", "unstructured"]
_KINDS = ("transposable", "rows", "unstructured")

_Array = NDArray[np.int64]

# Limbs of all states of all layers: near it a count takes up to half a minute and 2 GiB.
_MOST_WORK = 6_000_000
# For lines of up to n, words of a layer and words added up: near them 10 seconds and 1.5 GiB.
_MOST_WORDS = 150_000_000
_MOST_ADDED = 10_000_000_000
# Sizes of a tensor, and sums of a line: larger ones are a slip of the pen.
_MOST_SIZE = 2**62
# Digits, and entries of a free choice, that are still written down.
_MOST_DIGITS = 20_000_000
_MOST_ENTRIES = 1_000_000
# Masks that are listed, and from which edge on there are more: at least m! unless n is 0 or m.
_MOST_LISTED = 1_000_000
_LISTED_M = 9
# States whose counts become Python's integers at a time.
_CHUNK = 1 << 16


def count_masks(n: int, m: int, *, kind: Kind = "transposable", degree: Degree = "exact") -> int:
    r"""Count the n:m masks of one m×m block.

    Parameters
    ----------
    n, m : int
        Entries kept, of how many.
    kind : {"transposable", "rows", "unstructured"}
        Rows and columns keep n; rows alone do, :math:`\binom{m}{n}^m` masks; or the block keeps
        n·m entries anywhere, :math:`\binom{m^2}{nm}` masks.
    degree : {"exact", "at_most"}
        Exactly n, or no more (unstructured: no more than n·m).

    Returns
    -------
    int
        For transposable, exact masks: the number of m×m 0/1 matrices whose line sums all equal
        n (OEIS A008300; the central case ``m = 2n`` is A058527).

    Raises
    ------
    TooLargeError
        The count would take minutes; `estimate_masks` has no such limit. Counts of either
        degree reach every n at m = 16 and beyond.

    Notes
    -----
    The first half of the rows leaves c_j entries in column j in f(c) ways, and the second half
    has to add n - c_j to each, or no more than that; so the count is a sum over c of a product.
    Order of columns does not matter to f, which keeps the states few.

    Examples
    --------
    >>> count_masks(2, 4), count_masks(4, 8), count_masks(2, 4, kind="rows")
    (90, 116963796250, 1296)
    >>> count_masks(2, 4, degree="at_most")
    7343
    """
    pattern, degree = Pattern(n, m), check_degree(degree)
    return _count_block(pattern.n, pattern.m, pattern.m, pattern.m, _check_kind(kind), degree)


def count_matrices(row_sums: Sequence[int], column_sums: Sequence[int]) -> int:
    """Count the 0/1 matrices with given row and column sums.

    Raises
    ------
    OptionError
        A sum is not an integer of 0 or more.
    TooLargeError
        The count would go through too many states.

    Examples
    --------
    >>> count_matrices([2, 2, 1], [2, 2, 1])
    5
    >>> count_matrices([2] * 4, [2] * 4) == count_masks(2, 4)
    True
    """
    rows, columns = _check_sums("row_sums", row_sums), _check_sums("column_sums", column_sums)
    if sum(rows) != sum(columns):
        return 0
    rows, columns = [r for r in rows if r], [c for c in columns if c]
    if not rows:
        return 1
    if max(rows) > len(columns) or max(columns) > len(rows):
        return 0
    if 2 * sum(rows) > len(rows) * len(columns):  # as many matrices have zeros there
        return count_matrices([len(columns) - r for r in rows], [len(rows) - c for c in columns])
    # Either the rows are taken by the columns, or the other way round: what goes through less.
    ways = []
    for these, others in ((rows, columns), (columns, rows)):
        counter = _Counter(len(others), max(others), max(these), _bits(these, len(others)))
        ways.append((counter.work(_states_between(these, others)), these, others, counter))
    _, rows, columns, counter = min(ways, key=lambda way: way[0])
    counter.check(_states_between(rows, columns), "these sums")
    cap, left = max(columns), len(rows)
    # A column that needs k is at level cap - k, and all are to reach the cap.
    layer = counter.start([columns.count(cap - level) for level in range(cap + 1)])
    for row in sorted(rows, reverse=True):
        left -= 1
        layer = counter.keep(counter.take_row(layer, row, row), cap - left)
    return counter.total(layer)


def _bits(rows: list[int], columns: int) -> float:
    """Bits of the number of ways to fill all rows, whatever the columns hold."""
    return sum(rows.count(row) * _log_comb(columns, row) for row in set(rows)) / log(2)


def _states_between(rows: list[int], columns: list[int]) -> int:
    """Bound the states when rows are taken one by one: what columns then need adds up to the rest."""
    size, cap = len(columns), max(columns)
    if _ways(size, cap) > 1 << 40:  # so many that even their number takes long to find
        return _ways(size, cap)
    needs, rest = _partitions(size, cap), sum(rows)
    states = 0
    for row in sorted(rows, reverse=True):
        rest -= row
        states += needs[rest]
    return states


def count_maximal_masks(n: int, m: int) -> int:
    """Count the ``at_most`` n:m masks of a block to which no entry can be added.

    In a maximal mask the rows R and columns C that keep fewer than n meet in kept entries
    only (else one could be added), so neither set has n or more members. Sum over their
    sizes.

    Raises
    ------
    TooLargeError
        The sum would take minutes.

    Examples
    --------
    >>> count_maximal_masks(2, 4)
    186
    """
    pattern = Pattern(n, m)
    n, m = pattern.n, pattern.m
    if n in (0, m):
        return 1
    if n == 1:  # a maximal matching of the complete graph is perfect
        return factorial(m)
    what, states = f"the maximal {n}:{m} masks", 0
    if _ways(m, n) > 1 << 40:  # so many that even their number takes long to find
        _maximal_counter(n, m, 0, 0).check(_ways(m, n), what)
    # As many have r such rows and c such columns as the other way round.
    parts = []
    for c, r in combinations_with_replacement(range(n), 2):
        counter = _maximal_counter(n, m, r, c)
        states += _maximal_states(n, m, r, c)
        counter.check(states, what)
        parts.append((r, c, counter))
    return sum(
        (1 if r == c else 2) * comb(m, r) * comb(m, c) * _count_maximal(n, m, r, c, counter)
        for r, c, counter in parts
    )


def _maximal_counter(n: int, m: int, r: int, c: int) -> _Counter:
    """Levels 0 to n of full columns, then, if there are any, 0 to n - 1 - r of the c others."""
    bits = _bits([n] * (m - r), m) + r * math.log2(sum(comb(m - c, k) for k in range(n - c)))
    return _Counter(m, n + (n - r if c else 0), n, bits)


def _count_maximal(n: int, m: int, r: int, c: int, counter: _Counter) -> int:
    """Count the maximal masks in which the first r rows and c columns, and no others, lack entries."""
    full = range(n - 1, -1, -1)
    both = [*full, *range(counter.cap - 1, n, -1)]
    levels = [m - c] + [0] * counter.cap
    if c:
        levels[n + 1] = c
    layer = counter.start(levels)
    for row in range(m):
        if row < r:
            layer = counter.take_row(layer, 0, n - 1 - c, full)
        else:
            layer = counter.take_row(layer, n, n, both)
        layer = counter.keep(layer, n - (m - 1 - row))
    return counter.total(layer)


def _maximal_states(n: int, m: int, r: int, c: int) -> int:
    """Bound the states of all layers of `_count_maximal`: those of a fitting number of entries."""
    states = 0
    for row in range(1, m + 1):
        lowest, low = max(n - (m - row), 0), n * max(row - r, 0)
        high = low + min(row, r) * (n - 1 - c)
        full = _partitions(m - c, min(n, row) - lowest)
        others = _partitions(c, max(min(n - 1 - r, row - r), 0))
        sizes = np.convolve(full, others)
        shift = lowest * (m - c)
        states += int(sizes[max(low - shift, 0) : max(high - shift + 1, 0)].sum())
    return states


def count_masks_hubara(n: int, m: int) -> int:
    r"""Evaluate the published formula for the transposable masks of a block.

    .. math:: m! \, (m-1)! \cdots (m-n+1)!

    Notes
    -----
    I. Hubara et al., *Accelerated Sparse Neural Training*, NeurIPS 2021. It is right for n = 1 and
    counts too many for n >= 2: as if a mask were made of n permutations in one way only, which it
    is not. 144 for 2:4, where there are 90.

    Examples
    --------
    >>> count_masks_hubara(1, 4), count_masks_hubara(2, 4)
    (24, 144)
    """
    pattern = Pattern(n, m)
    return math.prod(factorial(pattern.m - i) for i in range(pattern.n))


class MaskEstimate(NamedTuple):
    """An estimated number of masks.

    Parameters
    ----------
    log10 : float
        Its decimal logarithm.
    value : float
        The number; infinite if a float cannot hold it.
    """

    log10: float
    value: float

    @property
    def log2(self) -> float:
        """Its binary logarithm: bits of freedom."""
        return self.log10 * log(10, 2)


def estimate_masks(n: int, m: int) -> MaskEstimate:
    r"""Estimate the number of transposable n:m masks of a block, for sizes no count reaches.

    .. math:: N \approx \binom{m}{n}^{2m} \binom{m^2}{nm}^{-1} e^{-1/2}

    Notes
    -----
    E. R. Canfield, C. Greenhill, B. D. McKay, *Asymptotic enumeration of dense 0-1 matrices with
    specified line sums*, J. Combin. Theory Ser. A 115 (2008). Against all exact counts up to
    m = 16 its error is -19 % at 1:2, -12 % at 2:4, -6 % at 4:8, -3 % at 8:16, and never above 0.

    Examples
    --------
    >>> estimate = estimate_masks(8, 16)
    >>> round(estimate.value / count_masks(8, 16), 3)
    0.97
    >>> round(estimate_masks(32, 64).log10, 1)
    1106.3
    """
    pattern = Pattern(n, m)
    n, m = pattern.n, pattern.m
    exponent = 0.0
    if 0 < n < m:
        exponent = (2 * m * _log_comb(m, n) - _log_comb(m * m, n * m) - 0.5) / log(10)
    return MaskEstimate(exponent, 10.0**exponent if exponent < 308 else math.inf)


@dataclass(frozen=True)
class Diversity:
    """The number of masks of a whole tensor.

    Parameters
    ----------
    factors : tuple of (int, int)
        Numbers of masks of a part, and how many such parts there are.
    choice : (int, int)
        Entries of which some are chosen freely, and how many of them.
    """

    factors: tuple[tuple[int, int], ...]
    choice: tuple[int, int] = (0, 0)

    @property
    def count(self) -> int:
        """The number itself, exactly; a large tensor's has millions of digits.

        Raises
        ------
        TooLargeError
            It has so many digits that it would take minutes; `log10` does not.
        """
        if self.log10 > _MOST_DIGITS or self.choice[0] > _MOST_ENTRIES:
            raise TooLargeError(
                f"a number of {self.log10:.4g} digits takes too long to write down; log10 is its "
                f"logarithm, and factors and choice make it up exactly"
            )
        whole = math.prod(masks**parts for masks, parts in self.factors)
        return int(whole * comb(*self.choice))

    @property
    def log10(self) -> float:
        """Decimal logarithm of the number."""
        parts = [math.log10(masks) * parts for masks, parts in self.factors]
        size, kept = self.choice
        chosen = math.log10(comb(size, kept)) if size < 1000 else _log_comb(size, kept) / log(10)
        return math.fsum([*parts, chosen])

    @property
    def log2(self) -> float:
        """Binary logarithm of the number: bits of freedom."""
        return self.log10 * log(10, 2)


def mask_diversity(
    shape: Sequence[int],
    n: int,
    m: int,
    *,
    kind: Kind = "transposable",
    degree: Degree = "exact",
    axes: tuple[int, int] = (-2, -1),
    remainder: Remainder = "pad",
) -> Diversity:
    """Count the n:m masks of a tensor.

    A block that a ragged edge cuts short counts as `masksolve.check_mask` has it: its masks are
    those parts of n:m masks of a whole block that lie within the tensor.

    Parameters
    ----------
    shape : sequence of int
        Shape of the tensor.
    n, m, kind, degree
        As in `count_masks`. Rows run along the second of `axes`. Unstructured: as many entries
        as n/m of all, rounded down.
    axes, remainder
        As in `masksolve.find_mask`.

    Examples
    --------
    >>> mask_diversity((8, 8), 2, 4).count == 90**4
    True
    >>> round(mask_diversity((4096, 4096), 8, 16).log10)
    3639983
    """
    pattern, degree, kind = Pattern(n, m), check_degree(degree), _check_kind(kind)
    n, m = pattern.n, pattern.m
    tiling = make_tiling(_check_shape(shape), m, axes=axes, remainder=remainder)
    if kind == "unstructured":
        size = math.prod(tiling.shape)
        kept = size * n // m
        if degree == "exact":
            return Diversity((), (size, kept))
        return Diversity(((_count_choices(size, 0, kept), 1),))
    matrices = math.prod(tiling.batch_shape)
    rows, columns = tiling.matrix_shape
    factors = []
    for height, down in ((m, rows // m), (rows % m, 1)):
        for width, across in ((m, columns // m), (columns % m, 1)):
            parts = matrices * down * across
            if height and width and parts:
                factors.append((_count_block(n, m, height, width, kind, degree), parts))
    return Diversity(tuple(factors))


def enumerate_masks(
    n: int, m: int, *, degree: Degree = "exact", maximal: bool = False
) -> NDArray[np.bool_]:
    """List all transposable n:m masks of a block.

    Parameters
    ----------
    n, m : int
        The pattern; entries kept, of how many.
    degree : {"exact", "at_most"}
        Exactly n in every row and column, or no more.
    maximal : bool
        Of the ``at_most`` masks only those to which no entry can be added. The best mask of
        scores of 0 or more is one of them. Of ``exact`` masks that is every one.

    Returns
    -------
    (B, m, m) bool array
        In lexicographic order: read row by row, False before True. As many as `count_masks`
        or `count_maximal_masks` says.

    Raises
    ------
    TooLargeError
        There are more than a million; the message says how many.

    Notes
    -----
    Row by row, all beginnings at once: a row is added where no column then exceeds n, and
    where those that have to reach n still can. With `maximal` these are the columns that a
    row of fewer than n entries leaves out. For ``exact`` every such beginning has an end, since
    balanced margins can always be met (Gale and Ryser).

    Examples
    --------
    >>> enumerate_masks(1, 2).astype(int).tolist()
    [[[0, 1], [1, 0]], [[1, 0], [0, 1]]]
    >>> enumerate_masks(2, 4).shape, enumerate_masks(2, 4, degree="at_most", maximal=True).shape
    ((90, 4, 4), (186, 4, 4))
    """
    pattern, degree = Pattern(n, m), check_degree(degree)
    n, m = pattern.n, pattern.m
    if maximal and n in (0, m):  # all or nothing
        degree = "exact"
    maximal = bool(maximal) and degree == "at_most"
    _check_listable(pattern, degree, maximal)
    sizes = [n] if degree == "exact" else range(n + 1)
    kept = [columns for size in sizes for columns in combinations(range(m), size)]
    rows = np.array([np.isin(np.arange(m), columns) for columns in kept])
    rows = rows[np.lexsort(rows.T[::-1])]
    left_out = ~rows & (rows.sum(axis=1) < n)[:, None] & maximal
    # Beginnings: which rows they have, the sums of their columns, and which of those must fill.
    chosen = np.zeros((1, 0), dtype=np.intp)
    sums = np.zeros((1, m), dtype=np.int16)
    full = np.full((1, m), degree == "exact")
    for left in range(m - 1, -1, -1):
        after, must = sums[:, None] + rows, full[:, None] | left_out
        lack = np.where(must, n - after, 0)
        fits = (after <= n).all(axis=2) & (lack <= left).all(axis=2)
        fits &= lack.sum(axis=2) <= n * left
        begun, row = np.nonzero(fits)
        chosen = np.column_stack([chosen[begun], row])
        sums, full = after[fits], must[fits]
    return np.asarray(rows[chosen])


def _check_listable(pattern: Pattern, degree: Degree, maximal: bool) -> None:
    n, m = pattern.n, pattern.m
    if m > _LISTED_M and 0 < n < m:
        digits = estimate_masks(n, m).log10
        amount = f"more than 1e{math.floor(digits)}"  # the estimate is a little low
    else:
        count = count_maximal_masks(n, m) if maximal else count_masks(n, m, degree=degree)
        if count <= _MOST_LISTED:
            return
        amount = str(count) if count < 10**20 else f"about 1e{math.log10(count):.0f}"
    raise TooLargeError(
        f"there are {amount} {'maximal ' * maximal}{pattern} masks ({degree}), more than the "
        f"{_MOST_LISTED} that are listed; masksolve.diversity.sample_mask draws one of exactly n"
    )


def sample_mask(n: int, m: int, rng: np.random.Generator | int | None = None) -> NDArray[np.bool_]:
    """Draw one of the transposable n:m masks of a block, all equally likely.

    Row by row: each way for a row to take its entries is drawn with the number of masks that go
    on from there as its weight, in exact integers.

    Parameters
    ----------
    n, m : int
        The pattern; entries kept, of how many.
    rng : Generator, int or None
        NumPy's random generator, a seed for one, or None for a fresh one.

    Returns
    -------
    (m, m) bool array

    Raises
    ------
    OptionError
        `rng` is none of these.
    TooLargeError
        The masks are too many to count.

    Examples
    --------
    >>> mask = sample_mask(2, 4, rng=0)
    >>> mask.sum(axis=0).tolist(), mask.sum(axis=1).tolist()
    ([2, 2, 2, 2], [2, 2, 2, 2])
    """
    pattern, rng = Pattern(n, m), _check_rng(rng)
    n, m = pattern.n, pattern.m
    if 2 * n > m:
        return ~sample_mask(m - n, m, rng)
    mask = np.zeros((m, m), dtype=np.bool_)
    if n == 0:
        return mask
    need = np.full(m, n)
    for row in range(m):
        levels = tuple(int(count) for count in np.bincount(need, minlength=n + 1))
        totals, choices = _next_rows(n, m, m - row, levels)
        drawn = _below(totals[-1], rng)
        takes = choices[next(i for i, total in enumerate(totals) if drawn < total)]
        for level, count in enumerate(takes):
            if count:
                mask[row, rng.choice(np.flatnonzero(need == level), count, replace=False)] = True
        need -= mask[row]
    return mask


def _below(limit: int, rng: np.random.Generator) -> int:
    """Draw a uniform integer below `limit`, of any size."""
    bits = limit.bit_length()
    while True:
        drawn = int.from_bytes(rng.bytes(-(-bits // 8)), "little") >> (-bits % 8)
        if drawn < limit:
            return drawn


@lru_cache(maxsize=4096)
def _next_rows(
    n: int, m: int, rows: int, levels: tuple[int, ...]
) -> tuple[list[int], list[tuple[int, ...]]]:
    """Ways of the next of `rows` rows, by how many columns of each need it takes: running weights.

    levels[k]: columns that need k more entries.
    """
    after = _ways_to_fill(n, m)[rows - 1]
    weights, choices = [], []
    for takes in _compositions(levels, n):
        key, ways = 0, 1
        for k, count in enumerate(levels):
            gained = takes[k + 1] if k < n else 0
            key += (count - takes[k] + gained) * (m + 1) ** k
            ways *= comb(count, takes[k])
        if key in after:
            weights.append(ways * after[key])
            choices.append(takes)
    return list(accumulate(weights)), choices


def _compositions(levels: tuple[int, ...], n: int) -> list[tuple[int, ...]]:
    """Ways to take n columns, none that needs nothing: how many of each level."""
    found: list[tuple[int, ...]] = [(0,)]
    for k, count in enumerate(levels[1:], start=1):
        rest = sum(levels[k + 1 :])
        found = [
            (*takes, t)
            for takes in found
            for t in range(min(count, n - sum(takes)) + 1)
            if sum(takes) + t + rest >= n
        ]
    return found


@lru_cache(maxsize=8)
def _ways_to_fill(n: int, m: int) -> list[dict[int, int]]:
    """Of each number of rows and of each state, the ways for columns to get what they need.

    Keys as in `_Counter`, by need. Rows that fill up are rows that were taken, backwards.
    """
    counter = _regular_counter(n, m, m - 1)
    layers = []
    for layer in _regular_layers(counter, n, m, m - 1):
        orders = [_orders(digits) for digits in counter.digits(layer.keys).tolist()]
        ways = (counter.number(limbs) for limbs in layer.ways)
        keys = layer.keys.tolist()
        layers.append({k: w // o for k, w, o in zip(keys, ways, orders, strict=True)})
    return layers


def _check_kind(kind: str) -> Kind:
    if not isinstance(kind, str) or kind not in _KINDS:
        raise OptionError(f"kind must be one of {', '.join(map(repr, _KINDS))}, got {kind!r}")
    return kind  # type: ignore[return-value]  # is one of them


def _check_rng(rng: np.random.Generator | int | None) -> np.random.Generator:
    if rng is None or isinstance(rng, np.random.Generator):
        return np.random.default_rng(rng)
    seed = as_integer(rng)
    if seed is None or seed < 0:
        raise OptionError(f"rng must be a Generator, an integer of 0 or more or None, got {rng!r}")
    return np.random.default_rng(seed)


def _as_sizes(values: object) -> list[int] | None:
    """Return integers from 0 to `_MOST_SIZE` as such, or None if they are something else."""
    if not isinstance(values, Iterable) or (isinstance(values, np.ndarray) and values.ndim == 0):
        return None
    found = []
    for value in values:
        size = as_integer(value)
        if size is None or not 0 <= size <= _MOST_SIZE:
            return None
        found.append(size)
    return found


def _check_shape(shape: Sequence[int]) -> tuple[int, ...]:
    sizes = _as_sizes(shape)
    if sizes is None:
        raise ShapeError(f"shape must be integers from 0 to 2**62, got {_short(shape)}")
    if len(sizes) < 2:
        raise ShapeError(f"shape must have at least 2 dimensions, got {_short(shape)}")
    return tuple(sizes)


def _check_sums(name: str, sums: Sequence[int]) -> list[int]:
    found = _as_sizes(sums)
    if found is None:
        raise OptionError(f"{name} must be integers of 0 or more, got {_short(sums)}")
    return found


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 100 else f"{text[:60]} ... {text[-20:]}"


def _log_comb(a: int, b: int) -> float:
    return lgamma(a + 1) - lgamma(b + 1) - lgamma(a - b + 1)


def _too_large(what: str, reason: str) -> TooLargeError:
    return TooLargeError(
        f"an exact count for {what} would {reason}; for whole n:m blocks of exactly n, "
        f"masksolve.diversity.estimate_masks(n, m) gives an estimate"
    )


def _too_many(what: str, states: int, bits: float) -> TooLargeError:
    size = f"about {states:.2g}" if states < 10**300 else "more than 1e300"
    return _too_large(
        what, f"go through {size} states with numbers of some {bits:.2g} bits, too many"
    )


def _orders(counts: Iterable[int]) -> int:
    """Ways to put columns in order, given how many of them are alike."""
    ways, total = 1, 0
    for count in counts:
        total += count
        ways *= comb(total, count)
    return ways


def _ways(columns: int, cap: int) -> int:
    """Count all states: columns at levels 0 to cap."""
    return comb(columns + cap, cap)


@lru_cache(maxsize=1024)
def _count_block(n: int, m: int, rows: int, columns: int, kind: Kind, degree: Degree) -> int:
    """Count the masks of the upper left rows × columns of a block."""
    least = max(n - (m - columns), 0) if degree == "exact" else 0
    if kind == "rows":
        ways = sum(comb(columns, k) for k in range(least, min(n, columns) + 1))
        return int(ways**rows)
    if kind == "unstructured":
        kept = rows * columns * n // m
        first = kept if degree == "exact" else 0
        return _count_choices(rows * columns, first, kept)
    rows, columns = sorted((rows, columns))
    if degree == "exact":
        n = min(n, m - n)  # as many masks have zeros there
    # A part so small can be filled up from outside, whatever its lines of up to n hold.
    if degree == "at_most" or columns + max(n, rows) <= m:
        return _count_loose(n, m, rows, columns)
    return _count_regular(n, m) if rows == m else _count_corner(n, m, rows, columns)


def _count_choices(size: int, first: int, last: int) -> int:
    """Ways to choose `first` to `last` of `size` entries."""
    if last > first and size > _MOST_ENTRIES // 100:
        raise TooLargeError(
            f"the ways to keep at most {last} of {size} entries are added up only to "
            f'{_MOST_ENTRIES // 100} entries; degree="exact" gives their largest term'
        )
    term = total = comb(size, first)
    for k in range(first, last):
        term = term * (size - k) // (k + 1)
        total += term
    return total


def _regular_counter(n: int, m: int, rows: int) -> _Counter:
    counter = _Counter(m, n, n, _bits([n] * rows, m))
    if _ways(m, n) > 1 << 40:  # so many that even their number takes long to find
        counter.check(_ways(m, n), f"{n}:{m}")
    states = sum(
        _partitions(m, min(r, n))[r * n] for r in range(rows + 1) if r * n <= m * min(r, n)
    )
    counter.check(states, f"{n}:{m}")
    return counter


def _regular_layers(counter: _Counter, n: int, m: int, rows: int) -> Iterator[_Layer]:
    """Yield the layers after 0, 1, ... rows of n entries."""
    layer = counter.start([m] + [0] * n)
    yield layer
    for _ in range(rows):
        layer = counter.take_row(layer, n, n)
        yield layer


def _count_regular(n: int, m: int) -> int:
    """Count the m×m matrices of line sum n: what half of the rows leaves, the other half adds."""
    if n == 0:
        return 1
    half = m // 2
    counter = _regular_counter(n, m, m - half)
    *_, top, bottom = deque(_regular_layers(counter, n, m, m - half), maxlen=2)
    if m % 2 == 0:
        top = bottom
    digits = counter.digits(top.keys)
    # Columns that hold k after the first rows need n - k: the levels the other way round.
    powers = counter.base ** np.arange(n + 1, dtype=np.int64)
    wanted = digits[:, ::-1] @ powers
    places = np.minimum(np.searchsorted(bottom.keys, wanted), len(bottom.keys) - 1)
    total = 0
    for i in np.flatnonzero(bottom.keys[places] == wanted):
        # Either number counts the orders of the columns, which are to agree.
        first, second = counter.number(top.ways[i]), counter.number(bottom.ways[places[i]])
        total += first * (second // _orders(digits[i].tolist()))
    return total


def _count_corner(n: int, m: int, rows: int, columns: int) -> int:
    """Count the rows × columns corners of masks of exactly n.

    What lies outside fills up every row and column and, in the corner, the total: lines of r < m
    entries keep at least n - (m - r), and all of them n (r + c - m) to that plus (m - r)(m - c).
    """
    least, most, cap = max(n - (m - columns), 0), min(n, columns), min(n, rows)
    if most == 0:
        return 1
    bits = rows * math.log2(sum(comb(columns, k) for k in range(most + 1)))
    counter = _Counter(columns, cap, most, bits)
    what = f"a part of {n}:{m} of {rows}×{columns}"
    if _ways(columns, cap) > 1 << 40:
        counter.check(_ways(columns, cap), what)
    sizes = ((r, _partitions(columns, min(cap, r))) for r in range(1, rows + 1))
    counter.check(sum(sum(size[r * least : r * most + 1]) for r, size in sizes), what)
    layer = counter.start([columns] + [0] * cap)
    for _ in range(rows):
        layer = counter.take_row(layer, least, most)
    layer = counter.keep(layer, n - (m - rows))
    kept = counter.digits(layer.keys) @ np.arange(cap + 1)
    low = n * (rows + columns - m)
    fits = (kept >= low) & (kept <= low + (m - rows) * (m - columns))
    return counter.total(_Layer(layer.keys[fits], layer.ways[fits]))


class _Ranked(NamedTuple):
    """All states of columns at consecutive levels, by rank, and in how many ways each arises.

    Parameters
    ----------
    ways : (states, words) uint64 array
        For one order of the columns, in words of 63 bits.
    sums : (levels, states) int16 array
        Columns at the lowest 1, 2, ... levels; so in the last row all of them. The rank of a
        state is the sum of comb(sums[j] + j, j + 1) over all other rows.
    lowest : int
        The lowest level: columns there hold so many entries, or fewer.
    """

    ways: NDArray[np.uint64]
    sums: NDArray[np.int16]
    lowest: int


def _count_loose(n: int, m: int, rows: int, columns: int) -> int:
    """Count the rows × columns matrices of line sums up to n.

    With f and g the ways of one half of the rows and of the other: the sum over all states c of
    f(c) times the sum of g over all states whose columns hold no more than n - c_j each.
    """
    if n >= rows:
        return int(sum(comb(columns, k) for k in range(min(n, columns) + 1)) ** rows)
    half = rows - rows // 2
    bits = (sum(comb(columns, k) for k in range(n + 1)) ** half).bit_length()
    words = bits // 63 + 1
    states = [comb(columns + levels, levels) for levels in _loose_levels(n, rows)]
    size = (n + 1) * words
    if max(states) * size > _MOST_WORDS or sum(states) * columns * size > _MOST_ADDED:
        what = f"{n}:{m} (at_most)" if rows == m else f"a part of {n}:{m} of {rows}×{columns}"
        raise _too_many(what, sum(states), bits)
    *_, top, bottom = deque(_loose_layers(n, rows, columns, words), maxlen=2)
    if rows % 2 == 0:
        top = bottom
    below = bottom.ways.copy()[:, None]
    for level in range(1, len(bottom.sums)):
        _add_lower(below, bottom.sums, level, 0)
    # Columns that hold k after the first rows may take n - k.
    ranks = np.zeros(len(top.ways), dtype=np.int64)
    for level in range(1, len(bottom.sums)):
        over = min(n - bottom.lowest - level - top.lowest, len(top.sums) - 1)
        ranks += _firsts(columns, level)[columns - top.sums[over]]
    factorials = np.array([factorial(k) for k in range(columns + 1)])
    total = 0
    for start in range(0, len(ranks), _CHUNK):
        part = slice(start, start + _CHUNK)
        alike = np.diff(top.sums[:, part], axis=0, prepend=np.int16(0))
        orders = factorials[columns] // factorials[alike].prod(axis=0)
        products = _integers(top.ways[part]) * _integers(below[ranks[part], 0])
        total += int((orders * products).sum())
    return total


def _loose_levels(n: int, rows: int) -> list[int]:
    """Levels above the lowest while each row of a half is taken; see `_loose_layers`."""
    return [min(row, n) - max(row - 1 - (rows - n), 0) for row in range(1, rows - rows // 2 + 1)]


def _loose_layers(n: int, rows: int, columns: int, words: int) -> Iterator[_Ranked]:
    """Yield the layers after 0, 1, ... rows of up to n entries, up to half of them, rounded up."""
    layer = _Ranked(np.zeros((1, words), np.uint64), np.full((1, 1), columns, np.int16), 0)
    layer.ways[0, 0] = 1
    yield layer
    for row in range(1, rows - rows // 2 + 1):
        ways, sums, lowest = layer
        if row <= n:
            sums = _with_one_level_more(sums)
        # At q: the row has taken up to q. States with no column at a new level come last.
        taken = np.zeros((sums.shape[1], n + 1, words), dtype=np.uint64)
        taken[-len(ways) :] = ways[:, None]
        for level in range(len(sums) - 1, 0, -1):
            _add_lower(taken, sums, level, 1)
        ways = taken[:, n].copy()
        if row > rows - n:  # columns at the lowest two levels can take all rows to come: alike
            _add_lower(ways[:, None], sums, 1, 0)
            alike = sums[0] == 0
            ways, sums, lowest = ways[alike], sums[1:, alike], lowest + 1
        layer = _Ranked(ways, sums, lowest)
        yield layer


def _with_one_level_more(sums: NDArray[np.int16]) -> NDArray[np.int16]:
    """Return the sums of all states when columns may also lie one level higher."""
    columns, levels = int(sums[-1, 0]), len(sums)
    sizes = np.diff(_firsts(columns, levels))  # by columns at the old levels
    grown = np.concatenate([sums[:, :size] for size in sizes], axis=1)
    grown[-1] = np.repeat(np.arange(columns + 1), sizes)
    return np.vstack([grown, np.full_like(grown[-1:], columns)])


def _firsts(columns: int, level: int) -> _Array:
    """Rank of the first state with 0, 1, ..., columns + 1 columns below this level."""
    return np.array([comb(v + level - 1, level) for v in range(columns + 2)])


def _add_lower(ways: NDArray[np.uint64], sums: NDArray[np.int16], level: int, shift: int) -> None:
    from .kernels.counting import add_lower

    add_lower(ways, sums[level], _firsts(int(sums[-1, 0]), level), shift)


def _integers(ways: NDArray[np.uint64]) -> NDArray[np.object_]:
    """Return the integers of all rows of words."""
    powers = np.array([1 << 63 * w for w in range(ways.shape[1])], dtype=object)
    return np.asarray(ways.astype(object) @ powers)


@lru_cache(maxsize=256)
def _partitions(parts: int, largest: int) -> list[int]:
    """Partitions of 0, 1, ... into at most `parts` parts of at most `largest` each.

    The coefficients of the Gaussian binomial, by its recurrence in the number of parts.
    """
    size = parts * largest + 1
    found = [1] + [0] * (size - 1)
    for part in range(1, largest + 1):  # times (1 - q^(parts + part)) / (1 - q^part)
        for total in range(size - 1, parts + part - 1, -1):
            found[total] -= found[total - parts - part]
        for total in range(part, size):
            found[total] += found[total - part]
    return found


class _Layer(NamedTuple):
    """States after some rows, by key, ascending, and in how many ways each arises, as limbs."""

    keys: _Array
    ways: _Array


class _Counter:
    """Rows that are taken one after the other by columns of up to `cap` entries each.

    The key of a state is its numbers of columns at level 0, 1, ..., cap as digits to the base
    columns + 1, lowest first.
    """

    def __init__(self, columns: int, cap: int, most: int, bits: float) -> None:
        self.columns, self.cap, self.base = columns, cap, columns + 1
        self.top = self.base ** (cap + 1)  # above all keys
        self.most, self.bits = most, bits
        # A limb times the largest binomial, columns + 1 of them added up, fits an int64.
        largest = comb(columns, min(most, columns // 2))
        self.limb = 62 - largest.bit_length() - self.base.bit_length()
        self.limbs = int(bits // max(self.limb, 1)) + 2

    def work(self, states: int) -> int:
        """Limbs of so many states; beyond the limit if no int64 holds what is needed."""
        return states * self.limbs if self.fits else _MOST_WORK + states * self.limbs

    @property
    def fits(self) -> bool:
        """Whether an int64 holds every key and every limb's products."""
        return self.top * (self.most + 1) < 2**63 and self.limb >= 8

    def check(self, states: int, what: str) -> None:
        """Refuse what would take minutes, and what does not fit."""
        if self.work(states) <= _MOST_WORK:
            return
        if states * self.limbs <= _MOST_WORK:
            keys = f"for {self.columns} columns of {self.cap}"
            raise _too_large(what, f"need longer keys than there are, {keys}")
        raise _too_many(what, states, self.bits)

    def start(self, levels: Sequence[int]) -> _Layer:
        """Return the layer of one state, given its number of columns at each level."""
        key = sum(count * self.base**level for level, count in enumerate(levels))
        ways = np.zeros((1, self.limbs), dtype=np.int64)
        ways[0, 0] = 1
        return _Layer(np.array([key], dtype=np.int64), ways)

    def digits(self, keys: _Array) -> _Array:
        """Return the numbers of columns at each level, (states, cap + 1)."""
        powers = self.base ** np.arange(self.cap + 1, dtype=np.int64)
        return np.asarray(keys[:, None] // powers % self.base)

    def take_row(
        self, layer: _Layer, least: int, most: int, levels: Sequence[int] | None = None
    ) -> _Layer:
        """Let a row take `least` to `most` entries, each from another column at one of `levels`.

        Without `levels`, below the cap. They go from high to low, so that no column is taken
        twice. Meanwhile a key has one more digit: what the row has taken so far.
        """
        if levels is None:
            levels = range(self.cap - 1, -1, -1)
        keys, ways = layer
        binomials = _binomials(self.columns, most)
        below = self.digits(keys)[:, levels].sum(axis=1)  # what levels not yet reached can give
        for level in levels:
            power = self.base**level
            step = power * self.base - power + self.top
            here, taken = keys // power % self.base, keys // self.top
            below = below - here
            parts = []
            for t in range(min(int(here.max(initial=0)), most) + 1):
                fits = (here >= t) & (taken + t <= most) & (taken + t + below >= least)
                if fits.any():
                    gained = ways[fits] * binomials[here[fits], t][:, None]
                    parts.append((keys[fits] + t * step, gained, below[fits]))
            keys, ways, below = self._merge(parts)
        keys, ways, _ = self._merge([(keys % self.top, ways, below)])
        return _Layer(keys, ways)

    def keep(self, layer: _Layer, lowest: int) -> _Layer:
        """Keep the states whose columns all hold at least `lowest` entries."""
        fits = (self.digits(layer.keys)[:, : max(lowest, 0)] == 0).all(axis=1)
        return _Layer(layer.keys[fits], layer.ways[fits])

    def number(self, limbs: _Array) -> int:
        """Return the integer of one row of limbs."""
        return sum(limb << self.limb * place for place, limb in enumerate(limbs.tolist()))

    def total(self, layer: _Layer) -> int:
        """Add up all ways."""
        return sum(map(self.number, layer.ways))

    def _merge(self, parts: list[tuple[_Array, _Array, _Array]]) -> tuple[_Array, _Array, _Array]:
        """Add up the ways of equal keys; what is third is the same for them."""
        keys = np.concatenate([np.empty(0, dtype=np.int64), *(part[0] for part in parts)])
        if keys.size == 0:
            return keys, np.empty((0, self.limbs), dtype=np.int64), keys
        ways, third = (np.concatenate([part[k] for part in parts]) for k in (1, 2))
        parts.clear()  # they are as large again
        order = np.argsort(keys, kind="stable")
        first = np.flatnonzero(np.diff(keys[order], prepend=-1))
        ways = np.add.reduceat(ways[order], first, axis=0)
        for place in range(self.limbs - 1):
            ways[:, place + 1] += ways[:, place] >> self.limb
            ways[:, place] &= (1 << self.limb) - 1
        return keys[order][first], ways, third[order][first]


@lru_cache(maxsize=16)
def _binomials(size: int, most: int) -> _Array:
    return np.array([[comb(a, b) for b in range(most + 1)] for a in range(size + 1)])
