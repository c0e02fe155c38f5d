"""Scratch lies on cache lines, is used again, and never by two bands at once."""

import threading

import numpy as np
import pytest
from numba import config

import masksolve as ms
from masksolve.kernels import scratch


@pytest.fixture
def made(monkeypatch):
    """Nothing lies idle; a maker that notes what it makes."""
    monkeypatch.setattr(scratch, "_IDLE", {})
    sets = []

    def make(m, *others):
        sets.append((m, *others, np.zeros(m)))
        return sets[-1]

    return make, sets


@pytest.mark.parametrize("shape", [5, (3, 7), (0, 4)])
@pytest.mark.parametrize("dtype", [np.bool_, np.float32, np.int64])
def test_arrays_begin_with_a_cache_line(shape, dtype):
    array = scratch.aligned(shape, dtype, 1)
    assert array.ctypes.data % 64 == 0
    assert array.shape == np.empty(shape).shape
    assert array.dtype == dtype
    assert (array == 1).all()
    assert array.flags.c_contiguous
    assert not scratch.aligned(shape, dtype).any()


def test_a_set_is_used_again_for_the_same_and_nothing_else(made):
    make, sets = made
    for others in ((), ("a",), ("b",), ("a",), ()):
        with scratch.borrowed(make, 8, *others) as found:
            assert found[:-1] == (8, *others)
    assert len(sets) == 3


def test_two_bands_at_once_have_two_sets(made):
    make, sets = made
    with scratch.borrowed(make, 8) as one, scratch.borrowed(make, 8) as two:
        assert one is not two
    assert len(sets) == 2
    with scratch.borrowed(make, 8) as three:
        assert three is one or three is two


def test_what_is_large_or_was_left_by_an_error_is_not_kept(made):
    make, sets = made
    for _ in range(2):
        with scratch.borrowed(make, 65):
            pass
    assert len(sets) == 2
    for _ in range(2):
        with pytest.raises(RuntimeError), scratch.borrowed(make, 8):
            raise RuntimeError
    assert len(sets) == 4


@pytest.mark.skipif(bool(config.DISABLE_JIT), reason="without compilation, it takes minutes")
@pytest.mark.parametrize("method", ["flow", "greedy"])
def test_what_other_bands_left_in_it_changes_nothing(monkeypatch, method):
    """Other scores, n, degree, dtype and sign before it; and many threads that borrow at once."""
    rng = np.random.default_rng(0)
    W = rng.normal(size=(64, 320)).astype(np.float32)
    monkeypatch.setattr(scratch, "_IDLE", {})
    fresh = ms.find_mask(W, 4, 8, method=method)

    def others():
        for n, degree, dtype in ((1, "exact", "f4"), (7, "at_most", "f4"), (4, "exact", "f8")):
            huge = rng.normal(size=(40, 136)).astype(dtype) * 2.0**100
            ms.find_mask(huge, n, 8, method=method, degree=degree)
            ms.find_mask(-np.abs(huge), n, 8, method=method, degree=degree, absolute=False)

    wrong = []

    def hammer():
        for _ in range(10):
            others()
            if (ms.find_mask(W, 4, 8, method=method) != fresh).any():
                wrong.append(1)

    threads = [threading.Thread(target=hammer) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
