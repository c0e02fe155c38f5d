"""What masks and prices are worth, against the plain NumPy of the proofs; also with NUMBA_DISABLE_JIT=1."""

import numpy as np
import pytest
from numba import config

from masksolve.kernels import measure
from masksolve.residual import block_objective, weak_bound
from masksolve.scores import to_fixed_point

from .test_ascent import family, to_blocks

PLAIN = bool(config.DISABLE_JIT)
# More columns than one chunk holds, lines of 8 entries and more and of other lengths.
SHAPES = [(1, 1, 3), (2, 4, 8)] if PLAIN else [
    (1, 1, 300), (2, 5, 515), (4, 8, 528), (5, 12, 540), (8, 16, 1040), (9, 33, 528),
]  # fmt: skip


def measured(W, n, m, u, v, mask, absolute, at_most):
    """Results of `measure_band`, blocks in a row: shift, value, bound, total, proven."""
    grid = W.shape[0] // m, W.shape[1] // m
    numbers = [np.full(grid, -7, np.int64) for _ in range(4)]
    proven = np.zeros(grid, bool)
    prices = (np.ascontiguousarray(p.reshape(grid[0], -1)) for p in (u, v))
    options = {"absolute": absolute, "at_most": at_most}
    with np.errstate(over="ignore"):  # uncompiled, NumPy tells of what wraps round
        finite = measure.measure_band(W, n, m, *prices, mask, *numbers, proven, **options)
    return finite, [array.ravel() for array in (*numbers, proven)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize("name", ["gauss", "ties", "zeros", "huge", "subnormal"])
@pytest.mark.parametrize("shape", SHAPES)
def test_any_mask_and_prices_are_measured_as_numpy_does(shape, name, absolute, dtype):
    n, m, width = shape
    W = family(name, (2 * m, width)).astype(dtype)
    rng = np.random.default_rng(5)
    mask = rng.random(W.shape) < 0.5
    q, shift = to_fixed_point(to_blocks(W, m), absolute=absolute)
    u, v = (rng.integers(-(2**40), 2**40, (len(q), m)) for _ in range(2))
    before = mask.copy()
    finite, (*numbers, _) = measured(W, n, m, u, v, mask, absolute, False)
    assert finite
    assert (mask == before).all()
    x = to_blocks(mask, m)
    expected = shift, block_objective(q, x), weak_bound(q, u, v, n), q.sum(axis=(1, 2))
    for found, right in zip(numbers, expected, strict=True):
        assert (found == right).all()


@pytest.mark.parametrize("m", [4, 8])
def test_a_value_that_is_the_bound_does_not_prove_what_is_no_mask(m):
    """Zero scores and prices: everything is worth the bound, but only masks are proven."""
    W = np.zeros((m, 3 * m), np.float32)
    prices = np.zeros((3, m), np.int64)
    mask = np.zeros(W.shape, bool)
    good = np.arange(m)[:, None] // 2 == np.arange(m) // 2  # two in every line
    mask[:, :m] = good
    mask[:, m : 2 * m] = good[np.arange(m) // 2 * 2]  # rows right, columns not
    mask[:, m : 2 * m][-1] = mask[:, m : 2 * m][0]
    mask[:, 2 * m :] = mask[:, m : 2 * m].T
    for at_most in (False, True):
        found = measured(W, 2, m, prices, prices, mask, True, at_most)
        _, (_, value, bound, _, proven) = found
        assert (value == bound).all()
        assert proven.tolist() == [True, False, False]


@pytest.mark.parametrize("by_row", [True, False])
def test_negative_prices_prove_nothing_for_at_most(by_row):
    """Value and bound agree, and prove a mask that keeps exactly n; but not that fewer are worse."""
    W = np.eye(2, dtype=np.float32)
    u, v = np.full((1, 2), -5), np.full((1, 2), 5)
    if not by_row:
        u, v = v, u
    for at_most in (False, True):
        found = measured(W, 1, 2, u, v, W > 0, True, at_most)
        _, (_, value, bound, _, proven) = found
        assert value == bound
        assert proven == (not at_most)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_is_told(bad):
    for place in ((0, 0), (3, 7), (2, 519)):
        W = np.ones((4, 520), np.float32)
        W[place] = bad
        prices = np.zeros((130, 4), np.int64)
        with np.errstate(all="ignore"):
            finite, _ = measured(W, 2, 4, prices, prices, W > 0, True, False)
        assert not finite
