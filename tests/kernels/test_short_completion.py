"""The completion of many blocks at once is that of one, and knows where it cannot tell."""

import numpy as np
import pytest
from numba import config, njit, types

from masksolve.kernels import greedy, short_completion, short_keys
from masksolve.scores import to_fixed_point

LANES = 16
BLOCKS = 16 if config.DISABLE_JIT else 480

#: Blocks whose mask of n a line, completed by paths alone, would hold less than n/m of the score.
MEAGRE = {
    3: [[4, 3, 2, 4], [2, 3, 0, 3], [3, 3, 2, 4], [3, 3, 0, 4]],
    4: [[4, 2, 1, 1, 1], [3, 1, 1, 1, 2], [3, 1, 1, 0, 0], [3, 1, 1, 0, 0], [4, 2, 1, 0, 0]],
    5: [
        [3, 0, 1, 0, 0, 0], [3, 1, 1, 4, 4, 1], [1, 0, 1, 0, 0, 0],
        [2, 0, 2, 3, 3, 0], [1, 0, 2, 0, 0, 0], [2, 1, 2, 1, 1, 1],
    ],
}  # fmt: skip


@pytest.fixture(autouse=True)
def wrapping_round():
    """Uncompiled, NumPy tells of what wraps round."""
    with np.errstate(over="ignore"):
        yield


def side_by_side(blocks):
    return np.ascontiguousarray(blocks.swapaxes(0, 1).reshape(blocks.shape[1], -1))


def completed(blocks, n, dtype, absolute):
    """Masks by lanes and one by one, of the same scores."""
    m = blocks.shape[1]
    W = side_by_side(blocks).astype(dtype)
    mask = np.ones(W.shape, bool)
    assert greedy.solve_band(W, n, m, mask, absolute, False, True)
    q, _ = to_fixed_point(W.reshape(m, -1, m).swapaxes(0, 1), absolute=absolute)
    expected = np.ones(q.shape, bool)
    greedy.solve_blocks(np.ascontiguousarray(q), n, False, True, expected)
    return mask.reshape(m, -1, m).swapaxes(0, 1), expected


def told_apart_by_their_last_bits(rng, m):
    """Whole numbers, all different, whose sums of three are often equal, but for what is added to them.

    That is so little that a sum of three in float32 loses it. Sums are equal by their rows and columns;
    so that masks lack something, half of the entries change places.
    """
    whole = 256 + m * rng.permuted(np.tile(np.arange(m)[:, None], (BLOCKS, 1, 1)), axis=1)
    whole = (whole + rng.permuted(np.tile(np.arange(m), (BLOCKS, 1, 1)), axis=2)).reshape(
        BLOCKS, -1
    )
    for block in whole:
        some = rng.choice(m * m, m * m // 2, replace=False)
        block[some] = block[rng.permutation(some)]
    return (whole + rng.integers(0, 4, whole.shape) * 2.0**-15).reshape(-1, m, m)


@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("n", "m"), [(2, 4), (3, 7), (4, 8), (5, 11), (7, 12), (8, 16)])
def test_what_rounding_hides_is_decided_exactly(n, m, dtype, absolute):
    rng = np.random.default_rng(m)
    blocks = told_apart_by_their_last_bits(rng, m)
    if not absolute:
        blocks *= rng.choice([-1, 1], blocks.shape)
    mask, expected = completed(blocks, n, dtype, absolute)
    assert (mask == expected).all()


@pytest.mark.skipif(bool(config.DISABLE_JIT), reason="uncompiled, so many blocks take minutes")
@pytest.mark.parametrize(("n", "m"), [(3, 6), (4, 8)])
def test_what_rounding_turns_round_is_decided_exactly(n, m):
    """Some large scores and many small ones: their rounded sums may be in the wrong order."""
    rng = np.random.default_rng(m)
    order = rng.permuted(np.tile(np.arange(m * m), (100_000, 1)), axis=1)
    large = 0.75 - (order + 1) * 2.0**-23
    small = (order - n * m + 1) * 2.0**-23 + rng.integers(0, 4096, order.shape) * 2.0**-36
    blocks = np.where(order < n * m, large, small).reshape(-1, m, m)
    mask, expected = completed(blocks, n, np.float32, True)
    assert (mask == expected).all()


@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize(("n", "m"), [(1, 4), (3, 4), (2, 5), (4, 8), (6, 9), (8, 16)])
def test_ties_go_the_same_way(n, m, absolute):
    rng = np.random.default_rng(m)
    for most in (1, 3, 40):
        mask, expected = completed(
            rng.integers(-most, most + 1, (BLOCKS, m, m)), n, np.float32, absolute
        )
        assert (mask == expected).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", MEAGRE)
def test_what_ends_below_the_average_gives_way_to_diagonals_in_lanes_too(n, dtype):
    block = np.array(MEAGRE[n])
    m = len(block)
    mask, expected = completed(np.repeat(block[None], 5, axis=0), n, dtype, True)
    assert (mask == expected).all()
    offsets = {(int(j) - int(i)) % m for i, j in np.argwhere(mask[0])}
    assert len(offsets) == n, "whole diagonals"


@njit
def complete(key_kernels, completer, keys, Q, n, m, doubt, unsure, scratch):
    """What `greedy` does with lanes: their masks before and after."""
    short_keys.descend_short(key_kernels, keys, Q, m, n, True, False, doubt)
    _, _, lost, _, state, bits = keys
    before = bits.copy()
    short_completion.call_complete(completer, (Q, n, lost, state, doubt, bits, unsure, scratch))
    return before, bits


@pytest.mark.parametrize(
    ("kind", "scores"), [("float32", types.float32), ("float64", types.float64)]
)
def test_only_what_cannot_be_told_is_left_unsure(kind, scores):
    """Of Gaussian blocks all are completed; of those told apart by their last bits some, float64 all."""
    n, m = 4, 8
    rng = np.random.default_rng(2)
    kernels, completer = short_keys.short_kernels(m), short_completion.completer(m, scores)
    keys, scratch = short_keys.short_scratch(m), short_completion.complete_scratch(m, kind)
    for blocks, some in (
        (rng.standard_normal((BLOCKS, m, m)).astype(np.float32), False),
        (told_apart_by_their_last_bits(rng, m), kind == "float32"),
    ):
        q, _ = to_fixed_point(blocks, absolute=True)
        untold = 0
        for lanes in q.reshape(-1, LANES, m * m):
            Q = np.ascontiguousarray(lanes.T, dtype=kind)
            doubt, unsure = np.zeros(LANES, bool), np.zeros(LANES, bool)
            before, after = complete(kernels, completer, keys, Q, n, m, doubt, unsure, scratch)
            kept, then = (np.bitwise_count(bits).sum(axis=0) for bits in (before, after))
            assert not unsure[kept == n * m].any()
            assert (before[:, unsure | doubt] == after[:, unsure | doubt]).all(), "left as it was"
            assert (then[~unsure & ~doubt] == n * m).all()
            untold += unsure.sum()
        assert untold < BLOCKS // 2
        assert (untold > 0) == some
