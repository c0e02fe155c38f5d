"""The kernels against slow, plain Python; run compiled and with NUMBA_DISABLE_JIT=1."""

import numpy as np
import pytest
from numba import config, njit

from masksolve.kernels import greedy, short_keys
from masksolve.scores import to_fixed_point

SHAPES = [(n, m) for m in (1, 2, 3, 4, 6) for n in range(m + 1)]


@pytest.fixture(autouse=True)
def wrapping_round():
    """Uncompiled, NumPy tells of what wraps round."""
    with np.errstate(over="ignore"):
        yield


def blocks_with_ties(m, signed):
    rng = np.random.default_rng(m)
    few = rng.integers(-2 if signed else 0, 4, size=(30, m, m))
    wide = rng.integers(-(2**40) if signed else 0, 2**40 + 1, size=(10, m, m))
    return np.concatenate([few, wide])


def descending(block):
    """Positions from the largest score down, ties by position."""
    m = len(block)
    return sorted(np.ndindex(m, m), key=lambda p: (-block[p], p))


def plain_greedy(block, n, drop_negative=False, kept=None):
    kept = np.zeros(block.shape, bool) if kept is None else kept.copy()
    for i, j in descending(block):
        if drop_negative and block[i, j] < 0:
            break
        if not kept[i, j] and kept[i].sum() < n and kept[:, j].sum() < n:
            kept[i, j] = True
    return kept


def plain_cover(block, n):
    m = len(block)
    pruned = np.zeros(block.shape, bool)
    for i, j in reversed(descending(block)):
        if pruned[i].sum() < m - n or pruned[:, j].sum() < m - n:
            pruned[i, j] = True
    return ~pruned


@pytest.mark.parametrize(("n", "m"), SHAPES)
@pytest.mark.parametrize("signed", [False, True])
def test_descend_is_the_plain_greedy(n, m, signed):
    blocks = blocks_with_ties(m, signed)
    mask = np.ones(blocks.shape, bool)
    for drop in (False, True):
        greedy.solve_blocks(blocks, n, drop, False, mask)
        expected = [plain_greedy(block, n, drop) for block in blocks]
        assert (mask == expected).all()


@pytest.mark.parametrize(("n", "m"), SHAPES)
def test_cover_is_the_plain_cover(n, m):
    blocks = blocks_with_ties(m, signed=True)
    mask = np.ones(blocks.shape, bool)
    expected = np.array([plain_cover(block, n) for block in blocks])
    greedy.cover(blocks, n, False, mask)
    assert (mask == expected).all()
    greedy.cover(blocks, n, True, mask)
    assert (mask == (expected & (blocks >= 0))).all()


@pytest.mark.parametrize(("n", "m"), SHAPES)
def test_the_cover_form_filled_up_is_the_descending_greedy(n, m):
    """The theorem, ties included: one fixed order of the entries makes both the same."""
    blocks = blocks_with_ties(m, signed=False)
    descended, covered = np.ones(blocks.shape, bool), np.ones(blocks.shape, bool)
    greedy.solve_blocks(blocks, n, False, False, descended)
    greedy.cover(blocks, n, False, covered)
    filled = [plain_greedy(b, n, kept=k) for b, k in zip(blocks, covered, strict=True)]
    assert (descended == filled).all()


@pytest.mark.parametrize(("n", "m"), SHAPES)
def test_complete_makes_every_line_exact(n, m):
    blocks = blocks_with_ties(m, signed=True)
    mask = np.ones(blocks.shape, bool)
    greedy.solve_blocks(blocks, n, False, False, mask)
    before = mask.copy()
    greedy.solve_blocks(blocks, n, False, True, mask)
    assert (mask.sum(axis=1) == n).all()
    assert (mask.sum(axis=2) == n).all()
    full = (before.sum(axis=1) == n).all(axis=1)
    assert (mask[full] == before[full]).all(), "masks that are exact already stay"


def plain_completion(block, n):
    """The rule in plain Python: exchanges of three entries, then diagonals if that is too little."""
    m, kept = len(block), plain_greedy(block, n)
    completed = False
    for i in range(m):
        while kept[i].sum() < n:
            ways = [
                (block[i, q] - block[p, q] + block[p, j], -p, -j, -q)
                for j in range(m)
                for p, q in np.ndindex(m, m)
                if kept[:, j].sum() < n and kept[p, q] and not kept[i, q] and not kept[p, j]
            ]
            _, p, j, q = max(ways)
            kept[i, -q], kept[-p, -q], kept[-p, -j] = True, False, True
            completed = True
    if completed and block[kept].sum() * m < n * block.sum():
        j, i = np.meshgrid(*[np.arange(m)] * 2)
        diagonals = [(j - i - first) % m < n for first in range(m)]
        kept = max(diagonals, key=lambda mask: block[mask].sum())
    return kept


