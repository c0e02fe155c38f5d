"""Potentials of masks on raw scores, checked by what they prove; also with NUMBA_DISABLE_JIT=1."""

import numpy as np
import pytest
from numba import config

from masksolve.kernels import potentials
from masksolve.residual import block_objective, weak_bound
from masksolve.scores import to_fixed_point
from masksolve.testing.oracles import brute_force

from .test_ascent import family, to_blocks

PLAIN = bool(config.DISABLE_JIT)


def solved(W, n, m, at_most, absolute):
    """Fixed-point blocks, and an optimal mask in the shape of the matrix."""
    q, _ = to_fixed_point(to_blocks(W, m), absolute=absolute)
    _, best = brute_force(q, n, "at_most" if at_most else "exact")
    rows = W.shape[0] // m
    mask = best.reshape(rows, -1, m, m).swapaxes(1, 2).reshape(W.shape)
    return q, np.ascontiguousarray(mask)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize("at_most", [False, True])
@pytest.mark.parametrize("name", ["gauss", "ties", "zeros", "huge", "subnormal"])
@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (2, 3), (0, 2), (2, 2)])
def test_potentials_of_optimal_masks_prove_them(n, m, name, at_most, absolute, dtype):
    # groups that are full, groups that are not, and more than one chunk
    W = family(name, (2 * m, m * (3 if PLAIN else 150))).astype(dtype)
    q, mask = solved(W, n, m, at_most, absolute)
    u, v = (np.full((len(q), m), -7, np.int64) for _ in range(2))
    options = {"absolute": absolute, "at_most": at_most}
    assert potentials.potentials_band(W, n, m, mask, u, v, **options)
    assert (block_objective(q, to_blocks(mask, m)) == weak_bound(q, u, v, n)).all()
    if at_most:
        assert min(u.min(), v.min()) >= 0


@pytest.mark.parametrize("at_most", [False, True])
def test_no_potentials_prove_a_mask_that_is_not_optimal(at_most):
    W = family("gauss", (4, 12))
    q, mask = solved(W, 2, 4, at_most, True)
    mask[:, 4:8] = mask[::-1, 4:8].copy()
    u, v = np.zeros((3, 4), np.int64), np.zeros((3, 4), np.int64)
    assert potentials.potentials_band(W, 2, 4, mask, u, v, absolute=True, at_most=at_most)
    proven = block_objective(q, to_blocks(mask, 4)) == weak_bound(q, u, v, 2)
    assert proven.tolist() == [True, False, True]


def test_a_score_that_is_not_finite_is_told():
    W = np.ones((4, 8), np.float32)
    W[3, 7] = np.nan
    u = np.zeros((2, 4), np.int64)
    with np.errstate(all="ignore"):
        found = potentials.potentials_band(W, 2, 4, W > 0, u, u, absolute=True, at_most=False)
    assert not found


def test_blocks_too_large_to_be_written_out_are_refused():
    W = np.ones((9, 9), np.float32)
    prices = np.zeros((1, 9), np.int64)
    with pytest.raises(ValueError, match=r"9x9 blocks: .* m <= 8"):
        potentials.potentials_band(
            W, 4, 9, W > 0, prices, prices.copy(), absolute=True, at_most=False
        )
