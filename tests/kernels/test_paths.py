"""Augmenting paths alone: from any mask and any prices to an optimum and its proof."""

import numpy as np
import pytest
from numba import config, njit

from masksolve.kernels.paths import call_finish, path_kernels, path_scratch
from masksolve.residual import block_objective, first_bad_line, weak_bound
from masksolve.solvers.flow_networkx import solve as solve_with_networkx

PLAIN = bool(config.DISABLE_JIT)
SIZES = [2, 3, 6] if PLAIN else [2, 3, 8, 17, 32]
EDGES = [] if PLAIN else [63, 64, 65, 130]  # the slack begins a word of its own at 64
LARGEST = 1 << 40

RNG = np.random.default_rng


def scores(m, kind, rng):
    if kind == "ties":
        return rng.integers(-2, 3, (m, m))
    if kind == "equal rows":
        return np.tile(rng.integers(-9, 10, m), (m, 1))
    if kind == "zeros":
        return np.where(rng.random((m, m)) < 0.8, 0, rng.integers(-LARGEST, LARGEST, (m, m)))
    return rng.integers(-LARGEST, LARGEST, (m, m))


def to_words(mask, words):
    """Rows of a mask as bits: bit j % 64 of [j // 64, i]."""
    m = len(mask)
    packed = np.zeros((words, m), np.uint64)
    for j in range(m):
        packed[j // 64] |= mask[:, j].astype(np.uint64) << np.uint64(j % 64)
    return packed


def from_words(packed, m):
    columns = [packed[j // 64, :m] >> np.uint64(j % 64) & np.uint64(1) for j in range(m)]
    return np.array(columns, dtype=bool).T


@njit
def run_finish(kernel, arguments):
    """The kernel: what only kernels call has no entry for Python."""
    call_finish(kernel, arguments)


def finish(q, n, mask, v, at_most, work=None):
    """Run the kernel; returns mask, u, v."""
    m = len(q)
    w, lines, bits, sets = work or path_scratch(m, at_most)
    lines[1, :m] = v
    w[:m, :m] = q.T - v[:, None]
    words = (m + 63) // 64
    bits[:] = np.uint64(2**64 - 1)  # what is not given is not read
    bits[0, :words, :m] = to_words(mask, words)
    bits[2] = 0 if not at_most else bits[2]
    kernel, join = path_kernels(at_most)
    run_finish(kernel, (w, lines, bits, sets, n, join))
    return from_words(bits[0], m), lines[0, :m].copy(), lines[1, :m].copy()


def check(q, n, mask, u, v, at_most):
    """Duality, in plain NumPy; returns the objective."""
    degree = "at_most" if at_most else "exact"
    assert first_bad_line(mask[None], n, degree) is None
    if at_most:
        assert min(u.min(), v.min()) >= 0
    objective = block_objective(q[None], mask[None])
    assert objective == weak_bound(q[None], u[None], v[None], n)
    return int(objective[0])


@pytest.mark.parametrize("at_most", [False, True])
@pytest.mark.parametrize("kind", ["any", "ties", "equal rows", "zeros"])
@pytest.mark.parametrize("m", SIZES + EDGES)
def test_any_start_ends_at_a_proven_optimum(m, kind, at_most):
    rng = RNG(m)
    for n in {min(n, m - 1) for n in (1, m // 2, m - 1)} - {0}:
        q = scores(m, kind, rng)
        values = set()
        for prices in (1, LARGEST):
            for share in (0.0, 0.5, 1.0):
                start = rng.random((m, m)) < share
                v = rng.integers(0 if at_most else -prices, prices, m)
                values.add(check(q, n, *finish(q, n, start, v, at_most), at_most))
        assert len(values) == 1


@pytest.mark.parametrize("degree", ["exact", "at_most"])
def test_the_objective_is_that_of_networkx(degree):
    rng = RNG(5)
    q = rng.integers(-6, 7, (12, 5, 5))
    best = block_objective(q, solve_with_networkx(q, 2, degree).mask)
    for block, value in zip(q, best, strict=True):
        start = rng.random((5, 5)) < 0.4
        found = finish(block, 2, start, np.zeros(5, np.int64), degree == "at_most")
        assert check(block, 2, *found, degree == "at_most") == value


@pytest.mark.parametrize("at_most", [False, True])
def test_nothing_of_the_last_block_is_left(at_most):
    """One scratch serves block after block: the answers are those of a fresh one."""
    rng = RNG(9)
    work = path_scratch(7, at_most)
    for k in range(20):
        q, start = scores(7, "ties" if k % 2 else "any", rng), rng.random((7, 7)) < 0.5
        v = rng.integers(0, 5, 7)
        used, fresh = (finish(q, 3, start, v, at_most, scratch) for scratch in (work, None))
        for one, other in zip(used, fresh, strict=True):
            assert (one == other).all()
