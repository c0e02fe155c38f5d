"""The native engine, proven block by block in plain NumPy; also with NUMBA_DISABLE_JIT=1."""

import numpy as np
import pytest
from numba import config, njit, types

from masksolve.kernels import ascent
from masksolve.kernels.lines import LANES, network, prove_kernel, prove_scratch, prove_signature
from masksolve.kernels.paths import path_scratch
from masksolve.kernels.pointers import address
from masksolve.residual import block_objective, find_potentials, first_bad_line, weak_bound
from masksolve.scores import to_fixed_point

PLAIN = bool(config.DISABLE_JIT)
PATTERNS = [(1, 2), (2, 5), (0, 3), (3, 3)]
FAMILIES = ["gauss", "ties", "zeros"]
if not PLAIN:
    PATTERNS += [(1, 1), (4, 8), (8, 16), (3, 16), (16, 32), (5, 33), (32, 64), (3, 70), (66, 66)]
    FAMILIES += ["constant", "huge", "cauchy", "permutation", "rank1", "subnormal", "sparse"]


def family(name, shape, seed=0):
    rng = np.random.default_rng(seed)
    if name == "gauss":
        return rng.standard_normal(shape)
    if name == "ties":
        return rng.integers(0, 4, shape).astype(float)
    if name == "zeros":
        return np.zeros(shape)
    if name == "constant":
        return np.full(shape, 0.3)
    if name == "huge":
        return np.where(rng.random(shape) < 0.02, 1e12, 1) * rng.standard_normal(shape)
    if name == "cauchy":
        return rng.standard_cauchy(shape)
    if name == "permutation":
        return (rng.permuted(np.tile(np.arange(shape[1]), (shape[0], 1)), axis=1) < 5).astype(float)
    if name == "rank1":
        return np.outer(rng.random(shape[0]), rng.random(shape[1]))
    if name == "subnormal":
        return rng.standard_normal(shape) * 1e-42
    return rng.standard_normal(shape) * (rng.random(shape) < 0.2)  # sparse


def matrix(name, m, dtype):
    blocks = 5 if PLAIN or m > 40 else LANES + 3
    return family(name, (2 * m if m < 40 else m, blocks * m)).astype(dtype)


