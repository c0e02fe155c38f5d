"""The n:4 search against every mask there is; also with NUMBA_DISABLE_JIT=1."""

import functools
import itertools

import ml_dtypes
import numpy as np
import pytest
from numba import config, njit

from masksolve.kernels import four
from masksolve.scores import to_fixed_point

from .test_ascent import family, to_blocks

PLAIN = bool(config.DISABLE_JIT)
COLUMNS = 4 * (3 if PLAIN else 37)
WAYS = [(n, at_most) for n in range(5) for at_most in (False, True) if four.does(n, at_most)]
QUICK = [(True, *way) for way in WAYS] + [(False, *way) for way in WAYS if not way[1]]
NAMES = ["gauss", "ties", "zeros", "huge", "subnormal", "tiny", "vast", "peaks"]


def numbers_kernel(*how):
    """The kernel, with the entry for Python that it is made without."""
    kernel = four._numbers_kernel(*how)
    return njit(lambda entries, first, count, found: kernel(entries, first, count, found))


@functools.cache
def all_masks(n, at_most):
    rows = [
        r for r in itertools.product((0, 1), repeat=4) if sum(r) == n or (at_most and sum(r) < n)
    ]
    masks = np.array(list(itertools.product(rows, repeat=4)))
    columns = masks.sum(axis=1)
    return masks[(columns <= n).all(axis=1) if at_most else (columns == n).all(axis=1)]


def optimum(q, n, at_most):
    return (q.reshape(-1, 16) @ all_masks(n, at_most).reshape(-1, 16).T).max(axis=1)


def check(q, mask, n, at_most):
    for axis in (1, 2):
        kept = mask.sum(axis=axis)
        assert (kept <= n).all() if at_most else (kept == n).all()
    assert ((q * mask).sum(axis=(1, 2)) == optimum(q, n, at_most)).all()


def test_there_are_as_many_masks_as_there_should_be():
    assert WAYS == [(1, False), (1, True), (2, False), (2, True), (3, False)]
    assert [len(all_masks(*way)) for way in WAYS] == [24, 209, 90, 7343, 24]


def test_the_types_are_nineteen():
    """Column sums of two rows that keep two each: 2200, 2110 and 1111 in any order."""
    assert len(four._two_rows(False)) == 19


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize(("n", "at_most"), WAYS)
@pytest.mark.parametrize("name", NAMES)
def test_matrices_have_optimal_masks(name, n, at_most, absolute, dtype):
    shape = (8, COLUMNS)
    if name == "tiny":  # at the very bottom of the type's range
        W = family("gauss", shape) * 40 * float(np.finfo(dtype).smallest_subnormal)
    elif name == "vast":
        W = np.clip(family("gauss", shape), -1, 1) * float(np.finfo(dtype).max)
    elif name == "peaks":  # all at the very top of the fixed point
        signs = np.random.default_rng(2).choice([-1, 1], shape)
        W = np.nextafter(dtype(1), dtype(0)) * signs
    else:
        W = family(name, shape)
    W = W.astype(dtype)
    mask = np.zeros(W.shape, bool)
    with np.errstate(all="ignore"):  # uncompiled, NumPy tells of underflow
        assert four.solve_band(W, n, mask, absolute=absolute, at_most=at_most)
    q, _ = to_fixed_point(to_blocks(W, 4), absolute=absolute)
    x = to_blocks(mask, 4)
    if at_most:
        x &= q >= 0
    check(q, x, n, at_most)


