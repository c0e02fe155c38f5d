"""Exhaustive search: every pattern of a block as a convolution filter, then an argmax."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ..diversity import count_masks, count_maximal_masks, enumerate_masks, estimate_masks
from ..errors import TooLargeError
from ..pattern import Degree, Pattern
from ..solution import BlockSolution

__all__ = ["MAX_PATTERNS", "count_patterns", "solve", "too_many"]

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
    filters = _filters(n, m, degree)
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
def _filters(n: int, m: int, degree: Degree) -> NDArray[np.bool_]:
    """All masks of a block that may be the best, (P, m*m), read-only."""
    filters = enumerate_masks(n, m, degree=degree, maximal=True).reshape(-1, m * m)
    filters.flags.writeable = False
    return filters
