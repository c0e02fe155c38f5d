"""Exhaustive search: every pattern of a block as a convolution filter, then an argmax."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from ..diversity import count_masks, count_maximal_masks, estimate_masks
from ..errors import TooLargeError
from ..pattern import Degree, Pattern
from ..solution import BlockSolution

__all__ = ["MAX_PATTERNS", "count_patterns", "patterns", "solve", "too_many"]

MAX_PATTERNS = 50_000

# From m = 9 on there are at least 9! = 362880 masks, unless all or nothing is kept.
_COUNTED_M = 8
_CHUNK_ENTRIES = 1 << 18


def count_patterns(pattern: Pattern, degree: Degree) -> int:
    """Count the filters that the search needs: all exact masks, or all maximal ones."""
    if degree == "exact":
        return count_masks(pattern.n, pattern.m)
    return count_maximal_masks(pattern.n, pattern.m)


@lru_cache(maxsize=256)
def too_many(pattern: Pattern, degree: Degree) -> str | None:
    """Say why the search cannot be done for this pattern, or None if it can."""
    n, m = pattern.n, pattern.m
    if n in (0, m):
        return None
    if m > _COUNTED_M:
        # Every exact mask is also a maximal one, so this is a lower bound for at_most.
        digits = estimate_masks(n, m).log10
        amount = f"about 10^{digits:.0f}" if degree == "exact" else f"over 10^{digits - 1:.0f}"
    else:
        count = count_patterns(pattern, degree)
        if count <= MAX_PATTERNS:
            return None
        amount = f"{count}"
    return (
        f"method 'conv' tries every {pattern} pattern of a block ({degree}), and there are "
        f"{amount}, more than its limit of {MAX_PATTERNS}; use method='flow'"
    )


def solve(blocks: NDArray[np.int64], n: int, degree: Degree) -> BlockSolution:
    """Score all patterns on every block and take the best, the first among equals.

    A convolution of stride m over the matrix, with one m×m filter a pattern (Hu et al.
    2024). The products are of doubles but exact: sums of at most ``n*m`` integers of 40 bits
    stay below 2**53. For ``at_most``, maximal patterns over ``max(q, 0)`` suffice, from
    whose winner the negative entries are dropped.

    Raises
    ------
    TooLargeError
        More than `MAX_PATTERNS` patterns.
    """
    reason = too_many(Pattern(n, blocks.shape[1]), degree)
    if reason is not None:
        raise TooLargeError(reason)
    count, m = blocks.shape[:2]
    filters = patterns(n, m, degree).reshape(-1, m * m)
    values = np.maximum(blocks, 0) if degree == "at_most" else blocks
    best = _best_filter(values.reshape(count, m * m), filters)
    mask = filters[best].reshape(blocks.shape)
    if degree == "at_most":
        mask &= blocks >= 0
    return BlockSolution(mask)


def _best_filter(values: NDArray[np.int64], filters: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Index of the best filter for each row of values, in bounded memory."""
    best = np.zeros(len(values), dtype=np.intp)
    if len(filters) == 1:
        return best
    weights = filters.T.astype(np.float64)
    filter_step = min(len(filters), 4096)
    block_step = max(1, _CHUNK_ENTRIES // filter_step)
    for start in range(0, len(values), block_step):
        part = slice(start, start + block_step)
        chunk = values[part].astype(np.float64)
        record = np.full(len(chunk), -np.inf)
        for first in range(0, len(filters), filter_step):
            scores = chunk @ weights[:, first : first + filter_step]
            winner = scores.argmax(axis=1)
            top = scores[np.arange(len(chunk)), winner]
            better = top > record
            record[better] = top[better]
            best[part][better] = first + winner[better]
    return best


@lru_cache(maxsize=16)
def patterns(n: int, m: int, degree: Degree) -> NDArray[np.bool_]:
    """Generate all masks of a block, (P, m, m), read-only: exact, or at-most and maximal.

    Examples
    --------
    >>> patterns(2, 4, "exact").shape, patterns(2, 4, "at_most").shape
    ((90, 4, 4), (186, 4, 4))
    """
    if n in (0, m):  # for any m; bit sets of columns end at 63
        masks: NDArray[np.bool_] = np.full((1, m, m), n == m)
    else:
        found = [np.array(rows) for rows in _generate(n, m, degree)]
        bits = np.array(found, dtype=np.int64).reshape(-1, m)
        masks = (bits[:, :, None] >> np.arange(m)) & 1 == 1
    masks.flags.writeable = False
    return masks


def _generate(n: int, m: int, degree: Degree) -> Iterator[tuple[int, ...]]:
    """Rows of each mask as bit sets of columns.

    A maximal mask is determined by its short rows R and short columns C, which meet in kept
    entries only (see `count_maximal_masks`), and by how the rest is filled.
    """
    sizes = range(n) if degree == "at_most" else range(1)
    for r in sizes:
        for c in sizes:
            if (r == 0) != (c == 0):
                continue
            for short_rows in combinations(range(m), r):
                for short_columns in combinations(range(m), c):
                    yield from _fill(n, m, frozenset(short_rows), frozenset(short_columns))


def _fill(
    n: int, m: int, short_rows: frozenset[int], short_columns: frozenset[int]
) -> Iterator[tuple[int, ...]]:
    full_columns = [j for j in range(m) if j not in short_columns]

    def extend(rows: tuple[int, ...], room: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        i = len(rows)
        if any(room[j] > m - i for j in full_columns):
            return
        if i == m:
            yield rows
            return
        for chosen in choices(i, room):
            after = tuple(free - (j in chosen) for j, free in enumerate(room))
            shared = short_columns if i in short_rows else ()
            yield from extend((*rows, sum(1 << j for j in (*chosen, *shared))), after)

    def choices(i: int, room: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        if i not in short_rows:
            yield from combinations([j for j in range(m) if room[j]], n)
            return
        free = [j for j in full_columns if room[j]]
        for size in range(n - len(short_columns)):
            yield from combinations(free, size)

    # What the short rows take of the short columns is set aside from the start.
    room = tuple(n - 1 - len(short_rows) if j in short_columns else n for j in range(m))
    if min(room) >= 0:
        yield from extend((), room)
