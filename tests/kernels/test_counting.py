"""Sums over states against their definition, in Python's integers; also with NUMBA_DISABLE_JIT=1."""

from itertools import product
from math import comb

import numpy as np
import pytest

from masksolve.kernels import counting

WORD = 1 << 63


def states_by_rank(columns, levels):
    """All numbers of columns at each level, in order of rank."""
    found = {}
    for sums in product(range(columns + 1), repeat=levels - 1):
        if list(sums) == sorted(sums):
            rank = sum(comb(s + j, j + 1) for j, s in enumerate(sums))
            found[rank] = tuple(np.diff([0, *sums, columns]).tolist())
    assert sorted(found) == list(range(comb(columns + levels - 1, columns)))
    return [found[rank] for rank in range(len(found))]


def words_of(number, words):
    return [number // WORD**w % WORD for w in range(words)]


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize(
    ("columns", "levels", "counts", "words"),
    [(1, 2, 1, 1), (4, 2, 4, 3), (5, 4, 3, 2), (3, 5, 5, 1)],
)
def test_states_a_level_lower_are_added(columns, levels, counts, words, shift):
    rng = np.random.default_rng(0)
    states = states_by_rank(columns, levels)
    upper = np.cumsum(states, axis=1).T.astype(np.int16)
    rank = {state: place for place, state in enumerate(states)}
    # All sums fit, but carries are many: the last word is small, the others are nearly full.
    before = WORD - 1 - rng.integers(0, 4, (len(states), counts, words)).astype(np.uint64)
    before[:, :, -1] = rng.integers(0, 100, before.shape[:2])
    numbers = sum(before[:, :, w].astype(object) * WORD**w for w in range(words))
    for level in range(1, levels):
        ways = before.copy()
        first = np.array([comb(v + level - 1, level) for v in range(columns + 2)])
        counting.add_lower(ways, upper[level], first, shift)
        for place, state in enumerate(states):
            needed = counts - 1 - int(upper[level - 1, place])
            for q in range(counts):
                expected = numbers[place, q]
                for t in range(1, state[level] + 1):
                    lower = list(state)
                    lower[level] -= t
                    lower[level - 1] += t
                    if q >= shift * t and q >= needed:
                        source = numbers[rank[tuple(lower)], q - shift * t]
                        expected += comb(state[level], t) * source
                assert ways[place, q].tolist() == words_of(expected, words)