@pytest.mark.parametrize("kind", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(("absolute", "n", "at_most"), QUICK, ids=str)
def test_what_the_quick_kernel_decides_is_exact(absolute, n, at_most, kind):
    """Ties of large scores that small ones break, by bits that the quick kernel may cut off."""
    rng = np.random.default_rng(7)
    count = 60 if PLAIN else 8000
    shape = 4, 4 * count
    dtype = ml_dtypes.bfloat16 if kind == "bfloat16" else np.dtype(kind)
    significant = ml_dtypes.finfo(dtype).nmant
    small = 1 + rng.integers(0, 2**significant, shape) * 2.0**-significant
    small *= 2.0 ** -np.repeat(rng.integers(5, 15, count), 4)
    large = rng.choice([-1.0, -0.5, 0.5, 1.0], shape)
    scores = np.where(rng.random(shape) < 0.5, small, large)
    W = np.concatenate([scores, rng.normal(size=shape)], axis=1).astype(dtype)
    entries = W.view(np.uint16) if W.itemsize == 2 else W
    exact, found = numbers = np.zeros((2, 2 * count), np.int32)
    for quick in (0, 1):
        kernel = numbers_kernel(n, kind, absolute, at_most, bool(quick))
        with np.errstate(over="ignore"):  # uncompiled, NumPy tells of what wraps round
            kernel(entries, 0, 2 * count, numbers[quick])
    decided = found != four.DOUBT
    assert (exact >= 0).all()
    assert (found[decided] == exact[decided]).all()
    assert decided[count:].mean() > 0.9
    assert not decided.all()


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_blocks_too_small_to_scale_are_in_doubt(kind):
    """Below 2**-100 the factor is bounded, and scores of few bits are cut all the same."""
    dtype = ml_dtypes.bfloat16 if kind == "bfloat16" else np.float32
    W = (family("ties", (4, 4 * 30)) * 2.0**-110).astype(dtype)
    entries = W.view(np.uint16) if W.itemsize == 2 else W
    found = np.zeros(30, np.int32)
    with np.errstate(over="ignore"):
        numbers_kernel(2, kind, True, False, True)(entries, 0, 30, found)
    assert (found == four.DOUBT).all()


@pytest.mark.parametrize("at_most", [False, True])
def test_what_is_cut_from_eight_entries_may_add_up(at_most):
    """Two masks along a cycle of eight: one loses nothing to the cut, the other most of a unit a row.

    Cut, the first leads by three units; in truth the second does, by 7/8 of a unit.
    """
    unit = 2.0 ** -(28 - four._units(at_most).bit_length() + 1)
    orders = list(itertools.permutations(range(4)))
    blocks = []
    for first, second, both in itertools.product(orders, repeat=3):
        if any(len({a, b, c}) < 3 for a, b, c in zip(first, second, both, strict=True)):
            continue
        for lucky in range(4):
            W = np.full((4, 4), 0.01)
            for i in range(4):
                W[i, both[i]] = 0.9
                W[i, first[i]] = 0.5 + 64 * unit
                W[i, second[i]] = 0.5 + (64 - (i != lucky) + 31 / 32) * unit
            blocks.append(W)
    W = np.concatenate(blocks[: 40 if PLAIN else None], axis=1).astype(np.float32)
    exact, found = numbers = np.zeros((2, W.shape[1] // 4), np.int32)
    for quick in (0, 1):
        kernel = numbers_kernel(2, "float32", True, at_most, bool(quick))
        with np.errstate(over="ignore"):
            kernel(W, 0, numbers.shape[1], numbers[quick])
    decided = found != four.DOUBT
    assert (found[decided] == exact[decided]).all()
    assert not decided.all()


@pytest.mark.parametrize(("n", "at_most"), WAYS)
def test_integer_blocks_have_optimal_masks(n, at_most):
    rng = np.random.default_rng(3)
    q = np.concatenate(
        [
            rng.integers(-2, 3, (60, 4, 4)),
            rng.integers(-(2**40), 2**40 + 1, (60, 4, 4)),
            np.full((1, 4, 4), 2**40),
            np.full((1, 4, 4), -(2**40)),
        ]
    )
    mask = np.zeros(q.shape, bool)
    four.solve_blocks(q, n, mask, at_most=at_most)
    if at_most:
        mask &= q >= 0
    check(q, mask, n, at_most)


def test_blocks_may_have_any_strides():
    wide = np.random.default_rng(0).integers(0, 9, (1, 4, 8))
    for q in (
        wide[:, :, :4],
        wide[:, :, ::2],
        wide[:, ::-1, 4:],
        wide[:, :, :4].transpose(0, 2, 1),
    ):
        mask = np.zeros(q.shape, bool)
        four.solve_blocks(q, 2, mask)
        check(q, mask, 2, at_most=False)


@pytest.mark.parametrize(("n", "at_most"), WAYS)
@pytest.mark.parametrize("name", ["ties", "gauss"])
def test_a_block_does_not_depend_on_its_neighbours(name, n, at_most):
    W = family(name, (8, COLUMNS), 4)
    mask = np.zeros(W.shape, bool)
    four.solve_band(W, n, mask, at_most=at_most)
    for i, j in ((0, 0), (1, 2), (0, COLUMNS // 4 - 1)):
        part = np.s_[4 * i : 4 * i + 4, 4 * j : 4 * j + 4]
        alone = np.zeros((4, 4), bool)
        four.solve_band(np.ascontiguousarray(W[part]), n, alone, at_most=at_most)
        assert (alone == mask[part]).all()


@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize(("n", "at_most"), WAYS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_is_told(bad, dtype, n, at_most, absolute):
    mask = np.zeros((8, COLUMNS), bool)
    for place in np.ndindex(8, 4):
        W = np.ones(mask.shape, dtype)
        W[place[0], place[1] - 4] = bad
        with np.errstate(all="ignore"):
            assert not four.solve_band(W, n, mask, absolute=absolute, at_most=at_most)