@pytest.mark.parametrize(("n", "m"), SHAPES)
def test_completion_goes_by_its_rule(n, m):
    blocks = blocks_with_ties(m, signed=False)
    mask = np.ones(blocks.shape, bool)
    greedy.solve_blocks(blocks, n, False, True, mask)
    assert (mask == [plain_completion(block, n) for block in blocks]).all()


def test_one_completing_path_is_the_best_of_all():
    """One missing entry: compare with every path (i, q), (p, q), (p, j)."""
    rng = np.random.default_rng(1)
    tried = 0
    for block in rng.integers(0, 50, size=(60, 4, 4)):
        before = plain_greedy(block, 2)
        if before.sum() != 7:
            continue
        tried += 1
        i, j = int(before.sum(axis=1).argmin()), int(before.sum(axis=0).argmin())
        gains = [
            block[i, q] - block[p, q] + block[p, j]
            for p, q in np.argwhere(before)
            if not before[i, q] and not before[p, j]
        ]
        after = before[None].copy()
        greedy.solve_blocks(block[None], 2, False, True, after)
        assert block[after[0]].sum() == block[before].sum() + max(gains)
    assert tried > 5


def test_what_ends_below_the_average_gives_way_to_diagonals():
    """Completed by paths alone, this block keeps 9 of 14: less than 2/3."""
    block = np.array([[[1, 1, 2], [1, 0, 2], [2, 2, 3]]])
    mask = np.ones(block.shape, bool)
    greedy.solve_blocks(block, 2, False, True, mask)
    kept = {(int(j) - int(i)) % 3 for _, i, j in np.argwhere(mask)}
    assert len(kept) == 2, "two whole diagonals"
    assert block[mask].sum() == 10


