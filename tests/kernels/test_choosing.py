"""Choices, compiled and in plain Python."""

import numpy as np
import pytest
from numba import njit

from masksolve.kernels.choosing import choose, larger, smaller


@njit
def choices(condition, a, b):
    return choose(condition, a, b), larger(a, b), smaller(a, b)


@pytest.mark.parametrize(
    ("small", "large"),
    [
        (np.float32(-1.5), np.float32(0.25)),
        (np.float64(-np.inf), np.float64(-1e308)),
        (np.int32(-7), np.int32(3)),
        (np.int64(-(2**62)), np.int64(2**62)),
        (np.uint32(7), np.uint32(2**31 + 1)),
        (np.uint64(1), np.uint64(2**63)),
    ],
)
def test_choices_are_those_of_plain_python(small, large):
    for a, b in ((small, large), (large, small), (small, small)):
        assert choices(True, a, b) == (a, max(a, b), min(a, b))
        assert choices(False, a, b) == (b, max(a, b), min(a, b))
