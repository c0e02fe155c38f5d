"""Scores as kernels load them are those of the fixed point, whatever m and dtype."""

import ml_dtypes
import numpy as np
import pytest
from numba import njit

from masksolve.kernels.lines import LANES
from masksolve.kernels.loading import as_loaded, load, load_scratch
from masksolve.scores import to_fixed_point


@njit
def load_lanes(how, W, top, left, work, Q, largest):
    """The kernel: what only kernels call has no entry for Python."""
    return load(how, W, top, left, work, Q, largest)


def loaded(W, m, left=0, absolute=True, clip=False):
    entries, how, scores = as_loaded(W, m, absolute=absolute, clip=clip)
    Q, largest = np.zeros((m * m, LANES), scores), np.zeros(LANES, np.float32)
    work = load_scratch(m, scores)
    fine = load_lanes(how, entries, m, left, work, Q, largest)
    return fine, Q, largest


def rows_of(W, m, left):
    """Blocks of the second row of blocks of W, from column `left` on."""
    part = W[m : 2 * m, left : left + LANES * m]
    return part.reshape(m, -1, m).swapaxes(0, 1)


@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
@pytest.mark.parametrize("m", [1, 3, 4, 5, 8, 12, 16, 32])
def test_loaded_scores_are_the_fixed_point(m, dtype, absolute):
    rng = np.random.default_rng(m)
    W = rng.standard_normal((2 * m, (LANES + 3) * m))
    W[:, m : 2 * m] *= 1e-6  # in float16 subnormal
    W[:, 2 * m : 3 * m] = 0
    W = W.astype(dtype)
    for left in (0, LANES * m):
        fine, Q, largest = loaded(W, m, left, absolute)
        assert fine
        blocks = rows_of(W, m, left)
        q, _ = to_fixed_point(np.ascontiguousarray(blocks), absolute=absolute)
        lanes = Q[:, : len(q)].T.reshape(-1, m, m)
        assert (lanes == q).all(), "a score came to another place, or another number"
        assert (largest[: len(q)] == np.abs(q).max((1, 2)).astype(np.float32)).all()


@pytest.mark.parametrize(("dtype", "scale"), [(np.float32, 1e-42), (np.float64, 1e-318)])
@pytest.mark.parametrize("sign", [1, -1])
def test_subnormal_and_huge_blocks_stand_side_by_side(dtype, scale, sign):
    W = sign * np.random.default_rng(0).random((8, 4 * LANES))
    W[:, :4] *= scale
    W[:, 4:8] *= np.finfo(dtype).max
    W = W.astype(dtype)
    fine, Q, _ = loaded(W, 4)
    assert fine
    q, _ = to_fixed_point(np.ascontiguousarray(rows_of(W, 4, 0)))
    assert (Q.T.reshape(-1, 4, 4) == q).all()
    assert q[:2].max((1, 2)).min() >= 2**39, "neither vanishes"


def test_negative_scores_that_may_be_left_out_are_zeros():
    W = np.random.default_rng(1).standard_normal((8, 4 * LANES)).astype(np.float32)
    _, Q, _ = loaded(W, 4, absolute=False)
    _, clipped, _ = loaded(W, 4, absolute=False, clip=True)
    assert (Q < 0).any()
    assert (clipped == np.maximum(Q, 0)).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_a_score_that_is_not_finite_is_seen(dtype, bad):
    for place in ((4, 0), (7, 4 * LANES - 1), (5, 13)):
        W = np.ones((8, 4 * LANES), dtype)
        W[place] = bad
        with np.errstate(invalid="ignore"):
            assert not loaded(W, 4)[0]