def to_blocks(W, m):
    return W.reshape(W.shape[0] // m, m, -1, m).swapaxes(1, 2).reshape(-1, m, m)


def solve_band(W, n, m, **options):
    mask = np.zeros(W.shape, bool)
    u, v = (np.zeros((W.size // (m * m), m), np.int64) for _ in range(2))
    assert ascent.solve_band(W, n, m, mask, u, v, **options) >= 0
    return to_blocks(mask, m), u, v


def proven(q, mask, u, v, n, at_most):
    """Objectives, after checking that each is optimal to the last bit."""
    assert first_bad_line(mask, n, "at_most" if at_most else "exact") is None
    if at_most:
        assert min(u.min(), v.min()) >= 0
    objective = block_objective(q, mask)
    assert (weak_bound(q, u, v, n) == objective).all()
    return objective.tolist()


def blocks_are_proven_optimal(n, m, name):
    """Signed scores of at_most: the engine takes them as blocks, and drops negative ones."""
    q, _ = to_fixed_point(to_blocks(matrix(name, m, np.float32), m), absolute=False)
    mask, (u, v) = np.zeros(q.shape, bool), np.zeros((2, *q.shape[:2]), np.int64)
    ascent.solve_blocks(q, n, mask, u, v, at_most=True)
    assert not (mask & (q < 0)).any()
    proven(q, mask, u, v, n, at_most=True)


@pytest.mark.parametrize("at_most", [False, True])
@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(("n", "m"), PATTERNS)
def test_every_block_is_proven_optimal(n, m, name, absolute, at_most):
    if at_most and not absolute:
        blocks_are_proven_optimal(n, m, name)
        return
    for dtype in (np.float32, np.float64):
        W = matrix(name, m, dtype)
        W.flags.writeable = False
        q, _ = to_fixed_point(to_blocks(W, m), absolute=absolute)
        mask, u, v = solve_band(W, n, m, absolute=absolute, at_most=at_most)
        objective = proven(q, mask, u, v, n, at_most)
        again = np.zeros_like(mask)
        ascent.solve_blocks(q, n, again, u, v, at_most=at_most)
        assert (again == mask).all(), "integer blocks and raw scores have the same answer"
        assert proven(q, again, u, v, n, at_most) == objective


@pytest.mark.parametrize("at_most", [False, True])
@pytest.mark.parametrize("name", FAMILIES[:6])
@pytest.mark.parametrize(("n", "m"), [(1, 2)] if PLAIN else [(4, 8), (3, 16), (5, 33), (3, 70)])
def test_a_warm_start_from_anywhere_is_as_good(n, m, name, at_most):
    W = matrix(name, m, np.float32)
    q, _ = to_fixed_point(to_blocks(W, m))
    mask, u, v = solve_band(W, n, m, at_most=at_most)
    objective = proven(q, mask, u, v, n, at_most)
    extremes = np.random.default_rng(1).integers(-(2**50), 2**50, v.shape)
    for start in (v, extremes, np.full_like(v, np.iinfo(np.int64).min)):
        u, v = np.zeros_like(start), start.copy()
        ascent.solve_blocks(q, n, mask, u, v, at_most=at_most, warm=True)
        assert proven(q, mask, u, v, n, at_most) == objective


def with_specks(W, m):
    """Some blocks get one entry so small that float32 cannot tell whether equal residuals are ties."""
    W = W.copy()
    W[::m, :: 2 * m] = 2.0**-30
    return W


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["gauss", "ties", "constant", "specks"])
@pytest.mark.parametrize(("n", "m"), [(1, 2)] if PLAIN else [(1, 4), (4, 8), (8, 16)])
def test_a_block_does_not_depend_on_its_neighbours(n, m, name, dtype):
    shape = 2 * m, (LANES + 3) * m
    W = with_specks(family("ties", shape, 3), m) if name == "specks" else family(name, shape, 3)
    W = W.astype(dtype)
    together = solve_band(W, n, m)
    for row, column in ((0, 0), (0, 5), (1, LANES), (1, LANES + 2)):
        part = W[row * m : (row + 1) * m, column * m : (column + 1) * m]
        alone = solve_band(np.ascontiguousarray(part), n, m)
        for one, all_ in zip(alone, together, strict=True):
            assert (one[0] == all_[row * (LANES + 3) + column]).all()


@pytest.mark.parametrize("at_most", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("n", "m"), [(1, 2)] if PLAIN else [(2, 4), (4, 8), (8, 16)])
def test_what_other_blocks_left_over_does_no_harm(n, m, dtype, at_most):
    """The last group of a row has idle lanes, and blocks before them may be larger by any power."""
    W = np.random.default_rng(0).random((3 * m, (LANES + 1) * m)) + 0.5
    large, small = (1e38, 1e-37) if dtype == np.float32 else (1e300, 1e-300)
    for b in range(LANES + 1):
        W[:m, b * m : (b + 1) * m] *= large if b % 2 else small
    W = W.astype(dtype)
    mask, u, v = solve_band(W, n, m, at_most=at_most)
    q, _ = to_fixed_point(to_blocks(W, m))
    proven(q, mask, u, v, n, at_most)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_score_that_is_not_finite_is_told(bad, dtype):
    W = np.ones((4, 2 * (LANES + 3)), dtype)
    mask = np.zeros(W.shape, bool)
    assert ascent.solve_band(W, 1, 2, mask) >= 0
    for place in ((0, 0), (3, 7), (2, -1)):
        spoilt = W.copy()
        spoilt[place] = bad
        assert ascent.solve_band(spoilt, 1, 2, mask) == -1


@pytest.mark.skipif(PLAIN, reason="without compilation, many blocks take minutes")
@pytest.mark.parametrize("degree", ["exact", "at_most"])
def test_blocks_that_go_by_path_are_among_those_tested(degree):
    """Few Gaussian blocks need an augmenting path: enough of them, that some do."""
    q = np.random.default_rng(0).integers(0, 2**40, (3000, 16, 16))
    mask, (u, v) = np.zeros(q.shape, bool), np.zeros((2, 3000, 16), np.int64)
    at_most = degree == "at_most"
    assert ascent.solve_blocks(q, 8, mask, u, v, at_most=at_most) > 0
    proven(q, mask, u, v, 8, at_most)
    assert find_potentials(q, mask, 8, degree)[2].all()


@pytest.mark.parametrize(("n", "m"), [(1, 2), (2, 4), (1, 8), (4, 8), (8, 16), (16, 32), (5, 33)])
def test_the_pruned_network_ranks_zeros_and_ones(n, m):
    """The 0-1 principle: a network that ranks all 0-1 inputs ranks everything."""
    rng = np.random.default_rng(0)
    if m <= 8:
        values = (np.arange(2**m)[:, None] >> np.arange(m)) & 1
    else:
        ones = rng.integers(0, m + 1, 4000)
        values = rng.permuted(np.arange(m) < ones[:, None], axis=1).astype(int)
    largest = np.sort(values, axis=1)[:, ::-1]
    for i, j, _, _ in network(n, m):
        values[:, i], values[:, j] = (
            np.maximum(values[:, i], values[:, j]),
            np.minimum(values[:, i], values[:, j]),
        )
    assert (values[:, n - 1] == largest[:, n - 1]).all()
    assert (values[:, n] == largest[:, n]).all()


@pytest.mark.parametrize(("m", "comparators"), [(4, 5), (8, 17), (16, 53), (32, 157)])
def test_the_pruned_network_is_small(m, comparators):
    assert len(network(m // 2, m)) == comparators


@pytest.mark.skipif(PLAIN, reason="without compilation, many blocks take minutes")
@pytest.mark.parametrize("at_most", [False, True])
def test_good_prices_leave_few_blocks_to_the_paths(at_most):
    """As many rounds from prices of 0 leave several times as many: the start is where they begin."""
    n, m = 8, 16
    W = family("gauss", (160, 1600)).astype(np.float32)
    u, v = (np.zeros((W.size // 256, m), np.int64) for _ in range(2))
    mask = np.zeros(W.shape, bool)
    ascent.solve_band(W, n, m, mask, u, v, at_most=at_most)
    near = (W + 0.001 * family("gauss", W.shape, 5)).astype(np.float32)
    by_path = [
        ascent.solve_band(near, n, m, mask, u.copy(), start, at_most=at_most, warm=True)
        for start in (v.copy(), v + (0 if at_most else 2**45), np.zeros_like(v))
    ]
    assert by_path[1] == by_path[0], "a constant in all prices of an exact problem is no difference"
    assert 5 * by_path[0] < by_path[2]


@pytest.mark.skipif(PLAIN, reason="without compilation, many blocks take minutes")
def test_zeros_are_not_worth_keeping_even_tilted():
    """Else no price of 0 would prove a mask of `at_most`, and every sparse block went by path."""
    W = family("sparse", (160, 1600)).astype(np.float32)
    mask = np.zeros(W.shape, bool)
    assert ascent.solve_band(W, 8, 16, mask, at_most=True) < 0.05 * W.size / 256


@njit
def call_prove(kernel, arguments):
    ascent.call_prove(kernel, arguments)


def prove(m, quick, *question):
    """Bits, row prices and outcome of a proof of float32 scores."""
    bits, UI = np.zeros((m, LANES), np.uint64), np.zeros((m, LANES), np.int64)
    done = np.zeros(LANES, bool)
    kernel = prove_kernel(m, types.float32, quick)
    pointer = address(kernel, prove_signature(types.float32))
    call_prove(pointer, (*question, prove_scratch(m), bits, UI, done))
    return bits, UI, done


@pytest.mark.parametrize("at_most", [False, True])
@pytest.mark.parametrize(
    ("n", "m"), [(1, 2), (2, 5)] if PLAIN else [(2, 5), (4, 8), (3, 12), (8, 16), (5, 32)]
)
def test_the_quick_proof_is_the_exact_one(n, m, at_most):
    """On prices that prove a mask, and on others near them."""
    rng = np.random.default_rng(m)
    proofs = 0
    for scores in (rng.standard_normal((LANES, m, m)), rng.integers(0, 6, (LANES, m, m))):
        W = np.ascontiguousarray(scores.swapaxes(0, 1).reshape(m, -1)).astype(np.float32)
        _, u, v = solve_band(W, n, m, at_most=at_most)
        q, _ = to_fixed_point(to_blocks(W, m))
        Q = np.ascontiguousarray(q.reshape(LANES, -1).T).astype(np.float32)
        VF = np.ascontiguousarray(v.T).astype(np.float32)
        VF[0, ::3] += np.float32(2.0**37)
        U, VI = np.ascontiguousarray(u.T).astype(np.float32), VF.astype(np.int64)
        question = Q, U, VF, Q, np.ones(LANES, np.int64), VI, VF, n, at_most
        bits, UI, done = prove(m, True, *question)
        exact_bits, _, exact = prove(m, False, *question)
        assert (bits == exact_bits).all()
        assert not (done & ~exact).any()
        columns = np.arange(m, dtype=np.uint64)
        kept = (bits.T[:, :, None] >> columns & np.uint64(1)).astype(bool)
        rounded = (Q - np.tile(VF, (m, 1))).T.reshape(kept.shape)
        worst = np.where(kept, rounded, np.inf).min(axis=2)
        best = np.where(kept, -np.inf, rounded).max(axis=2)
        for lane in np.flatnonzero(exact & ~done):
            assert (worst == best)[lane].any(), "not proven, though float32 tells which are better"
        for lane in np.flatnonzero(done):
            mask = kept[[lane]]
            proven(q[[lane]], mask, UI[None, :, lane], VI[None, :, lane], n, at_most)
            proofs += 1
    assert 0 < proofs < 2 * LANES


def test_the_quick_proof_leaves_out_what_float32_cannot_tell():
    """Row 0 keeps t and leaves out t: with prices of 1 their order is lost when t - 1 is rounded."""
    S = np.repeat(np.float32([1, 0, 0, 1])[:, None], LANES, axis=1)
    U, V = np.full((2, LANES), np.float32(0.5)), np.zeros((2, LANES), np.float32)
    for t, told in ((2**30, False), (2**20, True)):
        Q = np.repeat(np.float32([t, t, 0, t])[:, None], LANES, axis=1)
        for kept_price, other_price, optimal in ((0, 0, True), (0, 1, True), (1, 0, False)):
            VI = np.repeat(np.array([[kept_price], [other_price]]), LANES, axis=1)
            question = S, U, V, Q, np.ones(LANES, np.int64), VI, VI.astype(np.float32), 1, False
            assert (prove(2, True, *question)[2] == (told and optimal)).all()
            assert (prove(2, False, *question)[2] == optimal).all()


def test_the_quick_proof_knows_where_float32_ends():
    """Prices of 2 and 1 part t from t by 1, but t - 1 is rounded to t - 2: no proof of what is kept."""
    t = 2**24 + 2
    S = np.repeat(np.float32([1, 0, 0, 1])[:, None], LANES, axis=1)
    U, V = np.full((2, LANES), np.float32(0.5)), np.zeros((2, LANES), np.float32)
    Q = np.repeat(np.float32([t, t, 0, t])[:, None], LANES, axis=1)
    VI = np.repeat(np.array([[2], [1]]), LANES, axis=1)
    question = S, U, V, Q, np.ones(LANES, np.int64), VI, VI.astype(np.float32), 1, False
    for quick in (False, True):
        assert not prove(2, quick, *question)[2].any()


def almost_ties(rng, shape, m):
    """Small numbers that differ by the last bits of a float32, and a speck in every second block."""
    W = rng.integers(0, 3, shape) + 2.0**-22 * rng.integers(0, 3, shape)
    W[::m, :: 2 * m] = 2.0**-26
    return W.astype(np.float32)


@pytest.mark.skipif(PLAIN, reason="uncompiled, so many blocks take minutes")
@pytest.mark.parametrize("at_most", [False, True])
@pytest.mark.parametrize(("n", "m"), [(3, 4), (2, 5), (6, 8)])
def test_almost_ties_have_one_answer_in_float32_and_in_integers(n, m, at_most):
    """What a quick proof misses is proven afterwards: it does not go to the paths, which may decide otherwise."""
    W = almost_ties(np.random.default_rng(m), (64 * m, 256 * m), m)
    blocks = W.size // (m * m)
    q, _ = to_fixed_point(to_blocks(W, m))
    (mask, again), (u, v) = np.zeros((2, *W.shape), bool), np.zeros((2, blocks, m), np.int64)
    again = again.reshape(q.shape)
    by_path = ascent.solve_band(W, n, m, mask, u, v, at_most=at_most)
    assert ascent.solve_blocks(q, n, again, u, v, at_most=at_most) == by_path
    assert (to_blocks(mask, m) == again).all()


@njit
def take_out(*arguments):
    ascent._take_out(*arguments)


def test_columns_that_differ_by_a_tilt_begin_at_one_price():
    m = 4
    Q, bits = np.ones((m * m, LANES), np.float32), np.zeros((m, LANES), np.uint64)
    w, lines, sets, _ = path_scratch(m, False)
    for largest in (2**40, 127):
        tilt = int(largest * ascent.TILT)
        prices = np.array([5 + tilt, 5, 6 + tilt, 5 + 4 * tilt + 2])
        VI = np.repeat(prices[:, None], LANES, axis=1)
        sizes = np.full(LANES, largest, np.float32)
        take_out(Q, bits, VI, sizes, 3, w, lines[1], sets[0])
        assert lines[1].tolist() == [5, 5, 5 + tilt if tilt else 6, prices[3]]
        assert (w == 1 - lines[1][:, None]).all()