@pytest.mark.skipif(
    bool(config.DISABLE_JIT), reason="without compilation, large blocks take minutes"
)
@pytest.mark.parametrize(("n", "m"), [(8, 16), (5, 17), (16, 32), (32, 64), (3, 70)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_raw_scores_and_integer_blocks_have_the_same_mask(n, m, dtype):
    rng = np.random.default_rng(m)
    gauss = rng.standard_normal((m, 11 * m))  # a whole group of lanes, and a part of one
    for W in (gauss, rng.integers(0, 3, gauss.shape), gauss * 1e-42, gauss * 1e37):
        W = W.astype(dtype)
        blocks = W.reshape(m, 11, m).swapaxes(0, 1)
        for absolute in (True, False):
            q, _ = to_fixed_point(np.ascontiguousarray(blocks), absolute=absolute)
            for drop_negative, exact in ((True, False), (False, True)):
                mask, expected = np.ones(W.shape, bool), np.ones(q.shape, bool)
                assert greedy.solve_band(W, n, m, mask, absolute, drop_negative, exact)
                greedy.solve_blocks(q, n, drop_negative, exact, expected)
                assert (mask.reshape(m, 11, m).swapaxes(0, 1) == expected).all()


def close_scores(rng, shape, m):
    """Where the leading bits of a score do not tell all: near 1, near ties, small beside a large one."""
    near = 1 + rng.standard_normal(shape) * 1e-6
    near[:, : 2 * m] = rng.integers(1, 4, (shape[0], 2 * m))  # ties that are none but ties
    small = rng.standard_normal(shape)
    small[::m, :: 2 * m] *= 1e6
    return [near, small, rng.standard_normal(shape)]


@pytest.mark.parametrize(
    ("n", "m"), [(0, 4), (2, 4), (4, 4), (3, 6), (4, 8), (8, 8), (8, 11), (8, 16), (9, 16)]
)
def test_masks_of_raw_scores_are_the_plain_greedy(n, m):
    """Short keys, where m and n have them, and what they leave in doubt."""
    rng = np.random.default_rng(n + m)
    blocks = 3 if config.DISABLE_JIT else 19  # a whole group of lanes, and a part of one
    for W in close_scores(rng, (m, blocks * m), m):
        for absolute in (True, False):
            scores = np.ascontiguousarray(W.reshape(m, blocks, m).swapaxes(0, 1))
            q, _ = to_fixed_point(scores, absolute=absolute)
            mask = np.ones(W.shape, bool)
            assert greedy.solve_band(W, n, m, mask, absolute, True, False)
            expected = [plain_greedy(block, n, drop_negative=True) for block in q]
            assert (mask.reshape(m, blocks, m).swapaxes(0, 1) == expected).all()
            assert greedy.solve_band(W, n, m, mask, absolute, False, True)
            completed = np.ones(q.shape, bool)
            greedy.solve_blocks(q, n, False, True, completed)
            assert (mask.reshape(m, blocks, m).swapaxes(0, 1) == completed).all()


def test_the_first_and_the_last_of_the_order_count():
    """The largest score rounds up to a power of two; two smallest may share their leading bits."""
    rng = np.random.default_rng(3)
    orders = rng.permuted(np.tile(np.arange(1.0, 17.0), (600, 1)), axis=1)
    orders[::2][orders[::2] == 2] = 1 + 2.0**-22
    orders[orders == 16] = np.nextafter(16.0, 0.0)
    blocks = orders.reshape(-1, 4, 4)
    q, _ = to_fixed_point(blocks, absolute=True)
    W = np.ascontiguousarray(blocks.swapaxes(0, 1).reshape(4, -1))
    mask = np.ones(W.shape, bool)
    assert greedy.solve_band(W, 3, 4, mask, True, True, False)
    expected = np.array([plain_greedy(block, 3) for block in q])
    assert (mask.reshape(4, -1, 4).swapaxes(0, 1) == expected).all()
    assert (q.max(axis=(1, 2)) == 2**40).all()


def test_a_close_pair_is_told_apart_wherever_it_stands():
    """In one column, in the upper and the lower half: the later of the two is the larger."""
    rng = np.random.default_rng(5)
    count = 20 if config.DISABLE_JIT else 400
    blocks = rng.permuted(np.tile(np.arange(1.0, 257.0), (count, 1)), axis=1).reshape(-1, 16, 16)
    for block in blocks:
        upper, lower, column = rng.integers(8), rng.integers(8, 16), rng.integers(16)
        block[lower, column] = block[upper, column] + 2.0**-17
    q, _ = to_fixed_point(blocks, absolute=True)
    W = np.ascontiguousarray(blocks.swapaxes(0, 1).reshape(16, -1))
    mask = np.ones(W.shape, bool)
    assert greedy.solve_band(W, 8, 16, mask, True, True, False)
    expected = [plain_greedy(block, 8) for block in q]
    assert (mask.reshape(16, -1, 16).swapaxes(0, 1) == expected).all()


@njit
def descend_short(*arguments):
    short_keys.descend_short(*arguments)


def test_scores_that_are_close_are_left_in_doubt():
    """Of the matrices of the test above some blocks go the one way and some the other."""
    rng = np.random.default_rng(24)
    m = 16
    for W, some in zip(close_scores(rng, (m, 16 * m), m), (14, 8, 0), strict=True):
        q, _ = to_fixed_point(W.reshape(m, 16, m).swapaxes(0, 1), absolute=True)
        lanes = np.ascontiguousarray(q.reshape(16, m * m).T, dtype=np.float64)
        work, doubt = short_keys.short_scratch(m), np.zeros(16, bool)
        descend_short(short_keys.short_kernels(m), work, lanes, m, 8, True, False, doubt)
        assert some <= doubt.sum() < 16


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_is_told(bad):
    mask = np.ones((4, 18), bool)
    for place in ((0, 0), (3, 7), (2, -1)):
        W = np.ones(mask.shape, np.float32)
        W[place] = bad
        with np.errstate(invalid="ignore"):
            assert not greedy.solve_band(W, 1, 2, mask, True, True, False)


def test_what_drops_negative_scores_cannot_be_completed():
    mask = np.ones((1, 2, 2), bool)
    with pytest.raises(ValueError, match="cannot be completed"):
        greedy.solve_blocks(np.ones((1, 2, 2), np.int64), 1, True, True, mask)
    with pytest.raises(ValueError, match="cannot be completed"):
        greedy.solve_band(np.ones((2, 2)), 1, 2, mask[0], True, True, True)
